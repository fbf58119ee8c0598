//! One connected agent, as a handle for dials.

pub mod acceptor;
pub mod carrier;
pub mod grpc;
pub mod placement;
pub mod registry;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use konnectivity_transport::{id::AgentId, identifier::Identifiers};

use self::{carrier::Carrier, registry::BackendView};
use crate::worker::Worker;

/// One connection of an agent.
#[derive(Debug)]
pub struct Backend {
    /// Shared with the records of its dials.
    agent_id: Arc<str>,
    identifiers: Identifiers,
    number: u64,
    carrier: Carrier,
    worker: Worker,
    draining: AtomicBool,
}

impl Backend {
    /// The `number`th connection of this process, on the worker that carries it.
    pub fn new(agent_id: &AgentId, identifiers: Identifiers, number: u64, carrier: Carrier, worker: Worker) -> Self {
        Self {
            agent_id: agent_id.as_str().into(),
            identifiers,
            number,
            carrier,
            worker,
            draining: AtomicBool::new(false),
        }
    }

    /// The agent's id, to keep.
    pub fn name(&self) -> Arc<str> {
        self.agent_id.clone()
    }

    /// What takes dials to the agent.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Where its dials run.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Which connection of this process it is; tells two connections of one agent apart.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// No new dials, unless no other backend can take them (compat 4.3). Whether that is news.
    pub fn drain(&self) -> bool {
        !self.draining.swap(true, Ordering::Relaxed)
    }
}

impl BackendView for Backend {
    fn agent_id(&self) -> &str {
        &self.agent_id
    }

    fn identifiers(&self) -> &Identifiers {
        &self.identifiers
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn is_in_doubt(&self) -> bool {
        self.carrier.is_in_doubt()
    }

    fn open_dials(&self) -> usize {
        self.carrier.open_dials()
    }
}
