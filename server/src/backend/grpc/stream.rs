//! One RPC of an agent as bytes in and packets out. The only file here that knows the HTTP/2 library, but for the one of
//! its connection.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderName, HeaderValue};
use konnectivity_transport::packet::frame::PacketBuf;

use crate::frontend::grpc::{
    room::{self, broken},
    status::{Status, accepted},
};

/// What comes from the agent.
pub struct Incoming(RecvStream);

/// What goes to it.
pub struct Outgoing(SendStream<PacketBuf>);

impl Incoming {
    /// What an accepted request brings.
    pub fn new(receive: RecvStream) -> Self {
        Self(receive)
    }

    /// The next bytes; `None`: the agent has ended its half.
    ///
    /// # Errors
    /// The RPC was cancelled, or its connection is gone.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.0.poll_data(cx).map_err(broken)
    }

    /// So many bytes are done with: the agent may send as many more.
    pub fn release(&mut self, bytes: usize) {
        // An RPC that is over needs no room.
        let _ = self.0.flow_control().release_capacity(bytes);
    }
}

impl Outgoing {
    /// Answers a request with headers, `fields` among them, and leaves the RPC open.
    ///
    /// # Errors
    /// When the agent has left.
    pub fn respond(
        mut respond: SendResponse<PacketBuf>,
        fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> io::Result<Self> {
        let mut response = accepted();
        response.headers_mut().extend(fields);
        respond.send_response(response, false).map(Self).map_err(broken)
    }

    /// Waits until some bytes may be sent behind what is queued, and returns how many, at most `bytes`.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(room::poll_room(&mut self.0, cx, bytes)))
    }

    /// Nothing is to be sent for the time being: other RPCs of the connection may have the room.
    pub fn rest(&mut self) {
        self.0.reserve_capacity(0);
    }

    /// Queues a packet.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn send(&mut self, packet: PacketBuf) -> io::Result<()> {
        self.0.send_data(packet, false).map_err(broken)
    }

    /// Ends the RPC behind what is queued; what is returned is to be awaited.
    pub async fn end(self, status: &Status) {
        if let Some(rest) = room::end(self.0, status.trailers()) {
            rest.await;
        }
    }

    /// Ends the RPC at once.
    pub fn reset(mut self) {
        self.0.send_reset(Reason::CANCEL);
    }
}
