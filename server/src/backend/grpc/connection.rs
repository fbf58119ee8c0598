//! An agent's HTTP/2 connection. Agents of the reference have one RPC on each; a few more are served as well.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{
    Ping, PingPong, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use konnectivity_transport::packet::frame::PacketBuf;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Port, hello, rpc::Connect};
use crate::{
    backend::placement::Place,
    frontend::{
        client_stream::ClientStream,
        grpc::{
            http2::{Http2Socket, TOO_LARGE_PATH, Watch, pace::PingPolicy},
            status::{AGENT_SERVICE, Code, Status, check_for},
        },
    },
    worker::Worker,
};

/// For how long an agent may say nothing of HTTP/2, as for clients.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a PING may be without an answer before the connection is given up, as in the reference.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that an agent may send beyond what was taken of its stream: enough for a gigabit at 8 ms. What dials do not take
/// waits elsewhere.
pub(super) const STREAM_WINDOW: u32 = 1024 * 1024;

/// RPCs at a time.
const MAX_STREAMS: u32 = 8;

/// What all of them may hold.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// Bytes that wait for the agent to read them behind those of which HTTP/2's order is no longer ours.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Memory for the books of small DATA frames that nobody has taken yet, as HTTP/2's library counts it.
const SMALL_FRAMES_BUDGET: usize = 16 * 1024 * 1024;

/// RPCs that were cancelled before they were looked at, or just now: more of them are a flood.
const MAX_RESETS: usize = 64;

/// How long a connection may take over its end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

type Http2 = Connection<Http2Socket<ClientStream>, PacketBuf>;

/// What the RPCs of a connection share.
pub struct Shared {
    /// What all agents share.
    pub(super) port: Arc<Port>,
    /// The thread of the connection.
    pub(super) worker: Worker,
    /// Where the agent is.
    pub(super) remote: SocketAddr,
    /// Something has come from the agent since the keep-alive has looked.
    pub(super) heard: Arc<AtomicBool>,
}

/// Serves an agent until it is gone, or until the server has drained.
///
/// # Cancel safety
/// Cancelling disconnects the agent.
pub async fn serve(stream: ClientStream, remote: SocketAddr, place: Place, port: Arc<Port>) {
    let Some((http2, watch)) = Box::pin(connect(stream)).await else { return };
    let rpcs = TaskTracker::new();
    let keep_alive = port.keep_alive;
    let (drain, close) = (port.drain.clone(), port.close.clone());
    let heard = Arc::<AtomicBool>::default();
    let shared = Arc::new(Shared { port, worker: place.worker.clone(), remote, heard: heard.clone() });
    let mut serving = Serving { http2, watch, shared, rpcs: rpcs.clone(), first: Some(place.number), refused: false };
    let pings = serving.http2.ping_pong().map(|pings| Pings::new(pings, keep_alive, heard));
    let over = async {
        drain.cancelled().await;
        // Until then dials may live, and an agent that is told to go away cuts them.
        rpcs.close();
        rpcs.wait().await;
    };
    let mut pings = pings;
    tokio::select! {
        () = poll_fn(|cx| serving.poll(cx, &mut pings)) => return,
        () = over => {}
    }
    serving.http2.graceful_shutdown();
    let end = async {
        poll_fn(|cx| serving.poll(cx, &mut pings)).await;
    };
    tokio::select! {
        () = end => {}
        () = sleep(CLOSE_LIMIT) => {}
    }
    drop(close);
    drop(place);
}

async fn connect(stream: ClientStream) -> Option<(Http2, Arc<Watch>)> {
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
    let socket = Http2Socket::with_pings(stream, watch.clone(), PingPolicy::AGENT);
    match timeout(HANDSHAKE_TIMEOUT, builder.handshake(socket)).await {
        Ok(Ok(http2)) => Some((http2, watch)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "an agent did not speak HTTP/2");
            None
        }
        Err(_) => {
            tracing::debug!("an agent said nothing");
            None
        }
    }
}

struct Serving {
    http2: Http2,
    watch: Arc<Watch>,
    shared: Arc<Shared>,
    rpcs: TaskTracker,
    /// The number of the connection, for its first RPC.
    first: Option<u64>,
    /// The agent has broken a rule, and was told.
    refused: bool,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>, pings: &mut Option<Pings>) -> Poll<()> {
        loop {
            while let Poll::Ready(accepted) = self.http2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, respond))) => self.accept(request, respond),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "an agent's connection ended");
                        return Poll::Ready(());
                    }
                    None => return Poll::Ready(()),
                }
            }
            if !self.refused
                && let Some(violation) = self.watch.violation()
            {
                tracing::warn!(reason = violation.reason(), "an agent breaks the rules of HTTP/2; disconnecting it");
                self.refused = true;
                self.http2.abrupt_shutdown(violation.code());
                continue;
            }
            let Some(pings) = pings else { return Poll::Pending };
            if ready!(pings.poll(cx)) == Life::Over {
                tracing::info!("an agent has not answered a PING; disconnecting it");
                return Poll::Ready(());
            }
            // What was queued leaves.
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<PacketBuf>) {
        let (head, receive) = request.into_parts();
        let too_large = head.uri.path() == TOO_LARGE_PATH;
        let checked = if too_large {
            Err(Box::new(Status::new(Code::ResourceExhausted, "the request's headers are too large").refusal()))
        } else {
            check_for(&head, &AGENT_SERVICE).and_then(|()| self.greet(&head.headers))
        };
        let (agent_id, identifiers) = match checked {
            Ok(agent) => agent,
            Err(refusal) => {
                // An agent that has left cannot be told.
                let _ = respond.send_response(*refusal, true);
                return;
            }
        };
        let number = self.first.take().unwrap_or_else(|| self.shared.port.placement.number());
        let connect = Connect { shared: self.shared.clone(), number, agent_id, identifiers, receive, respond };
        let token = self.rpcs.token();
        let serve = async move {
            connect.serve().await;
            drop(token);
        };
        self.shared.worker.spawn(serve.in_current_span());
    }

    fn greet(
        &self,
        headers: &http::HeaderMap,
    ) -> Result<
        (konnectivity_transport::id::AgentId, konnectivity_transport::identifier::Identifiers),
        Box<http::Response<()>>,
    > {
        if self.shared.port.drain.is_cancelled() {
            return Err(Box::new(Status::new(Code::Unavailable, "the server is draining").refusal()));
        }
        hello::read(headers).map_err(|status| {
            tracing::warn!(reason = status.message, "an agent was not accepted");
            Box::new(status.refusal())
        })
    }
}

#[derive(PartialEq, Eq)]
enum Life {
    Going,
    Over,
}

/// Finds out whether an agent that says nothing is still there.
struct Pings {
    pings: PingPong,
    keep_alive: Duration,
    heard: Arc<AtomicBool>,
    /// Whether a PING is out.
    asked: bool,
    due: Pin<Box<Sleep>>,
}

impl Pings {
    fn new(pings: PingPong, keep_alive: Duration, heard: Arc<AtomicBool>) -> Self {
        Self { pings, keep_alive, heard, asked: false, due: Box::pin(sleep(keep_alive)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Life> {
        if self.asked && self.pings.poll_pong(cx).is_ready() {
            self.asked = false;
            self.rest(self.keep_alive);
        }
        ready!(self.due.as_mut().poll(cx));
        let heard = self.heard.swap(false, Ordering::Relaxed);
        if heard {
            // It is there. An answer that is late behind much else may still come.
            self.rest(if self.asked { PING_TIMEOUT } else { self.keep_alive });
            return Poll::Ready(Life::Going);
        }
        if self.asked || self.pings.send_ping(Ping::opaque()).is_err() {
            return Poll::Ready(Life::Over);
        }
        self.asked = true;
        self.rest(PING_TIMEOUT);
        Poll::Ready(Life::Going)
    }

    fn rest(&mut self, pause: Duration) {
        self.due.as_mut().reset(Instant::now() + pause);
    }
}
