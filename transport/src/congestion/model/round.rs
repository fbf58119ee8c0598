//! What one round trip shows.

use std::time::Instant;

/// What was seen in the present round trip.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) from: Instant,
    pub(super) least: f64,
    pub(super) sum: f64,
    pub(super) samples: u32,
    pub(super) acked: u64,
    pub(super) lost: u64,
    pub(super) fastest: f64,
    /// The window was used up; the application was not what limited.
    pub(super) limited: bool,
    /// Some packets of the round were sent while the application had enough.
    pub(super) measured: bool,
}

impl Round {
    pub(super) fn new(from: Instant) -> Self {
        Self {
            from,
            least: f64::INFINITY,
            sum: 0.0,
            samples: 0,
            acked: 0,
            lost: 0,
            fastest: 0.0,
            limited: false,
            measured: false,
        }
    }
}
