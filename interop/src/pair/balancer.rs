//! One UDP address in front of several servers, as a load balancer has it: each new source port is given to the next
//! server in turn, and stays with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Larger than any datagram.
const DATAGRAM_BYTES: usize = 65_536;

/// A running balancer; it forwards nothing any more when this is dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    given: Arc<Mutex<Vec<SocketAddr>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    /// Starts one on 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start(servers: Vec<SocketAddr>) -> io::Result<Self> {
        Self::at(0, servers).await
    }

    /// Starts one on this port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port is not free.
    pub async fn at(port: u16, servers: Vec<SocketAddr>) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await?);
        let address = socket.local_addr()?;
        let given = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(socket, servers, given.clone()));
        Ok(Self { address, given, _tasks: tasks })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which server each source port was given to, in the order of their first packets.
    pub fn given(&self) -> Vec<SocketAddr> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn forward(front: Arc<UdpSocket>, servers: Vec<SocketAddr>, given: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut back = JoinSet::new();
    let mut turn = servers.iter().cycle();
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        // An error is about an earlier datagram that could not be delivered.
        let Ok((length, client)) = front.recv_from(&mut datagram).await else { continue };
        let way = match ways.entry(client) {
            Entry::Occupied(way) => way.into_mut(),
            Entry::Vacant(vacant) => {
                let Some(server) = turn.next() else { return };
                let Ok(way) = connected(*server).await else { continue };
                let way = Arc::new(way);
                given.lock().unwrap_or_else(PoisonError::into_inner).push(*server);
                back.spawn(answer(way.clone(), front.clone(), client));
                vacant.insert(way)
            }
        };
        // A server that is not there is the client's to notice.
        let _ = way.send(&datagram[..length]).await;
    }
}

async fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn answer(way: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        // An error says that the server is not there; it may return.
        if let Ok(length) = way.recv(&mut datagram).await {
            let _ = front.send_to(&datagram[..length], client).await;
        }
    }
}
