//! What the health and admin ports answer (compat 9.1).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

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
    accept::listener::ListenerCounts,
    backend::{
        Backend,
        carrier::Carrier,
        registry::{BackendView, Registry},
    },
    membership::Membership,
    metrics::{ListenerErrors, Metrics},
    strategy::Strategy,
};

/// Labels that tell the connections of agents apart.
const LABELS: &[&str] = &["agent_id", "connection"];

/// Answers requests from what the server knows.
#[derive(Clone)]
pub struct Routes {
    /// Backends.
    pub registry: Arc<Registry<Backend>>,
    /// The servers that agents are told of.
    pub membership: Membership,
    /// The first one decides readiness.
    pub strategies: Arc<[Strategy]>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// What happened at the frontend's listener.
    pub counts: Arc<ListenerCounts>,
    /// What happened at the TCP port for agents.
    pub agent_counts: Arc<ListenerCounts>,
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
        let connections = backends.iter().filter_map(|backend| {
            let Carrier::Quic(connection) = backend.carrier() else { return None };
            let labels = vec![backend.agent_id().to_owned(), backend.number().to_string()];
            Some((labels, connection.stats()))
        });
        let snapshot = QuicSnapshot {
            label_names: LABELS,
            connections: connections.collect(),
            memory_budget: self.budget.limit(),
            memory_used: self.budget.used(),
        };
        self.metrics.leases.listed_servers(self.membership.listed());
        let ready = self.strategies.iter().map(|strategy| (*strategy, self.registry.count(*strategy)));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let listeners = ListenerErrors {
            accept: count(&self.counts.accept_errors),
            handshake: count(&self.counts.handshake_errors),
            agent_accept: count(&self.agent_counts.accept_errors),
            agent_handshake: count(&self.agent_counts.handshake_errors),
        };
        match self.metrics.render(ready, listeners, &snapshot) {
            Ok(body) => with_type(body, CONTENT_TYPE),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn connections(&self) -> Response {
        let facts = self.registry.backends();
        let facts = facts.iter().map(|backend| {
            let peer = format!("{} #{}", backend.agent_id(), backend.number());
            match backend.carrier() {
                Carrier::Quic(connection) => ConnectionFacts::new(peer, backend.is_draining(), &connection.stats()),
                Carrier::Grpc(agent) => ConnectionFacts::over_grpc(peer, backend.is_draining(), &agent.facts()),
            }
        });
        konnectivity_process::connections::reply(facts.collect())
    }
}
