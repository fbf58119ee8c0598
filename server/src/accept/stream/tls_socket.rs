//! The socket under a TLS session.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What a TLS session reads and writes: a TCP socket that can be taken out and put back, since a session can't be
/// given another one.
#[derive(Debug)]
pub struct TlsSocket {
    stream: Option<TcpStream>,
    drained: bool,
}

impl TlsSocket {
    /// A socket with `stream` in it.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: Some(stream), drained: false }
    }

    /// Whether the last read found the socket empty. If not, a read of the session may make progress although the
    /// socket isn't readable: the session reads the socket only when it has nothing to give, and until it has
    /// something; so what it has, be it plaintext, the end, or an error that it keeps for the next read, came from a
    /// read that found something.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// The stream.
    ///
    /// # Errors
    /// When it is taken out.
    pub fn stream(&self) -> io::Result<&TcpStream> {
        self.stream.as_ref().ok_or_else(taken)
    }

    /// The stream, to be changed.
    ///
    /// # Errors
    /// When it is taken out.
    pub fn stream_mut(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(taken)
    }

    /// Takes the stream out.
    ///
    /// # Errors
    /// When it is out already.
    pub fn take(&mut self) -> io::Result<TcpStream> {
        self.stream.take().ok_or_else(taken)
    }

    /// Puts a stream in.
    pub fn put(&mut self, stream: TcpStream) {
        self.stream = Some(stream);
    }

    /// The stream, unless it is taken out.
    pub fn into_stream(self) -> Option<TcpStream> {
        self.stream
    }

    fn pin(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.get_mut().stream.as_mut();
        stream.map(Pin::new).ok_or_else(taken)
    }
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is on no runtime")
}

impl AsyncRead for TlsSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.as_mut().pin()?.poll_read(cx, buffer);
        self.drained = read.is_pending();
        read
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pin()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pin()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pin()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pin()?.poll_shutdown(cx)
    }
}
