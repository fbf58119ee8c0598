//! A connection and its socket: one task reads and writes for all streams.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use konnectivity_transport::buffer::{ReadBuffer, Size};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    code::Fault,
    out::Out,
    request::Request,
    session::{Session, Settings},
    stream::{Shared, Stream, lock},
};

/// What a connection needs of its socket.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Waits until a read may make progress, without holding a buffer for it. The read may still find nothing.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Why a connection ended that nobody wanted to end.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket has failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The client has broken a rule. What it is to be told of it waits for [`Connection::poll_farewell`].
    #[error("the client breaks the rules of HTTP/2: {0}")]
    Fault(#[from] Fault),
}

/// A request and the stream that it came on; or why there will be none.
pub type Accepted<B> = Result<(Request, Stream<B>), ConnectionError>;

/// A client's connection. Dropping it ends all of its streams.
///
/// While there is nothing to do it holds no buffer.
#[derive(Debug)]
pub struct Connection<S, B: Buf> {
    socket: S,
    shared: Shared<B>,
    started: Instant,
    /// Read and not yet looked at, and how large the buffer is that it lies in.
    input: Bytes,
    buffer: usize,
    size: Size,
    out: Out<B>,
    is_flushed: bool,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
}

impl<S: Socket, B: Buf> Connection<S, B> {
    /// The connection of a client that was accepted.
    pub fn new(socket: S, settings: Settings) -> Self {
        Self {
            socket,
            shared: Arc::new(Mutex::new(Session::new(settings))),
            started: Instant::now(),
            input: Bytes::new(),
            buffer: 0,
            size: Size::SMALLEST,
            out: Out::default(),
            is_flushed: true,
            broken: None,
        }
    }

    fn session(&self) -> MutexGuard<'_, Session<B>> {
        lock(&self.shared)
    }

    /// Does what there is to do on the socket, and returns the next request. `None`: the connection is over.
    ///
    /// # Errors
    /// The connection is over, and not as one of its ends wished.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted<B>>> {
        loop {
            let accepted = {
                let mut session = self.session();
                session.set_waker(cx.waker());
                session.accept()
            };
            if let Some((id, request)) = accepted {
                return Poll::Ready(Some(Ok((request, Stream::new(self.shared.clone(), id)))));
            }
            if let Some(fault) = self.session().fault() {
                return Poll::Ready(Some(Err(fault.into())));
            }
            let is_sent = self.write_or_break(cx);
            if is_sent && self.session().is_over() {
                // Only the socket's own task could tell what is wrong with it, and it is done.
                let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
                self.session().lose();
                return Poll::Ready(None);
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    let mut session = self.session();
                    let is_cut = session.is_within_frame();
                    session.lose();
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(is_cut.then(|| Err(error.into())));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.lost(error)))),
                Poll::Pending => {
                    let error = if self.input.is_empty() { self.broken.take() } else { None };
                    return error.map_or(Poll::Pending, |error| Poll::Ready(Some(Err(self.lost(error)))));
                }
            }
        }
    }

    /// Writes what there is to write; true if that is done. A client that takes nothing any more may have sent something
    /// before it left: that is still read.
    fn write_or_break(&mut self, cx: &mut Context<'_>) -> bool {
        if self.broken.is_none() {
            match self.poll_write(cx) {
                Poll::Ready(Err(error)) => self.broken = Some(error),
                result => return result.is_ready(),
            }
        }
        // Nobody will get it.
        self.out = Out::default();
        self.session().fill(&mut Out::default());
        false
    }

    fn lost(&mut self, error: io::Error) -> ConnectionError {
        self.session().lose();
        error.into()
    }

    /// Lets the client open no more streams; the connection ends with its last one.
    pub fn leave(&mut self) {
        self.session().leave();
    }

    /// Whether the client has begun to speak HTTP/2.
    pub fn is_greeted(&self) -> bool {
        self.session().is_greeted()
    }

    /// Sends a PING behind what is queued. One may be out at a time.
    pub fn send_ping(&mut self) {
        self.session().send_ping();
    }

    /// Whether it was answered. The connection's task finds out in [`poll_accept`](Self::poll_accept).
    pub fn take_pong(&mut self) -> bool {
        self.session().take_pong()
    }

    /// After an error: writes what the client is owed, and ends this side of the socket.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// The socket.
    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Ready when nothing more can be sent now, for want of anything to send or of room in the client's windows.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() {
                lock(&self.shared).fill(&mut self.out);
            }
            if self.out.is_empty() {
                if !self.is_flushed {
                    ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
                    self.is_flushed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let socket = Pin::new(&mut self.socket);
            let octets = ready!(self.out.gather(|slices| socket.poll_write_vectored(cx, slices)))?;
            if octets == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_flushed = false;
            let mut session = lock(&self.shared);
            self.out.advance(octets, |written| session.written(written));
        }
    }

    /// Reads once, unless there is something left of the last time; false at the end of the client's octets.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.wants_input(cx) {
            return Poll::Pending;
        }
        if self.input.is_empty() {
            let Poll::Ready(read) = self.poll_fill(cx) else {
                self.session().rest();
                return Poll::Pending;
            };
            if !read? {
                return Poll::Ready(Ok(false));
            }
        }
        let mut session = lock(&self.shared);
        session.set_now(self.started.elapsed());
        session.receive(&mut self.input, self.buffer);
        if self.input.is_empty() {
            self.input = Bytes::new();
        }
        Poll::Ready(Ok(true))
    }

    fn wants_input(&self, cx: &Context<'_>) -> bool {
        let mut session = self.session();
        if session.is_tired() {
            session.rest();
            cx.waker().wake_by_ref();
            return false;
        }
        session.wants_input()
    }

    /// Reads once; false at the end of the client's octets.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.socket.poll_read_ready(cx))?;
        let mut buffer = ReadBuffer::take(self.size);
        let mut space = ReadBuf::new(buffer.space());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
        let filled = space.filled().len();
        buffer.set_filled(filled);
        self.size = self.size.after_read(filled);
        self.buffer = buffer.space().len();
        self.input = buffer.into_bytes();
        if self.input.len() * 4 <= self.buffer {
            // It was copied.
            self.buffer = self.input.len();
        }
        Poll::Ready(Ok(filled > 0))
    }
}

impl<S, B: Buf> Drop for Connection<S, B> {
    fn drop(&mut self) {
        lock(&self.shared).lose();
    }
}

#[cfg(test)]
mod tests;
