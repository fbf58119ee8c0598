//! The life of one connection to one server: connect, say hello, accept dials, drain.

#[allow(dead_code, reason = "nothing chooses it yet")]
mod grpc;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dashmap::DashMap;
use konnectivity_process::version;
use konnectivity_transport::{
    budget::MemoryBudget,
    connection::{Connection, ConnectionLost},
    control::{ControlStream, HelloError, say_hello},
    endpoint::{self, ConnectError},
    error::with_sources,
    id::{AgentId, IdError, ServerId},
    settings::QuicSettings,
    wire::{
        code::ConnectionCode,
        message::{ControlBody, Drain, Hello},
    },
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    config::ServerAddress,
    dial::Dials,
    happy_eyeballs::{STAGGER, order, race},
    server_set,
};

/// How long the last packets of a closed connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// The server's name cannot be resolved.
    #[error("cannot resolve {host} of --proxy-server-host")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: std::io::Error,
    },
    /// No address of the server answers.
    #[error("{}", .0.iter().map(|(_, error)| with_sources(error)).collect::<Vec<_>>().join("; "))]
    Addresses(Vec<(SocketAddr, ConnectError)>),
    /// The server did not accept the agent.
    #[error("the server at {remote} did not accept this agent")]
    Hello {
        /// Its address.
        remote: SocketAddr,
        /// What it says.
        source: HelloError,
    },
    /// The server's id cannot be used.
    #[error("the server at {remote} says an id that cannot be used")]
    ServerId {
        /// Its address.
        remote: SocketAddr,
        /// What is wrong with it.
        source: IdError,
    },
}

/// Makes connections to whichever server the address leads to.
pub struct Connector {
    /// Where the servers are.
    pub server: ServerAddress,
    /// Who we say we are.
    pub agent_id: AgentId,
    /// What we say we can reach, URL-encoded.
    pub identifiers: String,
    /// How we check the server and prove who we are.
    pub tls: rustls::ClientConfig,
    /// How connections behave.
    pub quic: QuicSettings,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// What each dial needs.
    pub dials: Dials,
    /// Cancelled when the agent drains: the servers are told.
    pub drain: CancellationToken,
    /// Cancelled when connections are to be closed once they have no dials.
    pub leave: CancellationToken,
    /// Connections that are served now, for metrics.
    pub served: Arc<DashMap<ServerId, Connection>>,
}

impl server_set::Connector for Connector {
    type Connection = ServerConnection;
    type Error = ConnectFailure;

    async fn connect(&self) -> Result<ServerConnection, ConnectFailure> {
        let host = self.server.host.as_str();
        let found = tokio::net::lookup_host((host, self.server.port)).await;
        let addresses: Vec<_> =
            found.map_err(|source| ConnectFailure::Resolve { host: host.to_owned(), source })?.collect();
        let attempt = |remote| endpoint::connect(remote, host, self.tls.clone(), &self.quic, self.budget.clone());
        let connection = race(order(addresses), STAGGER, attempt).await.map_err(ConnectFailure::Addresses)?;
        let remote = connection.remote();
        let hello = Hello {
            agent_id: self.agent_id.to_string(),
            identifiers: self.identifiers.clone(),
            token: String::new(),
            software: format!("konnectivity-quic {}", version::VERSION),
            capabilities: Vec::new(),
        };
        let (control, welcome) =
            say_hello(&connection, hello).await.map_err(|source| ConnectFailure::Hello { remote, source })?;
        let server_id = ServerId::new(welcome.server_id).map_err(|source| {
            connection.close(ConnectionCode::Protocol, &format!("the server's id cannot be used: {source}"));
            ConnectFailure::ServerId { remote, source }
        })?;
        let server = server_id.as_str().into();
        Ok(ServerConnection {
            server_id,
            server_count: welcome.server_count,
            connection,
            control,
            dials: Dials { server, ..self.dials.clone() },
            drain: self.drain.clone(),
            leave: self.leave.clone(),
            server_drains: CancellationToken::new(),
            served: self.served.clone(),
        })
    }
}

/// A connection whose server has said who it is.
pub struct ServerConnection {
    server_id: ServerId,
    server_count: u32,
    connection: Connection,
    control: ControlStream,
    dials: Dials,
    drain: CancellationToken,
    leave: CancellationToken,
    server_drains: CancellationToken,
    served: Arc<DashMap<ServerId, Connection>>,
}

impl server_set::Connection for ServerConnection {
    fn server_id(&self) -> &ServerId {
        &self.server_id
    }

    fn server_count(&self) -> u32 {
        self.server_count
    }

    fn server_drains(&self) -> CancellationToken {
        self.server_drains.clone()
    }

    async fn serve(self) {
        let span =
            tracing::info_span!("connection", server_id = %self.server_id, remote_addr = %self.connection.remote());
        self.serve_to_end().instrument(span).await;
    }

    async fn close_duplicate(self) {
        self.connection.close(ConnectionCode::DuplicateServer, "this agent has a connection to this server already");
        self.connection.wait_closed(CLOSE_LIMIT).await;
    }
}

impl ServerConnection {
    async fn serve_to_end(self) {
        let Self { server_id, connection, control, dials, drain, leave, server_drains, served, .. } = self;
        served.insert(server_id.clone(), connection.clone());
        let lost = tokio::select! {
            lost = accept(&connection, &dials) => lost,
            lost = attend(&connection, control, &drain, &server_drains) => lost,
            lost = end(&connection, &dials.stop, &leave) => lost,
        };
        tracing::info!(reason = %lost, "disconnected from a server");
        dials.metrics.server_gone(&lost);
        served.remove(&server_id);
        // What is left to do must not delay the next connection.
        dials.tasks.spawn(async move { connection.wait_closed(CLOSE_LIMIT).await });
    }
}

/// Accepts dials, each in a task of its own, until the connection is gone.
async fn accept(connection: &Connection, dials: &Dials) -> ConnectionLost {
    loop {
        match connection.accept_dial().await {
            Ok(incoming) => dials.tasks.spawn(dials.clone().serve(incoming)),
            Err(lost) => return lost,
        };
    }
}

/// Handles control messages, and tells the server when the agent drains.
async fn attend(
    connection: &Connection,
    mut control: ControlStream,
    drain: &CancellationToken,
    server_drains: &CancellationToken,
) -> ConnectionLost {
    let mut told = false;
    let mut govern = std::pin::pin!(connection.govern());
    loop {
        tokio::select! {
            () = &mut govern => break,
            () = drain.cancelled(), if !told => {
                told = true;
                let message = ControlBody::Drain(Drain { reason: "the agent is stopping".into() });
                if let Err(error) = control.sender.send(message).await {
                    // If the connection is gone already, this changes nothing.
                    connection.close(ConnectionCode::Protocol, &format!("control stream: {}", with_sources(&error)));
                    break;
                }
            }
            message = control.receiver.next() => match message {
                Ok(ControlBody::Drain(drain)) => {
                    tracing::info!(reason = drain.reason, "the server drains");
                    server_drains.cancel();
                }
                // Server addresses are for a later version of this agent, which says so in its capabilities.
                Ok(ControlBody::Servers(_)) => {}
                Ok(_) => {
                    connection.close(ConnectionCode::Protocol, "a server must not send this control message");
                    break;
                }
                Err(error) => {
                    // If the connection is gone already, this changes nothing.
                    connection.close(ConnectionCode::Protocol, &format!("control stream: {}", with_sources(&error)));
                    break;
                }
            },
        }
    }
    connection.closed().await
}

/// When the agent leaves: closes the connection when its last dial has ended, or when dials must end now.
async fn end(connection: &Connection, stop: &CancellationToken, leave: &CancellationToken) -> ConnectionLost {
    leave.cancelled().await;
    let deadline_passed = tokio::select! {
        () = idle(connection, LAST_DIALS) => false,
        () = stop.cancelled() => true,
    };
    if deadline_passed {
        // Dials that were told to stop end after their last bytes; the process does not wait for ever.
        idle(connection, Duration::ZERO).await;
        connection.close(ConnectionCode::DrainDeadline, "the agent has stopped; its time to drain has passed");
    } else {
        connection.close(ConnectionCode::Drained, "the agent has stopped; its last dial has ended");
    }
    connection.closed().await
}

/// How often a draining agent looks whether its last dial has ended.
const IDLE_CHECK: Duration = Duration::from_millis(50);

/// Dials that were on their way when the server heard of the drain still come: the agent waits that long for them.
const LAST_DIALS: Duration = Duration::from_millis(500);

/// Waits until no dial is open, and then for none to come for `quiet`.
async fn idle(connection: &Connection, quiet: Duration) {
    let mut lasted = Duration::ZERO;
    while connection.open_dials() > 0 || lasted < quiet {
        tokio::time::sleep(IDLE_CHECK).await;
        lasted = if connection.open_dials() > 0 { Duration::ZERO } else { lasted + IDLE_CHECK };
    }
}
