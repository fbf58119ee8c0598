//! A connection to a server over gRPC: the service by which the reference's agents serve, `AgentService/Connect`, as a
//! client of TCP, TLS and HTTP/2 (compat 1.3 to 1.6, 2, and 6).
//!
//! ```text
//! connect (TCP, http_proxy, TLS, HTTP/2, RPC) --> stream (packets in and out, PINGs) <--> mux (one order for all dials)
//!                                                    |                                        |
//!                                                    +--> dials (DIAL_REQ: target) --> relay -+
//! ```

mod connect;
mod dials;
mod held_back;
mod http_proxy;
mod lost;
mod rpc;
mod status;
mod stream;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use konnectivity_process::{proxy_environment::HttpProxy, reload::Current};
use konnectivity_transport::{
    budget::MemoryBudget,
    id::{AgentId, ServerId},
    mux::{Mux, MuxSettings},
    packet::Packet,
};
use tokio_util::sync::CancellationToken;

use self::{
    connect::Carrier,
    dials::{Incoming, Pending},
    rpc::Answer,
    stream::Terms,
};
pub use self::{connect::GrpcConnectError, lost::GrpcLost};
use crate::{dial::Dials, token::TokenFile};

/// What connections over gRPC have in common.
pub struct GrpcConnector {
    /// How the server is checked and what it is shown. Its ALPN names end with `h2`.
    pub tls: Current<rustls::ClientConfig>,
    /// The servers' name or address, without brackets: what their certificates must have.
    pub host: String,
    /// Their TCP port.
    pub port: u16,
    /// The HTTP proxy that leads there, if one does.
    pub proxy: Option<HttpProxy>,
    /// Who this agent says it is.
    pub agent_id: AgentId,
    /// What it says it can reach, URL-encoded.
    pub identifiers: String,
    /// The token that is shown, if any.
    pub token: Option<TokenFile>,
    /// Silence after which a server is asked for a sign of life. Servers of the reference do not like to be asked often.
    pub keep_alive: Duration,
    /// How dials share a connection.
    pub mux: MuxSettings,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// The last conn id that was given out. One for the process: servers of the reference know a connection by agent id
    /// and conn id, whichever stream it is of.
    pub next_connect_id: Arc<AtomicI64>,
}

/// Where conn ids begin. At a place of its own for each process: two agents with one id, as there may be for a moment when
/// one replaces the other, would have the same numbers, and a server of the reference would mix up their connections.
pub fn first_connect_id() -> Arc<AtomicI64> {
    // 16 million numbers at one of 16 million places.
    let place = i64::from(rand::random::<u32>() >> 8);
    Arc::new(AtomicI64::new(place << 24))
}

impl GrpcConnector {
    /// Whose addresses are to be connected to: the servers' host and port, or their proxy's.
    pub fn first_hop(&self) -> (&str, u16) {
        self.proxy.as_ref().map_or((&self.host, self.port), |proxy| (&proxy.host, proxy.port))
    }
}

/// A connection whose server has said who it is.
pub struct GrpcConnection {
    server_id: ServerId,
    server_count: u32,
    remote: SocketAddr,
    keep_alive: Duration,
    mux: Mux,
    pending: Pending,
    next_connect_id: Arc<AtomicI64>,
    /// Taken by [`Self::serve`].
    carrier: Mutex<Option<Carrier>>,
    drained: AtomicBool,
    closing: CancellationToken,
    server_drains: CancellationToken,
}

impl GrpcConnection {
    /// Connects to `remote`, an address of [`GrpcConnector::first_hop`], and waits until the server has said who it is.
    ///
    /// # Errors
    /// [`GrpcConnectError`], within [`HANDSHAKE_LIMIT`](konnectivity_transport::endpoint::HANDSHAKE_LIMIT) and
    /// [`HELLO_LIMIT`](konnectivity_transport::control::HELLO_LIMIT).
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn connect(connector: &GrpcConnector, remote: SocketAddr) -> Result<Self, GrpcConnectError> {
        let (carrier, Answer { server_id, server_count }) = connect::connect(connector, remote).await?;
        Ok(Self {
            server_id,
            server_count,
            remote,
            keep_alive: connector.keep_alive,
            mux: Mux::new(connector.mux.clone(), connector.budget.clone()),
            pending: Pending::default(),
            next_connect_id: connector.next_connect_id.clone(),
            carrier: Mutex::new(Some(carrier)),
            drained: AtomicBool::new(false),
            closing: CancellationToken::new(),
            server_drains: CancellationToken::new(),
        })
    }

    /// Who the server is.
    pub fn server_id(&self) -> &ServerId {
        &self.server_id
    }

    /// How many servers there are, as this one says. 0 when it does not.
    pub fn server_count(&self) -> u32 {
        self.server_count
    }

    /// The address that was connected to: the server's, or its proxy's.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Dials that are connecting or connected.
    pub fn open_dials(&self) -> usize {
        self.pending.len() + self.mux.open_dials()
    }

    /// Bytes that have come and that dials have not taken.
    pub fn untaken_bytes(&self) -> usize {
        self.mux.held_bytes()
    }

    /// Tells the server to prefer other agents. What it asks for all the same is served. Only the first call counts.
    pub fn drain(&self) {
        if !self.drained.swap(true, Ordering::Relaxed) {
            self.mux.send(Packet::drain());
        }
    }

    /// Cancelled when the server is about to go: it wants no more streams (GOAWAY) and lets this one end.
    pub fn server_drains(&self) -> CancellationToken {
        self.server_drains.clone()
    }

    /// Ends the stream after what waits to be sent; [`Self::serve`] then returns. Dials that are still open end with it.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Serves dials until the connection is gone, and says why. What is open then ends with an error. Once: a second call
    /// finds nothing to serve.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection, and ends its dials with an error.
    pub async fn serve(&self, dials: Dials) -> GrpcLost {
        let Some(carrier) = self.carrier.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return GrpcLost::ClosedHere;
        };
        let abandoned = LoseOnDrop(&self.mux);
        let metrics = dials.metrics.clone();
        let (mux, pending, next_connect_id) = (self.mux.clone(), self.pending.clone(), self.next_connect_id.clone());
        let incoming = Incoming { mux, pending, dials, next_connect_id };
        let terms = Terms { closing: &self.closing, server_drains: &self.server_drains, keep_alive: self.keep_alive };
        let lost = stream::carry(carrier, &incoming, terms).await;
        self.mux.lose(lost.to_string());
        drop(abandoned);
        metrics.stream_lost(lost.code());
        lost
    }
}

/// Ends dials whose connection is dropped by the way.
struct LoseOnDrop<'a>(&'a Mux);

impl Drop for LoseOnDrop<'_> {
    fn drop(&mut self) {
        // After another reason this one does not count.
        self.0.lose("the connection was abandoned");
    }
}

#[cfg(test)]
mod tests;
