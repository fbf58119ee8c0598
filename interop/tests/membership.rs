//! Servers that tell their agents of each other: by a setting, or by their leases.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::pair::balancer::Balancer;
use konnectivity_interop::pair::client::Client;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Agent, Server, http, raw, until};
use konnectivity_interop::peer::{Entrance, ports};
use konnectivity_transport::wire::SERVERS_CAPABILITY;
use konnectivity_transport::wire::message::{ControlBody, Server as Listed, Servers, Welcome};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};

const LIMIT: Duration = Duration::from_secs(15);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Three servers that know each other, behind a balancer that leads to the first one only.
struct Three {
    servers: Vec<Server>,
    balancer: Balancer,
    certificates: Folder,
    _folder: TempDir,
}

impl Three {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let ports: [u16; 3] = ports::free();
        let peers: Vec<_> =
            ports.iter().enumerate().map(|(place, port)| format!("server-{}=127.0.0.1:{port}", place + 1)).collect();
        let mut servers = Vec::new();
        for (place, port) in ports.iter().enumerate() {
            let arguments = [
                format!("--server-id=server-{}", place + 1),
                format!("--agent-port={port}"),
                format!("--peer-servers={}", peers.join(",")),
            ];
            servers.push(Server::start(&certificates, folder.path(), Entrance::Unix, HERE, &arguments).await.unwrap());
        }
        let balancer = Balancer::start(vec![(HERE, ports[0]).into()]).await.unwrap();
        Self { servers, balancer, certificates, _folder: folder }
    }

    async fn agent(&self, more: &[&str]) -> Agent {
        let arguments = ["--agent-id=agent", "--log-level=debug", "--sync-interval=500ms", "--sync-interval-cap=1s"];
        let arguments: Vec<_> = arguments.iter().chain(more).map(|&text| text.to_owned()).collect();
        Agent::start(&self.certificates, self.balancer.address(), HERE, &arguments).await.unwrap()
    }
}

async fn servers_of(agent: &Agent) -> Vec<String> {
    let connections = agent.connections().await.unwrap();
    let mut servers: Vec<_> = connections.iter().map(|one| one["peer"].as_str().unwrap().to_owned()).collect();
    servers.sort();
    servers
}

/// Waits until the agent has exactly these.
async fn has(agent: &Agent, servers: &[&str]) {
    until(&format!("the agent has {servers:?}"), LIMIT, || async {
        (servers_of(agent).await == servers).then_some(())
    })
    .await;
}

fn count(agent: &Agent, words: &str) -> usize {
    agent.program.log().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn an_agent_holds_all_servers_after_one_connection_through_the_balancer() {
    let three = Three::start().await;
    let agent = three.agent(&[]).await;
    has(&agent, &["server-1", "server-2", "server-3"]).await;
    // No search at all: one connection by the common address, one to each of the others at its own.
    assert_eq!(three.balancer.given().len(), 1);
    assert_eq!(count(&agent, "closing a second connection to a server"), 0);
    assert_eq!(count(&agent, "connected to a server"), 3);
    let metrics = http::get(agent.health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("\nkonnectivity_network_proxy_agent_known_server_count 3\n"), "{metrics}");
    let target = TcpListener::bind((HERE, 0)).await.unwrap();
    for server in &three.servers {
        let client = Client::of(&server.frontend, &three.certificates).unwrap();
        Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_drains_is_not_looked_for() {
    let three = Three::start().await;
    let agent = three.agent(&[]).await;
    has(&agent, &["server-1", "server-2", "server-3"]).await;
    let target = TcpListener::bind((HERE, 0)).await.unwrap();
    let client = Client::of(&three.servers[2].frontend, &three.certificates).unwrap();
    let mut open = Open::dial(&client, &target).await.unwrap();
    three.servers[2].program.signal(Signal::SIGTERM).unwrap();
    agent.program.logged(&["the server drains"], LIMIT).await.unwrap();
    // It is still there for the dial that runs, and nobody looks for another one.
    open.exchange().await.unwrap();
    assert_eq!(servers_of(&agent).await.len(), 3);
    drop(open);
    has(&agent, &["server-1", "server-2"]).await;
    assert_eq!(three.balancer.given().len(), 1);
    assert_eq!(count(&agent, "cannot connect to a server"), 0);
}

#[tokio::test]
async fn a_server_that_dies_is_found_where_it_was() {
    let mut three = Three::start().await;
    let agent = three.agent(&["--quic-idle-timeout=2s", "--quic-keep-alive-interval=500ms"]).await;
    has(&agent, &["server-1", "server-2", "server-3"]).await;
    three.servers[2].program.kill();
    has(&agent, &["server-1", "server-2"]).await;
    three.servers[2].program.start_again().unwrap();
    three.servers[2].serves().await.unwrap();
    // The balancer does not lead there.
    has(&agent, &["server-1", "server-2", "server-3"]).await;
}

#[tokio::test]
async fn a_policy_forbids_servers_addresses() {
    let three = Three::start().await;
    let agent = three.agent(&["--direct-server-networks=10.0.0.0/8"]).await;
    has(&agent, &["server-1"]).await;
    let words =
        ["cannot connect to a server at its own address", "server_id=server-2", "--direct-server-networks=10.0.0.0/8"];
    agent.program.logged(&words, LIMIT).await.unwrap();
    // It looks for them behind the balancer instead.
    until("a search", LIMIT, || async { (three.balancer.given().len() > 1).then_some(()) }).await;
    for server in &three.servers[1..] {
        assert_eq!(server.connections().await.unwrap().len(), 0);
    }
}

/// A server in the hand of the test that says what it likes of others, and an agent for it.
struct Liar {
    peer: raw::Peer,
    agent: Agent,
    certificates: Folder,
    folder: TempDir,
}

impl Liar {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let endpoint = raw::server(&certificates).unwrap();
        let arguments = ["--agent-id=agent", "--sync-interval=100ms", "--sync-interval-cap=200ms"].map(str::to_owned);
        let agent = Agent::start(&certificates, endpoint.local_addr().unwrap(), HERE, &arguments).await.unwrap();
        let (mut peer, hello) = raw::accept(&endpoint).await.unwrap();
        assert!(hello.capabilities.contains(&SERVERS_CAPABILITY.to_owned()), "{hello:?}");
        let capabilities = vec![SERVERS_CAPABILITY.to_owned()];
        let welcome = Welcome { server_id: "liar".into(), server_count: 1, capabilities, ..Welcome::default() };
        peer.say(ControlBody::Welcome(welcome)).await.unwrap();
        Self { peer, agent, certificates, folder }
    }

    async fn list(&mut self, count: u32, servers: &[(&str, String)]) {
        let servers = servers
            .iter()
            .map(|(id, address)| Listed { server_id: (*id).to_owned(), addresses: vec![address.clone()] })
            .collect();
        self.peer.say(ControlBody::Servers(Servers { server_count: count, servers })).await.unwrap();
    }
}

#[tokio::test]
async fn only_a_server_with_a_certificate_for_the_configured_name_is_connected() {
    let mut liar = Liar::start().await;
    // A server of another cluster, whose certificate comes from another authority.
    let elsewhere = TempDir::new().unwrap();
    let others = Folder::write(elsewhere.path(), &[]).unwrap();
    let foreign = Server::start(&others, elsewhere.path(), Entrance::Unix, HERE, &[]).await.unwrap();
    liar.list(2, &[("liar", String::new()), ("foreign", foreign.agents.to_string())]).await;
    let words = ["cannot connect to a server at its own address", "server_id=foreign", "certificate"];
    liar.agent.program.logged(&words, LIMIT).await.unwrap();
    assert_eq!(servers_of(&liar.agent).await, ["liar"]);
    assert_eq!(foreign.connections().await.unwrap().len(), 0);

    // A good one is, under its own name, whatever the list says.
    let more = ["--server-id=good".to_owned()];
    let good = Server::start(&liar.certificates, liar.folder.path(), Entrance::Unix, HERE, &more).await.unwrap();
    liar.list(2, &[("liar", String::new()), ("misnamed", good.agents.to_string())]).await;
    has(&liar.agent, &["good", "liar"]).await;
}

#[tokio::test]
async fn an_address_that_is_silent_is_tried_with_pauses_and_forgotten() {
    let mut liar = Liar::start().await;
    let silent = UdpSocket::bind((HERE, 0)).await.unwrap();
    liar.list(2, &[("silent", silent.local_addr().unwrap().to_string())]).await;
    let mut datagram = [0; 2_048];
    let first = async { silent.recv_from(&mut datagram).await.unwrap() };
    let (length, from) = tokio::time::timeout(LIMIT, first).await.expect("it is tried");
    assert!(length >= 1_200, "{from}: the beginning of a handshake");
    // The agent lives on, and so does the connection to the server that said so.
    assert_eq!(servers_of(&liar.agent).await, ["liar"]);
    let words = ["cannot connect to a server at its own address", "server_id=silent"];
    liar.agent.program.logged(&words, Duration::from_secs(30)).await.unwrap();
    liar.list(1, &[]).await;
    until("nobody is looked for", LIMIT, || async {
        let metrics = http::get(liar.agent.health, "/metrics").await.unwrap().body;
        metrics.contains("known_server_count 1\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_list_of_nonsense_is_borne() {
    let mut liar = Liar::start().await;
    let long = "x".repeat(60_000);
    for servers in [
        vec![("", "127.0.0.1:1".to_owned())],
        vec![("a", long), ("b", "nonsense".to_owned()), ("c", "0.0.0.0:1".to_owned()), ("d", "224.0.0.1:1".to_owned())],
        (0..2_000).map(|_| ("same", "127.0.0.1:9".to_owned())).collect(),
    ] {
        liar.list(u32::MAX, &servers).await;
    }
    liar.list(1, &[]).await;
    let begun = Instant::now();
    until("the last list counts", LIMIT, || async {
        let metrics = http::get(liar.agent.health, "/metrics").await.unwrap().body;
        metrics.contains("known_server_count 1\n").then_some(())
    })
    .await;
    assert_eq!(servers_of(&liar.agent).await, ["liar"], "{:?}", begun.elapsed());
}
