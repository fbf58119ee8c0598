//! What the relay needs of a byte stream that is not QUIC: a target's TCP connection, a client's TCP or Unix socket.

use std::{
    io::{self, IoSlice},
    os::fd::AsFd,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use nix::{
    getsockopt_impl, libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sockopt_impl,
    sys::socket::getsockopt,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpStream, UnixStream},
};

pub use crate::batch::Batch;

/// A stream socket at the edge of the tunnel.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Waits until a read may make progress, without holding a buffer for it. A read may still find nothing;
    /// then wait again.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes that a read would give and that this end holds already, if it holds them in a form that
    /// [`Self::take_bytes`] can give away. `None`: they must be read.
    fn held_bytes(&self) -> Option<usize> {
        None
    }

    /// Gives bytes away that [`Self::held_bytes`] counted, at most `max`, without a copy.
    fn take_bytes(&mut self, max: usize) -> Bytes {
        let _ = max;
        Bytes::new()
    }

    /// Writes all of a batch and flushes, over as many calls as it takes.
    ///
    /// # Errors
    /// As writing fails.
    fn poll_write_batch(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let mut socket = Pin::new(self);
        while !batch.is_empty() {
            let mut slices = [IoSlice::new(&[]); Batch::CHUNKS];
            let filled = batch.slices(&mut slices);
            let written = ready!(socket.as_mut().poll_write_vectored(cx, &slices[..filled]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            batch.advance(written);
        }
        socket.poll_flush(cx)
    }

    /// Whether the peer has reset the connection. It tells of an abort while nobody reads because the other side
    /// takes no bytes.
    fn is_aborted(&mut self) -> bool;

    /// Whether the peer has closed the connection for both directions. It is asked when its last byte was read. A TCP
    /// connection does not tell: its end may be that of one half.
    fn is_closed(&self) -> bool {
        false
    }

    /// Makes the close that follows an abort instead of a clean end: TCP sends RST. A Unix socket has no such
    /// thing and closes as usual.
    fn reset_on_close(&self);

    /// Whether an abort can be told from a clean end on this kind of socket.
    fn can_reset(&self) -> bool {
        true
    }

    /// Bytes of kernel memory that hold what was written and the peer has not taken yet. For a Unix socket, zero
    /// means that the peer has read everything; for TCP, that its kernel has acknowledged everything.
    ///
    /// # Errors
    /// What the kernel says to the query.
    fn unsent_bytes(&self) -> io::Result<usize>;

    /// Whether the peer may not have read, or understood, what was written first. It is asked again until it is not so.
    ///
    /// # Errors
    /// As [`Self::unsent_bytes`].
    fn is_unread(&self) -> io::Result<bool> {
        Ok(self.unsent_bytes()? > 0)
    }
}

impl Socket for TcpStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    fn is_aborted(&mut self) -> bool {
        let ready = pin!(self.ready(Interest::ERROR)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_error())
    }

    fn reset_on_close(&self) {
        // A socket that is gone already needs no reset.
        let _ = self.set_zero_linger();
    }

    fn unsent_bytes(&self) -> io::Result<usize> {
        memory(self, WRITE_QUEUED)
    }
}

impl Socket for UnixStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UnixStream::poll_read_ready(self, cx)
    }

    fn is_aborted(&mut self) -> bool {
        false
    }

    /// A peer that has ended its half only does not count.
    fn is_closed(&self) -> bool {
        let mut sockets = [PollFd::new(self.as_fd(), PollFlags::empty())];
        let both_ended = |socket: &PollFd<'_>| socket.revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP));
        poll(&mut sockets, PollTimeout::ZERO).is_ok() && both_ended(&sockets[0])
    }

    fn reset_on_close(&self) {}

    fn can_reset(&self) -> bool {
        false
    }

    fn unsent_bytes(&self) -> io::Result<usize> {
        memory(self, WRITE_ALLOCATED)
    }
}

/// Places in the answer to SO_MEMINFO (linux/sock_diag.h, `SK_MEMINFO_WMEM_ALLOC` and `SK_MEMINFO_WMEM_QUEUED`).
const WRITE_ALLOCATED: usize = 2;
const WRITE_QUEUED: usize = 5;

sockopt_impl!(
    /// Kernel memory of a socket, by purpose.
    MemoryInfo, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]
);

fn memory(socket: &impl AsFd, place: usize) -> io::Result<usize> {
    let info = getsockopt(socket, MemoryInfo).map_err(io::Error::from)?;
    Ok(info[place] as usize)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_tells_a_peer_that_is_gone_from_one_that_has_ended_its_half() {
        let (near, mut far) = UnixStream::pair().unwrap();
        assert!(!near.is_closed());
        far.shutdown().await.unwrap();
        assert!(!near.is_closed());
        drop(far);
        assert!(near.is_closed());
    }

    #[tokio::test]
    async fn a_unix_socket_tells_when_its_peer_has_read_everything() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(near.unsent_bytes().unwrap(), 0);
        near.write_all(b"hello").await.unwrap();
        assert!(near.unsent_bytes().unwrap() > 0);
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(near.unsent_bytes().unwrap(), 0);
    }
}
