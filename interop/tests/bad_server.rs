//! Servers with a valid certificate that break the protocol: the agent closes with the documented code, says why, and
//! tries again. And dial streams that break it: they end alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::pair::{Agent, http, raw, until};
use konnectivity_transport::wire::code::{ConnectionCode, StreamCode};
use konnectivity_transport::wire::codec::{MAX_DIAL_REPLY_BYTES, MAX_DIAL_REQUEST_BYTES, decode, encode};
use konnectivity_transport::wire::message::{
    ControlBody, DialErrorKind, DialReply, DialRequest, Drain, Servers, Token,
};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server in the hand of the test, and a real agent for it.
struct Stage {
    endpoint: quinn::Endpoint,
    agent: Agent,
    _folder: TempDir,
}

impl Stage {
    async fn new(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let endpoint = raw::server(&certificates).unwrap();
        let quick = ["--agent-id=agent-1", "--sync-interval=100ms", "--sync-interval-cap=200ms"];
        let arguments: Vec<_> = quick.iter().chain(arguments).map(|&text| text.to_owned()).collect();
        let agent = Agent::start(&certificates, endpoint.local_addr().unwrap(), HERE, &arguments).await.unwrap();
        Self { endpoint, agent, _folder: folder }
    }

    async fn accept(&self) -> raw::Peer {
        let (peer, hello) = raw::accept(&self.endpoint).await.unwrap();
        assert_eq!(hello.agent_id, "agent-1");
        peer
    }

    /// An agent that has been welcomed.
    async fn welcomed(&mut self) -> raw::Peer {
        let mut peer = self.accept().await;
        peer.say(raw::welcome("server-1")).await.unwrap();
        self.agent.ready().await.unwrap();
        peer
    }

    /// The agent is ready with a good server after all.
    async fn recovers(mut self) {
        let _peer = self.welcomed().await;
    }
}

#[tokio::test]
async fn garbage_instead_of_a_welcome() {
    let stage = Stage::new(&[]).await;
    let not_a_welcome = "the peer broke the protocol: the first message of the server is not a Welcome";
    let cannot_be_read = "the peer broke the protocol: the peer sent a message that cannot be read: ";
    for (bytes, expected) in [
        (&[0x03, 0xff, 0xff, 0xff][..], cannot_be_read),
        (&[0x81, 0x80, 0x04], cannot_be_read),
        (&[0xff; 5], cannot_be_read),
        (&[0x07, 0x1a, 0x05, 0x0a, 0x03, b'b', b'y', b'e'], not_a_welcome),
    ] {
        let mut peer = stage.accept().await;
        peer.send.write_all(bytes).await.unwrap();
        let (code, reason) = peer.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
        assert!(reason.starts_with(expected), "{reason}");
        let words = ["WARN", "cannot connect to a server", "did not accept this agent", expected];
        stage.agent.program.logged(&words, LIMIT).await.unwrap();
    }
    stage.recovers().await;
}

#[tokio::test]
async fn a_server_id_that_cannot_be_used() {
    let stage = Stage::new(&[]).await;
    for (id, expected) in
        [("", "id is empty"), ("a\nb", "id has '\\n' at byte 1"), (&"x".repeat(257), "id has 257 bytes")]
    {
        let mut peer = stage.accept().await;
        peer.say(raw::welcome(id)).await.unwrap();
        let (code, reason) = peer.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
        assert!(reason.contains(expected), "{reason}");
        until("the agent says why it is not ready", LIMIT, || async {
            let body = http::get(stage.agent.health, "/readyz").await.unwrap().body;
            body.contains(&format!("says an id that cannot be used: {expected}")).then_some(())
        })
        .await;
    }
    stage.recovers().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_after_ten_seconds() {
    let stage = Stage::new(&[]).await;
    let start = Instant::now();
    let peer = stage.accept().await;
    let (code, reason) = peer.closed().await.unwrap();
    assert_eq!((code, reason.as_str()), (ConnectionCode::HelloTimeout, "the peer sent no hello within 10 s"));
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&start.elapsed()), "{:?}", start.elapsed());
    stage.recovers().await;
}

/// The agent looks at its file every ten seconds, whatever it is told all the while.
#[tokio::test]
async fn a_server_that_never_stops_talking_gets_new_tokens() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first").unwrap();
    let mut stage = Stage::new(&[&format!("--service-account-token-path={}", file.display())]).await;
    let mut peer = stage.welcomed().await;
    std::fs::write(&file, "second").unwrap();
    let begun = Instant::now();
    let token = loop {
        assert!(begun.elapsed() < Duration::from_secs(25), "no new token");
        peer.say(ControlBody::Servers(Servers { server_count: 1, servers: Vec::new() })).await.unwrap();
        if let Ok(message) = timeout(Duration::from_millis(500), peer.next()).await {
            break message.unwrap();
        }
    };
    assert_eq!(token, ControlBody::Token(Token { token: "second".into() }));
}

#[tokio::test]
async fn messages_that_a_server_must_not_send() {
    let mut stage = Stage::new(&[]).await;
    for message in [raw::welcome("server-1"), raw::hello("a", ""), ControlBody::Token(Token { token: "x".into() })] {
        let mut peer = stage.welcomed().await;
        peer.say(message).await.unwrap();
        let expected = (ConnectionCode::Protocol, "a server must not send this control message".to_owned());
        assert_eq!(peer.closed().await.unwrap(), expected);
    }
    for bytes in [&[0x03, 0xff, 0xff, 0xff][..], &[0x81, 0x80, 0x04], &[0xff; 5]] {
        let mut peer = stage.welcomed().await;
        peer.send.write_all(bytes).await.unwrap();
        let (code, reason) = peer.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
        assert!(reason.starts_with("control stream: the peer sent a message that cannot be read: "), "{reason}");
    }
    for reset in [false, true] {
        let mut peer = stage.welcomed().await;
        match reset {
            false => peer.send.finish().unwrap(),
            true => peer.send.reset(VarInt::from_u32(0)).unwrap(),
        }
        let (code, reason) = peer.closed().await.unwrap();
        assert_eq!(code, ConnectionCode::Protocol, "{reason}");
    }
    stage.recovers().await;
}

#[tokio::test]
async fn what_a_later_server_may_send_is_skipped() {
    let mut stage = Stage::new(&[]).await;
    let mut peer = stage.welcomed().await;
    peer.send.write_all(&[0x04, 0x7a, 0x02, 0x0a, 0x00]).await.unwrap();
    peer.say(ControlBody::Servers(Servers::default())).await.unwrap();
    peer.say(ControlBody::Drain(Drain { reason: "a reason".into() })).await.unwrap();
    stage.agent.program.logged(&["the server drains", "a reason"], LIMIT).await.unwrap();
    assert!(peer.connection.close_reason().is_none());
    dial_works(&peer).await;
}

#[tokio::test]
async fn every_close_is_logged_with_its_reason_and_the_agent_comes_back() {
    let mut stage = Stage::new(&[]).await;
    for code in ConnectionCode::ALL {
        let peer = stage.welcomed().await;
        let reason = format!("reason {code:?}");
        peer.connection.close(VarInt::from_u32(code.into()), reason.as_bytes());
        let words = ["disconnected from a server", &format!("closed by the peer: {reason} ({})", code.meaning())];
        stage.agent.program.logged(&words, LIMIT).await.unwrap();
    }
    let peer = stage.welcomed().await;
    peer.connection.close(VarInt::from_u32(0x7777), b"from the future");
    stage.agent.program.logged(&["closed by the peer: from the future (unknown code)"], LIMIT).await.unwrap();
    stage.recovers().await;
}

/// Opens a dial stream with these bytes.
async fn open(peer: &raw::Peer, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, receive) = peer.connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, receive)
}

fn request(address: &str) -> Vec<u8> {
    let request = DialRequest { dial_id: 7, network: "tcp".into(), address: address.into(), timeout_ms: 1000 };
    encode(&request, MAX_DIAL_REQUEST_BYTES).unwrap().to_vec()
}

/// The reply to a dial, and what follows it up to the end.
async fn reply(mut receive: RecvStream) -> (DialReply, Vec<u8>) {
    let all = timeout(LIMIT, receive.read_to_end(1 << 20)).await.unwrap().unwrap();
    let mut buffer = bytes::BytesMut::from(&all[..]);
    let reply = decode(&mut buffer, MAX_DIAL_REPLY_BYTES).unwrap().unwrap();
    (reply, buffer.to_vec())
}

/// The agent dials a target, and bytes go both ways.
async fn dial_works(peer: &raw::Peer) {
    let target = TcpListener::bind((HERE, 0)).await.unwrap();
    let (mut send, receive) = open(peer, &request(&target.local_addr().unwrap().to_string())).await;
    send.write_all(b"early").await.unwrap();
    send.finish().unwrap();
    let (mut socket, from) = timeout(LIMIT, target.accept()).await.unwrap().unwrap();
    let mut early = Vec::new();
    socket.read_to_end(&mut early).await.unwrap();
    assert_eq!(early, b"early");
    socket.write_all(b"late").await.unwrap();
    drop(socket);
    let (reply, late) = reply(receive).await;
    assert_eq!((reply.kind(), reply.local_address.as_str()), (DialErrorKind::Connected, from.to_string().as_str()));
    assert_eq!(late, b"late");
}

/// How the agent has ended both directions of a dial.
async fn ended((send, mut receive): (SendStream, RecvStream)) -> [Option<StreamCode>; 2] {
    let stopped = timeout(Duration::from_secs(15), send.stopped()).await.expect("the stream must be stopped").unwrap();
    let reset = match timeout(LIMIT, receive.read_to_end(1 << 20)).await.expect("the stream must be reset") {
        Err(quinn::ReadToEndError::Read(ReadError::Reset(code))) => Some(code),
        other => panic!("not reset: {other:?}"),
    };
    [stopped, reset].map(|code| StreamCode::from_u64(code?.into_inner()))
}

#[tokio::test]
async fn dial_requests_that_are_none() {
    let mut stage = Stage::new(&[]).await;
    let peer = stage.welcomed().await;
    let bad = [Some(StreamCode::BadRequest); 2];
    for bytes in [&[0x03, 0xff, 0xff, 0xff][..], &[0x81, 0x20], &[0xff; 5]] {
        assert_eq!(ended(open(&peer, bytes).await).await, bad, "{bytes:02x?}");
    }
    // Finished in the middle, and before anything.
    for bytes in [&[0x15_u8, 0x08][..], &[]] {
        let (mut send, receive) = open(&peer, bytes).await;
        send.finish().unwrap();
        let [_, reset] = ended((send, receive)).await;
        assert_eq!(reset, Some(StreamCode::BadRequest), "{bytes:02x?}");
    }
    stage.agent.program.logged(&["a dial request could not be read"], LIMIT).await.unwrap();
    assert!(peer.connection.close_reason().is_none(), "the connection lives on");
    dial_works(&peer).await;
}

#[tokio::test]
async fn half_a_dial_request_is_waited_for_ten_seconds() {
    let mut stage = Stage::new(&[]).await;
    let peer = stage.welcomed().await;
    let start = Instant::now();
    let mut half = Vec::new();
    for _ in 0..20 {
        half.push(open(&peer, &[0x15, 0x08]).await);
    }
    // Nobody waits behind them.
    dial_works(&peer).await;
    for dial in half {
        assert_eq!(ended(dial).await, [Some(StreamCode::TimedOut); 2]);
    }
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&start.elapsed()), "{:?}", start.elapsed());
    dial_works(&peer).await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_answered() {
    let mut stage = Stage::new(&[]).await;
    let peer = stage.welcomed().await;
    for (network, address, kind, text) in [
        ("udp", "127.0.0.1:1", DialErrorKind::Malformed, "dial udp: unknown network udp"),
        ("", "127.0.0.1:1", DialErrorKind::Malformed, "dial : unknown network "),
        ("tcp", "127.0.0.1", DialErrorKind::Malformed, "dial tcp: address 127.0.0.1: missing port in address"),
        ("tcp", "", DialErrorKind::Malformed, "dial tcp: missing address"),
        ("tcp", "127.0.0.1:1", DialErrorKind::Refused, "dial tcp 127.0.0.1:1: connect: connection refused"),
    ] {
        let request = DialRequest { dial_id: 1, network: network.into(), address: address.into(), timeout_ms: 0 };
        let (send, receive) = open(&peer, &encode(&request, MAX_DIAL_REQUEST_BYTES).unwrap()).await;
        let (reply, rest) = reply(receive).await;
        assert_eq!((reply.kind(), reply.text.as_str()), (kind, text));
        assert!(rest.is_empty());
        let stopped = timeout(LIMIT, send.stopped()).await.unwrap().unwrap();
        assert_eq!(stopped, Some(VarInt::from_u32(StreamCode::Cancelled.into())));
    }
    dial_works(&peer).await;
}

#[tokio::test]
async fn a_server_that_opens_ten_thousand_streams() {
    const ALLOWED: usize = 300;
    let mut stage = Stage::new(&[&format!("--quic-max-dials={ALLOWED}")]).await;
    let peer = stage.welcomed().await;
    // None of them ever says a whole request. Ten thousand are tried, and each waits until it may be opened.
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let connection = peer.connection.clone();
        dials.spawn(async move {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            let _ = send.write_all(&[0x15]).await;
            (send, receive)
        });
    }
    let mut opened = Vec::new();
    while opened.len() < ALLOWED {
        opened.push(timeout(LIMIT, dials.join_next()).await.expect("so many may be opened").unwrap().unwrap());
    }
    assert!(timeout(Duration::from_millis(300), dials.join_next()).await.is_err(), "no more than that");
    let open = stage.agent.connections().await.unwrap()[0]["open_dials"].as_u64().unwrap();
    assert_eq!(open, ALLOWED as u64);
    assert_eq!(http::get(stage.agent.health, "/readyz").await.unwrap().status, 200);
    // When those that came through are given up, there is room for others.
    dials.abort_all();
    for (mut send, mut receive) in opened {
        let _ = send.reset(VarInt::from_u32(StreamCode::Cancelled.into()));
        let _ = receive.stop(VarInt::from_u32(StreamCode::Cancelled.into()));
    }
    dial_works(&peer).await;
    until("all of them are gone", LIMIT, || async {
        (stage.agent.connections().await.unwrap()[0]["open_dials"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unidirectional_streams_are_not_allowed() {
    let mut stage = Stage::new(&[]).await;
    let peer = stage.welcomed().await;
    assert!(timeout(Duration::from_millis(200), peer.connection.open_uni()).await.is_err());
    dial_works(&peer).await;
}
