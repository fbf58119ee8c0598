//! The only crate that sees both ends of the tunnel: test certificates, the benchmark and the end-to-end tests.
//!
//! - [`certificates`]: an authority and what it signs, for tests and for the quick start.

#![warn(missing_docs)]

pub mod certificates;
