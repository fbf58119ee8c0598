//! The best of the last so many samples, in constant space.

/// The largest of the samples of the last `length` ages; an age is whatever the caller counts (round trips here).
///
/// Kathleen Nichols' three-candidate form: the best, the best after it, and the best after that one.
#[derive(Debug, Clone)]
pub(super) struct Largest {
    length: u64,
    best: [(u64, f64); 3],
}

impl Largest {
    pub(super) fn new(length: u64) -> Self {
        Self { length, best: [(0, 0.0); 3] }
    }

    /// The largest; zero if there was no sample.
    pub(super) fn get(&self) -> f64 {
        self.best[0].1
    }

    /// Forgets all but `value`.
    pub(super) fn reset(&mut self, age: u64, value: f64) {
        self.best = [(age, value); 3];
    }

    /// Takes a sample; ages never go back.
    pub(super) fn update(&mut self, age: u64, value: f64) {
        let sample = (age, value);
        if value >= self.best[0].1 || age.saturating_sub(self.best[2].0) > self.length {
            self.best = [sample; 3];
            return;
        }
        if value >= self.best[1].1 {
            self.best[1] = sample;
            self.best[2] = sample;
        } else if value >= self.best[2].1 {
            self.best[2] = sample;
        }
        self.expire(sample);
    }

    /// Lets candidates go that are too old, and keeps the later ones apart from the first in age.
    fn expire(&mut self, sample: (u64, f64)) {
        let age = sample.0.saturating_sub(self.best[0].0);
        if age > self.length {
            self.best = [self.best[1], self.best[2], sample];
            if sample.0.saturating_sub(self.best[0].0) > self.length {
                self.best = [self.best[1], self.best[2], sample];
            }
        } else if self.best[1].0 == self.best[0].0 && age > self.length / 4 {
            self.best[1] = sample;
            self.best[2] = sample;
        } else if self.best[2].0 == self.best[1].0 && age > self.length / 2 {
            self.best[2] = sample;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_forgotten_after_its_time_and_the_next_largest_stands() {
        let mut filter = Largest::new(10);
        filter.update(1, 100.0);
        for age in 2..=11 {
            filter.update(age, 50.0 + age as f64);
            assert_eq!(filter.get(), 100.0, "{age}");
        }
        filter.update(12, 40.0);
        assert!((50.0..62.0).contains(&filter.get()), "{}", filter.get());
    }

    #[test]
    fn a_larger_one_counts_at_once() {
        let mut filter = Largest::new(10);
        filter.update(1, 1.0);
        filter.update(1, 2.0);
        assert_eq!(filter.get(), 2.0);
        filter.reset(2, 1.5);
        assert_eq!(filter.get(), 1.5);
    }
}
