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

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::atomic::AtomicUsize, time::Duration};

    use super::*;
    use crate::{
        congestion::{CongestionControl, Room},
        udp::suspicion::{Seen, Sending, Suspicion},
    };

    const BYTES: usize = 1 << 20;

    /// A socket on a path that spoils batches, as a NAT without checksum offload does.
    #[derive(Debug)]
    struct Spoils {
        inner: Arc<dyn AsyncUdpSocket>,
        spoiled: Arc<AtomicUsize>,
    }

    impl AsyncUdpSocket for Spoils {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            self.inner.clone().create_io_poller()
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            if transmit.segment_size.is_some_and(|segment| segment < transmit.contents.len()) {
                self.spoiled.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            self.inner.try_send(transmit)
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
    }

    fn client(spoiled: &Arc<AtomicUsize>, alone: &Arc<Alone>) -> quinn::Endpoint {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let inner = Arc::new(Spoils { inner: TokioRuntime.wrap_udp_socket(socket).unwrap(), spoiled: spoiled.clone() });
        let socket = Arc::new(SplitSocket { inner, alone: alone.clone() });
        let runtime = Arc::new(TokioRuntime);
        quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket, runtime).unwrap()
    }

    /// A connection from a socket whose batches are spoiled, with the controller's view of it, and its other end.
    async fn connect(
        near: &quinn::Endpoint,
        control: CongestionControl,
    ) -> (quinn::Connection, quinn::Connection, Arc<Room>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let server = quinn::ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
        let far = quinn::Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let room = Arc::<Room>::default();
        let mut transport = quinn::TransportConfig::default();
        transport.congestion_controller_factory(control.factory(32 * 1_200, room.clone()));
        client.transport_config(Arc::new(transport));
        let connecting = near.connect_with(client, far.local_addr().unwrap(), "localhost").unwrap();
        let accept = async { far.accept().await.unwrap().await.unwrap() };
        let (near_end, far_end) = tokio::join!(async { connecting.await.unwrap() }, accept);
        (near_end, far_end, room)
    }

    async fn carry(near: &quinn::Connection, far: &quinn::Connection) {
        let send = async {
            let mut stream = near.open_uni().await.unwrap();
            stream.write_all(&vec![7; BYTES]).await.unwrap();
            stream.finish().unwrap();
        };
        let receive = async { far.accept_uni().await.unwrap().read_to_end(BYTES).await.unwrap() };
        let ((), received) = tokio::join!(send, receive);
        assert_eq!(received.len(), BYTES);
    }

    /// Does each 50 ms what a connection does each second.
    async fn watch(near: &quinn::Connection, room: &Room, alone: &Arc<Alone>) {
        let (mut suspicion, mut guard) = (Suspicion::default(), None);
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let sending = suspicion.tick(Seen {
                proven: room.batches_vanish(),
                acknowledged: room.acknowledged(),
                owed: true,
                rtt: Duration::ZERO,
            });
            match sending {
                Sending::Batches => guard = None,
                _ if guard.is_none() => guard = Some(alone.add(near.remote_address())),
                _ => {}
            }
        }
    }

    /// A connection whose probes are batches, too, hears nothing at all.
    #[tokio::test]
    async fn a_path_that_spoils_batches_carries_what_is_sent() {
        for control in CongestionControl::ALL {
            let (spoiled, alone) = (Arc::<AtomicUsize>::default(), Arc::<Alone>::default());
            let near = client(&spoiled, &alone);
            let (near_end, far_end, room) = connect(&near, control).await;
            tokio::select! {
                () = watch(&near_end, &room, &alone) => {}
                () = carry(&near_end, &far_end) => {}
            }
            println!("{control}: {} batches were spoiled", spoiled.load(Ordering::Relaxed));
            assert!(spoiled.load(Ordering::Relaxed) > 0, "{control}: no batches were sent");
            assert!(!alone.has(near_end.remote_address()), "{control}: nobody says so any more");
        }
    }

    #[test]
    fn a_peer_is_served_alone_as_long_as_one_connection_says_so() {
        let alone = Arc::<Alone>::default();
        let peer = (Ipv4Addr::LOCALHOST, 9).into();
        let (first, second) = (alone.add(peer), alone.add(peer));
        drop(first);
        assert!(alone.has(peer));
        assert!(!alone.has((Ipv4Addr::LOCALHOST, 10).into()));
        drop(second);
        assert!(!alone.has(peer));
    }
}
