//! The relation to one server: over QUIC where that works, over gRPC as long as it does not, and back.
//!
//! ```text
//! choice --> race --+-- QUIC first --> serve until lost ------------------------------------+--> lost
//!  (what     (both  |                      ^                                                |
//! to try)   attempts)                      | takes over; gRPC's last dials end by themselves|
//!                   +-- gRPC first --> serve until lost --------------------------------------+
//!                                     meanwhile: QUIC to the same server, with growing pauses
//! ```
//!
//! `choice.rs` is a value that decides; `race.rs` runs two attempts; `server.rs` serves, and comes back to QUIC. `quic.rs` and
//! `grpc.rs` are the connections, which the others know by the traits of `carrier.rs` only. `direct.rs` says which addresses
//! that servers name may be dialled. `served.rs` is what the admin pages show.

pub mod carrier;
pub mod carriers;
pub mod choice;
pub mod direct;
pub mod grpc;
mod over_grpc;
pub mod quic;
pub mod race;
pub mod served;
mod server;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use konnectivity_transport::{error::with_sources, id::ServerId};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    carrier::{Carrier, Carriers, ServerSays},
    choice::{Choice, Plan, Quic, Reason, Transport, Why},
    race::{Attempt, BothFailed, Won, race},
    served::Served,
    server::Server,
};
use crate::server_set::{self, Direct, Told, Towards};

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure<Q: std::error::Error, G: std::error::Error> {
    /// The server's name cannot be resolved.
    #[error("cannot resolve {host} of --proxy-server-host")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The addresses of a server that other servers have named lead nowhere.
    #[error("the addresses of server {server_id}, as other servers name them, cannot be used")]
    Listed {
        /// The server.
        server_id: ServerId,
        /// Why not.
        source: io::Error,
    },
    /// Over QUIC, which is all there is.
    #[error("{}{hint}", with_sources(.error))]
    Quic {
        /// Why.
        error: Q,
        /// What may be the matter.
        hint: &'static str,
    },
    /// Over gRPC, which is all there is.
    #[error("over gRPC: {}", with_sources(.0))]
    Grpc(G),
    /// Neither way.
    #[error(transparent)]
    Both(BothFailed<Q, G>),
}

/// For whom `--transport=quic` says what it cannot know.
const QUIC_ONLY: &str =
    " (--transport=quic is set: servers that speak gRPC only, such as the reference's, need auto or grpc)";

/// Makes connections to whichever server the address leads to.
pub struct Connector<C> {
    shared: Arc<Shared<C>>,
}

/// What all connections share.
pub struct Shared<C> {
    /// Makes single attempts.
    pub carriers: Arc<C>,
    /// The servers' name, for messages.
    pub host: String,
    /// Why there is only one way, if there is only one.
    pub configured: String,
    /// What was learned.
    pub choice: Mutex<Choice>,
    /// Time limit of an attempt to come back to QUIC.
    pub attempt_limit: Duration,
    /// Cancelled when the agent drains: nothing new is tried.
    pub drain: CancellationToken,
    /// Owns what is left of a connection that another one has taken over from.
    pub tasks: TaskTracker,
    /// Connections that serve now.
    pub served: Arc<Served>,
}

impl<C: Carriers> Connector<C> {
    /// A connector that has learned nothing but what `shared` says.
    pub fn new(shared: Shared<C>) -> Self {
        Self { shared: Arc::new(shared) }
    }
}

type Failure<C> = ConnectFailure<<C as Carriers>::QuicError, <C as Carriers>::GrpcError>;
type QuicAttempt<C> = Attempt<<C as Carriers>::Quic, <C as Carriers>::QuicError>;

impl<C: Carriers> server_set::Connector for Connector<C> {
    type Connection = ServerConnection<C>;
    type Error = Failure<C>;

    async fn connect(&self, towards: &Towards) -> Result<ServerConnection<C>, Failure<C>> {
        let addresses = self.shared.carriers.resolve(towards).await.map_err(|source| match towards {
            Towards::Any => ConnectFailure::Resolve { host: self.shared.host.clone(), source },
            Towards::Listed(Direct { server_id, .. }) => {
                ConnectFailure::Listed { server_id: server_id.clone(), source }
            }
        })?;
        let mut connection = self.connect_to(addresses).await?;
        connection.server.towards = towards.clone();
        Ok(connection)
    }
}

impl<C: Carriers> Connector<C> {
    async fn connect_to(&self, addresses: Vec<SocketAddr>) -> Result<ServerConnection<C>, Failure<C>> {
        let carriers = &self.shared.carriers;
        let plan = self.shared.choice().plan(Instant::now());
        let configured = || Why::new(Reason::Configured, &self.shared.configured);
        match plan {
            Plan::Only(Transport::Quic) => {
                let connected = carriers.clone().quic(addresses, CancellationToken::new()).await;
                let hint = |error: &C::QuicError| if C::is_silence(error) { QUIC_ONLY } else { "" };
                let quic = connected.map_err(|error| ConnectFailure::Quic { hint: hint(&error), error })?;
                Ok(self.over_quic(quic, configured()))
            }
            Plan::Only(Transport::Grpc) => {
                let grpc = carriers.clone().grpc(addresses).await.map_err(ConnectFailure::Grpc)?;
                Ok(self.over_grpc(grpc, configured(), None))
            }
            Plan::Race { first, head_start } => {
                let answered = CancellationToken::new();
                let quic =
                    || -> QuicAttempt<C> { Box::pin(carriers.clone().quic(addresses.clone(), answered.clone())) };
                let grpc = || -> Attempt<_, _> { Box::pin(carriers.clone().grpc(addresses.clone())) };
                let won = race((first, head_start), &answered, quic, grpc).await.map_err(ConnectFailure::Both)?;
                // Nothing of it happens before it is awaited, by whoever serves.
                let later = || -> QuicAttempt<C> {
                    Box::pin(carriers.clone().quic(addresses.clone(), CancellationToken::new()))
                };
                Ok(self.won(won, (first, head_start), later))
            }
        }
    }

    fn won(
        &self,
        won: Won<C::Quic, C::Grpc, C::QuicError>,
        (first, head_start): (Transport, Duration),
        later: impl FnOnce() -> QuicAttempt<C>,
    ) -> ServerConnection<C> {
        match won {
            Won::Quic(quic) => {
                let why = match first {
                    Transport::Quic => Why::new(Reason::QuicAnswered, "QUIC has answered"),
                    Transport::Grpc => Why::new(Reason::GrpcFailed, "TCP went first, and QUIC was sooner"),
                };
                self.over_quic(quic, why)
            }
            Won::Grpc(grpc, quic) => {
                let (quic, under_way) = match quic {
                    race::Quic::NotTried => (Quic::NotTried, None),
                    race::Quic::Silent(attempt) => (Quic::Silent(head_start), Some(attempt)),
                    race::Quic::Failed(error) => (Quic::Failed(with_sources(&error)), None),
                };
                let why = self.shared.choice().on_grpc(grpc.server_id(), &quic, Instant::now());
                // Silent elsewhere, QUIC has its chance with each server that is kept.
                let has_chance = quic == Quic::NotTried && why.reason != Reason::QuicUnstable;
                self.over_grpc(grpc, why, if has_chance { Some(later()) } else { under_way })
            }
        }
    }

    fn over_quic(&self, quic: C::Quic, why: Why) -> ServerConnection<C> {
        self.shared.choice().on_quic(quic.server_id(), Instant::now());
        self.connection(Current::Quic(quic), why)
    }

    fn over_grpc(&self, grpc: C::Grpc, why: Why, quic: Option<QuicAttempt<C>>) -> ServerConnection<C> {
        self.connection(Current::Grpc(grpc, quic), why)
    }

    fn connection(&self, current: Current<C>, why: Why) -> ServerConnection<C> {
        let (id, server_count, lists_servers) = match &current {
            Current::Quic(quic) => (quic.server_id().clone(), quic.server_count(), quic.lists_servers()),
            Current::Grpc(grpc, _) => (grpc.server_id().clone(), grpc.server_count(), grpc.lists_servers()),
        };
        let server = Server { id, says: ServerSays::default(), towards: Towards::Any, shared: self.shared.clone() };
        ServerConnection { server, server_count, lists_servers, current, why }
    }
}

impl<C> Shared<C> {
    fn choice(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The relation to one server, which has said who it is.
pub struct ServerConnection<C: Carriers> {
    server: Server<C>,
    server_count: u32,
    lists_servers: bool,
    current: Current<C>,
    why: Why,
}

/// What serves at first.
enum Current<C: Carriers> {
    Quic(C::Quic),
    /// With an attempt over QUIC that may yet be through.
    Grpc(C::Grpc, Option<QuicAttempt<C>>),
}

impl<C: Carriers> server_set::Connection for ServerConnection<C> {
    fn server_id(&self) -> &ServerId {
        &self.server.id
    }

    fn server_count(&self) -> u32 {
        self.server_count
    }

    fn lists_servers(&self) -> bool {
        self.lists_servers
    }

    fn server_drains(&self) -> CancellationToken {
        self.server.says.drains.clone()
    }

    fn servers(&self) -> watch::Receiver<Option<Arc<Told>>> {
        self.server.says.servers.subscribe()
    }

    async fn serve(self) {
        let Self { server, current, why, .. } = self;
        let quic = match current {
            Current::Quic(quic) => Some((quic, why)),
            Current::Grpc(grpc, attempt) => server.over_grpc(grpc, &why, attempt).await,
        };
        if let Some((quic, why)) = quic {
            server.over_quic(quic, &why).await;
        }
    }

    async fn close_duplicate(self) {
        let reason = "this agent has a connection to this server already";
        match self.current {
            Current::Quic(quic) => quic.close(reason).await,
            Current::Grpc(grpc, _) => grpc.close(reason).await,
        }
    }
}

#[cfg(test)]
mod tests;
