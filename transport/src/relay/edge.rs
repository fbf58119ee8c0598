//! The socket at one end of a dial, as the two directions of a relay see it.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::io::ReadBuf;

use crate::{
    batch::Batch,
    buffer::{ReadBuffer, Size},
    flow::DialFlow,
    socket::Socket,
};

/// How long a socket may take to accept the last bytes after its peer's other direction was given up.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// First and longest pause between two looks at a socket's send queue.
const QUEUE_CHECK: Duration = Duration::from_millis(1);
const QUEUE_CHECK_MAX: Duration = Duration::from_millis(20);

/// The socket, shared by the two directions of one task. The lock is never contended and never held over an await.
pub(crate) struct Edge<S: Socket> {
    socket: Mutex<S>,
    /// The socket's peer has sent something.
    pub(crate) heard: AtomicBool,
    /// A write has failed: an end of file after it may be a reset whose error the write has taken.
    pub(crate) write_failed: AtomicBool,
    /// The peer of the tunnel wants no more bytes; what is read is dropped.
    pub(crate) discarding: AtomicBool,
    pub(crate) down_ended: AtomicBool,
    /// Both directions have ended as their senders or the peer's close wished. Otherwise the close is a reset.
    pub(crate) clean: bool,
}

impl<S: Socket> Edge<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket: Mutex::new(socket),
            heard: AtomicBool::new(false),
            write_failed: AtomicBool::new(false),
            discarding: AtomicBool::new(false),
            down_ended: AtomicBool::new(false),
            clean: false,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn read_ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.lock().poll_read_ready(cx)).await
    }

    /// Reads what is there; `None` if there is nothing yet.
    pub(crate) async fn read_now(&self, buffer: &mut ReadBuffer) -> Option<io::Result<usize>> {
        poll_fn(|cx| {
            let mut space = ReadBuf::new(buffer.space());
            let read = Pin::new(&mut *self.lock()).poll_read(cx, &mut space);
            let filled = space.filled().len();
            buffer.set_filled(filled);
            Poll::Ready(match read {
                Poll::Ready(read) => Some(read.map(|()| filled)),
                Poll::Pending => None,
            })
        })
        .await
    }

    pub(crate) fn reset_seen(&self) -> bool {
        self.write_failed.load(Ordering::Relaxed) && self.lock().can_reset()
    }

    /// Writes all of a batch, if need be not before the peer has read what was written before. A stalled dial that goes on
    /// counts as slow, not as stuck.
    pub(crate) async fn write_batch(&self, mut batch: Batch, hold: bool, flow: &DialFlow) -> io::Result<()> {
        if hold {
            self.peer_has_read().await;
        }
        poll_fn(|cx| {
            let before = batch.written();
            let written = self.lock().poll_write_batch(cx, &mut batch);
            if written.is_pending() && batch.written() > before {
                flow.progressed();
            }
            written
        })
        .await
    }

    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.lock()).poll_shutdown(cx)).await
    }

    /// Waits until the socket's peer has read what was written so far, or has sent something, which tells the same.
    /// A failed query ends the wait: the write that follows tells more.
    pub(crate) async fn peer_has_read(&self) {
        let mut pause = QUEUE_CHECK;
        while !self.heard.load(Ordering::Relaxed) && self.lock().is_unread().is_ok_and(|unread| unread) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(QUEUE_CHECK_MAX);
        }
    }

    /// Reads and drops what still comes, so that the sender is not blocked before it has taken its own bytes. Ends at
    /// the end of the socket's bytes, or at once if nothing goes the other way any more.
    pub(crate) async fn discard(&self) {
        self.discarding.store(true, Ordering::Relaxed);
        while !self.down_ended.load(Ordering::Relaxed) && self.read_ready().await.is_ok() {
            let mut buffer = ReadBuffer::take(Size::SMALLEST);
            if let Some(Ok(0) | Err(_)) = self.read_now(&mut buffer).await {
                return;
            }
        }
    }

    /// Waits until the socket's peer has acknowledged the last byte, so that the reset that follows cannot destroy it.
    pub(crate) async fn linger(&self) {
        let deadline = Instant::now() + LINGER;
        let mut pause = QUEUE_CHECK;
        while Instant::now() < deadline && self.lock().unsent_bytes().is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(QUEUE_CHECK_MAX);
        }
    }
}

impl<S: Socket> Drop for Edge<S> {
    fn drop(&mut self) {
        if !self.clean {
            self.lock().reset_on_close();
        }
    }
}
