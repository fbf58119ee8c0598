//! Keeps one connection to each server, behind one address and at those that servers name. What to do next is decided
//! by `known.rs` and `listed.rs`, values without socket or clock; this file is the loop around them.
//!
//! ```text
//!              +-- Dial --> attempt (Connector) --> Keep ------> serve until lost ----------+
//! known::next -+                               \-> Duplicate --> close                      |
//!      ^       +-- WaitUntil / Rest                                                         |
//!      +------- connected, failed, server drains, servers listed or counted, lost; drain, stop
//! ```

mod connector;
mod known;
mod listed;
mod notice;

use std::{collections::HashMap, sync::Arc, time::Duration};

use konnectivity_transport::{error::with_sources, id::ServerId};
use tokio::{
    sync::watch,
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    connector::{Connection, Connector, Towards},
    known::CountSource,
    listed::{Direct, Told},
};
use self::{
    known::{Action, KnownServers, Met, Verdict},
    notice::{Notice, next_count, next_list},
};
use crate::backoff::Backoff;

/// How [`run`] behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSetSettings {
    /// First wait after a failure, and the wait after a duplicate (`--sync-interval`).
    pub sync_interval: Duration,
    /// Longest wait after a failure, before jitter (`--sync-interval-cap`).
    pub sync_interval_cap: Duration,
    /// Whether to go on dialling when all servers are connected, in order to discover more (`--sync-forever`).
    pub sync_forever: bool,
    /// Whose count of the servers is believed (`--server-count-source`).
    pub count_source: CountSource,
    /// Time limit of one attempt. A server that accepts and never says who it is must not hold up the others.
    pub attempt_limit: Duration,
}

/// What [`run`] knows, for readiness and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSetStatus {
    /// The servers that are connected, in order.
    pub connected: Vec<ServerId>,
    /// How many there should be; at least 1 once the loop runs.
    pub desired: u32,
    /// Why the last attempt failed. `None` after a success.
    pub last_failure: Option<String>,
}

/// Connects to every server and reconnects to lost ones, until `drain` or `stop`.
///
/// After `drain` no attempt is made and those under way are dropped; connections go on until they end by themselves.
/// After `stop` the same, with the difference that connections are expected to end at once. Either takes effect in
/// the midst of a wait. Returns when no connection is left.
///
/// `leases` is how many leases of servers are valid, `None` as long as nobody knows.
///
/// # Cancel safety
/// Dropping the future drops attempts and connections where they stand.
pub async fn run<C: Connector>(
    settings: ServerSetSettings,
    connector: Arc<C>,
    leases: watch::Receiver<Option<u32>>,
    drain: CancellationToken,
    stop: CancellationToken,
    status: watch::Sender<ServerSetStatus>,
) {
    let backoff = Backoff::new(settings.sync_interval, settings.sync_interval_cap);
    let mut set = ServerSet {
        known: KnownServers::new(backoff, settings.sync_interval, settings.sync_forever, settings.count_source),
        connector,
        attempt_limit: settings.attempt_limit,
        leases: Some(leases),
        attempts: JoinSet::new(),
        towards: HashMap::new(),
        connections: JoinSet::new(),
        notices: JoinSet::new(),
        serving: HashMap::new(),
        status,
    };
    set.keep(&drain, &stop).await;
    set.wait_for_connections().await;
}

struct ServerSet<C: Connector> {
    known: KnownServers,
    connector: Arc<C>,
    attempt_limit: Duration,
    /// `None`: nobody counts any more, or ever did.
    leases: Option<watch::Receiver<Option<u32>>>,
    attempts: JoinSet<Result<C::Connection, String>>,
    /// Where each attempt goes.
    towards: HashMap<task::Id, Towards>,
    /// Tasks that serve connections, or close duplicates.
    connections: JoinSet<()>,
    /// Tasks that wait for a server to say something.
    notices: JoinSet<(ServerId, Notice)>,
    /// What is known of a task that serves a connection.
    serving: HashMap<task::Id, Serving>,
    status: watch::Sender<ServerSetStatus>,
}

struct Serving {
    server_id: ServerId,
    since: Instant,
    waits_for_drain: AbortHandle,
    waits_for_list: AbortHandle,
}

impl<C: Connector> ServerSet<C> {
    /// The loop. Returns when the process drains or stops.
    async fn keep(&mut self, drain: &CancellationToken, stop: &CancellationToken) {
        loop {
            self.publish();
            let wake_up = match self.known.next(Instant::now()) {
                Action::Dial(attempts) => {
                    (0..attempts).for_each(|_| self.attempt(Towards::Any));
                    continue;
                }
                Action::DialListed(direct) => {
                    self.attempt(Towards::Listed(direct));
                    continue;
                }
                Action::WaitUntil(instant) => Some(instant),
                Action::Rest => None,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = drain.cancelled() => break,
                Some(attempt) = self.attempts.join_next_with_id() => self.attempted(attempt),
                Some(ended) = self.connections.join_next_with_id() => self.ended(ended),
                // Those that wait no longer were told to.
                Some(notice) = self.notices.join_next() => if let Ok((server_id, notice)) = notice {
                    self.noticed(server_id, notice);
                },
                count = next_count(&mut self.leases) => {
                    self.known.on_lease_count(count, Instant::now(), rand::random());
                }
                () = sleep_until(wake_up.unwrap_or_else(Instant::now)), if wake_up.is_some() => {}
            }
        }
        self.attempts.shutdown().await;
    }

    async fn wait_for_connections(&mut self) {
        self.publish();
        while let Some(ended) = self.connections.join_next_with_id().await {
            self.ended(ended);
            self.publish();
        }
    }

    fn attempt(&mut self, towards: Towards) {
        let connector = self.connector.clone();
        let limit = self.attempt_limit;
        let there = towards.clone();
        let attempt = self.attempts.spawn(async move {
            match timeout(limit, connector.connect(&there)).await {
                Ok(result) => result.map_err(|error| with_sources(&error)),
                Err(_elapsed) => Err(format!("no answer from the server within {limit:?}")),
            }
        });
        self.towards.insert(attempt.id(), towards);
    }

    fn attempted(&mut self, attempt: Result<(task::Id, Result<C::Connection, String>), JoinError>) {
        let now = Instant::now();
        let (id, attempt) = attempt.unwrap_or_else(|panic| (panic.id(), Err(panic.to_string())));
        let towards = self.towards.remove(&id).unwrap_or(Towards::Any);
        let failure = match attempt {
            Ok(connection) => {
                self.connected(connection, &towards, now);
                None
            }
            Err(failure) => {
                self.known.on_failed(towards.direct(), now, rand::random());
                match &towards {
                    Towards::Any => tracing::warn!(error = failure, "cannot connect to a server"),
                    Towards::Listed(Direct { server_id, .. }) => {
                        tracing::warn!(%server_id, error = failure, "cannot connect to a server at its own address");
                    }
                }
                Some(failure)
            }
        };
        self.status.send_if_modified(|status| {
            let changed = status.last_failure != failure;
            status.last_failure = failure;
            changed
        });
    }

    fn connected(&mut self, connection: C::Connection, towards: &Towards, now: Instant) {
        let server_id = connection.server_id().clone();
        let count = connection.server_count();
        let met = Met {
            server_id: &server_id,
            server_count: count,
            lists_servers: connection.lists_servers(),
            sought: towards.direct(),
        };
        match self.known.on_connected(met, now, rand::random()) {
            Verdict::Keep => {
                tracing::info!(%server_id, server_count = count, "connected to a server");
                let (drains, id) = (connection.server_drains(), server_id.clone());
                let waits_for_drain = self.notices.spawn(async move {
                    drains.cancelled().await;
                    (id, Notice::Drains)
                });
                let waits_for_list = self.wait_for_list(server_id.clone(), connection.servers());
                let task = self.connections.spawn(connection.serve());
                let serving = Serving { server_id, since: now, waits_for_drain, waits_for_list };
                self.serving.insert(task.id(), serving);
            }
            Verdict::Duplicate => {
                tracing::debug!(%server_id, "closing a second connection to a server");
                self.connections.spawn(connection.close_duplicate());
            }
        }
    }

    fn wait_for_list(&mut self, server_id: ServerId, lists: watch::Receiver<Option<Arc<Told>>>) -> AbortHandle {
        self.notices.spawn(async move { (server_id, next_list(lists).await) })
    }

    fn noticed(&mut self, server_id: ServerId, notice: Notice) {
        match notice {
            Notice::Drains => self.known.on_draining(&server_id, Instant::now()),
            Notice::Servers(told, next) => {
                let (count, listed) = (told.list.count, told.list.servers.len());
                tracing::debug!(%server_id, count, listed, "a server lists the servers");
                self.known.on_servers(&server_id, &told, Instant::now(), rand::random());
                // Its connection may have ended meanwhile; then the next list never comes.
                let waits = self.wait_for_list(server_id.clone(), next);
                match self.serving.values_mut().find(|serving| serving.server_id == server_id) {
                    Some(serving) => serving.waits_for_list = waits,
                    None => waits.abort(),
                }
            }
            Notice::Nothing => {}
        }
    }

    fn ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(panic) => {
                tracing::error!(error = %panic, "a connection ended by a panic");
                panic.id()
            }
        };
        // A duplicate that has been closed serves nobody.
        if let Some(Serving { server_id, since, waits_for_drain, waits_for_list }) = self.serving.remove(&id) {
            waits_for_drain.abort();
            waits_for_list.abort();
            let lasted = since.elapsed();
            tracing::info!(%server_id, ?lasted, "connection to a server ended");
            self.known.on_lost(&server_id, lasted, Instant::now(), rand::random());
        }
    }

    fn publish(&self) {
        self.status.send_if_modified(|status| {
            let desired = self.known.desired();
            let same = status.desired == desired && self.known.connected().eq(&status.connected);
            if !same {
                status.desired = desired;
                status.connected = self.known.connected().cloned().collect();
            }
            !same
        });
    }
}

#[cfg(test)]
mod tests;
