//! The only crate that sees both ends of the tunnel: test certificates, the benchmark and the end-to-end tests.
//!
//! - [`certificates`]: an authority and what it signs, for tests and for the quick start.
//! - [`peer`]: a server and an agent of any make as real processes, started and stopped.
//! - [`load`]: clients and targets, and what they do to a pair.
//! - [`bench`](mod@bench): the benchmark made of these.

#![warn(missing_docs)]

pub mod bench;
pub mod certificates;
pub mod load;
pub mod peer;
