//! Servers and agents that die without a word, and come back: who notices, how soon, and what becomes of the dials.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use konnectivity_interop::ends::Full;
use konnectivity_interop::load::path::{Dial, DialError};
use konnectivity_interop::pair::balancer::Balancer;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Agent, Options, Pair, Server, http, until};
use konnectivity_interop::peer::Entrance;
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Peers that are silent for two seconds are dead.
const QUICK: [&str; 2] = ["--quic-idle-timeout=2s", "--quic-keep-alive-interval=500ms"];
/// More than that, for a busy machine, and less than the default of 30 s.
const NOTICED: Duration = Duration::from_secs(8);

async fn listener() -> TcpListener {
    TcpListener::bind((HERE, 0)).await.unwrap()
}

/// Reads to the end, which must be an error and not a clean one.
async fn cut(stream: &mut (impl AsyncRead + Unpin), who: &str) {
    let mut rest = Vec::new();
    let end = timeout(NOTICED, stream.read_to_end(&mut rest)).await;
    assert!(matches!(end, Ok(Err(_))), "{who}: {end:?}");
}

async fn is_ready(agent: &Agent) -> bool {
    http::get(agent.health, "/readyz").await.unwrap().status == 200
}

#[tokio::test]
async fn an_agent_notices_at_its_next_packet_that_its_server_was_restarted() {
    // The idle timeout is 30 s: only the stateless reset can tell sooner.
    let mut pair = Pair::start(Options::mutual_tls().agent(["--quic-keep-alive-interval=1s"])).await.unwrap();
    let target = listener().await;
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    open.exchange().await.unwrap();

    pair.server.program.kill();
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    let up = Instant::now();
    let words = ["disconnected from a server", "the peer does not know this connection any more; it was restarted"];
    pair.agents[0].program.logged(&words, LIMIT).await.unwrap();
    pair.ready().await.unwrap();
    assert!(up.elapsed() < LIMIT, "{:?}", up.elapsed());

    // The old dial has ended at both ends, and not as if all had been said.
    cut(&mut open.client, "client").await;
    cut(&mut open.target, "target").await;
    // The lost dial is one of two; new ones work.
    Open::dial(&pair.client().unwrap(), &target).await.unwrap().exchange().await.unwrap();
    assert_eq!(pair.agents[0].connections().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_restarted_with_a_key_file_is_noticed_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "thirty-two bytes of some secret.").unwrap();
    let options = Options::unix().server([format!("--endpoint-key-file={}", secret.display())]);
    let mut pair = Pair::start(options.agent(["--quic-keep-alive-interval=1s"])).await.unwrap();
    pair.server.program.kill();
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    pair.agents[0].program.logged(&["it was restarted"], LIMIT).await.unwrap();
    pair.ready().await.unwrap();
}

#[tokio::test]
async fn an_agent_notices_within_the_idle_timeout_that_its_server_is_gone() {
    let mut pair = Pair::start(Options::mutual_tls().agent(QUICK)).await.unwrap();
    let target = listener().await;
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    open.exchange().await.unwrap();
    pair.server.program.kill();
    let reply = until("the agent is not ready any more", NOTICED, || async {
        let reply = http::get(pair.agents[0].health, "/readyz").await.unwrap();
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert!(reply.body.starts_with("[+]ping ok\n[-]server-connected failed: no servers connected"), "{}", reply.body);
    let words = ["disconnected from a server", "nothing heard from the peer within the idle timeout"];
    pair.agents[0].program.logged(&words, LIMIT).await.unwrap();
    cut(&mut open.target, "target").await;
    let metrics = http::get(pair.agents[0].health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("\nkonnectivity_network_proxy_agent_open_server_connections 0\n"), "{metrics}");

    // It goes on trying, and is back when the server is.
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    pair.ready().await.unwrap();
    Open::dial(&pair.client().unwrap(), &target).await.unwrap().exchange().await.unwrap();
}

/// The client of a dial whose agent has died: a TLS client sees an error. (A Unix socket cannot tell; its client sees
/// an end.)
async fn ends_for_the_client(mut client: Dial) {
    let mut rest = Vec::new();
    let end = timeout(NOTICED, client.read_to_end(&mut rest)).await.expect("the dial must end");
    match client {
        Dial::Unix(_) => assert_eq!((end.unwrap(), rest.len()), (0, 0)),
        _ => assert!(end.is_err()),
    }
}

async fn a_killed_agent(options: Options) {
    let options = options.server(QUICK).server(["--proxy-strategies=destHost,default"]);
    // Dials go to the first agent as long as it is there.
    let mut pair = Pair::start(options.agents([&["--agent-identifiers=ipv4=127.0.0.1"], &[]])).await.unwrap();
    let target = listener().await;
    let client = pair.client().unwrap();
    let mut doomed = Open::dial(&client, &target).await.unwrap();
    doomed.exchange().await.unwrap();
    let by_name = format!("localhost:{}", target.local_addr().unwrap().port());
    let until_other = until("a dial by the other agent", LIMIT, || async {
        // destHost does not know the name, so the default decides, by lot.
        let (dial, accepted) = tokio::join!(client.dial(&by_name), target.accept());
        let open = Open { client: dial.unwrap(), target: accepted.unwrap().0 };
        (pair.agents[1].connections().await.unwrap()[0]["open_dials"] == 1).then_some(open)
    });
    let mut other = until_other.await;
    other.exchange().await.unwrap();

    pair.agents[0].program.kill();
    let killed = Instant::now();
    ends_for_the_client(doomed.client).await;
    assert!(killed.elapsed() > Duration::from_millis(500), "only the idle timeout can tell");
    other.exchange().await.unwrap();
    let words = ["agent disconnected", "agent_id=agent-1", "nothing heard from the peer within the idle timeout"];
    pair.server.program.logged(&words, LIMIT).await.unwrap();
    let words = ["dial ended", "nothing heard from the peer within the idle timeout"];
    let ended = pair.server.program.logged(&words, LIMIT).await.unwrap();
    assert!(ended.contains("bytes_sent=4 bytes_received=4"), "{ended}");
    // New dials for the same target are the other agent's now.
    Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
    other.exchange().await.unwrap();
    assert_eq!(pair.server.connections().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_dials_of_a_killed_agent_end_with_an_error_and_no_others() {
    a_killed_agent(Options::mutual_tls()).await;
}

#[tokio::test]
async fn the_dials_of_a_killed_agent_end_on_a_unix_socket() {
    a_killed_agent(Options::unix()).await;
}

#[tokio::test]
async fn a_dial_whose_agent_dies_before_it_answers_is_given_to_another() {
    let options = Options::unix().server(QUICK).server(["--proxy-strategies=destHost,default"]);
    let mut pair = Pair::start(options.agents([&["--agent-identifiers=ipv4=127.0.0.1"], &[]])).await.unwrap();
    let target = listener().await;
    // A stopped process takes the request and says nothing.
    pair.agents[0].program.signal(Signal::SIGSTOP).unwrap();
    let client = pair.client().unwrap();
    let open = Open::dial(&client, &target);
    let kill = async {
        until("the dial is under way", LIMIT, || async {
            let metrics = http::get(pair.server.health, "/metrics").await.unwrap().body;
            metrics.contains("pending_backend_dials 1\n").then_some(())
        })
        .await;
        pair.agents[0].program.kill();
    };
    let (open, ()) = tokio::join!(open, kill);
    open.unwrap().exchange().await.unwrap();
}

#[tokio::test]
async fn a_dial_whose_only_agent_dies_before_it_answers_fails() {
    let pair = Pair::start(Options::unix().server(QUICK)).await.unwrap();
    pair.agents[0].program.signal(Signal::SIGSTOP).unwrap();
    let Err(DialError::Refused(reply)) = pair.dial("127.0.0.1:9").await else { panic!("it must be refused") };
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nBackend context error: context canceled\r\n"), "{reply}");
    let metrics = http::get(pair.server.health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("dial_failure_count{reason=\"backend_close\"} 1\n"), "{metrics}");
}

/// An agent that has the first claim on every dial, another one, and a dial to which the first is connecting. No limit
/// ends it.
async fn connecting(options: Options) -> (Pair, Full, Dial) {
    let patient = "--dial-timeout=5m";
    let options = options.server(["--proxy-strategies=destHost,default", "--backend-dial-timeout=5m"]);
    let options = options.agents([&["--agent-identifiers=ipv4=127.0.0.1", patient], &[patient]]);
    let pair = Pair::start(options).await.unwrap();
    let full = Full::new().await;
    let dial = pair.client().unwrap().ask(&full.address.to_string()).await.unwrap();
    full.has_pending(1).await;
    until("the server knows that its agent has the dial", LIMIT, || async {
        let connections = pair.server.connections().await.unwrap();
        let carries = connections.iter().find(|one| one["open_dials"] == 1)?;
        let has_it = carries["unacknowledged_bytes"] == 0;
        (has_it && carries["peer"].as_str()?.starts_with("agent-1 ")).then_some(())
    })
    .await;
    (pair, full, dial)
}

/// The dial fails, as the reference says it; if it were tried again, nobody would answer it.
async fn fails_without_another_try(dial: &mut Dial, full: &Full, limit: Duration) {
    let mut reply = String::new();
    timeout(limit, dial.read_to_string(&mut reply)).await.expect("an answer").unwrap();
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nBackend context error: context canceled\r\n"), "{reply}");
    full.has_pending(0).await;
}

#[tokio::test]
async fn a_dial_whose_agent_stops_while_it_connects_fails_at_once_and_is_not_given_to_another() {
    for options in [Options::unix(), Options::mutual_tls()] {
        let (pair, full, mut dial) = connecting(options).await;
        let stops = &pair.agents[0].program;
        stops.signal(Signal::SIGTERM).unwrap();
        stops.logged(&["signal received: draining"], LIMIT).await.unwrap();
        stops.signal(Signal::SIGTERM).unwrap();
        // The idle timeout is 30 s: only the agent's own word can tell.
        fails_without_another_try(&mut dial, &full, Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_dial_whose_agent_dies_while_it_connects_fails_and_is_not_given_to_another() {
    let (mut pair, full, mut dial) = connecting(Options::unix().server(QUICK)).await;
    pair.agents[0].program.kill();
    fails_without_another_try(&mut dial, &full, NOTICED).await;
    let metrics = http::get(pair.server.health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("dial_failure_count{reason=\"backend_close\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn an_agent_that_starts_before_its_server_is_connected_soon_after_it() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    pair.server.program.kill();
    let cap = ["--sync-interval=100ms", "--sync-interval-cap=500ms", QUICK[0], QUICK[1]].map(str::to_owned);
    let early = Agent::start(&pair.certificates, pair.server.agents, HERE, &cap).await.unwrap();
    early.program.logged(&["cannot connect to a server"], LIMIT).await.unwrap();
    pair.agents = vec![early];
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    let up = Instant::now();
    pair.ready().await.unwrap();
    // An attempt that is under way takes 2 s to fail, a wait at most 0.55 s.
    assert!(up.elapsed() < NOTICED, "{:?}", up.elapsed());
}

/// Two servers, and an agent that knows one address for both.
struct Two {
    first: Pair,
    second: Server,
    balancer: Balancer,
    agent: Agent,
}

impl Two {
    async fn start() -> Self {
        let first = Pair::start(Options::unix().server(["--server-count=2"]).agents([])).await.unwrap();
        let more = ["--server-count=2", "--server-id=server-2"].map(str::to_owned);
        let folder = first.folder.path();
        let second = Server::start(&first.certificates, folder, Entrance::Unix, HERE, &more).await.unwrap();
        let balancer = Balancer::start(vec![first.server.agents, second.agents]).await.unwrap();
        let arguments = [QUICK[0], QUICK[1], "--agent-id=agent", "--sync-interval=200ms", "--sync-interval-cap=1s"];
        let arguments = arguments.map(str::to_owned);
        let agent = Agent::start(&first.certificates, balancer.address(), HERE, &arguments).await.unwrap();
        Self { first, second, balancer, agent }
    }

    async fn servers(&self) -> Vec<String> {
        let connections = self.agent.connections().await.unwrap();
        let mut servers: Vec<_> = connections.iter().map(|one| one["peer"].as_str().unwrap().to_owned()).collect();
        servers.sort();
        servers
    }

    /// Waits until the agent has exactly these.
    async fn has(&self, servers: &[&str], limit: Duration) {
        until(&format!("the agent has {servers:?}"), limit, || async {
            (self.servers().await == servers).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_holds_one_connection_to_each_server_behind_one_address() {
    let two = Two::start().await;
    two.has(&["server-1", "server-2"], LIMIT).await;
    let target = listener().await;
    for server in [&two.first.server, &two.second] {
        assert_eq!(server.connections().await.unwrap().len(), 1, "a duplicate is closed");
        let client = konnectivity_interop::pair::client::Client::of(&server.frontend, &two.first.certificates).unwrap();
        Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
    }
    let metrics = http::get(two.agent.health, "/metrics").await.unwrap().body;
    for expected in ["open_server_connections 2\n", "known_server_count 2\n"] {
        assert!(metrics.contains(&format!("\nkonnectivity_network_proxy_agent_{expected}")), "{metrics}");
    }
    assert!(two.balancer.given().len() >= 2);
}

#[tokio::test]
async fn duplicates_are_closed_with_their_code() {
    // The first three source ports all lead to the same server.
    let first = Pair::start(Options::unix().server(["--server-count=2"]).agents([])).await.unwrap();
    let one = first.server.agents;
    let more = ["--server-count=2", "--server-id=server-2"].map(str::to_owned);
    let second = Server::start(&first.certificates, first.folder.path(), Entrance::Unix, HERE, &more).await.unwrap();
    let balancer = Balancer::start(vec![one, one, one, second.agents]).await.unwrap();
    let arguments = ["--agent-id=agent", "--sync-interval=200ms", "--log-level=debug"].map(str::to_owned);
    let agent = Agent::start(&first.certificates, balancer.address(), HERE, &arguments).await.unwrap();
    until("the agent has both", LIMIT, || async { (agent.connections().await.unwrap().len() == 2).then_some(()) })
        .await;
    agent.program.logged(&["closing a second connection to a server", "server_id=server-1"], LIMIT).await.unwrap();
    let words = ["agent disconnected", "this agent has a connection to this server already"];
    first.server.program.logged(&words, LIMIT).await.unwrap();
    until("the first server has one connection", LIMIT, || async {
        (first.server.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_of_two_servers_dies_and_is_found_again_when_it_returns() {
    let mut two = Two::start().await;
    two.has(&["server-1", "server-2"], LIMIT).await;
    let target = listener().await;
    let client = two.first.client().unwrap();
    let mut open = Open::dial(&client, &target).await.unwrap();
    two.second.program.kill();
    two.has(&["server-1"], NOTICED).await;
    // The other is not touched, and the agent is still ready.
    open.exchange().await.unwrap();
    assert!(is_ready(&two.agent).await);
    Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();

    two.second.program.start_again().unwrap();
    two.second.serves().await.unwrap();
    two.has(&["server-1", "server-2"], LIMIT).await;
    open.exchange().await.unwrap();
    let client = konnectivity_interop::pair::client::Client::of(&two.second.frontend, &two.first.certificates).unwrap();
    Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_was_stopped_for_a_while_comes_back() {
    // As a suspended virtual machine: the server gives it up, the agent finds out when it wakes.
    let mut pair = Pair::start(Options::unix().server(QUICK).agent(QUICK)).await.unwrap();
    pair.agents[0].program.signal(Signal::SIGSTOP).unwrap();
    until("the server has given it up", NOTICED, || async {
        pair.server.connections().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(
        matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("No agent available"))
    );
    pair.agents[0].program.signal(Signal::SIGCONT).unwrap();
    pair.ready().await.unwrap();
    assert!(
        matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("connection refused"))
    );
}

#[tokio::test]
async fn a_client_that_writes_to_a_dead_dial_gets_an_error() {
    let mut pair = Pair::start(Options::mutual_tls().server(QUICK)).await.unwrap();
    let target = listener().await;
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    pair.agents[0].program.kill();
    until("the server has given it up", NOTICED, || async {
        pair.server.connections().await.unwrap().is_empty().then_some(())
    })
    .await;
    let written = timeout(LIMIT, async {
        loop {
            open.client.write_all(&[0; 1024]).await?;
            open.client.flush().await?;
            tokio::task::yield_now().await;
        }
    });
    let result: Result<(), std::io::Error> = written.await.expect("writing must fail");
    assert!(result.is_err());
}
