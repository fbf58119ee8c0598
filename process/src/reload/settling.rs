//! When content that is new counts: a value that decides from what looks have found, without files and without a clock.

use std::time::{Duration, Instant};

/// Content must have been the same for so long before it is tried, and looks are made so often until then: a file that
/// is being written looks different from one look to the next.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);

/// Content that cannot be used must have been the same for so long before anybody hears of it: the second of two files
/// that belong together is on its way.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of some files' content, which is named by values of `C`.
#[derive(Debug)]
pub(crate) struct Settling<C> {
    used: C,
    refused: Option<C>,
    pending: Option<(C, Instant)>,
}

/// What to do about the content that a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in use.
    Used,
    /// It is in use, and there was something else in between that was refused.
    Restored,
    /// Look again soon.
    Wait,
    /// Use it if it can be used; if not, look again soon.
    Try,
    /// Use it if it can be used, or refuse it.
    Decide,
}

impl<C: Copy + PartialEq> Settling<C> {
    /// This content is in use.
    pub(crate) fn new(used: C) -> Self {
        Self { used, refused: None, pending: None }
    }

    /// A look has found this content.
    pub(crate) fn look(&mut self, found: C, now: Instant) -> Verdict {
        if found == self.used {
            self.pending = None;
            return if self.refused.take().is_some() { Verdict::Restored } else { Verdict::Used };
        }
        if self.refused == Some(found) {
            // What was wrong may not be in the content.
            self.pending = None;
            return Verdict::Decide;
        }
        match self.pending {
            Some((pending, since)) if pending == found => match now.saturating_duration_since(since) {
                age if age < SETTLE => Verdict::Wait,
                age if age < PATIENCE => Verdict::Try,
                _ => Verdict::Decide,
            },
            _ => {
                self.pending = Some((found, now));
                Verdict::Wait
            }
        }
    }

    /// This content is in use from now on.
    pub(crate) fn used(&mut self, content: C) {
        *self = Self::new(content);
    }

    /// This content cannot be used.
    pub(crate) fn refused(&mut self, content: C) {
        self.refused = Some(content);
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look at this content, so many milliseconds after the first.
    fn looks(settling: &mut Settling<u8>, start: Instant, looks: &[(u64, u8, Verdict)]) {
        for (milliseconds, content, expected) in looks {
            let verdict = settling.look(*content, start + Duration::from_millis(*milliseconds));
            assert_eq!(verdict, *expected, "{content} after {milliseconds} ms");
        }
    }

    #[test]
    fn content_is_tried_when_it_has_stayed_and_decided_on_when_it_has_stayed_longer() {
        use Verdict::{Decide, Try, Used, Wait};
        let (settle, patience) = (SETTLE.as_millis() as u64, PATIENCE.as_millis() as u64);
        let mut settling = Settling::new(1);
        let start = Instant::now();
        looks(
            &mut settling,
            start,
            &[
                (0, 1, Used),
                (1, 2, Wait),
                (settle, 2, Wait),
                (settle + 1, 2, Try),
                (patience, 2, Try),
                (patience + 1, 2, Decide),
            ],
        );
        settling.used(2);
        looks(&mut settling, start, &[(9_000, 2, Used), (9_001, 1, Wait)]);
    }

    #[test]
    fn content_that_changes_again_begins_anew() {
        use Verdict::{Used, Wait};
        let settle = SETTLE.as_millis() as u64;
        let looked =
            [(0, 2, Wait), (settle, 3, Wait), (settle + 1, 2, Wait), (settle * 2, 1, Used), (settle * 2 + 1, 2, Wait)];
        looks(&mut Settling::new(1), Instant::now(), &looked);
    }

    #[test]
    fn what_was_refused_is_decided_on_again_until_it_is_replaced() {
        use Verdict::{Decide, Restored, Used, Wait};
        let mut settling = Settling::new(1);
        let start = Instant::now();
        looks(&mut settling, start, &[(0, 2, Wait), (5_000, 2, Decide)]);
        settling.refused(2);
        looks(&mut settling, start, &[(5_001, 2, Decide), (5_002, 3, Wait), (5_003, 2, Decide), (5_004, 3, Wait)]);
        looks(&mut settling, start, &[(6_000, 1, Restored), (6_001, 1, Used)]);
    }
}
