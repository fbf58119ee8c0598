//! Paths between agent and server that are bad in an unusual way: too narrow for full packets, corrupting, or with a box
//! that closes TCP connections after a while. Those that need network namespaces are skipped without root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::link::conditions::Conditions;
use konnectivity_interop::pair::client::Client;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::over_link::{Options, OverLink, link};
use konnectivity_interop::pair::{Agent, Server, until};
use konnectivity_interop::peer::Entrance;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// Sends so many bytes each way at once, and expects them whole.
async fn carry(open: Open, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|place| (place % 253) as u8).collect();
    let (mut client_reads, mut client_writes) = tokio::io::split(open.client);
    let (mut target_reads, mut target_writes) = tokio::io::split(open.target);
    let (mut at_client, mut at_target) = (vec![0; bytes], vec![0; bytes]);
    let all = async {
        tokio::try_join!(
            client_writes.write_all(&sent),
            target_writes.write_all(&sent),
            client_reads.read_exact(&mut at_client),
            target_reads.read_exact(&mut at_target),
        )
    };
    timeout(LIMIT, all).await.expect("the bytes did not come in time").unwrap();
    assert!(at_client == sent && at_target == sent, "the bytes are not those that were sent");
}

/// 1,200 bytes of UDP are what QUIC promises to do with (RFC 9000, section 14); nothing larger comes through.
#[tokio::test]
async fn a_path_for_the_smallest_packets_carries_dials() {
    let narrow = Conditions { mtu: 1228, ..Conditions::clean(50_000_000, Duration::from_millis(5)) };
    let Some(link) = link(narrow) else { return };
    let across = OverLink::start(link, &Options::default().agent(&["--transport=quic"])).unwrap();
    carry(across.served(LIMIT).await, 1_000_000).await;
    assert!(!across.agent.log().contains("disconnected"), "{}", across.agent.log());
}

#[tokio::test]
async fn a_path_that_corrupts_packets_delivers_what_was_sent() {
    for transport in ["--transport=quic", "--transport=grpc"] {
        let bad = Conditions { corruption: 0.01, ..Conditions::clean(50_000_000, Duration::from_millis(5)) };
        let Some(link) = link(bad) else { return };
        let across = OverLink::start(link, &Options::default().agent(&[transport])).unwrap();
        carry(across.served(LIMIT).await, 500_000).await;
    }
}

/// A box that lets every connection through for a second.
async fn box_that_closes(server: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let Ok(mut far) = TcpStream::connect(server).await else { continue };
            open.spawn(timeout(Duration::from_secs(1), async move { copy_bidirectional(&mut near, &mut far).await }));
        }
    });
    (address, tasks)
}

/// Dials that the close cuts fail with an error; the agent is back soon, and new dials succeed.
#[tokio::test]
async fn a_box_that_closes_connections_after_a_second_costs_their_dials_and_no_more() {
    let folder = TempDir::new().unwrap();
    let certificates = Folder::write(folder.path(), &[]).unwrap();
    let here = Ipv4Addr::LOCALHOST.into();
    let server = Server::start(&certificates, folder.path(), Entrance::Unix, here, &[]).await.unwrap();
    let (through, _box) = box_that_closes(server.agents).await;
    let arguments = ["--transport=grpc", "--sync-interval=100ms", "--sync-interval-cap=500ms"].map(str::to_owned);
    let agent = Agent::start(&certificates, through, here, &arguments).await.unwrap();
    let client = Client::of(&server.frontend, &certificates).unwrap();
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for _ in 0..4 {
        let mut open = until("a dial is served", LIMIT, || async { Open::dial(&client, &target).await.ok() }).await;
        // The box may close just now: then it is an error, and no silence.
        let _ = open.exchange().await;
        let ended = timeout(LIMIT, open.client.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the client of a dial that was cut waits for its end");
    }
    assert!(agent.program.log().contains("disconnected from a server"), "{}", agent.program.log());
}
