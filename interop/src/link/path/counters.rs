//! What a path counts.

use std::time::Duration;

use crate::link::spread::Spread;

/// Why a packet did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The gate was shut.
    Outage,
    /// Longer than the MTU.
    TooLong,
    /// By chance before the bottleneck.
    Before,
    /// The queue was full.
    QueueFull,
    /// By chance behind the bottleneck.
    After,
    /// More packets on their way than the emulator holds.
    Crowded,
}

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Packets that were offered.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Packets that came out, duplicates included.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Dropped, by cause.
    pub dropped: Dropped,
    /// Copies that were made.
    pub duplicated: u64,
    /// Packets with a turned bit.
    pub corrupted: u64,
    /// Packets that overtook another.
    pub overtaking: u64,
    /// How long packets waited before the bottleneck, their own sending not included.
    pub queue_delay: Spread,
    /// For how much of the time the bottleneck was sending.
    pub busy: Duration,
    /// What chance should have taken before the bottleneck.
    pub expected_before: Expected,
    /// What chance should have taken behind it.
    pub expected_after: Expected,
}

/// Dropped packets by cause; see [`Cause`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The gate was shut.
    pub outage: u64,
    /// Longer than the MTU.
    pub too_long: u64,
    /// By chance before the bottleneck.
    pub before: u64,
    /// The queue was full.
    pub queue_full: u64,
    /// By chance behind the bottleneck.
    pub after: u64,
    /// More packets on their way than the emulator holds.
    pub crowded: u64,
}

/// What chance should have done, to be compared with what it did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Expected {
    /// Packets that met it.
    pub packets: u64,
    /// How many of them should be lost.
    pub lost: f64,
    /// The variance of that number.
    pub variance: f64,
}

impl Dropped {
    pub(super) fn count(&mut self, cause: Cause) {
        let counter = match cause {
            Cause::Outage => &mut self.outage,
            Cause::TooLong => &mut self.too_long,
            Cause::Before => &mut self.before,
            Cause::QueueFull => &mut self.queue_full,
            Cause::After => &mut self.after,
            Cause::Crowded => &mut self.crowded,
        };
        *counter += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.outage + self.too_long + self.before + self.queue_full + self.after + self.crowded
    }
}

impl Expected {
    /// One more packet that chance may take.
    pub(super) fn meet(&mut self, mean: f64, variance: f64) {
        self.packets += 1;
        self.lost += mean;
        self.variance += variance;
    }

    /// How many standard deviations away this number is; 0 if nothing was left to chance.
    pub fn deviations(&self, lost: u64) -> f64 {
        let difference = lost as f64 - self.lost;
        if self.variance > 0.0 { difference / self.variance.sqrt() } else { difference }
    }
}
