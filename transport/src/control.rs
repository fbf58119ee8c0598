//! The control stream: who is at the other end, and what concerns the connection as a whole.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Mutex, task::coop::consume_budget, time::timeout};

use crate::{
    connection::{Connection, ConnectionLost},
    error::with_sources,
    stream::{CONTROL_PRIORITY, MessageError, ReceiveError, ReceiveHalf, SendMessageError, send_error},
    wire::{
        code::ConnectionCode,
        codec::{self, MAX_CONTROL_BYTES},
        message::{Control, ControlBody, Hello, Welcome},
    },
};

/// How long a peer may take for its Hello or Welcome after the QUIC handshake.
pub const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Round trips that an agent waits for Welcome besides. Where each takes seconds, its own last packets of the handshake are
/// still under way when it believes that to be done, and the server's Hello limit has not begun.
const WELCOME_ROUND_TRIPS: u32 = 4;

/// The longest that an agent waits for Welcome.
pub const MAX_WELCOME_LIMIT: Duration = Duration::from_secs(30);

/// Why a connection was not established after its QUIC handshake.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The connection was lost or closed by the peer, whose reason says why.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// No answer within [`HELLO_LIMIT`], or for an agent [`MAX_WELCOME_LIMIT`] at most.
    #[error("the peer sent no hello within {} s", .0.as_secs())]
    Timeout(Duration),
    /// This end does not want the peer, and has said why.
    #[error("{0}")]
    Refused(String),
    /// The peer sent something else.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
}

/// How long a peer may take no byte of a control message. Its window has room for dozens of them.
const SAY_LIMIT: Duration = Duration::from_secs(10);

/// Why a control message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    /// The connection is gone, or the message is too large.
    #[error(transparent)]
    Send(#[from] SendMessageError),
    /// The peer has no window for it: who waited for that would no longer look at anything else of the connection.
    #[error("the peer takes no control message for {} s", SAY_LIMIT.as_secs())]
    Unread,
}

/// The sending side of the control stream.
#[derive(Debug)]
pub struct ControlSender {
    stream: Arc<Mutex<quinn::SendStream>>,
}

/// A message without a body: its length, zero. Every version skips it.
const NUDGE: Bytes = Bytes::from_static(&[0]);

/// Sends messages that say nothing, for the sake of their acknowledgement.
#[derive(Debug)]
pub(crate) struct Nudger {
    stream: Arc<Mutex<quinn::SendStream>>,
}

impl Nudger {
    /// Sends one, if that can be done now. When another message waits to be sent, or the peer takes no bytes, there is
    /// none: it could not be sooner there than what waits.
    pub(crate) fn nudge(&self) {
        if let Ok(mut stream) = self.stream.try_lock() {
            // A single byte is sent at once or not at all; whoever waits for the stream learns if it is broken.
            let _ = pin!(stream.write_chunk(NUDGE)).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl ControlSender {
    pub(crate) fn new(stream: quinn::SendStream) -> Self {
        // A stream that is closed already needs no priority.
        let _ = stream.set_priority(CONTROL_PRIORITY);
        Self { stream: Arc::new(Mutex::new(stream)) }
    }

    pub(crate) fn nudger(&self) -> Nudger {
        Nudger { stream: self.stream.clone() }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`SayError`]; the connection is of no more use then.
    pub async fn send(&mut self, body: ControlBody) -> Result<(), SayError> {
        let bytes = codec::encode(&Control { body: Some(body) }, MAX_CONTROL_BYTES).map_err(SendMessageError::from)?;
        let mut stream = self.stream.lock().await;
        let written = timeout(SAY_LIMIT, stream.write_chunk(bytes)).await.map_err(|_| SayError::Unread)?;
        Ok(written.map_err(|error| SendMessageError::from(send_error(error)))?)
    }
}

/// The receiving side of the control stream.
#[derive(Debug)]
pub struct ControlReceiver {
    stream: ReceiveHalf,
}

impl ControlReceiver {
    pub(crate) fn new(stream: ReceiveHalf) -> Self {
        Self { stream }
    }

    /// Waits for the next message; a body that this version does not know is skipped.
    ///
    /// # Errors
    /// [`MessageError`]; the connection is of no more use then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<ControlBody, MessageError> {
        loop {
            // Messages without end must not keep the thread from its other connections.
            consume_budget().await;
            let control: Control = self.stream.read_message(MAX_CONTROL_BYTES).await?;
            if let Some(body) = control.body {
                return Ok(body);
            }
        }
    }
}

/// Both sides of the control stream of an established connection.
#[derive(Debug)]
pub struct ControlStream {
    /// Towards the peer.
    pub sender: ControlSender,
    /// From the peer.
    pub receiver: ControlReceiver,
}

/// The agent's side: sends Hello and waits for Welcome.
///
/// # Errors
/// [`HelloError`]; the connection has been closed with the matching code.
pub async fn say_hello(connection: &Connection, hello: Hello) -> Result<(ControlStream, Welcome), HelloError> {
    let exchange = async {
        let (mut sender, mut receiver) = connection.open_control().await?;
        sender.send(ControlBody::Hello(hello)).await.map_err(|error| protocol_or_lost(connection, &error))?;
        match receiver.next().await.map_err(|error| read_failed(connection, error))? {
            ControlBody::Welcome(welcome) => Ok((ControlStream { sender, receiver }, welcome)),
            _ => Err(HelloError::Protocol("the first message of the server is not a Welcome".into())),
        }
    };
    let limit = HELLO_LIMIT + WELCOME_ROUND_TRIPS * connection.stats().rtt;
    within(limit.min(MAX_WELCOME_LIMIT), connection, exchange).await
}

/// The server's side: waits for Hello. The caller answers with a Welcome, or closes the connection.
///
/// # Errors
/// [`HelloError`]; the connection has been closed with the matching code.
pub async fn await_hello(connection: &Connection) -> Result<(ControlStream, Hello), HelloError> {
    let exchange = async {
        let (sender, mut receiver) = connection.accept_control().await?;
        match receiver.next().await.map_err(|error| read_failed(connection, error))? {
            ControlBody::Hello(hello) => Ok((ControlStream { sender, receiver }, hello)),
            _ => Err(HelloError::Protocol("the first message of the agent is not a Hello".into())),
        }
    };
    within(HELLO_LIMIT, connection, exchange).await
}

async fn within<T>(
    limit: Duration,
    connection: &Connection,
    exchange: impl Future<Output = Result<T, HelloError>>,
) -> Result<T, HelloError> {
    let result = timeout(limit, exchange).await.unwrap_or(Err(HelloError::Timeout(limit)));
    match &result {
        Err(error @ HelloError::Timeout(_)) => connection.close(ConnectionCode::HelloTimeout, &error.to_string()),
        Err(error @ HelloError::Protocol(_)) => connection.close(ConnectionCode::Protocol, &error.to_string()),
        Err(HelloError::Lost(_) | HelloError::Refused(_)) | Ok(_) => {}
    }
    result
}

fn read_failed(connection: &Connection, error: MessageError) -> HelloError {
    match error {
        MessageError::Receive(ReceiveError::Lost(lost)) => HelloError::Lost(lost),
        other => protocol_or_lost(connection, &other),
    }
}

/// A stream that fails because its connection is gone tells less than the connection itself.
fn protocol_or_lost(connection: &Connection, error: &dyn std::error::Error) -> HelloError {
    match connection.close_reason() {
        Some(lost) => HelloError::Lost(lost),
        None => HelloError::Protocol(with_sources(error)),
    }
}
