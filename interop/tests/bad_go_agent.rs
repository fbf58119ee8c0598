//! Agents over gRPC that lie, flood, or do not read: a test speaks for them. They harm their own dials only, and are told
//! why in the reference's words.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use konnectivity_interop::{
    ends::{LIMIT, Target, echo, has_metric, metric, read_rest, resident, within},
    load::path::Dial,
    pair::{
        Options, Pair,
        client::Client,
        grpc::{
            connection::{Connection, Habits},
            door::{Door, Papers},
            frame::{Frame, code},
            header::{Form, Headers, call, with},
            message,
            rpc::{Rpc, Status},
        },
        reference::ReferenceAgent,
        until,
    },
    peer::Frontend,
};
use konnectivity_transport::packet::{Packet, PacketType, Payload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Where a liar's targets are: it is the agent for this address.
const FAR: &str = "192.0.2.1:80";
const FAR_IDENTIFIERS: &str = "ipv4=192.0.2.1";

/// How the trailers write `Unknown`, `ResourceExhausted`, `Unimplemented`, `Internal` and `Unavailable`.
const UNKNOWN: u32 = 2;
const EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

fn options() -> Options {
    Options::unix().server(["--proxy-strategies=destHost,default"]).agents([])
}

async fn server() -> Pair {
    Pair::start(options()).await.unwrap()
}

/// The port for agents, for one with a good certificate.
fn door(pair: &Pair) -> Door {
    let port = Frontend::MutualTls(pair.server.agents);
    Door::with(&port, &pair.certificates, &Papers::good(&pair.certificates)).unwrap()
}

fn connect(pair: &Pair) -> Headers {
    call("/AgentService/Connect", &pair.server.agents.to_string())
}

fn named(pair: &Pair, id: &str) -> Headers {
    with(with(connect(pair), "agentid", id), "agentidentifiers", FAR_IDENTIFIERS)
}

/// An agent that is accepted, and does what the test says.
struct Liar {
    connection: Connection,
    rpc: Rpc,
}

impl Liar {
    async fn join(pair: &Pair) -> Self {
        Self::with(pair, Habits::default()).await
    }

    async fn with(pair: &Pair, habits: Habits) -> Self {
        // The line comes when the agent can be found by every strategy.
        let joined = || pair.server.program.log().matches("agent connected agent_id=liar").count();
        let before = joined();
        let connection = Connection::with(&door(pair), habits).await;
        let rpc = connection.call_with(&named(pair, "liar"), Form::GO).await;
        until("the server has the agent", LIMIT, async || (joined() > before).then_some(())).await;
        Self { connection, rpc }
    }

    /// The next dial that it is asked for.
    async fn asked(&self) -> i64 {
        let packet = self.rpc.packet().await;
        match packet.payload {
            Some(Payload::DialRequest(request)) => {
                assert_eq!((request.protocol.as_str(), request.address.as_str()), ("tcp", FAR));
                request.random
            }
            other => panic!("{other:?}"),
        }
    }

    /// A dial with this conn id, as its client sees it.
    async fn dial(&self, client: &Client, connect_id: i64) -> Dial {
        let answer = async {
            let random = self.asked().await;
            self.rpc.send(&Packet::connected(random, connect_id)).await;
        };
        let (dial, ()) = tokio::join!(client.dial(FAR), answer);
        dial.unwrap()
    }

    /// The next packet is this one.
    async fn gets(&self, packet: &Packet) {
        assert_eq!(self.rpc.packet().await, *packet);
    }

    /// Bytes go both ways over a dial.
    async fn exchange(&self, dial: &mut Dial, connect_id: i64) {
        self.rpc.send(&Packet::data(connect_id, Bytes::from_static(b"from afar"))).await;
        let mut came = [0; 9];
        within("bytes", dial.read_exact(&mut came)).await.unwrap();
        assert_eq!(&came, b"from afar");
        dial.write_all(b"to afar").await.unwrap();
        dial.flush().await.unwrap();
        self.gets(&Packet::data(connect_id, Bytes::from_static(b"to afar"))).await;
    }
}

/// Another agent, whose dials must go on whatever a liar does.
struct Honest {
    _agent: ReferenceAgent,
    _target: Target,
    dial: Dial,
}

impl Honest {
    async fn new(pair: &Pair) -> Self {
        let agent = ReferenceAgent::join(pair, "honest", &["--agent-identifiers=ipv4=127.0.0.1"]).await.unwrap();
        let target = Target::echo();
        let dial = pair.dial(&target.address.to_string()).await.unwrap();
        Self { _agent: agent, _target: target, dial }
    }

    async fn goes_on(&mut self) {
        echo(&mut self.dial, b"honest").await;
    }
}

async fn unrecognized(pair: &Pair, count: f64) {
    let name = "konnectivity_network_proxy_server_dial_failure_count{reason=\"unrecognized_response\"}";
    has_metric(pair.server.health, name, count).await;
}

fn ends_with(status: &Status, code: u32, words: &str) {
    assert_eq!((status.http.as_deref(), status.code), (Some("200"), Some(code)), "{status:?}");
    assert!(status.message.contains(words), "{status:?}");
}

#[tokio::test]
async fn an_agent_is_greeted_at_once_or_told_what_is_wrong() {
    let pair = server().await;
    let connection = Connection::open(&door(&pair)).await;
    let good = connection.call_with(&named(&pair, "good"), Form::GO).await;
    until("the headers", LIMIT, async || good.header("serverid")).await;
    assert_eq!(good.header("serverid").unwrap(), "server-1");
    assert_eq!(good.header("servercount").unwrap(), "1");
    assert_eq!(good.header("content-type").unwrap(), "application/grpc");

    let second = |headers: Headers, name: &str| {
        let mut headers = headers;
        headers.push((name.to_owned(), "another".to_owned()));
        headers
    };
    for (headers, code, words) in [
        (connect(&pair), UNKNOWN, "expected one agent ID in the context, got []"),
        (second(named(&pair, "a"), "agentid"), UNKNOWN, "expected one agent ID in the context, got [a another]"),
        (
            second(named(&pair, "a"), "agentidentifiers"),
            UNKNOWN,
            "expected at most one set of agent identifiers in the context, got [ipv4=192.0.2.1 another]",
        ),
        (with(named(&pair, "a"), "agentidentifiers", "host=%zz"), UNKNOWN, "fail to parse url encoded string"),
        (with(named(&pair, "a"), ":path", "/ProxyService/Proxy"), UNIMPLEMENTED, "unknown service ProxyService"),
        (with(named(&pair, "a"), ":path", "/AgentService/Other"), UNIMPLEMENTED, "unknown method Other"),
    ] {
        ends_with(&connection.call_with(&headers, Form::GO).await.status().await, code, words);
    }
    let agents = pair.server.connections().await.unwrap();
    assert_eq!(agents.len(), 1, "{agents:?}");
    drop(good);
}

#[tokio::test]
async fn clients_port_and_agents_port_are_not_each_others() {
    let pair = Pair::start(options().grpc()).await.unwrap();
    let connection = Connection::open(&Door::of(&pair)).await;
    let status = connection.call_with(&named(&pair, "agent"), Form::GO).await.status().await;
    ends_with(&status, UNIMPLEMENTED, "unknown service AgentService");
}

#[tokio::test]
async fn lies_about_dials_harm_nobody_else() {
    let pair = server().await;
    let mut honest = Honest::new(&pair).await;
    let liar = Liar::join(&pair).await;
    let client = pair.client().unwrap();
    let mut dial = liar.dial(&client, 7).await;
    liar.exchange(&mut dial, 7).await;

    // Answers that nobody waits for; the second one with the live dial's own number.
    liar.rpc.send(&Packet::connected(1, 8)).await;
    liar.gets(&Packet::close_request(8)).await;
    liar.rpc.send(&Packet::connected(1, 7)).await;
    unrecognized(&pair, 2.0).await;
    // Bytes for a dial that is none, and for a number that is none; the end of one that is none.
    liar.rpc.send(&Packet::data(99, Bytes::from_static(b"lie"))).await;
    liar.gets(&Packet::close_request(99)).await;
    liar.rpc.send(&Packet::data(0, Bytes::from_static(b"lie"))).await;
    liar.rpc.send(&Packet::close_response(98, "lie")).await;
    liar.rpc.send(&Packet::close_request(7)).await;
    liar.rpc.send(&Packet::dial_request(FAR, 1)).await;
    liar.rpc.send(&Packet { r#type: 99, payload: None }).await;
    liar.exchange(&mut dial, 7).await;

    // Success with another dial's number, and without any.
    for connect_id in [7, 0] {
        let answer = async {
            let random = liar.asked().await;
            liar.rpc.send(&Packet::connected(random, connect_id)).await;
        };
        let (refused, ()) = tokio::join!(client.dial(FAR), answer);
        let error = refused.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("502") && error.contains("the agent answered with"), "{error}");
    }
    liar.exchange(&mut dial, 7).await;

    // The agent ends the dial with words: something went wrong.
    liar.rpc.send(&Packet::close_response(7, "target burnt down")).await;
    let (rest, _) = read_rest(&mut dial).await;
    assert_eq!(rest, b"");
    pair.server.program.logged(&["dial ended", "target burnt down"], LIMIT).await.unwrap();
    // And the same number is free again.
    drop(dial);
    let mut dial = liar.dial(&client, 7).await;
    liar.exchange(&mut dial, 7).await;
    honest.goes_on().await;
}

#[tokio::test]
async fn an_agent_gives_a_dial_up_or_drains() {
    let pair = server().await;
    let mut honest = Honest::new(&pair).await;
    let liar = Liar::join(&pair).await;
    let client = pair.client().unwrap();
    let give_up = async {
        let random = liar.asked().await;
        liar.rpc.send(&Packet::close_dial(random)).await;
    };
    let (refused, ()) = tokio::join!(client.dial(FAR), give_up);
    assert!(refused.map(|_| ()).unwrap_err().to_string().contains("502"));

    liar.rpc.send(&Packet { r#type: PacketType::Drain.into(), payload: None }).await;
    until("it drains", LIMIT, async || {
        let connections = pair.server.connections().await.unwrap();
        connections.iter().any(|agent| agent["draining"] == true && agent["carrier"] == "grpc").then_some(())
    })
    .await;
    // The target is nobody else's, but another strategy has an agent that does not drain.
    honest.goes_on().await;
}

#[tokio::test]
async fn what_is_no_packet_ends_the_stream_with_the_references_status() {
    let pair = server().await;
    let mut honest = Honest::new(&pair).await;
    let client = pair.client().unwrap();
    let giant = [&[0][..], &(4_194_305_u32).to_be_bytes(), &[0; 10_000]].concat();
    let packet = [0, 0, 0, 0, 2, 0x08, 0x80];
    for (bytes, code, words) in [
        (&giant[..], EXHAUSTED, "grpc: received message larger than max (4194305 vs. 4194304)"),
        (&packet[..], INTERNAL, "grpc: failed to unmarshal the received message"),
        (&[1, 0, 0, 0, 0][..], INTERNAL, "grpc: compressed flag set"),
    ] {
        let liar = Liar::join(&pair).await;
        let mut dial = liar.dial(&client, 1).await;
        liar.exchange(&mut dial, 1).await;
        liar.rpc.send_bytes(bytes).await;
        ends_with(&liar.rpc.status().await, code, words);
        let (rest, _) = read_rest(&mut dial).await;
        assert_eq!(rest, b"");
        honest.goes_on().await;
    }
    // Half a message and the end.
    let liar = Liar::join(&pair).await;
    liar.rpc.send_bytes(&[0, 0, 0]).await;
    liar.rpc.end().await;
    ends_with(&liar.rpc.status().await, INTERNAL, "unexpected EOF");
    // Between messages it is a good end.
    let liar = Liar::join(&pair).await;
    liar.rpc.end().await;
    ends_with(&liar.rpc.status().await, 0, "");
    until("only the honest agent is left", LIMIT, async || {
        (pair.server.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_leaves_is_noticed_at_once_however_it_leaves() {
    let pair = server().await;
    let mut honest = Honest::new(&pair).await;
    let client = pair.client().unwrap();
    for way in ["cancel", "cut", "goaway"] {
        let liar = Liar::join(&pair).await;
        let mut dial = liar.dial(&client, 1).await;
        let mut pending = client.ask(FAR).await.unwrap();
        liar.asked().await;
        let started = Instant::now();
        match way {
            "cancel" => liar.rpc.cancel().await,
            "cut" => liar.connection.cut().await,
            _ => {
                let goaway = Frame::new(7, 0, 0, [0_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat());
                liar.connection.frame(goaway).await.unwrap();
                liar.connection.cut().await;
            }
        }
        let (reply, _) = read_rest(&mut pending).await;
        let reply = String::from_utf8(reply).unwrap();
        // It was asked, so that nobody else is: it may have connected.
        assert!(reply.starts_with("HTTP/1.1 502 "), "{way}: {reply}");
        let (rest, _) = read_rest(&mut dial).await;
        assert_eq!(rest, b"");
        assert!(started.elapsed() < Duration::from_secs(5), "{way}: {:?}", started.elapsed());
        honest.goes_on().await;
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_holds_a_bound_of_memory_and_its_dials_time_out() {
    let pair = Pair::start(options().server(["--backend-dial-timeout=2s"])).await.unwrap();
    let mut honest = Honest::new(&pair).await;
    let liar = Liar::join(&pair).await;
    let client = pair.client().unwrap();
    let mut dial = liar.dial(&client, 1).await;
    liar.rpc.hold();
    let before = resident(&pair.server.program);
    // The client's bytes stop somewhere: in windows, buffers and sockets.
    let chunk = vec![0; 64 * 1024];
    let mut written = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), dial.write_all(&chunk)).await {
        result.unwrap();
        written += chunk.len();
        assert!(written < 64 << 20, "nothing stops the client");
    }
    // Requests wait, too, and each only for its time.
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(client.ask(FAR).await.unwrap());
    }
    for mut dial in asked {
        let (reply, _) = read_rest(&mut dial).await;
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
    }
    let growth = resident(&pair.server.program).saturating_sub(before);
    assert!(growth < 16 << 20, "{growth} bytes");
    honest.goes_on().await;
    // It reads after all: what was sent is there, and no request of those that have given up.
    liar.rpc.release().await;
    loop {
        let packet = liar.rpc.packet().await;
        assert_ne!(packet.kind(), Some(PacketType::DialReq), "{packet:?}");
        if matches!(&packet.payload, Some(Payload::Data(data)) if data.data.len() < 1000) {
            break;
        }
        let carried = metric(pair.server.health, SENT_DATA).await;
        if carried * 32.0 * 1024.0 > written as f64 {
            break;
        }
    }
}

const SENT_DATA: &str =
    "konnectivity_network_proxy_server_stream_packets_total{packet_type=\"DATA\",segment=\"to_agent\"}";

#[tokio::test]
async fn a_flood_of_answers_is_bounded_and_leaves_others_alone() {
    let pair = server().await;
    let mut honest = Honest::new(&pair).await;
    let liar = Liar::join(&pair).await;
    let before = resident(&pair.server.program);
    liar.rpc.hold();
    // Every one of them asks for a CLOSE_REQ, which it does not read.
    let flood = async {
        for thousand in 0..1_000 {
            let lies = (1..=1_000).flat_map(|number| message(&Packet::connected(1, thousand * 1_000 + number)));
            liar.rpc.send_slowly(&lies.collect::<Vec<_>>()).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(8), flood).await.is_err(), "nothing stops it");
    for _ in 0..20 {
        honest.goes_on().await;
    }
    let growth = resident(&pair.server.program).saturating_sub(before);
    assert!(growth < 32 << 20, "{growth} bytes");
    // Nobody reads from it, and its end is noticed all the same.
    liar.connection.cut().await;
    until("only the honest agent is left", LIMIT, async || {
        (pair.server.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pings_are_answered_once_in_a_while_and_a_flood_of_them_is_not() {
    let pair = server().await;
    let liar = Liar::join(&pair).await;
    for _ in 0..3 {
        liar.connection.frame(Frame::ping([1; 8])).await.unwrap();
    }
    let client = pair.client().unwrap();
    let mut dial = liar.dial(&client, 1).await;
    liar.exchange(&mut dial, 1).await;
    for _ in 0..10 {
        // The connection may be gone by then.
        let _ = liar.connection.frame(Frame::ping([2; 8])).await;
    }
    let (code, words) = within("the end", liar.connection.ended()).await.unwrap();
    assert_eq!((code, words.as_str()), (code::ENHANCE_YOUR_CALM, "too_many_pings"));
}

#[tokio::test]
async fn an_agent_that_answers_no_ping_is_given_up() {
    let pair = Pair::start(options().server(["--keepalive-time=1s"])).await.unwrap();
    let silent = Liar::with(&pair, Habits { acks_pings: false, ..Habits::default() }).await;
    let polite = Liar::join(&pair).await;
    until("it is asked", LIMIT, async || (silent.connection.pings() > 0).then_some(())).await;
    let asked = Instant::now();
    pair.server.program.logged(&["disconnecting an agent", "not answered a PING"], LIMIT).await.unwrap();
    assert!(asked.elapsed() > Duration::from_secs(15), "{:?}", asked.elapsed());
    until("the other one is left", LIMIT, async || {
        let agents = pair.server.connections().await.unwrap();
        (agents.len() == 1 && agents[0]["peer"] == "liar #2").then_some(())
    })
    .await;
    drop(polite);
}

/// What connects and says nothing, or no TLS, keeps nobody out.
#[tokio::test]
async fn half_a_handshake_keeps_nobody_out() {
    let pair = server().await;
    let agents: SocketAddr = pair.server.agents;
    let mut halves = Vec::new();
    for bytes in [&b""[..], &[22, 3, 1, 2, 0][..]] {
        for _ in 0..50 {
            let mut half = TcpStream::connect(agents).await.unwrap();
            half.write_all(bytes).await.unwrap();
            halves.push(half);
        }
    }
    let mut plain = TcpStream::connect(agents).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (reply, _) = read_rest(&mut plain).await;
    assert_eq!(reply, b"");
    let mut honest = Honest::new(&pair).await;
    honest.goes_on().await;
    has_metric(pair.server.health, "konnectivity_network_proxy_server_agent_handshake_errors_total", 1.0).await;
}
