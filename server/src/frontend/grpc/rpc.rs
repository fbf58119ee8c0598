//! One RPC: packets from a client, packets to it, and what it asks for, one dial at a time (compat 2.2 to 2.6).

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use konnectivity_process::metrics::Counted;
use konnectivity_transport::packet::{
    CloseDial, CloseRequest, DialRequest, Packet, PacketType, Payload,
    frame::PacketBuf,
    message::{DecodeError, Decoder, Event},
};

use super::{client::GrpcClient, context::Context as Connection};
use crate::{
    grpc::status::{Code, Status, accepted},
    http2::{
        code::{self, Gone},
        stream::Stream,
    },
    metrics::Segment,
};

/// What the reference says to DATA that comes before a dial.
const NOT_INITIALIZED: &str = "backend not initialized";
/// And to CLOSE_REQ.
const UNINITIALIZED: &str = "backend uninitialized";

/// What a client may ask for; the reference's agent would dial any network that Go knows.
const NETWORKS: [&str; 4] = ["tcp", "tcp4", "tcp6", ""];

/// Packets that are taken before the other tasks of the thread have their turn.
const EVENTS_A_TURN: usize = 256;

/// Packets that may wait for room before the client is listened to again.
const MAX_ANSWERS: usize = 16;

/// An RPC of a client, whether it dials just now or not.
pub struct Rpc {
    pub(super) connection: Arc<Connection>,
    stream: Stream<PacketBuf>,
    way: Way,
    decoder: Decoder,
    /// Bytes received whose room in the window was not given back yet.
    unreleased: usize,
    /// Packets queued since there was room for more.
    answers: usize,
    /// Packets taken since other tasks had their turn.
    turn: usize,
    _counted: Counted,
}

/// The way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing was said yet: the answer's head goes with the first packet.
    Silent,
    Open,
    /// The RPC has ended, for all that it is told.
    Over,
}

/// Why there are no more packets from a client.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client has ended its half of the RPC.
    #[error("the client has ended the RPC")]
    HalfClosed,
    /// It has ended in the middle of a message.
    #[error("unexpected EOF")]
    Cut,
    /// The RPC was cancelled or its connection is gone.
    #[error("the client has left: {0}")]
    Left(Gone),
    /// What it sent is no packet.
    #[error("{0}")]
    Malformed(#[from] DecodeError),
}

impl Rpc {
    /// An RPC that was accepted.
    pub fn new(connection: Arc<Connection>, stream: Stream<PacketBuf>) -> Self {
        let counted = connection.dials.metrics.grpc_connection();
        let decoder = Decoder::default();
        Self { connection, stream, way: Way::Silent, decoder, unreleased: 0, answers: 0, turn: 0, _counted: counted }
    }

    /// Serves what the client asks for until it dials, then leaves the RPC to the dial. Boxed: a dial that fails comes
    /// back here.
    pub fn serve(mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let stop = self.connection.dials.stop.clone();
            let request = tokio::select! {
                request = self.next_request() => request,
                () = stop.cancelled() => {
                    self.end(&Status::new(Code::Unavailable, "the server stops"));
                    return;
                }
            };
            match request {
                Ok(request) if !NETWORKS.contains(&request.protocol.as_str()) => {
                    let error = format!("dial {0}: network {0} is not supported, only tcp", request.protocol);
                    self.send_packet(&Packet::dial_failed(request.random, error));
                    self.connection.worker.clone().spawn(self.serve());
                }
                Ok(request) => {
                    let dials = self.connection.dials.clone();
                    dials.dial(GrpcClient::new(self, request.random), request.address).await;
                }
                Err(end) => self.end_because(&end),
            }
        })
    }

    /// Waits for a dial.
    async fn next_request(&mut self) -> Result<DialRequest, End> {
        loop {
            match poll_fn(|cx| self.poll_event(cx)).await? {
                Event::Packet(Packet { payload: Some(Payload::DialRequest(request)), r#type: 0 }) => {
                    return Ok(request);
                }
                // The type alone decides; without its payload it is a dial to nowhere.
                Event::Packet(packet) if packet.kind() == Some(PacketType::DialReq) => {
                    return Ok(DialRequest::default());
                }
                Event::Packet(packet) => self.refuse_early(&packet),
                Event::Data { connect_id, first, .. } => {
                    if first && connect_id != 0 {
                        self.send_packet(&Packet::close_response(connect_id, NOT_INITIALIZED));
                        return Err(self.discard().await);
                    }
                }
            }
        }
    }

    /// Reads what still comes and drops it, until the end.
    async fn discard(&mut self) -> End {
        loop {
            if let Err(end) = poll_fn(|cx| self.poll_event(cx)).await {
                return end;
            }
        }
    }

    fn refuse_early(&mut self, packet: &Packet) {
        if let Some(connect_id) = close_request(packet) {
            self.send_packet(&Packet::close_response(connect_id, UNINITIALIZED));
        }
    }

    /// The next packet, or piece of one.
    ///
    /// # Errors
    /// There will be no more.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, End>> {
        if self.answers >= MAX_ANSWERS {
            // A client that reads no answers is not listened to, until there is room or the RPC is over.
            let _ = ready!(self.poll_room(cx, 1));
            self.answers = 0;
        }
        loop {
            if self.turn >= EVENTS_A_TURN {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(event) = self.decoder.next().inspect_err(|_| self.count_error("Internal"))? {
                self.turn += 1;
                self.count(&event);
                return Poll::Ready(Ok(event));
            }
            // Whatever is left in the decoder is part of a packet whose rest must not be kept out.
            self.release(self.unreleased);
            let Poll::Ready(data) = self.stream.poll_data(cx) else {
                self.turn = 0;
                return Poll::Pending;
            };
            match data {
                Some(Ok(bytes)) => {
                    self.unreleased += bytes.len();
                    self.decoder.push(bytes);
                }
                Some(Err(error)) => {
                    self.count_error("Canceled");
                    return Poll::Ready(Err(End::Left(error)));
                }
                None if self.decoder.is_between_messages() => return Poll::Ready(Err(End::HalfClosed)),
                None => return Poll::Ready(Err(End::Cut)),
            }
        }
    }

    fn count(&self, event: &Event) {
        let kind = match event {
            Event::Packet(packet) => packet.kind(),
            Event::Data { first, .. } => first.then_some(PacketType::Data),
        };
        if let Some(kind) = kind {
            self.connection.dials.metrics.packet_received(kind);
        }
    }

    fn count_error(&self, code: &str) {
        self.connection.dials.metrics.stream_error(Segment::FromClient, code, "Unknown");
    }

    /// Gives room in the client's window back.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.unreleased);
        self.unreleased -= bytes;
        if bytes > 0 {
            self.stream.release(bytes);
        }
    }

    /// Queues a packet other than DATA. They are few for each dial, and small. An RPC that is over takes no packets; the
    /// reading side tells.
    pub fn send_packet(&mut self, packet: &Packet) {
        let _ = self.queue(packet);
    }

    /// As [`Self::send_packet`], for a packet that must be known to have found its RPC.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn queue(&mut self, packet: &Packet) -> io::Result<()> {
        if let Some(kind) = packet.kind() {
            self.connection.dials.metrics.packet_sent(kind);
            self.connection.dials.metrics.frontend_write(Duration::ZERO);
        }
        self.answers += 1;
        self.open()?.send(PacketBuf::control(packet))
    }

    fn open(&mut self) -> io::Result<&mut Stream<PacketBuf>> {
        match self.way {
            Way::Silent => self.stream.respond(accepted())?,
            Way::Open => {}
            Way::Over => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        self.way = Way::Open;
        Ok(&mut self.stream)
    }

    /// Waits until `bytes` bytes or fewer, but at least one, may be sent, and returns how many.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        self.open()?.poll_room(cx, bytes)
    }

    /// Queues a DATA packet for which there is room.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn send_data(&mut self, packet: PacketBuf) -> io::Result<()> {
        self.connection.dials.metrics.packet_sent(PacketType::Data);
        self.open()?.send(packet)
    }

    /// Whether the client has cancelled the RPC, or its connection is gone. The task of `cx` is the one that is woken
    /// when there is room again.
    pub fn is_cancelled(&mut self, cx: &mut Context<'_>) -> bool {
        self.way == Way::Over || self.stream.poll_gone(cx).is_ready()
    }

    /// Ends the RPC, behind what is queued.
    pub fn end(&mut self, status: &Status) {
        match std::mem::replace(&mut self.way, Way::Over) {
            Way::Silent => self.stream.refuse(status.refusal()),
            Way::Open => self.stream.end(status.trailers()),
            Way::Over => {}
        }
    }

    /// Ends the RPC as the client did.
    pub fn end_because(&mut self, end: &End) {
        match end {
            End::HalfClosed => self.end(&Status::ok()),
            End::Cut => self.end(&Status::new(Code::Internal, end.to_string())),
            End::Malformed(error) => self.end(&error.into()),
            // What waits for the client is dropped.
            End::Left(_) => {
                self.way = Way::Over;
                self.stream.reset(code::Code::CANCEL);
            }
        }
    }

    /// A number that no other connection of this process has.
    pub fn new_connect_id(&self) -> i64 {
        // From 1: 0 means none.
        self.connection.next_connect_id.fetch_add(1, Ordering::Relaxed).cast_signed()
    }
}

/// Whoever drops an RPC without a word has served it.
impl Drop for Rpc {
    fn drop(&mut self) {
        self.end(&Status::ok());
    }
}

/// The connection that a CLOSE_REQ names; `None` for other packets.
pub fn close_request(packet: &Packet) -> Option<i64> {
    (packet.kind()? == PacketType::CloseReq).then_some(match &packet.payload {
        Some(Payload::CloseRequest(CloseRequest { connect_id })) => *connect_id,
        _ => 0,
    })
}

/// The dial that a DIAL_CLS names.
pub fn close_dial(packet: &Packet) -> Option<i64> {
    (packet.kind()? == PacketType::DialCls).then_some(match &packet.payload {
        Some(Payload::CloseDial(CloseDial { random })) => *random,
        _ => 0,
    })
}

/// The number of the dial that a DIAL_REQ asks for.
pub fn dial_request(packet: &Packet) -> Option<i64> {
    (packet.kind()? == PacketType::DialReq).then_some(match &packet.payload {
        Some(Payload::DialRequest(request)) => request.random,
        _ => 0,
    })
}

/// Bytes that are copied rather than kept with the read buffer that they are part of, until they are acknowledged.
const COPIED_BYTES: usize = 1024;

/// A piece that holds no more memory than a few times its size.
pub fn compact(bytes: Bytes) -> Bytes {
    if bytes.len() <= COPIED_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes }
}
