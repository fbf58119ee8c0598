//! One address in front of several servers, for TCP and for UDP, as an operator's load balancer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::pair::balancer::Balancer as UdpBalancer;
use crate::peer::ports;

/// A running balancer; it forwards nothing any more when this is dropped.
#[derive(Debug)]
pub struct Balancer {
    /// Where agents connect to.
    pub address: SocketAddr,
    _udp: UdpBalancer,
    _tcp: JoinSet<()>,
}

impl Balancer {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When another program has just taken the port.
    pub async fn start(servers: Vec<SocketAddr>) -> io::Result<Self> {
        let [port] = ports::free();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let udp = UdpBalancer::at(port, servers.clone()).await?;
        let listener = TcpListener::bind(address).await?;
        let mut tcp = JoinSet::new();
        tcp.spawn(forward(listener, servers));
        Ok(Self { address, _udp: udp, _tcp: tcp })
    }
}

/// Each new connection goes to the next server in turn; one that is not there refuses it.
async fn forward(listener: TcpListener, servers: Vec<SocketAddr>) {
    let mut connections = JoinSet::new();
    let mut turn = servers.into_iter().cycle();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (Ok((client, _)), Some(server)) = (accepted, turn.next()) else { continue };
                connections.spawn(carry(client, server));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr) {
    // An end of either kind is for the two ends to understand.
    if let Ok(mut server) = TcpStream::connect(server).await {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::matrix::open::{SOON, within};

    #[tokio::test]
    async fn connections_go_to_the_servers_in_turn() {
        let [one, two] =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let balancer = Balancer::start(vec![one.local_addr().unwrap(), two.local_addr().unwrap()]).await.unwrap();
        for server in [&one, &two, &one] {
            let mut client = TcpStream::connect(balancer.address).await.unwrap();
            let reached = async { drop(server.accept().await.unwrap()) };
            within("a connection to the next server", SOON, reached).await.unwrap();
            assert_eq!(within("its end", SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0);
        }
    }
}
