//! How long things took that were done again and again.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// What a task has done, to be read while it goes on.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<Vec<Entry>>,
    ended: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    begun: Instant,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Took(Duration),
    Failed,
}

/// Which entry is meant.
#[derive(Debug, Clone, Copy)]
pub struct Number(usize);

impl Log {
    /// Something begins now.
    pub fn begin(&self) -> Number {
        self.with(|entries| {
            entries.push(Entry { begun: Instant::now(), outcome: None });
            Number(entries.len() - 1)
        })
    }

    /// It has ended, well or not.
    pub fn end(&self, Number(at): Number, well: bool) {
        self.with(|entries| {
            let entry = &mut entries[at];
            entry.outcome = Some(if well { Outcome::Took(entry.begun.elapsed()) } else { Outcome::Failed });
        });
        self.0.ended.notify_waiters();
    }

    /// Everything that began in a window, which is over; what is still under way is waited for, but only so long.
    pub async fn of(&self, window: Range<Instant>, patience: Duration) -> Latencies {
        let all_ended = async {
            while self.under_way(&window) {
                // Missed between the look and the wait, it is seen a little later.
                tokio::select! {
                    () = self.0.ended.notified() => {}
                    () = sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        let _ = timeout(patience, all_ended).await;
        self.now(window)
    }

    /// Everything that began in a window, with the moment.
    pub fn series(&self, window: &Range<Instant>) -> Vec<(Instant, Option<Duration>)> {
        let took = |entry: &Entry| match entry.outcome {
            Some(Outcome::Took(time)) => Some(time),
            Some(Outcome::Failed) | None => None,
        };
        self.with(|entries| {
            entries.iter().filter(|it| window.contains(&it.begun)).map(|it| (it.begun, took(it))).collect()
        })
    }

    fn now(&self, window: Range<Instant>) -> Latencies {
        let mut latencies = Latencies::default();
        self.with(|entries| {
            for entry in entries.iter().filter(|entry| window.contains(&entry.begun)) {
                match entry.outcome {
                    Some(Outcome::Took(time)) => latencies.sorted.push(time.as_secs_f64() * 1e3),
                    Some(Outcome::Failed) | None => {
                        latencies.failed += 1;
                        latencies.sorted.push(f64::INFINITY);
                    }
                }
            }
        });
        latencies.sorted.sort_unstable_by(f64::total_cmp);
        latencies
    }

    fn under_way(&self, window: &Range<Instant>) -> bool {
        self.with(|entries| entries.iter().any(|it| it.outcome.is_none() && window.contains(&it.begun)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        f(&mut self.0.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Durations in milliseconds; what failed or never ended is infinite.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// In rising order.
    sorted: Vec<f64>,
    /// How many are infinite.
    pub failed: usize,
}

impl Latencies {
    /// How many were begun.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// What this part of all did not exceed (0.5: the median); infinite when there is nothing.
    pub fn quantile(&self, part: f64) -> f64 {
        let rank = (self.sorted.len() as f64 * part).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.sorted.extend(other.sorted);
        self.sorted.sort_unstable_by(f64::total_cmp);
        self.failed += other.failed;
        self
    }

    /// So many points of the cumulative distribution, from the least to the most.
    pub fn distribution(&self, points: usize) -> Vec<f64> {
        if self.sorted.is_empty() {
            return Vec::new();
        }
        (1..=points).map(|point| self.quantile(point as f64 / points as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(u64, Option<u64>)]) -> (Log, Instant) {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let log = Log::default();
        log.with(|all| {
            all.extend(entries.iter().map(|(begun, took)| Entry {
                begun: start + ms(*begun),
                outcome: took.map(|took| Outcome::Took(ms(took))),
            }));
        });
        (log, start)
    }

    #[tokio::test]
    async fn what_began_in_the_window_counts_and_what_never_ends_is_infinite() {
        let (log, start) = log(&[(0, Some(5)), (10, Some(50)), (11, Some(60)), (12, None), (20, Some(1))]);
        let window = start + Duration::from_millis(10)..start + Duration::from_millis(20);
        let latencies = log.of(window, Duration::from_millis(1)).await;
        assert_eq!((latencies.count(), latencies.failed), (3, 1));
        assert_eq!((latencies.quantile(0.5), latencies.quantile(0.99)), (60.0, f64::INFINITY));
        assert_eq!(latencies.distribution(3), [50.0, 60.0, f64::INFINITY]);
        assert!(Latencies::default().quantile(0.5).is_infinite() && Latencies::default().distribution(3).is_empty());
    }

    #[tokio::test]
    async fn what_is_under_way_is_waited_for() {
        let log = Log::default();
        let begun = Instant::now();
        let number = log.begin();
        let (latencies, ()) = tokio::join!(log.of(begun..Instant::now(), Duration::from_secs(10)), async {
            log.end(number, true);
        });
        assert_eq!((latencies.count(), latencies.failed), (1, 0));
    }
}
