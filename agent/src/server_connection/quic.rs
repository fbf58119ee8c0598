//! The life of one QUIC connection to one server: connect, say hello, accept dials, drain.

use std::{
    net::SocketAddr,
    pin::pin,
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
    server_list::ServerList,
    settings::QuicSettings,
    tls::ClientTls,
    wire::{
        SERVERS_CAPABILITY,
        code::ConnectionCode,
        message::{self as wire, ControlBody, Drain, Hello},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    carrier::{Carrier, LAST_DIALS, QuicCarrier, QuicEnd, ServerSays, idle},
    served::Handle,
};
use crate::{
    dial::Dials,
    happy_eyeballs::{STAGGER, race},
    server_set::Told,
    token::{Token, TokenError, TokenFile},
};

/// How long the last packets of a closed connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no QUIC connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum QuicFailure {
    /// There is no token to show.
    #[error(transparent)]
    Token(#[from] TokenError),
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
    /// The token that we show, if any.
    pub token: Option<TokenFile>,
    /// How we check the server and prove who we are.
    pub tls: Current<ClientTls>,
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
        let token = self.token.as_ref().map(|file| Ok((file.clone(), file.read()?))).transpose();
        let token: Option<(TokenFile, Token)> = token.map_err(QuicFailure::Token)?;
        let tls = self.tls.get();
        let attempt = |remote| endpoint::connect(remote, &self.host, &tls, &self.settings, self.budget.clone());
        let connection = race(addresses, STAGGER, attempt).await.map_err(QuicFailure::Addresses)?;
        answered.cancel();
        let remote = connection.remote();
        let hello = Hello {
            agent_id: self.agent_id.to_string(),
            identifiers: self.identifiers.clone(),
            token: token.as_ref().map(|(_, token)| token.expose().to_owned()).unwrap_or_default(),
            software: format!("konnectivity-quic {}", version::VERSION),
            capabilities: vec![SERVERS_CAPABILITY.to_owned()],
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
            lists_servers: welcome.capabilities.iter().any(|name| name == SERVERS_CAPABILITY),
            connection,
            control,
            token,
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
    lists_servers: bool,
    connection: Connection,
    control: ControlStream,
    /// What was shown, and where it is from.
    token: Option<(TokenFile, Token)>,
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

    fn lists_servers(&self) -> bool {
        self.lists_servers
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
    async fn serve(self, says: ServerSays) -> QuicEnd {
        let Self { connection, control, token, dials, drain, leave, since, .. } = self;
        let lost = tokio::select! {
            lost = accept(&connection, &dials) => lost,
            lost = attend(&connection, (control, token), &drain, &says) => lost,
            lost = end(&connection, &dials.stop, &leave) => lost,
        };
        match &lost {
            ConnectionLost::Closed { code: Some(ConnectionCode::Unauthorized), .. } => {
                tracing::error!(reason = %lost, "disconnected from a server");
            }
            _ => tracing::info!(reason = %lost, "disconnected from a server"),
        }
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

/// Handles control messages, and tells the server when the agent drains or has a new token.
async fn attend(
    connection: &Connection,
    (mut control, token): (ControlStream, Option<(TokenFile, Token)>),
    drain: &CancellationToken,
    says: &ServerSays,
) -> ConnectionLost {
    let mut told = false;
    let mut govern = pin!(connection.govern());
    // However much the server says, the file is looked at.
    let mut renewal = pin!(renewed(token));
    loop {
        let news = tokio::select! {
            () = &mut govern => break,
            () = drain.cancelled(), if !told => {
                told = true;
                ControlBody::Drain(Drain { reason: "the agent is stopping".into() })
            }
            (file, token) = &mut renewal => {
                tracing::info!("sending the new token to a server");
                let message = ControlBody::Token(wire::Token { token: token.expose().to_owned() });
                renewal.set(renewed(Some((file, token))));
                message
            }
            message = control.receiver.next() => match message {
                Ok(ControlBody::Drain(drain)) => {
                    if !says.drains.is_cancelled() {
                        tracing::info!(reason = drain.reason, "the server drains");
                    }
                    says.drains.cancel();
                    continue;
                }
                Ok(ControlBody::Servers(servers)) => {
                    let told = Told { list: ServerList::from_wire(&servers), via: connection.remote().ip() };
                    says.servers.send_replace(Some(Arc::new(told)));
                    continue;
                }
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
        };
        if let Err(error) = control.sender.send(news).await {
            // If the connection is gone already, this changes nothing.
            connection.close(ConnectionCode::Protocol, &format!("control stream: {}", with_sources(&error)));
            break;
        }
    }
    connection.closed().await
}

/// Waits for a token after the one that was shown; for ever if none was.
async fn renewed(shown: Option<(TokenFile, Token)>) -> (TokenFile, Token) {
    let Some((file, token)) = shown else { return std::future::pending().await };
    let renewed = file.renewed(&token).await;
    (file, renewed)
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
