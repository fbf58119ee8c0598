//! The life of one QUIC connection to one server: connect, say hello, accept dials, drain.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use konnectivity_process::{reload::Current, version};
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

use super::{
    carrier::{Carrier, LAST_DIALS, QuicCarrier, QuicEnd, idle},
    served::Handle,
};
use crate::{
    dial::Dials,
    happy_eyeballs::{STAGGER, race},
};

/// How long the last packets of a closed connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no QUIC connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum QuicFailure {
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

impl QuicFailure {
    /// Whether nothing at all came back from any address.
    pub fn is_silence(&self) -> bool {
        let silent = |error: &ConnectError| matches!(error, ConnectError::Timeout { .. });
        matches!(self, Self::Addresses(errors) if errors.iter().all(|(_, error)| silent(error)))
    }
}

/// Makes QUIC connections.
pub struct QuicConnector {
    /// The name that the server's certificate must have.
    pub host: String,
    /// Who we say we are.
    pub agent_id: AgentId,
    /// What we say we can reach, URL-encoded.
    pub identifiers: String,
    /// How we check the server and prove who we are.
    pub tls: Current<rustls::ClientConfig>,
    /// How connections behave.
    pub settings: QuicSettings,
    /// What all connections together may hold.
    pub budget: Arc<MemoryBudget>,
    /// What each dial needs.
    pub dials: Dials,
    /// Cancelled when the agent drains: the servers are told.
    pub drain: CancellationToken,
    /// Cancelled when connections are to be closed once they have no dials.
    pub leave: CancellationToken,
}

impl QuicConnector {
    /// Connects to whichever server answers first at one of `addresses`, from a UDP port of its own. Cancels `answered`
    /// after the QUIC handshake, when the server still has to look at the agent.
    ///
    /// # Errors
    /// [`QuicFailure`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn connect(
        &self,
        addresses: Vec<SocketAddr>,
        answered: &CancellationToken,
    ) -> Result<QuicConnection, QuicFailure> {
        let attempt = |remote| {
            let tls = (*self.tls.get()).clone();
            endpoint::connect(remote, &self.host, tls, &self.settings, self.budget.clone())
        };
        let connection = race(addresses, STAGGER, attempt).await.map_err(QuicFailure::Addresses)?;
        answered.cancel();
        let remote = connection.remote();
        let hello = Hello {
            agent_id: self.agent_id.to_string(),
            identifiers: self.identifiers.clone(),
            token: String::new(),
            software: format!("konnectivity-quic {}", version::VERSION),
            capabilities: Vec::new(),
        };
        let (control, welcome) =
            say_hello(&connection, hello).await.map_err(|source| QuicFailure::Hello { remote, source })?;
        let server_id = ServerId::new(welcome.server_id).map_err(|source| {
            connection.close(ConnectionCode::Protocol, &format!("the server's id cannot be used: {source}"));
            QuicFailure::ServerId { remote, source }
        })?;
        let server = server_id.as_str().into();
        Ok(QuicConnection {
            server_id,
            server_count: welcome.server_count,
            connection,
            control,
            dials: Dials { server, ..self.dials.clone() },
            drain: self.drain.clone(),
            leave: self.leave.clone(),
            since: Instant::now(),
        })
    }
}

/// A connection whose server has said who it is.
pub struct QuicConnection {
    server_id: ServerId,
    server_count: u32,
    connection: Connection,
    control: ControlStream,
    dials: Dials,
    drain: CancellationToken,
    leave: CancellationToken,
    since: Instant,
}

impl Carrier for QuicConnection {
    fn server_id(&self) -> &ServerId {
        &self.server_id
    }

    fn server_count(&self) -> u32 {
        self.server_count
    }

    fn remote(&self) -> SocketAddr {
        self.connection.remote()
    }

    fn handle(&self) -> Handle {
        Handle::Quic(self.connection.clone())
    }

    async fn close(self, reason: &'static str) {
        self.connection.close(ConnectionCode::DuplicateServer, reason);
        self.connection.wait_closed(CLOSE_LIMIT).await;
    }
}

impl QuicCarrier for QuicConnection {
    async fn serve(self, server_drains: CancellationToken) -> QuicEnd {
        let Self { connection, control, dials, drain, leave, since, .. } = self;
        let lost = tokio::select! {
            lost = accept(&connection, &dials) => lost,
            lost = attend(&connection, control, &drain, &server_drains) => lost,
            lost = end(&connection, &dials.stop, &leave) => lost,
        };
        tracing::info!(reason = %lost, "disconnected from a server");
        dials.metrics.server_gone(&lost);
        // What is left to do must not delay the next connection.
        dials.tasks.spawn(async move { connection.wait_closed(CLOSE_LIMIT).await });
        QuicEnd { silent: lost.is_silence(), lasted: since.elapsed() }
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
        () = idle(|| connection.open_dials(), LAST_DIALS) => false,
        () = stop.cancelled() => true,
    };
    if deadline_passed {
        // Dials that were told to stop end after their last bytes; the process does not wait for ever.
        idle(|| connection.open_dials(), Duration::ZERO).await;
        connection.close(ConnectionCode::DrainDeadline, "the agent has stopped; its time to drain has passed");
    } else {
        connection.close(ConnectionCode::Drained, "the agent has stopped; its last dial has ended");
    }
    connection.closed().await
}
