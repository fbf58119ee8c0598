//! The server's face to clients: what accepts them and understands what they ask for.
//!
//! ```text
//! listener --> client stream --> http_connect (request head --> target) --> handler: the dial
//! ```

pub mod client_stream;
pub mod grpc;
pub mod http_connect;
pub mod linger;
pub mod listener;

#[cfg(test)]
mod test_certificates;
