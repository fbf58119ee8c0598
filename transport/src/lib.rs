//! What proxy-server and proxy-agent share: the wire protocol, the QUIC connection between them, and the relay that
//! copies bytes between a stream and a socket.
//!
//! ```text
//! client --> frontend --> dial --> strategy --> backend ===== connection ===== agent --> target
//!                          |                            one stream for each dial
//!                          +-- relay <-> stream                         relay <-> socket
//! ```
//!
//! `endpoint` binds and connects, `connection` opens and accepts dials, `control` says hello, `stream` has the two
//! halves of a dial, `relay` copies. What bounds memory: `credit` for what is sent, `window` for what is received. What
//! bounds the load on the path: `congestion`.
#![warn(missing_docs)]

mod batch;
pub mod budget;
pub mod buffer;
pub mod congestion;
pub mod connection;
pub mod control;
mod credit;
pub mod dial;
pub mod endpoint;
pub mod error;
mod flow;
pub mod id;
pub mod identifier;
pub mod mux;
mod nudge;
pub mod packet;
mod probe;
pub mod relay;
pub mod server_list;
pub mod settings;
mod silence;
pub mod socket;
pub mod stream;
pub mod tls;
mod udp;
mod window;
pub mod wire;

pub use flow::DialFlow;
