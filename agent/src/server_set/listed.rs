//! The servers whose own addresses are known, and when each of them is dialled there: a value. Time and randomness are
//! arguments.
//!
//! The last list that any server has sent is what counts. A server that is not in it any more is forgotten; one that
//! does not answer is tried again with growing waits for as long as it is listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use konnectivity_transport::{
    id::ServerId,
    server_list::{ServerAddress, ServerList},
};
use tokio::time::Instant;

use crate::backoff::Backoff;

/// Direct attempts at once.
pub(super) const PARALLEL_DIRECT: usize = 4;

/// For so long an attempt at a server's own address keeps the agent from looking for the same server at random. An
/// answer takes two round trips; a dead address is silent for ten seconds.
pub(super) const HOPE: Duration = Duration::from_secs(3);

/// What a server has said of all servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The servers.
    pub list: ServerList,
    /// Where the server that said so is, as this end sees it.
    pub via: IpAddr,
}

/// A server to be dialled at its own addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// Who should be there.
    pub server_id: ServerId,
    /// Never empty.
    pub addresses: Arc<[ServerAddress]>,
    /// Where the server is that has named them.
    pub via: IpAddr,
}

/// What to do about listed servers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start this attempt now; it counts as under way.
    Dial(Direct),
    /// Ask again at this instant, if there is one, or after whatever happens before.
    Wait(Option<Instant>),
}

/// The listed servers that have addresses.
#[derive(Debug)]
pub(super) struct Listed {
    servers: BTreeMap<ServerId, Entry>,
    /// Attempts under way, also those at addresses that are listed no more.
    under_way: usize,
    waits: Backoff,
    heard: bool,
}

#[derive(Debug)]
struct Entry {
    direct: Direct,
    waits: Backoff,
    not_before: Option<Instant>,
    /// When the attempt under way has begun.
    since: Option<Instant>,
    /// Whether the last attempt has failed.
    failed: bool,
}

impl Listed {
    /// Nothing is listed. `waits` are those after failures.
    pub(super) fn new(waits: Backoff) -> Self {
        Self { servers: BTreeMap::new(), under_way: 0, waits, heard: false }
    }

    /// Whether there is a list, if only an empty one.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// A list that replaces the one before. Servers that are new in it are not dialled before `not_before`.
    pub(super) fn hear(&mut self, told: &Told, not_before: Option<Instant>) {
        self.heard = true;
        let mut before = std::mem::take(&mut self.servers);
        for server in told.list.servers.iter().filter(|server| !server.addresses.is_empty()) {
            let entry = match before.remove(&server.id) {
                Some(entry) if entry.direct.addresses == server.addresses => entry,
                _ => Entry {
                    direct: Direct { server_id: server.id.clone(), addresses: server.addresses.clone(), via: told.via },
                    waits: self.waits.clone(),
                    not_before,
                    since: None,
                    failed: false,
                },
            };
            self.servers.insert(server.id.clone(), entry);
        }
    }

    /// The server goes, by its own word. A list that is still there at `not_before` is one that does not change, and it
    /// may have returned.
    pub(super) fn leaves(&mut self, server_id: &ServerId, not_before: Instant) {
        if let Some(entry) = self.servers.get_mut(server_id) {
            entry.failed = true;
            entry.not_before = Some(not_before);
        }
    }

    /// What to do now about those that are not `connected`.
    pub(super) fn next(&mut self, now: Instant, connected: &BTreeSet<ServerId>) -> Next {
        let mut wait = None;
        for entry in missing(&mut self.servers, connected) {
            let instant = match (entry.since, entry.not_before) {
                (Some(since), _) => since + HOPE,
                (None, Some(instant)) if instant > now => instant,
                (None, _) if self.under_way < PARALLEL_DIRECT => {
                    self.under_way += 1;
                    entry.since = Some(now);
                    return Next::Dial(entry.direct.clone());
                }
                (None, _) => continue,
            };
            if instant > now {
                wait = Some(wait.map_or(instant, |earliest: Instant| earliest.min(instant)));
            }
        }
        Next::Wait(wait)
    }

    /// How many that are not `connected` are likely to be reached at their own addresses soon.
    pub(super) fn hopes(&mut self, now: Instant, connected: &BTreeSet<ServerId>) -> u32 {
        let hopeful = |entry: &&mut Entry| !entry.failed && entry.since.is_none_or(|since| since + HOPE > now);
        u32::try_from(missing(&mut self.servers, connected).filter(hopeful).count()).unwrap_or(u32::MAX)
    }

    /// A server is connected, however it was found.
    pub(super) fn on_connected(&mut self, server_id: &ServerId) {
        if let Some(entry) = self.servers.get_mut(server_id) {
            entry.waits = self.waits.clone();
            entry.not_before = None;
            entry.failed = false;
        }
    }

    /// An attempt has ended: it has reached a server, the one that was sought or another one, or nobody.
    pub(super) fn on_attempted(&mut self, sought: &Direct, reached: Option<&ServerId>, now: Instant, random: f64) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(entry) = self.servers.get_mut(&sought.server_id) else { return };
        if entry.direct.addresses != sought.addresses {
            return;
        }
        entry.since = None;
        if reached != Some(&sought.server_id) {
            entry.failed = true;
            entry.not_before = Some(now + entry.waits.next_error(random));
        }
    }

    /// The connection to a server is gone. After a `stable` one it is dialled again at once.
    pub(super) fn on_lost(&mut self, server_id: &ServerId, stable: bool, now: Instant, random: f64) {
        if let Some(entry) = self.servers.get_mut(server_id) {
            entry.not_before = (!stable).then(|| now + entry.waits.next_error(random));
        }
    }
}

fn missing<'e>(
    servers: &'e mut BTreeMap<ServerId, Entry>,
    connected: &BTreeSet<ServerId>,
) -> impl Iterator<Item = &'e mut Entry> {
    servers.iter_mut().filter(|(id, _)| !connected.contains(*id)).map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests;
