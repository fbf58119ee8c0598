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

use konnectivity_transport::{id::AgentId, identifier::Identifiers, packet::frame::PacketBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Port, hello, rpc::Connect};
use crate::{
    accept::stream::PeerStream,
    auth::{Carried, Shown},
    backend::placement::Place,
    grpc::status::{AGENT_SERVICE, Code, Status, check_for},
    http2::{
        answer::Answer,
        connection::{Connection, ConnectionError},
        pace::PingPolicy,
        request::Request,
        session::Settings,
        stream::Stream,
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

/// More than what all of them may hold: none may use up what another one needs.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Bytes that wait for the agent to read them, of which the order is no longer ours.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// How long a connection may take over its end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

type Http2 = Connection<PeerStream, PacketBuf>;

/// What the RPCs of a connection share.
pub struct Shared {
    /// What all agents share.
    pub(super) port: Arc<Port>,
    /// The thread of the connection.
    pub(super) worker: Worker,
    /// Where the agent is.
    pub(super) remote: SocketAddr,
    /// The agent's certificate in DER.
    pub(super) certificate: Option<Vec<u8>>,
    /// Something has come from the agent since the keep-alive has looked.
    pub(super) heard: Arc<AtomicBool>,
}

/// Serves an agent until it is gone, or until the server has drained.
///
/// # Cancel safety
/// Cancelling disconnects the agent.
pub async fn serve(stream: PeerStream, remote: SocketAddr, place: Place, port: Arc<Port>) {
    let settings = Settings {
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_streams: MAX_STREAMS,
        send_buffer: SEND_BUFFER_BYTES,
        pings: PingPolicy::AGENT,
    };
    let certificate = stream.peer_certificate();
    let rpcs = TaskTracker::new();
    let drain = port.drain.clone();
    let heard = Arc::<AtomicBool>::default();
    let pings = Pings::new(port.keep_alive, heard.clone());
    let shared = Arc::new(Shared { port, worker: place.worker.clone(), remote, certificate, heard });
    let http2 = Connection::new(stream, settings);
    let mut serving = Serving { http2, pings, shared, rpcs: rpcs.clone(), first: Some(place.number) };
    let idle_after_drain = async {
        drain.cancelled().await;
        // Until then dials may live, and an agent that is told to go away cuts them.
        rpcs.close();
        rpcs.wait().await;
    };
    let end = tokio::select! {
        end = poll_fn(|cx| serving.poll(cx)) => end,
        () = idle_after_drain => {
            serving.http2.leave();
            timeout(CLOSE_LIMIT, poll_fn(|cx| serving.poll(cx))).await.unwrap_or(Farewell::None)
        }
    };
    if end == Farewell::Owed {
        // Whatever goes wrong: the connection is over.
        let _ = timeout(CLOSE_LIMIT, poll_fn(|cx| serving.http2.poll_farewell(cx))).await;
    }
}

/// Whether an agent whose connection is over is to be told why.
#[derive(PartialEq, Eq)]
enum Farewell {
    None,
    Owed,
}

struct Serving {
    http2: Http2,
    pings: Pings,
    shared: Arc<Shared>,
    rpcs: TaskTracker,
    /// The number of the connection, for its first RPC.
    first: Option<u64>,
}

impl Serving {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Farewell> {
        loop {
            while let Poll::Ready(accepted) = self.http2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, stream))) => self.accept(&request, stream),
                    Some(Err(error)) => return Poll::Ready(farewell(&error)),
                    None => return Poll::Ready(Farewell::None),
                }
            }
            match ready!(self.pings.poll(cx, &mut self.http2)) {
                // What is queued leaves.
                Life::Going => {}
                Life::Over(reason) => {
                    tracing::info!(reason, "disconnecting an agent");
                    return Poll::Ready(Farewell::None);
                }
            }
        }
    }

    fn accept(&mut self, request: &Request, mut stream: Stream<PacketBuf>) {
        let (agent_id, identifiers) = match self.greet(request) {
            Ok(agent) => agent,
            Err(refusal) => return stream.refuse(refusal),
        };
        let number = self.first.take().unwrap_or_else(|| self.shared.port.placement.number());
        let writes_all = hello::writes_all(request);
        let certificate = self.shared.certificate.clone();
        let shown = Shown { carried: Carried::Grpc, token: hello::token(request), certificate };
        let connect = Connect { shared: self.shared.clone(), number, agent_id, identifiers, writes_all, shown, stream };
        let token = self.rpcs.token();
        let serve = async move {
            connect.serve().await;
            drop(token);
        };
        self.shared.worker.spawn(serve.in_current_span());
    }

    fn greet(&self, request: &Request) -> Result<(AgentId, Identifiers), Answer> {
        check_for(request, &AGENT_SERVICE)?;
        if self.shared.port.drain.is_cancelled() {
            return Err(Status::new(Code::Unavailable, "the server is draining").refusal());
        }
        hello::read(request).map_err(|status| {
            tracing::warn!(reason = status.message, "an agent was not accepted");
            status.refusal()
        })
    }
}

fn farewell(error: &ConnectionError) -> Farewell {
    let ConnectionError::Fault(fault) = error else {
        tracing::debug!(%error, "an agent's connection ended");
        return Farewell::None;
    };
    tracing::warn!(reason = fault.reason, "an agent breaks the rules of HTTP/2; disconnecting it");
    Farewell::Owed
}

enum Life {
    Going,
    Over(&'static str),
}

/// Finds out whether an agent that says nothing is still there.
struct Pings {
    state: State,
    keep_alive: Duration,
    heard: Arc<AtomicBool>,
    due: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The agent has not said anything of HTTP/2.
    Ungreeted,
    Resting,
    /// A PING is out.
    Asked,
}

impl Pings {
    fn new(keep_alive: Duration, heard: Arc<AtomicBool>) -> Self {
        Self { state: State::Ungreeted, keep_alive, heard, due: Box::pin(sleep(HANDSHAKE_TIMEOUT)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>, http2: &mut Http2) -> Poll<Life> {
        let is_good = match self.state {
            State::Ungreeted => http2.is_greeted(),
            State::Asked => http2.take_pong(),
            State::Resting => false,
        };
        if is_good {
            self.rest(State::Resting, self.keep_alive);
        }
        ready!(self.due.as_mut().poll(cx));
        let heard = self.heard.swap(false, Ordering::Relaxed);
        match self.state {
            State::Ungreeted => return Poll::Ready(Life::Over("it said nothing")),
            State::Resting if heard => self.rest(State::Resting, self.keep_alive),
            State::Resting => {
                http2.send_ping();
                self.rest(State::Asked, PING_TIMEOUT);
            }
            // It is there. Its answer may be late behind much else.
            State::Asked if heard => self.rest(State::Asked, PING_TIMEOUT),
            State::Asked => return Poll::Ready(Life::Over("it has not answered a PING")),
        }
        Poll::Ready(Life::Going)
    }

    fn rest(&mut self, state: State, pause: Duration) {
        self.state = state;
        self.due.as_mut().reset(Instant::now() + pause);
    }
}
