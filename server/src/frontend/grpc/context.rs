//! What all RPCs of a client's connection share.

use std::sync::{Arc, atomic::AtomicU64};

use super::settle::Settle;
use crate::{dial::Dials, worker::Worker};

/// The part of a connection that its RPCs need.
pub struct Context {
    /// Where dials are made.
    pub dials: Arc<Dials>,
    /// The thread of the connection.
    pub worker: Worker,
    /// Rounds of PINGs.
    pub settle: Settle,
    /// Numbers connections to targets, in the whole process; the first is 1.
    pub next_connect_id: Arc<AtomicU64>,
}
