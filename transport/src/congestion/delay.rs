//! What the path's delay says: how long a round trip takes without a queue, and what is above that.

use std::time::{Duration, Instant};

use super::filter::Largest;

/// For so long a shortest round trip is believed without being seen again. Every eighth round or so empties our own
/// part of the queue and shows it anew; it must outlast a rival's longest cycle.
const BELIEVED: Duration = Duration::from_secs(30);

/// The part of each new round's variation that counts: less when it is more than before, as a queue that comes and goes
/// varies too.
const RISE: f64 = 1.0 / 16.0;
const FALL: f64 = 1.0 / 8.0;

/// What is known of the delay.
#[derive(Debug, Clone)]
pub(super) struct Delay {
    epoch: Instant,
    /// Largest inverse round trip, in 1/s, by milliseconds of age.
    inverse: Largest,
    /// Mean of a round's round trips above the shortest of the same round, in seconds.
    jitter: f64,
}

impl Delay {
    pub(super) fn new(now: Instant) -> Self {
        let believed = u64::try_from(BELIEVED.as_millis()).unwrap_or(u64::MAX);
        Self { epoch: now, inverse: Largest::new(believed), jitter: 0.0 }
    }

    /// Whether there was a round trip.
    pub(super) fn is_known(&self) -> bool {
        self.inverse.get() > 0.0
    }

    /// The round trip without a queue, in seconds.
    pub(super) fn base(&self) -> f64 {
        if self.is_known() { 1.0 / self.inverse.get() } else { 0.1 }
    }

    /// How much later than the earliest packets of a round the others are on average, in seconds; at most twice
    /// the base.
    pub(super) fn jitter(&self) -> f64 {
        self.jitter.min(self.base() * 2.0)
    }

    /// Takes a round trip in seconds.
    pub(super) fn sample(&mut self, now: Instant, rtt: f64) {
        self.inverse.update(self.age(now), 1.0 / rtt.max(1e-6));
    }

    /// Takes the variation within a round, in seconds.
    pub(super) fn vary(&mut self, spread: f64) {
        self.jitter += (spread - self.jitter) * if spread > self.jitter { RISE } else { FALL };
    }

    /// The path has another base now.
    pub(super) fn rebase(&mut self, now: Instant, rtt: f64) {
        self.inverse.reset(self.age(now), 1.0 / rtt.max(1e-6));
    }

    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}
