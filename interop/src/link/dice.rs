//! Chance from a seed: what happens to the n-th packet of a direction is the same in each run with the same seed.
//!
//! The generator is ChaCha with 8 rounds, whose values are fixed by its definition (`rand`'s own choices may change
//! from version to version). Each impairment has its own stream, so switching one on does not change what the others
//! do.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::conditions::{Jitter, Loss};

/// How fast a wandering delay may change: a millisecond of it takes this many. Packets stay in order below 1 per 1.
const WANDER_SLOWNESS: u32 = 2;
/// A wandering delay turns no more often than this: radio schedulers work in steps of some milliseconds.
const WANDER_MIN_PERIOD: Duration = Duration::from_millis(20);

/// How long a delay wanders one way.
pub(super) fn wander_period(spread: Duration) -> Duration {
    (spread * 2 * WANDER_SLOWNESS).max(WANDER_MIN_PERIOD)
}

/// All chances of one direction.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    pub before: Losses,
    pub after: Losses,
    pub duplicates: Chance,
    pub corruption: Chance,
    pub jitter: Delays,
}

impl Dice {
    /// For one of several directions of a link.
    pub fn new(seed: u64, direction: u64) -> Self {
        let chance = |purpose: u64| Chance::new(seed, direction * 16 + purpose);
        Self {
            before: Losses { chance: chance(0), in_bad: false },
            after: Losses { chance: chance(1), in_bad: false },
            duplicates: chance(2),
            corruption: chance(3),
            jitter: Delays { chance: chance(4), from: 0.5, to: 0.5, begun: None, period: Duration::ZERO },
        }
    }
}

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    fn new(seed: u64, stream: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(bytes);
        generator.set_stream(stream);
        Self(generator)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to below 1: the 53 bits that an `f64` can hold.
    fn part(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of this probability happens; nothing is drawn for what cannot.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.part() < probability
    }
}

/// Losses, with the memory that bursts need.
#[derive(Debug, Clone)]
pub(super) struct Losses {
    chance: Chance,
    in_bad: bool,
}

impl Losses {
    /// Whether the next packet is lost.
    pub fn takes(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Random(probability) => self.chance.happens(probability),
            Loss::Bursts { enter, leave, good, bad } => {
                let turn = if self.in_bad { leave } else { enter };
                self.in_bad ^= self.chance.happens(turn);
                self.chance.happens(if self.in_bad { bad } else { good })
            }
        }
    }
}

/// Delays that vary.
#[derive(Debug, Clone)]
pub(super) struct Delays {
    chance: Chance,
    /// Where a wandering delay came from and goes to, each from 0 (least) to 1 (most).
    from: f64,
    to: f64,
    begun: Option<Duration>,
    period: Duration,
}

impl Delays {
    /// The delay of what begins its way now; times must not go back.
    pub fn delay(&mut self, now: Duration, mean: Duration, jitter: Jitter) -> Duration {
        let part = match jitter {
            Jitter::None => return mean,
            Jitter::Reordering(_) => self.chance.part(),
            Jitter::InOrder(spread) => self.wander(now, spread),
        };
        let spread = jitter.spread();
        mean.saturating_sub(spread) + (spread * 2).mul_f64(part)
    }

    /// Straight lines from one random place to the next.
    fn wander(&mut self, now: Duration, spread: Duration) -> f64 {
        let begun = *self.begun.get_or_insert(now);
        let mut since = now.saturating_sub(begun);
        if since >= self.period {
            // After a long rest the way up to now does not matter.
            let rested = since >= self.period * 2;
            self.from = if rested { self.chance.part() } else { self.to };
            self.to = self.chance.part();
            self.begun = Some(if rested { now } else { begun + self.period });
            since = if rested { Duration::ZERO } else { since - self.period };
            self.period = wander_period(spread);
        }
        self.from + (self.to - self.from) * since.as_secs_f64() / self.period.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_these_numbers_for_ever() {
        let mut chance = Chance::new(7, 3);
        let numbers: Vec<u64> = (0..3).map(|_| chance.number()).collect();
        assert_eq!(numbers, [12_228_748_295_295_190_366, 9_306_390_978_737_893_962, 13_577_759_650_421_556_749]);
        assert_ne!(Chance::new(8, 3).number(), numbers[0]);
        assert_ne!(Chance::new(7, 4).number(), numbers[0]);
    }

    #[test]
    fn probabilities_are_kept() {
        let mut chance = Chance::new(1, 0);
        let count = (0..100_000).filter(|_| chance.happens(0.01)).count();
        assert!((900..1100).contains(&count), "{count}");
        assert!(!chance.happens(0.0) && chance.happens(1.0));
    }

    #[test]
    fn bursts_have_their_length_and_share() {
        let mut losses = Dice::new(1, 0).before;
        let loss = Loss::bursts(0.02, 4.0);
        let fates: Vec<bool> = (0..400_000).map(|_| losses.takes(loss)).collect();
        let lost = fates.iter().filter(|lost| **lost).count();
        let bursts = fates.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((0.018..0.022).contains(&(lost as f64 / fates.len() as f64)), "{lost}");
        assert!((3.8..4.2).contains(&(lost as f64 / bursts as f64)), "{lost} in {bursts} bursts");
        let mut losses = Dice::new(1, 0).before;
        let single = (0..400_000).map(|_| losses.takes(Loss::Random(0.02))).collect::<Vec<_>>();
        let bursts = single.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let lost = single.iter().filter(|lost| **lost).count();
        assert!((1.0..1.05).contains(&(lost as f64 / bursts as f64)), "{lost} in {bursts} bursts");
    }

    #[test]
    fn a_wandering_delay_keeps_order_and_uses_its_room() {
        let mut delays = Dice::new(1, 0).jitter;
        let (mean, spread) = (Duration::from_millis(50), Duration::from_millis(20));
        let mut last = Duration::ZERO;
        let mut all = Vec::new();
        for step in 0..600_000_u32 {
            let now = step * Duration::from_micros(100);
            let delay = delays.delay(now, mean, Jitter::InOrder(spread));
            assert!(delay >= mean - spread && delay <= mean + spread);
            assert!(now + delay >= last, "in order");
            last = now + delay;
            all.push(delay.as_secs_f64() * 1e3);
        }
        let average = all.iter().sum::<f64>() / all.len() as f64;
        assert!((average - 50.0).abs() < 1.5, "{average}");
        assert!(all.iter().copied().fold(f64::MAX, f64::min) < 32.0 && all.iter().copied().fold(0.0, f64::max) > 68.0);
    }

    #[test]
    fn reordering_delays_are_evenly_spread() {
        let mut delays = Dice::new(1, 0).jitter;
        let (mean, spread) = (Duration::from_millis(25), Duration::from_millis(5));
        let mut all: Vec<_> = (0..10_000)
            .map(|_| delays.delay(Duration::ZERO, mean, Jitter::Reordering(spread)).as_secs_f64() * 1e3)
            .collect();
        all.sort_by(f64::total_cmp);
        for (part, expected) in [(0, 20.0), (2_500, 22.5), (5_000, 25.0), (7_500, 27.5), (9_999, 30.0)] {
            assert!((all[part] - expected).abs() < 0.2, "{part}: {}", all[part]);
        }
    }
}
