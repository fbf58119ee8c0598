//! What carries dials: QUIC where it works, gRPC as long as it does not, and the way back. The reference's server, where
//! `scripts/go-peers.sh` has built it, is one that speaks gRPC only; where both share a port and an id, they are one server
//! to the agent, of which a test can see by which way a dial came.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::pair::client::Client;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::program::{Program, beside_this};
use konnectivity_interop::pair::{Agent, Options, Pair, Server, http, until};
use konnectivity_interop::peer::{Entrance, Frontend, ports};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(20);

/// A QUIC connection that is silent for so long is dead.
const IDLE: Duration = Duration::from_secs(2);
const QUICK: [&str; 3] = ["--quic-idle-timeout=2s", "--quic-keep-alive-interval=500ms", "--quic-retry-interval=1s"];

/// How soon dials must be served again, after there is nothing to wait for.
const SOON: Duration = Duration::from_secs(1);

/// The folder and the certificates of a test, and the port where its servers are.
struct Place {
    certificates: Folder,
    folder: TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [port] = ports::free();
        Self { certificates: Folder::write(folder.path(), &[]).unwrap(), folder, port }
    }

    fn address(&self) -> SocketAddr {
        (HERE, self.port).into()
    }

    /// An agent of which nothing is known but that it was started.
    fn agent(&self, arguments: &[&str]) -> Agent {
        let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
        Agent::spawn(&self.certificates, self.address(), HERE, &arguments).unwrap()
    }

    /// The reference's server on the TCP port.
    async fn reference(&self) -> Option<Reference> {
        Reference::start(self).await
    }

    /// Our server on the UDP port only.
    async fn over_quic(&self) -> (Server, Client) {
        let mut arguments = vec![format!("--agent-port={}", self.port)];
        arguments.extend(QUICK[..2].iter().map(|&text| text.to_owned()));
        if help_of("proxy-server").contains("--transport ") {
            arguments.push("--transport=quic".to_owned());
        }
        let folder = self.folder.path();
        let server = Server::start(&self.certificates, folder, Entrance::Unix, HERE, &arguments).await.unwrap();
        let client = Client::of(&server.frontend, &self.certificates).unwrap();
        (server, client)
    }
}

fn help_of(program: &str) -> String {
    let output = Command::new(beside_this(program).unwrap()).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A server of the reference, whose id is that of ours.
struct Reference {
    _program: Program,
    client: Client,
}

impl Reference {
    async fn start(place: &Place) -> Option<Self> {
        let program: PathBuf = beside_this("proxy-server").unwrap().parent()?.parent()?.join("go/proxy-server");
        if !program.is_file() {
            eprintln!("skipped: {} is not there; scripts/go-peers.sh builds it", program.display());
            return None;
        }
        let [health, admin] = ports::free();
        let socket = place.folder.path().join("reference.sock");
        let file = |flag: &str, name: &str| format!("--{flag}={}", place.certificates.file(name).display());
        let arguments = vec![
            "--mode=http-connect".to_owned(),
            format!("--uds-name={}", socket.display()),
            "--server-port=0".to_owned(),
            file("cluster-cert", "server.crt"),
            file("cluster-key", "server.key"),
            file("cluster-ca-cert", "ca.crt"),
            format!("--agent-bind-address={HERE}"),
            format!("--agent-port={}", place.port),
            format!("--health-bind-address={HERE}"),
            format!("--health-port={health}"),
            format!("--admin-bind-address={HERE}"),
            format!("--admin-port={admin}"),
            "--server-id=server-1".to_owned(),
            "--server-count=1".to_owned(),
        ];
        let program = Program::start("the reference's proxy-server", &program, arguments).unwrap();
        until("the reference's server answers", LIMIT, || async {
            http::get((HERE, health).into(), "/healthz").await.ok().filter(|reply| reply.status == 200)
        })
        .await;
        let client = Client::of(&Frontend::Unix(socket), &place.certificates).unwrap();
        Some(Self { _program: program, client })
    }
}

/// A target.
async fn listener() -> TcpListener {
    TcpListener::bind((HERE, 0)).await.unwrap()
}

/// Dials until it is served, and says how long that took.
async fn served(client: &Client, target: &TcpListener) -> (Open, Duration) {
    let begun = Instant::now();
    let address = target.local_addr().unwrap().to_string();
    loop {
        // Whatever goes wrong is tried again.
        if let Ok(Ok(dial)) = timeout(LIMIT, client.dial(&address)).await {
            let mut open = Open { client: dial, target: target.accept().await.unwrap().0 };
            open.exchange().await.unwrap();
            return (open, begun.elapsed());
        }
        assert!(begun.elapsed() < LIMIT, "no dial is served");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What the agent says of its connections; nothing where it does not answer.
async fn ready(agent: &Agent) -> String {
    http::get(agent.health, "/readyz?verbose").await.map_or_else(|_| String::new(), |reply| reply.body)
}

async fn until_ready(agent: &Agent, words: &str) -> String {
    until(words, LIMIT, || async { Some(ready(agent).await).filter(|text| text.contains(words)) }).await
}

async fn metrics(agent: &Agent) -> String {
    http::get(agent.health, "/metrics").await.unwrap().body
}

/// Datagrams that came, by the port they came from.
async fn datagrams(socket: &UdpSocket, within: Duration) -> BTreeMap<u16, usize> {
    let mut count = BTreeMap::new();
    let mut buffer = [0; 2048];
    let all = async {
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert!(length >= 1200, "QUIC begins with full packets");
            *count.entry(from.port()).or_default() += 1;
        }
    };
    let _: Result<(), _> = timeout(within, all).await;
    count
}

#[tokio::test]
async fn a_server_of_the_reference_is_served_within_a_second_of_the_start() {
    let place = Place::new();
    let Some(server) = place.reference().await else { return };
    let target = listener().await;
    let mut slowest = Duration::ZERO;
    // A machine that is busy with other tests may be late, once.
    for _ in 0..3 {
        let agent = place.agent(&[]);
        let (_open, took) = served(&server.client, &target).await;
        let text = until_ready(&agent, "over grpc").await;
        let (line, _) = text.split_once("\ncheck passed").unwrap();
        let line = line.lines().last().unwrap();
        assert!(line.starts_with("[+]transport ok: server server-1 over grpc since 20"), "{text}");
        assert!(line.contains("Z (no QUIC answer within 250ms; "), "{text}");
        assert_eq!(http::get(agent.health, "/readyz").await.unwrap().body, "ok");
        let words = ["WARN", "serving over gRPC, until QUIC works", "no QUIC answer within 250ms"];
        agent.program.logged(&words, LIMIT).await.unwrap();
        let connections = agent.connections().await.unwrap();
        assert_eq!((&connections[0]["carrier"], connections.len()), (&"grpc".into(), 1), "{connections:?}");
        let metrics = metrics(&agent).await;
        for sample in [
            "server_transport{transport=\"grpc\"} 1\n",
            "server_transport_choices_total{reason=\"no_quic_answer\",transport=\"grpc\"} 1\n",
        ] {
            assert!(metrics.contains(&format!("konnectivity_network_proxy_agent_{sample}")), "{metrics}");
        }
        eprintln!("first dial {took:?} after the agent's start");
        slowest = took;
        if took < SOON {
            break;
        }
    }
    assert!(slowest < SOON, "{slowest:?}");
}

#[tokio::test]
async fn a_silent_udp_port_gets_a_few_packets_from_a_new_port_each_time() {
    let place = Place::new();
    let Some(_server) = place.reference().await else { return };
    let socket = UdpSocket::bind(place.address()).await.unwrap();
    let agent = place.agent(&["--quic-retry-interval=500ms"]);
    until_ready(&agent, "over grpc").await;
    // The first attempt lasts ten seconds, the next begins half a second later.
    let count = datagrams(&socket, Duration::from_secs(12)).await;
    assert_eq!(count.len(), 2, "{count:?}");
    assert!(count.values().all(|&datagrams| datagrams <= 12), "{count:?}");
    let text = ready(&agent).await;
    assert!(text.contains("(no QUIC answer within 250ms; trying QUIC now)"), "{text}");
}

#[tokio::test]
async fn our_server_is_reached_over_quic() {
    let pair = Pair::start(Options::unix().agent(["--transport=auto"])).await.unwrap();
    let agent = &pair.agents[0];
    let text = ready(agent).await;
    assert!(text.contains("[+]transport ok: server server-1 over quic since 20"), "{text}");
    assert!(text.ends_with("(QUIC has answered)\ncheck passed\n"), "{text}");
    agent.program.logged(&["INFO", "serving over QUIC"], LIMIT).await.unwrap();
    let metrics = metrics(agent).await;
    assert!(metrics.contains("_agent_server_transport{transport=\"quic\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("transport=\"grpc\""), "{metrics}");
    assert_eq!(agent.connections().await.unwrap()[0]["carrier"], "quic");
}

#[tokio::test]
async fn quic_alone_never_reaches_a_server_of_the_reference_and_says_why() {
    let place = Place::new();
    let Some(_server) = place.reference().await else { return };
    let socket = UdpSocket::bind(place.address()).await.unwrap();
    let agent = place.agent(&["--transport=quic", "--sync-interval=100ms"]);
    let count = datagrams(&socket, Duration::from_secs(12)).await;
    assert_eq!(count.len(), 2, "it goes on, from another port: {count:?}");
    let text = ready(&agent).await;
    let expected = format!(
        "[-]server-connected failed: no servers connected: no QUIC answer from {} within 10 s; is UDP allowed on the way? \
         (--transport=quic is set: servers that speak gRPC only, such as the reference's, need auto or grpc)",
        place.address()
    );
    assert!(text.contains(&expected), "{text}");
}

#[tokio::test]
async fn without_any_server_both_causes_are_told() {
    let place = Place::new();
    let agent = place.agent(&[]);
    let text = until_ready(&agent, "over gRPC").await;
    let expected = format!(
        "no servers connected: over QUIC: no answer within 3.3 s; over gRPC: cannot connect to {} over TCP: Connection refused",
        place.address()
    );
    assert!(text.contains(&expected), "{text}");
}

#[tokio::test]
async fn grpc_alone_tries_no_quic() {
    let place = Place::new();
    let Some(server) = place.reference().await else { return };
    let socket = UdpSocket::bind(place.address()).await.unwrap();
    let agent = place.agent(&["--transport=grpc", "--quic-retry-interval=1ms"]);
    let target = listener().await;
    served(&server.client, &target).await;
    let text = until_ready(&agent, "over grpc").await;
    assert!(text.contains("(--transport=grpc)\n"), "{text}");
    assert!(datagrams(&socket, SOON).await.is_empty());
}

/// A network of its own for this thread and what it starts, where UDP can be lost. It goes with the thread.
struct Network {
    port: u16,
}

impl Network {
    fn enter(port: u16) -> Option<Self> {
        let entered = unshare(CloneFlags::CLONE_NEWNET).is_ok()
            && run(&["ip", "link", "set", "lo", "up"])
            && run(&["nft", "list tables"]);
        if !entered {
            eprintln!("skipped: a network of its own takes root, iproute2 and nftables");
        }
        entered.then_some(Self { port })
    }

    /// Whatever goes by UDP from or to the port is lost, without a word to the sender.
    fn lose_udp(&self) {
        let port = self.port;
        let rules = format!(
            "add table inet t; add chain inet t lost {{ type filter hook input priority 0; }}; \
             add rule inet t lost udp dport {port} drop; add rule inet t lost udp sport {port} drop"
        );
        assert!(run(&["nft", &rules]));
    }

    fn let_udp_pass(&self) {
        assert!(run(&["nft", "delete table inet t"]));
    }
}

fn run(command: &[&str]) -> bool {
    Command::new(command[0]).args(&command[1..]).status().is_ok_and(|status| status.success())
}

/// Dials one after the other until it is told to stop; all must be served.
async fn dials(client: &Client, target: &TcpListener, count: usize) {
    for _ in 0..count {
        Open::dial(client, target).await.unwrap().exchange().await.unwrap();
    }
}

#[tokio::test]
async fn udp_that_is_lost_from_the_start_costs_nothing_and_quic_takes_over_when_it_passes() {
    let place = Place::new();
    let Some(network) = Network::enter(place.port) else { return };
    let Some(reference) = place.reference().await else { return };
    let (_server, over_quic) = place.over_quic().await;
    let target = listener().await;
    network.lose_udp();
    let agent = place.agent(&QUICK);
    let (mut on_grpc, took) = served(&reference.client, &target).await;
    eprintln!("UDP lost: first dial {took:?} after the agent's start");
    assert!(took < 2 * SOON, "{took:?}");

    sleep(2 * SOON).await;
    network.let_udp_pass();
    let passes = Instant::now();
    let text = until_ready(&agent, "over quic").await;
    eprintln!("back on QUIC {:?} after UDP passed again", passes.elapsed());
    assert!(text.contains("(QUIC works again after "), "{text}");
    dials(&over_quic, &target, 20).await;
    // What was there stays as it was, on a connection that is for nothing else.
    on_grpc.exchange().await.unwrap();
    let connections = agent.connections().await.unwrap();
    assert_eq!(connections.len(), 2, "{connections:?}");
    assert_eq!((&connections[0]["carrier"], &connections[0]["draining"]), (&"grpc".into(), &true.into()));
    sleep(SOON).await;
    on_grpc.exchange().await.unwrap();
    drop(on_grpc);
    until("the TCP connection ends with its last dial", LIMIT, || async {
        (agent.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
    dials(&over_quic, &target, 5).await;
}

#[tokio::test]
async fn udp_that_is_lost_in_mid_life_is_noticed_and_quic_comes_back() {
    let place = Place::new();
    let Some(network) = Network::enter(place.port) else { return };
    let Some(reference) = place.reference().await else { return };
    let (_server, over_quic) = place.over_quic().await;
    let target = listener().await;
    let agent = place.agent(&QUICK);
    served(&over_quic, &target).await;
    until_ready(&agent, "over quic").await;

    network.lose_udp();
    let (mut on_grpc, took) = served(&reference.client, &target).await;
    eprintln!("UDP lost in mid-life: a dial is served over TCP {took:?} later");
    assert!(took < IDLE + SOON, "{took:?}");
    let text = until_ready(&agent, "over grpc").await;
    let why = "(the QUIC connection fell silent; then no QUIC answer within 250ms; ";
    assert!(text.contains(why), "{text}");
    let words = ["disconnected from a server", "nothing heard from the peer within the idle timeout"];
    agent.program.logged(&words, LIMIT).await.unwrap();
    assert!(metrics(&agent).await.contains("_choices_total{reason=\"quic_lost\",transport=\"grpc\"} 1\n"));

    network.let_udp_pass();
    let passes = Instant::now();
    until_ready(&agent, "over quic").await;
    let back = passes.elapsed();
    eprintln!("back on QUIC {back:?} after UDP passed again");
    assert!(back < 5 * SOON, "{back:?}");
    dials(&over_quic, &target, 20).await;
    on_grpc.exchange().await.unwrap();
}
