//! The server's face to clients: what understands what they ask for.
//!
//! ```text
//! accepted stream --> http_connect (request head --> target) --> handler: the dial
//!                 \-> grpc (an RPC's packets --> target)    --> the dial
//! ```

pub mod grpc;
pub mod http_connect;
