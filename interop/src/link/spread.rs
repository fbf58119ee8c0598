//! How a time is spread, in bounded memory.

use std::time::Duration;

/// Buckets for each doubling: a percentile is off by 1/64 at most.
const FINENESS: u32 = 5;
/// Up to the largest `u64` of nanoseconds.
const BUCKETS: usize = ((64 - FINENESS as usize) << FINENESS) + (1 << FINENESS);

/// Mean, largest and percentiles of many times.
#[derive(Debug, Clone)]
pub struct Spread {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

impl Spread {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    /// What came after an earlier state of the same; its largest is that of all.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now.saturating_sub(*then));
        Self {
            buckets: buckets.collect(),
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum.saturating_sub(earlier.sum),
            max: self.max,
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; zero if there is none.
    pub fn mean(&self) -> Duration {
        super::conditions::nanos(self.sum / u128::from(self.count.max(1)))
    }

    /// The largest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// So that this part (0 to 1) is not larger, to 1/32.
    pub fn percentile(&self, part: f64) -> Duration {
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        // What a bucket begins with may be more than the largest only if there is none at all.
        Duration::from_nanos(found.map_or(0, |index| middle(index).min(self.max)))
    }
}

/// Linear below `2^FINENESS`, then `2^FINENESS` buckets for each doubling.
fn bucket(value: u64) -> usize {
    let exponent = value.checked_ilog2().unwrap_or(0).saturating_sub(FINENESS);
    ((exponent as usize) << FINENESS) + (value >> exponent) as usize
}

/// The value in the middle of a bucket.
fn middle(index: usize) -> u64 {
    let exponent = (index >> FINENESS).saturating_sub(1);
    let start = (index - (exponent << FINENESS)) as u64;
    (start << exponent) + (1_u64 << exponent) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_fine_enough_from_one_end_to_the_other() {
        for value in
            (0..63).flat_map(|shift| [(1_u64 << shift) - 1, 1 << shift, (1 << shift) * 3 / 2]).chain([u64::MAX])
        {
            let error = middle(bucket(value)).abs_diff(value);
            assert!(error <= value / 32, "{value} becomes {}", middle(bucket(value)));
        }
    }

    #[test]
    fn what_came_later_is_what_is_left_without_what_came_before() {
        let mut spread = Spread::default();
        (1..=100).for_each(|_| spread.add(Duration::from_millis(1)));
        let earlier = spread.clone();
        (1..=10).for_each(|_| spread.add(Duration::from_millis(100)));
        let later = spread.since(&earlier);
        assert_eq!((later.count(), later.mean()), (10, Duration::from_millis(100)));
        assert!(later.percentile(0.01) > Duration::from_millis(96));
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut spread = Spread::default();
        assert_eq!((spread.percentile(0.5), spread.mean(), spread.max()), Default::default());
        (1..=1000).for_each(|ms| spread.add(Duration::from_millis(ms)));
        assert_eq!((spread.count(), spread.max()), (1000, Duration::from_secs(1)));
        assert_eq!(spread.mean(), Duration::from_micros(500_500));
        for (part, ms) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = spread.percentile(part).as_secs_f64() * 1e3;
            assert!((found / ms - 1.0).abs() < 0.04, "{part}: {found}");
        }
    }
}
