//! Receive windows: how many unread bytes a peer may make us hold, per connection and for the whole process.
//!
//! Each stalled dial keeps up to one stream window of its connection's window. So the connection window is raised by
//! one stream window (and a little, see [`UNANNOUNCED`]) for each dial that is stalled now: the others always find the
//! window they started with. The raises of all connections come from one budget; when it is spent, the dials that have
//! been stalled longest are ended, as far as they have taken nothing for a second: a dial that is only slow gives its
//! window back by itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::budget::MemoryBudget;

/// Raised windows are kept this long after they were last needed, so that a dial that stalls now and then does not
/// raise and lower them each time.
const LOWER_AFTER: Duration = Duration::from_secs(2);

/// Largest window of a connection without stalled dials: four bandwidth-delay products of 500 Mbit/s at 100 ms.
const MAX_BASE: u64 = 32 * 1024 * 1024;

/// The library tells the peer of freed window only when it is this part of the whole window, an eighth. A stalled dial
/// must raise the window by so much more than its own, or what is freed but not told would be the others' whole share,
/// and they would wait for ever.
const UNANNOUNCED: u64 = 8;

/// Bandwidth-delay products that the window is to hold. One would do if nothing were lost; while a lost packet is sent
/// again, once or twice, the others fill three more.
const PRODUCTS: f64 = 4.0;

/// The same when the peer says that the window stops it. What it delivers is less than the path can then, as with each loss
/// it waits: so its own word counts, but not for more than this, or it could make us promise memory for nothing.
const PRODUCTS_IF_BLOCKED: f64 = 16.0;

/// A window of more than this is halved: twice what growing can end at, or it would grow and shrink in turns.
const PRODUCTS_KEPT: f64 = 2.0 * PRODUCTS_IF_BLOCKED;

/// What was seen of a path in about a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// What came through.
    pub(crate) bytes_per_second: u64,
    /// The round trip.
    pub(crate) rtt: Duration,
    /// The peer has said that the connection's window stops it (RFC 9000, section 19.12).
    pub(crate) blocked: bool,
}

/// What a connection is to do after its windows were looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The new connection receive window in bytes.
    pub(crate) window: Option<u64>,
    /// The budget does not cover this many of the stalled dials: end those that have been stalled longest.
    pub(crate) evict: u64,
}

/// The receive window of one connection.
#[derive(Debug)]
pub(crate) struct Windows {
    budget: Arc<MemoryBudget>,
    /// By how much a stalled dial raises the window.
    share: u64,
    floor: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    base: u64,
    current: u64,
    stalled: u64,
    needed_at: Instant,
}

impl Windows {
    pub(crate) fn new(budget: Arc<MemoryBudget>, stream_window: u64, floor: u64, now: Instant) -> Self {
        let state = State { base: floor, current: floor, stalled: 0, needed_at: now };
        let share = stream_window + stream_window.div_ceil(UNANNOUNCED - 1);
        Self { budget, share, floor, state: Mutex::new(state) }
    }

    /// A dial's receiver takes no bytes. Returns the raised window, if it had to be raised.
    pub(crate) fn stall(&self, now: Instant) -> Change {
        let mut state = self.lock();
        state.stalled += 1;
        self.raise(&mut state, now)
    }

    /// A stalled dial goes on, or has ended.
    pub(crate) fn resume(&self, now: Instant) {
        let mut state = self.lock();
        if state.current <= self.wanted(&state) {
            state.needed_at = now;
        }
        state.stalled = state.stalled.saturating_sub(1);
    }

    /// Adapts the window to what was seen of the path, and lowers what has not been needed for a while. Called about once
    /// a second.
    pub(crate) fn sample(&self, seen: Seen, now: Instant) -> Change {
        let mut state = self.lock();
        let product = seen.bytes_per_second as f64 * seen.rtt.as_secs_f64();
        let (base, products) = (state.base as f64, if seen.blocked { PRODUCTS_IF_BLOCKED } else { PRODUCTS });
        if products * product > base {
            state.base = (state.base * 2).min(MAX_BASE.max(self.floor));
        } else if PRODUCTS_KEPT * product < base {
            state.base = (state.base / 2).max(self.floor);
        }
        let wanted = self.wanted(&state);
        if wanted >= state.current {
            return self.raise(&mut state, now);
        }
        if now.duration_since(state.needed_at) < LOWER_AFTER {
            return Change::default();
        }
        self.budget.release(state.current - wanted);
        state.current = wanted;
        Change { window: Some(wanted), evict: 0 }
    }

    /// Dials that are stalled now.
    pub(crate) fn stalled(&self) -> u64 {
        self.lock().stalled
    }

    fn raise(&self, state: &mut State, now: Instant) -> Change {
        let wanted = self.wanted(state);
        if wanted >= state.current {
            state.needed_at = now;
        }
        // A larger base is only a wish, and leaves a half of the budget to what stalled dials take from the others.
        let needed = self.floor + state.stalled * self.share;
        for (window, spare) in [(wanted, self.budget.limit() / 2), (needed, 0)] {
            if window > state.current && self.budget.reserve(window - state.current, spare) {
                state.current = window;
                return Change { window: Some(window), evict: 0 };
            }
        }
        Change { window: None, evict: needed.saturating_sub(state.current).div_ceil(self.share) }
    }

    fn wanted(&self, state: &State) -> u64 {
        state.base + state.stalled * self.share
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        let raised = self.lock().current - self.floor;
        self.budget.release(raised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stalled dial of 700 bytes raises the window by 800, of which an eighth may be untold.
    const STREAM: u64 = 700;
    const SHARE: u64 = 800;
    const FLOOR: u64 = 4000;

    fn seen(bytes_per_second: u64, millis: u64) -> Seen {
        Seen { bytes_per_second, rtt: Duration::from_millis(millis), blocked: false }
    }

    #[test]
    fn each_stalled_dial_raises_the_window_by_one_stream_window() {
        let now = Instant::now();
        let windows = Windows::new(MemoryBudget::new(10_000), STREAM, FLOOR, now);
        assert_eq!(windows.stall(now).window, Some(FLOOR + SHARE));
        assert_eq!(windows.stall(now).window, Some(FLOOR + 2 * SHARE));
        windows.resume(now);
        assert_eq!(windows.stall(now), Change::default(), "the window was raised before");
    }

    #[test]
    fn what_is_untold_never_takes_the_others_window() {
        let now = Instant::now();
        let windows = Windows::new(MemoryBudget::new(u64::MAX), 2_621_440, 4_194_304, now);
        for stalled in 1..1000 {
            let window = windows.stall(now).window.expect("each stall raises the window");
            let told = window - window.div_ceil(UNANNOUNCED);
            assert!(told >= stalled * 2_621_440 + 4_194_304 / 8 * 7 - 1, "{stalled}");
        }
    }

    #[test]
    fn the_window_is_lowered_when_it_was_not_needed_for_a_while() {
        let now = Instant::now();
        let budget = MemoryBudget::new(10_000);
        let windows = Windows::new(budget.clone(), STREAM, FLOOR, now);
        windows.stall(now);
        windows.resume(now);
        assert_eq!(windows.sample(seen(1, 0), now), Change::default());
        assert_eq!(windows.sample(seen(1, 0), now + LOWER_AFTER).window, Some(FLOOR));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_fast_long_path_grows_the_window() {
        let now = Instant::now();
        let windows = Windows::new(MemoryBudget::new(100_000_000), STREAM, FLOOR, now);
        assert_eq!(windows.sample(seen(1_000_000, 100), now).window, Some(2 * FLOOR));
        assert_eq!(windows.sample(seen(1_000_000, 1), now), Change::default());
    }

    #[test]
    fn a_window_that_stops_the_peer_grows_although_little_comes_through() {
        let now = Instant::now();
        let windows = Windows::new(MemoryBudget::new(100_000_000), STREAM, FLOOR, now);
        let little = seen(FLOOR * 5, 50);
        assert_eq!(windows.sample(little, now), Change::default(), "a quarter of the window in each round trip");
        let blocked = Seen { blocked: true, ..little };
        assert_eq!(windows.sample(blocked, now).window, Some(2 * FLOOR));
        assert_eq!(windows.sample(blocked, now).window, Some(4 * FLOOR));
        assert_eq!(windows.sample(blocked, now), Change::default(), "sixteen products are enough");
        for second in 1..100 {
            assert_eq!(windows.sample(little, now + Duration::from_secs(second)), Change::default(), "it is kept");
        }
    }

    #[test]
    fn who_only_says_that_it_waits_gets_no_memory() {
        let now = Instant::now();
        let windows = Windows::new(MemoryBudget::new(100_000_000), STREAM, FLOOR, now);
        assert_eq!(windows.sample(Seen { blocked: true, ..seen(100, 50) }, now), Change::default());
    }

    #[test]
    fn wishes_leave_half_of_the_budget_to_stalled_dials() {
        let now = Instant::now();
        let budget = MemoryBudget::new(2 * FLOOR);
        let windows = Windows::new(budget.clone(), STREAM, FLOOR, now);
        assert_eq!(windows.sample(seen(1_000_000, 100), now).window, Some(2 * FLOOR));
        assert_eq!(windows.sample(seen(1_000_000, 100), now), Change::default());
        let other = Windows::new(budget, STREAM, FLOOR, now);
        assert_eq!(other.stall(now), Change { window: Some(FLOOR + SHARE), evict: 0 });
    }

    #[test]
    fn a_window_that_cannot_grow_with_the_path_ends_no_dial() {
        let now = Instant::now();
        let windows = Windows::new(MemoryBudget::new(SHARE), STREAM, FLOOR, now);
        windows.stall(now);
        assert_eq!(windows.sample(seen(1_000_000, 100), now), Change::default());
    }

    #[test]
    fn a_spent_budget_ends_the_longest_stalled_dial_and_comes_back_with_the_connection() {
        let now = Instant::now();
        let budget = MemoryBudget::new(SHARE);
        let windows = Windows::new(budget.clone(), STREAM, FLOOR, now);
        assert_eq!(windows.stall(now).evict, 0);
        assert_eq!(windows.stall(now).evict, 1);
        assert_eq!(windows.stall(now).evict, 2);
        assert_eq!(budget.used(), SHARE);
        drop(windows);
        assert_eq!(budget.used(), 0);
    }
}
