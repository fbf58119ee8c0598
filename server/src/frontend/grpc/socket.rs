//! An established dial of a gRPC client, as the relay sees it: a byte stream that carries packets (compat 2.4, 2.6).
//!
//! No packet ends one half of a connection: CLOSE_REQ ends both, after what came before it, and so does CLOSE_RSP.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use konnectivity_process::metrics::Counted;
use konnectivity_transport::{
    packet::{Packet, frame::PacketBuf, message::Event},
    socket::{Batch, Socket},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    client::{ONE_DIAL, UNKNOWN},
    rpc::{End, Rpc, close_dial, close_request, compact, dial_request},
    settle::Ticket,
};

/// Bytes of a target in one DATA packet. The reference's agent sends 4 KiB, its other frontend 32.
const DATA_BYTES: usize = 64 * 1024;

/// What the reference says of a stream that names two connections.
const MISMATCHED: &str = "mismatched connection IDs";

/// What is said of a connection that did not end well.
const RESET: &str = "connection reset";

/// How long after a client has acknowledged a PING it may take to put its connection on its books. The client of the
/// reference failed once in 25 dials with 3 ms, never with 20.
const SETTLE: Duration = Duration::from_millis(20);

/// The same in rounds of that PING, if they take longer, and at most.
const SETTLE_ROUNDS: u32 = 4;
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// How long a client that is told of the target's end may still send what it has sent before it heard of it. Clients of
/// the reference end their RPC at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The client's side of a dial.
pub struct GrpcSocket {
    rpc: Rpc,
    /// The client's number for the dial.
    random: i64,
    connect_id: i64,
    /// Bytes for the target that were not read yet.
    piece: Bytes,
    heard: Heard,
    /// CLOSE_RSP was sent.
    closed: bool,
    /// The dial was given up: CLOSE_RSP says so.
    aborted: Cell<bool>,
    hold: Cell<Hold>,
    /// Since when bytes wait for room, counted as such.
    waiting: Option<(Instant, Counted)>,
    /// The task that relays.
    waker: Waker,
    /// Runs since CLOSE_RSP.
    last_words: Option<Pin<Box<Sleep>>>,
}

/// What is known of the client's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Open,
    /// It has closed the connection.
    Closed,
    /// It has left without closing.
    Gone,
}

/// Whether the target's first byte may be sent.
#[derive(Debug, Clone, Copy)]
enum Hold {
    Unasked,
    Asked(Ticket, Instant),
    Until(Instant),
    Over,
}

impl GrpcSocket {
    /// A connection whose client was told of it just now.
    pub fn new(rpc: Rpc, random: i64, connect_id: i64) -> Self {
        Self {
            rpc,
            random,
            connect_id,
            piece: Bytes::new(),
            heard: Heard::Open,
            closed: false,
            aborted: Cell::new(false),
            hold: Cell::new(Hold::Unasked),
            waiting: None,
            waker: Waker::noop().clone(),
            last_words: None,
        }
    }

    /// Sends CLOSE_RSP if it was not sent.
    fn close(&mut self, error: &str) {
        if !std::mem::replace(&mut self.closed, true) {
            self.rpc.send_packet(&Packet::close_response(self.connect_id, error));
        }
    }

    /// Reads packets until there are bytes, or the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waker.clone_from(cx.waker());
        while self.piece.is_empty() && self.heard == Heard::Open {
            let Poll::Ready(event) = self.rpc.poll_event(cx) else {
                ready!(self.poll_last_words(cx));
                self.heard = Heard::Closed;
                break;
            };
            match event {
                Ok(Event::Data { connect_id, bytes, .. }) => self.take_data(connect_id, bytes)?,
                Ok(Event::Packet(packet)) => self.take_packet(&packet),
                Err(end) => self.take_end(&end)?,
            }
        }
        match self.heard {
            Heard::Gone if self.piece.is_empty() => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready when a client that was told of the end has had its time.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed {
            return Poll::Pending;
        }
        self.last_words.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS))).as_mut().poll(cx)
    }

    fn take_data(&mut self, connect_id: i64, bytes: Bytes) -> io::Result<()> {
        if connect_id == self.connect_id {
            self.piece = bytes;
        } else if connect_id != 0 {
            self.rpc.send_packet(&Packet::close_response(connect_id, MISMATCHED));
            self.close(MISMATCHED);
            self.heard = Heard::Gone;
            return Err(io::Error::new(io::ErrorKind::InvalidData, MISMATCHED));
        }
        Ok(())
    }

    fn take_packet(&mut self, packet: &Packet) {
        if let Some(connect_id) = close_request(packet) {
            if connect_id == self.connect_id {
                self.heard = Heard::Closed;
                // What came before is on its way to the target already.
                self.close("");
            } else {
                self.rpc.send_packet(&Packet::close_response(connect_id, UNKNOWN));
            }
        } else if close_dial(packet) == Some(self.random) {
            // A client that has given up just when its dial succeeded knows of no connection that it could close.
            self.heard = Heard::Closed;
        } else if let Some(random) = dial_request(packet) {
            self.rpc.send_packet(&Packet::dial_failed(random, ONE_DIAL));
        }
    }

    fn take_end(&mut self, end: &End) -> io::Result<()> {
        // A client that has been told of the end has nothing more to say.
        if self.closed || matches!(end, End::HalfClosed) {
            self.heard = Heard::Closed;
            return Ok(());
        }
        self.heard = Heard::Gone;
        self.closed = true;
        let error = io::Error::new(io::ErrorKind::ConnectionReset, end.to_string());
        self.rpc.end_because(end);
        Err(error)
    }

    /// Sends what there is room for, once.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        mut fill: impl FnMut(&mut PacketBuf, usize),
    ) -> Poll<io::Result<usize>> {
        self.waker.clone_from(cx.waker());
        if self.closed || self.heard != Heard::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = match self.rpc.poll_room(cx, bytes.min(DATA_BYTES)) {
            Poll::Ready(room) => room?,
            Poll::Pending => {
                let metrics = &self.rpc.connection.dials.metrics;
                self.waiting.get_or_insert_with(|| (Instant::now(), metrics.channel_full()));
                return Poll::Pending;
            }
        };
        let waited = self.waiting.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        self.rpc.connection.dials.metrics.frontend_write(waited);
        // The head goes beyond the room: a few bytes that HTTP/2 keeps until there is some.
        let mut packet = PacketBuf::data(self.connect_id, room);
        fill(&mut packet, room);
        self.rpc.send_data(packet)?;
        Poll::Ready(Ok(room))
    }
}

impl AsyncRead for GrpcSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_piece(cx))?;
        let bytes = self.piece.len().min(buffer.remaining());
        let taken = self.piece.split_to(bytes);
        buffer.put_slice(&taken);
        self.rpc.release(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GrpcSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, bytes.len(), |packet, room| packet.push(Bytes::copy_from_slice(&bytes[..room])))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close("");
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        first.map_or(Poll::Ready(Ok(0)), |slice| self.poll_write(cx, slice))
    }
}

impl Socket for GrpcSocket {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_piece(cx)
    }

    fn held_bytes(&self) -> Option<usize> {
        (!self.piece.is_empty()).then_some(self.piece.len())
    }

    fn take_bytes(&mut self, max: usize) -> Bytes {
        let bytes = self.piece.split_to(self.piece.len().min(max));
        self.rpc.release(bytes.len());
        compact(bytes)
    }

    fn poll_write_batch(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        while !batch.is_empty() {
            let bytes = batch.len();
            if bytes == 0 {
                // Chunks without bytes: an empty DATA packet would be the end to the client.
                break;
            }
            ready!(self.poll_send(cx, bytes, |packet, room| batch.take_front(room, |chunk| packet.push(chunk))))?;
        }
        Poll::Ready(Ok(()))
    }

    fn is_aborted(&mut self) -> bool {
        match self.heard {
            Heard::Closed => false,
            Heard::Gone => true,
            Heard::Open => {
                let waker = self.waker.clone();
                self.rpc.is_cancelled(&mut Context::from_waker(&waker))
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.heard == Heard::Closed && self.piece.is_empty()
    }

    fn reset_on_close(&self) {
        self.aborted.set(true);
    }

    /// The end of a dial is a packet behind the last bytes, and destroys none of them.
    fn unsent_bytes(&self) -> io::Result<usize> {
        Ok(0)
    }

    /// A clean end and an abort are told apart here already.
    fn can_reset(&self) -> bool {
        false
    }

    /// What holds the target's first byte back: bytes that the client may not know what to do with.
    fn is_unread(&self) -> io::Result<bool> {
        let settle = &self.rpc.connection.settle;
        let hold = match self.hold.get() {
            Hold::Unasked => Hold::Asked(settle.ask(), Instant::now()),
            // A client that is starved of time acknowledges late, and puts connections on its books late.
            Hold::Asked(ticket, since) if settle.is_over(ticket) => {
                Hold::Until(Instant::now() + (since.elapsed() * SETTLE_ROUNDS).clamp(SETTLE, SETTLE_MAX))
            }
            Hold::Until(time) if Instant::now() >= time => Hold::Over,
            same => same,
        };
        self.hold.set(hold);
        Ok(!matches!(hold, Hold::Over))
    }
}

impl Drop for GrpcSocket {
    fn drop(&mut self) {
        let error = if self.aborted.get() { RESET } else { "" };
        self.close(error);
    }
}
