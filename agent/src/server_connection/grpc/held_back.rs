//! A target that speaks first, made to wait a moment.
//!
//! The reference's server learns of a connection by one task and writes its bytes by another: what follows the answer to
//! a dial at once can overtake it, and a client of HTTP CONNECT then gets bytes before the status line. The reference's
//! client over gRPC drops bytes that come before it has looked at the answer. Targets that answer are not concerned: by
//! the client's first byte both ends know of the connection.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use konnectivity_transport::socket::Socket;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// How long a target that speaks first is not heard. The tasks of a server need microseconds, on a busy machine some
/// milliseconds.
const HOLD: Duration = Duration::from_millis(25);

/// The socket of a target of which nothing is read until something was written to it, or [`HOLD`] is over.
#[derive(Debug)]
pub(super) struct HeldBack {
    socket: TcpStream,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Begun,
    Held(Pin<Box<Sleep>>, Waker),
    Over,
}

impl HeldBack {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, hold: Hold::Begun }
    }

    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.hold, Hold::Begun) {
            self.hold = Hold::Held(Box::pin(sleep(HOLD)), cx.waker().clone());
        }
        if let Hold::Held(sleep, waker) = &mut self.hold {
            waker.clone_from(cx.waker());
            ready!(sleep.as_mut().poll(cx));
            self.hold = Hold::Over;
        }
        Poll::Ready(())
    }

    /// The client has spoken.
    fn release(&mut self) {
        if let Hold::Held(_, waker) = mem::replace(&mut self.hold, Hold::Over) {
            waker.wake();
        }
    }
}

impl Socket for HeldBack {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hold(cx));
        Socket::poll_read_ready(&mut self.socket, cx)
    }

    fn is_aborted(&mut self) -> bool {
        self.socket.is_aborted()
    }

    fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    fn unsent_bytes(&self) -> io::Result<usize> {
        self.socket.unsent_bytes()
    }
}

impl AsyncRead for HeldBack {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HeldBack {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.release();
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.release();
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
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

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};

    use super::*;

    async fn pair() -> (HeldBack, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (HeldBack::new(near), listener.accept().await.unwrap().0)
    }

    async fn ready(socket: &mut HeldBack) {
        poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn a_target_that_speaks_first_is_heard_a_moment_later() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"banner").await.unwrap();
        near.socket.readable().await.unwrap();
        let started = Instant::now();
        ready(&mut near).await;
        assert!(started.elapsed() >= HOLD);
    }

    #[tokio::test]
    async fn an_answer_is_heard_at_once() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"banner").await.unwrap();
        near.socket.readable().await.unwrap();
        let held = poll_fn(|cx| Poll::Ready(near.poll_read_ready(cx).is_pending())).await;
        assert!(held, "not before something was written, or the time is over");
        near.write_all(b"question").await.unwrap();
        assert!(matches!(near.hold, Hold::Over));
        ready(&mut near).await;
    }
}
