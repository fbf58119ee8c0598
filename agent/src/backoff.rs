//! How long to wait between attempts to reach a server: a value without clock and without randomness of its own.

use std::time::Duration;

/// Each wait after a failure is this many times the one before. The reference's factor.
const FACTOR: f64 = 1.5;

/// A wait is lengthened by up to this part of itself, so that agents that lost the same server do not return in step.
const JITTER: f64 = 0.1;

/// The reference's waits (`pkg/agent/clientset.go`): `first`, then 1.5 times as long each time until `cap`; any
/// success begins anew. Jitter comes on top of the cap.
///
/// `random` is drawn by the caller from `[0, 1)` for each call.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    step: Duration,
}

impl Backoff {
    /// Begins at `first` (`--sync-interval`) and never exceeds `cap` (`--sync-interval-cap`) before jitter. A `cap`
    /// below `first` counts as `first`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap: cap.max(first), step: first }
    }

    /// How long to wait after a failure. The next failure waits longer.
    pub fn next_error(&mut self, random: f64) -> Duration {
        let step = self.step;
        self.step = Duration::try_from_secs_f64(step.as_secs_f64() * FACTOR).unwrap_or(Duration::MAX).min(self.cap);
        jittered(step, random)
    }

    /// How long to wait after a success, if there is a reason to try again. The next failure waits `first` again.
    pub fn success(&mut self, random: f64) -> Duration {
        self.step = self.first;
        jittered(self.first, random)
    }
}

fn jittered(wait: Duration, random: f64) -> Duration {
    let more = wait.as_secs_f64() * JITTER * random.clamp(0.0, 1.0);
    wait.saturating_add(Duration::try_from_secs_f64(more).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(wait: Duration) -> u128 {
        // Rounded: 1.5 to the n-th power seconds are not whole nanoseconds in a float.
        (wait + Duration::from_micros(500)).as_millis()
    }

    /// The waits of the reference at its defaults, 1 s and 10 s.
    #[test]
    fn failures_wait_longer_each_time_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<_> = (0..9).map(|_| millis(backoff.next_error(0.0))).collect();
        assert_eq!(waits, [1_000, 1_500, 2_250, 3_375, 5_063, 7_594, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn jitter_comes_on_top_of_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(millis(backoff.next_error(0.5)), 10_500);
        assert_eq!(millis(backoff.next_error(1.0)), 11_000);
    }

    #[test]
    fn success_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for _ in 0..5 {
            backoff.next_error(0.3);
        }
        assert_eq!(millis(backoff.success(0.5)), 1_050);
        assert_eq!(millis(backoff.next_error(0.0)), 1_000);
    }

    #[test]
    fn a_cap_below_the_first_step_is_the_first_step() {
        let mut backoff = Backoff::new(Duration::from_secs(3), Duration::from_secs(1));
        assert_eq!(millis(backoff.next_error(0.0)), 3_000);
        assert_eq!(millis(backoff.next_error(0.0)), 3_000);
    }

    proptest! {
        #[test]
        fn any_settings_and_randomness_stay_within_bounds(
            first in any::<Duration>(), cap in any::<Duration>(), randoms in proptest::collection::vec(any::<f64>(), 1..40),
        ) {
            let mut backoff = Backoff::new(first, cap);
            let longest = jittered(first.max(cap), 1.0);
            for random in randoms {
                let wait = backoff.next_error(random);
                prop_assert!(wait >= first && wait <= longest, "{wait:?}");
            }
            let wait = backoff.success(0.0);
            prop_assert_eq!(wait, first);
        }
    }
}
