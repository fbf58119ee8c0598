//! A client's HTTP/2 connection, with any number of RPCs on it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{
    Ping, PingPong, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use konnectivity_transport::packet::frame::PacketBuf;
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    context::Context as Shared,
    http2::{Http2Socket, TOO_LARGE_PATH, Watch},
    rpc::Rpc,
    settle::Ticket,
    status::{Code, Status, check},
};
use crate::frontend::client_stream::ClientStream;

/// For how long a client may say nothing of HTTP/2. The reference's other frontend waits as long for a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a PING may be without an answer before the connection is given up, as in the reference.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that a client may send on a dial beyond what its target takes: what a stalled dial holds.
const STREAM_WINDOW: u32 = 256 * 1024;

/// More than all windows of a connection's dials together will be: no dial may use up what others need.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Bytes of a dial that wait for the client to read them.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// RPCs of a connection at a time. The reference has no limit; one more waits at the client. All of them stalled fill
/// less than [`CONNECTION_WINDOW`].
const MAX_STREAMS: u32 = 1_000;
const _: () = assert!(MAX_STREAMS as u64 * STREAM_WINDOW as u64 <= CONNECTION_WINDOW as u64);

/// RPCs that are accepted before the other tasks of the thread have their turn.
const RPCS_A_TURN: usize = 16;

/// Memory for the books of small DATA frames that nobody has taken yet, as HTTP/2's library counts it.
const SMALL_FRAMES_BUDGET: usize = 16 * 1024 * 1024;

/// RPCs that were cancelled before they were looked at, or just now: more of them are a flood.
const MAX_RESETS: usize = 256;

type Http2 = Connection<Http2Socket<ClientStream>, PacketBuf>;

/// Serves a client until it is gone, or until the server drains and its last RPC has ended.
///
/// # Cancel safety
/// Cancelling disconnects the client.
pub async fn serve(stream: ClientStream, shared: Arc<Shared>, keep_alive: Duration, drain: CancellationToken) {
    // On the heap, and gone when it is over: what stays is kept small, most clients are idle.
    let Some(mut task) = Box::pin(connect(stream, shared, keep_alive)).await else { return };
    let draining = drain.cancelled();
    tokio::pin!(draining);
    poll_fn(|cx| {
        if !task.ending && draining.as_mut().poll(cx).is_ready() {
            task.ending = true;
            task.http2.graceful_shutdown();
        }
        task.poll(cx)
    })
    .await;
}

async fn connect(stream: ClientStream, shared: Arc<Shared>, keep_alive: Duration) -> Option<Serving> {
    let watch = Arc::<Watch>::default();
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(SMALL_FRAMES_BUDGET)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_concurrent_reset_streams(MAX_RESETS);
    let handshake = builder.handshake(Http2Socket::new(stream, watch.clone()));
    let mut http2: Http2 = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(http2)) => http2,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client did not speak HTTP/2");
            return None;
        }
        Err(_) => {
            tracing::debug!("a client said nothing");
            return None;
        }
    };
    let pings = http2.ping_pong().map(|pings| Pings::new(pings, keep_alive));
    Some(Serving { http2, pings, watch, shared, ending: false, refused: false })
}

struct Serving {
    http2: Http2,
    pings: Option<Pings>,
    watch: Arc<Watch>,
    shared: Arc<Shared>,
    /// The client was told to come no more.
    ending: bool,
    /// It has broken a rule, and was told.
    refused: bool,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut turn = 0;
            while let Poll::Ready(accepted) = self.http2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, respond))) => self.accept(request, respond),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a client's connection ended");
                        return Poll::Ready(());
                    }
                    None => return Poll::Ready(()),
                }
                turn += 1;
                if turn == RPCS_A_TURN {
                    // What one client asks for at once must not keep the others waiting.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            if !self.refused
                && let Some(violation) = self.watch.violation()
            {
                tracing::warn!(reason = violation.reason(), "a client breaks the rules of HTTP/2; disconnecting it");
                self.refused = true;
                self.http2.abrupt_shutdown(violation.code());
                continue;
            }
            let Some(pings) = &mut self.pings else { return Poll::Pending };
            match pings.poll(cx, &self.shared) {
                // What is queued leaves before the PING, and the PING with the look after that.
                Poll::Ready(Next::Again) => {}
                Poll::Ready(Next::Dead) => {
                    tracing::info!("a client has not answered a PING; disconnecting it");
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn accept(&self, request: Request<RecvStream>, mut respond: SendResponse<PacketBuf>) {
        let (head, receive) = request.into_parts();
        let too_large = head.uri.path() == TOO_LARGE_PATH;
        let refusal = if too_large {
            Err(Box::new(Status::new(Code::ResourceExhausted, "the request's headers are too large").refusal()))
        } else {
            check(&head)
        };
        match refusal {
            Ok(()) => self.shared.worker.spawn(Rpc::new(self.shared.clone(), receive, respond).serve()),
            // A client that has left cannot be told.
            Err(refusal) => drop(respond.send_response(*refusal, true)),
        }
    }
}

/// PINGs, of which HTTP/2's library lets one be out at a time: for dials that wait for the client to have heard of them,
/// and to find out whether an idle client is still there.
struct Pings {
    pings: PingPong,
    state: State,
    keep_alive: Duration,
    /// When the next thing is due: to ask a client whether it is there, or to give it up.
    due: Option<Pin<Box<Sleep>>>,
    /// The client was asked, not only for the sake of a dial: if it does not answer, it is gone.
    probing: bool,
}

#[derive(Clone, Copy)]
enum State {
    Resting,
    /// A PING goes out when what was queued before is on its way.
    Asked(Ticket),
    /// It is out.
    Sent(Ticket),
}

enum Next {
    Again,
    Dead,
}

impl Pings {
    fn new(pings: PingPong, keep_alive: Duration) -> Self {
        let due = Some(Box::pin(tokio::time::sleep(keep_alive)));
        Self { pings, state: State::Resting, keep_alive, due, probing: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Next> {
        match self.state {
            State::Sent(ticket) => {
                if self.pings.poll_pong(cx).is_pending() {
                    ready!(self.poll_due(cx));
                    if self.probing {
                        return Poll::Ready(Next::Dead);
                    }
                    self.probe();
                    return Poll::Ready(Next::Again);
                }
                shared.settle.answer(ticket);
                self.state = State::Resting;
                self.probing = false;
                self.schedule(self.keep_alive);
            }
            State::Asked(ticket) => {
                if self.pings.send_ping(Ping::opaque()).is_err() {
                    // The connection is over; it tells by itself.
                    return Poll::Pending;
                }
                self.state = State::Sent(ticket);
                return Poll::Ready(Next::Again);
            }
            State::Resting => {}
        }
        let is_idle = self.poll_due(cx).is_ready();
        let ticket = match shared.settle.poll_asked(cx) {
            Poll::Ready(ticket) => ticket,
            Poll::Pending if is_idle => Ticket::NOBODY,
            Poll::Pending => return Poll::Pending,
        };
        if is_idle {
            self.probe();
        }
        self.state = State::Asked(ticket);
        Poll::Ready(Next::Again)
    }

    fn probe(&mut self) {
        self.probing = true;
        self.schedule(PING_TIMEOUT);
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = &mut self.due else { return Poll::Pending };
        ready!(due.as_mut().poll(cx));
        self.due = None;
        Poll::Ready(())
    }

    fn schedule(&mut self, pause: Duration) {
        match &mut self.due {
            Some(due) => due.as_mut().reset(Instant::now() + pause),
            None => self.due = Some(Box::pin(tokio::time::sleep(pause))),
        }
    }
}
