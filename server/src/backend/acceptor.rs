//! Accepts agents over QUIC, finds out who they are, and keeps them registered while they are connected.

use std::sync::Arc;

use konnectivity_process::version;
use konnectivity_transport::{
    connection::Connection,
    control::{ControlStream, HelloError, await_hello},
    endpoint::{IncomingConnection, ServerEndpoint},
    error::with_sources,
    id::{AgentId, ServerId},
    identifier::Identifiers,
    stream::{MessageError, ReceiveError},
    wire::{
        code::ConnectionCode,
        message::{ControlBody, Drain, Hello, Welcome},
    },
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Backend, carrier::Carrier, placement::Placement, registry::Registry};
use crate::worker::Worker;

/// Accepts agents on all endpoints.
pub struct Acceptor {
    /// Who we say we are.
    pub server_id: ServerId,
    /// How many servers we say there are.
    pub server_count: u32,
    /// Where agents are registered.
    pub registry: Arc<Registry<Backend>>,
    /// Where connections are placed.
    pub placement: Arc<Placement>,
    /// Cancelled when the server drains: agents are told, and no more are accepted.
    pub drain: CancellationToken,
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
        let (control, agent_id, identifiers) = match self.greet(&connection).await {
            Ok(greeted) => greeted,
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "an agent was not accepted");
                return;
            }
        };
        let backend = Arc::new(Backend::new(&agent_id, identifiers, number, Carrier::Quic(connection.clone()), worker));
        let _registration = self.registry.register(backend.clone());
        tracing::info!(%agent_id, carrier = "quic", "agent connected");
        self.attend(&backend, &connection, control).await;
        let reason = connection.closed().await;
        tracing::info!(%agent_id, %reason, "agent disconnected");
    }

    /// Checks the agent's Hello and answers it, or closes the connection with the reason.
    async fn greet(&self, connection: &Connection) -> Result<(ControlStream, AgentId, Identifiers), HelloError> {
        let (mut control, hello) = await_hello(connection).await?;
        let (agent_id, identifiers) = match check(&hello) {
            Ok(checked) => checked,
            Err(reason) => {
                connection.close(ConnectionCode::BadHello, &reason);
                return Err(HelloError::Protocol(reason));
            }
        };
        let welcome = Welcome {
            server_id: self.server_id.to_string(),
            server_count: self.server_count,
            software: format!("konnectivity-quic {}", version::VERSION),
            capabilities: Vec::new(),
        };
        match control.sender.send(ControlBody::Welcome(welcome)).await {
            Ok(()) => Ok((control, agent_id, identifiers)),
            Err(error) => Err(HelloError::Protocol(error.to_string())),
        }
    }

    /// Handles control messages until the connection is gone.
    async fn attend(&self, backend: &Backend, connection: &Connection, mut control: ControlStream) {
        let mut told = false;
        let mut govern = std::pin::pin!(connection.govern());
        loop {
            tokio::select! {
                () = &mut govern => return,
                () = self.drain.cancelled(), if !told => {
                    told = true;
                    let drain = ControlBody::Drain(Drain { reason: "the server is stopping".into() });
                    if let Err(error) = control.sender.send(drain).await {
                        // If the connection is gone already, this changes nothing.
                        connection.close(ConnectionCode::Protocol, &format!("control stream: {error}"));
                        return;
                    }
                }
                message = control.receiver.next() => match message {
                    Ok(body) => handle(backend, connection, body),
                    Err(error) => return broken(connection, &error),
                },
            }
        }
    }
}

fn handle(backend: &Backend, connection: &Connection, body: ControlBody) {
    match body {
        ControlBody::Drain(drain) => {
            tracing::info!(reason = drain.reason, "agent drains");
            backend.drain();
        }
        // Tokens are not reviewed yet: an agent port without client certificates is open by the operator's wish.
        ControlBody::Token(_) => {}
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
