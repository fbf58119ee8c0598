//! A client's HTTP/2 connection, with any number of RPCs on it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use konnectivity_transport::packet::frame::PacketBuf;
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{context::Context as Shared, rpc::Rpc, settle::Ticket};
use crate::{
    accept::{linger::discard, stream::PeerStream},
    grpc::status::check,
    http2::{
        connection::{Connection, ConnectionError},
        pace::PingPolicy,
        request::Request,
        session::Settings,
        stream::Stream,
    },
};

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

/// For how long the last words to a client that has broken a rule may find no room in the kernel's buffers, and for how
/// long its own octets are awaited then, which would make TCP forget those words.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(10);
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 256 * 1024;

type Http2 = Connection<PeerStream, PacketBuf>;

/// Serves a client until it is gone, or until the server drains and its last RPC has ended.
///
/// # Cancel safety
/// Cancelling disconnects the client.
pub async fn serve(stream: PeerStream, shared: Arc<Shared>, keep_alive: Duration, drain: CancellationToken) {
    let settings = Settings {
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_streams: MAX_STREAMS,
        send_buffer: SEND_BUFFER_BYTES,
        pings: PingPolicy::CLIENT,
    };
    let mut task = Serving { http2: Connection::new(stream, settings), pings: Pings::new(keep_alive), shared };
    let draining = drain.cancelled();
    tokio::pin!(draining);
    let mut is_draining = false;
    let owes_farewell = poll_fn(|cx| {
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            task.http2.leave();
        }
        task.poll(cx)
    })
    .await;
    if owes_farewell {
        // On the heap: what stays is kept small, most clients are idle.
        Box::pin(say_farewell(&mut task.http2)).await;
    }
}

/// Whatever goes wrong here: the connection is over.
async fn say_farewell(http2: &mut Http2) {
    let said = timeout(FAREWELL_TIMEOUT, poll_fn(|cx| http2.poll_farewell(cx))).await;
    if matches!(said, Ok(Ok(()))) {
        let _ = timeout(LINGER_TIMEOUT, discard(http2.socket(), LINGER_BYTES)).await;
    }
}

struct Serving {
    http2: Http2,
    pings: Pings,
    shared: Arc<Shared>,
}

impl Serving {
    /// Ready when the connection is over; true if the client is to be told why.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let mut turn = 0;
            while let Poll::Ready(accepted) = self.http2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, stream))) => self.accept(&request, stream),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a client's connection ended");
                        return Poll::Ready(Self::is_fault(&error));
                    }
                    None => return Poll::Ready(false),
                }
                turn += 1;
                if turn == RPCS_A_TURN {
                    // What one client asks for at once must not keep the others waiting.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            match self.pings.poll(cx, &mut self.http2, &self.shared) {
                // What is queued leaves before the PING, and the PING with the look after that.
                Poll::Ready(Next::Again) => {}
                Poll::Ready(Next::Silent) => {
                    tracing::debug!("a client said nothing");
                    return Poll::Ready(false);
                }
                Poll::Ready(Next::Dead) => {
                    tracing::info!("a client has not answered a PING; disconnecting it");
                    return Poll::Ready(false);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_fault(error: &ConnectionError) -> bool {
        let ConnectionError::Fault(fault) = error else { return false };
        tracing::warn!(reason = fault.reason, "a client breaks the rules of HTTP/2; disconnecting it");
        true
    }

    fn accept(&self, request: &Request, mut stream: Stream<PacketBuf>) {
        match check(request) {
            Ok(()) => self.shared.worker.spawn(Rpc::new(self.shared.clone(), stream).serve()),
            Err(refusal) => stream.refuse(refusal),
        }
    }
}

/// PINGs, of which one is out at a time: for dials that wait for the client to have heard of them,
/// and to find out whether an idle client is still there.
struct Pings {
    state: State,
    keep_alive: Duration,
    /// When the next thing is due: to ask a client whether it is there, or to give it up.
    due: Option<Pin<Box<Sleep>>>,
    /// The client was asked, not only for the sake of a dial: if it does not answer, it is gone.
    probing: bool,
}

#[derive(Clone, Copy)]
enum State {
    /// The client has not said anything of HTTP/2.
    Ungreeted,
    Resting,
    /// A PING goes out when what was queued before is on its way.
    Asked(Ticket),
    /// It is out.
    Sent(Ticket),
}

enum Next {
    Again,
    Silent,
    Dead,
}

impl Pings {
    fn new(keep_alive: Duration) -> Self {
        let due = Some(Box::pin(tokio::time::sleep(HANDSHAKE_TIMEOUT)));
        Self { state: State::Ungreeted, keep_alive, due, probing: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>, http2: &mut Http2, shared: &Shared) -> Poll<Next> {
        match self.state {
            State::Ungreeted => {
                if !http2.is_greeted() {
                    ready!(self.poll_due(cx));
                    return Poll::Ready(Next::Silent);
                }
                self.state = State::Resting;
                self.schedule(self.keep_alive);
            }
            State::Sent(ticket) => {
                if !http2.take_pong() {
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
                http2.send_ping();
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
