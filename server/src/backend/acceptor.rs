//! Accepts agents over QUIC, finds out who they are, and keeps them registered while they are connected.

use std::{sync::Arc, time::Duration};

use konnectivity_process::version;
use konnectivity_transport::{
    connection::Connection,
    control::{ControlStream, HelloError, await_hello},
    endpoint::{IncomingConnection, ServerEndpoint},
    error::with_sources,
    id::{AgentId, ServerId},
    identifier::Identifiers,
    server_list::ServerList,
    stream::{MessageError, ReceiveError},
    wire::{
        SERVERS_CAPABILITY,
        code::ConnectionCode,
        message::{ControlBody, Drain, Hello, Welcome},
    },
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Backend,
    carrier::Carrier,
    placement::Placement,
    registry::{Registration, Registry},
};
use crate::{
    auth::{Admitted, Authentication, Carried, NewTokens, Refusal, Shown, Token, TokenEnd, TokenLife},
    membership::{Lists, Membership},
    metrics::Metrics,
    worker::Worker,
};

/// How often an agent whose token is no longer good is looked at for its last dial's end.
const IDLE_CHECK: Duration = Duration::from_millis(100);

/// Accepts agents on all endpoints.
pub struct Acceptor {
    /// Who we say we are.
    pub server_id: ServerId,
    /// Which servers we say there are.
    pub membership: Membership,
    /// Where agents are registered.
    pub registry: Arc<Registry<Backend>>,
    /// Where connections are placed.
    pub placement: Arc<Placement>,
    /// Cancelled when the server drains: agents are told, and no more are accepted.
    pub drain: CancellationToken,
    /// Who may be an agent.
    pub authentication: Arc<Authentication>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// An agent that has been greeted.
struct Greeted {
    control: ControlStream,
    agent_id: AgentId,
    identifiers: Identifiers,
    admitted: Admitted,
    /// Whether it uses lists of servers.
    wants_servers: bool,
}

impl Acceptor {
    /// Accepts until the endpoint is closed. Each connection is placed on the worker that has the fewest.
    pub async fn run(self: Arc<Self>, endpoint: Arc<ServerEndpoint>) {
        while let Some(incoming) = endpoint.accept().await {
            if self.drain.is_cancelled() {
                // It may be one that looks for another server in the place of this one.
                incoming.refuse();
                continue;
            }
            let Some(place) = self.placement.next() else { return };
            let acceptor = self.clone();
            let span = tracing::info_span!("connection", number = place.number, remote_addr = %incoming.remote());
            let worker = place.worker.clone();
            let serve = async move {
                acceptor.serve(incoming, place.number, place.worker.clone()).await;
                drop(place);
            };
            worker.spawn(serve.instrument(span));
        }
    }

    async fn serve(&self, incoming: IncomingConnection, number: u64, worker: Worker) {
        let connection = match incoming.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "an agent could not connect");
                return;
            }
        };
        let Greeted { control, agent_id, identifiers, admitted, wants_servers } = match self.greet(&connection).await {
            Ok(greeted) => greeted,
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "an agent was not accepted");
                return;
            }
        };
        let backend = Arc::new(Backend::new(&agent_id, identifiers, number, Carrier::Quic(connection.clone()), worker));
        let registration = self.registry.register(backend.clone());
        tracing::info!(%agent_id, carrier = "quic", username = admitted.username, "agent connected");
        // If this is an agent that was killed and started again, its old connection must not wait for the idle timeout.
        for kin in self.registry.kin(&backend) {
            kin.carrier().probe();
        }
        let lists = wants_servers.then(|| self.membership.lists());
        self.attend(&backend, registration, &connection, (control, admitted.life, lists)).await;
        let reason = connection.closed().await;
        tracing::info!(%agent_id, %reason, "agent disconnected");
    }

    /// Checks the agent's Hello and answers it, or closes the connection with the reason.
    async fn greet(&self, connection: &Connection) -> Result<Greeted, HelloError> {
        let (mut control, hello) = await_hello(connection).await?;
        let refused = |code, reason: String| {
            connection.close(code, &reason);
            Err(HelloError::Refused(reason))
        };
        let (agent_id, identifiers) = match check(&hello) {
            Ok(checked) => checked,
            Err(reason) => return refused(ConnectionCode::BadHello, reason),
        };
        let shown = Shown {
            carried: Carried::Quic,
            token: Token::new(&hello.token),
            certificate: connection.peer_certificate(),
        };
        let admitted = match self.authentication.admit(shown, &identifiers).await {
            Ok(admitted) => admitted,
            Err(refusal) => return refused(refusal.connection_code(), refusal.to_string()),
        };
        let wants_servers = hello.capabilities.iter().any(|name| name == SERVERS_CAPABILITY);
        // Said only when a list follows at once: the agent waits for it before it looks for other servers.
        let lists_servers = wants_servers && self.membership.is_known();
        let welcome = Welcome {
            server_id: self.server_id.to_string(),
            server_count: match wants_servers {
                true => self.membership.count(),
                false => self.membership.lasting_count(),
            },
            software: format!("konnectivity-quic {}", version::VERSION),
            capabilities: Some(SERVERS_CAPABILITY.to_owned()).into_iter().filter(|_| lists_servers).collect(),
        };
        match control.sender.send(ControlBody::Welcome(welcome)).await {
            Ok(()) => Ok(Greeted { control, agent_id, identifiers, admitted, wants_servers }),
            Err(error) => refused(ConnectionCode::Protocol, format!("control stream: {error}")),
        }
    }

    /// Handles control messages until the connection is gone.
    async fn attend(
        &self,
        backend: &Backend,
        registration: Registration<Backend>,
        connection: &Connection,
        (mut control, life, mut lists): (ControlStream, Option<TokenLife>, Option<Lists>),
    ) {
        let mut registration = Some(registration);
        let (renew, renewed) = watch::channel(None);
        let mut told = false;
        let mut govern = std::pin::pin!(connection.govern());
        let mut token_end = std::pin::pin!(token_end(life, renewed));
        let mut idle = std::pin::pin!(close_when_idle(connection));
        let mut no_token = None;
        loop {
            let drain = tokio::select! {
                () = &mut govern => return,
                () = self.drain.cancelled(), if !told => "the server is stopping".to_owned(),
                end = &mut token_end, if no_token.is_none() => {
                    // Only what runs goes on.
                    drop(registration.take());
                    self.metrics.token_ended(Carried::Quic, &end);
                    tracing::warn!(agent_id = %backend.name(), reason = %end, "draining an agent");
                    no_token.insert(end.to_string()).clone()
                }
                message = control.receiver.next() => {
                    match message {
                        Ok(body) => handle(backend, connection, body, &renew),
                        Err(error) => return broken(connection, &error),
                    }
                    continue;
                }
                () = &mut idle, if no_token.is_some() => {
                    connection.close(ConnectionCode::Unauthorized, no_token.as_deref().unwrap_or_default());
                    return;
                }
                list = next_list(&mut lists) => {
                    if !say(connection, &mut control, ControlBody::Servers(list.to_wire())).await {
                        return;
                    }
                    continue;
                }
            };
            if std::mem::replace(&mut told, true) {
                continue;
            }
            // Who leaves is not asked about others any more.
            lists = None;
            if !say(connection, &mut control, ControlBody::Drain(Drain { reason: drain })).await {
                return;
            }
        }
    }
}

/// Says something to the agent. `false`: the connection is of no more use.
async fn say(connection: &Connection, control: &mut ControlStream, body: ControlBody) -> bool {
    let said = control.sender.send(body).await;
    if let Err(error) = &said {
        // If the connection is gone already, this changes nothing.
        connection.close(ConnectionCode::Protocol, &format!("control stream: {error}"));
    }
    said.is_ok()
}

/// The next list of servers; never, if there are none.
async fn next_list(lists: &mut Option<Lists>) -> Arc<ServerList> {
    match lists {
        Some(lists) => lists.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until the agent's token is no longer good; for ever if nobody minds.
async fn token_end(life: Option<TokenLife>, renewed: NewTokens) -> TokenEnd {
    match life {
        Some(life) => life.ended(renewed).await,
        None => std::future::pending().await,
    }
}

/// Waits until no dial is open. A dial that has just picked this agent may still come: it then finds the connection
/// closed, and another agent.
async fn close_when_idle(connection: &Connection) {
    while connection.open_dials() > 0 {
        sleep(IDLE_CHECK).await;
    }
}

/// Where new tokens go to.
type Renew = watch::Sender<Option<Result<Token, Refusal>>>;

fn handle(backend: &Backend, connection: &Connection, body: ControlBody, renew: &Renew) {
    match body {
        ControlBody::Drain(drain) => {
            if backend.drain() {
                tracing::info!(reason = drain.reason, "agent drains");
            }
        }
        ControlBody::Token(message) => drop(renew.send_replace(Some(Token::new(&message.token)))),
        ControlBody::Hello(_) => {
            connection.close(ConnectionCode::Protocol, "a second Hello on one connection");
        }
        ControlBody::Welcome(_) | ControlBody::Servers(_) => {
            connection.close(ConnectionCode::Protocol, "an agent must not send a server's message");
        }
    }
}

/// The control stream has failed: the connection is of no more use.
fn broken(connection: &Connection, error: &MessageError) {
    if !matches!(error, MessageError::Receive(ReceiveError::Lost(_))) {
        connection.close(ConnectionCode::Protocol, &format!("control stream: {}", with_sources(error)));
    }
}

fn check(hello: &Hello) -> Result<(AgentId, Identifiers), String> {
    let agent_id =
        AgentId::new(hello.agent_id.as_str()).map_err(|error| format!("the agent id cannot be used: {error}"))?;
    let identifiers = Identifiers::parse(&hello.identifiers)
        .map_err(|error| format!("the agent identifiers cannot be used: {error}"))?;
    Ok((agent_id, identifiers))
}
