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
    backend::placement::Place,
    frontend::{
        client_stream::ClientStream,
        grpc::{
            connection::{Http2, say_farewell},
            status::{AGENT_SERVICE, Code, Status, check_for},
        },
    },
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

/// What all of them may hold.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// Bytes that wait for the agent to read them behind those of which HTTP/2's order is no longer ours.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// How long a connection may take over its end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

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
    let rpcs = TaskTracker::new();
    let heard = Arc::<AtomicBool>::default();
    let mut pings = Pings::new(port.keep_alive, heard.clone());
    let drain = port.drain.clone();
    let shared = Arc::new(Shared { port, worker: place.worker.clone(), remote, heard });
    let http2 = Connection::new(stream, settings());
    let mut serving = Serving { http2, shared, rpcs: rpcs.clone(), first: Some(place.number) };
    let over = async {
        drain.cancelled().await;
        // Until then dials may live, and an agent that is told to go away cuts them.
        rpcs.close();
        rpcs.wait().await;
    };
    let owes_farewell = tokio::select! {
        owes_farewell = poll_fn(|cx| serving.poll(cx, &mut pings)) => owes_farewell,
        () = over => {
            serving.http2.leave();
            let end = timeout(CLOSE_LIMIT, poll_fn(|cx| serving.poll(cx, &mut pings)));
            end.await.unwrap_or(false)
        }
    };
    if owes_farewell {
        say_farewell(&mut serving.http2).await;
    }
    // Counted until here.
    drop(place);
}

fn settings() -> Settings {
    Settings {
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_streams: MAX_STREAMS,
        send_buffer: SEND_BUFFER_BYTES,
        pings: PingPolicy::AGENT,
    }
}

struct Serving {
    http2: Http2,
    shared: Arc<Shared>,
    rpcs: TaskTracker,
    /// The number of the connection, for its first RPC.
    first: Option<u64>,
}

impl Serving {
    /// Ready when the connection is over; true if the agent is to be told why.
    fn poll(&mut self, cx: &mut Context<'_>, pings: &mut Pings) -> Poll<bool> {
        loop {
            while let Poll::Ready(accepted) = self.http2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, stream))) => self.accept(&request, stream),
                    Some(Err(ConnectionError::Fault(fault))) => {
                        tracing::warn!(reason = fault.reason, "an agent breaks the rules of HTTP/2; disconnecting it");
                        return Poll::Ready(true);
                    }
                    Some(Err(ConnectionError::Socket(error))) => {
                        tracing::debug!(%error, "an agent's connection ended");
                        return Poll::Ready(false);
                    }
                    None => return Poll::Ready(false),
                }
            }
            if ready!(pings.poll(cx, &mut self.http2)) == Life::Over {
                return Poll::Ready(false);
            }
            // What was queued leaves.
        }
    }

    fn accept(&mut self, request: &Request, stream: Stream<PacketBuf>) {
        let checked = check_for(request, &AGENT_SERVICE).and_then(|()| self.greet(request));
        let (agent_id, identifiers) = match checked {
            Ok(agent) => agent,
            Err(refusal) => return stream.refuse(refusal),
        };
        let number = self.first.take().unwrap_or_else(|| self.shared.port.placement.number());
        let connect = Connect { shared: self.shared.clone(), number, agent_id, identifiers, stream };
        let token = self.rpcs.token();
        let serve = async move {
            connect.serve().await;
            drop(token);
        };
        self.shared.worker.spawn(serve.in_current_span());
    }

    fn greet(&self, request: &Request) -> Result<(AgentId, Identifiers), Answer> {
        if self.shared.port.drain.is_cancelled() {
            return Err(Status::new(Code::Unavailable, "the server is draining").refusal());
        }
        hello::read(request).map_err(|status| {
            tracing::warn!(reason = status.message, "an agent was not accepted");
            status.refusal()
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
    state: Asked,
    keep_alive: Duration,
    heard: Arc<AtomicBool>,
    due: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It has not said anything of HTTP/2.
    Ungreeted,
    No,
    /// A PING is out.
    Yes,
}

impl Pings {
    fn new(keep_alive: Duration, heard: Arc<AtomicBool>) -> Self {
        Self { state: Asked::Ungreeted, keep_alive, heard, due: Box::pin(sleep(HANDSHAKE_TIMEOUT)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>, http2: &mut Http2) -> Poll<Life> {
        if self.state == Asked::Ungreeted && http2.is_greeted() || self.state == Asked::Yes && http2.take_pong() {
            self.state = Asked::No;
            self.rest(self.keep_alive);
        }
        ready!(self.due.as_mut().poll(cx));
        let heard = self.heard.swap(false, Ordering::Relaxed);
        match self.state {
            Asked::Ungreeted => {
                tracing::debug!("an agent said nothing");
                return Poll::Ready(Life::Over);
            }
            // It is there. An answer that is late behind much else may still come.
            Asked::Yes if heard => self.rest(PING_TIMEOUT),
            Asked::Yes => {
                tracing::info!("an agent has not answered a PING; disconnecting it");
                return Poll::Ready(Life::Over);
            }
            Asked::No if heard => self.rest(self.keep_alive),
            Asked::No => {
                http2.send_ping();
                self.state = Asked::Yes;
                self.rest(PING_TIMEOUT);
            }
        }
        Poll::Ready(Life::Going)
    }

    fn rest(&mut self, pause: Duration) {
        self.due.as_mut().reset(Instant::now() + pause);
    }
}
