//! How much is lost, of what was sent when.
//!
//! A rate of loss says nothing by itself: radio links lose packets whatever we do. What counts is whether it follows
//! our sending, so losses are booked on the round in which the packets were *sent*, together with how much load that
//! round put on the path. What is lost at low load is the path's own loss, the `base`.

use std::{collections::VecDeque, time::Instant};

/// Above its own loss, a path may lose so much more before it means something.
pub(super) const MARGIN: f64 = 0.03;

/// Packets lost that mean nothing, however few were sent.
const FEW: f64 = 2.0;

/// How much a round asked of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Not more than it carries.
    Low,
    /// About what it carries.
    Even,
    /// More, to see what it carries.
    High,
}

/// What became of the packets of one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) load: Load,
    from: Instant,
    acked: u64,
    lost: u64,
}

impl Round {
    fn packets(&self, packet: u64) -> f64 {
        (self.acked.saturating_add(self.lost)) as f64 / packet.max(1) as f64
    }

    /// The part that was lost.
    pub(super) fn rate(&self) -> f64 {
        self.lost as f64 / (self.acked.saturating_add(self.lost)).max(1) as f64
    }
}

/// Books losses.
#[derive(Debug, Clone)]
pub(super) struct Losses {
    /// The round under way, and the one before.
    rounds: VecDeque<Round>,
    base: f64,
}

impl Losses {
    pub(super) fn new(now: Instant) -> Self {
        let mut losses = Self { rounds: VecDeque::with_capacity(3), base: 0.0 };
        losses.begin(now, Load::Even);
        losses
    }

    /// A round begins.
    pub(super) fn begin(&mut self, from: Instant, load: Load) {
        self.rounds.push_back(Round { load, from, acked: 0, lost: 0 });
    }

    fn of(&mut self, sent: Instant) -> Option<&mut Round> {
        self.rounds.iter_mut().rev().find(|round| round.from <= sent)
    }

    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        if let Some(round) = self.of(sent) {
            round.acked = round.acked.saturating_add(bytes);
        }
    }

    pub(super) fn on_loss(&mut self, sent: Instant, bytes: u64) {
        if let Some(round) = self.of(sent) {
            round.lost = round.lost.saturating_add(bytes);
        }
    }

    /// A round ends: tells of the one before it, as the fate of what was sent then is known.
    pub(super) fn settle(&mut self) -> Option<Round> {
        let known = if self.rounds.len() >= 2 { self.rounds.pop_front() } else { None };
        known.filter(|round| round.acked > 0 || round.lost > 0)
    }

    /// The path's own loss.
    pub(super) fn base(&self) -> f64 {
        self.base
    }

    /// Loss that was there at low load, or did not go away when the load did, is the path's own.
    pub(super) fn learn(&mut self, round: &Round, packet: u64) {
        let weight = (round.packets(packet) / 400.0).min(0.25);
        let down = round.rate() < self.base;
        if round.load == Load::Low || (down && round.load == Load::Even) {
            self.base += (round.rate() - self.base) * weight;
        }
    }

    /// Takes `rate` for the path's own loss, if it is more.
    pub(super) fn accept(&mut self, rate: f64) {
        self.base = self.base.max(rate).min(0.5);
    }

    /// Whether more was lost than the path's own loss explains.
    pub(super) fn is_excessive(&self, round: &Round, packet: u64) -> bool {
        self.exceeds(round, packet, MARGIN)
    }

    /// Whether a little more was lost than the path's own loss explains.
    pub(super) fn is_noticeable(&self, round: &Round, packet: u64) -> bool {
        self.exceeds(round, packet, MARGIN / 3.0)
    }

    fn exceeds(&self, round: &Round, packet: u64, margin: f64) -> bool {
        let packets = round.packets(packet).max(1.0);
        let spread = (self.base * (1.0 - self.base) / packets).sqrt();
        round.rate() > self.base + margin + 3.0 * spread + FEW / packets
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn losses_count_for_the_round_in_which_they_were_sent() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut losses = Losses::new(start);
        assert!(losses.settle().is_none());
        losses.begin(at(1), Load::High);
        losses.on_ack(at(0), 90);
        losses.on_loss(at(0), 10);
        losses.on_loss(at(1), 50);
        losses.on_ack(at(1), 50);
        let first = losses.settle().unwrap();
        losses.begin(at(2), Load::Low);
        assert_eq!((first.load, first.rate()), (Load::Even, 0.1));
        let second = losses.settle().unwrap();
        assert_eq!((second.load, second.rate()), (Load::High, 0.5));
    }

    #[test]
    fn only_loss_at_low_load_is_the_paths_own() {
        let now = Instant::now();
        let mut losses = Losses::new(now);
        let round = |load| Round { load, from: now, acked: 95_000, lost: 5_000 };
        for _ in 0..100 {
            losses.learn(&round(Load::High), 100);
            losses.learn(&round(Load::Even), 100);
        }
        assert_eq!(losses.base(), 0.0);
        assert!(losses.is_excessive(&round(Load::Even), 100));
        for _ in 0..100 {
            losses.learn(&round(Load::Low), 100);
        }
        assert!((losses.base() - 0.05).abs() < 0.001, "{}", losses.base());
        assert!(!losses.is_excessive(&round(Load::Even), 100));
    }

    #[test]
    fn few_packets_say_nothing() {
        let now = Instant::now();
        let losses = Losses::new(now);
        assert!(!losses.is_excessive(&Round { load: Load::Even, from: now, acked: 800, lost: 200 }, 100));
        assert!(losses.is_excessive(&Round { load: Load::Even, from: now, acked: 8_000, lost: 2_000 }, 100));
    }
}
