//! One bidirectional stream of a connection, as a sending and a receiving half.
//!
//! The QUIC library finishes a sending half that is dropped, which the peer would take for a complete stream. These
//! halves reset instead: only [`SendHalf::finish`] ends a direction cleanly.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use quinn::VarInt;

use crate::{
    batch::Batch,
    buffer,
    connection::{ConnectionLost, shared::Shared},
    credit::{Class, DialCredit},
    flow::DialFlow,
    wire::{
        code::StreamCode,
        codec::{self, DecodeError, EncodeError},
    },
};

/// How long a reset waits for the acknowledgement of what was sent before it. A reset makes the peer drop what it has
/// not read yet; waiting for the acknowledgement gives it a round trip to hand the bytes on.
const RESET_WAITS: Duration = Duration::from_secs(1);

/// A reset behind bytes that nobody reads is looked for this often.
const RESET_CHECK: Duration = Duration::from_millis(250);

/// Stream priorities, highest first: control messages, dials that have sent little lately, all others.
pub(crate) const CONTROL_PRIORITY: i32 = 2;
const INTERACTIVE_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;

/// Why bytes cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer takes no more bytes of this direction.
    #[error("the peer stopped the stream: {}", describe(*.0))]
    Stopped(Option<StreamCode>),
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// This half was finished or reset before.
    #[error("the stream was closed before")]
    Closed,
}

/// Why no more bytes come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The peer ended its direction early.
    #[error("the peer reset the stream: {}", describe(*.0))]
    Reset(Option<StreamCode>),
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// This half was stopped before.
    #[error("the stream was closed before")]
    Closed,
}

/// Why a message at the head of a stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The stream failed first.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The connection is gone, and the peer may have begun to do what the message would have answered.
    #[error(transparent)]
    LostAtWork(ConnectionLost),
    /// The stream ended in the middle of the message, or before it.
    #[error("the stream ended before the message was complete")]
    Ended,
    /// The message did not come in time.
    #[error("no complete message within the time limit")]
    TimedOut,
    /// The bytes are not such a message.
    #[error("the peer sent a message that cannot be read")]
    Decode(#[from] DecodeError),
}

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendMessageError {
    /// The stream failed.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The message is larger than the peer would accept.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Stale entries that the QUIC library may keep for a connection: about a megabyte.
const MAX_WATCHED_RESETS: usize = 10_000;

fn describe(code: Option<StreamCode>) -> &'static str {
    code.map_or("a code that this version does not know", StreamCode::meaning)
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct SendHalf {
    stream: quinn::SendStream,
    connection: Arc<Shared>,
    credit: Arc<DialCredit>,
    flow: Arc<DialFlow>,
    class: Class,
    state: State,
    /// [`Self::stopped`] was called and has not answered.
    watched: bool,
    /// With what the peer has stopped it, if that was watched for.
    stop_code: Option<StreamCode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Finished,
    Reset,
}

impl SendHalf {
    pub(crate) fn new(stream: quinn::SendStream, connection: Arc<Shared>, flow: Arc<DialFlow>) -> Self {
        let credit = Arc::new(DialCredit::new(connection.credit.clone()));
        // A stream that is closed already needs no priority.
        let _ = stream.set_priority(INTERACTIVE_PRIORITY);
        Self {
            stream,
            connection,
            credit,
            flow,
            class: Class::Interactive,
            state: State::Open,
            watched: false,
            stop_code: None,
        }
    }

    pub(crate) fn credit(&self) -> &Arc<DialCredit> {
        &self.credit
    }

    /// Whether the peer has everything that was sent.
    pub(crate) fn is_delivered(&self) -> bool {
        self.credit.is_drained()
    }

    /// Waits for the credit of `bytes`, in this dial's class.
    pub(crate) async fn acquire(&mut self, bytes: usize) {
        self.connection.refresh_credit();
        // A dial that was bulk and has rested is interactive again before its first byte.
        self.adjust_priority(0);
        self.credit.connection().acquire(bytes, self.class).await;
    }

    /// Sends one message at the head of the stream.
    ///
    /// # Errors
    /// [`SendMessageError`]; nothing was sent if the message is too large.
    ///
    /// # Cancel safety
    /// A message may be cut; drop the half then.
    pub async fn send_message<M: prost::Message>(&mut self, message: &M, max: usize) -> Result<(), SendMessageError> {
        let bytes = codec::encode(message, max)?;
        Ok(self.send_at_once(bytes).await?)
    }

    /// Sends bytes whose credit was acquired. While the stream is blocked by the peer's flow control, the credit of
    /// what is unsent serves others.
    ///
    /// The rest of a chunk that was sent in part becomes a chunk of its own. As one, its sent part would keep its credit
    /// until the rest is sent too, and a stalled dial would hold credit that others need.
    pub(crate) async fn send_acquired(&mut self, mut bytes: Bytes) -> Result<(), SendError> {
        self.adjust_priority(bytes.len());
        let credit = self.credit.clone();
        loop {
            let mut chunks = [buffer::charged(bytes.clone(), credit.clone())];
            let mut write = pin!(self.stream.write_chunks(&mut chunks));
            let written = match poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await {
                Poll::Ready(written) => written,
                Poll::Pending => {
                    let _suspended = credit.suspend(bytes.len());
                    write.await
                }
            };
            let sent = written.map_err(send_error)?.bytes;
            self.flow.count_sent(sent);
            bytes.advance(sent);
            if bytes.is_empty() {
                return Ok(());
            }
            credit.connection().charge(bytes.len());
        }
    }

    /// Sends bytes without waiting for credit. They use it all the same, so that [`Self::reset_after_delivery`] waits
    /// for them too: a reset must not overtake the reply before it.
    pub(crate) async fn send_at_once(&mut self, bytes: Bytes) -> Result<(), SendError> {
        self.credit.connection().charge(bytes.len());
        let chunk = buffer::charged(bytes, self.credit.clone());
        self.stream.write_chunk(chunk).await.map_err(send_error)
    }

    /// Ends this direction cleanly. Bytes sent before are still delivered; [`Self::delivered`] tells when.
    pub fn finish(&mut self) {
        if self.state == State::Open {
            self.state = State::Finished;
            // Fails only if the peer has stopped the stream; then there is nothing to finish.
            let _ = self.stream.finish();
        }
    }

    /// Waits until the peer has acknowledged everything after [`Self::finish`], has stopped the stream, or is gone.
    /// Returns at once for a half that was not finished.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn delivered(&self) {
        if self.state == State::Finished {
            // Whatever the answer is, nothing of this half is under way any more.
            let _ = self.stream.stopped().await;
        }
    }

    /// Ready when the peer wants no more bytes: what a direction that has nothing to send would not see. For
    /// those that need it; each may cost the connection memory if the stream is reset later, so that after
    /// [`MAX_WATCHED_RESETS`] there is no answer any more.
    pub(crate) fn stopped(&mut self) -> Option<Pin<Box<dyn Future<Output = Option<StreamCode>> + Send>>> {
        if self.connection.watched_resets.load(Ordering::Relaxed) >= MAX_WATCHED_RESETS {
            return None;
        }
        self.watched = true;
        let stopped = self.stream.stopped();
        Some(Box::pin(async move {
            match stopped.await {
                Ok(code) => code.and_then(|code| StreamCode::from_u64(code.into_inner())),
                // The connection is gone, which others tell.
                Err(_) => std::future::pending().await,
            }
        }))
    }

    /// The answer of [`Self::stopped`]: the QUIC library keeps nothing for this stream.
    pub(crate) fn was_stopped(&mut self, code: Option<StreamCode>) {
        self.watched = false;
        self.stop_code = code;
    }

    /// The code that [`Self::was_stopped`] was told.
    pub(crate) fn stop_code(&self) -> Option<StreamCode> {
        self.stop_code
    }

    /// Ends this direction with a code, at once: what the peer has not read yet is lost.
    pub fn reset(&mut self, code: StreamCode) {
        if self.state == State::Open {
            self.state = State::Reset;
            if self.watched {
                self.connection.watched_resets.fetch_add(1, Ordering::Relaxed);
            }
            // Fails only if the stream is closed already.
            let _ = self.stream.reset(VarInt::from_u32(code.into()));
        }
    }

    /// Ends this direction with a code, after the peer has acknowledged what was sent before, or a second later.
    pub async fn reset_after_delivery(&mut self, code: StreamCode) {
        // Running into the limit means that bytes are lost to a peer that does not answer.
        let _ = tokio::time::timeout(RESET_WAITS, self.credit.drained()).await;
        self.reset(code);
    }

    /// Priority by attained service: a dial that has sent little lately goes before the others.
    fn adjust_priority(&mut self, bytes: usize) {
        let class = self.flow.attain(bytes);
        if class != self.class {
            self.class = class;
            let priority = if class == Class::Interactive { INTERACTIVE_PRIORITY } else { BULK_PRIORITY };
            // A stream that is closed already needs no priority.
            let _ = self.stream.set_priority(priority);
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.reset(StreamCode::Aborted);
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct ReceiveHalf {
    stream: quinn::RecvStream,
    /// Bytes behind the message at the head of the stream.
    head: BytesMut,
    flow: Arc<DialFlow>,
    /// Bytes of the last chunk read: about what a packet of this path holds.
    chunk_bytes: usize,
    open: bool,
}

impl ReceiveHalf {
    pub(crate) fn new(stream: quinn::RecvStream, flow: Arc<DialFlow>) -> Self {
        Self { stream, head: BytesMut::new(), flow, chunk_bytes: 0, open: true }
    }

    /// Reads one message; bytes behind it stay for the next read.
    ///
    /// # Errors
    /// [`MessageError`]; the stream is of no more use then.
    ///
    /// # Cancel safety
    /// Safe: bytes that were read are kept.
    pub async fn read_message<M: prost::Message + Default>(&mut self, max: usize) -> Result<M, MessageError> {
        loop {
            if let Some(message) = codec::decode(&mut self.head, max)? {
                if self.head.is_empty() {
                    // Gives the buffer back: most dials are idle.
                    self.head = BytesMut::new();
                }
                return Ok(message);
            }
            // One chunk beyond the limit cannot make the buffer grow: the decoder refuses what is too long first.
            match self.stream.read_chunk(max, true).await.map_err(receive_error)? {
                Some(chunk) => self.head.extend_from_slice(&chunk.bytes),
                None => {
                    self.open = false;
                    return Err(MessageError::Ended);
                }
            }
        }
    }

    /// Waits for bytes and takes all that have arrived, up to a batch; `None` at the end of the stream. A waiting dial
    /// holds no batch.
    ///
    /// # Cancel safety
    /// Safe: bytes are either in the batch or still in the stream.
    pub(crate) async fn read_batch(&mut self) -> Result<Option<Batch>, ReceiveError> {
        if !self.head.is_empty() {
            return Ok(Some(Batch::of(std::mem::take(&mut self.head).freeze())));
        }
        let read = poll_fn(|cx| {
            let mut batch = Batch::take();
            let read = pin!(self.stream.read_chunks(batch.space(self.chunk_bytes))).poll(cx);
            read.map_ok(|chunks| chunks.map(|chunks| batch.filled(chunks)))
        });
        let batch = read.await.map_err(receive_error)?;
        match &batch {
            Some(batch) => self.chunk_bytes = batch.first_bytes(),
            None => self.open = false,
        }
        Ok(batch)
    }

    /// Waits until the peer gives this direction up: a reset, or the loss of the connection. Pending for ever after a
    /// clean end. While bytes wait to be read, a reset is seen a little later, and the loss is not.
    ///
    /// The library's own function for it leaves its waker in the connection, for good, when the stream ends before
    /// anything else happens to it (quinn 0.11.12: a leak for each such dial, and a panic in debug builds). Reading
    /// nothing tells the same.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn given_up(&mut self) -> ReceiveError {
        loop {
            match self.stream.read_chunk(0, true).await {
                Ok(Some(_nothing)) => tokio::time::sleep(RESET_CHECK).await,
                Ok(None) => {
                    self.open = false;
                    std::future::pending().await
                }
                Err(error) => return receive_error(error),
            }
        }
    }

    /// Tells the peer that no more bytes of this direction are wanted.
    pub fn stop(&mut self, code: StreamCode) {
        if std::mem::take(&mut self.open) {
            // Fails only if the stream is closed already.
            let _ = self.stream.stop(VarInt::from_u32(code.into()));
        }
    }

    pub(crate) fn flow(&self) -> &Arc<DialFlow> {
        &self.flow
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        self.stop(StreamCode::Aborted);
    }
}

/// Both halves of a dial's stream.
#[derive(Debug)]
pub struct DialStream {
    /// Towards the peer.
    pub send: SendHalf,
    /// From the peer.
    pub receive: ReceiveHalf,
}

impl DialStream {
    /// Gives both directions up with the same code.
    pub fn abort(&mut self, code: StreamCode) {
        self.send.reset(code);
        self.receive.stop(code);
    }

    /// What the dial has carried so far.
    pub fn flow(&self) -> &Arc<DialFlow> {
        &self.receive.flow
    }
}

pub(crate) fn send_error(error: quinn::WriteError) -> SendError {
    match error {
        quinn::WriteError::Stopped(code) => SendError::Stopped(StreamCode::from_u64(code.into_inner())),
        quinn::WriteError::ConnectionLost(error) => SendError::Lost(error.into()),
        quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => SendError::Closed,
    }
}

pub(crate) fn receive_error(error: quinn::ReadError) -> ReceiveError {
    match error {
        quinn::ReadError::Reset(code) => ReceiveError::Reset(StreamCode::from_u64(code.into_inner())),
        quinn::ReadError::ConnectionLost(error) => ReceiveError::Lost(error.into()),
        quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead | quinn::ReadError::ZeroRttRejected => {
            ReceiveError::Closed
        }
    }
}
