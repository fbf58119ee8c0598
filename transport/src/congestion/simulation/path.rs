//! The bottleneck and what is behind it.

use std::time::Duration;

/// Which packets are lost by chance.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Loss {
    None,
    /// Each with this probability.
    Random(f64),
    /// Gilbert-Elliott: the probability to turn bad, to turn good again, and of loss while bad; for each packet.
    Bursts {
        worse: f64,
        better: f64,
        lost: f64,
    },
}

/// A token bucket that drops what is above its rate, without a queue.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Policer {
    /// Bits per second.
    pub(in super::super) rate: f64,
    /// Bytes.
    pub(in super::super) burst: f64,
}

/// A path; the defaults are 100 Mbit/s at 50 ms with a queue of one bandwidth-delay product.
#[derive(Debug, Clone)]
pub(in super::super) struct Path {
    /// Bits per second, from each instant on.
    pub(in super::super) rate: Vec<(Duration, f64)>,
    /// Round trip without queues, from each instant on.
    pub(in super::super) rtt: Vec<(Duration, Duration)>,
    /// Bytes that may wait.
    pub(in super::super) queue: f64,
    pub(in super::super) loss: Loss,
    /// The loss is behind the bottleneck, and takes of its rate.
    pub(in super::super) loss_behind: bool,
    /// Each acknowledgement is lost with this probability.
    pub(in super::super) ack_loss: f64,
    /// Each packet is late by up to this.
    pub(in super::super) jitter: Duration,
    /// Whether late packets let others pass.
    pub(in super::super) reorder: bool,
    /// Acknowledgements come at multiples of this.
    pub(in super::super) ack_every: Duration,
    pub(in super::super) policer: Option<Policer>,
    /// Nothing is carried between these.
    pub(in super::super) outage: Option<(Duration, Duration)>,
}

impl Path {
    /// `mbit` megabits per second, a round trip of `millis`, and a queue of so many of their products.
    pub(in super::super) fn new(mbit: f64, millis: u64, products: f64) -> Self {
        Self {
            rate: vec![(Duration::ZERO, mbit * 1e6)],
            rtt: vec![(Duration::ZERO, Duration::from_millis(millis))],
            queue: mbit * 1e6 / 8.0 * millis as f64 / 1e3 * products,
            loss: Loss::None,
            loss_behind: false,
            ack_loss: 0.0,
            jitter: Duration::ZERO,
            reorder: false,
            ack_every: Duration::ZERO,
            policer: None,
            outage: None,
        }
    }

    /// Packets and acknowledgements are lost with this probability.
    pub(in super::super) fn lossy(mut self, probability: f64) -> Self {
        self.loss = Loss::Random(probability);
        self.ack_loss = probability;
        self
    }
}

fn since<T: Copy>(steps: &[(Duration, T)], now: Duration) -> T {
    let passed = steps.partition_point(|(from, _)| *from <= now);
    steps[passed.saturating_sub(1)].1
}

/// A generator of numbers that look random (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The state of a path.
pub(super) struct Bottleneck {
    path: Path,
    free_at: Duration,
    bad: bool,
    tokens: f64,
    tokens_at: Duration,
    last_arrival: Vec<Duration>,
}

impl Bottleneck {
    pub(super) fn new(path: Path) -> Self {
        let tokens = path.policer.map_or(0.0, |policer| policer.burst);
        let zero = Duration::ZERO;
        Self { path, free_at: zero, bad: false, tokens, tokens_at: zero, last_arrival: Vec::new() }
    }

    pub(super) fn queue_delay(&self, now: Duration) -> Duration {
        self.free_at.saturating_sub(now)
    }

    pub(super) fn is_out(&self, now: Duration) -> bool {
        self.path.outage.is_some_and(|(from, to)| (from..to).contains(&now))
    }

    pub(super) fn loses_ack(&self, random: &mut Random) -> bool {
        self.path.ack_loss > 0.0 && random.next() < self.path.ack_loss
    }

    pub(super) fn ack_arrives(&self, now: Duration, random: &mut Random) -> Duration {
        let at = now + since(&self.path.rtt, now) / 2 + self.path.jitter.mul_f64(random.next());
        let every = self.path.ack_every.as_nanos();
        if every == 0 {
            return at;
        }
        Duration::from_nanos(u64::try_from(at.as_nanos().div_ceil(every) * every).unwrap_or(u64::MAX))
    }

    /// When a packet of `bytes` arrives, if it does.
    pub(super) fn carry(&mut self, now: Duration, flow: usize, bytes: u64, random: &mut Random) -> Option<Duration> {
        let lost = self.is_out(now) | self.is_unlucky(random);
        if (lost && !self.path.loss_behind) || !self.conforms(now, bytes) {
            return None;
        }
        let rate = since(&self.path.rate, now);
        if self.queue_delay(now).as_secs_f64() * rate / 8.0 + bytes as f64 > self.path.queue + bytes as f64 {
            return None;
        }
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        if lost {
            return None;
        }
        let mut at = self.free_at + since(&self.path.rtt, now) / 2 + self.path.jitter.mul_f64(random.next());
        if self.last_arrival.len() <= flow {
            self.last_arrival.resize(flow + 1, Duration::ZERO);
        }
        if !self.path.reorder {
            at = at.max(self.last_arrival[flow]);
            self.last_arrival[flow] = at;
        }
        Some(at)
    }

    fn is_unlucky(&mut self, random: &mut Random) -> bool {
        match self.path.loss {
            Loss::None => false,
            Loss::Random(probability) => random.next() < probability,
            Loss::Bursts { worse, better, lost } => {
                let turn = if self.bad { better } else { worse };
                if random.next() < turn {
                    self.bad = !self.bad;
                }
                self.bad && random.next() < lost
            }
        }
    }

    fn conforms(&mut self, now: Duration, bytes: u64) -> bool {
        let Some(policer) = self.path.policer else { return true };
        let earned = (now - self.tokens_at).as_secs_f64() * policer.rate / 8.0;
        self.tokens = (self.tokens + earned).min(policer.burst);
        self.tokens_at = now;
        let conforms = self.tokens >= bytes as f64;
        if conforms {
            self.tokens -= bytes as f64;
        }
        conforms
    }
}
