//! What takes dials to an agent: a QUIC connection, or a gRPC stream of the reference's agent. Nothing else of the server
//! tells them apart.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use konnectivity_transport::{
    connection::Connection,
    dial::OpenDial,
    mux::MuxDial,
    stream::{MessageError, ReceiveError, SendMessageError},
    wire::{
        code::StreamCode,
        message::{DialErrorKind, DialRequest},
    },
};

use super::grpc::agent::GrpcAgent;

/// What takes dials to an agent.
#[derive(Debug)]
pub enum Carrier {
    /// A QUIC connection: a stream for each dial.
    Quic(Connection),
    /// One stream of packets for all dials.
    Grpc(GrpcAgent),
}

/// A dial whose target is connected.
#[derive(Debug)]
pub enum Connected {
    /// Over QUIC.
    Quic(OpenDial),
    /// Over gRPC.
    Grpc(MuxDial),
}

/// Why an agent has not connected a target.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The request could not be sent.
    #[error(transparent)]
    Send(SendMessageError),
    /// The agent went away, or sent no reply that can be read.
    #[error(transparent)]
    Reply(MessageError),
    /// The agent's answer: it could not connect.
    #[error("{0}")]
    Refused(String),
    /// The agent has given the dial up by DIAL_CLS.
    #[error("the agent has given the dial up")]
    GivenUp,
    /// The agent's stream ended.
    #[error("{reason}")]
    Lost {
        /// How.
        reason: Arc<str>,
        /// Whether the request was on its way, so that the agent may have connected.
        asked: bool,
    },
}

impl AskError {
    /// Whether another agent may be asked: this one was lost before it can have connected.
    pub fn may_ask_another(&self) -> bool {
        match self {
            Self::Send(SendMessageError::Send(_)) | Self::Reply(MessageError::Receive(ReceiveError::Lost(_))) => true,
            Self::Lost { asked, .. } => !asked,
            Self::Send(SendMessageError::Encode(_)) | Self::Reply(_) | Self::Refused(_) | Self::GivenUp => false,
        }
    }
}

impl Carrier {
    /// Asks the agent for a target and waits for its answer. `sent` becomes true when the request is on its way.
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up, and the agent is told.
    pub async fn ask(&self, request: DialRequest, sent: &Arc<AtomicBool>) -> Result<Connected, AskError> {
        match self {
            Self::Quic(connection) => ask_quic(connection, &request, sent).await.map(Connected::Quic),
            Self::Grpc(agent) => agent.ask(request, sent).await.map(Connected::Grpc),
        }
    }

    /// Asks the agent whether it is still there, where its end would not be known soon: a process that dies closes its TCP
    /// connections.
    pub fn probe(&self) {
        if let Self::Quic(connection) = self {
            connection.probe();
        }
    }

    /// Whether it was asked and its answer is late.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Quic(connection) if connection.is_in_doubt())
    }

    /// Dials that it carries now.
    pub fn open_dials(&self) -> usize {
        match self {
            Self::Quic(connection) => connection.open_dials(),
            Self::Grpc(agent) => agent.open_dials(),
        }
    }
}

async fn ask_quic(connection: &Connection, request: &DialRequest, sent: &AtomicBool) -> Result<OpenDial, AskError> {
    let opened = connection.open_dial(request).await.map_err(AskError::Send)?;
    sent.store(true, Ordering::Relaxed);
    let (reply, mut dial) = opened.reply().await.map_err(AskError::Reply)?;
    if reply.kind() == DialErrorKind::Connected {
        return Ok(dial);
    }
    // The reply was all that there is to say.
    dial.stream.send.finish();
    dial.stream.receive.stop(StreamCode::Cancelled);
    Err(AskError::Refused(reply.text))
}
