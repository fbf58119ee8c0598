//! Send credit: how many bytes a connection may hold that its peer has not acknowledged yet.
//!
//! QUIC's own send window is one budget for all streams and wakes its oldest waiter last, so it must never be what
//! stops a stream. This gate stands in front of it and is first come, first served. A dial takes credit before it reads
//! its socket, and the credit comes back when the bytes are acknowledged; a dial whose own stream is blocked gives the
//! credit of its unsent bytes back, so that it holds nothing that others need.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

/// Credit that interactive dials find even when bulk dials have used up theirs: 256 KiB, a thousand keystrokes' worth
/// or the first 64 KiB of four new dials.
const INTERACTIVE_RESERVE: usize = 256 * 1024;

/// The smallest and largest credit of one connection. The floor fills a data centre's path; the ceiling is four
/// bandwidth-delay products of 300 Mbit/s at 100 ms.
const MIN_LIMIT: usize = 512 * 1024;
const MAX_LIMIT: usize = 16 * 1024 * 1024;

/// How urgent the bytes of a dial are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The dial has sent little lately: it may use the reserve and its bytes go first.
    Interactive,
    /// Everything else.
    Bulk,
}

/// Credit that a congestion window of `cwnd` bytes is worth: four of them, and a little for the time between two samples.
/// The library keeps what is acknowledged behind a lost packet until that one has arrived, which takes a round trip and a
/// half, or as much again if it is lost twice: with two windows a dial had 68 of 100 Mbit/s at 100 ms and 5 %, with four
/// it had 80, and 92 with a larger stream window. What is not yet sent delays nobody: bytes of higher priority go before it, and equals take turns.
pub(crate) fn limit_for(cwnd: u64) -> usize {
    let wanted = usize::try_from(cwnd).unwrap_or(MAX_LIMIT).saturating_mul(4).saturating_add(256 * 1024);
    wanted.clamp(MIN_LIMIT, MAX_LIMIT)
}

/// The credit of one connection.
#[derive(Debug)]
pub(crate) struct Credit {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    used: usize,
    next_ticket: u64,
    /// One queue for each class, by ticket, so that an interactive waiter is not held up by a bulk one.
    queues: [BTreeMap<u64, Waker>; 2],
}

impl Credit {
    pub(crate) fn new() -> Self {
        let queues = [BTreeMap::new(), BTreeMap::new()];
        Self { state: Mutex::new(State { limit: MIN_LIMIT, used: 0, next_ticket: 0, queues }) }
    }

    /// Sets the credit; a lower one takes effect as bytes are acknowledged.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.update(|state| state.limit = limit);
    }

    /// Bytes that are charged now.
    pub(crate) fn used(&self) -> usize {
        self.lock().used
    }

    /// Waits for the credit of a chunk of `bytes`. The last chunk may exceed the limit by its own size, so that a
    /// large one is never starved by small ones.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue away; nothing is charged.
    pub(crate) async fn acquire(&self, bytes: usize, class: Class) {
        let mut place = Place { credit: self, class, ticket: None };
        poll_fn(|cx| place.poll(cx, bytes)).await;
    }

    /// Charges `bytes` whatever the limit says: for bytes that were sent without credit.
    pub(crate) fn charge(&self, bytes: usize) {
        self.lock().used += bytes;
    }

    /// Gives `bytes` back.
    pub(crate) fn release(&self, bytes: usize) {
        self.update(|state| state.used = state.used.saturating_sub(bytes));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.lock();
            change(&mut state);
            state.next_wakers()
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admits(&self, class: Class) -> bool {
        match class {
            Class::Interactive => self.used < self.limit + INTERACTIVE_RESERVE,
            Class::Bulk => self.used < self.limit,
        }
    }

    /// The first of each queue, if there is credit for it. It stays in the queue until it has taken its credit.
    fn next_wakers(&self) -> [Option<Waker>; 2] {
        [Class::Interactive, Class::Bulk].map(|class| {
            let (_, first) = self.queues[class as usize].first_key_value()?;
            self.admits(class).then(|| first.clone())
        })
    }

    fn leave(&mut self, class: Class, ticket: u64) {
        self.queues[class as usize].remove(&ticket);
    }
}

/// A place in a queue of a [`Credit`].
struct Place<'a> {
    credit: &'a Credit,
    class: Class,
    ticket: Option<u64>,
}

impl Place<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        let mut state = self.credit.lock();
        let front = state.queues[self.class as usize].first_key_value().map(|(ticket, _)| *ticket);
        if front.is_some() && front != self.ticket || !state.admits(self.class) {
            self.wait(&mut state, cx);
            return Poll::Pending;
        }
        state.used += bytes;
        let Some(ticket) = self.ticket.take() else {
            return Poll::Ready(());
        };
        state.leave(self.class, ticket);
        let next = state.next_wakers();
        drop(state);
        next.into_iter().flatten().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn wait(&mut self, state: &mut State, cx: &Context<'_>) {
        let ticket = *self.ticket.get_or_insert_with(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        state.queues[self.class as usize].insert(ticket, cx.waker().clone());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.credit.update(|state| state.leave(self.class, ticket));
        }
    }
}

/// The credit that one dial uses in one direction.
#[derive(Debug)]
pub(crate) struct DialCredit {
    connection: Arc<Credit>,
    unacknowledged: AtomicUsize,
    drained: Notify,
}

impl DialCredit {
    pub(crate) fn new(connection: Arc<Credit>) -> Self {
        Self { connection, unacknowledged: AtomicUsize::new(0), drained: Notify::new() }
    }

    /// The credit of the connection that carries the dial.
    pub(crate) fn connection(&self) -> &Credit {
        &self.connection
    }

    /// Counts a chunk whose credit was acquired as sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.unacknowledged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a chunk as acknowledged, or as dropped with its stream, and gives its credit back.
    pub(crate) fn acknowledged(&self, bytes: usize) {
        self.connection.release(bytes);
        if self.unacknowledged.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.drained.notify_waiters();
        }
    }

    /// Whether the peer has acknowledged everything that was sent.
    pub(crate) fn is_drained(&self) -> bool {
        self.unacknowledged.load(Ordering::Acquire) == 0
    }

    /// Waits until the peer has acknowledged everything that was sent.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            if self.is_drained() {
                return;
            }
            notified.await;
        }
    }

    /// Gives the credit of `bytes` back while the dial's own stream is blocked. It is charged again when the guard
    /// goes, by then the bytes have been sent or the stream is dead.
    pub(crate) fn suspend(&self, bytes: usize) -> Suspended<'_> {
        self.connection.release(bytes);
        Suspended { credit: &self.connection, bytes }
    }
}

/// Credit that was given back for the time that a stream is blocked.
pub(crate) struct Suspended<'a> {
    credit: &'a Credit,
    bytes: usize,
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        self.credit.charge(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_limit_follows_the_congestion_window_within_bounds() {
        assert_eq!(limit_for(0), MIN_LIMIT);
        assert_eq!(limit_for(1024 * 1024), 4 * 1024 * 1024 + 256 * 1024);
        assert_eq!(limit_for(u64::MAX), MAX_LIMIT);
    }

    #[test]
    fn waiters_are_served_in_the_order_they_came() {
        let credit = Credit::new();
        credit.charge(MIN_LIMIT);
        let mut first = pin!(credit.acquire(10, Class::Bulk));
        let mut second = pin!(credit.acquire(1, Class::Bulk));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        credit.release(5);
        assert!(poll(second.as_mut()).is_pending(), "the second must not overtake the first");
        assert!(poll(first.as_mut()).is_ready());
        assert!(poll(second.as_mut()).is_pending(), "five bytes are owed");
        credit.release(10);
        assert!(poll(second.as_mut()).is_ready());
        assert_eq!(credit.used(), MIN_LIMIT - 15 + 11);
    }

    #[test]
    fn a_waiter_that_leaves_does_not_block_the_next() {
        let credit = Credit::new();
        credit.charge(MIN_LIMIT);
        let mut second = pin!(credit.acquire(1, Class::Bulk));
        {
            let mut first = pin!(credit.acquire(1, Class::Bulk));
            assert!(poll(first.as_mut()).is_pending());
            assert!(poll(second.as_mut()).is_pending());
        }
        credit.release(1);
        assert!(poll(second.as_mut()).is_ready());
    }

    #[test]
    fn interactive_dials_find_credit_when_bulk_has_none() {
        let credit = Credit::new();
        credit.charge(MIN_LIMIT);
        assert!(poll(pin!(credit.acquire(1, Class::Bulk))).is_pending());
        assert!(poll(pin!(credit.acquire(INTERACTIVE_RESERVE, Class::Interactive))).is_ready());
        let mut waiter = pin!(credit.acquire(1, Class::Interactive));
        assert!(poll(waiter.as_mut()).is_pending(), "the reserve has an end too");
        credit.release(1);
        assert!(poll(waiter.as_mut()).is_ready());
    }

    #[test]
    fn a_blocked_stream_holds_no_credit() {
        let connection = Arc::new(Credit::new());
        let dial = DialCredit::new(connection.clone());
        connection.charge(MIN_LIMIT);
        {
            let _suspended = dial.suspend(MIN_LIMIT);
            assert!(poll(pin!(connection.acquire(1, Class::Bulk))).is_ready());
            connection.release(1);
        }
        assert_eq!(connection.used(), MIN_LIMIT);
    }

    #[test]
    fn drained_once_every_chunk_is_acknowledged() {
        let dial = DialCredit::new(Arc::new(Credit::new()));
        dial.sent(3);
        dial.sent(4);
        let mut drained = pin!(dial.drained());
        dial.acknowledged(4);
        assert!(poll(drained.as_mut()).is_pending());
        dial.acknowledged(3);
        assert!(poll(drained.as_mut()).is_ready());
    }
}
