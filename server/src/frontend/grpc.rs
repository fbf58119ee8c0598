//! The frontend that speaks gRPC: `ProxyService/Proxy`, a stream of packets for each dial (compat sections 1 and 2).
//!
//! ```text
//! client stream -- http2 (what the HTTP/2 library would refuse is mended) -- h2 -- connection -- rpc -- dial
//!                                                                      message <-> packets  \
//!                                                                                     socket -- relay
//! ```

pub mod client;
pub mod connection;
pub mod context;
pub mod http2;
pub mod room;
pub mod rpc;
pub mod settle;
pub mod socket;
pub mod status;
