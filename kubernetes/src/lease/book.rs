//! Which leases count: a value. Time is an argument.
//!
//! A lease says when it was renewed by its holder's clock, which may be minutes off. So that is believed only where
//! nothing better is known: when a lease is seen for the first time. From then on it counts as long as it is seen to
//! change: for its duration after each renewal, by the clock of whoever looks. Clients of leases for leader election do
//! the same.
//!
//! While the API cannot be asked, nobody can tell who renews: time stands still, and what counted goes on counting.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::record::{NAME_PREFIX, ServerLease};

/// Most leases that are looked at. A selector that takes in more than the servers' must not fill the memory.
const MOST_LEASES: usize = 1_024;

/// When a lease that does not say for how long it counts may be removed.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);

/// All leases that there are, as far as they have been seen.
#[derive(Debug, Default)]
pub struct LeaseBook {
    entries: BTreeMap<String, Entry>,
    /// Since when the API has not been heard.
    away_since: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    lease: ServerLease,
    /// It counts until then. `None`: it does not.
    valid_until: Option<Instant>,
    unchanged_since: Instant,
}

impl LeaseBook {
    /// These are all leases now. `wall` is the time of day here.
    pub fn list(&mut self, leases: impl IntoIterator<Item = ServerLease>, now: Instant, wall: SystemTime) {
        if let Some(since) = self.away_since.take() {
            let away = now.saturating_duration_since(since);
            for entry in self.entries.values_mut() {
                entry.valid_until = entry.valid_until.map(|end| end + away);
                entry.unchanged_since += away;
            }
        }
        let mut before = std::mem::take(&mut self.entries);
        for lease in leases.into_iter().take(MOST_LEASES) {
            let entry = match before.remove(&lease.name) {
                Some(entry) => entry.seen(lease, now),
                None => {
                    let valid_until = remaining(&lease, wall).map(|remaining| now + remaining);
                    Entry { lease, valid_until, unchanged_since: now }
                }
            };
            self.entries.insert(entry.lease.name.clone(), entry);
        }
    }

    /// A lease has been created or written just now.
    pub fn change(&mut self, lease: ServerLease, now: Instant) {
        let entry = match self.entries.remove(&lease.name) {
            Some(entry) => entry.seen(lease, now),
            None if self.entries.len() >= MOST_LEASES => return,
            None => Entry { valid_until: renewed(&lease, now), lease, unchanged_since: now },
        };
        self.entries.insert(entry.lease.name.clone(), entry);
    }

    /// A lease has been deleted.
    pub fn delete(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// The API cannot be asked; it was last heard at this instant.
    pub fn lost(&mut self, last_heard: Instant) {
        self.away_since.get_or_insert(last_heard);
    }

    /// The API could be asked all the time: it was something else that was lost, and time has not stood still.
    pub fn was_there(&mut self) {
        self.away_since = None;
    }

    /// The leases that count, by name.
    pub fn valid(&self, now: Instant) -> impl Iterator<Item = &ServerLease> {
        let now = self.away_since.unwrap_or(now);
        self.entries.values().filter(move |entry| entry.is_valid(now)).map(|entry| &entry.lease)
    }

    /// When the next lease stops counting, unless it is renewed.
    pub fn next_expiry(&self, now: Instant) -> Option<Instant> {
        match self.away_since {
            Some(_) => None,
            None => {
                self.entries.values().filter(|entry| entry.is_valid(now)).filter_map(|entry| entry.valid_until).min()
            }
        }
    }

    /// Leases of servers that have not been renewed for all of their duration while they were looked at. That is sure
    /// even where clocks differ, so that such a lease may be removed.
    pub fn abandoned(&self, now: Instant) -> Vec<ServerLease> {
        if self.away_since.is_some() {
            return Vec::new();
        }
        let abandoned = self.entries.values().filter(|Entry { lease, unchanged_since, .. }| {
            let duration = lease.duration.unwrap_or(DEFAULT_DURATION);
            lease.name.starts_with(NAME_PREFIX) && unchanged_since.checked_add(duration).is_some_and(|end| end <= now)
        });
        abandoned.map(|entry| entry.lease.clone()).collect()
    }

    /// Leases that never count, because they do not say for how long.
    pub fn without_duration(&self) -> impl Iterator<Item = &ServerLease> {
        self.entries.values().map(|entry| &entry.lease).filter(|lease| lease.duration.is_none())
    }
}

impl Entry {
    /// The lease as it is now. Only a renewal makes it count for longer.
    fn seen(self, lease: ServerLease, now: Instant) -> Self {
        if self.lease.renewed == lease.renewed && self.lease.duration == lease.duration {
            return Self { lease, ..self };
        }
        Self { valid_until: renewed(&lease, now), lease, unchanged_since: now }
    }

    fn is_valid(&self, now: Instant) -> bool {
        self.valid_until.is_some_and(|end| end > now)
    }
}

/// Until when a lease counts that was renewed just now.
fn renewed(lease: &ServerLease, now: Instant) -> Option<Instant> {
    lease.renewed.and(lease.duration).and_then(|duration| now.checked_add(duration))
}

/// How long a lease still counts by what it says itself. No longer than its duration, if its clock is ahead.
fn remaining(lease: &ServerLease, wall: SystemTime) -> Option<Duration> {
    let (renewed, duration) = (lease.renewed?, lease.duration?);
    let end = renewed.checked_add(duration)?;
    let remaining = end.duration_since(wall).ok()?;
    Some(remaining.min(duration)).filter(|remaining| !remaining.is_zero())
}

#[cfg(test)]
mod tests;
