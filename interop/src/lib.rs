//! The only crate that sees both ends of the tunnel: test certificates, the benchmark and the end-to-end tests.
//!
//! - [`certificates`]: an authority and what it signs, for tests and for the quick start.
//! - [`peer`]: a server and an agent of any make as real processes, started and stopped.
//! - [`pair`]: a real server with real agents for end-to-end tests.
//! - [`ends`]: both ends of a dial in a test's hand.
//! - [`load`]: clients and targets, and what they do to a pair.
//! - [`bench`](mod@bench): the benchmark made of these.

#![warn(missing_docs)]

pub mod bench;
pub mod certificates;
pub mod ends;
pub mod link;
pub mod load;
pub mod pair;
pub mod peer;
