//! One dial over its stream, before and after it is answered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    connection::{
        ConnectionLost,
        shared::{Entry, Shared},
    },
    flow::DialFlow,
    stream::{DialStream, MessageError, ReceiveError, ReceiveHalf, SendHalf, SendMessageError},
    wire::{
        code::{ConnectionCode, StreamCode},
        codec::{MAX_DIAL_REPLY_BYTES, MAX_DIAL_REQUEST_BYTES},
        message::{DialReply, DialRequest},
    },
};

/// How long the head of a dial stream may take: the peer opens the stream with it, so only loss delays it.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A dial's stream, on its connection's books until it is dropped.
#[derive(Debug)]
pub struct OpenDial {
    /// Both halves.
    pub stream: DialStream,
    entry: Entry,
}

impl OpenDial {
    pub(crate) fn new(connection: &Arc<Shared>, send: quinn::SendStream, receive: quinn::RecvStream) -> Self {
        let flow = Arc::new(DialFlow::new(Instant::now()));
        let entry = connection.enter(send.id().index(), flow.clone());
        let stream = DialStream {
            send: SendHalf::new(send, connection.clone(), flow.clone()),
            receive: ReceiveHalf::new(receive, flow),
        };
        Self { stream, entry }
    }

    pub(crate) fn connection(&self) -> Arc<Shared> {
        self.entry.connection.clone()
    }

    /// Whether the agent may have connected before it was lost: it had the request, and has not said that its last dial
    /// has ended, which then was another.
    fn may_be_at_work(&self, lost: &ConnectionLost) -> bool {
        let had_none = matches!(lost, ConnectionLost::Closed { code: Some(ConnectionCode::Drained), .. });
        self.stream.send.is_delivered() && !had_none
    }

    /// Answers the dial (agent).
    ///
    /// # Errors
    /// [`SendMessageError`] when the server has given the dial up or is gone.
    pub async fn answer(&mut self, reply: &DialReply) -> Result<(), SendMessageError> {
        self.stream.send.send_message(reply, MAX_DIAL_REPLY_BYTES).await
    }

    /// Ends a dial that failed: the reply was all that there is to say.
    pub async fn finish_failed(mut self) {
        self.stream.send.finish();
        self.stream.receive.stop(StreamCode::Cancelled);
        self.stream.send.delivered().await;
    }
}

/// A dial that was asked for and is not answered yet. Dropping it gives the dial up: the agent abandons its connect.
#[derive(Debug)]
pub struct OpenedDial {
    pub(crate) dial: Option<OpenDial>,
}

impl OpenedDial {
    /// Waits for the agent's answer.
    ///
    /// # Errors
    /// [`MessageError`] when the agent went away or sent something else. It is [`MessageError::LostAtWork`] if the agent
    /// may have connected, and [`ReceiveError::Lost`] if it was gone before it could have: another agent may be asked.
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up.
    pub async fn reply(mut self) -> Result<(DialReply, OpenDial), MessageError> {
        // The dial is taken only here, at the end of its only user.
        let Some(dial) = &mut self.dial else { return Err(MessageError::Ended) };
        let reply = match dial.stream.receive.read_message(MAX_DIAL_REPLY_BYTES).await {
            Err(MessageError::Receive(ReceiveError::Lost(lost))) if dial.may_be_at_work(&lost) => {
                return Err(MessageError::LostAtWork(lost));
            }
            reply => reply?,
        };
        let Some(dial) = self.dial.take() else { return Err(MessageError::Ended) };
        Ok((reply, dial))
    }
}

impl Drop for OpenedDial {
    fn drop(&mut self) {
        if let Some(dial) = &mut self.dial {
            dial.stream.abort(StreamCode::Cancelled);
        }
    }
}

/// A dial that the agent has accepted.
#[derive(Debug)]
pub struct IncomingDial(pub(crate) OpenDial);

impl IncomingDial {
    /// Reads what is to be dialled. On failure the stream is ended with `BadRequest`.
    ///
    /// # Errors
    /// [`MessageError`].
    pub async fn request(mut self) -> Result<(DialRequest, OpenDial), MessageError> {
        let read = self.0.stream.receive.read_message(MAX_DIAL_REQUEST_BYTES);
        match tokio::time::timeout(REQUEST_LIMIT, read).await {
            Ok(Ok(request)) => Ok((request, self.0)),
            Ok(Err(error)) => {
                self.0.stream.abort(StreamCode::BadRequest);
                Err(error)
            }
            Err(_) => {
                self.0.stream.abort(StreamCode::TimedOut);
                Err(MessageError::TimedOut)
            }
        }
    }
}
