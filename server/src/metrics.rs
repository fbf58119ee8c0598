//! Every metric of the server. Names, labels and buckets that the reference has are the reference's, and so are the
//! help texts that its tests compare byte for byte.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use konnectivity_process::{
    dial_record::DialMetrics,
    metrics::{
        CertificateMetrics, Counted, DialTotals, KeptCounter, QuicSnapshot, Registry, Series, gauge_value, observe,
        series,
    },
};
use konnectivity_transport::{packet::PacketType, relay::Outcome};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use self::{authentication::AuthenticationMetrics, leases::LeaseMetrics, packets::PacketMetrics};
pub use self::{
    authentication::{Reached, ReviewResult},
    packets::Segment,
};
use crate::{
    auth::{Carried, TokenEnd},
    strategy::Strategy,
};

mod authentication;
mod leases;
mod packets;

const PREFIX: &str = "konnectivity_network_proxy_server_";

/// Upper bounds in seconds of the reference's histograms of dials and of writes to clients.
const LATENCY_BUCKETS: [f64; 9] = [1e-6, 1e-5, 1e-4, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5];

/// Upper bounds in seconds of the reference's histogram of established connections: a second to a day.
const CONNECTION_BUCKETS: [f64; 12] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];

/// The outcome of a dial that was closed because nothing was taken of it.
const STALLED: &str = Outcome::Stalled.label();

/// Why a dial failed, in the words of `dial_failure_count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// No connected agent serves the target.
    NoAgent,
    /// The agent answered that it could not connect.
    ErrorResponse,
    /// The client could not be told that it is connected.
    SendResponse,
    /// The agent was lost before it answered.
    BackendClose,
    /// The agent did not answer in time.
    BackendDialTimeout,
    /// The client left before the answer.
    FrontendClose,
    /// An agent over gRPC has answered a dial that nobody waits for, or not any more.
    UnrecognizedResponse,
}

impl DialFailure {
    fn reason(self) -> &'static str {
        match self {
            Self::NoAgent => "no_agent",
            Self::ErrorResponse => "error_response",
            Self::SendResponse => "send_rsp",
            Self::BackendClose => "backend_close",
            Self::BackendDialTimeout => "backend_dial_timeout",
            Self::FrontendClose => "frontend_close",
            Self::UnrecognizedResponse => "unrecognized_response",
        }
    }
}

/// What the server counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    dial_duration: Series<Histogram>,
    connection_duration: Arc<Series<Histogram>>,
    http_connections: IntGauge,
    grpc_connections: Series<IntGauge>,
    full_channels: Series<IntGauge>,
    agent_streams: Series<IntGauge>,
    slowed_agents: Series<IntGauge>,
    stalled_closed: IntCounter,
    ready_backend_connections: IntGauge,
    ready_backends: IntGaugeVec,
    pending_dials: Series<IntGauge>,
    established: Series<IntGauge>,
    dial_failures: IntCounterVec,
    packets: PacketMetrics,
    authentication: AuthenticationMetrics,
    /// Of leases.
    pub leases: LeaseMetrics,
    /// Of certificates on disk.
    pub certificates: Arc<CertificateMetrics>,
    totals: DialTotals,
}

impl Metrics {
    /// What the reference shows from the start is 0; the rest appears with its first use.
    pub fn new() -> Self {
        let registry = Registry::new(PREFIX);
        let gauge = |name, help| series(&registry.gauges(name, help, &[]), []);
        let grpc_connections = registry.gauges(
            "grpc_connections",
            "Number of current grpc connections, partitioned by service method.",
            &["service_method"],
        );
        let full_channels = registry.gauges(
            "full_receive_channels",
            "Number of current connections blocked by a full receive channel, partitioned by service method.",
            &["service_method"],
        );
        let histogram = |name, help, buckets: &[f64]| series(&registry.histograms(name, help, &[], buckets), []);
        Self {
            dial_duration: histogram(
                "dial_duration_seconds",
                "Latency of dial to the remote endpoint in seconds",
                &LATENCY_BUCKETS,
            ),
            connection_duration: Arc::new(histogram(
                "connection_duration_seconds",
                "Age in seconds that established connections reached.",
                &CONNECTION_BUCKETS,
            )),
            http_connections: registry.gauge("http_connections", "Number of current HTTP CONNECT connections"),
            grpc_connections: series(&grpc_connections, ["Proxy"]),
            full_channels: series(&full_channels, ["Proxy"]),
            agent_streams: series(&grpc_connections, ["Connect"]),
            slowed_agents: series(&full_channels, ["Connect"]),
            stalled_closed: registry.counter(
                "stalled_dials_closed_total",
                "Dials over gRPC agents that were closed because their client took next to nothing for ten seconds.",
            ),
            ready_backend_connections: registry.gauge(
                "ready_backend_connections",
                "Number of konnectivity agent connected to the proxy server. DEPRECATED, please use ready_backends",
            ),
            ready_backends: registry.gauges(
                "ready_backends",
                "Number of konnectivity agent connected to the proxy server",
                &["proxy_strategy"],
            ),
            pending_dials: gauge("pending_backend_dials", "Current number of pending backend dial requests"),
            established: gauge(
                "established_connections",
                "Current number of established end-to-end connections (post-dial).",
            ),
            dial_failures: registry.counters(
                "dial_failure_count",
                "Number of dial failures observed. Multiple failures can occur for a single dial request.",
                &["reason"],
            ),
            packets: PacketMetrics::new(&registry),
            authentication: AuthenticationMetrics::new(&registry),
            leases: LeaseMetrics::new(&registry),
            certificates: Arc::new(CertificateMetrics::new(&registry)),
            totals: DialTotals::new(&registry),
            registry,
        }
    }

    /// Counts an HTTP request until the guard is dropped.
    pub fn http_connection(&self) -> Counted {
        Counted::new(&self.http_connections)
    }

    /// Counts a call of `ProxyService/Proxy` until the guard is dropped.
    pub fn grpc_connection(&self) -> Counted {
        Counted::new(&self.grpc_connections)
    }

    /// Counts a call whose packets cannot be taken further just now, until the guard is dropped.
    pub fn channel_full(&self) -> Counted {
        Counted::new(&self.full_channels)
    }

    /// Counts a call of `AgentService/Connect` until the guard is dropped.
    pub fn agent_stream(&self) -> Counted {
        Counted::new(&self.agent_streams)
    }

    /// Counts an agent's stream that is read more slowly just now for the sake of a dial, until the guard is dropped.
    pub fn agent_slowed(&self) -> Counted {
        Counted::new(&self.slowed_agents)
    }

    /// A packet has passed.
    pub fn packet(&self, segment: Segment, kind: PacketType) {
        self.packets.count(segment, kind);
    }

    /// A packet came from a client.
    pub fn packet_received(&self, kind: PacketType) {
        self.packets.count(Segment::FromClient, kind);
    }

    /// A packet goes to a client.
    pub fn packet_sent(&self, kind: PacketType) {
        self.packets.count(Segment::ToClient, kind);
    }

    /// A call could not be read from or written to; its end is no error. `code` is that of gRPC as Go
    /// prints it, such as `Canceled`; `packet_type` is `Unknown` where no packet was read.
    pub fn stream_error(&self, segment: Segment, code: &str, packet_type: &str) {
        self.packets.failed(segment, code, packet_type);
    }

    /// A packet was handed to a frontend, which took so long.
    pub fn frontend_write(&self, took: Duration) {
        self.packets.written(took);
    }

    /// Counts a dial that waits for its agent until the guard is dropped.
    pub fn pending_dial(&self) -> Counted {
        Counted::new(&self.pending_dials)
    }

    /// A target was connected after so long.
    pub fn dial_established(&self, took: Duration) {
        observe(&self.dial_duration, took);
    }

    /// Counts an established connection until the guard is dropped, which also records how long it lived.
    pub fn established_connection(&self) -> Established {
        Established {
            _counted: Counted::new(&self.established),
            duration: self.connection_duration.clone(),
            since: Instant::now(),
        }
    }

    /// A dial failed.
    pub fn dial_failed(&self, failure: DialFailure) {
        self.dial_failures.with_label_values(&[failure.reason()]).inc();
    }

    /// An agent was admitted, or not. Only counted where tokens or identifiers are looked at.
    pub fn agent_authenticated(&self, carried: Carried, reached: Reached) {
        self.authentication.agent(carried, reached);
    }

    /// A token was reviewed, which took so long.
    pub fn token_reviewed(&self, result: ReviewResult, took: Duration) {
        self.authentication.review(result, took);
    }

    /// An agent is drained because its token is no longer good.
    pub fn token_ended(&self, carried: Carried, end: &TokenEnd) {
        self.authentication.ended(carried, end);
    }

    /// Everything in Prometheus' text format. `ready` tells for each strategy in use, in the order of preference, how
    /// many backends (agents, or hosts) it has to choose from; `listeners`, how often clients and agents could not be
    /// served.
    ///
    /// # Errors
    /// As [`Registry::encode`]: never, as long as the tests of this file pass.
    pub fn render(
        &self,
        ready: impl IntoIterator<Item = (Strategy, usize)>,
        listeners: ListenerErrors,
        quic: &QuicSnapshot<'_>,
    ) -> prometheus::Result<String> {
        self.certificates.update(SystemTime::now());
        let mut last = 0;
        for (strategy, count) in ready {
            let count = gauge_value(count as u64);
            self.ready_backends.with_label_values(&[strategy.name()]).set(count);
            last = if count > 0 { count } else { last };
        }
        // The older metric has one number only. In the reference it is that of the strategy that changed last, and an
        // agent that comes or goes changes those that it is for in their order.
        self.ready_backend_connections.set(last);
        let kept = |name, help, value| KeptCounter { name, help, value };
        let counters = [
            kept(
                "frontend_accept_errors_total",
                "Clients that could not be accepted, for instance for want of file descriptors.",
                listeners.accept,
            ),
            kept(
                "frontend_handshake_errors_total",
                "TLS handshakes of clients that failed, for instance for want of a certificate.",
                listeners.handshake,
            ),
            kept(
                "agent_accept_errors_total",
                "Agents that could not be accepted over TCP, for instance for want of file descriptors.",
                listeners.agent_accept,
            ),
            kept(
                "agent_handshake_errors_total",
                "TLS handshakes of agents over TCP that failed, for instance for want of a certificate.",
                listeners.agent_handshake,
            ),
        ];
        self.registry.encode(quic, &counters)
    }
}

/// How often clients, and agents over TCP, could not be served, since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListenerErrors {
    /// Failures to accept a client.
    pub accept: u64,
    /// TLS handshakes with clients that failed.
    pub handshake: u64,
    /// Failures to accept an agent.
    pub agent_accept: u64,
    /// TLS handshakes with agents that failed.
    pub agent_handshake: u64,
}

impl DialMetrics for Metrics {
    /// The server's socket is the client's: what it sends into the tunnel goes to the target.
    fn dial_ended(&self, outcome: &'static str, bytes_sent: u64, bytes_received: u64, _duration: Duration) {
        if outcome == STALLED {
            self.stalled_closed.inc();
        }
        self.totals.ended(outcome, bytes_sent, bytes_received);
    }
}

/// An established connection, from the answer to the last byte.
#[derive(Debug)]
pub struct Established {
    _counted: Counted,
    duration: Arc<Series<Histogram>>,
    since: Instant,
}

impl Drop for Established {
    fn drop(&mut self) {
        observe(&self.duration, self.since.elapsed());
    }
}

#[cfg(test)]
mod tests;
