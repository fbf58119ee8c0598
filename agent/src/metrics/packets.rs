//! Packets between this agent and servers over gRPC. Over QUIC there are none.

use konnectivity_process::metrics::{Registry, Series, series};
use konnectivity_transport::packet::PacketType;
use prometheus::IntCounter;

/// Every type, at the place of its number.
const KINDS: [PacketType; 7] = [
    PacketType::DialReq,
    PacketType::DialRsp,
    PacketType::CloseReq,
    PacketType::CloseRsp,
    PacketType::Data,
    PacketType::DialCls,
    PacketType::Drain,
];

/// What is counted of packets. The reference names segments from the server's point of view.
#[derive(Debug)]
pub(super) struct PacketMetrics {
    sent: [Series<IntCounter>; KINDS.len()],
    received: [Series<IntCounter>; KINDS.len()],
}

impl PacketMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let packets = registry.counters(
            "stream_packets_total",
            "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
            &["segment", "packet_type"],
        );
        let of = |segment| KINDS.map(|kind| series(&packets, [segment, kind.name()]));
        Self { sent: of("from_agent"), received: of("to_agent") }
    }

    pub(super) fn sent(&self, kind: PacketType) {
        self.sent[kind as usize].inc();
    }

    pub(super) fn received(&self, kind: PacketType) {
        self.received[kind as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_at_the_place_of_its_number() {
        for (place, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        assert!(PacketType::try_from(KINDS.len() as i32).is_err());
    }
}
