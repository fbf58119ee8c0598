//! How often the API is asked: a bucket of tokens, as the reference's client library has it.

use std::{num::NonZeroU32, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use tokio::time::sleep;

/// What the reference's client library does when it is told nothing.
const DEFAULT_PER_SECOND: f32 = 5.0;
const DEFAULT_BURST: u32 = 10;

/// Requests a second, and at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests a second over a longer time; 0 is the default of 5, less is no limit.
    pub per_second: f32,
    /// Requests at once; 0 is the default of 10.
    pub burst: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 0.0, burst: 0 }
    }
}

impl Rate {
    /// Half of it, and nothing at once.
    pub(crate) fn half(self) -> Self {
        let per_second = if self.per_second == 0.0 { DEFAULT_PER_SECOND } else { self.per_second };
        Self { per_second: per_second / 2.0, burst: 1 }
    }
}

/// Makes requests wait. They go in no order.
#[derive(Debug)]
pub(crate) struct Pace(Option<DefaultDirectRateLimiter>);

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        let per_second = if rate.per_second == 0.0 { DEFAULT_PER_SECOND } else { rate.per_second };
        let burst =
            NonZeroU32::new(if rate.burst == 0 { DEFAULT_BURST } else { rate.burst }).unwrap_or(NonZeroU32::MIN);
        // Not a number, negative, or more often than there are nanoseconds: no limit.
        let period = Duration::try_from_secs_f32(per_second.recip()).ok();
        let quota = period.filter(|_| per_second > 0.0).and_then(Quota::with_period);
        Self(quota.map(|quota| RateLimiter::direct(quota.allow_burst(burst))))
    }

    /// Waits for the right to make a request.
    ///
    /// # Cancel safety
    /// Safe: the right is taken when it is there.
    pub(crate) async fn wait(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(not_yet) = limiter.check() {
            sleep(not_yet.wait_time_from(limiter.clock().now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn time_of(pace: &Pace, requests: usize) -> Duration {
        let start = Instant::now();
        for _ in 0..requests {
            pace.wait().await;
        }
        start.elapsed()
    }

    #[tokio::test]
    async fn a_burst_is_at_once_and_what_follows_waits() {
        let pace = Pace::new(Rate { per_second: 20.0, burst: 3 });
        assert!(time_of(&pace, 3).await < Duration::from_millis(40));
        let four = time_of(&pace, 4).await;
        assert!(four >= Duration::from_millis(150), "{four:?}");
    }

    #[tokio::test]
    async fn nothing_said_is_the_references_default() {
        let pace = Pace::new(Rate::default());
        assert!(time_of(&pace, 10).await < Duration::from_millis(100));
        assert!(time_of(&pace, 1).await >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn half_of_a_rate_is_half_and_half_of_no_limit_is_none() {
        let half = Pace::new(Rate { per_second: 20.0, burst: 100 }.half());
        assert!(time_of(&half, 3).await >= Duration::from_millis(150));
        assert_eq!(Rate::default().half(), Rate { per_second: 2.5, burst: 1 });
        assert!(
            time_of(&Pace::new(Rate { per_second: -1.0, burst: 1 }.half()), 100).await < Duration::from_millis(100)
        );
    }

    #[tokio::test]
    async fn odd_rates_are_no_limit() {
        for per_second in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let pace = Pace::new(Rate { per_second, burst: 1 });
            assert!(time_of(&pace, 100).await < Duration::from_millis(100), "{per_second}");
        }
    }
}
