//! Packets between this agent and servers over gRPC. Over QUIC there are none.

use konnectivity_process::metrics::{Registry, Series, series};
use konnectivity_transport::packet::PacketType;
use prometheus::IntCounter;

/// What is counted of packets. The reference names segments from the server's point of view.
#[derive(Debug)]
pub(super) struct PacketMetrics {
    sent: [Series<IntCounter>; PacketType::ALL.len()],
    received: [Series<IntCounter>; PacketType::ALL.len()],
}

impl PacketMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let packets = registry.counters(
            "stream_packets_total",
            "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
            &["segment", "packet_type"],
        );
        let of = |segment| PacketType::ALL.map(|kind| series(&packets, [segment, kind.name()]));
        Self { sent: of("from_agent"), received: of("to_agent") }
    }

    pub(super) fn sent(&self, kind: PacketType) {
        self.sent[kind as usize].inc();
    }

    pub(super) fn received(&self, kind: PacketType) {
        self.received[kind as usize].inc();
    }
}
