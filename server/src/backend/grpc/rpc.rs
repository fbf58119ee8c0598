//! One `Connect` of an agent: registered while it lasts, packets in and packets out.

use std::{
    future::{pending, poll_fn},
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use konnectivity_transport::{
    id::AgentId,
    identifier::Identifiers,
    mux::Mux,
    packet::{
        PacketType,
        frame::PacketBuf,
        message::{DecodeError, Decoder},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    agent::GrpcAgent,
    connection::{STREAM_WINDOW, Shared},
    credit::Credit,
    hello, packets,
    stream::AgentStream,
};
use crate::{
    auth::{Carried, Shown, TokenEnd, TokenLife},
    backend::{Backend, carrier::Carrier, registry::Registration},
    grpc::status::{Code, Status},
    http2::{code::Gone, stream::Stream},
    metrics::{Metrics, Segment},
};

/// Bytes of room that are asked for at a time: more than one DATA packet has.
const ROOM_BYTES: usize = 64 * 1024;

/// Bytes that a packet may have whatever room there is.
const SMALLEST_ROOM: usize = 1024;

/// Packets that are sent, or pieces that are taken, before the other tasks of the thread have their turn.
const A_TURN: usize = 64;

/// Bytes that are taken at a time before it is asked if the stream is to be slowed: a few larger pauses are kept better
/// than many of a millisecond.
const A_STEP: usize = 8 * 1024;

/// How long an agent stays after the server has begun to drain although it has no dial: clients that came before may
/// still ask for one.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How often a draining server looks whether an agent's last dial has ended.
const DRAIN_CHECK: Duration = Duration::from_millis(100);

/// How an agent's stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The agent has ended its half.
    #[error("the agent has ended its stream")]
    HalfClosed,
    /// It has ended in the middle of a message.
    #[error("unexpected EOF")]
    Cut,
    /// The RPC was cancelled or its connection is gone.
    #[error("the agent has left: {0}")]
    Left(Gone),
    /// What it sent is no packet.
    #[error("the agent sent no packet: {0}")]
    Malformed(#[from] DecodeError),
    /// The server has drained, or stops.
    #[error("the server stops")]
    Stopped,
    /// Its token is no longer good.
    #[error("{0}")]
    Token(TokenEnd),
}

/// An accepted `Connect`.
pub struct Connect {
    pub(super) shared: Arc<Shared>,
    /// Which connection, or RPC, of this process it is.
    pub(super) number: u64,
    pub(super) agent_id: AgentId,
    pub(super) identifiers: Identifiers,
    /// It writes what it has before it closes a target.
    pub(super) writes_all: bool,
    pub(super) shown: Shown,
    pub(super) stream: Stream<PacketBuf>,
}

impl Connect {
    /// Admits and answers the agent, then serves it until its stream ends.
    ///
    /// # Cancel safety
    /// Cancelling ends every dial and resets the stream.
    pub async fn serve(self) {
        let Self { shared, number, agent_id, identifiers, writes_all, shown, mut stream } = self;
        let port = shared.port.clone();
        let _counted = port.metrics.agent_stream();
        let admitted = match port.authentication.admit(shown, &identifiers).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                tracing::warn!(%agent_id, reason = %refusal, "an agent was not accepted");
                return stream.refuse(Status::from(&refusal).refusal());
            }
        };
        // The headers go before the agent can be picked, as in the reference: it waits for them without a limit.
        let answer = hello::answer(&port.server_id, port.membership.lasting_count());
        let Ok(stream) = AgentStream::open(stream, answer) else { return };
        let mut settings = port.mux.clone();
        if writes_all {
            settings.close_pause = Duration::ZERO;
        }
        let mux = Mux::new(settings, port.budget.clone());
        let agent = GrpcAgent::new(mux, shared.remote);
        let _lost = LoseOnDrop(agent.clone());
        let carrier = Carrier::Grpc(agent.clone());
        let backend = Arc::new(Backend::new(&agent_id, identifiers, number, carrier, shared.worker.clone()));
        let registration = port.registry.register(backend.clone());
        tracing::info!(%agent_id, carrier = "grpc", username = admitted.username, "agent connected");
        let end = tokio::select! {
            end = read(&shared, &agent, &backend, &stream) => end,
            end = write(&agent, &stream, &port.metrics) => end,
            () = drained(&shared, &agent) => End::Stopped,
            // It has the registration, which goes with it at the latest.
            end = token_end(admitted.life, &agent, registration, &port.metrics) => End::Token(end),
        };
        agent.lose(end.to_string());
        tracing::info!(%agent_id, reason = %end, "agent disconnected");
        conclude(&end, stream, &port.metrics);
    }
}

/// Tells the agent how its RPC ended.
fn conclude(end: &End, stream: AgentStream, metrics: &Metrics) {
    let (status, counted) = match end {
        End::HalfClosed => (Some(Status::ok()), None),
        End::Cut => (Some(Status::new(Code::Internal, end.to_string())), Some("Internal")),
        End::Malformed(error) => {
            let status = Status::from(error);
            let name = if status.code == Code::ResourceExhausted { "ResourceExhausted" } else { "Internal" };
            (Some(status), Some(name))
        }
        End::Stopped => (Some(Status::new(Code::Unavailable, end.to_string())), None),
        End::Token(_) => (Some(Status::new(Code::Unauthenticated, end.to_string())), None),
        // What waits for the agent is dropped.
        End::Left(_) => (None, Some("Canceled")),
    };
    if let Some(code) = counted {
        metrics.stream_error(Segment::FromAgent, code, "Unknown");
    }
    match status {
        Some(status) => stream.end(&status),
        None => stream.reset(),
    }
}

/// Ends the dials of a stream whose task is dropped.
struct LoseOnDrop(GrpcAgent);

impl Drop for LoseOnDrop {
    fn drop(&mut self) {
        self.0.lose("the server stops");
    }
}

/// Takes what the agent sends. While a dial's client takes too little, the stream is read more slowly.
async fn read(shared: &Shared, agent: &GrpcAgent, backend: &Backend, stream: &AgentStream) -> End {
    let metrics = &shared.port.metrics;
    let drain = || {
        tracing::info!(agent_id = %backend.name(), "agent drains");
        backend.drain();
    };
    let mut decoder = Decoder::default();
    let mut credit = Credit::new(STREAM_WINDOW as usize, shared.port.mux.dial_buffer);
    let (mut turn, mut since_relief) = (0, 0);
    loop {
        let bytes = match poll_fn(|cx| stream.poll_data(cx)).await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return End::Left(error),
            None if decoder.is_between_messages() => return End::HalfClosed,
            None => return End::Cut,
        };
        shared.heard.store(true, Ordering::Relaxed);
        let length = bytes.len();
        decoder.push(bytes);
        loop {
            match decoder.next() {
                Ok(Some(event)) => packets::take(agent, event, metrics, drain),
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        since_relief += length;
        let slowed = since_relief >= A_STEP && relief(agent, stream, metrics).await;
        if since_relief >= A_STEP {
            since_relief = 0;
        }
        stream.release(credit.taken(length, slowed, std::time::Instant::now()));
        turn += 1;
        if turn % A_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until more may be read, or until nothing more will come than what is here already. Whether there was anything to
/// wait for.
async fn relief(agent: &GrpcAgent, stream: &AgentStream, metrics: &Metrics) -> bool {
    let mut relief = pin!(agent.mux.relief());
    if poll_fn(|cx| Poll::Ready(relief.as_mut().poll(cx).is_ready())).await {
        return false;
    }
    let _slowed = metrics.agent_slowed();
    tokio::select! {
        () = relief => {}
        _ = poll_fn(|cx| stream.poll_gone(cx)) => {}
    }
    true
}

/// Sends what the agent is to have.
async fn write(agent: &GrpcAgent, stream: &AgentStream, metrics: &Metrics) -> End {
    let mut turn = 0;
    poll_fn(|cx| {
        loop {
            match ready!(poll_write(cx, agent, stream)) {
                Ok(Some(kind)) => metrics.packet(Segment::ToAgent, kind),
                Ok(None) => return Poll::Ready(End::Stopped),
                // The stream is over: it tells how by itself.
                Err(_) => return Poll::Pending,
            }
            turn += 1;
            if turn % A_TURN == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Sends one packet. `None`: there will be no more.
fn poll_write(cx: &mut Context<'_>, agent: &GrpcAgent, stream: &AgentStream) -> Poll<io::Result<Option<PacketType>>> {
    // A few bytes of room are no reason for a packet of a few bytes: what is beyond the window waits in HTTP/2.
    let room = ready!(stream.poll_room(cx, ROOM_BYTES))?.max(SMALLEST_ROOM);
    let next = match agent.requests.poll_request(cx) {
        Poll::Ready(request) => Some((PacketType::DialReq, PacketBuf::control(&request))),
        Poll::Pending => match agent.mux.poll_send(cx, room) {
            Poll::Ready(next) => next,
            Poll::Pending => return Poll::Pending,
        },
    };
    let Some((kind, packet)) = next else { return Poll::Ready(Ok(None)) };
    stream.send(packet)?;
    Poll::Ready(Ok(Some(kind)))
}

/// Waits until the agent's token is no longer good, if anybody minds. Then it gets no more dials, and when the last of
/// those it has is over, that is the end. Over gRPC no new token can come.
async fn token_end(
    life: Option<TokenLife>,
    agent: &GrpcAgent,
    registration: Registration<Backend>,
    metrics: &Metrics,
) -> TokenEnd {
    let Some(life) = life else { return pending().await };
    let (_nobody, none) = watch::channel(None);
    let end = life.ended(none).await;
    drop(registration);
    metrics.token_ended(Carried::Grpc, &end);
    tracing::warn!(reason = %end, "draining an agent");
    while agent.open_dials() > 0 {
        sleep(DRAIN_CHECK).await;
    }
    end
}

/// Waits until the server is to let go of the agent: its dials have ended after the server has begun to drain, or their
/// time is over. A GOAWAY would do none of that: an agent of the reference cuts its dials when it sees one.
async fn drained(shared: &Shared, agent: &GrpcAgent) {
    let port = &shared.port;
    let idle = async {
        port.drain.cancelled().await;
        sleep_until(Instant::now() + DRAIN_GRACE).await;
        while agent.open_dials() > 0 {
            sleep(DRAIN_CHECK).await;
        }
    };
    tokio::select! {
        () = idle => {}
        () = port.close.cancelled() => {}
    }
}
