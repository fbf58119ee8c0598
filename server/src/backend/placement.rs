//! On which worker a connection of an agent is carried, whatever it came over.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::worker::Worker;

/// Numbers connections and spreads them over the workers.
#[derive(Debug)]
pub struct Placement {
    workers: Arc<[Worker]>,
    loads: Vec<Arc<AtomicUsize>>,
    connections: AtomicU64,
}

/// The place of one connection, for as long as it is kept.
#[derive(Debug)]
pub struct Place {
    /// What carries it.
    pub worker: Worker,
    /// Which connection of this process it is, from 1.
    pub number: u64,
    _load: Load,
}

impl Placement {
    /// Spreads over these workers.
    pub fn new(workers: Arc<[Worker]>) -> Arc<Self> {
        let loads = workers.iter().map(|_| Arc::default()).collect();
        Arc::new(Self { workers, loads, connections: AtomicU64::new(0) })
    }

    /// A place on the worker that has the fewest connections; `None` without workers.
    pub fn next(&self) -> Option<Place> {
        let load = |worker: &&Worker| self.loads[worker.index()].load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(load)?.clone();
        let number = self.number();
        let load = Load::add(&self.loads[worker.index()]);
        Some(Place { worker, number, _load: load })
    }

    /// A number that no connection of this process has.
    pub fn number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Counts a connection on its worker.
#[derive(Debug)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn add(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
