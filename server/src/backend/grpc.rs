//! Agents of the reference: `AgentService/Connect` over TCP with TLS, all dials of an agent on one stream of packets
//! (compat 1 and 2).
//!
//! ```text
//! connection (HTTP/2, PINGs) -- rpc -- read:  stream -> packets -> mux, requests
//!                                  \-- write: requests, mux -> stream
//! dial -- agent -- requests (asked, not answered) -- mux (connected)
//! ```

pub mod agent;
mod connection;
mod credit;
mod hello;
mod packets;
pub mod requests;
mod rpc;
mod stream;

use std::{sync::Arc, time::Duration};

use konnectivity_transport::{budget::MemoryBudget, id::ServerId, mux::MuxSettings};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Backend, placement::Placement, registry::Registry};
use crate::{
    accept::{
        listener::{Listener, ListenerCounts},
        stream::PeerStream,
    },
    auth::Authentication,
    membership::Membership,
    metrics::Metrics,
};

/// What all agents over gRPC share.
pub struct Port {
    /// Who we say we are.
    pub server_id: ServerId,
    /// How many servers we say there are.
    pub membership: Membership,
    /// Where agents are registered.
    pub registry: Arc<Registry<Backend>>,
    /// Where connections are placed.
    pub placement: Arc<Placement>,
    /// How dials share a stream.
    pub mux: MuxSettings,
    /// What pays for what dials do not take.
    pub budget: Arc<MemoryBudget>,
    /// How long nothing may come from an agent until it is pinged.
    pub keep_alive: Duration,
    /// Who may be an agent.
    pub authentication: Arc<Authentication>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server drains: no more agents are accepted, and those without a dial are let go.
    pub drain: CancellationToken,
    /// Cancelled when agents are to be let go, dials or not.
    pub close: CancellationToken,
}

impl Port {
    /// Accepts until the server drains. Each connection is placed on the worker that has the fewest.
    pub async fn run(self: Arc<Self>, listener: Listener, counts: &ListenerCounts) {
        let on_agent = |stream: PeerStream| self.clone().place(stream);
        if let Err(error) = listener.run(self.drain.clone(), counts, on_agent).await {
            tracing::error!(%error, "the TCP port for agents cannot be served");
        }
    }

    fn place(self: Arc<Self>, stream: PeerStream) {
        let Some(place) = self.placement.next() else { return };
        let remote = match stream.peer() {
            Ok(remote) => remote,
            // It is gone already.
            Err(error) => return tracing::debug!(%error, "an agent left at once"),
        };
        let span = tracing::info_span!("connection", number = place.number, remote_addr = %remote);
        let worker = place.worker.clone();
        if worker.is_current() {
            return worker.spawn(connection::serve(stream, remote, place, self).instrument(span));
        }
        let stream = match stream.detach() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "an agent cannot be handed over"),
        };
        let serve = async move {
            match stream.attach() {
                Ok(stream) => connection::serve(stream, remote, place, self).await,
                Err(error) => tracing::warn!(%error, "an agent cannot be handed over"),
            }
        };
        worker.spawn(serve.instrument(span));
    }
}
