//! The only crate that sees both ends of the tunnel: test certificates, the benchmark and the end-to-end tests.
//!
//! - [`api_server`]: an API server's double: tokens, nodes, leases, and whatever goes wrong.
//! - [`certificates`]: an authority and what it signs, for tests and for the quick start.
//! - [`peer`]: a server and an agent of any make as real processes, started and stopped.
//! - [`pair`]: a real server with real agents for end-to-end tests.
//! - [`ends`]: both ends of a dial in a test's hand.
//! - [`link`]: two network namespaces and a bad link between them.
//! - [`load`]: clients and targets, and what they do to a pair.
//! - [`bench`](mod@bench): the benchmark made of these.
//! - [`memory`](mod@memory): an agent in a control group with little memory.
//! - [`matrix`]: every pairing of programs through every scenario.
//! - [`wan`]: the benchmark on bad links.
//! - [`migration`]: a running cluster moves from the reference to this project and back.

#![warn(missing_docs)]

pub mod api_server;
pub mod bench;
pub mod certificates;
pub mod ends;
pub mod link;
pub mod load;
pub mod matrix;
pub mod memory;
pub mod migration;
pub mod pair;
pub mod peer;
pub mod wan;
