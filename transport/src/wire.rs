//! The wire protocol between agent and server: messages, their encoding, and the codes that end streams and connections.
//!
//! Plain functions over bytes: no sockets, no tasks, no clock. `docs/protocol.md` says the same in prose, exact to the
//! byte, and is tested against this module.

pub mod code;
pub mod codec;
pub mod message;

/// Application protocol that both ends offer in the TLS handshake (RFC 7301). A change that old peers cannot ignore
/// gets a new one.
pub const ALPN: &[u8] = b"konnectivity-quic/1";

/// The version that [`ALPN`] stands for, as `--version` prints it.
pub const PROTOCOL_VERSION: u32 = 1;

/// Capability (see `Hello` and `Welcome`) of an end that uses `Servers` messages. Where both ends have it, the server sends
/// one right behind its Welcome, and another whenever something has changed.
pub const SERVERS_CAPABILITY: &str = "servers";
