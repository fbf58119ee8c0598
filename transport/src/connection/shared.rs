//! What the dials of a connection share: credit, windows, and the books on which they are.

use std::{
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::VarInt;

use super::ConnectionLost;
use crate::{
    budget::{Books, MemoryBudget},
    congestion::Room,
    control::Nudger,
    credit::{self, Credit},
    flow::DialFlow,
    probe::Question,
    settings::{QuicSettings, STREAM_RECEIVE_WINDOW},
    window::{Change, Windows},
    wire::code::ConnectionCode,
};

/// Dials that the server may open before the limit is raised for the first time. QUIC stacks pay memory for each.
const FIRST_STREAM_LIMIT: u32 = 128;

/// Dials that the server may open on a new connection.
pub(crate) fn first_stream_limit(settings: &QuicSettings) -> u32 {
    FIRST_STREAM_LIMIT.min(settings.max_dials)
}

/// Packets of one stream that may be under way whatever part of them is lost: the library gives a connection up that
/// has more than 1,024 gaps in a stream, and when one half is lost a quarter of the packets are followed by a gap (950
/// here, give or take 15). `interop/tests/bad_frames.rs` tries it.
const PACKETS_WITH_FEW_GAPS: usize = 3_800;

/// Bytes of a packet that are no payload, nearly.
const PACKET_OVERHEAD: usize = 40;

/// Packets as short as this or shorter make more gaps in the default stream window than there may be.
const SHORT_PACKET: usize = STREAM_RECEIVE_WINDOW as usize / PACKETS_WITH_FEW_GAPS + PACKET_OVERHEAD;

/// Most bytes to be under way where the path takes packets of `mtu` bytes: a path that loses much, and has come to be
/// taken for one of short packets, must not lose the connection besides.
fn most_in_packets_of(mtu: u16) -> usize {
    match usize::from(mtu) {
        mtu if mtu <= SHORT_PACKET => PACKETS_WITH_FEW_GAPS * mtu.saturating_sub(PACKET_OVERHEAD),
        _ => usize::MAX,
    }
}

/// The congestion window is looked at this often while credit is asked for.
const CREDIT_SAMPLE: Duration = Duration::from_millis(20);

/// What both halves of all streams of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) quinn: quinn::Connection,
    pub(crate) credit: Arc<Credit>,
    pub(super) windows: Windows,
    pub(super) started: Instant,
    credit_sampled_at: AtomicU64,
    /// Once the control stream is there.
    pub(super) control: OnceLock<Nudger>,
    pub(super) room: Arc<Room>,
    /// Of the settings, for those who watch the peer's silence.
    pub(super) idle_timeout: Duration,
    pub(super) keep_alive: Duration,
    /// Whether the peer is still there.
    pub(super) question: Question,
    /// Why this end has closed the connection, if it did because it heard nothing.
    silent: OnceLock<ConnectionLost>,
    budget: Arc<MemoryBudget>,
    books: Arc<Books>,
    open_dials: AtomicUsize,
    bytes_received: AtomicU64,
    stream_limit: AtomicU32,
    max_dials: u32,
    most_unacknowledged: usize,
    /// Streams that were watched for a stop and then reset: the QUIC library keeps an entry for each until the
    /// connection ends.
    pub(crate) watched_resets: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        quinn: quinn::Connection,
        settings: &QuicSettings,
        budget: Arc<MemoryBudget>,
        room: Arc<Room>,
    ) -> Self {
        let now = Instant::now();
        let books = Arc::new(Books::default());
        budget.enroll(&books);
        let windows =
            Windows::new(budget.clone(), settings.stream_receive_window, settings.connection_receive_window, now);
        Self {
            quinn,
            credit: Arc::new(Credit::new()),
            windows,
            started: now,
            credit_sampled_at: AtomicU64::new(0),
            control: OnceLock::new(),
            room,
            idle_timeout: settings.idle_timeout,
            keep_alive: settings.keep_alive_interval,
            question: Question::default(),
            silent: OnceLock::new(),
            budget,
            books,
            open_dials: AtomicUsize::new(0),
            bytes_received: AtomicU64::new(0),
            stream_limit: AtomicU32::new(first_stream_limit(settings)),
            max_dials: settings.max_dials,
            most_unacknowledged: settings.most_unacknowledged,
            watched_resets: AtomicUsize::new(0),
        }
    }

    /// Puts the dial of a stream on the books until the guard goes.
    pub(crate) fn enter(self: &Arc<Self>, stream: u64, flow: Arc<DialFlow>) -> Entry {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, flow);
        self.open_dials.fetch_add(1, Ordering::Relaxed);
        Entry { stream, connection: self.clone() }
    }

    /// Dials that are open.
    pub(super) fn open_dials(&self) -> usize {
        self.open_dials.load(Ordering::Relaxed)
    }

    /// Bytes that all dials have received.
    pub(super) fn bytes_received(&self) -> u64 {
        self.bytes_received.load(Ordering::Relaxed)
    }

    /// Doubles the number of dials that the server may open when three eighths of it are open here. On a long path at
    /// least as many are on their way here or on their way back, and the server cannot say that it waits.
    pub(super) fn raise_stream_limit(&self) {
        let limit = self.stream_limit.load(Ordering::Relaxed);
        if self.open_dials() as u64 * 8 >= u64::from(limit) * 3 && limit < self.max_dials {
            let raised = limit.saturating_mul(2).min(self.max_dials);
            self.stream_limit.store(raised, Ordering::Relaxed);
            self.quinn.set_max_concurrent_bi_streams(VarInt::from_u32(raised));
        }
    }

    /// Follows the congestion window with the send credit, at most every 20 ms.
    pub(crate) fn refresh_credit(&self) {
        let now = self.started.elapsed().as_micros() as u64;
        let last = self.credit_sampled_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= CREDIT_SAMPLE.as_micros() as u64 {
            self.credit_sampled_at.store(now, Ordering::Relaxed);
            let path = self.quinn.stats().path;
            let most = self.most_unacknowledged.min(most_in_packets_of(path.current_mtu));
            self.credit.set_limit(credit::limit_for(path.cwnd).min(most));
        }
    }

    pub(super) fn apply(&self, change: &Change) {
        if let Some(window) = change.window {
            self.quinn.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
        if change.evict > 0 {
            self.budget.evict(change.evict, Instant::now());
        }
    }

    /// Sends something for the sake of an answer, even if the congestion window is full.
    pub(super) fn nudge(&self, packet_bytes: u64) {
        // What is sent first may be two packets at most, and the library wants room for one more byte than it sends.
        self.room.make(2 * packet_bytes);
        if let Some(control) = self.control.get() {
            control.nudge();
        }
    }

    /// Closes the connection because nothing was heard: an idle timeout whose clock is ours.
    pub(super) fn time_out(&self, lost: ConnectionLost) {
        if self.quinn.close_reason().is_none() {
            let reason = self.silent.get_or_init(|| lost).to_string();
            self.quinn.close(VarInt::from_u32(ConnectionCode::IdleTimeout.into()), reason.as_bytes());
        }
    }

    /// Why the connection is really gone: the library knows nothing of [`Self::time_out`].
    pub(crate) fn why(&self, lost: ConnectionLost) -> ConnectionLost {
        match (lost, self.silent.get()) {
            (ConnectionLost::ClosedHere, Some(silent)) => silent.clone(),
            (other, _) => other,
        }
    }

    /// Marks the receiver of a dial as stalled until the guard goes.
    pub(crate) fn stall<'a>(&'a self, flow: &'a DialFlow) -> Stalled<'a> {
        let now = Instant::now();
        flow.set_stalled(Some(now));
        let change = self.windows.stall(now);
        self.apply(&change);
        Stalled { connection: self, flow }
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A dial whose receiver takes no bytes just now.
pub(crate) struct Stalled<'a> {
    connection: &'a Shared,
    flow: &'a DialFlow,
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.flow.set_stalled(None);
        self.connection.windows.resume(Instant::now());
    }
}

/// Takes a dial off its connection's books when it ends.
#[derive(Debug)]
pub(crate) struct Entry {
    stream: u64,
    pub(crate) connection: Arc<Shared>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connection.books.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.stream);
        self.connection.open_dials.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_packets_bound_what_is_under_way() {
        assert_eq!(most_in_packets_of(1200), 4_408_000);
        assert_eq!(most_in_packets_of(1300), 4_788_000);
        // A whole default window of these has few gaps.
        assert_eq!(most_in_packets_of(1452), usize::MAX);
        assert_eq!(most_in_packets_of(6500), usize::MAX);
    }
}
