//! Agents with a valid certificate that break the protocol: each is told so with the documented code, and the server
//! goes on serving the others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use konnectivity_interop::load::path::DialError;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Options, Pair, raw, until};
use konnectivity_transport::wire::ALPN;
use konnectivity_transport::wire::code::{ConnectionCode, StreamCode};
use konnectivity_transport::wire::codec::{MAX_DIAL_REQUEST_BYTES, decode};
use konnectivity_transport::wire::message::{ControlBody, DialRequest, Drain, Servers, Token};
use quinn::{RecvStream, SendStream, TransportConfig, VarInt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A good pair, and the check at the end that it still is.
struct Good {
    pair: Pair,
    listener: TcpListener,
    open: Open,
}

impl Good {
    async fn new() -> Self {
        let pair = Pair::start(Options::unix()).await.unwrap();
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let open = Open::dial(&pair.client().unwrap(), &listener).await.unwrap();
        Self { pair, listener, open }
    }

    async fn agent(&self) -> raw::Peer {
        raw::agent(self.pair.server.agents, &self.pair.certificates).await.unwrap()
    }

    /// Checks that the open dial of the good agent goes on, that new ones work, and that no other agent is left.
    async fn serve_on(mut self) {
        self.open.exchange().await.unwrap();
        until("only the good agent is left", LIMIT, || async {
            (self.pair.server.connections().await.unwrap().len() == 1).then_some(())
        })
        .await;
        Open::dial(&self.pair.client().unwrap(), &self.listener).await.unwrap().exchange().await.unwrap();
    }
}

/// What an agent sends first on its control stream, and the reason for which it is closed with Protocol.
#[tokio::test]
async fn garbage_instead_of_a_hello() {
    let good = Good::new().await;
    let is_not_a_hello = "the peer broke the protocol: the first message of the agent is not a Hello";
    for (bytes, expected) in [
        (
            vec![0x03, 0xff, 0xff, 0xff],
            "the peer broke the protocol: the peer sent a message that cannot be read: message is not valid protobuf",
        ),
        (
            vec![0x04, 0x0a, 0x02, 0x0a, 0xff],
            "the peer broke the protocol: the peer sent a message that cannot be read: message is not valid protobuf",
        ),
        (
            b"GET / HTTP/1.1\r\n".repeat(6),
            "the peer broke the protocol: the peer sent a message that cannot be read: message is not valid protobuf",
        ),
        // 65537, told by its prefix alone.
        (
            vec![0x81, 0x80, 0x04],
            "the peer broke the protocol: the peer sent a message that cannot be read: message of 65537 bytes is larger than the limit of 65536 bytes",
        ),
        (
            vec![0xff; 5],
            "the peer broke the protocol: the peer sent a message that cannot be read: length prefix is longer than 4 bytes",
        ),
        (vec![0x07, 0x1a, 0x05, 0x0a, 0x03, b'b', b'y', b'e'], is_not_a_hello),
        (vec![0x05, 0x2a, 0x03, 0x0a, 0x01, b't'], is_not_a_hello),
    ] {
        let mut agent = good.agent().await;
        agent.send.write_all(&bytes).await.unwrap();
        let (code, reason) = agent.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
        assert!(reason.starts_with(expected), "{bytes:02x?}: {reason}");
        good.pair.server.program.logged(&["WARN", "an agent was not accepted", expected], LIMIT).await.unwrap();
    }
    good.serve_on().await;
}

#[tokio::test]
async fn half_a_hello_and_then_an_end() {
    let good = Good::new().await;
    // Finished in the middle of a message, before the first one, and reset.
    for (bytes, reset) in [(&[0x18_u8, 0x0a, 0x16][..], false), (&[], false), (&[0x18], true)] {
        let mut agent = good.agent().await;
        agent.send.write_all(bytes).await.unwrap();
        if reset {
            agent.send.reset(VarInt::from_u32(0)).unwrap();
        } else {
            agent.send.finish().unwrap();
        }
        let (code, reason) = agent.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
    }
    good.serve_on().await;
}

#[tokio::test]
async fn agents_that_say_nothing_are_closed_after_ten_seconds() {
    let good = Good::new().await;
    let start = Instant::now();
    let server = good.pair.server.agents;
    let (_endpoint, silent) =
        raw::connect(server, &good.pair.certificates, ALPN, TransportConfig::default()).await.unwrap();
    let opened = good.agent().await;
    let mut half = good.agent().await;
    half.send.write_all(&[0x18, 0x0a, 0x16]).await.unwrap();
    for closed in [raw::closed(&silent).await, opened.closed().await, half.closed().await] {
        let expected = (ConnectionCode::HelloTimeout, "the peer sent no hello within 10 s".to_owned());
        assert_eq!(closed.unwrap(), expected);
    }
    let took = start.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&took), "{took:?}");
    good.serve_on().await;
}

#[tokio::test]
async fn many_silent_agents_keep_nobody_out() {
    let good = Good::new().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(good.agent().await);
    }
    // While none of them has been given up yet.
    let mut late = good.agent().await;
    assert_eq!(late.hello("late", "").await.unwrap().server_id, "server-1");
    assert!(silent.iter().all(|agent| agent.connection.close_reason().is_none()));
    drop((silent, late));
    good.serve_on().await;
}

#[tokio::test]
async fn ids_and_identifiers_that_cannot_be_used() {
    let good = Good::new().await;
    for (id, identifiers, expected) in [
        ("", "", "the agent id cannot be used: id is empty; give it 1 to 256 printable ASCII characters"),
        (
            "a\u{fc}",
            "",
            "the agent id cannot be used: id has 'ü' at byte 1; only printable ASCII (0x20 to 0x7E) is allowed",
        ),
        ("a\nb", "", "the agent id cannot be used: id has '\\n' at byte 1;"),
        ("a\0", "", "the agent id cannot be used: id has '\\0' at byte 1;"),
        (&"x".repeat(257), "", "the agent id cannot be used: id has 257 bytes; the limit is 256"),
        ("a", "host=%", "the agent identifiers cannot be used: invalid escape \"%\";"),
        ("a", "host=a;b", "the agent identifiers cannot be used: bare ';' in \"host=a;b\";"),
    ] {
        let mut agent = good.agent().await;
        agent.say(raw::hello(id, identifiers)).await.unwrap();
        let (code, reason) = agent.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::BadHello, "{reason}");
        assert!(reason.starts_with(expected), "expected {expected}, got {reason}");
        assert!(!good.pair.server.program.log().contains("a\nb"), "a line of the log is not for agents to write");
    }
    good.serve_on().await;
}

#[tokio::test]
async fn messages_that_an_agent_must_not_send() {
    let good = Good::new().await;
    for (message, expected) in [
        (raw::hello("again", ""), "a second Hello on one connection"),
        (raw::welcome("server"), "an agent must not send a server's message"),
        (ControlBody::Servers(Servers::default()), "an agent must not send a server's message"),
    ] {
        let mut agent = good.agent().await;
        agent.hello("bad", "").await.unwrap();
        agent.say(message).await.unwrap();
        assert_eq!(agent.closed().await.unwrap(), (ConnectionCode::Protocol, expected.to_owned()));
    }
    good.serve_on().await;
}

#[tokio::test]
async fn control_streams_that_end_or_go_bad_after_the_hello() {
    let good = Good::new().await;
    for bytes in [&[0x03, 0xff, 0xff, 0xff][..], &[0x81, 0x80, 0x04], &[0xff; 5]] {
        let mut agent = good.agent().await;
        agent.hello("bad", "").await.unwrap();
        agent.send.write_all(bytes).await.unwrap();
        let (code, reason) = agent.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
        assert!(reason.starts_with("control stream: "), "{reason}");
    }
    for how in ["finish", "reset", "half a message"] {
        let mut agent = good.agent().await;
        agent.hello("bad", "").await.unwrap();
        match how {
            "finish" => agent.send.finish().unwrap(),
            "reset" => agent.send.reset(VarInt::from_u32(0)).unwrap(),
            _ => {
                agent.send.write_all(&[0x07, 0x1a]).await.unwrap();
                agent.send.finish().unwrap();
            }
        }
        let (code, reason) = agent.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{how}: {reason}");
    }
    good.serve_on().await;
}

#[tokio::test]
async fn what_a_later_version_may_send_is_skipped() {
    let good = Good::new().await;
    let mut agent = good.agent().await;
    // Hello with an unknown field 15, then a Control with an unknown body, then a Token, then Drain.
    agent.send.write_all(&[0x0a, 0x0a, 0x08, 0x0a, 0x03, b'n', b'e', b'w', 0x7a, 0x01, b'x']).await.unwrap();
    assert!(matches!(agent.next().await.unwrap(), ControlBody::Welcome(welcome) if welcome.server_count == 1));
    agent.send.write_all(&[0x04, 0x7a, 0x02, 0x0a, 0x00]).await.unwrap();
    agent.say(ControlBody::Token(Token { token: "secret-token".into() })).await.unwrap();
    agent.say(ControlBody::Drain(Drain { reason: "later".into() })).await.unwrap();
    until("the server has read all of it", LIMIT, || async {
        let connections = good.pair.server.connections().await.unwrap();
        connections.iter().any(|one| one["draining"] == true).then_some(())
    })
    .await;
    assert!(agent.connection.close_reason().is_none());
    assert!(!good.pair.server.program.log().contains("secret-token"));
    drop(agent);
    good.serve_on().await;
}

#[tokio::test]
async fn an_agent_that_opens_streams_without_end() {
    let good = Good::new().await;
    let mut agent = good.agent().await;
    agent.hello("greedy", "").await.unwrap();
    // Unidirectional streams are not used at all.
    assert!(timeout(Duration::from_millis(200), agent.connection.open_uni()).await.is_err());
    // The server lets a few streams be opened, and reads none but the first.
    let mut opened = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), agent.connection.open_bi()).await {
        let (mut send, receive) = stream.unwrap();
        let _ = timeout(Duration::from_millis(200), send.write_all(&[0; 100_000])).await;
        opened.push((send, receive));
        assert!(opened.len() < 8, "there must be an end to it");
    }
    agent.say(ControlBody::Drain(Drain::default())).await.unwrap();
    assert!(agent.connection.close_reason().is_none());
    drop((agent, opened));
    good.serve_on().await;
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let good = Good::new().await;
    let server = good.pair.server.agents;
    let certificates = &good.pair.certificates;
    let refused = raw::connect(server, certificates, b"h3", TransportConfig::default()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("error 120"), "no_application_protocol, RFC 7301: {refused:#}");
    good.serve_on().await;
}

#[tokio::test]
async fn datagrams_that_are_not_quic() {
    let good = Good::new().await;
    let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
    socket.connect(good.pair.server.agents).await.unwrap();
    for length in (0..1500).step_by(7) {
        let datagram: Vec<u8> = (0..length).map(|place: usize| (place * 31 + length) as u8).collect();
        socket.send(&datagram).await.unwrap();
        // A long header, an unknown version; a short header.
        let mut other = datagram.clone();
        other.insert(0, 0xc0);
        socket.send(&other).await.unwrap();
        other[0] = 0x40;
        socket.send(&other).await.unwrap();
    }
    good.serve_on().await;
}

/// An agent that takes the dials to `127.0.0.1`, and the request of the first one.
async fn with_dial(pair: &Pair) -> (raw::Peer, SendStream, RecvStream, DialRequest) {
    let mut agent = raw::agent(pair.server.agents, &pair.certificates).await.unwrap();
    agent.hello("bad", "ipv4=127.0.0.1").await.unwrap();
    until("it is registered", LIMIT, || async { (pair.server.connections().await.unwrap().len() == 2).then_some(()) })
        .await;
    let (send, mut receive) = next_dial(&agent).await;
    let mut buffer = bytes::BytesMut::new();
    let request = loop {
        if let Some(request) = decode(&mut buffer, MAX_DIAL_REQUEST_BYTES).unwrap() {
            break request;
        }
        buffer.extend_from_slice(&[receive.read_u8().await.unwrap()]);
    };
    (agent, send, receive, request)
}

async fn next_dial(agent: &raw::Peer) -> (SendStream, RecvStream) {
    timeout(LIMIT, agent.connection.accept_bi()).await.unwrap().unwrap()
}

/// The code with which the server has stopped our direction of a dial.
async fn stopped(send: &SendStream) -> Option<StreamCode> {
    let code = timeout(LIMIT, send.stopped()).await.expect("the server must stop the stream").unwrap()?;
    StreamCode::from_u64(code.into_inner())
}

/// A pair whose good agent gets what the bad one does not.
async fn pair_for_bad_replies() -> Pair {
    let options = Options::unix().server(["--proxy-strategies=destHost,default", "--backend-dial-timeout=2s"]);
    Pair::start(options.agent(["--agent-identifiers=host=good"])).await.unwrap()
}

#[tokio::test]
async fn replies_that_are_no_replies() {
    for reply in [&[0x03, 0xff, 0xff, 0xff][..], &[0x81, 0x80, 0x01], &[0xff; 5]] {
        let pair = pair_for_bad_replies().await;
        let client = pair.client().unwrap();
        let answer = async {
            let (agent, mut send, _receive, request) = with_dial(&pair).await;
            assert_eq!((request.network.as_str(), request.address.as_str()), ("tcp", "127.0.0.1:9"));
            // What is left of --backend-dial-timeout, and a second: the server is to be the one that gives up.
            assert!((2000..=3000).contains(&request.timeout_ms), "{}", request.timeout_ms);
            send.write_all(reply).await.unwrap();
            (agent, send)
        };
        let (dial, (agent, send)) = tokio::join!(dial_bad(&pair, &client), answer);
        assert_refused(dial, "HTTP/1.1 502 Bad Gateway\r\n");
        assert_eq!(stopped(&send).await, Some(StreamCode::Cancelled));
        assert!(agent.connection.close_reason().is_none(), "the connection lives on");
    }
}

/// Dials the bad agent once it is there.
async fn dial_bad(
    pair: &Pair,
    client: &konnectivity_interop::pair::client::Client,
) -> Result<konnectivity_interop::load::path::Dial, DialError> {
    until("the bad agent is there", LIMIT, || async {
        (pair.server.connections().await.unwrap().len() == 2).then_some(())
    })
    .await;
    client.dial("127.0.0.1:9").await
}

#[track_caller]
fn assert_refused(dial: Result<konnectivity_interop::load::path::Dial, DialError>, status: &str) {
    match dial {
        Err(DialError::Refused(reply)) => assert!(reply.starts_with(status), "{reply}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_never_answers_a_dial() {
    let pair = pair_for_bad_replies().await;
    let client = pair.client().unwrap();
    let start = Instant::now();
    let (dial, (agent, send, _receive, _)) = tokio::join!(dial_bad(&pair, &client), with_dial(&pair));
    match dial {
        Err(DialError::Refused(reply)) => assert_eq!(
            reply,
            "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nBackend dial timeout: timed \
             out waiting for backend dial\r\n"
        ),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(stopped(&send).await, Some(StreamCode::Cancelled));
    assert!(agent.connection.close_reason().is_none());
}

#[tokio::test]
async fn an_agent_that_ends_a_dial_before_its_reply() {
    for how in ["finish", "reset", "half a reply", "reset with an unknown code"] {
        let pair = pair_for_bad_replies().await;
        let client = pair.client().unwrap();
        let answer = async {
            let (agent, mut send, receive, _) = with_dial(&pair).await;
            match how {
                "finish" => send.finish().unwrap(),
                "reset" => send.reset(VarInt::from_u32(StreamCode::BadRequest.into())).unwrap(),
                "half a reply" => {
                    send.write_all(&[0x09, 0x1a]).await.unwrap();
                    send.finish().unwrap();
                }
                _ => send.reset(VarInt::from_u32(0x7777)).unwrap(),
            }
            (agent, send, receive)
        };
        let (dial, (agent, ..)) = tokio::join!(dial_bad(&pair, &client), answer);
        assert_refused(dial, "HTTP/1.1 502 Bad Gateway\r\n");
        assert!(agent.connection.close_reason().is_none(), "{how}");
    }
}

#[tokio::test]
async fn an_agent_that_lets_no_stream_be_opened() {
    let pair = pair_for_bad_replies().await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    let (endpoint, connection) = raw::connect(pair.server.agents, &pair.certificates, ALPN, transport).await.unwrap();
    let (send, receive) = connection.open_bi().await.unwrap();
    let mut agent = raw::Peer { endpoint, connection, send, receive };
    agent.hello("mean", "ipv4=127.0.0.1").await.unwrap();
    let client = pair.client().unwrap();
    match dial_bad(&pair, &client).await {
        Err(DialError::Refused(reply)) => assert_eq!(
            reply,
            "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nFailed to tunnel dial \
             request: timed out waiting for backend dial\r\n"
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reply_with_an_unknown_error_is_still_one() {
    let pair = pair_for_bad_replies().await;
    let client = pair.client().unwrap();
    let answer = async {
        let (agent, mut send, receive, _) = with_dial(&pair).await;
        // DialReply with error 99.
        send.write_all(b"\x0f\x08\x63\x12\x0bout of luck").await.unwrap();
        send.finish().unwrap();
        (agent, receive)
    };
    let (dial, _agent) = tokio::join!(dial_bad(&pair, &client), answer);
    match dial {
        Err(DialError::Refused(reply)) => {
            assert!(reply.starts_with("HTTP/1.1 502 ") && reply.ends_with("\r\n\r\nout of luck"), "{reply}")
        }
        other => panic!("{other:?}"),
    }
}
