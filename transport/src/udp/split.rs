//! A UDP socket that sends batches packet by packet to peers whom batches do not reach (`congestion/batches.rs`).

use std::{
    collections::HashMap,
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// The peers of one socket whom batches do not reach.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    /// Whether there are any: almost always there are none.
    any: AtomicBool,
    /// How many connections say so of each. While they are open.
    peers: RwLock<HashMap<SocketAddr, usize>>,
}

impl Alone {
    /// Packets to this peer are sent one by one until the guard goes.
    pub(crate) fn add(self: &Arc<Self>, peer: SocketAddr) -> AloneGuard {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        *peers.entry(peer).or_default() += 1;
        self.any.store(true, Ordering::Relaxed);
        AloneGuard { peer, all: self.clone() }
    }

    fn has(&self, peer: SocketAddr) -> bool {
        self.any.load(Ordering::Relaxed)
            && self.peers.read().unwrap_or_else(PoisonError::into_inner).contains_key(&peer)
    }
}

/// See [`Alone::add`].
#[derive(Debug)]
pub(crate) struct AloneGuard {
    peer: SocketAddr,
    all: Arc<Alone>,
}

impl AloneGuard {
    /// Whom it is for.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for AloneGuard {
    fn drop(&mut self) {
        let mut peers = self.all.peers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
        self.all.any.store(!peers.is_empty(), Ordering::Relaxed);
    }
}

/// Wraps the runtime's socket.
pub(crate) fn wrap(socket: std::net::UdpSocket, alone: Arc<Alone>) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    Ok(Arc::new(SplitSocket { inner: TokioRuntime.wrap_udp_socket(socket)?, alone }))
}

struct SplitSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    alone: Arc<Alone>,
}

impl fmt::Debug for SplitSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl SplitSocket {
    fn send_one_by_one(&self, transmit: &Transmit<'_>, segment: usize) -> io::Result<()> {
        for (place, contents) in transmit.contents.chunks(segment.max(1)).enumerate() {
            let one = Transmit { contents, segment_size: None, ..*transmit };
            match self.inner.try_send(&one) {
                Ok(()) => {}
                // The library would send the whole batch again. What has no room is lost, as in any other queue.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && place > 0 => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsyncUdpSocket for SplitSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match transmit.segment_size {
            Some(segment) if self.alone.has(transmit.destination) => self.send_one_by_one(transmit, segment),
            _ => self.inner.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
