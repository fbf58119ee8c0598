//! One RPC of an agent: bytes in and packets out, from several places of one task.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use konnectivity_transport::packet::frame::PacketBuf;

use crate::{
    grpc::status::Status,
    http2::{
        answer::Answer,
        code::{Code, Gone},
        stream::Stream,
    },
};

/// The stream of an accepted request. The lock is never waited for: only one task has to do with it.
pub struct AgentStream(Mutex<Stream<PacketBuf>>);

impl AgentStream {
    /// Answers a request with this head, and leaves the RPC open.
    ///
    /// # Errors
    /// When the agent has left.
    pub fn open(mut stream: Stream<PacketBuf>, head: Answer) -> io::Result<Self> {
        stream.respond(head)?;
        Ok(Self(Mutex::new(stream)))
    }

    fn stream(&self) -> MutexGuard<'_, Stream<PacketBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes; `None`: the agent has ended its half.
    ///
    /// # Errors
    /// The RPC was cancelled, or its connection is gone.
    pub fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        self.stream().poll_data(cx)
    }

    /// Lets the agent send so many bytes more.
    pub fn release(&self, bytes: usize) {
        self.stream().release(bytes);
    }

    /// Waits until some bytes may be sent behind what is queued, and returns how many, at most `bytes`.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn poll_room(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        self.stream().poll_room(cx, bytes)
    }

    /// Waits until the RPC is over before its time.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.stream().poll_gone(cx)
    }

    /// Queues a packet.
    ///
    /// # Errors
    /// When the RPC is over.
    pub fn send(&self, packet: PacketBuf) -> io::Result<()> {
        self.stream().send(packet)
    }

    /// Ends the RPC behind what is queued.
    pub fn end(self, status: &Status) {
        self.stream().end(status.trailers());
    }

    /// Ends the RPC at once.
    pub fn reset(self) {
        self.stream().reset(Code::CANCEL);
    }
}
