//! What an agent knows of its servers, and what it does next about the missing ones: a value. Time and randomness are
//! arguments.
//!
//! The rules are those of the reference (`pkg/agent/clientset.go`) with four improvements. A lost connection is
//! dialled again at once, the first time, and a server that drains is replaced while its dials run on. While servers are still being discovered, attempts follow each other without
//! wait and several run at once: behind a balancer that chooses at random, 5 servers take 11 attempts, which are 11 s
//! at one a second and some round trips so. And no wait outlasts a change.

use std::{collections::BTreeSet, time::Duration};

use konnectivity_transport::id::ServerId;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Attempts at once while more than one server is missing. Each has a socket of its own.
pub(super) const PARALLEL_ATTEMPTS: u32 = 4;

/// Attempts without wait that a newly found server allows while others are missing. 8 fail to find one of two missing
/// servers among five once in 60 times; then the search goes on at the normal pace. A lost server allows one only: when
/// a server dies, all agents look for it at once, and the others must bear their handshakes.
pub(super) const BURST: u32 = 8;

/// Servers that a wrong server count can make an agent look for.
const MOST_SERVERS: u32 = 1_024;

/// What to do about the missing servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Start so many attempts now; they count as under way.
    Dial(u32),
    /// Ask again at this instant, or after whatever happens before.
    WaitUntil(Instant),
    /// Ask again after something has happened.
    Rest,
}

/// What to do with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the only one to its server.
    Keep,
    /// The server has one already.
    Duplicate,
}

/// The connected servers, how many there should be, and when to try next.
#[derive(Debug)]
pub(super) struct KnownServers {
    connected: BTreeSet<ServerId>,
    /// Those of them that will be gone soon: another server may be there in their place already.
    draining: BTreeSet<ServerId>,
    /// As the last new server said.
    server_count: u32,
    sync_forever: bool,
    attempts: u32,
    /// Attempts left that need not wait.
    burst: u32,
    /// No attempt before this instant: the pace of a search that finds nothing new. A new server ends it.
    pace: Option<Instant>,
    /// No attempt before this instant: something has failed. Only the loss of a stable connection ends it.
    back_off: Option<Instant>,
    waits: Backoff,
    /// A connection that was lost sooner than this is no reason to hurry.
    stable: Duration,
}

impl KnownServers {
    pub(super) fn new(waits: Backoff, stable: Duration, sync_forever: bool) -> Self {
        Self {
            connected: BTreeSet::new(),
            draining: BTreeSet::new(),
            server_count: 0,
            sync_forever,
            attempts: 0,
            burst: 0,
            pace: None,
            back_off: None,
            waits,
            stable,
        }
    }

    /// The connected servers, in order.
    pub(super) fn connected(&self) -> impl Iterator<Item = &ServerId> {
        self.connected.iter()
    }

    /// How many servers should be connected: what was last heard, at least 1.
    pub(super) fn desired(&self) -> u32 {
        self.server_count.clamp(1, MOST_SERVERS)
    }

    fn missing(&self) -> u32 {
        let lasting = u32::try_from(self.connected.len() - self.draining.len()).unwrap_or(u32::MAX);
        self.desired().saturating_sub(lasting)
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Instant) -> Action {
        let missing = self.missing();
        if missing == 0 && !self.sync_forever {
            return Action::Rest;
        }
        let parallel = if missing > 1 { self.burst.clamp(1, PARALLEL_ATTEMPTS) } else { 1 };
        if self.attempts >= parallel {
            return Action::Rest;
        }
        // `None` is less than any instant.
        if let Some(instant) = self.pace.max(self.back_off).filter(|instant| *instant > now) {
            return Action::WaitUntil(instant);
        }
        let new = parallel - self.attempts;
        self.attempts += new;
        self.burst = self.burst.saturating_sub(new);
        Action::Dial(new)
    }

    /// An attempt has reached `server_id`, which says that there are `server_count` servers.
    pub(super) fn on_connected(
        &mut self,
        server_id: &ServerId,
        server_count: u32,
        now: Instant,
        random: f64,
    ) -> Verdict {
        self.attempts = self.attempts.saturating_sub(1);
        let wait = self.waits.success(random);
        if !self.connected.insert(server_id.clone()) {
            if self.burst == 0 {
                self.pace = Some(now + wait);
            }
            return Verdict::Duplicate;
        }
        // The reference believes a new server only; an old one may have been started with an older count.
        self.server_count = server_count;
        if self.missing() > 0 {
            self.burst = BURST;
            self.pace = None;
        } else {
            self.burst = 0;
            self.pace = Some(now + wait);
        }
        Verdict::Keep
    }

    /// An attempt has failed.
    pub(super) fn on_failed(&mut self, now: Instant, random: f64) {
        self.attempts = self.attempts.saturating_sub(1);
        self.burst = 0;
        self.wait_for_backoff(now, random);
    }

    /// `server_id` has said that it drains. As after a loss, one attempt need not wait: all agents are told at once.
    pub(super) fn on_draining(&mut self, server_id: &ServerId) {
        if self.connected.contains(server_id) && self.draining.insert(server_id.clone()) {
            self.pace = None;
        }
    }

    /// The connection to `server_id` is gone after it has `lasted` so long.
    pub(super) fn on_lost(&mut self, server_id: &ServerId, lasted: Duration, now: Instant, random: f64) {
        self.connected.remove(server_id);
        self.draining.remove(server_id);
        self.burst = 0;
        if lasted >= self.stable {
            self.pace = None;
            self.back_off = None;
        } else {
            // Servers that accept and hang up would otherwise be dialled in a circle.
            self.wait_for_backoff(now, random);
        }
    }

    /// Several failures at once, of attempts that ran side by side, are one step.
    fn wait_for_backoff(&mut self, now: Instant, random: f64) {
        if self.back_off.is_none_or(|instant| instant <= now) {
            self.back_off = Some(now + self.waits.next_error(random));
        }
    }
}

#[cfg(test)]
mod tests;
