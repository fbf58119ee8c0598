//! What the health and admin ports answer (compat 9.1).

use std::sync::{Arc, atomic::Ordering};

use hyper::StatusCode;
use konnectivity_process::{
    admin::{Answer, Request, Response, not_found, text, with_type},
    connections::ConnectionFacts,
    metrics::{CONTENT_TYPE, QuicSnapshot},
    profile,
};
use konnectivity_transport::budget::MemoryBudget;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{
        Backend,
        registry::{BackendView, Registry},
    },
    frontend::listener::ListenerCounts,
    metrics::{FrontendErrors, Metrics},
    strategy::Strategy,
};

/// Labels that tell the connections of agents apart.
const LABELS: &[&str] = &["agent_id", "connection"];

/// Answers requests from what the server knows.
#[derive(Clone)]
pub struct Routes {
    /// Backends.
    pub registry: Arc<Registry<Backend>>,
    /// The first one decides readiness.
    pub strategies: Arc<[Strategy]>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// What happened at the frontend's listener.
    pub counts: Arc<ListenerCounts>,
    /// Cancelled when the server drains.
    pub draining: CancellationToken,
    /// Whether profiles may be taken.
    pub profiling: bool,
}

impl Routes {
    /// The health port.
    pub fn health(&self, request: &Request) -> Response {
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" | "/ready" => self.ready(),
            "/metrics" => self.metrics(),
            _ => not_found(),
        }
    }

    /// The admin port.
    pub fn admin(&self, request: &Request) -> Answer {
        match request.uri().path() {
            "/metrics" => self.metrics().into(),
            "/connections" => self.connections().into(),
            path if self.profiling && profile::serves(path) => profile::answer(request),
            _ => not_found().into(),
        }
    }

    /// Ready with an agent for the first strategy, as in the reference; and, unlike there, only until the server drains,
    /// so that no new clients are sent to it.
    fn ready(&self) -> Response {
        if !self.strategies.first().is_some_and(|first| self.registry.has_any(*first)) {
            text(StatusCode::INTERNAL_SERVER_ERROR, "no connection to any proxy agent")
        } else if self.draining.is_cancelled() {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the server is draining")
        } else {
            text(StatusCode::OK, "ok")
        }
    }

    fn metrics(&self) -> Response {
        let backends = self.registry.backends();
        let connections = backends.iter().map(|backend| {
            let labels = vec![backend.agent_id().to_owned(), backend.number().to_string()];
            (labels, backend.carrier().stats())
        });
        let snapshot = QuicSnapshot {
            label_names: LABELS,
            connections: connections.collect(),
            memory_budget: self.budget.limit(),
            memory_used: self.budget.used(),
        };
        let ready = self.strategies.iter().map(|strategy| (*strategy, self.registry.count(*strategy)));
        let frontend = FrontendErrors {
            accept: self.counts.accept_errors.load(Ordering::Relaxed),
            handshake: self.counts.handshake_errors.load(Ordering::Relaxed),
        };
        match self.metrics.render(ready, frontend, &snapshot) {
            Ok(body) => with_type(body, CONTENT_TYPE),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn connections(&self) -> Response {
        let facts = self.registry.backends();
        let facts = facts.iter().map(|backend| {
            let peer = format!("{} #{}", backend.agent_id(), backend.number());
            ConnectionFacts::new(peer, backend.is_draining(), &backend.carrier().stats())
        });
        konnectivity_process::connections::reply(facts.collect())
    }
}
