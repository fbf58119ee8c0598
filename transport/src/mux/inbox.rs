//! What has come for one dial and was not taken yet, and how far that slows the stream that all dials share.
//!
//! A stream of packets has no flow control for each dial: whoever reads it must take what comes for any of them. So bytes
//! wait here. Up to the dial's buffer nobody notices. Above it the stream is read more slowly, so slowly that the dial
//! needs [`STALL_LIMIT`] to fill four buffers: others go on, and by then a dial that takes next to nothing was ended. At
//! four buffers the stream is not read until there is room: what bounds memory, and makes all go at the pace of one that is
//! slow and not stuck.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::batch::Batch;

/// How long a dial whose buffer is full may take next to nothing. The reference's client allows as much.
pub const STALL_LIMIT: Duration = Duration::from_secs(10);

/// How many buffers a dial can hold in the end.
const HARD_BUFFERS: usize = 4;

/// How much of a pause that took too long is made up for.
const CATCH_UP: Duration = Duration::from_millis(100);

/// What a piece counts for at least: it has a place in a queue and a counter of its own.
const PIECE_COST: usize = 128;

/// Bytes that are copied rather than kept with the read buffer that they are part of, which may be 64 KiB: what is held is
/// at most eight times what is counted.
const COPIED_BYTES: usize = 8 * 1024;

/// Bytes of one dial, in order.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Bytes>,
    cost: usize,
}

impl Inbox {
    /// Memory that it counts for.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes bytes; by how much its cost has grown.
    pub(super) fn push(&mut self, bytes: Bytes) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        let cost = bytes.len().max(PIECE_COST);
        self.cost += cost;
        self.pieces.push_back(if bytes.len() <= COPIED_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes });
        cost
    }

    /// Gives out what fits into a batch.
    pub(super) fn batch(&mut self) -> Batch {
        let mut batch = Batch::take();
        let mut filled = 0;
        let chunk_bytes = self.pieces.front().map_or(0, Bytes::len);
        for place in batch.space(chunk_bytes) {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.cost -= piece.len().max(PIECE_COST);
            *place = piece;
            filled += 1;
        }
        if self.pieces.is_empty() {
            // Most dials are idle.
            self.pieces = VecDeque::new();
        }
        batch.filled(filled)
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// When the stream may be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Until(Instant),
    /// Until some dial has room.
    Room,
}

/// How far all dials of a stream together slow it.
#[derive(Debug)]
pub(super) struct Pressure {
    buffer: usize,
    /// Dials over their buffer.
    over: usize,
    /// Dials that can hold no more.
    full: usize,
    not_before: Option<Instant>,
}

impl Pressure {
    /// For dials that have a buffer of so many bytes each.
    pub(super) fn new(buffer: usize) -> Self {
        Self { buffer, over: 0, full: 0, not_before: None }
    }

    fn hard(&self) -> usize {
        self.buffer.saturating_mul(HARD_BUFFERS)
    }

    /// Whether a dial that holds so much is over its buffer.
    pub(super) fn is_over(&self, cost: usize) -> bool {
        cost > self.buffer
    }

    /// A dial that held `before` now holds `after`.
    pub(super) fn grown(&mut self, before: usize, after: usize, now: Instant) {
        self.over += usize::from(!self.is_over(before) && self.is_over(after));
        self.full += usize::from(before < self.hard() && after >= self.hard());
        if self.is_over(after) {
            let above = (after - self.buffer.max(before)) as f64;
            let pause = STALL_LIMIT.mul_f64(above / (self.hard() - self.buffer).max(1) as f64);
            // A busy machine wakes late, and after small pauses it would be late all the time.
            let late_by = self.not_before.map_or(Duration::ZERO, |instant| now.saturating_duration_since(instant));
            let from = self.not_before.filter(|_| late_by <= CATCH_UP).unwrap_or(now);
            self.not_before = Some(from + pause);
        }
    }

    /// The same the other way. Whether the stream may now be read sooner.
    pub(super) fn shrunk(&mut self, before: usize, after: usize) -> bool {
        let relieved = (self.is_over(before) && !self.is_over(after)) || (before >= self.hard() && after < self.hard());
        self.over -= usize::from(self.is_over(before) && !self.is_over(after));
        self.full -= usize::from(before >= self.hard() && after < self.hard());
        if self.over == 0 {
            self.not_before = None;
        }
        relieved
    }

    /// When the stream may be read again.
    pub(super) fn wait(&self, now: Instant) -> Wait {
        match self.not_before {
            _ if self.full > 0 => Wait::Room,
            Some(instant) if instant > now => Wait::Until(instant),
            _ => Wait::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: usize = 1 << 20;

    #[test]
    fn up_to_its_buffer_a_dial_slows_nobody() {
        let now = Instant::now();
        let mut pressure = Pressure::new(BUFFER);
        pressure.grown(0, BUFFER, now);
        assert_eq!(pressure.wait(now), Wait::No);
        assert!(!pressure.shrunk(BUFFER, 0));
    }

    #[test]
    fn a_dial_that_takes_nothing_needs_ten_seconds_to_fill_up() {
        let mut now = Instant::now();
        let (start, mut cost) = (now, BUFFER);
        let mut pressure = Pressure::new(BUFFER);
        pressure.grown(0, BUFFER, now);
        let mut longest = Duration::ZERO;
        loop {
            pressure.grown(cost, cost + 4096, now);
            cost += 4096;
            match pressure.wait(now) {
                Wait::Until(instant) => {
                    longest = longest.max(instant - now);
                    now = instant;
                }
                Wait::Room => break,
                Wait::No => panic!("no pause at {cost}"),
            }
        }
        assert_eq!(cost, HARD_BUFFERS * BUFFER);
        let took = now - start;
        assert!(took > STALL_LIMIT.mul_f64(0.98) && took < STALL_LIMIT.mul_f64(1.02), "{took:?}");
        assert!(longest < Duration::from_millis(20), "others would wait {longest:?} for each packet");
    }

    #[test]
    fn who_wakes_late_does_not_need_longer() {
        let (late, step) = (Duration::from_millis(20), 4096);
        let mut now = Instant::now();
        let (start, mut cost) = (now, BUFFER);
        let mut pressure = Pressure::new(BUFFER);
        pressure.grown(0, BUFFER, now);
        loop {
            pressure.grown(cost, cost + step, now);
            cost += step;
            match pressure.wait(now) {
                Wait::Until(instant) => now = instant + late,
                Wait::Room => break,
                Wait::No => {}
            }
        }
        let took = now - start;
        assert!(took > STALL_LIMIT.mul_f64(0.98) && took < STALL_LIMIT.mul_f64(1.02), "{took:?}");
        // But not for a dial that was idle for long.
        let mut pressure = Pressure::new(BUFFER);
        pressure.grown(0, BUFFER + step, now);
        now += 2 * CATCH_UP + STALL_LIMIT;
        pressure.grown(BUFFER + step, BUFFER + 2 * step, now);
        assert!(matches!(pressure.wait(now), Wait::Until(_)));
    }

    #[test]
    fn relief_comes_when_the_last_dial_is_below_its_buffer() {
        let now = Instant::now();
        let mut pressure = Pressure::new(BUFFER);
        pressure.grown(0, 2 * BUFFER, now);
        pressure.grown(0, 5 * BUFFER, now);
        assert_eq!(pressure.wait(now), Wait::Room);
        assert!(pressure.shrunk(5 * BUFFER, 2 * BUFFER));
        assert!(matches!(pressure.wait(now), Wait::Until(_)));
        assert!(!pressure.shrunk(2 * BUFFER, BUFFER + 1));
        assert!(pressure.shrunk(BUFFER + 1, BUFFER));
        assert!(matches!(pressure.wait(now), Wait::Until(_)), "another one is over its buffer");
        assert!(pressure.shrunk(2 * BUFFER, 0));
        assert_eq!(pressure.wait(now), Wait::No);
    }

    #[test]
    fn small_pieces_count_for_what_they_hold() {
        let mut inbox = Inbox::default();
        for _ in 0..100 {
            inbox.push(Bytes::from_static(b"a"));
        }
        inbox.push(Bytes::new());
        assert_eq!(inbox.cost(), 100 * PIECE_COST);
        let first = inbox.batch();
        assert_eq!(first.len(), Batch::CHUNKS);
        assert_eq!(inbox.cost(), (100 - Batch::CHUNKS) * PIECE_COST);
        assert_eq!(inbox.batch().len(), 100 - Batch::CHUNKS);
        assert!(inbox.is_empty());
        assert_eq!(inbox.cost(), 0);
    }
}
