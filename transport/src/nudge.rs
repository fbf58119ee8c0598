//! When to nudge the peer: to send it something for the sake of an answer.
//!
//! Two things can be wrong with a path that says nothing. It may be out: what is under way is lost, and the library asks
//! again after pauses that double, so that after 20 s of outage the next question may come later than the idle timeout. Or
//! a NAT has given the agent another address: the server sends to the old one, and the agent, who waits, says nothing by
//! which the server would find it.
//!
//! Whoever has bytes under way of which none is acknowledged for 12 s therefore nudges every 3 s, after the library's own
//! third probe. Not sooner: before, pauses that double are never longer than 6 s. And each nudge puts the next probe off,
//! while only probes are short enough for a path that has come to lose what is long. There, two ends with full windows
//! exchange nothing else; an acknowledgement that was sent along with a long packet is lost, and not sent again before the
//! next probe comes; and what comes late makes the library take the path for a slow one, and wait longer.
//!
//! What counts is acknowledgement, not what else comes: an end whose window is full and that has more to send sends
//! acknowledgements along with nudges and probes only, so that its peer waits for them, too.
//!
//! An agent with nothing under way nudges when it becomes quiet while dials are open, at first after 2 s. Each answer
//! doubles that, up to where keep-alive takes over: a dial that rests costs three packets, not one every second.

use std::time::Duration;

/// Quiet seconds after which an agent with open dials makes sure for the first time, and after which keep-alive does.
const FIRST_PAUSE: u64 = 2;
const LAST_PAUSE: u64 = 8;

/// Seconds between nudges to a peer that acknowledges nothing. The first one comes after four of them.
const REPEAT: u64 = 3;

/// Probes of the library that come before the first nudge of that kind: seconds, after the first one, in which it sent.
const PROBES: u64 = 3;

/// What is known of a connection now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Datagrams that have come so far.
    pub(crate) heard: u64,
    /// Frames with bytes of dials that have come so far.
    pub(crate) moved: u64,
    /// Acknowledgements of something new that have come so far.
    pub(crate) acknowledged: u64,
    /// Packets sent so far.
    pub(crate) sent: u64,
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
    acknowledged: u64,
    sent: u64,
    /// Seconds for which nothing was heard.
    quiet: u64,
    /// Seconds for which nothing was acknowledged that should be.
    unanswered: u64,
    /// In so many of them, but for the first, something was sent all the same.
    probes: u64,
    pause: u64,
    /// A nudge was sent because it was quiet, and nothing was heard since.
    asked: bool,
}

impl Nudge {
    /// A second has passed.
    pub(crate) fn tick(&mut self, seen: Seen) -> bool {
        self.listen(seen);
        if seen.acknowledged != self.acknowledged || !(seen.owed || self.asked) {
            (self.unanswered, self.probes) = (0, 0);
        } else {
            // In the first second, what was acknowledged before made room for more.
            self.probes += u64::from(self.unanswered > 0 && seen.sent != self.sent);
            self.unanswered += 1;
        }
        (self.acknowledged, self.sent) = (seen.acknowledged, seen.sent);
        let repeat = REPEAT.max(2 * seen.rtt.as_secs() + 1);
        let overdue = self.probes >= PROBES && self.unanswered >= 4 * repeat && self.unanswered.is_multiple_of(repeat);
        let rests = seen.exposed && (FIRST_PAUSE..=LAST_PAUSE).contains(&self.pause) && self.quiet >= self.pause;
        let makes_sure = rests && !seen.owed && !self.asked && self.quiet > 2 * seen.rtt.as_secs();
        self.asked |= makes_sure;
        overdue || makes_sure
    }

    fn listen(&mut self, seen: Seen) {
        if seen.heard == self.heard {
            self.quiet += 1;
            return;
        }
        if seen.moved != self.moved {
            self.pause = FIRST_PAUSE;
        } else if self.asked {
            self.pause *= 2;
        }
        (self.heard, self.moved, self.quiet, self.asked) = (seen.heard, seen.moved, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Seen = Seen {
        heard: 7,
        moved: 3,
        acknowledged: 5,
        sent: 9,
        owed: false,
        exposed: false,
        rtt: Duration::from_millis(50),
    };

    /// The seconds, of so many in which nothing is heard, in which it nudges. The library probes after 1 s, 2 s, 4 s and so on.
    fn nudges(nudge: &mut Nudge, seen: Seen, seconds: u64) -> Vec<u64> {
        nudges_with_probes(nudge, seen, seconds, u64::is_power_of_two)
    }

    fn nudges_with_probes(nudge: &mut Nudge, mut seen: Seen, seconds: u64, probes: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut tick = |second: &u64| {
            seen.sent += u64::from(probes(*second));
            nudge.tick(seen)
        };
        (1..=seconds).filter(|second| tick(second)).collect()
    }

    fn heard(seen: Seen) -> Nudge {
        let mut nudge = Nudge::default();
        assert!(!nudge.tick(seen));
        nudge
    }

    #[test]
    fn a_connection_that_waits_for_nothing_is_left_alone() {
        let mut nudge = heard(IDLE);
        assert!(nudges(&mut nudge, IDLE, 100).is_empty());
        assert_eq!(nudges(&mut nudge, Seen { owed: true, ..IDLE }, 12), [12], "its rest does not count");
    }

    #[test]
    fn an_outage_is_asked_about_between_the_librarys_probes() {
        let owed = Seen { owed: true, ..IDLE };
        let mut nudge = heard(owed);
        assert_eq!(nudges(&mut nudge, owed, 25), [12, 15, 18, 21, 24]);
        let answered = Seen { heard: 8, acknowledged: 6, ..owed };
        assert_eq!(nudges(&mut nudge, answered, 20), [16, 19], "and again when there is no answer again");
    }

    #[test]
    fn who_hears_much_and_gets_no_acknowledgement_asks_too() {
        let mut nudge = heard(IDLE);
        let mut hears =
            |second: u64| nudge.tick(Seen { heard: 7 + second, moved: 3 + second, sent: second, owed: true, ..IDLE });
        let asked: Vec<_> = (1..=16).filter(|second| hears(*second)).collect();
        assert_eq!(asked, [12, 15]);
    }

    #[test]
    fn the_librarys_first_probes_are_not_put_off() {
        let owed = Seen { owed: true, ..IDLE };
        let probes = |second| [3, 7, 16].contains(&second);
        assert_eq!(nudges_with_probes(&mut heard(owed), owed, 20, probes), [18]);
        assert!(nudges_with_probes(&mut heard(owed), owed, 20, |second| second == 1).is_empty(), "these were none");
    }

    #[test]
    fn a_long_path_has_the_time_for_its_answer() {
        let owed = Seen { owed: true, rtt: Duration::from_secs(2), ..IDLE };
        assert_eq!(nudges(&mut heard(owed), owed, 30), [20, 25, 30]);
    }

    #[test]
    fn an_agent_that_has_become_quiet_makes_sure_a_few_times() {
        let mut seen = Seen { exposed: true, ..IDLE };
        let mut nudge = heard(seen);
        for pause in [2, 4, 8] {
            let asked = nudges(&mut nudge, seen, pause);
            assert_eq!(asked, [pause]);
            (seen.heard, seen.acknowledged) = (seen.heard + 1, seen.acknowledged + 1);
            assert!(!nudge.tick(seen), "the answer");
        }
        assert!(nudges(&mut nudge, seen, 100).is_empty(), "keep-alive does the rest");
        seen = Seen { heard: seen.heard + 1, moved: seen.moved + 1, ..seen };
        assert!(!nudge.tick(seen));
        assert_eq!(nudges(&mut nudge, seen, 2), [2], "after new bytes it begins again");
    }

    #[test]
    fn an_unanswered_nudge_is_bytes_under_way() {
        let seen = Seen { exposed: true, ..IDLE };
        assert_eq!(nudges(&mut heard(seen), seen, 18), [2, 17]);
    }
}
