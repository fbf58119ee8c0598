use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, HandshakeKind,
    version::{TLS12, TLS13},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::mpsc::{Receiver, channel},
    task::JoinSet,
    time,
};

use nix::errno::Errno;

use super::{
    tls::{Protocol, Terms},
    *,
};
use crate::accept::test_certificates::{Authority, ClientIdentity, connect};

/// A listener that runs, and the clients that it accepts.
struct Running {
    clients: Receiver<PeerStream>,
    counts: Arc<ListenerCounts>,
    stop: CancellationToken,
    running: JoinSet<io::Result<()>>,
}

impl Running {
    fn start(listener: Listener) -> Self {
        let (told, clients) = channel(1);
        let counts = Arc::new(ListenerCounts::default());
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn({
            let (counts, stop) = (counts.clone(), stop.clone());
            async move { listener.run(stop, &counts, move |client| told.try_send(client).unwrap()).await }
        });
        Self { clients, counts, stop, running }
    }

    fn tls(authority: &Authority) -> (Self, SocketAddr) {
        Self::tls_with(authority.server_with(Protocol::Http1))
    }

    fn tls_with(settings: tls::Settings) -> (Self, SocketAddr) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (Self::start(Listener::tls(socket, Current::new(settings)).unwrap()), address)
    }

    async fn handshake_errors(&self, expected: u64) {
        while self.counts.handshake_errors.load(Relaxed) < expected {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.counts.handshake_errors.load(Relaxed), expected);
    }

    async fn serves(&mut self, address: SocketAddr, config: ClientConfig) {
        let mut client = connect(address, config).await.unwrap();
        let mut accepted = self.clients.recv().await.unwrap();
        accepted.write_all(b"hello").await.unwrap();
        accepted.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// What a client is told that is not let in: in TLS 1.3 it learns so only when it reads.
async fn refusal(address: SocketAddr, config: ClientConfig) -> String {
    let refused = async {
        let mut stream = connect(address, config).await?;
        // A real client sends its request at once, which must not make the alert disappear.
        stream.write_all(b"CONNECT a:1 HTTP/1.1\r\n\r\n").await?;
        stream.read_u8().await
    };
    time::timeout(Duration::from_secs(10), refused).await.expect("the client is let in").unwrap_err().to_string()
}

/// Everything that the server answers to bytes that aren't TLS.
async fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn clients_of_a_unix_socket_are_accepted_until_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut running = Running::start(Listener::unix(&path, true).unwrap());
    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).await.unwrap();
        let mut accepted = running.clients.recv().await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
    }
    running.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn clients_with_a_certificate_are_served_by_both_versions_of_tls() {
    let authority = Authority::new();
    let (mut running, address) = Running::tls(&authority);
    for version in [&TLS12, &TLS13] {
        let client = authority.client_of(&[version], Some(authority.issue()));
        running.serves(address, client).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_shows_its_certificate_again() {
    let authority = Authority::new();
    let (mut running, address) = Running::tls(&authority);
    for version in [&TLS12, &TLS13] {
        let client = authority.client_of(&[version], Some(authority.issue()));
        for _ in 0..2 {
            let mut stream = connect(address, client.clone()).await.unwrap();
            running.clients.recv().await.unwrap().shutdown().await.unwrap();
            // A session that was offered has come by the end of the stream.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "{version:?}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_client_may_name_http_1_1_or_no_protocol_but_not_h2_alone() {
    let authority = Authority::new();
    let (mut running, address) = Running::tls(&authority);
    let client = |protocols: &[&str]| speaking(authority.client(Some(authority.issue())), protocols);
    running.serves(address, client(&[])).await;
    running.serves(address, client(&["h2", "http/1.1"])).await;
    let told = refusal(address, client(&["h2"])).await;
    assert!(told.contains("NoApplicationProtocol"), "{told}");
    running.handshake_errors(1).await;
    running.stop().await;
}

fn speaking(mut client: ClientConfig, protocols: &[&str]) -> ClientConfig {
    client.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    client
}

#[tokio::test]
async fn a_client_of_grpc_must_name_h2() {
    let authority = Authority::new();
    let (mut running, address) = Running::tls_with(authority.server_with(Protocol::Http2 { demand_alpn: true }));
    let client = |protocols: &[&str]| speaking(authority.client(Some(authority.issue())), protocols);
    running.serves(address, client(&["h2"])).await;
    running.serves(address, client(&["x", "http/1.1", "h2"])).await;
    let told = refusal(address, client(&["http/1.1"])).await;
    assert!(told.contains("NoApplicationProtocol"), "{told}");
    running.handshake_errors(1).await;
    // The handshake itself is over when it shows that no protocol was named; the client finds the end of the stream.
    let told = refusal(address, client(&[])).await;
    assert!(!told.contains("NoApplicationProtocol"), "{told}");
    running.handshake_errors(2).await;
    running.serves(address, client(&["h2"])).await;
    running.stop().await;
}

#[tokio::test]
async fn a_client_of_grpc_may_name_nothing_where_that_is_allowed() {
    let authority = Authority::new();
    let (mut running, address) = Running::tls_with(authority.server_with(Protocol::Http2 { demand_alpn: false }));
    running.serves(address, authority.client(Some(authority.issue()))).await;
    running.stop().await;
}

#[tokio::test]
async fn plain_http_on_the_port_of_grpc_is_told_nothing() {
    let authority = Authority::new();
    let (running, address) = Running::tls_with(authority.server_with(Protocol::Http2 { demand_alpn: true }));
    for start in ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_eq!(answer(address, start.as_bytes()).await, b"", "{start}");
    }
    running.handshake_errors(2).await;
    running.stop().await;
}

#[tokio::test]
async fn versions_and_suites_can_be_restricted() {
    use rustls::CipherSuite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384};
    let authority = Authority::new();
    let client = |version| authority.client_of(&[version], Some(authority.issue()));
    // Only TLS 1.3: asked for, or because the list leaves nothing for TLS 1.2.
    for (only_tls13, cipher_suites) in [(true, None), (false, Some(vec![])), (true, Some(vec![]))] {
        let terms = Terms { protocol: Protocol::Http1, only_tls13, cipher_suites };
        let (mut running, address) = Running::tls_with(authority.server_of(&terms));
        running.serves(address, client(&TLS13)).await;
        let told = connect(address, client(&TLS12)).await.unwrap_err().to_string();
        assert!(told.contains("ProtocolVersion"), "{terms:?}: {told}");
        running.stop().await;
    }
    for suite in [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384] {
        let terms = Terms { protocol: Protocol::Http1, only_tls13: false, cipher_suites: Some(vec![suite]) };
        let (mut running, address) = Running::tls_with(authority.server_of(&terms));
        let connection = connect(address, client(&TLS12)).await.unwrap();
        assert_eq!(connection.get_ref().1.negotiated_cipher_suite().unwrap().suite(), suite);
        drop((connection, running.clients.recv().await));
        running.serves(address, client(&TLS13)).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn clients_without_a_good_certificate_learn_why_and_hinder_nobody() {
    let (authority, stranger) = (Authority::new(), Authority::named("theirs"));
    let (mut running, address) = Running::tls(&authority);
    let expired = authority.issue_with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let cases: [(Option<ClientIdentity>, &str); 3] =
        [(None, "CertificateRequired"), (Some(stranger.issue()), "UnknownCA"), (Some(expired), "CertificateExpired")];
    for (refused, (identity, alert)) in (1..).zip(cases) {
        let told = refusal(address, authority.client_of(&[&TLS13], identity)).await;
        assert!(told.contains(alert), "{told}");
        running.handshake_errors(refused).await;
        running.serves(address, authority.client(Some(authority.issue()))).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_server_is_counted() {
    let (authority, stranger) = (Authority::new(), Authority::named("theirs"));
    let (running, address) = Running::tls(&authority);
    connect(address, stranger.client(Some(authority.issue()))).await.unwrap_err();
    running.handshake_errors(1).await;
    running.stop().await;
}

#[tokio::test]
async fn plain_http_is_told_to_use_tls_and_anything_else_nothing() {
    let authority = Authority::new();
    let (running, address) = Running::tls(&authority);
    for request in ["GET / HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n"] {
        let expected = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(answer(address, request.as_bytes()).await, expected, "{request}");
    }
    for garbage in [b"SSH-2.0-x\r\n".as_slice(), b"\x15\x03\x01\x00\x02\x01\x00", b"GETxx"] {
        assert_eq!(answer(address, garbage).await, b"", "{garbage:?}");
    }
    running.handshake_errors(6).await;
    running.stop().await;
}

#[tokio::test]
async fn a_probe_that_says_nothing_is_no_error() {
    let authority = Authority::new();
    let (running, address) = Running::tls(&authority);
    drop(TcpStream::connect(address).await.unwrap());
    // The one after it is counted alone.
    answer(address, b"garbage").await;
    running.handshake_errors(1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_handshake_has_a_minute() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let config = Authority::new().server_with(Protocol::Http1);
    // Nothing is under way on the socket that the clock could overtake.
    time::pause();
    let started = time::Instant::now();
    let error = handshake(stream, peer, config).await.unwrap_err();
    assert_eq!(error.kind.to_string(), "not finished within 60 seconds");
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn accepted_connections_inherit_what_the_listener_was_given() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    tls::prepare(&socket).unwrap();
    let socket = TcpListener::from_std(socket).unwrap();
    let _client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    let accepted = SockRef::from(&accepted);
    assert!(accepted.tcp_nodelay().unwrap());
    assert!(accepted.keepalive().unwrap());
    assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
    assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
    assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn accepting_goes_on_after_errors_with_a_pause_where_it_helps() {
    let error = |errno: Errno| Poll::Ready(Err(errno.into()));
    let mut script = [
        error(Errno::ECONNABORTED),
        error(Errno::EMFILE),
        error(Errno::ENFILE),
        error(Errno::ENETUNREACH),
        Poll::Ready(Ok(7)),
    ]
    .into_iter();
    let counts = ListenerCounts::default();
    let started = time::Instant::now();
    let accepted = accept(|_| script.next().unwrap(), &counts, &mut AcceptLog::default()).await;
    assert_eq!(accepted, 7);
    assert_eq!(started.elapsed(), 2 * PAUSE);
    assert_eq!(counts.accept_errors.load(Relaxed), 4);
}

#[test]
fn one_event_a_second_is_logged_and_the_others_counted() {
    let mut log = Sparse::default();
    let start = Instant::now();
    let after = |milliseconds| start + Duration::from_millis(milliseconds);
    assert_eq!(log.due(start), Some(0));
    assert_eq!(log.due(after(10)), None);
    assert_eq!(log.due(after(999)), None);
    assert_eq!(log.due(after(1000)), Some(2));
    assert_eq!(log.due(after(1500)), None);
    assert_eq!(log.due(after(2100)), Some(1));
}
