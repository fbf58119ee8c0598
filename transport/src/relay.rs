//! Copies bytes both ways between a dial's stream and a socket until both directions have ended.
//!
//! The two directions are joined, not raced: the first end of file finishes one half and the other half lives on.
//!
//! | seen | done |
//! |---|---|
//! | end of file from the socket | finish the stream |
//! | the socket's peer closes both directions | finish the stream, stop the peer |
//! | socket reset, or a read error | wait for the acknowledgement of what was sent, then reset the stream; stop the peer |
//! | end of the stream | shut the socket's write side down, after the last byte |
//! | stream reset by the peer, connection lost | the socket's close is a reset |
//! | the socket takes no more bytes | stop the peer's direction; the other one goes on |
//! | the peer stops our direction | read the socket and drop the bytes until the other direction has ended, then reset it |
//! | the same because its socket was closed, and its bytes have ended | close the socket |

pub(crate) mod edge;

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::edge::{Edge, LINGER};
use crate::{
    batch::Batch,
    buffer::{ReadBuffer, Size},
    connection::{ConnectionLost, shared::Shared},
    dial::OpenDial,
    mux::STALL_LIMIT,
    socket::Socket,
    stream::{ReceiveError, ReceiveHalf, SendError, SendHalf},
    wire::code::StreamCode,
};

/// A blocked sender looks this often whether its socket was reset, which no read would show it.
const ABORT_CHECK: Duration = Duration::from_millis(250);

/// How a dial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended cleanly.
    Finished,
    /// The socket at this end was reset or failed.
    SocketFailed(String),
    /// The peer gave the dial up; with the code it gave.
    PeerReset(Option<StreamCode>),
    /// One direction ended because its receiver took no more bytes, the other one cleanly.
    HalfStopped,
    /// The connection that carried the dial is gone.
    ConnectionLost(ConnectionLost),
    /// The memory budget was spent while this dial's receiver was stalled.
    OverBudget,
    /// Its receiver took next to nothing for long, and other dials of the same gRPC stream would have waited for it.
    Stalled,
    /// The peer closed the dial over gRPC and said why.
    PeerClosed(String),
}

impl Outcome {
    /// A short name for metrics and logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::SocketFailed(_) => "socket_failed",
            Self::PeerReset(_) => "peer_reset",
            Self::HalfStopped => "half_stopped",
            Self::ConnectionLost(_) => "connection_lost",
            Self::OverBudget => "over_budget",
            Self::Stalled => "stalled",
            Self::PeerClosed(_) => "peer_reset",
        }
    }

    /// What went wrong, in words.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Finished | Self::HalfStopped => None,
            Self::SocketFailed(error) => Some(error.clone()),
            Self::PeerReset(code) => Some(format!(
                "the other end gave the dial up: {}",
                code.map_or("a code that this version does not know", StreamCode::meaning)
            )),
            Self::ConnectionLost(lost) => Some(lost.to_string()),
            Self::OverBudget => Some(StreamCode::OverBudget.meaning().to_owned()),
            Self::Stalled => Some(format!(
                "the receiver took next to nothing for {} s while its buffer was full, and dials that share its gRPC stream would \
                 have to wait for it; see --grpc-slow-dials",
                STALL_LIMIT.as_secs()
            )),
            Self::PeerClosed(error) => Some(format!("the other end closed the dial: {error}")),
        }
    }
}

/// What the relay is given besides stream and socket.
#[derive(Debug, Default)]
pub struct Start {
    /// Bytes that the socket's peer has sent already; they go first.
    pub early: Bytes,
    /// Whether the first byte towards the socket, or the end, waits until its peer has read what was written before, or
    /// has sent something. A client that reads the answer to CONNECT fails if a byte of the target is read along with it.
    pub hold_until_read: bool,
}

/// Relays until both directions have ended, and returns how. What was sent may still be on its way:
/// [`SendHalf::delivered`](crate::stream::SendHalf::delivered) tells when it has arrived.
///
/// # Cancel safety
/// Dropping the future makes the socket's close a reset. The stream's halves are the caller's: dropping them resets
/// both directions.
pub async fn relay<S: Socket>(socket: S, dial: &mut OpenDial, start: Start) -> Outcome {
    let connection = dial.connection();
    let mut edge = Edge::new(socket);
    let (up, down) = {
        // Pinned here and passed by reference: by value, each would be in the future twice.
        let up = pin!(socket_to_stream(&edge, &mut dial.stream.send, start.early));
        let down = pin!(stream_to_socket(&edge, &mut dial.stream.receive, &connection, start.hold_until_read));
        join(&edge, &connection, up, down).await
    };
    conclude(&mut edge, dial, up, down).await
}

/// How the direction from the socket into the stream ended.
enum Up {
    Finished,
    SocketFailed(io::Error),
    /// The peer wants no more of it.
    Stopped(Option<StreamCode>),
    Lost(ConnectionLost),
}

/// How the direction from the stream into the socket ended.
enum Down {
    Finished,
    /// The socket takes no more bytes; the peer was told.
    SocketClosed(io::Error),
    /// The socket's peer has closed both directions.
    PeerClosed,
    Reset(Option<StreamCode>),
    OverBudget,
    Lost(ConnectionLost),
}

/// Waits for both directions, or for one whose end leaves the other nothing to do.
async fn join<S: Socket>(
    edge: &Edge<S>,
    connection: &Shared,
    mut up: Pin<&mut impl Future<Output = Up>>,
    mut down: Pin<&mut impl Future<Output = Down>>,
) -> (Option<Up>, Option<Down>) {
    let (mut up_end, mut down_end) = (None, None);
    // Nobody reads a socket whose peer has ended its bytes, so nobody else sees that peer reset or close it.
    let mut is_unwatched = false;
    loop {
        tokio::select! {
            biased;
            end = &mut up, if up_end.is_none() => up_end = Some(end),
            end = &mut down, if down_end.is_none() => down_end = Some(end),
            // An idle direction into the tunnel does not see the connection go; the other one does, unless it has ended.
            lost = connection.quinn.closed(), if up_end.is_none() && down_end.is_some() => {
                up_end = Some(Up::Lost(lost.into()));
            }
            () = tokio::time::sleep(ABORT_CHECK), if is_unwatched => {}
        }
        is_unwatched = matches!(up_end, Some(Up::Finished | Up::Stopped(_))) && down_end.is_none();
        if is_unwatched {
            let mut socket = edge.lock();
            if socket.is_closed() {
                down_end = Some(Down::PeerClosed);
            } else if socket.is_aborted() {
                down_end = Some(Down::SocketClosed(io::ErrorKind::ConnectionReset.into()));
            }
        }
        edge.down_ended.store(down_end.is_some(), Ordering::Relaxed);
        let over = match (&up_end, &down_end) {
            (Some(_), Some(_)) => true,
            (Some(Up::SocketFailed(_)), None) => true,
            // What the connection had delivered before it went is still written.
            (Some(Up::Finished | Up::Stopped(_) | Up::Lost(_)), None) => false,
            (None, Some(Down::Reset(_) | Down::OverBudget | Down::Lost(_))) => true,
            (None, Some(Down::Finished | Down::SocketClosed(_) | Down::PeerClosed)) => {
                edge.discarding.load(Ordering::Relaxed)
            }
            (None, None) => false,
        };
        if over {
            return (up_end, down_end);
        }
    }
}

/// Ends what is still open, and says how the dial ended.
async fn conclude<S: Socket>(edge: &mut Edge<S>, dial: &mut OpenDial, up: Option<Up>, down: Option<Down>) -> Outcome {
    match (up, down) {
        (Some(Up::Lost(lost)), Some(Down::Finished)) => {
            edge.linger().await;
            Outcome::ConnectionLost(dial.connection().why(lost))
        }
        (Some(Up::Lost(lost)), _) | (_, Some(Down::Lost(lost))) => Outcome::ConnectionLost(dial.connection().why(lost)),
        (_, Some(Down::Reset(code))) => {
            dial.stream.abort(StreamCode::SocketReset);
            Outcome::PeerReset(code)
        }
        (_, Some(Down::OverBudget)) => {
            dial.stream.abort(StreamCode::OverBudget);
            Outcome::OverBudget
        }
        (Some(Up::SocketFailed(error)), _) => {
            dial.stream.receive.stop(StreamCode::SocketReset);
            dial.stream.send.reset_after_delivery(StreamCode::SocketReset).await;
            Outcome::SocketFailed(error.to_string())
        }
        (Some(Up::Finished), Some(Down::Finished)) => {
            edge.clean = true;
            Outcome::Finished
        }
        (Some(Up::Finished), Some(Down::SocketClosed(_))) => {
            dial.stream.receive.stop(StreamCode::SocketClosed);
            edge.clean = true;
            Outcome::HalfStopped
        }
        (Some(Up::Finished), Some(Down::PeerClosed)) => {
            dial.stream.receive.stop(StreamCode::SocketClosed);
            edge.clean = true;
            Outcome::Finished
        }
        (_, Some(Down::SocketClosed(error))) => {
            dial.stream.abort(StreamCode::SocketClosed);
            Outcome::SocketFailed(error.to_string())
        }
        (Some(Up::Stopped(_)), Some(Down::PeerClosed)) => {
            dial.stream.receive.stop(StreamCode::SocketClosed);
            edge.clean = true;
            Outcome::HalfStopped
        }
        (Some(Up::Stopped(Some(StreamCode::SocketClosed))), Some(Down::Finished)) => {
            // The peer's socket has ended its bytes and takes no more: it was closed, and so is this one.
            edge.clean = true;
            edge.linger().await;
            Outcome::HalfStopped
        }
        (Some(Up::Stopped(_)) | None, _) | (Some(Up::Finished), None) => {
            edge.linger().await;
            Outcome::HalfStopped
        }
    }
}

async fn socket_to_stream<S: Socket>(edge: &Edge<S>, send: &mut SendHalf, early: Bytes) -> Up {
    match copy_up(edge, send, early).await {
        Up::Stopped(code) => {
            edge.discard().await;
            Up::Stopped(code)
        }
        end => end,
    }
}

async fn copy_up<S: Socket>(edge: &Edge<S>, send: &mut SendHalf, early: Bytes) -> Up {
    if !early.is_empty() {
        send.acquire(early.len()).await;
        if let Some(end) = forward(edge, send, early).await {
            return end;
        }
    }
    let mut size = Size::SMALLEST;
    let mut stop = None;
    loop {
        // An idle dial waits here, without a buffer and without credit.
        match readable(edge, send, &mut stop).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Up::SocketFailed(error),
            None => return Up::Stopped(send.stop_code()),
        }
        let held = edge.lock().held_bytes();
        if let Some(held) = held {
            let bytes = held.min(Size::LARGEST.bytes());
            send.acquire(bytes).await;
            edge.heard.store(true, Ordering::Relaxed);
            let taken = edge.lock().take_bytes(bytes);
            if let Some(end) = forward(edge, send, taken).await {
                return end;
            }
            continue;
        }
        send.acquire(size.bytes()).await;
        let mut buffer = ReadBuffer::take(size);
        let read = edge.read_now(&mut buffer).await;
        send.credit().connection().release(size.bytes() - buffer.filled().len());
        match read {
            None => continue,
            Some(Ok(0)) if edge.reset_seen() => return Up::SocketFailed(io::ErrorKind::ConnectionReset.into()),
            Some(Ok(0)) => {
                send.finish();
                return Up::Finished;
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Up::SocketFailed(error),
        }
        edge.heard.store(true, Ordering::Relaxed);
        size = size.after_read(buffer.filled().len());
        if let Some(end) = forward(edge, send, buffer.into_bytes()).await {
            return end;
        }
    }
}

/// Waits until the socket can be read. `None`: the peer has ended its own bytes and wants none either. As long as it
/// sends, it can stop this direction only while it means to go on: the next write tells.
async fn readable<S: Socket>(
    edge: &Edge<S>,
    send: &mut SendHalf,
    stop: &mut Option<Pin<Box<dyn Future<Output = Option<StreamCode>> + Send>>>,
) -> Option<io::Result<()>> {
    poll_fn(|cx| {
        if let Poll::Ready(ready) = edge.lock().poll_read_ready(cx) {
            return Poll::Ready(Some(ready));
        }
        if edge.down_ended.load(Ordering::Relaxed) {
            if stop.is_none() {
                *stop = send.stopped();
            }
            if let Some(Poll::Ready(code)) = stop.as_mut().map(|stop| stop.as_mut().poll(cx)) {
                send.was_stopped(code);
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// Sends bytes whose credit was acquired. While the stream is blocked, a reset of the socket is looked for, which no read
/// would show.
async fn forward<S: Socket>(edge: &Edge<S>, send: &mut SendHalf, bytes: Bytes) -> Option<Up> {
    let mut sent = pin!(send.send_acquired(bytes));
    loop {
        tokio::select! {
            biased;
            sent = &mut sent => return match sent {
                Ok(()) => None,
                Err(SendError::Lost(lost)) => Some(Up::Lost(lost)),
                Err(SendError::Stopped(code)) => Some(Up::Stopped(code)),
                Err(SendError::Closed) => Some(Up::Stopped(None)),
            },
            () = tokio::time::sleep(ABORT_CHECK) => {
                if edge.lock().is_aborted() {
                    return Some(Up::SocketFailed(io::ErrorKind::ConnectionReset.into()));
                }
            }
        }
    }
}

async fn stream_to_socket<S: Socket>(
    edge: &Edge<S>,
    receive: &mut ReceiveHalf,
    connection: &Shared,
    hold_until_read: bool,
) -> Down {
    let mut hold = hold_until_read;
    loop {
        let batch = match receive.read_batch().await {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                let end = pin!(async {
                    if hold {
                        edge.peer_has_read().await;
                    }
                    edge.shutdown().await
                });
                return match guarded(receive, connection, end).await {
                    Ok(Ok(())) => Down::Finished,
                    Ok(Err(error)) => Down::SocketClosed(error),
                    Err(end) => end,
                };
            }
            Err(error) => return given_up(error),
        };
        let bytes = batch.len();
        let written = write_batch(edge, receive, connection, batch, std::mem::take(&mut hold)).await;
        if let Err(end) = written {
            return end;
        }
        receive.flow().count_received(bytes);
        connection.count_received(bytes);
    }
}

async fn write_batch<S: Socket>(
    edge: &Edge<S>,
    receive: &mut ReceiveHalf,
    connection: &Shared,
    batch: Batch,
    hold: bool,
) -> Result<(), Down> {
    let flow = receive.flow().clone();
    let write = pin!(edge.write_batch(batch, hold, &flow));
    guarded(receive, connection, write).await?.map_err(|error| {
        edge.write_failed.store(true, Ordering::Relaxed);
        receive.stop(StreamCode::SocketClosed);
        Down::SocketClosed(error)
    })
}

/// Waits for an operation on the socket. While the socket takes nothing the dial counts as stalled, and can be given up.
/// When the connection is gone, what it had delivered is still written, as long as the socket takes it.
async fn guarded<O: Future<Output = io::Result<()>>>(
    receive: &mut ReceiveHalf,
    connection: &Shared,
    mut operation: Pin<&mut O>,
) -> Result<io::Result<()>, Down> {
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(operation.as_mut().poll(cx))).await {
        return Ok(done);
    }
    let flow = receive.flow().clone();
    let _stalled = connection.stall(&flow);
    let mut lost = None;
    loop {
        tokio::select! {
            biased;
            done = &mut operation => return Ok(done),
            error = receive.given_up(), if lost.is_none() => match error {
                ReceiveError::Lost(error) => lost = Some(error),
                other => return Err(given_up(other)),
            },
            error = connection.quinn.closed(), if lost.is_none() => lost = Some(error.into()),
            () = flow.evicted() => return Err(Down::OverBudget),
            () = tokio::time::sleep(ABORT_CHECK), if lost.is_some() => {
                if flow.stalled_for(Instant::now()).is_some_and(|time| time >= LINGER)
                    && let Some(lost) = lost.take()
                {
                    return Err(Down::Lost(lost));
                }
            }
        }
    }
}

fn given_up(error: ReceiveError) -> Down {
    match error {
        ReceiveError::Reset(code) => Down::Reset(code),
        ReceiveError::Lost(lost) => Down::Lost(lost),
        ReceiveError::Closed => Down::Reset(Some(StreamCode::Aborted)),
    }
}
