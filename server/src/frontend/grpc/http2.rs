//! What stands between an accepted socket and the HTTP/2 library.
//!
//! ```text
//! socket --> Walker: header blocks decoded and encoded anew, all else as it is --> HTTP/2 library
//!              |                                                                      |
//!              +-- Pace: pings and floods --> Watch --> connection's task             |
//! socket <------- Sent: frame headers only <------------------------------------------+
//! ```
//!
//! The library refuses a request whose `:authority` is not one that a URI may have, which is what every client of a Unix
//! socket sends (its percent-encoded path). And it ends the whole connection for one field that it dislikes. So it is given
//! header blocks without compression and with such fields replaced, and its own header table stays empty. Blocks are
//! decoded here, within bounds of time and memory that the client cannot move.

pub mod block;
pub mod field;
pub mod goodbye;
pub mod head;
pub mod hpack;
pub mod huffman;
pub mod pace;
pub mod sent;
pub mod table;
pub mod walk;
pub mod watch;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use goodbye::Goodbye;
use pace::PingPolicy;
use sent::Sent;
use walk::Walker;

pub use field::TOO_LARGE_PATH;
pub use watch::Watch;

/// Below this much room a read goes to the stack first: there must be room for a frame header and more.
const MIN_DIRECT_BYTES: usize = 64;

/// Octets of such a read.
const STACK_BYTES: usize = 256;

/// An accepted socket, as the HTTP/2 library reads and writes it.
///
/// Payload is read straight to the library's buffer. Nothing is held on the heap while there is nothing to do, but for the
/// client's header table (at most 4096 octets by the measure of RFC 7541).
#[derive(Debug)]
pub struct Http2Socket<S> {
    socket: S,
    watch: Arc<Watch>,
    started: Instant,
    walker: Walker,
    sent: Sent,
    /// Read from the socket, not yet walked.
    input: Queue,
    /// Walked, not yet taken by the library.
    output: Queue,
    goodbye: Goodbye,
}

impl<S> Http2Socket<S> {
    /// `watch` learns how the client breaks the rules. The library must announce [`MAX_FRAME`](walk::MAX_FRAME) and
    /// [`MAX_TABLE_BYTES`](table::MAX_TABLE_BYTES), or nothing about them, for they are the defaults.
    pub fn new(socket: S, watch: Arc<Watch>) -> Self {
        Self {
            socket,
            watch,
            started: Instant::now(),
            walker: Walker::default(),
            sent: Sent::default(),
            input: Queue::default(),
            output: Queue::default(),
            goodbye: Goodbye::default(),
        }
    }

    /// The same for a peer that may ping more often or less.
    pub fn with_pings(socket: S, watch: Arc<Watch>, pings: PingPolicy) -> Self {
        let mut socket = Self::new(socket, watch);
        socket.walker.pace().set_pings(pings);
        socket
    }

    /// Octets held on the heap now, but for the header table.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.input.octets.capacity() + self.output.octets.capacity() + self.walker.held()
    }

    /// Walks octets that are new, as far as that goes now.
    fn walk(&mut self, octets: &[u8]) {
        let walked = self.walker.rewrite(octets, &mut self.output.octets);
        self.input.octets.extend_from_slice(&octets[walked..]);
        self.tell_watch();
    }

    /// Walks octets that had to wait.
    fn walk_input(&mut self) {
        let walked = self.walker.rewrite(self.input.rest(), &mut self.output.octets);
        self.input.advance(walked);
        self.tell_watch();
    }

    fn tell_watch(&mut self) {
        if let Some(violation) = self.walker.pace().violation() {
            self.input = Queue::default();
            self.watch.report(violation);
        }
    }

    fn count_sent(&mut self, written: &[u8]) {
        let pace = self.walker.pace();
        self.sent.walk(written, |head| pace.sent(head));
    }
}

impl<S: AsyncRead + Unpin> Http2Socket<S> {
    /// Reads once; false at the end of the client's octets.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if buf.remaining() < MIN_DIRECT_BYTES {
            let mut octets = [0; STACK_BYTES];
            let mut stack = ReadBuf::new(&mut octets);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut stack))?;
            self.walker.pace().set_now(self.started.elapsed());
            self.walk(stack.filled());
            return Poll::Ready(Ok(!stack.filled().is_empty()));
        }
        let start = buf.filled().len();
        buf.put_slice(self.walker.partial_head());
        let before = buf.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(cx, buf);
        let is_end = buf.filled().len() == before;
        if !matches!(result, Poll::Ready(Ok(()))) || is_end {
            buf.set_filled(start);
            return result.map_ok(|()| false);
        }
        self.walker.forget_partial_head();
        self.walker.pace().set_now(self.started.elapsed());
        let passed = start + self.walker.pass(&buf.filled()[start..]);
        self.walk(&buf.filled()[passed..]);
        buf.set_filled(passed);
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Http2Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        loop {
            this.output.hand_out(buf);
            if buf.filled().len() > start || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.walker.is_stopped() {
                if this.walker.pace().is_tired() {
                    this.walker.pace().rest();
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            if !this.input.rest().is_empty() {
                this.walk_input();
                continue;
            }
            let Poll::Ready(result) = this.poll_fill(cx, buf) else {
                this.walker.pace().rest();
                return Poll::Pending;
            };
            if !result? {
                // An end within a frame that the library has not seen must not look like an orderly one.
                let is_cut = this.walker.is_within_frame();
                return Poll::Ready(if is_cut { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) });
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http2Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let socket = Pin::new(&mut this.socket);
        let violation = this.walker.pace().violation();
        let written = match violation {
            Some(violation) if this.sent.at_boundary() => {
                ready!(this.goodbye.poll_write(socket, cx, bufs, violation.reason()))?
            }
            _ => ready!(socket.poll_write_vectored(cx, bufs))?,
        };
        let mut ahead = written;
        for buf in bufs {
            let n = ahead.min(buf.len());
            this.count_sent(&buf[..n]);
            ahead -= n;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Octets on their way; it holds no memory while it is empty.
#[derive(Debug, Default)]
struct Queue {
    octets: Vec<u8>,
    taken: usize,
}

impl Queue {
    fn rest(&self) -> &[u8] {
        &self.octets[self.taken..]
    }

    fn advance(&mut self, octets: usize) {
        self.taken += octets;
        if self.taken == self.octets.len() {
            *self = Self::default();
        }
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.rest().len().min(buf.remaining());
        if n > 0 {
            buf.put_slice(&self.rest()[..n]);
            self.advance(n);
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
