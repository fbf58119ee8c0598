//! Paths between agent and server that are bad in an unusual way: too narrow for full packets, corrupting, or with a box
//! that closes TCP connections after a while. Those that need network namespaces are skipped without root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::link::Link;
use konnectivity_interop::link::conditions::Conditions;
use konnectivity_interop::link::course::Course;
use konnectivity_interop::link::profile::Profile;
use konnectivity_interop::pair::client::Client;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::program::{Program, beside_this};
use konnectivity_interop::pair::{Agent, Server, until};
use konnectivity_interop::peer::{Entrance, Frontend, ports};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// Our server in the cloud, our agent and its target at the site, and a client whose Unix socket needs no network.
struct Across {
    client: Client,
    target: TcpListener,
    agent: Program,
    _server: Program,
    _link: Link,
    _folder: TempDir,
}

impl Across {
    fn new(both: Conditions, agent: &[&str]) -> Option<Self> {
        if let Err(why) = Link::possible() {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let link = Link::start(Profile::symmetric("test", Course::constant(both)), 7).unwrap();
        let folder = TempDir::new().unwrap();
        let (site, cloud) = (link.site(), link.cloud());
        let certificates = Folder::write(folder.path(), &[cloud.ipv4.to_string()]).unwrap();
        let file = |flag: &str, name: &str| format!("--{flag}={}", certificates.file(name).display());
        let own = |arguments: &[&str]| arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let socket = folder.path().join("frontend.sock");
        let [port, health, admin] = ports::free();
        let here = [format!("--health-port={health}"), format!("--admin-port={admin}")];
        let server = [
            own(&["--mode=http-connect", "--server-port=0", "--server-id=server-1"]),
            vec![format!("--uds-name={}", socket.display()), format!("--agent-port={port}")],
            vec![
                file("cluster-cert", "server.crt"),
                file("cluster-key", "server.key"),
                file("cluster-ca-cert", "ca.crt"),
            ],
            here.to_vec(),
        ];
        let server = inside(cloud.namespace.name(), "proxy-server", server.concat());
        let there = [format!("--health-server-port={health}"), format!("--admin-server-port={admin}")];
        let agent = [
            vec![format!("--proxy-server-host={}", cloud.ipv4), format!("--proxy-server-port={port}")],
            vec![file("ca-cert", "ca.crt"), file("agent-cert", "agent.crt"), file("agent-key", "agent.key")],
            there.to_vec(),
            own(&["--sync-interval=100ms", "--sync-interval-cap=1s"]),
            own(agent),
        ];
        let agent = inside(site.namespace.name(), "proxy-agent", agent.concat());
        let listen = || std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let target = site.namespace.inside("listen", listen).unwrap();
        target.set_nonblocking(true).unwrap();
        let target = TcpListener::from_std(target).unwrap();
        let client = Client::of(&Frontend::Unix(socket), &certificates).unwrap();
        Some(Self { client, target, agent, _server: server, _link: link, _folder: folder })
    }

    /// The first dial that is served.
    async fn served(&self) -> Open {
        until("a dial is served", LIMIT, || async { Open::dial(&self.client, &self.target).await.ok() }).await
    }
}

fn inside(namespace: &str, name: &str, arguments: Vec<String>) -> Program {
    let program: PathBuf = beside_this(name).unwrap();
    let command = ["netns", "exec", namespace].map(str::to_owned).into_iter().chain([program.display().to_string()]);
    Program::start(name, Path::new("ip"), command.chain(arguments).collect()).unwrap()
}

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
    let Some(across) = Across::new(narrow, &["--transport=quic"]) else { return };
    carry(across.served().await, 1_000_000).await;
    assert!(!across.agent.log().contains("disconnected"), "{}", across.agent.log());
}

#[tokio::test]
async fn a_path_that_corrupts_packets_delivers_what_was_sent() {
    for transport in ["--transport=quic", "--transport=grpc"] {
        let bad = Conditions { corruption: 0.01, ..Conditions::clean(50_000_000, Duration::from_millis(5)) };
        let Some(across) = Across::new(bad, &[transport]) else { return };
        carry(across.served().await, 500_000).await;
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
