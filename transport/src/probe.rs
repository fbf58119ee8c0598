//! Whether a peer is still there that another connection seems to have taken the place of.
//!
//! A process that was killed says nothing, and an idle timeout is long. When it is started again and connects anew, there is
//! reason to ask the connections that may be its old ones. A peer that lives answers within a round trip and nothing
//! changes for it, so that asking the wrong one, as another process with the same name, does no harm. Whoever acknowledges
//! nothing and says nothing for three seconds, or six round trips, is gone. These are ticks, as in `silence`: a pause of this
//! program is one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// What a peer that lives may take at most, unless its path is long.
const LIMIT: Duration = Duration::from_secs(3);

/// From when on a peer that has not answered is given nothing that others can take. Until then it may be on its way.
const LATE: Duration = Duration::from_millis(100);

/// What is known of a connection now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Datagrams that have come so far.
    pub(crate) heard: u64,
    /// Acknowledgements of something new that have come so far.
    pub(crate) acknowledged: u64,
    /// The shortest round trip so far, which no pause makes longer.
    pub(crate) min_rtt: Duration,
}

/// What a second has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The peer has answered.
    Alive,
    /// Not yet: it is asked again.
    Unknown,
    /// It will not answer any more.
    Gone,
}

/// Decides, once a second after the peer was asked, what has become of it.
#[derive(Debug)]
pub(crate) struct Probe {
    heard: u64,
    acknowledged: u64,
    quiet: u64,
}

impl Probe {
    /// The peer is being asked now.
    pub(crate) fn new(seen: Seen) -> Self {
        Self { heard: seen.heard, acknowledged: seen.acknowledged, quiet: 0 }
    }

    /// A second has passed. What comes without an acknowledgement may have been late: it only begins the time anew.
    pub(crate) fn tick(&mut self, seen: Seen) -> Verdict {
        if seen.acknowledged != self.acknowledged {
            return Verdict::Alive;
        }
        if seen.heard != self.heard {
            (self.heard, self.quiet) = (seen.heard, 0);
            return Verdict::Unknown;
        }
        self.quiet += 1;
        // The first tick may have come at once.
        let passed = Duration::from_secs(self.quiet - 1);
        if passed >= LIMIT.max(6 * seen.min_rtt) { Verdict::Gone } else { Verdict::Unknown }
    }
}

/// A question to the peer that may wait for its answer, for those on other threads.
#[derive(Debug, Default)]
pub(crate) struct Question {
    /// Wakes the task that asks.
    pub(crate) asked: Notify,
    /// One more than what had been acknowledged then; 0: nothing was asked.
    acknowledged: AtomicU64,
    /// From when on the answer is late, as an age of the connection in microseconds.
    late_from: AtomicU64,
}

impl Question {
    /// Has the peer asked, at this age of the connection, unless it is being asked already.
    pub(crate) fn ask(&self, acknowledged: u64, age: Duration, rtt: Duration) {
        if self.is_open(acknowledged) {
            return;
        }
        let late_from = age + LATE.max(2 * rtt);
        self.late_from.store(late_from.as_micros() as u64, Ordering::Relaxed);
        self.acknowledged.store(acknowledged + 1, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Whether the answer is late.
    pub(crate) fn is_late(&self, acknowledged: u64, age: impl FnOnce() -> Duration) -> bool {
        self.is_open(acknowledged) && age().as_micros() as u64 >= self.late_from.load(Ordering::Relaxed)
    }

    fn is_open(&self, acknowledged: u64) -> bool {
        self.acknowledged.load(Ordering::Relaxed) == acknowledged + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen { heard: 7, acknowledged: 5, min_rtt: Duration::from_millis(50) };

    fn gone_after(seen: Seen) -> u64 {
        let mut probe = Probe::new(seen);
        (1..).find(|_| probe.tick(seen) == Verdict::Gone).unwrap()
    }

    #[test]
    fn a_peer_that_says_nothing_is_gone_after_three_seconds_or_six_round_trips() {
        assert_eq!(gone_after(SEEN), 4, "the first tick may come at once");
        assert_eq!(gone_after(Seen { min_rtt: Duration::from_secs(2), ..SEEN }), 13);
    }

    #[test]
    fn an_answer_ends_it_however_late() {
        let mut probe = Probe::new(SEEN);
        for _ in 0..3 {
            assert_eq!(probe.tick(SEEN), Verdict::Unknown);
        }
        assert_eq!(probe.tick(Seen { heard: 8, acknowledged: 6, ..SEEN }), Verdict::Alive);
    }

    #[test]
    fn whoever_is_heard_is_not_gone_and_must_answer_all_the_same() {
        let mut probe = Probe::new(SEEN);
        for second in 0..100 {
            assert_eq!(probe.tick(Seen { heard: 7 + second / 3, ..SEEN }), Verdict::Unknown);
        }
        let last = Seen { heard: 7 + 99 / 3, ..SEEN };
        assert!((0..4).any(|_| probe.tick(last) == Verdict::Gone), "it was something late");
    }

    #[test]
    fn an_answer_is_late_after_two_round_trips() {
        let question = Question::default();
        let ms = Duration::from_millis;
        assert!(!question.is_late(5, || ms(9000)), "nothing was asked");
        question.ask(5, ms(1000), ms(50));
        assert!(!question.is_late(5, || ms(1099)));
        assert!(question.is_late(5, || ms(1100)));
        question.ask(5, ms(2000), ms(50));
        assert!(question.is_late(5, || ms(1100)), "it was asked already");
        assert!(!question.is_late(6, || ms(9000)), "it was answered");
        question.ask(6, ms(9000), ms(300));
        assert!(!question.is_late(6, || ms(9599)) && question.is_late(6, || ms(9600)), "a long path");
    }
}
