//! Every metric of the agent. Names, labels and buckets that the reference has are the reference's, and so are the help
//! texts that its tests compare byte for byte.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use konnectivity_process::{
    dial_record::DialMetrics,
    metrics::{CertificateMetrics, Counted, DialTotals, QuicSnapshot, Registry, Series, gauge_value, observe, series},
};
use konnectivity_transport::{
    connection::ConnectionLost,
    packet::PacketType,
    wire::{code::ConnectionCode, message::DialErrorKind},
};
use prometheus::{Histogram, IntCounterVec, IntGauge};

use self::{leases::LeaseMetrics, packets::PacketMetrics};
use crate::server_connection::choice::{Reason, Transport};

mod leases;
mod packets;

const PREFIX: &str = "konnectivity_network_proxy_agent_";

/// Upper bounds in seconds of the reference's agent histograms.
const BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];

/// What the agent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    dial_duration: Series<Histogram>,
    dial_failures: IntCounterVec,
    server_failures: IntCounterVec,
    server_connections: IntGauge,
    known_servers: IntGauge,
    endpoint_connections: Series<IntGauge>,
    stream_errors: IntCounterVec,
    packets: PacketMetrics,
    over_quic: Series<IntGauge>,
    over_grpc: Series<IntGauge>,
    transport_choices: IntCounterVec,
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
        let dials = registry.histograms(
            "dial_duration_seconds",
            "Latency of dial to the remote endpoint in seconds",
            &[],
            &BUCKETS,
        );
        let endpoints =
            registry.gauges("open_endpoint_connections", "Current number of open endpoint connections.", &[]);
        let transports = registry.gauges(
            "server_transport",
            "Connections to servers that are in use, by what carries them (quic, grpc).",
            &["transport"],
        );
        Self {
            over_quic: series(&transports, [Transport::Quic.name()]),
            over_grpc: series(&transports, [Transport::Grpc.name()]),
            transport_choices: registry.counters(
                "server_transport_choices_total",
                "Connections to servers that came into use, by what carries them and why.",
                &["transport", "reason"],
            ),
            dial_duration: series(&dials, []),
            dial_failures: registry.counters(
                "endpoint_dial_failure_total",
                "Number of failures dialing the remote endpoint, by reason (example: timeout).",
                &["reason"],
            ),
            server_failures: registry.counters(
                "server_connection_failure_count",
                "Count of failures to send to or receive from the proxy server, labeled by the direction \
                 (from_server or to_server). DEPRECATED, please use stream_events_error_total",
                &["direction"],
            ),
            server_connections: registry.gauge("open_server_connections", "Current number of open server connections."),
            known_servers: registry
                .gauge("known_server_count", "Current number of servers agent is trying to connect to."),
            endpoint_connections: series(&endpoints, []),
            stream_errors: registry.counters(
                "stream_errors_total",
                "Count of gRPC stream errors, by segment, grpc Code, packet type. \
                 (example: from_agent, Code.Unavailable, DIAL_RSP)",
                &["segment", "code", "packet_type"],
            ),
            packets: PacketMetrics::new(&registry),
            leases: LeaseMetrics::new(&registry),
            certificates: Arc::new(CertificateMetrics::new(&registry)),
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

    /// A connection to a server has ended. Unless one end closed it because it stops, it counts as what the reference
    /// counts when it cannot receive from a server any more, so that alerts on lost servers go on working.
    pub fn server_gone(&self, how: &ConnectionLost) {
        use ConnectionCode::{DrainDeadline, Drained, Stopping};
        let stopped = match how {
            ConnectionLost::ClosedHere => true,
            ConnectionLost::Closed { code, .. } => matches!(code, Some(Drained | DrainDeadline | Stopping)),
            _ => false,
        };
        self.stream_lost((!stopped).then_some("Unavailable"));
    }

    /// The same over gRPC, whose code tells how; `None` for an end that is no error.
    pub fn stream_lost(&self, code: Option<&'static str>) {
        if let Some(code) = code {
            self.server_failures.with_label_values(&["from_server"]).inc();
            self.stream_errors.with_label_values(&["to_agent", code, "Unknown"]).inc();
        }
    }

    /// A packet goes to a server over gRPC.
    pub fn packet_sent(&self, kind: PacketType) {
        self.packets.sent(kind);
    }

    /// A packet has come from a server over gRPC.
    pub fn packet_received(&self, kind: PacketType) {
        self.packets.received(kind);
    }

    /// A connection to a server is in use until the guard is dropped.
    pub fn server_transport(&self, transport: Transport, reason: Reason) -> Counted {
        self.transport_choices.with_label_values(&[transport.name(), reason.label()]).inc();
        Counted::new(match transport {
            Transport::Quic => &self.over_quic,
            Transport::Grpc => &self.over_grpc,
        })
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
        self.certificates.update(SystemTime::now());
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
