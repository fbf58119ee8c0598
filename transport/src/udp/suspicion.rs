//! When to send packets one by one, to find out whether it is batches that do not arrive.
//!
//! Proof is that batches are lost while single packets arrive (`congestion/batches.rs`). A connection with much to send
//! never gets it: its probes are batches as well, and nothing arrives at all, as in an outage. So when nothing is
//! acknowledged, packets are sent one by one for a while. If that helps, and batches are met by silence again soon
//! after, it is the batches; in an outage nothing is lost by trying.

use std::time::Duration;

/// Seconds without an acknowledgement that is due.
const SILENCE: u64 = 2;

/// Seconds for which packets are sent one by one after an answer has come.
const ALONE: u64 = 3;

/// If silence begins so many seconds after batches are sent again, it is they.
const AGAIN: u64 = 10;

/// What is known of a connection now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// It is proven that batches do not arrive.
    pub(crate) proven: bool,
    /// Acknowledgements of something new that have come so far.
    pub(crate) acknowledged: u64,
    /// Bytes of dials were sent that the peer has not acknowledged.
    pub(crate) owed: bool,
    /// The round trip: an answer takes as long.
    pub(crate) rtt: Duration,
}

/// How packets are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// As many at once as the kernel takes.
    Batches,
    /// One by one, to see whether that helps, with seconds since an answer has come.
    Tried(u64),
    /// One by one: batches do not arrive.
    Alone,
}

/// Decides, once a second, how packets are to be sent.
#[derive(Debug)]
pub(crate) struct Suspicion {
    sending: Sending,
    acknowledged: u64,
    /// Seconds for which nothing was acknowledged that should be.
    unanswered: u64,
    /// Seconds since batches are sent again after a try that helped.
    returned: Option<u64>,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self { sending: Sending::Batches, acknowledged: 0, unanswered: 0, returned: None }
    }
}

impl Suspicion {
    /// A second has passed.
    pub(crate) fn tick(&mut self, seen: Seen) -> Sending {
        let answered = seen.acknowledged != self.acknowledged;
        self.acknowledged = seen.acknowledged;
        self.unanswered = if answered || !seen.owed { 0 } else { self.unanswered + 1 };
        let silent = self.unanswered >= SILENCE.max(2 * seen.rtt.as_secs() + 1);
        self.returned = self.returned.map(|seconds| seconds + 1).filter(|seconds| *seconds <= AGAIN);
        self.sending = match self.sending {
            Sending::Alone => Sending::Alone,
            _ if seen.proven => Sending::Alone,
            Sending::Batches if silent && self.returned.is_some() => Sending::Alone,
            Sending::Batches if silent => Sending::Tried(0),
            Sending::Batches => Sending::Batches,
            Sending::Tried(ALONE) => {
                self.returned = Some(0);
                Sending::Batches
            }
            Sending::Tried(seconds) if answered || seconds > 0 => Sending::Tried(seconds + 1),
            Sending::Tried(seconds) => Sending::Tried(seconds),
        };
        self.sending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Seen = Seen { proven: false, acknowledged: 7, owed: true, rtt: Duration::from_millis(50) };

    fn answered(suspicion: &mut Suspicion, seen: &mut Seen) -> Sending {
        seen.acknowledged += 1;
        suspicion.tick(*seen)
    }

    #[test]
    fn batches_met_by_silence_twice_are_given_up() {
        let (mut suspicion, mut seen) = (Suspicion::default(), BUSY);
        assert_eq!(answered(&mut suspicion, &mut seen), Sending::Batches);
        assert_eq!(suspicion.tick(seen), Sending::Batches);
        assert_eq!(suspicion.tick(seen), Sending::Tried(0));
        for second in 1..=ALONE {
            assert_eq!(answered(&mut suspicion, &mut seen), Sending::Tried(second), "they arrive");
        }
        assert_eq!(answered(&mut suspicion, &mut seen), Sending::Batches);
        assert_eq!(suspicion.tick(seen), Sending::Batches);
        assert_eq!(suspicion.tick(seen), Sending::Alone);
        for _ in 0..100 {
            assert_eq!(answered(&mut suspicion, &mut seen), Sending::Alone);
        }
    }

    #[test]
    fn an_outage_does_not_end_batches() {
        let (mut suspicion, mut seen) = (Suspicion::default(), BUSY);
        for _ in 0..3 {
            answered(&mut suspicion, &mut seen);
            let silence: Vec<_> = (0..20).map(|_| suspicion.tick(seen)).collect();
            assert_eq!(silence.last(), Some(&Sending::Tried(0)));
            let after: Vec<_> = (0..20).map(|_| answered(&mut suspicion, &mut seen)).collect();
            assert_eq!(after.last(), Some(&Sending::Batches));
        }
    }

    #[test]
    fn a_connection_that_waits_for_nothing_is_not_suspected() {
        let mut suspicion = Suspicion::default();
        for _ in 0..100 {
            assert_eq!(suspicion.tick(Seen { owed: false, ..BUSY }), Sending::Batches);
        }
    }

    #[test]
    fn a_long_path_has_the_time_for_its_answer() {
        let (mut suspicion, seen) = (Suspicion::default(), Seen { rtt: Duration::from_secs(2), ..BUSY });
        assert!((0..5).all(|_| suspicion.tick(seen) == Sending::Batches));
        assert_eq!(suspicion.tick(seen), Sending::Tried(0));
    }

    #[test]
    fn proof_is_enough() {
        let mut suspicion = Suspicion::default();
        assert_eq!(suspicion.tick(Seen { proven: true, ..BUSY }), Sending::Alone);
        assert_eq!(suspicion.tick(BUSY), Sending::Alone);
    }
}
