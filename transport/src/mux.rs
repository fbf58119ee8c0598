//! Many dials over one stream of packets: what the reference's agents and servers speak (compat 2).
//!
//! The stream has one order for everything in each direction, and no flow control for one dial. What is done about it:
//!
//! | direction | how dials are kept apart |
//! |---|---|
//! | to the peer | each dial has little waiting; packets of dials that have sent little go first, the others in turn |
//! | from the peer | bytes that a dial does not take wait in its buffer; a full one slows the stream, and is ended |
//!
//! No packet ends one half of a dial. A server closes by CLOSE_REQ, an agent by CLOSE_RSP, each behind the dial's bytes.
//!
//! The owner of the stream runs two loops: one asks [`Mux::poll_send`] for packets and writes them, the other one reads
//! packets, hands those of dials to [`Mux::receive`] and [`Mux::close_received`], and waits for [`Mux::relief`] before
//! it reads on. Nothing here knows of HTTP/2.

mod dial;
mod inbox;
mod outbox;
mod relay;

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{
    inbox::{Inbox, Pressure, Wait},
    outbox::{Outbox, Waiting},
};
use crate::{
    budget::{Books, MemoryBudget},
    flow::DialFlow,
    packet::{Packet, PacketType, frame::PacketBuf},
};

pub use self::{dial::MuxDial, inbox::STALL_LIMIT};

/// Packets other than DATA that may wait to be sent before no more are read: a peer that provokes answers and does not
/// read them must not make them pile up.
const MAX_CONTROL: usize = 1024;

/// Dials that were closed here and whose peer has not said so too. More of them are forgotten; what still comes for one
/// is then answered as for a dial that never was.
const MAX_CLOSING: usize = 4096;

/// A pause while the memory of the process is spent.
const BUDGET_CHECK: Duration = Duration::from_millis(20);

/// Which end of the stream this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Asks for dials, and closes them by CLOSE_REQ.
    Server,
    /// Makes dials, and closes them by CLOSE_RSP.
    Agent,
}

/// What becomes of a dial that has had more than its buffer waiting for [`STALL_LIMIT`], and has taken less than an
/// eighth of it in that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowDial {
    /// It is ended, so that others go on at their speed.
    #[default]
    Close,
    /// All dials of the stream wait for it once its buffers are full, as in the reference.
    Wait,
}

/// How dials share a stream.
#[derive(Debug, Clone)]
pub struct MuxSettings {
    /// Which end this is.
    pub role: Role,
    /// Bytes that may wait for one dial before it slows the stream. Four times as many are the most.
    pub dial_buffer: usize,
    /// What becomes of a dial that takes next to nothing.
    pub slow_dial: SlowDial,
    /// How long a server waits before it closes a dial whose client has gone, after the dial's last byte: an agent of
    /// the reference drops what it has not written to the target when it is told of the close.
    pub close_pause: Duration,
}

/// One stream of packets. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Mux(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: MuxSettings,
    budget: Arc<MemoryBudget>,
    books: Arc<Books>,
    state: Mutex<State>,
    /// Something has happened that the reader may wait for.
    relieved: Notify,
    lost: CancellationToken,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    dials: HashMap<i64, Entry>,
    open: usize,
    /// Dials that are gone here, in the order in which they went.
    closing: VecDeque<i64>,
    pressure: Pressure,
    /// Bytes that are held and not paid for: the budget was spent when they came.
    owed: u64,
    writer: Option<Waker>,
    reason: Option<Arc<str>>,
}

/// One dial.
#[derive(Debug)]
struct Entry {
    flow: Arc<DialFlow>,
    inbox: Inbox,
    /// The peer has closed the dial, and said this.
    end: Option<String>,
    out: Waiting,
    /// Wake the two directions of the relay: bytes or the end have come, bytes have gone.
    down: Option<Waker>,
    up: Option<Waker>,
    /// What comes is dropped.
    ignored: bool,
    /// Nobody here has to do with it any more.
    detached: bool,
}

/// No such dial: it is closed, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no dial has this conn id")]
pub struct Unknown;

/// A dial with this conn id is open already, or the id is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the conn id is in use, or 0")]
pub struct Taken;

impl Mux {
    /// A stream without dials. What waits for its dials is paid for from `budget`.
    pub fn new(settings: MuxSettings, budget: Arc<MemoryBudget>) -> Self {
        let books = Arc::new(Books::default());
        budget.enroll(&books);
        let state = State {
            outbox: Outbox::default(),
            dials: HashMap::new(),
            open: 0,
            closing: VecDeque::new(),
            pressure: Pressure::new(settings.dial_buffer),
            owed: 0,
            writer: None,
            reason: None,
        };
        let (relieved, lost) = (Notify::new(), CancellationToken::new());
        Self(Arc::new(Inner { settings, budget, books, state: Mutex::new(state), relieved, lost }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a dial on the books. To be called before the packet behind the one that names it is looked at.
    ///
    /// # Errors
    /// [`Taken`]: the peer lies, or two of its streams were mixed up.
    pub fn open(&self, connect_id: i64) -> Result<MuxDial, Taken> {
        let mut state = self.lock();
        let hash_map::Entry::Vacant(place) = state.dials.entry(connect_id) else { return Err(Taken) };
        if connect_id == 0 {
            return Err(Taken);
        }
        let flow = Arc::new(DialFlow::new(Instant::now()));
        place.insert(Entry::new(flow.clone()));
        state.open += 1;
        drop(state);
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner).insert(connect_id.cast_unsigned(), flow.clone());
        Ok(MuxDial::new(self.clone(), connect_id, flow))
    }

    /// Takes bytes that have come for a dial. Those for one that was closed here are dropped.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn receive(&self, connect_id: i64, bytes: Bytes) -> Result<(), Unknown> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entry = state.dials.get_mut(&connect_id).ok_or(Unknown)?;
        if entry.detached || entry.ignored || entry.end.is_some() {
            return Ok(());
        }
        let before = entry.inbox.cost();
        let cost = entry.inbox.push(bytes) as u64;
        state.pressure.grown(before, entry.inbox.cost(), Instant::now());
        let waker = entry.down.take();
        let spent = !self.0.budget.reserve(cost, 0);
        if spent {
            state.owed += cost;
        }
        drop(guard);
        if spent {
            self.0.budget.evict(1, Instant::now());
        }
        wake(waker);
        Ok(())
    }

    /// The peer has closed a dial, with these words if something went wrong.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn close_received(&self, connect_id: i64, error: &str) -> Result<(), Unknown> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entry = state.dials.get_mut(&connect_id).ok_or(Unknown)?;
        if entry.detached && self.0.settings.role == Role::Server {
            state.dials.remove(&connect_id);
            return Ok(());
        }
        entry.end.get_or_insert_with(|| error.to_owned());
        if self.0.settings.role == Role::Agent {
            // The answer, behind what was read from the target already: the client waits for it.
            state.outbox.close(connect_id, entry, Packet::close_response(connect_id, ""));
        }
        let (up, down) = (entry.up.take(), entry.down.take());
        let writer = state.writer.take();
        drop(guard);
        wake(writer);
        wake(up);
        wake(down);
        Ok(())
    }

    /// Returns when more may be read from the stream. To be awaited after each packet with bytes.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn relief(&self) {
        loop {
            let relieved = self.0.relieved.notified();
            let (wait, spent) = {
                let mut state = self.lock();
                if state.owed > 0 && self.0.budget.reserve(state.owed, 0) {
                    state.owed = 0;
                }
                let wait = match state.pressure.wait(Instant::now()) {
                    _ if state.reason.is_some() => return,
                    Wait::No if state.owed > 0 => Wait::Until(Instant::now() + BUDGET_CHECK),
                    _ if state.outbox.control() > MAX_CONTROL => Wait::Room,
                    Wait::No => return,
                    wait => wait,
                };
                (wait, state.owed > 0)
            };
            // When the last packet came, no dial may have been stalled for long enough, and no other comes before one ends.
            if spent {
                self.0.budget.evict(1, Instant::now());
            }
            match wait {
                Wait::Until(instant) => {
                    // Either may come first, and what is true then is looked at anew.
                    let _ = tokio::time::timeout_at(instant.into(), relieved).await;
                }
                _ => relieved.await,
            }
        }
    }

    /// Queues a packet other than DATA, before all DATA that waits.
    pub fn send(&self, packet: Packet) {
        let mut state = self.lock();
        state.outbox.send(packet);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
    }

    /// The next packet for the peer, with at most `room` bytes of a dial. `None`: the stream is lost.
    pub fn poll_send(&self, cx: &mut Context<'_>, room: usize) -> Poll<Option<(PacketType, PacketBuf)>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.reason.is_some() {
            return Poll::Ready(None);
        }
        let Some(next) = state.outbox.next(&mut state.dials, room) else {
            match &mut state.writer {
                Some(waker) => waker.clone_from(cx.waker()),
                None => state.writer = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        let mut waker = None;
        if let Some(connect_id) = next.of_dial
            && let Some(entry) = state.dials.get_mut(&connect_id)
        {
            waker = entry.up.take();
            if entry.detached && entry.out.is_over() && self.0.settings.role == Role::Agent {
                state.dials.remove(&connect_id);
            }
        }
        if state.outbox.control() == MAX_CONTROL {
            self.0.relieved.notify_waiters();
        }
        drop(guard);
        wake(waker);
        Poll::Ready(Some((next.kind, next.packet)))
    }

    /// The stream is gone: every dial ends with `reason`, which is for people. The first one counts.
    pub fn lose(&self, reason: impl Into<Arc<str>>) {
        let mut state = self.lock();
        if state.reason.is_none() {
            state.reason = Some(reason.into());
        }
        let mut wakers: Vec<_> = state.writer.take().into_iter().collect();
        for entry in state.dials.values_mut() {
            wakers.extend(entry.up.take());
            wakers.extend(entry.down.take());
        }
        drop(state);
        self.0.relieved.notify_waiters();
        self.0.lost.cancel();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the stream is gone and says why.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn lost(&self) -> Arc<str> {
        self.0.lost.cancelled().await;
        self.reason().unwrap_or_default()
    }

    /// Why the stream is gone, if it is.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.lock().reason.clone()
    }

    /// Dials that are open.
    pub fn open_dials(&self) -> usize {
        self.lock().open
    }

    /// Bytes that dials have not taken, as they count for memory.
    pub fn held_bytes(&self) -> usize {
        self.lock().dials.values().map(|entry| entry.inbox.cost()).sum()
    }
}

impl Mux {
    /// Part of a dial's inbox was taken.
    fn let_go(&self, state: &mut State, before: usize, after: usize) {
        let freed = (before - after) as u64;
        let unpaid = freed.min(state.owed);
        state.owed -= unpaid;
        self.0.budget.release(freed - unpaid);
        let is_paid = unpaid > 0 && state.owed == 0;
        if state.pressure.shrunk(before, after) || is_paid {
            self.0.relieved.notify_waiters();
        }
    }
}

impl Entry {
    fn new(flow: Arc<DialFlow>) -> Self {
        Self {
            flow,
            inbox: Inbox::default(),
            end: None,
            out: Waiting::default(),
            down: None,
            up: None,
            ignored: false,
            detached: false,
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
