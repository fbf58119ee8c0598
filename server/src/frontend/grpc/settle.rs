//! Whether a client has had time to learn that its dial has succeeded.
//!
//! The reference's client puts a connection on its books only after its receiver has handed the dial's result over; bytes
//! that come meanwhile are unknown to it, and lost. No packet tells when it has. An acknowledged PING, sent after the
//! result, tells that the client has received it; a pause covers what is left.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Rounds of PING and acknowledgement on one connection, for any number of dials at a time.
#[derive(Debug, Default)]
pub struct Settle {
    /// The last ticket that was given.
    asked: AtomicU64,
    /// Every ticket up to this one is answered.
    answered: AtomicU64,
    connection: Mutex<Option<Waker>>,
}

/// A dial's place in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// Of a round that nobody waits for.
    pub const NOBODY: Self = Self(0);
}

impl Settle {
    /// Asks for a round that begins after now.
    pub fn ask(&self) -> Ticket {
        let ticket = Ticket(self.asked.fetch_add(1, Ordering::AcqRel) + 1);
        let waker = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
        ticket
    }

    /// Whether that round is over.
    pub fn is_over(&self, ticket: Ticket) -> bool {
        self.answered.load(Ordering::Acquire) >= ticket.0
    }

    /// For the connection's task: the last ticket that a round beginning now would answer; pending if nobody waits.
    pub fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<Ticket> {
        let mut waker = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        let asked = self.asked.load(Ordering::Acquire);
        if asked > self.answered.load(Ordering::Acquire) { Poll::Ready(Ticket(asked)) } else { Poll::Pending }
    }

    /// For the connection's task: the round for this ticket is over.
    pub fn answer(&self, ticket: Ticket) {
        self.answered.fetch_max(ticket.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_answers_those_that_asked_before_it_began() {
        let settle = Settle::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(settle.poll_asked(&mut cx).is_pending());
        let early = settle.ask();
        let Poll::Ready(round) = settle.poll_asked(&mut cx) else { panic!("somebody waits") };
        let late = settle.ask();
        settle.answer(round);
        assert!(settle.is_over(early));
        assert!(!settle.is_over(late));
        assert_eq!(settle.poll_asked(&mut cx), Poll::Ready(late));
    }
}
