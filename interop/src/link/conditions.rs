//! What a packet meets in one direction at one moment.

use std::time::Duration;

use thiserror::Error;

/// The least that carries any IPv4 packet (RFC 791).
const MIN_MTU: usize = 68;
/// The longest IP packet without jumbograms.
const MAX_MTU: usize = 65_535;
/// Jitter and delay above this are a mistake in the figures (the Moon is at 1.3 s).
const MAX_DELAY: Duration = Duration::from_secs(60);

/// What a packet meets in one direction, in this order: gate, MTU, loss, queue, bottleneck, loss, corruption,
/// duplication, delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Bits a second of the bottleneck, counted on whole IP packets; none: no bottleneck, and no queue before it.
    pub rate: Option<u64>,
    /// One way, behind the bottleneck.
    pub delay: Duration,
    /// How the delay varies.
    pub jitter: Jitter,
    /// Before the bottleneck: a lost packet takes none of its time.
    pub loss_before: Loss,
    /// Behind the bottleneck, on the air: a lost packet has taken its time.
    pub loss_after: Loss,
    /// How much may wait before the bottleneck; what comes when it is full is dropped.
    pub queue: Queue,
    /// Probability that a packet arrives twice.
    pub duplicates: f64,
    /// Probability that one bit of a packet is turned. UDP checksums are put right again, so that the program sees it.
    pub corruption: f64,
    /// Longest IP packet in bytes; longer ones vanish without a word (no ICMP: a black hole).
    pub mtu: usize,
    /// Whether anything passes at all.
    pub gate: Gate,
}

/// How the delay varies around its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Not at all.
    None,
    /// It wanders within this much either way, slowly enough that packets stay in order, as on a radio link.
    InOrder(Duration),
    /// Each packet's own, evenly spread within this much either way: packets overtake each other, as on several paths.
    Reordering(Duration),
}

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None.
    None,
    /// Each with this probability, whatever happened to others.
    Random(f64),
    /// In bursts: two states, changed at each packet (Gilbert and Elliott).
    Bursts {
        /// Probability to turn from good to bad.
        enter: f64,
        /// Probability to turn from bad to good.
        leave: f64,
        /// Probability that a packet is lost in the good state.
        good: f64,
        /// Probability that a packet is lost in the bad state.
        bad: f64,
    },
}

/// How much may wait before the bottleneck; one packet always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Bytes of IP packets, the one that is being sent included.
    Bytes(usize),
    /// As many bytes as the bottleneck sends in this time at its present rate.
    Time(Duration),
}

/// Whether packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They do.
    Open,
    /// What enters is lost; what is on its way arrives.
    Lost,
    /// The bottleneck pauses; what enters waits in the queue, as during a handover of a mobile network.
    Held,
}

/// Figures that no link can have.
#[derive(Debug, Error, PartialEq)]
pub enum Invalid {
    /// A probability that is none.
    #[error("{0} is {1}, but a probability is within 0 and 1")]
    Probability(&'static str, f64),
    /// Nothing would ever leave the bottleneck.
    #[error("the rate is 0; leave it out for no limit, or close the gate")]
    Rate,
    /// A queue in time needs a rate to be known in bytes.
    #[error("the queue's limit is a time, but there is no rate")]
    Queue,
    /// Too small for IP, or too long for it.
    #[error("the MTU is {0}, but IP packets have {MIN_MTU} to {MAX_MTU} bytes")]
    Mtu(usize),
    /// A delay that must be a mistake.
    #[error("{0:?} of delay or jitter; at most {MAX_DELAY:?} is possible")]
    Delay(Duration),
    /// Jitter would make packets arrive before they were sent.
    #[error("the jitter of {0:?} is more than the delay")]
    Jitter(Duration),
    /// Steps of a course that are not in order, or do not begin at 0, or go on after its period.
    #[error("the steps of a course begin at 0, are in order and end within its period")]
    Steps,
    /// A window that ends before it begins.
    #[error("a window ends before it begins")]
    Window,
}

impl Conditions {
    /// This rate in bits a second, this delay one way, a queue of one round trip's worth of bytes, and nothing bad.
    pub const fn clean(rate: u64, delay: Duration) -> Self {
        Self {
            rate: Some(rate),
            delay,
            jitter: Jitter::None,
            loss_before: Loss::None,
            loss_after: Loss::None,
            queue: Queue::Time(delay.saturating_mul(2)),
            duplicates: 0.0,
            corruption: 0.0,
            mtu: 1500,
            gate: Gate::Open,
        }
    }

    /// Time that the bottleneck takes for so many bytes; none without a rate.
    pub fn sending_time(&self, bytes: usize) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| nanos((bytes as u128 * 8_000_000_000).div_ceil(u128::from(rate))))
    }

    /// Bytes that may wait now.
    pub fn queue_bytes(&self) -> usize {
        match (self.queue, self.rate) {
            (Queue::Bytes(bytes), _) => bytes,
            (Queue::Time(_), None) => usize::MAX,
            (Queue::Time(time), Some(rate)) => {
                usize::try_from(time.as_nanos() * u128::from(rate) / 8_000_000_000).unwrap_or(usize::MAX)
            }
        }
    }

    /// Which part of what enters is lost on an empty link, on the average.
    pub fn mean_loss(&self) -> f64 {
        1.0 - (1.0 - self.loss_before.mean()) * (1.0 - self.loss_after.mean())
    }

    /// Checks the figures.
    ///
    /// # Errors
    /// Names the first that no link can have.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.rate == Some(0) {
            return Err(Invalid::Rate);
        }
        if self.rate.is_none() && matches!(self.queue, Queue::Time(_)) {
            return Err(Invalid::Queue);
        }
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return Err(Invalid::Mtu(self.mtu));
        }
        if self.delay > MAX_DELAY {
            return Err(Invalid::Delay(self.delay));
        }
        if self.jitter.spread() > self.delay {
            return Err(Invalid::Jitter(self.jitter.spread()));
        }
        probability("duplicates", self.duplicates)?;
        probability("corruption", self.corruption)?;
        self.loss_before.check()?;
        self.loss_after.check()
    }
}

impl Jitter {
    /// Either way.
    pub fn spread(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::InOrder(spread) | Self::Reordering(spread) => spread,
        }
    }
}

impl Loss {
    /// Bursts in which everything is lost, so long on the average (in packets, at least 1), so that this part is lost
    /// in all.
    pub fn bursts(mean: f64, length: f64) -> Self {
        let leave = 1.0 / length;
        Self::Bursts { enter: mean * leave / (1.0 - mean), leave, good: 0.0, bad: 1.0 }
    }

    /// Which part is lost in the long run.
    pub fn mean(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Random(probability) => probability,
            Self::Bursts { enter, leave, good, bad } => {
                let in_bad = if enter + leave > 0.0 { enter / (enter + leave) } else { 0.0 };
                good * (1.0 - in_bad) + bad * in_bad
            }
        }
    }

    /// Variance of the number of lost packets, for each packet of a long train. Bursts make it larger than chance
    /// alone: by twice the sum of all covariances, which fall by `1 - enter - leave` from packet to packet.
    pub fn variance(self) -> f64 {
        let mean = self.mean();
        let alone = mean * (1.0 - mean);
        match self {
            Self::Bursts { enter, leave, good, bad } if enter + leave > 0.0 => {
                let in_bad = enter / (enter + leave);
                let memory = 1.0 - enter - leave;
                alone + 2.0 * in_bad * (1.0 - in_bad) * (bad - good).powi(2) * memory / (1.0 - memory)
            }
            _ => alone,
        }
    }

    fn check(self) -> Result<(), Invalid> {
        match self {
            Self::None => Ok(()),
            Self::Random(part) => probability("loss", part),
            Self::Bursts { enter, leave, good, bad } => {
                probability("loss: enter", enter)?;
                probability("loss: leave", leave)?;
                probability("loss: good", good)?;
                probability("loss: bad", bad)
            }
        }
    }
}

fn probability(name: &'static str, value: f64) -> Result<(), Invalid> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Invalid::Probability(name, value)) }
}

/// So many nanoseconds; 584 years at most.
pub(super) fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn figures_that_no_link_can_have_are_refused() {
        let good = Conditions::clean(1_000_000, 10 * MS);
        assert_eq!(good.check(), Ok(()));
        for (bad, error) in [
            (Conditions { rate: Some(0), ..good }, Invalid::Rate),
            (Conditions { rate: None, ..good }, Invalid::Queue),
            (Conditions { mtu: 67, ..good }, Invalid::Mtu(67)),
            (Conditions { mtu: 65_536, ..good }, Invalid::Mtu(65_536)),
            (Conditions { delay: MAX_DELAY + MS, ..good }, Invalid::Delay(MAX_DELAY + MS)),
            (Conditions { jitter: Jitter::InOrder(11 * MS), ..good }, Invalid::Jitter(11 * MS)),
            (Conditions { duplicates: 1.1, ..good }, Invalid::Probability("duplicates", 1.1)),
            (Conditions { corruption: -0.1, ..good }, Invalid::Probability("corruption", -0.1)),
            (Conditions { loss_before: Loss::Random(2.0), ..good }, Invalid::Probability("loss", 2.0)),
            (Conditions { loss_after: Loss::bursts(0.5, 0.5), ..good }, Invalid::Probability("loss: enter", 2.0)),
        ] {
            assert_eq!(bad.check(), Err(error));
        }
        assert!(Conditions { loss_before: Loss::Random(f64::NAN), ..good }.check().is_err());
    }

    #[test]
    fn sizes_and_times_follow_the_rate() {
        let link = Conditions::clean(20_000_000, 25 * MS);
        assert_eq!(link.sending_time(1500), Duration::from_micros(600));
        assert_eq!(link.queue_bytes(), 125_000);
        assert_eq!(Conditions { queue: Queue::Bytes(5), ..link }.queue_bytes(), 5);
        assert_eq!(Conditions { rate: None, ..link }.sending_time(1500), Duration::ZERO);
    }

    #[test]
    fn bursts_have_the_mean_that_was_asked_for() {
        let bursts = Loss::bursts(0.03, 5.0);
        assert!((bursts.mean() - 0.03).abs() < 1e-12);
        // For bursts of length L the variance is about 2 L - 1 times that of single losses.
        assert!((bursts.variance() / (0.03 * 0.97) - 8.7).abs() < 0.1, "{}", bursts.variance() / (0.03 * 0.97));
        assert!((Loss::Random(0.1).variance() - 0.09).abs() < 1e-12);
        let both =
            Conditions { loss_before: Loss::Random(0.5), loss_after: Loss::Random(0.5), ..Conditions::clean(1, MS) };
        assert!((both.mean_loss() - 0.75).abs() < 1e-12);
    }
}
