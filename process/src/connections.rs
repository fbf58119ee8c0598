//! The open connections between agents and servers as JSON, for people and scripts.

use std::{net::SocketAddr, time::Duration};

use hyper::StatusCode;
use konnectivity_transport::connection::ConnectionStats;
use serde::Serialize;

use crate::admin::{Response, text, with_type};

/// One connection on the admin port's `/connections`. Units are in the names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectionFacts {
    peer: String,
    carrier: &'static str,
    remote: String,
    draining: bool,
    age_seconds: f64,
    open_dials: usize,
    #[serde(flatten)]
    more: More,
}

/// What only one kind of connection can tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum More {
    Quic {
        rtt_milliseconds: f64,
        congestion_window_bytes: u64,
        mtu_bytes: u64,
        sent_packets: u64,
        lost_packets: u64,
        sent_bytes: u64,
        received_bytes: u64,
        unacknowledged_bytes: usize,
        stalled_dials: u64,
    },
    Grpc {
        untaken_bytes: usize,
    },
}

/// What is known of a connection over gRPC.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcFacts {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Age of the stream.
    pub age: Duration,
    /// Dials that are open or wait for their answer.
    pub open_dials: usize,
    /// Bytes that have come and that dials have not taken.
    pub untaken_bytes: usize,
}

impl ConnectionFacts {
    /// The facts about a QUIC connection to `peer`.
    pub fn new(peer: String, draining: bool, stats: &ConnectionStats) -> Self {
        Self {
            peer,
            carrier: "quic",
            remote: stats.remote.to_string(),
            draining,
            age_seconds: stats.age.as_secs_f64(),
            open_dials: stats.open_dials,
            more: More::Quic {
                rtt_milliseconds: stats.rtt.as_secs_f64() * 1000.0,
                congestion_window_bytes: stats.congestion_window_bytes,
                mtu_bytes: stats.mtu_bytes,
                sent_packets: stats.sent_packets,
                lost_packets: stats.lost_packets,
                sent_bytes: stats.sent_bytes,
                received_bytes: stats.received_bytes,
                unacknowledged_bytes: stats.unacknowledged_bytes,
                stalled_dials: stats.stalled_dials,
            },
        }
    }

    /// The same for one over gRPC.
    pub fn over_grpc(peer: String, draining: bool, facts: &GrpcFacts) -> Self {
        Self {
            peer,
            carrier: "grpc",
            remote: facts.remote.to_string(),
            draining,
            age_seconds: facts.age.as_secs_f64(),
            open_dials: facts.open_dials,
            more: More::Grpc { untaken_bytes: facts.untaken_bytes },
        }
    }
}

/// All connections, as a JSON list.
pub fn reply(facts: Vec<ConnectionFacts>) -> Response {
    match serde_json::to_string_pretty(&facts) {
        Ok(body) => with_type(body + "\n", "application/json"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
