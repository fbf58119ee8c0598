//! One direction of a link, as plain state: packets go in with the time, and come out at theirs.
//!
//! ```text
//! offer --> gate, MTU, loss --> queue --> bottleneck --> loss, corruption, duplication --> delay --> next
//! ```
//!
//! There is no clock here: hours pass as fast as they can be computed. What happens depends on the seed, on the packets
//! and on the times at which they are offered, never on when [`Path::next`] is asked: packets leave the bottleneck at
//! the time that their bits take, however late the caller looks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::conditions::{Conditions, Gate, Jitter, nanos};
use super::course::{Course, Moment};
use super::dice::Dice;

mod counters;

pub use self::counters::{Cause, Counters, Dropped, Expected};

/// Packets in queue and on their way, whatever rate, delay and queue: 50,000 of 1,500 bytes are 6 s of 100 Mbit/s.
const MAX_PACKETS: usize = 50_000;
/// Bits times nanoseconds in a second: work is counted so that no bit is lost to rounding.
const WORK_OF_A_BYTE: u128 = 8 * 1_000_000_000;

/// What a path carries.
pub trait Load: Clone {
    /// Bytes of the whole IP packet.
    fn bytes(&self) -> usize;
    /// Turns a bit of it, chosen by the number.
    fn corrupt(&mut self, random: u64);
}

/// A packet that has come out.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery<P> {
    /// The packet.
    pub packet: P,
    /// When it came out; the caller may be later.
    pub due: Duration,
}

/// One direction of a link.
#[derive(Debug, Clone)]
pub struct Path<P> {
    course: Course,
    /// When the course began.
    begun: Duration,
    moment: Moment,
    /// Up to when everything has happened.
    clock: Duration,
    dice: Dice,
    queue: VecDeque<Waiting<P>>,
    queued_bytes: usize,
    /// Since when the first in the queue is being sent, at the present rate; the end of the last one if there is none.
    sending_since: Duration,
    /// How much of it was left then, in bits times nanoseconds.
    work_left: u128,
    flying: BinaryHeap<Reverse<Flying<P>>>,
    sequence: u64,
    last_due: Duration,
    counters: Counters,
}

#[derive(Debug, Clone)]
struct Waiting<P> {
    packet: P,
    since: Duration,
}

#[derive(Debug, Clone)]
struct Flying<P> {
    due: Duration,
    sequence: u64,
    packet: P,
}

impl<P: Load> Path<P> {
    /// A path that begins now, at 0. Directions with different numbers have different luck with the same seed.
    pub fn new(course: Course, seed: u64, direction: u64) -> Self {
        Self {
            moment: course.at(Duration::ZERO),
            course,
            begun: Duration::ZERO,
            clock: Duration::ZERO,
            dice: Dice::new(seed, direction),
            queue: VecDeque::new(),
            queued_bytes: 0,
            sending_since: Duration::ZERO,
            work_left: 0,
            flying: BinaryHeap::new(),
            sequence: 0,
            last_due: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// A packet enters. Times must not go back.
    ///
    /// # Errors
    /// Gives a dropped packet back, so that its memory can be used again.
    pub fn offer(&mut self, now: Duration, packet: P) -> Result<(), (Cause, P)> {
        let now = now.max(self.clock);
        self.advance(now);
        self.counters.offered += 1;
        self.counters.offered_bytes += packet.bytes() as u64;
        if let Some(cause) = self.turned_away(packet.bytes()) {
            self.counters.dropped.count(cause);
            return Err((cause, packet));
        }
        self.queued_bytes += packet.bytes();
        self.queue.push_back(Waiting { packet, since: now });
        if self.queue.len() == 1 {
            self.begin_sending();
        }
        Ok(())
    }

    /// The first packet that has come out by now, if any.
    pub fn next(&mut self, now: Duration) -> Option<Delivery<P>> {
        self.advance(now.max(self.clock));
        if self.flying.peek()?.0.due > now {
            return None;
        }
        let Reverse(Flying { due, packet, .. }) = self.flying.pop()?;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += packet.bytes() as u64;
        Some(Delivery { packet, due })
    }

    /// When it is worth to ask again if nothing enters: a packet may come out then, not before.
    pub fn wake(&self) -> Option<Duration> {
        let conditions = &self.moment.conditions;
        let soonest = conditions.delay.saturating_sub(conditions.jitter.spread());
        let leaving = self.sent_at().map(|sent| sent + soonest);
        // The conditions may change before that.
        let leaving = match (self.until(), self.queue.is_empty()) {
            (Some(change), false) => Some(leaving.map_or(change, |leaving| leaving.min(change))),
            _ => leaving,
        };
        [leaving, self.flying.peek().map(|Reverse(first)| first.due)].into_iter().flatten().min()
    }

    /// Another course from now on; what is in the queue leaves at its rate, what is on its way is not touched.
    pub fn set(&mut self, now: Duration, course: Course) {
        let now = now.max(self.clock);
        self.advance(now);
        self.settle(now);
        self.course = course;
        self.begun = now;
        self.moment = self.course.at(Duration::ZERO);
    }

    /// The conditions now, or rather: as of the last call.
    pub fn conditions(&self) -> &Conditions {
        &self.moment.conditions
    }

    /// What has happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets that are neither delivered nor dropped yet, copies included.
    pub fn under_way(&self) -> usize {
        self.queue.len() + self.flying.len()
    }

    fn turned_away(&mut self, bytes: usize) -> Option<Cause> {
        let conditions = &self.moment.conditions;
        if conditions.gate == Gate::Lost {
            return Some(Cause::Outage);
        }
        if bytes > conditions.mtu {
            return Some(Cause::TooLong);
        }
        self.counters.expected_before.meet(conditions.loss_before.mean(), conditions.loss_before.variance());
        if self.dice.before.takes(conditions.loss_before) {
            return Some(Cause::Before);
        }
        if !self.queue.is_empty() && self.queued_bytes.saturating_add(bytes) > conditions.queue_bytes() {
            return Some(Cause::QueueFull);
        }
        (self.under_way() >= MAX_PACKETS).then_some(Cause::Crowded)
    }

    fn until(&self) -> Option<Duration> {
        self.moment.until.map(|until| self.begun + until)
    }

    /// Everything up to `to` happens.
    fn advance(&mut self, to: Duration) {
        while let Some(change) = self.until().filter(|change| *change <= to) {
            self.send_until(change);
            self.settle(change);
            self.clock = change;
            self.moment = self.course.at(change - self.begun);
        }
        self.send_until(to);
        self.clock = to;
    }

    fn send_until(&mut self, to: Duration) {
        while let Some(sent) = self.sent_at().filter(|sent| *sent <= to) {
            let Some(Waiting { packet, .. }) = self.queue.pop_front() else { return };
            self.queued_bytes -= packet.bytes();
            self.counters.busy += sent - self.sending_since;
            self.sending_since = sent;
            self.leave(packet, sent);
            self.begin_sending();
        }
    }

    /// The first in the queue gets its turn.
    fn begin_sending(&mut self) {
        if let Some(first) = self.queue.front() {
            let begin = self.sending_since.max(first.since);
            self.counters.queue_delay.add(begin - first.since);
            self.sending_since = begin;
            self.work_left = first.packet.bytes() as u128 * WORK_OF_A_BYTE;
        }
    }

    /// When the last bit of the first in the queue leaves, if conditions stay.
    fn sent_at(&self) -> Option<Duration> {
        let conditions = &self.moment.conditions;
        if self.queue.is_empty() || conditions.gate == Gate::Held {
            return None;
        }
        let time = conditions.rate.map_or(0, |rate| self.work_left.div_ceil(u128::from(rate)));
        Some(self.sending_since + nanos(time))
    }

    /// Books what has been sent of the first in the queue at a rate that ends now.
    fn settle(&mut self, now: Duration) {
        if self.queue.is_empty() || self.sending_since >= now {
            return;
        }
        let conditions = &self.moment.conditions;
        if conditions.gate != Gate::Held {
            let time = now - self.sending_since;
            let done = time.as_nanos() * u128::from(conditions.rate.unwrap_or(0));
            self.work_left = self.work_left.saturating_sub(done);
            self.counters.busy += time;
        }
        self.sending_since = now;
    }

    /// Behind the bottleneck.
    fn leave(&mut self, mut packet: P, now: Duration) {
        let conditions = self.moment.conditions;
        self.counters.expected_after.meet(conditions.loss_after.mean(), conditions.loss_after.variance());
        if self.dice.after.takes(conditions.loss_after) {
            self.counters.dropped.count(Cause::After);
            return;
        }
        if self.dice.corruption.happens(conditions.corruption) {
            packet.corrupt(self.dice.corruption.number());
            self.counters.corrupted += 1;
        }
        if self.dice.duplicates.happens(conditions.duplicates) {
            self.counters.duplicated += 1;
            self.fly(packet.clone(), now);
        }
        self.fly(packet, now);
    }

    fn fly(&mut self, packet: P, now: Duration) {
        let Conditions { delay, jitter, .. } = self.moment.conditions;
        let mut due = now + self.dice.jitter.delay(now, delay, jitter);
        if !matches!(jitter, Jitter::Reordering(_)) {
            // A delay that became shorter does not let packets overtake either.
            due = due.max(self.last_due);
        }
        self.counters.overtaking += u64::from(due < self.last_due);
        self.last_due = self.last_due.max(due);
        self.flying.push(Reverse(Flying { due, sequence: self.sequence, packet }));
        self.sequence += 1;
    }
}

impl<P> PartialEq for Flying<P> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl<P> Eq for Flying<P> {}

impl<P> PartialOrd for Flying<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Flying<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

#[cfg(test)]
mod tests;
