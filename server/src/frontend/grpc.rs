//! The frontend that speaks gRPC: `ProxyService/Proxy`, a stream of packets for each dial (compat sections 1 and 2).
//!
//! ```text
//! client stream -- HTTP/2 (crate::http2) -- connection -- rpc -- dial
//!                                         message <-> packets \
//!                                                        socket -- relay
//! ```

pub mod client;
pub mod connection;
pub mod context;
pub mod rpc;
pub mod settle;
pub mod socket;
