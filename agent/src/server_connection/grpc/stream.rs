//! The life of a stream of packets: what is read, what is written, and what keeps the connection under it alive.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use h2::{Ping, PingPong, RecvStream, SendStream, client};
use konnectivity_transport::{
    mux::Mux,
    packet::{frame::PacketBuf, message::Decoder},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    connect::{Carrier, Io},
    dials::Incoming,
    lost::{GrpcLost, PING_LIMIT},
    status::Status,
};
use crate::metrics::Metrics;

/// How long the last frames of a connection may take.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What waits for a server that takes it slowly has this long when the stream is to be ended.
const LAST_BYTES_LIMIT: Duration = Duration::from_secs(5);

/// What came before the end of a connection is still looked at for so long: it may tell why.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// Room that is asked for in HTTP/2: twice the largest packet.
const ROOM_BYTES: usize = 64 * 1024;

/// How long the reading side has to say how the server has ended the call.
const READER_FIRST: Duration = Duration::from_secs(1);

/// A packet for a dial's bytes is not made smaller than this for want of room; what does not fit waits in HTTP/2.
const SMALLEST_ROOM: usize = 1024;

/// The server hears of so many parts of the window that they were taken.
const RELEASES_PER_WINDOW: usize = 8;

/// The window while the stream is read slowly: the reference's at its start.
const SLOW_WINDOW: usize = 64 * 1024;

/// What a stream has to do with besides its packets.
pub(super) struct Terms<'a> {
    /// Cancelled when the stream is to be ended, after what waits to be sent.
    pub(super) closing: &'a CancellationToken,
    /// Cancelled when the server wants no more streams.
    pub(super) server_drains: &'a CancellationToken,
    /// Silence after which the server is asked for a sign of life.
    pub(super) keep_alive: Duration,
}

/// Carries packets until the stream has ended, and says how. The dials are told by their mux, after that.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub(super) async fn carry(carrier: Carrier, incoming: &Incoming, terms: Terms<'_>) -> GrpcLost {
    let Carrier { mut connection, mut requests, mut send, mut receive, window } = carrier;
    let heard = Heard::now();
    let pings = connection.ping_pong();
    let undriven = AtomicBool::new(false);
    let lost = {
        let mut reading = pin!(read(&mut receive, window as usize, incoming, &heard));
        let mut writing = pin!(write(&mut send, &incoming.mux, terms.closing, &incoming.dials.metrics));
        let mut driving = pin!(drive(&mut connection, &mut requests, terms.server_drains, &undriven));
        let keep_alive = pin!(keep_alive(pings, terms.keep_alive, &heard));
        let over = tokio::select! {
            biased;
            lost = &mut reading => Over::Lost(lost),
            written = &mut writing => match written {
                Ok(()) => Over::Closing,
                Err(lost) => Over::Broken(lost),
            },
            lost = &mut driving => Over::Broken(lost),
            lost = keep_alive => Over::Lost(lost),
            () = overdue(terms.closing) => Over::Lost(GrpcLost::ClosedHere),
        };
        let end = async {
            tokio::select! {
                biased;
                lost = &mut reading => lost,
                lost = &mut driving, if !undriven.load(Ordering::Relaxed) => lost,
            }
        };
        match over {
            Over::Lost(lost) => lost,
            // The reading end may know more: a status, or that it was reset.
            Over::Broken(lost) => timeout(LAST_WORDS_LIMIT, end).await.unwrap_or(lost),
            Over::Closing => {
                // How the server ends what was ended here does not matter.
                let _ = timeout(CLOSE_LIMIT, end).await;
                GrpcLost::ClosedHere
            }
        }
    };
    if matches!(lost, GrpcLost::Malformed(_)) {
        send.send_reset(h2::Reason::PROTOCOL_ERROR);
    }
    drop((send, receive, requests));
    if !undriven.into_inner() {
        // What is left to do must not delay the next connection. Without streams, the connection closes by itself.
        incoming.dials.tasks.spawn(async move {
            let _ = timeout(CLOSE_LIMIT, connection).await;
        });
    }
    lost
}

/// When something has come from the server last.
struct Heard {
    begun: Instant,
    /// Milliseconds after `begun`.
    last: AtomicU64,
}

impl Heard {
    fn now() -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0) }
    }

    fn again(&self) {
        // 64 bits hold more milliseconds than any process lasts.
        self.last.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// Why the stream is not carried any longer.
enum Over {
    /// That is how it ended.
    Lost(GrpcLost),
    /// Nothing can be written any more, or the connection has ended.
    Broken(GrpcLost),
    /// This end has ended the stream.
    Closing,
}

/// Returns when the stream should have been ended long ago.
async fn overdue(closing: &CancellationToken) {
    closing.cancelled().await;
    sleep(LAST_BYTES_LIMIT).await;
}

/// Takes packets from the server until there are no more.
async fn read(stream: &mut RecvStream, window: usize, incoming: &Incoming, heard: &Heard) -> GrpcLost {
    let mut decoder = Decoder::default();
    let mut withheld = 0;
    while let Some(received) = stream.data().await {
        let bytes = match received {
            Ok(bytes) => bytes,
            Err(error) => return error.into(),
        };
        heard.again();
        withheld += bytes.len();
        decoder.push(bytes);
        loop {
            match decoder.next() {
                Ok(Some(event)) => incoming.handle(event),
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        let mut relief = pin!(incoming.mux.relief());
        let slowed = poll_fn(|cx| Poll::Ready(relief.as_mut().poll(cx).is_pending())).await;
        // What is on its way to a stream that is read slowly delays everybody.
        let kept = if slowed { window.saturating_sub(SLOW_WINDOW) } else { window / RELEASES_PER_WINDOW };
        if withheld > kept {
            let released = if slowed { withheld - kept } else { withheld };
            // It fails when the stream is over; the next read tells.
            let _ = stream.flow_control().release_capacity(released);
            withheld -= released;
        }
        if slowed {
            relief.await;
        }
    }
    match stream.trailers().await {
        Err(error) => error.into(),
        Ok(trailers) => match trailers.as_ref().and_then(Status::of) {
            Some(status) if !status.is_ok() => GrpcLost::Status(status),
            _ => GrpcLost::Ended,
        },
    }
}

/// Gives packets to HTTP/2 as there is room for them. Ends the stream when nothing is left and `closing` is cancelled.
async fn write(
    stream: &mut SendStream<PacketBuf>,
    mux: &Mux,
    closing: &CancellationToken,
    metrics: &Metrics,
) -> Result<(), GrpcLost> {
    let mut closing = pin!(closing.cancelled());
    loop {
        let room = room(stream).await?.max(SMALLEST_ROOM);
        let next = tokio::select! {
            biased;
            next = poll_fn(|cx| mux.poll_send(cx, room)) => next,
            () = &mut closing => None,
            () = over(stream) => return Err(GrpcLost::Ended),
        };
        match next {
            Some((kind, packet)) => {
                metrics.packet_sent(kind);
                stream.send_data(packet, false)?;
            }
            None => {
                stream.send_data(PacketBuf::default(), true)?;
                return Ok(());
            }
        }
    }
}

/// Returns when the server has ended the call, a little after the reading side has, which says how. That side may wait for
/// a target that takes nothing.
async fn over(stream: &mut SendStream<PacketBuf>) {
    let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
    sleep(READER_FIRST).await;
}

/// Waits until the server and HTTP/2's buffer have room.
async fn room(stream: &mut SendStream<PacketBuf>) -> Result<usize, GrpcLost> {
    stream.reserve_capacity(ROOM_BYTES);
    loop {
        match stream.capacity() {
            0 => match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(GrpcLost::Ended),
            },
            room => return Ok(room),
        }
    }
}

/// Moves frames until the connection has ended, which `undriven` then says. Notices that the server wants no more streams
/// (GOAWAY; RFC 9113, section 6.8); this one lives on.
async fn drive(
    connection: &mut client::Connection<Io, PacketBuf>,
    requests: &mut client::SendRequest<PacketBuf>,
    server_drains: &CancellationToken,
    undriven: &AtomicBool,
) -> GrpcLost {
    let mut told = false;
    let ended = poll_fn(|cx| {
        let ended = Pin::new(&mut *connection).poll(cx);
        if !told && let Poll::Ready(Err(error)) = requests.poll_ready(cx) {
            told = true;
            if error.is_go_away() && error.is_remote() && ended.is_pending() {
                server_drains.cancel();
            }
        }
        ended
    });
    let ended = ended.await;
    undriven.store(true, Ordering::Relaxed);
    match ended {
        Ok(()) => GrpcLost::Transport("the server has closed the connection".into()),
        Err(error) => error.into(),
    }
}

/// Asks a server for a sign of life that has said nothing for `period`. Returns when there is none.
async fn keep_alive(pings: Option<PingPong>, period: Duration, heard: &Heard) -> GrpcLost {
    // Taken once for each connection; without a connection there is nothing to keep alive.
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        let silence = heard.silence();
        if silence < period {
            sleep(period - silence).await;
            continue;
        }
        if pings.send_ping(Ping::opaque()).is_err() {
            return std::future::pending().await;
        }
        loop {
            match timeout(PING_LIMIT, poll_fn(|cx| pings.poll_pong(cx))).await {
                Ok(Ok(_)) => break heard.again(),
                Ok(Err(_)) => return std::future::pending().await,
                // It is busy sending, perhaps too much for its answer to get through.
                Err(_) if heard.silence() < PING_LIMIT => {}
                Err(_) => return GrpcLost::Silent,
            }
        }
    }
}
