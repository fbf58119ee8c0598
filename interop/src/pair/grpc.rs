//! Clients of the gRPC frontend, from a polite one down to single bytes.
//!
//! ```text
//! Tunnel (one dial) --> Rpc (one stream, packets) --> Connection (answers what HTTP/2 wants answered) --> Door
//!                                                     Wire (frames, good or bad, no answers)          --> Door
//! ```
//!
//! It is made of frames by hand and not of an HTTP/2 library, so that a test decides what is sent and sees what comes:
//! the representation of a header, the size of a frame, the moment of an acknowledgement.
//!
//! - [`door`]: how clients are let in: the Unix socket, or mutual TLS with any certificate and any ALPN.
//! - [`frame`]: frames of HTTP/2, right or wrong.
//! - [`header`]: header blocks in every representation.
//! - [`wire`]: a connection of frames that does nothing by itself.
//! - [`connection`]: a polite connection with many streams.
//! - [`state`]: what has come on it.
//! - [`rpc`]: one stream of packets.
//! - [`tunnel`]: one dial.
//! - [`flood`]: an attack that goes on meanwhile.
//! - [`honest`]: a client that echoes beside others, and how fast.

pub mod connection;
pub mod door;
pub mod flood;
pub mod frame;
pub mod header;
pub mod honest;
pub mod rpc;
pub mod state;
pub mod tunnel;
pub mod wire;

use konnectivity_transport::packet::Packet;
use prost::Message;

use super::Pair;
use crate::ends::{has_metric, no_dials};

/// A packet as a message of gRPC: not compressed, its length, itself.
///
/// # Panics
/// When it is longer than 4 GiB.
pub fn message(packet: &Packet) -> Vec<u8> {
    framed(&packet.encode_to_vec())
}

/// Bytes as a message of gRPC.
///
/// # Panics
/// When they are more than 4 GiB.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a message of less than 4 GiB");
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

/// The server's dials that failed for a reason, as its metrics call it.
pub fn failures(reason: &str) -> String {
    format!("konnectivity_network_proxy_server_dial_failure_count{{reason=\"{reason}\"}}")
}

/// The server's calls that are served now, as its metrics call it.
pub const CALLS: &str = "konnectivity_network_proxy_server_grpc_connections{service_method=\"Proxy\"}";

/// Waits until no end has a dial, and all that counts them says so.
///
/// # Panics
/// When something stays.
pub async fn no_dials_remain(pair: &Pair) {
    no_dials(pair).await;
    for gauge in ["pending_backend_dials", "established_connections"] {
        has_metric(pair.server.health, &format!("konnectivity_network_proxy_server_{gauge}"), 0.0).await;
    }
    for agent in &pair.agents {
        has_metric(agent.health, "konnectivity_network_proxy_agent_open_endpoint_connections", 0.0).await;
    }
}

/// The same, and that no call is served any more, which is so when all clients have gone.
///
/// # Panics
/// When something stays.
pub async fn nothing_remains(pair: &Pair) {
    no_dials_remain(pair).await;
    has_metric(pair.server.health, CALLS, 0.0).await;
}
