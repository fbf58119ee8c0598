//! Every metric of the server. Names, labels and buckets that the reference has are the reference's, and so are the
//! help texts that its tests compare byte for byte.

use std::time::{Duration, Instant};

use konnectivity_process::{
    dial_record::DialMetrics,
    metrics::{Counted, DialTotals, KeptCounter, QuicSnapshot, Registry, gauge_value, observe},
};
use prometheus::{Histogram, IntCounterVec, IntGauge, IntGaugeVec};

use crate::strategy::Strategy;

const PREFIX: &str = "konnectivity_network_proxy_server_";

/// Upper bounds in seconds of the reference's dial histogram.
const DIAL_BUCKETS: [f64; 9] = [1e-6, 1e-5, 1e-4, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5];

/// Upper bounds in seconds of the reference's histogram of established connections: a second to a day.
const CONNECTION_BUCKETS: [f64; 12] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];

/// Why a dial failed, in the words of `dial_failure_count`. The reference has one more, for answers that nobody asked
/// for; a stream of its own for each dial leaves no room for those.
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
        }
    }
}

/// What the server counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    dial_duration: Histogram,
    connection_duration: Histogram,
    http_connections: IntGauge,
    ready_backend_connections: IntGauge,
    ready_backends: IntGaugeVec,
    pending_dials: IntGauge,
    established: IntGauge,
    dial_failures: IntCounterVec,
    totals: DialTotals,
}

impl Metrics {
    /// All at 0; failures by reason appear with the first failure.
    pub fn new() -> Self {
        let registry = Registry::new(PREFIX);
        Self {
            dial_duration: registry.histogram(
                "dial_duration_seconds",
                "Time from a client's request until its target was connected, in seconds.",
                &DIAL_BUCKETS,
            ),
            connection_duration: registry.histogram(
                "connection_duration_seconds",
                "Age in seconds that established connections reached.",
                &CONNECTION_BUCKETS,
            ),
            http_connections: registry.gauge("http_connections", "HTTP CONNECT requests being served."),
            ready_backend_connections: registry.gauge(
                "ready_backend_connections",
                "Number of konnectivity agent connected to the proxy server. DEPRECATED, please use ready_backends",
            ),
            ready_backends: registry.gauges(
                "ready_backends",
                "Number of konnectivity agent connected to the proxy server",
                "proxy_strategy",
            ),
            pending_dials: registry.gauge("pending_backend_dials", "Current number of pending backend dial requests"),
            established: registry
                .gauge("established_connections", "Current number of established end-to-end connections (post-dial)."),
            dial_failures: registry.counters(
                "dial_failure_count",
                "Number of dial failures observed. Multiple failures can occur for a single dial request.",
                "reason",
            ),
            totals: DialTotals::new(&registry),
            registry,
        }
    }

    /// Counts an HTTP request until the guard is dropped.
    pub fn http_connection(&self) -> Counted {
        Counted::new(&self.http_connections)
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

    /// Everything in Prometheus' text format. `ready` tells for each strategy in use, in the order of preference, how
    /// many backends (agents, or hosts) it has to choose from; `frontend`, how often clients could not be served.
    ///
    /// # Errors
    /// As [`Registry::encode`]: never, as long as the tests of this file pass.
    pub fn render(
        &self,
        ready: impl IntoIterator<Item = (Strategy, usize)>,
        frontend: FrontendErrors,
        quic: &QuicSnapshot<'_>,
    ) -> prometheus::Result<String> {
        for (place, (strategy, count)) in ready.into_iter().enumerate() {
            let count = gauge_value(count as u64);
            self.ready_backends.with_label_values(&[strategy.name()]).set(count);
            // The older metric has one number only. The reference shows that of the strategy that changed last.
            if place == 0 {
                self.ready_backend_connections.set(count);
            }
        }
        let accept_errors = KeptCounter {
            name: "frontend_accept_errors_total",
            help: "Clients that could not be accepted, for instance for want of file descriptors.",
            value: frontend.accept,
        };
        let handshake_errors = KeptCounter {
            name: "frontend_handshake_errors_total",
            help: "TLS handshakes of clients that failed, for instance for want of a certificate.",
            value: frontend.handshake,
        };
        self.registry.encode(quic, &[accept_errors, handshake_errors])
    }
}

/// How often clients could not be served, since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrontendErrors {
    /// Failures to accept a client.
    pub accept: u64,
    /// TLS handshakes that failed.
    pub handshake: u64,
}

impl DialMetrics for Metrics {
    /// The server's socket is the client's: what it sends into the tunnel goes to the target.
    fn dial_ended(&self, outcome: &'static str, bytes_sent: u64, bytes_received: u64, _duration: Duration) {
        self.totals.ended(outcome, bytes_sent, bytes_received);
    }
}

/// An established connection, from the answer to the last byte.
#[derive(Debug)]
pub struct Established {
    _counted: Counted,
    duration: Histogram,
    since: Instant,
}

impl Drop for Established {
    fn drop(&mut self) {
        observe(&self.duration, self.since.elapsed());
    }
}

#[cfg(test)]
mod tests;
