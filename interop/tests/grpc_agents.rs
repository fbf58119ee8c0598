//! Agents of the Go reference at our server, over gRPC: every kind of frontend, beside agents over QUIC, and what happens
//! when somebody leaves, stalls or drains.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use konnectivity_interop::{
    ends::{
        Full, LIMIT, Target, accept, address, carry, echo, has_metric, join, listen, metric, pattern, read_pattern,
        read_rest, within, write_pattern,
    },
    load::path::{DialError, Path},
    pair::{
        Options, Pair,
        grpc::{connection::Connection, door::Door, tunnel},
        reference::ReferenceAgent,
        until,
    },
};
use nix::sys::signal::Signal;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const FRONTS: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];
const BULK: usize = 20_000_000;

async fn start(options: Options) -> (Pair, ReferenceAgent) {
    let pair = Pair::start(options.agents([])).await.unwrap();
    let agent = ReferenceAgent::join(&pair, "agent-1", &[]).await.unwrap();
    (pair, agent)
}

/// No dial is open, and every connection of an agent that the server has closes its own at its own time.
async fn no_dials(pair: &Pair) {
    until("no open dials", LIMIT, async || {
        let connections = pair.server.connections().await.unwrap();
        connections.iter().all(|connection| connection["open_dials"] == 0).then_some(())
    })
    .await;
}

async fn failures(pair: &Pair, reason: &str, count: f64) {
    let name = format!("konnectivity_network_proxy_server_dial_failure_count{{reason=\"{reason}\"}}");
    has_metric(pair.server.health, &name, count).await;
}

async fn packets(pair: &Pair, kind: &str, segment: &str) -> f64 {
    let name = format!(
        "konnectivity_network_proxy_server_stream_packets_total{{packet_type=\"{kind}\",segment=\"{segment}\"}}"
    );
    metric(pair.server.health, &name).await
}

/// The reply to a dial that fails.
async fn refusal(pair: &Pair, target: impl ToString) -> String {
    match within("a refusal", pair.dial(&target.to_string())).await {
        Err(DialError::Refused(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_go_both_ways_over_every_front() {
    let target = Target::echo();
    for front in FRONTS {
        for grpc in [false, true] {
            let options = if grpc { front().grpc() } else { front() };
            let (pair, _agent) = start(options).await;
            let frontend = &pair.server.frontend;
            let path = match grpc {
                true => Path::through_grpc(frontend, &pair.certificates),
                false => Path::through(frontend, &pair.certificates),
            };
            let mut dial = within("a dial", path.unwrap().dial(target.address)).await.unwrap();
            echo(&mut dial, b"hello").await;
            let (mut read, mut write) = tokio::io::split(dial);
            let both = async { tokio::join!(write_pattern(&mut write, BULK), read_pattern(&mut read, BULK)) };
            let (written, (came, end)) = within("bulk both ways", both).await;
            assert_eq!((written, came), (BULK, BULK), "grpc: {grpc}, {end:?}");
            drop((read, write));
            no_dials(&pair).await;
            assert_eq!(packets(&pair, "DIAL_REQ", "to_agent").await, 1.0);
            assert_eq!(packets(&pair, "DIAL_RSP", "from_agent").await, 1.0);
        }
    }
}

#[tokio::test]
async fn an_agent_that_names_an_ipv6_address_as_authority_is_served() {
    let pair = Pair::start(Options::unix().host(Ipv6Addr::LOCALHOST).agents([])).await.unwrap();
    let _agent = ReferenceAgent::join(&pair, "agent-1", &[]).await.unwrap();
    let target = Target::echo();
    let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
    echo(&mut dial, b"hello").await;
}

#[tokio::test]
async fn a_dial_that_fails_fails_with_the_agents_words() {
    let (pair, _agent) = start(Options::unix()).await;
    let closed = address(&listen(Ipv4Addr::LOCALHOST));
    let reply = refusal(&pair, closed).await;
    assert!(reply.starts_with("HTTP/1.1 502 "), "{reply}");
    assert!(reply.ends_with(&format!("dial tcp {closed}: connect: connection refused")), "{reply}");
    let reply = refusal(&pair, "no-such-host.invalid:80").await;
    assert!(reply.starts_with("HTTP/1.1 502 ") && reply.contains("dial tcp: lookup no-such-host.invalid"), "{reply}");
    failures(&pair, "error_response", 2.0).await;

    let (pair, _agent) = start(Options::unix().grpc()).await;
    let connection = Connection::open(&Door::of(&pair)).await;
    let error = tunnel::dial(&connection.call().await, closed).await.unwrap_err();
    assert_eq!(error, format!("dial tcp {closed}: connect: connection refused"));
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard() {
    const BANNER: &[u8] = b"220 ready\r\n";
    let target = Target::banner(BANNER);
    let (pair, _agent) = start(Options::mutual_tls()).await;
    for _ in 0..50 {
        let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
        let mut came = [0; BANNER.len()];
        within("the banner", tokio::io::AsyncReadExt::read_exact(&mut dial, &mut came)).await.unwrap();
        assert_eq!(came, BANNER);
        echo(&mut dial, b"hello").await;
    }
}

#[tokio::test]
async fn what_a_client_sent_before_it_closed_arrives_and_so_does_what_a_target_did() {
    let (pair, _agent) = start(Options::unix()).await;
    let client = pair.client().unwrap();
    for bytes in [100, 10_000, 300_000] {
        let (mut dial, mut target) = join(&client).await;
        write_pattern(&mut dial, bytes).await;
        drop(dial);
        let (came, end) = read_pattern(&mut target, usize::MAX).await;
        assert_eq!((came, end.is_ok()), (bytes, true), "from the client");
        let (mut dial, mut target) = join(&client).await;
        write_pattern(&mut target, bytes).await;
        drop(target);
        let (came, end) = read_pattern(&mut dial, usize::MAX).await;
        assert_eq!((came, end.is_ok()), (bytes, true), "from the target");
    }
    no_dials(&pair).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_pending_dial_leaves_nothing() {
    let (pair, _agent) = start(Options::unix()).await;
    let full = Full::new().await;
    let dial = pair.client().unwrap().ask(&full.address.to_string()).await.unwrap();
    full.has_pending(1).await;
    drop(dial);
    failures(&pair, "frontend_close", 1.0).await;
    until("the agent is told", LIMIT, async || (packets(&pair, "DIAL_CLS", "to_agent").await == 1.0).then_some(()))
        .await;
    // The agent takes no notice; the server has it close what it connects in the end.
    let listener = full.free().await;
    let late = within("the late connection", accept(&listener)).await;
    let (bytes, _) = read_rest(&mut { late }).await;
    assert_eq!(bytes, b"");
    failures(&pair, "unrecognized_response", 1.0).await;
    no_dials(&pair).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_takes_its_dials_along_and_no_more() {
    let (pair, agent) = start(Options::unix().server(["--proxy-strategies=destHost,default"])).await;
    let other = ReferenceAgent::join(&pair, "agent-2", &["--agent-identifiers=ipv4=127.0.0.2"]).await.unwrap();
    let client = pair.client().unwrap();
    let on_other = listen(Ipv4Addr::new(127, 0, 0, 2));
    let far = address(&on_other).to_string();
    let (mut kept, mut kept_target) = {
        let (dial, target) = tokio::join!(client.dial(&far), accept(&on_other));
        (dial.unwrap(), target)
    };
    // By chance, these are carried by either agent.
    let full = Full::new().await;
    let mut pending = Vec::new();
    for count in 1.. {
        pending.push(client.ask(&full.address.to_string()).await.unwrap());
        full.has_pending(count).await;
        let connections = pair.server.connections().await.unwrap();
        let of_first = connections.iter().find(|connection| connection["peer"] == "agent-1 #1").unwrap();
        if of_first["open_dials"].as_u64().unwrap() > 0 {
            break;
        }
    }
    let mut last = pending.pop().unwrap();
    let started = Instant::now();
    drop(agent);
    let (reply, _) = read_rest(&mut last).await;
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 502 "), "{reply}");
    // The agent's own limit is 5 s, and ours 30 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    failures(&pair, "backend_close", 1.0).await;
    carry(&mut kept, &mut kept_target, b"still here").await;
    drop(other);
    let (_, end) = read_rest(&mut kept).await;
    drop(end);
    until("no agents", LIMIT, async || pair.server.connections().await.unwrap().is_empty().then_some(())).await;
    assert!(refusal(&pair, "127.0.0.1:1").await.starts_with("HTTP/1.1 500 "), "no agent");
}

#[tokio::test]
async fn agents_of_both_kinds_serve_side_by_side() {
    let options = Options::unix().server(["--proxy-strategies=destHost"]);
    let pair = Pair::start(options.agents([&["--agent-identifiers=ipv4=127.0.0.1"]])).await.unwrap();
    let _agent = ReferenceAgent::join(&pair, "agent-2", &["--agent-identifiers=ipv4=127.0.0.2"]).await.unwrap();
    let client = pair.client().unwrap();
    let mut open = Vec::new();
    for last in [1, 2] {
        let listener = listen(Ipv4Addr::new(127, 0, 0, last));
        let target = address(&listener).to_string();
        let (dial, target) = tokio::join!(client.dial(&target), accept(&listener));
        let (mut dial, mut target) = (dial.unwrap(), target);
        carry(&mut dial, &mut target, b"there").await;
        carry(&mut target, &mut dial, b"and back").await;
        open.push((dial, target));
    }
    let connections = pair.server.connections().await.unwrap();
    let mut seen: Vec<_> = connections
        .iter()
        .map(|connection| {
            let text = |key: &str| connection[key].as_str().unwrap().to_owned();
            (text("peer"), text("carrier"), connection["open_dials"].as_u64().unwrap())
        })
        .collect();
    seen.sort();
    let row = |peer: &str, carrier: &str| (peer.to_owned(), carrier.to_owned(), 1);
    assert_eq!(seen, [row("agent-1 #1", "quic"), row("agent-2 #2", "grpc")]);
    let gauge = |name: &str| format!("konnectivity_network_proxy_server_{name}");
    has_metric(pair.server.health, &gauge("ready_backends{proxy_strategy=\"destHost\"}"), 2.0).await;
    has_metric(pair.server.health, &gauge("grpc_connections{service_method=\"Connect\"}"), 1.0).await;
}

#[tokio::test]
async fn an_agent_of_this_project_may_come_over_grpc_too() {
    let pair = Pair::start(Options::mutual_tls().agent(["--transport=grpc"])).await.unwrap();
    assert_eq!(pair.server.connections().await.unwrap()[0]["carrier"], "grpc");
    let (mut dial, mut target) = join(&pair.client().unwrap()).await;
    let bulk = async { tokio::join!(write_pattern(&mut target, BULK), read_pattern(&mut dial, BULK)) };
    let (written, (came, end)) = within("bulk", bulk).await;
    assert_eq!((written, came), (BULK, BULK), "{end:?}");
    carry(&mut dial, &mut target, b"and back").await;
    drop(dial);
    let (rest, end) = read_rest(&mut target).await;
    assert_eq!((rest.as_slice(), end.is_ok()), (&b""[..], true));
    no_dials(&pair).await;
}

#[tokio::test]
async fn two_connections_of_one_agent_id_do_not_meet() {
    let pair = Pair::start(Options::unix().agents([])).await.unwrap();
    let _one = ReferenceAgent::join(&pair, "twin", &["--agent-identifiers=ipv4=127.0.0.1"]).await.unwrap();
    let _two = ReferenceAgent::join(&pair, "twin", &["--agent-identifiers=ipv4=127.0.0.2"]).await.unwrap();
    // Both number their connections from 1.
    let client = pair.client().unwrap();
    let mut dials = Vec::new();
    for _ in 0..8 {
        dials.push(join(&client).await);
    }
    for (place, (dial, target)) in dials.iter_mut().enumerate() {
        carry(dial, target, format!("to {place}").as_bytes()).await;
        carry(target, dial, format!("from {place}").as_bytes()).await;
    }
}

/// A target that never stops sending.
fn spring() -> Target {
    Target::new(|mut stream: TcpStream| async move {
        let chunk = pattern(0, 64 * 1024);
        while stream.write_all(&chunk).await.is_ok() {}
    })
}

#[tokio::test]
async fn a_client_that_stalls_is_closed_after_ten_seconds_and_others_go_on() {
    let (pair, _agent) = start(Options::unix()).await;
    let client = pair.client().unwrap();
    let echo_target = Target::echo();
    let mut echoing = client.dial(&echo_target.address.to_string()).await.unwrap();
    let source = spring();
    let mut stalled = client.dial(&source.address.to_string()).await.unwrap();
    let started = Instant::now();
    let closed = "konnectivity_network_proxy_server_stalled_dials_closed_total";
    let (mut slowest, mut echoes) = (Duration::ZERO, 0);
    while metric(pair.server.health, closed).await == 0.0 {
        assert!(started.elapsed() < LIMIT, "the stalled dial is not closed");
        let sent = Instant::now();
        echo(&mut echoing, b"still alive?").await;
        slowest = slowest.max(sent.elapsed());
        echoes += 1;
        // One more dial is made as it goes on.
        if echoes % 50 == 0 {
            let mut new = client.dial(&echo_target.address.to_string()).await.unwrap();
            echo(&mut new, b"new").await;
        }
    }
    let took = started.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(16), "closed after {took:?}");
    assert!(slowest < Duration::from_secs(1), "the slowest of {echoes} echoes took {slowest:?}");
    let (bytes, end) = read_rest(&mut stalled).await;
    assert!(!bytes.is_empty());
    drop(end);
    let line = pair.server.program.logged(&["dial ended", "stalled"], LIMIT).await.unwrap();
    assert!(line.contains("took next to nothing for 10 s") && line.contains("--grpc-slow-dials"), "{line}");
    echo(&mut echoing, b"and on").await;
    until("the source is closed, too", LIMIT, async || (source.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_draining_server_keeps_an_agents_dial_until_it_ends() {
    let (mut pair, agent) = start(Options::unix().server(["--graceful-shutdown-timeout=1m"])).await;
    let client = pair.client().unwrap();
    let (mut dial, mut target) = join(&client).await;
    pair.server.program.signal(Signal::SIGTERM).unwrap();
    until("no new clients", LIMIT, async || client.connect().await.err()).await;
    // The agent looks every 100 ms whether its connection is still good, and would cut its dials if it were not.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        carry(&mut dial, &mut target, b"there").await;
        carry(&mut target, &mut dial, b"back").await;
    }
    assert!(!agent.program.log().contains("GOAWAY"), "{}", agent.program.log());
    drop(dial);
    let (bytes, _) = read_rest(&mut target).await;
    assert_eq!(bytes, b"");
    let status = pair.server.program.ended(LIMIT).await.unwrap();
    assert!(status.success(), "{status}\n{}", pair.server.program.log());
    assert!(!pair.server.program.log().contains("tasks still running"), "{}", pair.server.program.log());
}

#[tokio::test]
async fn a_draining_server_lets_an_agent_without_dials_go() {
    let (pair, _agent) = start(Options::unix().server(["--graceful-shutdown-timeout=1m"])).await;
    let other = ReferenceAgent::join(&pair, "agent-2", &["--agent-identifiers=ipv4=127.0.0.2"]).await.unwrap();
    let client = pair.client().unwrap();
    let (mut dial, mut target) = join(&client).await;
    pair.server.program.signal(Signal::SIGTERM).unwrap();
    until("one agent is let go", LIMIT, async || (pair.server.connections().await.unwrap().len() == 1).then_some(()))
        .await;
    carry(&mut dial, &mut target, b"still here").await;
    drop(other);
}

#[tokio::test]
async fn the_transport_says_who_is_served() {
    let pair = Pair::start(Options::unix().server(["--transport=quic"])).await.unwrap();
    assert!(TcpStream::connect(pair.server.agents).await.is_err(), "no TCP");
    let (pair, _agent) = start(Options::unix().server(["--transport=grpc"])).await;
    assert!(std::net::UdpSocket::bind(pair.server.agents).is_ok(), "no UDP");
    let target = Target::echo();
    let mut dial = pair.dial(&target.address.to_string()).await.unwrap();
    echo(&mut dial, b"hello").await;
}
