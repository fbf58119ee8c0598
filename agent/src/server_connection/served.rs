//! Which connections serve now, since when and why: for metrics, readiness and the admin port.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use konnectivity_process::{
    connections::{ConnectionFacts, GrpcFacts},
    metrics::Counted,
    utc::Utc,
};
use konnectivity_transport::{
    connection::{Connection, ConnectionStats},
    id::ServerId,
};

use tokio::time::Instant;

use super::choice::{Transport, Why};
use crate::metrics::Metrics;

/// What can be asked of a connection while it serves.
#[derive(Clone)]
pub enum Handle {
    /// One over QUIC.
    Quic(Connection),
    /// One over gRPC; how it is, but for its age.
    Grpc(Arc<dyn Fn() -> GrpcFacts + Send + Sync>),
}

/// Every connection that serves.
pub struct Served {
    metrics: Arc<Metrics>,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    server_id: ServerId,
    transport: Transport,
    handle: Handle,
    since: SystemTime,
    begun: Instant,
    why: String,
    /// What is done to come back to QUIC.
    back: Back,
    /// Whether another connection has taken over.
    moved: bool,
    _counted: Counted,
}

/// What an agent on gRPC does to come back to QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Nothing.
    No,
    /// It is trying.
    Trying,
    /// It tries at this moment.
    At(Instant),
}

impl Served {
    /// Nothing serves.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, list: Mutex::default() }
    }

    /// A connection to a server begins to serve, until the guard is dropped.
    pub fn begin(self: &Arc<Self>, server_id: &ServerId, transport: Transport, handle: Handle, why: &Why) -> InUse {
        let entry = Entry {
            server_id: server_id.clone(),
            transport,
            handle,
            since: SystemTime::now(),
            begun: Instant::now(),
            // A peer has a say in it, and each server has one line.
            why: why.text.replace(char::is_control, " "),
            back: Back::No,
            moved: false,
            _counted: self.metrics.server_transport(transport, why.reason),
        };
        let mut list = self.list();
        let number = list.next;
        list.next += 1;
        list.entries.insert(number, entry);
        InUse { served: self.clone(), number }
    }

    /// The connections over QUIC, with their servers.
    pub fn quic(&self) -> Vec<(ServerId, Connection)> {
        let list = self.list();
        let quic = list.entries.values().filter_map(|entry| match &entry.handle {
            Handle::Quic(connection) => Some((entry.server_id.clone(), connection.clone())),
            Handle::Grpc(_) => None,
        });
        quic.collect()
    }

    /// State of each connection over QUIC, by the id of its server.
    pub fn quic_stats(&self) -> Vec<(Vec<String>, ConnectionStats)> {
        self.quic().into_iter().map(|(id, connection)| (vec![id.to_string()], connection.stats())).collect()
    }

    /// All connections for the admin port's page.
    pub fn facts(&self) -> Vec<ConnectionFacts> {
        let fact = |entry: &Entry| match &entry.handle {
            Handle::Quic(connection) => {
                ConnectionFacts::new(entry.server_id.to_string(), entry.moved, &connection.stats())
            }
            Handle::Grpc(facts) => {
                let facts = GrpcFacts { age: entry.begun.elapsed(), ..facts() };
                ConnectionFacts::over_grpc(entry.server_id.to_string(), entry.moved, &facts)
            }
        };
        self.list().entries.values().map(fact).collect()
    }

    /// A line for each server: `server a over grpc since 2026-01-01T00:00:00Z (why; next try in 30s)`.
    pub fn lines(&self) -> Vec<String> {
        self.list().entries.values().filter(|entry| !entry.moved).map(ToString::to_string).collect()
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_id, transport, why, .. } = self;
        write!(formatter, "server {server_id} over {transport} since {} ({why}", Utc::new(self.since).rfc3339())?;
        match self.back {
            Back::No => {}
            Back::Trying => formatter.write_str("; trying QUIC now")?,
            Back::At(moment) => {
                let seconds = moment.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                write!(formatter, "; next try in {seconds:.0}s")?;
            }
        }
        formatter.write_str(")")
    }
}

/// Says that a connection serves. Dropping it says that it does no more.
pub struct InUse {
    served: Arc<Served>,
    number: u64,
}

impl InUse {
    /// What is done to come back to QUIC.
    pub fn back(&self, back: Back) {
        self.change(|entry| entry.back = back);
    }

    /// Another connection has taken over; this one serves its last dials.
    pub fn moved(&self) {
        self.change(|entry| entry.moved = true);
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.served.list().entries.get_mut(&self.number) {
            change(entry);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.served.list().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
