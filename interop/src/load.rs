//! What the benchmark does to a subject: clients that dial, targets that answer, and the works between them.
//!
//! ```text
//! this process: clients (one thread) --> path --> server --> agent --> targets: a process of their own (one thread)
//! ```
//!
//! - [`path`]: how a client reaches a target: by itself, by HTTP CONNECT, or by [`grpc`].
//! - [`targets`]: the process with the targets, and its counters.
//! - [`bulk`], [`echo`], [`churn`], [`stall`]: what clients do.
//! - [`meter`]: whose CPU time it takes.

pub mod bulk;
pub mod churn;
pub mod echo;
pub mod grpc;
pub mod meter;
pub mod path;
pub mod stall;
pub mod targets;

use std::time::Duration;

/// When a measurement counts.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Load runs this long before anything is counted.
    pub ramp: Duration,
    /// Then it is counted for this long.
    pub length: Duration,
}

/// How long a dial may take before it counts as failed.
pub const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// What one echo carries.
pub const ECHO_BYTES: usize = 64;
