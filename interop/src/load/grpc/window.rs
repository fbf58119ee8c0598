//! What the server may send (RFC 9113, section 5.2), given as Go's library gives it: 65,535 bytes at first, then twice
//! what was seen to be under way at once.

use std::io;
use std::time::Instant;

use crate::pair::grpc::frame::{Frame, setting};

/// Both windows of a new connection (RFC 9113, section 6.9.2).
pub const FIRST_WINDOW: u32 = 65_535;

/// Windows grow no larger: where Go's library stops.
pub const MAX_WINDOW: u32 = 16 * 1024 * 1024;

/// The one stream of a connection.
pub const STREAM: u32 = 1;

/// What the measuring pings carry, so that their answers are known.
const MEASURE: [u8; 8] = *b"measured";

/// The windows of a connection and of its one stream.
#[derive(Debug)]
pub struct Windows {
    connection: Window,
    stream: Window,
    estimate: Estimate,
}

impl Default for Windows {
    fn default() -> Self {
        Self { connection: Window::FIRST, stream: Window::FIRST, estimate: Estimate::FIRST }
    }
}

impl Windows {
    /// Payload of DATA frames has come; `out` gets what the server is to be told.
    ///
    /// # Errors
    /// When the server has sent more than it may.
    pub fn received(&mut self, bytes: u32, now: Instant, out: &mut Vec<u8>) -> io::Result<()> {
        self.connection.received(bytes)?;
        self.stream.received(bytes)?;
        let measure = self.estimate.received(bytes, now);
        if measure || self.connection.owes_much() {
            self.connection.give_back(0, out);
        }
        if measure {
            out.extend(Frame::ping(MEASURE).bytes());
        }
        if self.stream.owes_much() {
            self.stream.give_back(STREAM, out);
        }
        Ok(())
    }

    /// A ping was answered.
    pub fn answered(&mut self, ping: [u8; 8], now: Instant, out: &mut Vec<u8>) {
        if ping != MEASURE {
            return;
        }
        if let Some(limit) = self.estimate.answered(now) {
            let more = self.connection.grow(limit);
            self.stream.grow(limit);
            out.extend(Frame::window_update(0, more).bytes());
            out.extend(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, limit)]).bytes());
        }
    }
}

#[derive(Debug)]
struct Window {
    /// The whole window.
    limit: u32,
    /// What the server may still send; the server may know of less.
    left: u32,
    /// Taken, and not given back yet.
    owed: u32,
}

impl Window {
    const FIRST: Self = Self { limit: FIRST_WINDOW, left: FIRST_WINDOW, owed: 0 };

    fn received(&mut self, bytes: u32) -> io::Result<()> {
        let Some(left) = self.left.checked_sub(bytes) else {
            let text = format!("{bytes} bytes came where the window had {}", self.left);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        self.left = left;
        self.owed += bytes;
        Ok(())
    }

    /// A quarter: not so little that updates cost, not so much that the server runs dry.
    fn owes_much(&self) -> bool {
        self.owed >= self.limit / 4
    }

    fn give_back(&mut self, stream: u32, out: &mut Vec<u8>) {
        let owed = std::mem::take(&mut self.owed);
        self.left += owed;
        if owed > 0 {
            out.extend(Frame::window_update(stream, owed).bytes());
        }
    }

    /// By how much the window is larger now.
    fn grow(&mut self, limit: u32) -> u32 {
        let more = limit.saturating_sub(self.limit);
        self.limit += more;
        self.left += more;
        more
    }
}

/// How much is under way at once: what comes between a ping and its answer, as Go's library measures it.
#[derive(Debug)]
struct Estimate {
    bytes: u32,
    /// Of the measurement that goes on.
    sample: u32,
    since: Option<Instant>,
    pings: u32,
    /// Seconds, smoothed.
    round_trip: f64,
    /// Bytes per second, the most that was seen.
    fastest: f64,
}

impl Estimate {
    const FIRST: Self = Self { bytes: FIRST_WINDOW, sample: 0, since: None, pings: 0, round_trip: 0.0, fastest: 0.0 };

    /// Whether a ping is to be sent.
    fn received(&mut self, bytes: u32, now: Instant) -> bool {
        if self.bytes == MAX_WINDOW {
            return false;
        }
        if self.since.is_some() {
            self.sample = self.sample.saturating_add(bytes);
            return false;
        }
        (self.since, self.sample) = (Some(now), bytes);
        self.pings += 1;
        true
    }

    /// The new estimate, if it has changed.
    fn answered(&mut self, now: Instant) -> Option<u32> {
        /// So many first round trips are averaged; then the last one counts for nine tenths.
        const FIRST_PINGS: u32 = 10;
        /// A link that is full has up to 1.5 times the estimate under way in a sample; two thirds of that mean it may be.
        const FULL: f64 = 0.66;
        let seconds = now.duration_since(self.since.take()?).as_secs_f64();
        let weight = if self.pings < FIRST_PINGS { 1.0 / f64::from(self.pings) } else { 0.9 };
        self.round_trip += (seconds - self.round_trip) * weight;
        let speed = f64::from(self.sample) / (self.round_trip * 1.5);
        let fastest = speed >= self.fastest;
        self.fastest = self.fastest.max(speed);
        if !fastest || f64::from(self.sample) < FULL * f64::from(self.bytes) {
            return None;
        }
        self.bytes = self.sample.saturating_mul(2).min(MAX_WINDOW);
        Some(self.bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn updates(stream: u32, bytes: u32) -> Vec<u8> {
        Frame::window_update(stream, bytes).bytes()
    }

    #[test]
    fn the_first_bytes_are_given_back_with_a_ping_and_the_stream_by_quarters() {
        let (mut windows, mut out, now) = (Windows::default(), Vec::new(), Instant::now());
        windows.received(64, now, &mut out).unwrap();
        assert_eq!(out, [updates(0, 64), Frame::ping(MEASURE).bytes()].concat());
        out.clear();
        windows.received(16_318, now, &mut out).unwrap();
        assert!(out.is_empty(), "the connection owes 16,318 and the stream 16,382, a quarter is 16,383");
        windows.received(1, now, &mut out).unwrap();
        assert_eq!(out, updates(STREAM, 16_383));
        out.clear();
        windows.received(64, now, &mut out).unwrap();
        assert_eq!(out, updates(0, 16_383));
    }

    #[test]
    fn a_window_can_be_used_up_and_no_further() {
        let (mut windows, mut out, now) = (Windows::default(), Vec::new(), Instant::now());
        windows.received(FIRST_WINDOW, now, &mut out).unwrap();
        windows.received(FIRST_WINDOW, now, &mut out).unwrap();
        let error = windows.received(FIRST_WINDOW + 1, now, &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }

    #[test]
    fn windows_grow_to_twice_what_came_in_a_round_trip() {
        let (mut windows, mut out, now) = (Windows::default(), Vec::new(), Instant::now());
        windows.received(40_000, now, &mut out).unwrap();
        windows.received(20_000, now, &mut out).unwrap();
        out.clear();
        windows.answered(*b"anything", now + Duration::from_millis(1), &mut out);
        assert!(out.is_empty());
        windows.answered(MEASURE, now + Duration::from_millis(1), &mut out);
        let settings = Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 120_000)]).bytes();
        assert_eq!(out, [updates(0, 120_000 - FIRST_WINDOW), settings].concat());
        out.clear();
        windows.received(120_000, now, &mut out).unwrap();
    }

    #[test]
    fn windows_do_not_grow_for_echoes_and_not_beyond_their_limit() {
        let (mut windows, mut now) = (Windows::default(), Instant::now());
        let mut round = |windows: &mut Windows, bytes| {
            let mut out = Vec::new();
            windows.received(bytes, now, &mut out).unwrap();
            now += Duration::from_millis(1);
            out.clear();
            windows.answered(MEASURE, now, &mut out);
            out
        };
        for _ in 0..100 {
            assert!(round(&mut windows, 64).is_empty());
        }
        while windows.stream.limit < MAX_WINDOW {
            let bytes = windows.stream.left;
            assert!(!round(&mut windows, bytes).is_empty());
        }
        assert_eq!(windows.connection.limit, MAX_WINDOW);
        assert!(!windows.estimate.received(MAX_WINDOW, now), "nothing is left to be measured");
    }
}
