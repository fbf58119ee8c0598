//! The memory that unread bytes may take in the whole process, and who gives way when it is spent.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::flow::DialFlow;

/// A dial is ended for the sake of others only after its receiver has taken nothing for this long.
const EVICT_AFTER: Duration = Duration::from_secs(1);

/// Stalled dials are looked through at most this often: each look costs as much as there are dials.
const EVICT_PAUSE: Duration = Duration::from_secs(1);

/// The dials of one connection, by the number of their stream.
pub(crate) type Books = Mutex<HashMap<u64, Arc<DialFlow>>>;

/// Bytes by which all connections of the process together may raise their receive windows. It counts bytes that peers
/// may have sent and nobody has read; the buffers that hold them may be larger.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    books: Vec<Weak<Books>>,
    looked_at: Option<Instant>,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), members: Mutex::default() })
    }

    /// The whole budget in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if at least `spare` are left then.
    pub(crate) fn reserve(&self, bytes: u64, spare: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit.saturating_sub(spare));
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes the dials of a connection known for as long as it lives.
    pub(crate) fn enroll(&self, books: &Arc<Books>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.books.retain(|other| other.strong_count() > 0);
        members.books.push(Arc::downgrade(books));
    }

    /// Ends the `dials` that have been stalled longest, whichever connection carries them.
    pub(crate) fn evict(&self, dials: u64, now: Instant) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.looked_at.is_some_and(|at| now.saturating_duration_since(at) < EVICT_PAUSE) {
            return;
        }
        members.looked_at = Some(now);
        let mut stalled = Vec::new();
        for books in members.books.iter().filter_map(Weak::upgrade) {
            let books = books.lock().unwrap_or_else(PoisonError::into_inner);
            let long = books.values().filter_map(|flow| {
                let time = flow.stalled_for(now).filter(|time| *time >= EVICT_AFTER)?;
                Some((time, flow.clone()))
            });
            stalled.extend(long);
        }
        stalled.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (time, flow) in stalled.into_iter().take(usize::try_from(dials).unwrap_or(usize::MAX)) {
            tracing::warn!(
                stalled_seconds = time.as_secs_f64(),
                "the memory budget is spent: ending the dial whose receiver has been stalled longest; raise \
                 quic-memory-budget to allow more"
            );
            flow.evict();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stalled_dial_of_any_connection_gives_way() {
        let start = Instant::now();
        let budget = MemoryBudget::new(0);
        let flows: Vec<_> = (0..3).map(|_| Arc::new(DialFlow::new(start))).collect();
        let books: Vec<Arc<Books>> =
            flows.iter().map(|flow| Arc::new(Mutex::new(HashMap::from([(0, flow.clone())])))).collect();
        books.iter().for_each(|books| budget.enroll(books));
        flows[0].set_stalled(Some(start + Duration::from_secs(3)));
        flows[1].set_stalled(Some(start));
        let now = start + Duration::from_millis(3500);
        budget.evict(1, now);
        let evicted = || flows.iter().map(|flow| flow.is_evicted()).collect::<Vec<_>>();
        assert_eq!(evicted(), [false, true, false]);
        budget.evict(3, now + EVICT_PAUSE / 2);
        assert_eq!(evicted(), [false, true, false], "not again so soon");
        budget.evict(3, now + EVICT_PAUSE);
        assert_eq!(evicted(), [true, true, false], "a dial that is not stalled stays");
    }
}
