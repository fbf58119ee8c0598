//! Packets of gRPC, between clients and server and between server and agents. Over QUIC there are none.

use std::time::Duration;

use konnectivity_process::metrics::{Registry, Series, observe, series};
use konnectivity_transport::packet::PacketType;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::LATENCY_BUCKETS;

/// Between whom packets go, in the words of the reference's `segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// From a client to the server.
    FromClient,
    /// From the server to a client.
    ToClient,
    /// From an agent to the server.
    FromAgent,
    /// From the server to an agent.
    ToAgent,
}

/// Every segment, at the place of its number.
const SEGMENTS: [Segment; 4] = [Segment::FromClient, Segment::ToClient, Segment::FromAgent, Segment::ToAgent];

impl Segment {
    fn name(self) -> &'static str {
        match self {
            Self::FromClient => "from_client",
            Self::ToClient => "to_client",
            Self::FromAgent => "from_agent",
            Self::ToAgent => "to_agent",
        }
    }
}

/// What is counted of packets.
#[derive(Debug)]
pub(super) struct PacketMetrics {
    /// By segment, then by type.
    packets: [[Series<IntCounter>; PacketType::ALL.len()]; SEGMENTS.len()],
    errors: IntCounterVec,
    write_duration: Series<Histogram>,
}

impl PacketMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let packets = registry.counters(
            "stream_packets_total",
            "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
            &["segment", "packet_type"],
        );
        let of = |segment: Segment| PacketType::ALL.map(|kind| series(&packets, [segment.name(), kind.name()]));
        let writes = registry.histograms(
            "frontend_write_duration_seconds",
            "Latency of write to the frontend in seconds",
            &[],
            &LATENCY_BUCKETS,
        );
        Self {
            packets: SEGMENTS.map(of),
            errors: registry.counters(
                "stream_errors_total",
                "Count of gRPC stream errors, by segment, grpc Code, packet type. \
                 (example: from_agent, Code.Unavailable, DIAL_RSP)",
                &["segment", "code", "packet_type"],
            ),
            write_duration: series(&writes, []),
        }
    }

    pub(super) fn count(&self, segment: Segment, kind: PacketType) {
        self.packets[segment as usize][kind as usize].inc();
    }

    pub(super) fn failed(&self, segment: Segment, code: &str, packet_type: &str) {
        self.errors.with_label_values(&[segment.name(), code, packet_type]).inc();
    }

    pub(super) fn written(&self, took: Duration) {
        observe(&self.write_duration, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_is_at_the_place_of_its_number() {
        for (place, segment) in SEGMENTS.into_iter().enumerate() {
            assert_eq!(segment as usize, place);
        }
    }
}
