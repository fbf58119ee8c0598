//! What the health and admin ports answer (compat 9.2).

use std::sync::Arc;

use hyper::{StatusCode, header};
use konnectivity_process::{
    admin::{Answer, Request, Response, has_key, not_found, redirect, text, with_type},
    connections,
    metrics::{CONTENT_TYPE, QuicSnapshot},
    profile,
};
use konnectivity_transport::budget::MemoryBudget;
use tokio::sync::watch;

use crate::{metrics::Metrics, server_connection::served::Served, server_set::ServerSetStatus};

/// The label that tells connections apart.
const LABELS: &[&str] = &["server_id"];

/// Answers requests from what the agent knows.
#[derive(Clone)]
pub struct Routes {
    /// Connections to servers.
    pub served: Arc<Served>,
    /// What the agent knows of its servers.
    pub status: watch::Receiver<ServerSetStatus>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// Where the health port is, for the admin port's redirect.
    pub health_port: u16,
    /// Whether profiles may be taken.
    pub profiling: bool,
}

impl Routes {
    /// The health port.
    pub fn health(&self, request: &Request) -> Response {
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" | "/ready" => self.ready(request.uri().query()),
            "/metrics" => self.metrics(),
            _ => not_found(),
        }
    }

    /// The admin port.
    pub fn admin(&self, request: &Request) -> Answer {
        match request.uri().path() {
            "/metrics" => self.to_health_port(request).into(),
            "/connections" => connections::reply(self.served.facts()).into(),
            path if self.profiling && profile::serves(path) => profile::answer(request),
            _ => not_found().into(),
        }
    }

    /// Ready with a connection to at least one server. Without one, or if the query asks for it, checks are listed as in
    /// the reference; why the last attempt failed is told, too, and what carries each server's dials.
    fn ready(&self, query: Option<&str>) -> Response {
        let status = self.status.borrow();
        if status.connected.is_empty() {
            let reason = status.last_failure.as_ref().map_or_else(String::new, |failure| format!(": {failure}"));
            let checks = format!("[+]ping ok\n[-]server-connected failed: no servers connected{reason}\n");
            return text(StatusCode::SERVICE_UNAVAILABLE, checks);
        }
        if !has_key(query, "verbose") {
            return text(StatusCode::OK, "ok");
        }
        let transports = self.served.lines().into_iter().map(|line| format!("[+]transport ok: {line}\n"));
        let transports: String = transports.collect();
        text(StatusCode::OK, format!("[+]ping ok\n[+]server-connected ok\n{transports}check passed\n"))
    }

    fn metrics(&self) -> Response {
        let snapshot = QuicSnapshot {
            label_names: LABELS,
            connections: self.served.quic_stats(),
            memory_budget: self.budget.limit(),
            memory_used: self.budget.used(),
        };
        let status = self.status.borrow();
        match self.metrics.render(status.connected.len(), status.desired, &snapshot) {
            Ok(body) => with_type(body, CONTENT_TYPE),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// The reference moved the agent's metrics to the health port and sends scrapers there.
    fn to_health_port(&self, request: &Request) -> Response {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let name = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
        let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
        redirect(request, &format!("//{name}:{}/metrics{query}", self.health_port))
    }
}
