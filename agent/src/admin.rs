//! What the health and admin ports answer (compat 9.2).

use std::sync::Arc;

use dashmap::DashMap;
use hyper::{StatusCode, header};
use konnectivity_process::{
    admin::{Request, Response, not_found, readiness, text, with_type},
    connections::{self, ConnectionFacts},
    metrics::{CONTENT_TYPE, QuicSnapshot},
};
use konnectivity_transport::{budget::MemoryBudget, connection::Connection, id::ServerId};
use tokio::sync::watch;

use crate::{metrics::Metrics, server_set::ServerSetStatus};

/// The label that tells connections apart.
const LABELS: &[&str] = &["server_id"];

/// Answers requests from what the agent knows.
#[derive(Clone)]
pub struct Routes {
    /// Connections to servers.
    pub served: Arc<DashMap<ServerId, Connection>>,
    /// What the agent knows of its servers.
    pub status: watch::Receiver<ServerSetStatus>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// Where the health port is, for the admin port's redirect.
    pub health_port: u16,
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
    pub fn admin(&self, request: &Request) -> Response {
        match request.uri().path() {
            "/metrics" => self.redirect(request),
            "/connections" => connections::reply(self.facts()),
            _ => not_found(),
        }
    }

    /// Ready with a connection to at least one server; what is not ready is named, and why the last attempt failed.
    fn ready(&self, query: Option<&str>) -> Response {
        let status = self.status.borrow();
        let connected = !status.connected.is_empty();
        let reason = match &status.last_failure {
            Some(failure) => format!("no servers connected: {failure}"),
            None => "no servers connected".to_owned(),
        };
        // The reference lists its checks whenever one fails.
        let query = if connected { query } else { Some("verbose") };
        readiness(&[("server-connected", connected, &reason)], query, StatusCode::SERVICE_UNAVAILABLE)
    }

    fn metrics(&self) -> Response {
        let connections = self.served.iter().map(|entry| (vec![entry.key().to_string()], entry.value().stats()));
        let snapshot = QuicSnapshot {
            label_names: LABELS,
            connections: connections.collect(),
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
    fn redirect(&self, request: &Request) -> Response {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let name = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
        let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
        let location = format!("//{name}:{}/metrics{query}", self.health_port);
        let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
        if let Ok(location) = location.parse() {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    fn facts(&self) -> Vec<ConnectionFacts> {
        let fact = |entry: dashmap::mapref::multiple::RefMulti<'_, ServerId, Connection>| {
            ConnectionFacts::new(entry.key().to_string(), false, &entry.value().stats())
        };
        self.served.iter().map(fact).collect()
    }
}
