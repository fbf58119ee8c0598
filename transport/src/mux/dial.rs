//! One dial of a mux, for whoever carries it.

use std::{
    future::poll_fn,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

use super::{MAX_CLOSING, Mux, Role, SlowDial, relay, wake};
use crate::{
    batch::Batch,
    flow::DialFlow,
    packet::Packet,
    relay::{Outcome, Start},
    socket::Socket,
    wire::code::StreamCode,
};

/// What a dial is closed with that was dropped before its end.
const ABORTED: &str = "connection reset";

/// An open dial. Dropping it closes it, behind what waits to be sent.
#[derive(Debug)]
pub struct MuxDial {
    mux: Mux,
    connect_id: i64,
    flow: Arc<DialFlow>,
}

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The dial was closed, with these words if something went wrong.
    Closed(String),
    /// The stream is gone.
    Lost(Arc<str>),
}

impl MuxDial {
    pub(super) fn new(mux: Mux, connect_id: i64, flow: Arc<DialFlow>) -> Self {
        Self { mux, connect_id, flow }
    }

    /// The number by which packets name it.
    pub fn connect_id(&self) -> i64 {
        self.connect_id
    }

    /// What the dial has carried so far.
    pub fn flow(&self) -> &Arc<DialFlow> {
        &self.flow
    }

    /// Relays between the dial and a socket until both are closed, and returns how that came about.
    ///
    /// | seen | done |
    /// |---|---|
    /// | the client's socket is closed | the dial is closed, behind its bytes and a pause |
    /// | the client ends its half only | the target's bytes still come; the dial is closed when they pause |
    /// | the target ends its half | the dial is closed behind the target's bytes; the client's are still written |
    /// | either socket is reset | the dial is closed; an agent says why |
    /// | the peer closes the dial | what came before is written, then the socket is shut down, or reset if it says why |
    /// | the socket takes next to nothing while the dial's buffer is full | [`SlowDial`] says what |
    /// | a target takes nothing after the dial was closed | the socket is reset after [`STALL_LIMIT`](super::STALL_LIMIT) |
    ///
    /// # Cancel safety
    /// Dropping the future makes the socket's close a reset.
    pub async fn relay<S: Socket>(&mut self, socket: S, start: Start) -> Outcome {
        relay::relay(self, socket, start).await
    }

    /// Closes the dial because its time is over.
    pub fn stop(&self) {
        self.close(StreamCode::DrainDeadline.meaning());
    }

    /// Waits until what was to be sent is on its way, or never will be.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn delivered(&self) {
        poll_fn(|cx| {
            let mut state = self.mux.lock();
            let is_lost = state.reason.is_some();
            match state.dials.get_mut(&self.connect_id) {
                Some(entry) if !entry.out.is_empty() && !is_lost => {
                    store(&mut entry.up, cx);
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    pub(super) fn role(&self) -> Role {
        self.mux.0.settings.role
    }

    pub(super) fn slow_dial(&self) -> SlowDial {
        self.mux.0.settings.slow_dial
    }

    pub(super) fn lost_reason(&self) -> Option<Arc<str>> {
        self.mux.reason()
    }

    pub(super) fn close_pause(&self) -> Duration {
        self.mux.0.settings.close_pause
    }

    /// Closes the dial behind what waits; an agent adds the words. Once.
    pub(super) fn close(&self, error: &str) {
        let mut guard = self.mux.lock();
        let state = &mut *guard;
        if let Some(entry) = state.dials.get_mut(&self.connect_id)
            // A server's dial that its agent has closed needs no answer.
            && !(self.role() == Role::Server && entry.end.is_some())
        {
            state.outbox.close(self.connect_id, entry, closing_packet(self.role(), self.connect_id, error));
            let (writer, down) = (state.writer.take(), entry.down.take());
            drop(guard);
            wake(writer);
            wake(down);
        }
    }

    /// Whether the bytes that were pushed are on their way.
    pub(super) fn is_flushed(&self) -> bool {
        self.mux.lock().dials.get(&self.connect_id).is_none_or(|entry| entry.out.is_empty())
    }

    /// Bytes that may wait for the dial before it slows the others.
    pub(super) fn buffer(&self) -> usize {
        self.mux.0.settings.dial_buffer
    }

    /// Whether the peer has closed the dial, or was told of its close.
    pub(super) fn is_closing(&self) -> bool {
        let state = self.mux.lock();
        state.dials.get(&self.connect_id).is_none_or(|entry| entry.end.is_some() || entry.out.is_closing())
    }

    /// Whether more waits than the dial's buffer is for.
    pub(super) fn is_over_buffer(&self) -> bool {
        let state = self.mux.lock();
        state.dials.get(&self.connect_id).is_some_and(|entry| state.pressure.is_over(entry.inbox.cost()))
    }

    /// Waits until bytes may be pushed.
    ///
    /// # Errors
    /// When the dial is closed, or the stream gone.
    pub(super) async fn room(&self) -> Result<(), End> {
        poll_fn(|cx| {
            let mut guard = self.mux.lock();
            let state = &mut *guard;
            if let Some(reason) = &state.reason {
                return Poll::Ready(Err(End::Lost(reason.clone())));
            }
            let Some(entry) = state.dials.get_mut(&self.connect_id) else {
                return Poll::Ready(Err(End::Closed(String::new())));
            };
            if let Some(end) = &entry.end {
                return Poll::Ready(Err(End::Closed(end.clone())));
            }
            if entry.out.has_room() {
                return Poll::Ready(Ok(()));
            }
            store(&mut entry.up, cx);
            Poll::Pending
        })
        .await
    }

    /// Queues bytes. After the end they are dropped.
    pub(super) fn push(&self, bytes: Bytes) {
        let mut guard = self.mux.lock();
        let state = &mut *guard;
        if let Some(entry) = state.dials.get_mut(&self.connect_id)
            && !entry.out.is_closing()
        {
            self.flow.count_sent(bytes.len());
            state.outbox.push(self.connect_id, entry, bytes);
            let writer = state.writer.take();
            drop(guard);
            wake(writer);
        }
    }

    /// What has come, or why nothing more comes. What came before the end is given out first.
    pub(super) fn poll_batch(&self, cx: &mut Context<'_>) -> Poll<Result<Batch, End>> {
        let mut guard = self.mux.lock();
        let state = &mut *guard;
        let Some(entry) = state.dials.get_mut(&self.connect_id) else {
            return Poll::Ready(Err(End::Closed(String::new())));
        };
        if !entry.inbox.is_empty() {
            let before = entry.inbox.cost();
            let batch = entry.inbox.batch();
            let after = entry.inbox.cost();
            self.mux.let_go(state, before, after);
            return Poll::Ready(Ok(batch));
        }
        if let Some(end) = &entry.end {
            return Poll::Ready(Err(End::Closed(end.clone())));
        }
        if let Some(reason) = &state.reason {
            return Poll::Ready(Err(End::Lost(reason.clone())));
        }
        if entry.out.is_closing() {
            return Poll::Ready(Err(End::Closed(String::new())));
        }
        store(&mut entry.down, cx);
        Poll::Pending
    }

    /// Drops what has come and what still comes: nobody takes it any more.
    pub(super) fn ignore(&self) {
        let mut guard = self.mux.lock();
        let state = &mut *guard;
        if let Some(entry) = state.dials.get_mut(&self.connect_id) {
            entry.ignored = true;
            let before = entry.inbox.cost();
            entry.inbox.clear();
            self.mux.let_go(state, before, 0);
        }
    }
}

fn closing_packet(role: Role, connect_id: i64, error: &str) -> Packet {
    match role {
        Role::Server => Packet::close_request(connect_id),
        Role::Agent => Packet::close_response(connect_id, error),
    }
}

fn store(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl Drop for MuxDial {
    fn drop(&mut self) {
        self.ignore();
        self.mux.0.books.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.connect_id.cast_unsigned());
        let role = self.role();
        let mut guard = self.mux.lock();
        let state = &mut *guard;
        state.open -= 1;
        let Some(entry) = state.dials.get_mut(&self.connect_id) else { return };
        entry.detached = true;
        (entry.up, entry.down) = (None, None);
        // A server's dial that its agent has closed needs no answer.
        let answered = role == Role::Server && entry.end.is_some();
        if !answered {
            state.outbox.close(self.connect_id, entry, closing_packet(role, self.connect_id, ABORTED));
        }
        let is_over = answered || state.reason.is_some() || (role == Role::Agent && entry.out.is_over());
        if is_over {
            state.dials.remove(&self.connect_id);
        } else if role == Role::Server {
            state.closing.push_back(self.connect_id);
            if state.closing.len() > MAX_CLOSING
                && let Some(oldest) = state.closing.pop_front()
                && let Some(entry) = state.dials.get(&oldest).filter(|entry| entry.detached)
            {
                if entry.out.is_over() {
                    state.dials.remove(&oldest);
                } else {
                    // Its close has not left yet.
                    state.closing.push_back(oldest);
                }
            }
        }
        let writer = state.writer.take();
        drop(guard);
        wake(writer);
    }
}
