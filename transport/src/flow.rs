//! What one dial has carried, and whether its receiver is stalled. The connection looks at it to account for memory,
//! the ends to log the dial.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::credit::Class;

/// A dial that sends no more than this in [`SERVICE_PERIOD`] is interactive: a terminal, a request, a new dial.
const INTERACTIVE_BYTES: u64 = 64 * 1024;
const SERVICE_PERIOD: Duration = Duration::from_secs(1);

/// Counters of one dial.
#[derive(Debug)]
pub struct DialFlow {
    started: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    /// Microseconds after `started` at which the receiver stalled, plus one; 0 while it is not.
    stalled_at: AtomicU64,
    service: Mutex<Service>,
    evicted: AtomicBool,
    evict: Notify,
}

#[derive(Debug)]
struct Service {
    period_start: Instant,
    bytes: u64,
    before: u64,
}

impl DialFlow {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            stalled_at: AtomicU64::new(0),
            service: Mutex::new(Service { period_start: now, bytes: 0, before: 0 }),
            evicted: AtomicBool::new(false),
            evict: Notify::new(),
        }
    }

    /// Bytes that went from the socket into the stream.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that went from the stream into the socket.
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// When the stream was opened.
    pub fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts `bytes` about to be sent as service and says in which class they go.
    pub(crate) fn attain(&self, bytes: usize) -> Class {
        self.attain_at(bytes, Instant::now())
    }

    fn attain_at(&self, bytes: usize, now: Instant) -> Class {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(service.period_start);
        if elapsed >= SERVICE_PERIOD {
            service.before = if elapsed < 2 * SERVICE_PERIOD { service.bytes } else { 0 };
            service.bytes = 0;
            service.period_start = now;
        }
        service.bytes += bytes as u64;
        // The period before counts too, so that a bulk dial does not turn interactive at the start of each period.
        if service.bytes.max(service.before) <= INTERACTIVE_BYTES { Class::Interactive } else { Class::Bulk }
    }

    /// The receiver stalls now (`Some`) or goes on. An eviction that came too late for the stall before is forgotten.
    pub(crate) fn set_stalled(&self, since: Option<Instant>) {
        self.evicted.store(false, Ordering::Relaxed);
        let at = since.map_or(0, |since| self.micros(since));
        self.stalled_at.store(at, Ordering::Relaxed);
    }

    /// A stalled receiver has taken something: it is slow, not stuck.
    pub(crate) fn progressed(&self) {
        if self.stalled_at.load(Ordering::Relaxed) > 0 {
            self.stalled_at.store(self.micros(Instant::now()), Ordering::Relaxed);
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.started).as_micros() as u64 + 1
    }

    /// For how long the receiver has taken nothing.
    pub(crate) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let at = self.stalled_at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.started + Duration::from_micros(at)))
    }

    /// Ends the dial because the memory budget is spent.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.evict.notify_one();
    }

    pub(crate) async fn evicted(&self) {
        while !self.is_evicted() {
            self.evict.notified().await;
        }
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_is_interactive_until_it_has_sent_much_and_again_after_a_pause() {
        let start = Instant::now();
        let flow = DialFlow::new(start);
        assert_eq!(flow.attain_at(64 * 1024, start), Class::Interactive);
        assert_eq!(flow.attain_at(1, start), Class::Bulk);
        assert_eq!(flow.attain_at(1, start + SERVICE_PERIOD), Class::Bulk, "a period later it is still bulk");
        assert_eq!(flow.attain_at(1, start + 3 * SERVICE_PERIOD), Class::Interactive);
    }

    #[test]
    fn a_stall_is_measured_from_its_start() {
        let start = Instant::now();
        let flow = DialFlow::new(start);
        assert_eq!(flow.stalled_for(start), None);
        flow.set_stalled(Some(start));
        assert_eq!(flow.stalled_for(start + Duration::from_secs(3)), Some(Duration::from_secs(3)));
        flow.set_stalled(None);
        assert_eq!(flow.stalled_for(start), None);
    }
}
