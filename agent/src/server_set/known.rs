//! What an agent knows of its servers, and what it does next about the missing ones: a value. Time and randomness are
//! arguments.
//!
//! The rules are those of the reference (`pkg/agent/clientset.go`) with four improvements. A lost connection is
//! dialled again at once, the first time, and a server that drains is replaced while its dials run on. While servers
//! are still being discovered, attempts follow each other without wait and several run at once: behind a balancer that
//! chooses at random, 5 servers take 11 attempts, which are 11 s at one a second and some round trips so. And no wait
//! outlasts a change.
//!
//! Servers that are listed with addresses are dialled there (`listed.rs`), and are not looked for at random as long as
//! that may work.

use std::{collections::BTreeSet, time::Duration};

use konnectivity_transport::id::ServerId;
use tokio::time::Instant;

use super::listed::{Direct, Listed, Next, Told};
use crate::backoff::Backoff;

/// Attempts at once while more than one server is missing. Each has a socket of its own.
pub(super) const PARALLEL_ATTEMPTS: u32 = 4;

/// Attempts without wait that a newly found server allows while others are missing. 8 fail to find one of two missing
/// servers among five once in 60 times; then the search goes on at the normal pace. A lost server allows one only: when
/// a server dies, all agents look for it at once, and the others must bear their handshakes.
pub(super) const BURST: u32 = 8;

/// Servers that a wrong server count can make an agent look for.
const MOST_SERVERS: u32 = 1_024;

/// How long a new server's list is waited for before others are looked for at random. It comes right behind the
/// Welcome.
const LIST_WAIT: Duration = Duration::from_secs(1);

/// How long servers may take to notice that one of them is leaving: those that may not watch the leases list them every
/// 15 s. Until then the count is one too high, and a search would find nobody.
const LIST_LAG: Duration = Duration::from_secs(20);

/// Whose count of the servers is believed (`--server-count-source`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CountSource {
    /// That of the leases, where leases are counted.
    #[default]
    Leases,
    /// The higher one of theirs and the servers' own.
    Max,
}

/// What to do about the missing servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start so many attempts at the configured address now; they count as under way.
    Dial(u32),
    /// Start this attempt now; it counts as under way.
    DialListed(Direct),
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

/// A server that was reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Met<'m> {
    /// Who it is.
    pub(super) server_id: &'m ServerId,
    /// How many servers there are, as it says.
    pub(super) server_count: u32,
    /// Whether it sends a list of the servers right away.
    pub(super) lists_servers: bool,
    /// Who was looked for; `None`: anyone.
    pub(super) sought: Option<&'m Direct>,
}

/// The connected servers, how many there should be, and when to try next.
#[derive(Debug)]
pub(super) struct KnownServers {
    connected: BTreeSet<ServerId>,
    /// Those of them that will be gone soon: another server may be there in their place already.
    draining: BTreeSet<ServerId>,
    /// As the last new server, or the last list, said.
    server_count: u32,
    /// As the leases say; `None`: they are not counted, or not yet.
    lease_count: Option<u32>,
    source: CountSource,
    listed: Listed,
    /// No search before this instant, as long as any server is connected: a list is about to come.
    hold: Option<Instant>,
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
    pub(super) fn new(waits: Backoff, stable: Duration, sync_forever: bool, source: CountSource) -> Self {
        Self {
            connected: BTreeSet::new(),
            draining: BTreeSet::new(),
            server_count: 0,
            lease_count: None,
            source,
            listed: Listed::new(waits.clone()),
            hold: None,
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

    /// How many servers should be connected: what was last heard or counted, at least 1.
    pub(super) fn desired(&self) -> u32 {
        let count = match (self.lease_count, self.source) {
            (None, _) => self.server_count,
            (Some(leases), CountSource::Leases) => leases,
            (Some(leases), CountSource::Max) => leases.max(self.server_count),
        };
        count.clamp(1, MOST_SERVERS)
    }

    /// Servers that are connected and have not said that they go.
    fn lasting(&self) -> u32 {
        u32::try_from(self.connected.len() - self.draining.len()).unwrap_or(u32::MAX)
    }

    fn missing(&self) -> u32 {
        self.desired().saturating_sub(self.lasting())
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Instant) -> Action {
        let listed = match self.listed.next(now, &self.connected) {
            Next::Dial(direct) => return Action::DialListed(direct),
            Next::Wait(listed) => listed,
        };
        match (self.search(now), listed) {
            (Action::WaitUntil(instant), Some(listed)) => Action::WaitUntil(instant.min(listed)),
            (Action::Rest, Some(listed)) => Action::WaitUntil(listed),
            (action, _) => action,
        }
    }

    /// What to do at the configured address, which leads to any server.
    fn search(&mut self, now: Instant) -> Action {
        let alone = self.lasting() == 0;
        let hopes = if alone { 0 } else { self.listed.hopes(now, &self.connected) };
        let missing = self.missing().saturating_sub(hopes);
        if missing == 0 && !self.sync_forever {
            return Action::Rest;
        }
        let parallel = if missing > 1 { self.burst.clamp(1, PARALLEL_ATTEMPTS) } else { 1 };
        if self.attempts >= parallel {
            return Action::Rest;
        }
        // `None` is less than any instant.
        let hold = self.hold.filter(|_| !alone);
        if let Some(instant) = self.pace.max(self.back_off).max(hold).filter(|instant| *instant > now) {
            return Action::WaitUntil(instant);
        }
        let new = parallel - self.attempts;
        self.attempts += new;
        self.burst = self.burst.saturating_sub(new);
        Action::Dial(new)
    }

    /// An attempt has reached a server.
    pub(super) fn on_connected(&mut self, met: Met<'_>, now: Instant, random: f64) -> Verdict {
        let Met { server_id, server_count, lists_servers, sought } = met;
        let wait = self.attempted(sought, Some(server_id), now, random);
        if !self.connected.insert(server_id.clone()) {
            if self.burst == 0 && sought.is_none() {
                self.pace = Some(now + wait);
            }
            return Verdict::Duplicate;
        }
        self.listed.on_connected(server_id);
        // The reference believes a new server only; an old one may have been started with an older count.
        self.server_count = server_count;
        if lists_servers {
            self.hold = Some(now + LIST_WAIT);
        }
        if self.missing() > 0 {
            self.burst = BURST;
            self.pace = None;
        } else {
            self.burst = 0;
            self.pace = Some(now + wait);
        }
        Verdict::Keep
    }

    /// An attempt is over. The wait that a success leads to.
    fn attempted(
        &mut self,
        sought: Option<&Direct>,
        reached: Option<&ServerId>,
        now: Instant,
        random: f64,
    ) -> Duration {
        match sought {
            Some(direct) => self.listed.on_attempted(direct, reached, now, random),
            None => self.attempts = self.attempts.saturating_sub(1),
        }
        self.waits.success(random)
    }

    /// An attempt has failed.
    pub(super) fn on_failed(&mut self, sought: Option<&Direct>, now: Instant, random: f64) {
        match sought {
            Some(direct) => self.listed.on_attempted(direct, None, now, random),
            None => {
                self.attempts = self.attempts.saturating_sub(1);
                self.burst = 0;
                self.wait_for_backoff(now, random);
            }
        }
    }

    /// `from` has said which servers there are. An agent that has found all it knew of takes its time, up to the sync
    /// interval, with new ones: all agents are told at once.
    pub(super) fn on_servers(&mut self, from: &ServerId, told: &Told, now: Instant, random: f64) {
        // Who leaves is not told of changes any more.
        if self.draining.contains(from) || !self.connected.contains(from) {
            return;
        }
        let settled = self.missing() == 0;
        let soon = now + self.stable.mul_f64(random.clamp(0.0, 1.0));
        self.server_count = told.list.count;
        self.listed.hear(told, settled.then_some(soon));
        self.hold = None;
        if settled {
            self.pace = self.pace.max(Some(soon));
        }
    }

    /// So many leases are valid; `None`: nobody knows.
    pub(super) fn on_lease_count(&mut self, count: Option<u32>, now: Instant, random: f64) {
        let settled = self.missing() == 0;
        self.lease_count = count;
        if settled {
            // As above: every agent counts the same leases.
            self.pace = self.pace.max(Some(now + self.stable.mul_f64(random.clamp(0.0, 1.0))));
        }
    }

    /// `server_id` has said that it drains. As after a loss, one attempt need not wait: all agents are told at once.
    /// Where servers are listed, the others will say who is there instead, if anyone is.
    pub(super) fn on_draining(&mut self, server_id: &ServerId, now: Instant) {
        if !self.connected.contains(server_id) || !self.draining.insert(server_id.clone()) {
            return;
        }
        self.listed.leaves(server_id, now + LIST_LAG);
        if self.listed.heard() {
            self.hold = Some(now + LIST_LAG);
        } else {
            self.pace = None;
        }
    }

    /// The connection to `server_id` is gone after it has `lasted` so long.
    pub(super) fn on_lost(&mut self, server_id: &ServerId, lasted: Duration, now: Instant, random: f64) {
        self.connected.remove(server_id);
        let left = self.draining.remove(server_id);
        self.burst = 0;
        let stable = lasted >= self.stable;
        if !left {
            self.listed.on_lost(server_id, stable, now, random);
        }
        if left && self.lasting() > 0 {
            // It said so before, and what there was to do about it was done then.
        } else if stable {
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
