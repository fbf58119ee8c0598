//! When to nudge the peer: to send it something for the sake of an answer.
//!
//! Two things can be wrong with a path that says nothing. It may be out: what is under way is lost, and the library asks
//! again after pauses that double, so that after 20 s of outage the next question may come later than the idle timeout. Or
//! a NAT has given the agent another address: the server sends to the old one, and the agent, who waits, says nothing by
//! which the server would find it. Whoever hears nothing for a second with bytes under way therefore nudges once a second;
//! and an agent does so when it becomes quiet while dials are open, at first after 2 s. Each answer doubles that, up to
//! where keep-alive takes over: a dial that rests costs three packets, not one every second.

use std::time::Duration;

/// Quiet seconds after which an agent with open dials makes sure for the first time, and after which keep-alive does.
const FIRST_PAUSE: u64 = 2;
const LAST_PAUSE: u64 = 8;

/// What is known of a connection now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Datagrams that have come so far.
    pub(crate) heard: u64,
    /// Frames with bytes of dials that have come so far.
    pub(crate) moved: u64,
    /// Bytes of dials were sent that the peer has not acknowledged.
    pub(crate) owed: bool,
    /// Dials are open, and this end is the one that a NAT may hide.
    pub(crate) exposed: bool,
    /// The round trip: an answer takes as long.
    pub(crate) rtt: Duration,
}

/// Decides, once a second, whether to nudge.
#[derive(Debug, Default)]
pub(crate) struct Nudge {
    heard: u64,
    moved: u64,
    /// Seconds for which nothing was heard.
    quiet: u64,
    pause: u64,
    /// A nudge was sent and nothing was heard since.
    asked: bool,
}

impl Nudge {
    /// A second has passed.
    pub(crate) fn tick(&mut self, seen: Seen) -> bool {
        if seen.heard != self.heard {
            if seen.moved != self.moved {
                self.pause = FIRST_PAUSE;
            } else if self.asked {
                self.pause *= 2;
            }
            *self = Self { heard: seen.heard, moved: seen.moved, quiet: 0, pause: self.pause, asked: false };
            return false;
        }
        self.quiet += 1;
        let answer = 2 * seen.rtt.as_secs();
        let rests = seen.exposed && (FIRST_PAUSE..=LAST_PAUSE).contains(&self.pause) && self.quiet >= self.pause;
        self.asked |= self.quiet > answer && (seen.owed || rests);
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Seen = Seen { heard: 7, moved: 3, owed: false, exposed: false, rtt: Duration::from_millis(50) };

    /// The seconds, of so many in which nothing is heard, in which it nudges.
    fn nudges(nudge: &mut Nudge, seen: Seen, seconds: u64) -> Vec<u64> {
        (1..=seconds).filter(|_| nudge.tick(seen)).collect()
    }

    fn heard(seen: Seen) -> Nudge {
        let mut nudge = Nudge::default();
        assert!(!nudge.tick(seen));
        nudge
    }

    #[test]
    fn a_connection_that_waits_for_nothing_is_left_alone() {
        assert!(nudges(&mut heard(IDLE), IDLE, 100).is_empty());
    }

    #[test]
    fn an_outage_is_asked_about_each_second_until_something_is_heard() {
        let owed = Seen { owed: true, ..IDLE };
        let mut nudge = heard(owed);
        assert_eq!(nudges(&mut nudge, owed, 5), [1, 2, 3, 4, 5]);
        assert!(!nudge.tick(Seen { heard: 8, ..owed }));
        assert!(nudge.tick(Seen { heard: 8, ..owed }), "and again when it is quiet again");
    }

    #[test]
    fn a_long_path_has_the_time_for_its_answer() {
        let owed = Seen { owed: true, rtt: Duration::from_secs(2), ..IDLE };
        assert_eq!(nudges(&mut heard(owed), owed, 6), [5, 6]);
    }

    #[test]
    fn an_agent_that_has_become_quiet_makes_sure_a_few_times() {
        let mut seen = Seen { exposed: true, ..IDLE };
        let mut nudge = heard(seen);
        for pause in [2, 4, 8] {
            let asked = nudges(&mut nudge, seen, pause);
            assert_eq!(asked, [pause]);
            seen.heard += 1;
            assert!(!nudge.tick(seen), "the answer");
        }
        assert!(nudges(&mut nudge, seen, 100).is_empty(), "keep-alive does the rest");
        seen = Seen { heard: seen.heard + 1, moved: seen.moved + 1, ..seen };
        assert!(!nudge.tick(seen));
        assert_eq!(nudges(&mut nudge, seen, 2), [2], "after new bytes it begins again");
    }

    #[test]
    fn an_unanswered_nudge_is_followed_by_one_each_second() {
        let seen = Seen { exposed: true, ..IDLE };
        assert_eq!(nudges(&mut heard(seen), seen, 5), [2, 3, 4, 5]);
    }
}
