//! The relay over a real QUIC connection and real TCP sockets: what one socket's peer does must be what the other
//! socket's peer sees.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use konnectivity_transport::{
    budget::MemoryBudget,
    connection::Connection,
    dial::OpenDial,
    endpoint::{EndpointKeys, ServerEndpoint, connect},
    relay::{Outcome, Start, relay},
    settings::QuicSettings,
    stream::{MessageError, ReceiveError},
    tls::{self, ClientTls, Identity, ServerTls, TUNNEL_ALPN},
    wire::message::{DialReply, DialRequest},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

#[path = "relay/packets.rs"]
mod packets;

/// Nothing here takes longer, unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

struct Tunnel {
    server: Connection,
    agent: Connection,
    _endpoint: ServerEndpoint,
}

/// A client's socket and its target's, joined by a tunnel, with both relays' outcomes.
struct Joined {
    client: TcpStream,
    target: TcpStream,
    server: JoinHandle<Outcome>,
    agent: JoinHandle<Outcome>,
}

impl Tunnel {
    async fn new(settings: QuicSettings) -> Self {
        let folder = std::env::temp_dir().join(format!(
            "konnectivity-relay-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let identity = Identity::load(&certificate, &key).unwrap();
        let roots = tls::load_roots(&certificate).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();

        let budget = MemoryBudget::new(settings.memory_budget);
        let endpoint = ServerEndpoint::bind(
            (Ipv4Addr::LOCALHOST, 0).into(),
            ServerTls::new(&identity, None, TUNNEL_ALPN).unwrap(),
            &EndpointKeys::from_identity(&identity, "server"),
            &settings,
            budget.clone(),
        )
        .unwrap();
        let address = endpoint.local_address().unwrap();
        let client_tls = ClientTls::new(roots, None, TUNNEL_ALPN).unwrap();
        let accept = async { endpoint.accept().await.unwrap().accept().await.unwrap() };
        let (server, agent) = tokio::join!(accept, connect(address, "localhost", &client_tls, &settings, budget));
        let agent = agent.unwrap();
        for connection in [server.clone(), agent.clone()] {
            tokio::spawn(async move { connection.govern().await });
        }
        Self { server, agent, _endpoint: endpoint }
    }

    /// Opens a dial as far as the reply.
    async fn dial(&self) -> (OpenDial, OpenDial) {
        let request = DialRequest { dial_id: 1, network: "tcp".into(), address: "target:1".into(), timeout_ms: 0 };
        let opened = self.server.open_dial(&request).await.unwrap();
        let (received, mut at_agent) = self.agent.accept_dial().await.unwrap().request().await.unwrap();
        assert_eq!(received, request);
        at_agent.answer(&DialReply::connected("127.0.0.1:1")).await.unwrap();
        let (_, at_server) = opened.reply().await.unwrap();
        (at_server, at_agent)
    }

    async fn join(&self) -> Joined {
        let (mut at_server, mut at_agent) = self.dial().await;
        let (client, client_socket) = tcp_pair().await;
        let (target, target_socket) = tcp_pair().await;
        let server = tokio::spawn(async move {
            let outcome = relay(client_socket, &mut at_server, Start::default()).await;
            at_server.stream.send.delivered().await;
            outcome
        });
        let agent = tokio::spawn(async move {
            let outcome = relay(target_socket, &mut at_agent, Start::default()).await;
            at_agent.stream.send.delivered().await;
            outcome
        });
        Joined { client, target, server, agent }
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} took longer than {LIMIT:?}"))
}

async fn echo(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
    let mut got = vec![0; text.len()];
    within("a write", from.write_all(text)).await.unwrap();
    within("a read", to.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, text);
}

fn pattern(bytes: usize) -> Arc<Vec<u8>> {
    Arc::new((0..bytes).map(|place| (place / 251 + place) as u8).collect())
}

/// Writes until nothing more is taken for a while.
async fn fill(socket: &mut TcpStream) -> usize {
    let chunk = vec![7; 64 * 1024];
    let mut written = 0;
    while let Ok(bytes) = timeout(Duration::from_millis(500), socket.write(&chunk)).await {
        written += bytes.unwrap();
    }
    written
}

#[tokio::test]
async fn half_close_leaves_the_other_direction_open() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Joined { mut client, mut target, server, agent } = tunnel.join().await;
    echo(&mut client, &mut target, b"request").await;
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end of the request", target.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    for _ in 0..3 {
        echo(&mut target, &mut client, b"a late answer").await;
    }
    target.shutdown().await.unwrap();
    within("the end of the answer", client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(server.await.unwrap(), Outcome::Finished);
    assert_eq!(agent.await.unwrap(), Outcome::Finished);
    assert_eq!(tunnel.server.open_dials(), 0);
    assert_eq!(tunnel.agent.open_dials(), 0);
}

#[tokio::test]
async fn bytes_written_before_a_close_arrive_whoever_closes() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    for bytes in [1, 100, 10_000, 2_000_000, 20_000_000] {
        let sent = pattern(bytes);
        for client_closes in [true, false] {
            let Joined { client, target, .. } = tunnel.join().await;
            let (mut closing, mut other) = if client_closes { (client, target) } else { (target, client) };
            let data = sent.clone();
            let write = tokio::spawn(async move {
                closing.write_all(&data).await.unwrap();
                drop(closing);
            });
            let mut got = Vec::new();
            within("everything", other.read_to_end(&mut got)).await.unwrap();
            assert!(got == *sent, "{bytes} bytes, {} arrived, client closes: {client_closes}", got.len());
            write.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_and_after_the_bytes_before_it() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    for client_resets in [true, false] {
        let Joined { client, target, server, agent } = tunnel.join().await;
        let (mut resetting, mut other) = if client_resets { (client, target) } else { (target, client) };
        resetting.write_all(b"last words").await.unwrap();
        let mut got = [0; 10];
        within("the bytes before the reset", other.read_exact(&mut got)).await.unwrap();
        resetting.set_zero_linger().unwrap();
        drop(resetting);
        let error = within("the reset", other.read(&mut got)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let outcomes = (server.await.unwrap(), agent.await.unwrap());
        let (near, far) = if client_resets { outcomes } else { (outcomes.1, outcomes.0) };
        assert!(matches!(near, Outcome::SocketFailed(_)), "{near:?}");
        assert!(matches!(far, Outcome::PeerReset(Some(_))), "{far:?}");
    }
}

#[tokio::test]
async fn bytes_right_before_a_reset_are_not_lost_in_the_tunnel() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    for _ in 0..50 {
        let Joined { client, mut target, .. } = tunnel.join().await;
        let mut client = client;
        client.write_all(b"last words").await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        // The reset may overtake the bytes on the way from the client to the server's socket, but not in the tunnel:
        // what the server's end has read arrives. Either all of it comes, or the socket was reset before it was read.
        let mut got = Vec::new();
        let error = within("the reset", target.read_to_end(&mut got)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(got.is_empty() || got == b"last words", "{got:?}");
    }
}

#[tokio::test]
async fn a_relay_that_is_dropped_looks_like_a_reset_and_never_like_an_end() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Joined { mut client, mut target, server, agent } = tunnel.join().await;
    echo(&mut client, &mut target, b"hello").await;
    server.abort();
    let mut byte = [0];
    assert_eq!(
        within("the target's end", target.read(&mut byte)).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        within("the client's end", client.read(&mut byte)).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert!(matches!(agent.await.unwrap(), Outcome::PeerReset(_)));
}

#[tokio::test]
async fn a_lost_connection_resets_both_sockets() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Joined { mut client, mut target, server, agent } = tunnel.join().await;
    echo(&mut client, &mut target, b"hello").await;
    tunnel.agent.close(konnectivity_transport::wire::code::ConnectionCode::Stopping, "test");
    let mut byte = [0];
    assert_eq!(
        within("the client's end", client.read(&mut byte)).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        within("the target's end", target.read(&mut byte)).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert!(matches!(server.await.unwrap(), Outcome::ConnectionLost(_)));
    assert!(matches!(agent.await.unwrap(), Outcome::ConnectionLost(_)));
}

#[tokio::test]
async fn a_dial_that_is_given_up_is_seen_by_the_agent() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let request = DialRequest { dial_id: 1, network: "tcp".into(), address: "target:1".into(), timeout_ms: 0 };
    let opened = tunnel.server.open_dial(&request).await.unwrap();
    let (_, mut at_agent) = tunnel.agent.accept_dial().await.unwrap().request().await.unwrap();
    drop(opened);
    let error = within("the cancel", at_agent.stream.receive.given_up()).await;
    assert!(matches!(error, ReceiveError::Reset(Some(_))), "{error:?}");
}

#[tokio::test]
async fn an_agent_that_goes_away_fails_a_pending_dial() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let request = DialRequest { dial_id: 1, network: "tcp".into(), address: "target:1".into(), timeout_ms: 0 };
    let opened = tunnel.server.open_dial(&request).await.unwrap();
    let dial = tunnel.agent.accept_dial().await.unwrap().request().await.unwrap();
    tunnel.agent.close(konnectivity_transport::wire::code::ConnectionCode::Stopping, "test");
    let error = within("the reply", opened.reply()).await.unwrap_err();
    assert!(matches!(error, MessageError::LostAtWork(_)), "{error:?}");
    drop(dial);
}

/// Windows so small that 64 stalled dials would use up any shared budget of theirs many times over.
fn small_windows() -> QuicSettings {
    QuicSettings { stream_receive_window: 256 * 1024, connection_receive_window: 512 * 1024, ..QuicSettings::default() }
}

#[tokio::test]
async fn stalled_readers_do_not_stop_other_dials() {
    stalled_dials_do_not_stop_others(false).await;
}

#[tokio::test]
async fn stalled_targets_do_not_stop_other_dials() {
    stalled_dials_do_not_stop_others(true).await;
}

async fn stalled_dials_do_not_stop_others(uploads: bool) {
    let tunnel = Tunnel::new(small_windows()).await;
    let mut stalled = Vec::new();
    for _ in 0..64 {
        stalled.push(tunnel.join().await);
    }
    let mut fills = tokio::task::JoinSet::new();
    for Joined { client, target, server, agent } in stalled {
        let (mut writer, reader) = if uploads { (client, target) } else { (target, client) };
        fills.spawn(async move {
            fill(&mut writer).await;
            (writer, reader, server, agent)
        });
    }
    let stalled = within("filling 64 dials", fills.join_all()).await;
    let Joined { mut client, mut target, .. } = within("a new dial", tunnel.join()).await;
    for _ in 0..100 {
        echo(&mut client, &mut target, b"ping").await;
        echo(&mut target, &mut client, b"pong").await;
    }
    // A bulk dial passes too.
    let data = pattern(4_000_000);
    let Joined { client, target, .. } = tunnel.join().await;
    let (mut writer, mut reader) = if uploads { (client, target) } else { (target, client) };
    let sent = data.clone();
    tokio::spawn(async move { writer.write_all(&sent).await });
    let mut got = vec![0; data.len()];
    within("a bulk dial", reader.read_exact(&mut got)).await.unwrap();
    assert!(got == *data);
    drop(stalled);
}

#[tokio::test]
async fn a_spent_memory_budget_ends_the_longest_stalled_dial_only() {
    let settings = QuicSettings { memory_budget: 2 * 300_000, ..small_windows() };
    let tunnel = Tunnel::new(settings).await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut joined = tunnel.join().await;
        fill(&mut joined.target).await;
        stalled.push(joined);
    }
    let first = stalled.remove(0);
    assert_eq!(within("the end of the first", first.server).await.unwrap(), Outcome::OverBudget);
    assert!(stalled.iter().all(|joined| !joined.server.is_finished()), "one is enough");
}

#[tokio::test]
async fn a_half_closed_dial_sees_its_connection_go() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Joined { mut client, mut target, server, .. } = tunnel.join().await;
    target.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end of the answer", client.read_to_end(&mut rest)).await.unwrap();
    tunnel.agent.close(konnectivity_transport::wire::code::ConnectionCode::Stopping, "test");
    assert!(matches!(within("the relay", server).await.unwrap(), Outcome::ConnectionLost(_)));
}

#[tokio::test]
async fn what_was_delivered_before_the_connection_went_still_reaches_a_slow_client() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Joined { mut client, mut target, server, agent } = tunnel.join().await;
    client.shutdown().await.unwrap();
    let mut nothing = Vec::new();
    within("the end of the request", target.read_to_end(&mut nothing)).await.unwrap();
    // More than the sockets take, less than a stream window: the agent's end is done while the client reads nothing.
    let answer = pattern(2_500_000);
    let sent = answer.clone();
    let write = tokio::spawn(async move {
        target.write_all(&sent).await.unwrap();
        target.shutdown().await.unwrap();
        target
    });
    assert_eq!(within("the agent's end", agent).await.unwrap(), Outcome::Finished);
    write.await.unwrap();
    tunnel.agent.close(konnectivity_transport::wire::code::ConnectionCode::Drained, "test");
    within("the loss", tunnel.server.closed()).await;
    let mut got = Vec::new();
    within("the answer", client.read_to_end(&mut got)).await.unwrap();
    assert!(got == *answer, "{} bytes", got.len());
    assert_eq!(within("the relay", server).await.unwrap(), Outcome::Finished);
}

#[tokio::test]
async fn a_client_that_is_gone_after_its_last_byte_ends_the_dial() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Joined { mut client, mut target, server, agent } = tunnel.join().await;
    client.write_all(b"request").await.unwrap();
    let mut got = [0; 7];
    within("the request", target.read_exact(&mut got)).await.unwrap();
    drop(client);
    within("the end of the request", target.read_to_end(&mut Vec::new())).await.unwrap();
    // The first answer after the client has gone makes its machine reset the server's socket; that is enough.
    target.write_all(b"answer").await.unwrap();
    assert!(matches!(within("the server's end", server).await.unwrap(), Outcome::HalfStopped));
    // The target's next bytes tell the agent, whose reset tells the target.
    target.write_all(b"more").await.unwrap();
    within("the agent's end", agent).await.unwrap();
    within("the target's end", async { while target.write_all(b"more").await.is_ok() {} }).await;
}
