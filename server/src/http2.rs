//! HTTP/2 for servers whose clients are idle most of the time (RFC 9113): a connection without anything to do holds no
//! buffer, and a header is taken as the client sent it.
//!
//! ```text
//! socket <--> Connection (one task) <--> Session <--> Stream (wherever its dial runs)
//!               |    |                     | frames in: parsed, counted by Pace, header blocks by Block and hpack
//!               |    +-- Out: frames being written, payload where it lies
//!               +-- a buffer of the thread, while it reads
//! ```
//!
//! A [`Session`](session::Session) knows neither sockets nor clocks: every rule can be tested with plain octets.

pub mod answer;
pub mod block;
pub mod code;
pub mod connection;
pub mod head;
pub mod hpack;
pub mod huffman;
pub mod out;
pub mod pace;
pub mod request;
pub mod session;
pub mod stream;
pub mod streams;
pub mod table;

#[cfg(test)]
pub mod testing;
