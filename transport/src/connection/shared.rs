//! What the dials of a connection share: credit, windows, and the books on which they are.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::VarInt;

use crate::{
    credit::{self, Credit},
    flow::DialFlow,
    settings::QuicSettings,
    window::{Change, MemoryBudget, Windows},
};

/// Dials that the server may open before the limit is raised for the first time. QUIC stacks pay memory for each.
pub(crate) const FIRST_STREAM_LIMIT: u32 = 128;

/// The congestion window is looked at this often while credit is asked for.
const CREDIT_SAMPLE: Duration = Duration::from_millis(20);

/// A dial is ended for the sake of others only after it has taken nothing for this long.
const EVICT_AFTER: Duration = Duration::from_secs(1);

/// What both halves of all streams of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) quinn: quinn::Connection,
    pub(crate) credit: Arc<Credit>,
    pub(super) windows: Windows,
    pub(super) started: Instant,
    credit_sampled_at: AtomicU64,
    flows: Mutex<HashMap<u64, Arc<DialFlow>>>,
    open_dials: AtomicUsize,
    bytes_received: AtomicU64,
    stream_limit: AtomicU32,
    max_dials: u32,
}

impl Shared {
    pub(super) fn new(quinn: quinn::Connection, settings: &QuicSettings, budget: Arc<MemoryBudget>) -> Self {
        let now = Instant::now();
        let windows = Windows::new(budget, settings.stream_receive_window, settings.connection_receive_window, now);
        Self {
            quinn,
            credit: Arc::new(Credit::new()),
            windows,
            started: now,
            credit_sampled_at: AtomicU64::new(0),
            flows: Mutex::new(HashMap::new()),
            open_dials: AtomicUsize::new(0),
            bytes_received: AtomicU64::new(0),
            stream_limit: AtomicU32::new(FIRST_STREAM_LIMIT),
            max_dials: settings.max_dials,
        }
    }

    /// Puts the dial of a stream on the books until the guard goes.
    pub(crate) fn enter(self: &Arc<Self>, stream: u64, flow: Arc<DialFlow>) -> Entry {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, flow);
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

    /// Doubles the number of dials that the server may open when three quarters of it are in use.
    pub(super) fn raise_stream_limit(&self) {
        let limit = self.stream_limit.load(Ordering::Relaxed);
        if self.open_dials() as u64 * 4 >= u64::from(limit) * 3 && limit < self.max_dials {
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
            self.credit.set_limit(credit::limit_for(self.quinn.stats().path.cwnd));
        }
    }

    pub(super) fn apply(&self, change: &Change) {
        if let Some(window) = change.window {
            self.quinn.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
        if change.evict > 0 {
            self.evict_longest_stalled(usize::try_from(change.evict).unwrap_or(usize::MAX));
        }
    }

    fn evict_longest_stalled(&self, dials: usize) {
        let now = Instant::now();
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = flows.values().filter(|flow| !flow.is_evicted()).filter_map(|flow| {
            let time = flow.stalled_for(now).filter(|time| *time >= EVICT_AFTER)?;
            Some((time, flow))
        });
        let mut stalled: Vec<_> = stalled.collect();
        stalled.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (time, flow) in stalled.into_iter().take(dials) {
            tracing::warn!(
                stalled_seconds = time.as_secs_f64(),
                "the memory budget is spent: ending the dial whose receiver has been stalled longest; raise \
                 quic-memory-budget to allow more"
            );
            flow.evict();
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
        self.connection.flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.stream);
        self.connection.open_dials.fetch_sub(1, Ordering::Relaxed);
    }
}
