//! Every metric of the agent. Names, labels and buckets that the reference has are the reference's, and so are the help
//! texts that its tests compare byte for byte.

use std::time::Duration;

use konnectivity_process::{
    dial_record::DialMetrics,
    metrics::{Counted, DialTotals, QuicSnapshot, Registry, gauge_value, observe},
};
use konnectivity_transport::wire::message::DialErrorKind;
use prometheus::{Histogram, IntCounterVec, IntGauge};

const PREFIX: &str = "konnectivity_network_proxy_agent_";

/// Upper bounds in seconds of the reference's agent histograms.
const BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];

/// What the agent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    dial_duration: Histogram,
    dial_failures: IntCounterVec,
    server_connections: IntGauge,
    known_servers: IntGauge,
    endpoint_connections: IntGauge,
    totals: DialTotals,
}

impl Metrics {
    /// All at 0; failures by reason appear with the first failure.
    pub fn new() -> Self {
        let registry = Registry::new(PREFIX);
        Self {
            dial_duration: registry.histogram(
                "dial_duration_seconds",
                "Time until the target was connected, in seconds.",
                &BUCKETS,
            ),
            dial_failures: registry.counters(
                "endpoint_dial_failure_total",
                "Number of failures dialing the remote endpoint, by reason (example: timeout).",
                "reason",
            ),
            server_connections: registry.gauge("open_server_connections", "Servers that are connected now."),
            known_servers: registry.gauge("known_server_count", "Servers that should be connected."),
            endpoint_connections: registry
                .gauge("open_endpoint_connections", "Current number of open endpoint connections."),
            totals: DialTotals::new(&registry),
            registry,
        }
    }

    /// A target was connected after so long.
    pub fn dial_connected(&self, took: Duration) {
        observe(&self.dial_duration, took);
    }

    /// A target could not be connected. The reference tells time-outs from the rest, and nothing else.
    pub fn dial_failed(&self, kind: DialErrorKind) {
        let reason = match kind {
            DialErrorKind::TimedOut => "timeout",
            _ => "unknown",
        };
        self.dial_failures.with_label_values(&[reason]).inc();
    }

    /// Counts a connection to a target until the guard is dropped.
    pub fn endpoint_connection(&self) -> Counted {
        Counted::new(&self.endpoint_connections)
    }

    /// Everything in Prometheus' text format. So many servers are connected, and so many should be.
    ///
    /// # Errors
    /// As [`Registry::encode`]: never, as long as the tests of this file pass.
    pub fn render(&self, connected: usize, desired: u32, quic: &QuicSnapshot<'_>) -> prometheus::Result<String> {
        self.server_connections.set(gauge_value(connected as u64));
        self.known_servers.set(desired.into());
        self.registry.encode(quic, &[])
    }
}

impl DialMetrics for Metrics {
    /// The agent's socket is the target's: what it sends into the tunnel goes to the client.
    fn dial_ended(&self, outcome: &'static str, bytes_sent: u64, bytes_received: u64, _duration: Duration) {
        self.totals.ended(outcome, bytes_received, bytes_sent);
    }
}

#[cfg(test)]
mod tests;
