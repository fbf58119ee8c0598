use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, mpsc},
};

use konnectivity_transport::wire::message::DialErrorKind;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};

use super::{lookup::LookupError, *};

/// For what ends in microseconds unless something is broken.
const AMPLE: Duration = Duration::from_secs(20);

async fn error_of(address: &str) -> TargetError {
    connect(address, AMPLE).await.expect_err(address)
}

/// A port of the loopback interface on which nothing listens: bound, so that nobody else takes it meanwhile.
fn closed_port(ip: &str) -> (Socket, SocketAddr) {
    let address: SocketAddr = SocketAddr::new(ip.parse().unwrap(), 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// The same port in both families, as [`closed_port`].
fn closed_ports() -> (Socket, Socket, u16) {
    loop {
        let (v6, address) = closed_port("::1");
        let v4 = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Somebody else may have the port in the other family.
        if v4.bind(&SocketAddr::from(([127, 0, 0, 1], address.port())).into()).is_ok() {
            return (v6, v4, address.port());
        }
    }
}

#[tokio::test]
async fn connects_over_both_families_with_gos_socket_options() {
    for ip in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = connect(&address.to_string(), AMPLE).await.unwrap();
        let (mut accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), peer);

        stream.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");

        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 9);
    }
}

#[tokio::test]
async fn an_empty_host_is_this_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    connect(&format!(":{port}"), AMPLE).await.unwrap();

    let (_held, address) = closed_port("127.0.0.1");
    let port = address.port();
    assert_eq!(error_of(&format!(":{port}")).await.text, format!("dial tcp :{port}: connect: connection refused"));
}

#[tokio::test]
async fn a_name_is_resolved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    connect(&format!("localhost:{port}"), AMPLE).await.unwrap();
}

#[tokio::test]
async fn a_refused_target_says_so_in_both_families() {
    for ip in ["127.0.0.1", "::1"] {
        let (_held, address) = closed_port(ip);
        let error = error_of(&address.to_string()).await;
        assert_eq!(error.kind, DialErrorKind::Refused);
        assert_eq!(error.text, format!("dial tcp {address}: connect: connection refused"));
    }
}

#[tokio::test]
async fn an_unknown_name_says_so() {
    let error = error_of("no-such-target.invalid:80").await;
    // Without a reachable server the C library cannot know; both are Go's words for what it reports.
    assert!(matches!(error.kind, DialErrorKind::NameNotFound | DialErrorKind::Other), "{error:?}");
    assert!(error.text.starts_with("dial tcp: lookup no-such-target.invalid"), "{error}");
    assert!(error.text.ends_with(": no such host") || error.text.ends_with(": server misbehaving"), "{error}");

    let error = error_of("not a name:80").await;
    assert_eq!(error.kind, DialErrorKind::NameNotFound);
    assert_eq!(error.text, "dial tcp: lookup not a name: no such host");
}

#[tokio::test]
async fn a_malformed_address_opens_nothing() {
    let error = error_of("kubelet.example").await;
    assert_eq!(error.kind, DialErrorKind::Malformed);
    assert_eq!(error.text, "dial tcp: address kubelet.example: missing port in address");
}

/// The kernel refuses to connect a TCP socket to a broadcast address, without a packet.
#[tokio::test]
async fn an_unreachable_network_says_so() {
    let error = error_of("255.255.255.255:80").await;
    assert_eq!(error.kind, DialErrorKind::Unreachable);
    assert_eq!(error.text, "dial tcp 255.255.255.255:80: connect: network is unreachable");
}

/// A listener whose queue is full: Linux drops further SYNs, as a silent host would.
struct Silent {
    _listener: Socket,
    _queued: Vec<TcpStream>,
    address: SocketAddr,
}

impl Silent {
    async fn new(ip: &str) -> Self {
        Self::fill(closed_port(ip).0).await
    }

    async fn fill(listener: Socket) -> Self {
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        loop {
            // The handshake of an accepted connection is over before connect returns on the loopback interface.
            match timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
                Ok(stream) => queued.push(stream.unwrap()),
                Err(_elapsed) => break,
            }
            assert!(queued.len() < 64, "a queue of length 0 fills up");
        }
        Self { _listener: listener, _queued: queued, address }
    }

    /// Sockets of this machine that have sent a SYN to the listener and wait (`SYN_SENT` in proc(5)'s tcp files).
    fn connects_under_way(&self) -> usize {
        let file = if self.address.is_ipv6() { "/proc/net/tcp6" } else { "/proc/net/tcp" };
        let port = format!(":{:04X}", self.address.port());
        fs::read_to_string(file)
            .unwrap()
            .lines()
            .filter(|line| {
                let mut fields = line.split_ascii_whitespace().skip(2);
                fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some("02")
            })
            .count()
    }

    async fn until_connects_under_way(&self, expected: usize) {
        timeout(AMPLE, async {
            while self.connects_under_way() != expected {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{expected} connects under way, found {}", self.connects_under_way()));
    }
}

#[tokio::test]
async fn a_silent_target_ends_at_the_limit() {
    for ip in ["127.0.0.1", "::1"] {
        let silent = Silent::new(ip).await;
        let limit = Duration::from_millis(150);
        let begun = Instant::now();
        let error = timeout(AMPLE, connect(&silent.address.to_string(), limit))
            .await
            .expect("its own limit ends it")
            .expect_err("silent");
        assert!(begun.elapsed() >= limit);
        assert_eq!(error.kind, DialErrorKind::TimedOut);
        assert_eq!(error.text, format!("dial tcp {}: i/o timeout", silent.address));
        silent.until_connects_under_way(0).await;
    }
}

#[tokio::test]
async fn a_dropped_connect_leaves_no_socket() {
    for ip in ["127.0.0.1", "::1"] {
        let silent = Silent::new(ip).await;
        silent.until_connects_under_way(0).await;
        let mut dial = JoinSet::new();
        dial.spawn({
            let address = silent.address.to_string();
            async move { connect(&address, AMPLE).await }
        });
        silent.until_connects_under_way(1).await;
        dial.shutdown().await;
        silent.until_connects_under_way(0).await;
    }
}

/// Resolves names of the test; anything else is not found.
fn lookups_for_test() -> Arc<Lookups> {
    Lookups::new(4, |name| {
        let names: HashMap<&str, &[&str]> =
            HashMap::from([("both.test", &["[::1]:0", "127.0.0.1:0"][..]), ("nothing.test", &[])]);
        names
            .get(name)
            .map(|addresses| addresses.iter().map(|address| address.parse().unwrap()).collect())
            .ok_or(LookupError::NotFound { server: Some("10.0.0.10:53".to_owned()) })
    })
}

#[tokio::test]
async fn a_name_with_a_dead_first_address_connects_by_the_second() {
    let (_closed, listener, port) = closed_ports();
    listener.listen(1).unwrap();
    let stream = connect_with(&lookups_for_test(), &format!("both.test:{port}"), AMPLE).await.unwrap();
    assert!(stream.peer_addr().unwrap().is_ipv4());
}

/// A silent first address costs the stagger, not the limit.
#[tokio::test]
async fn a_name_with_a_silent_first_address_connects_by_the_second() {
    let (v6, v4, port) = closed_ports();
    let silent = Silent::fill(v6).await;
    v4.listen(1).unwrap();
    let stream = connect_with(&lookups_for_test(), &format!("both.test:{port}"), AMPLE).await.unwrap();
    assert!(stream.peer_addr().unwrap().is_ipv4());
    silent.until_connects_under_way(0).await;
}

/// Go names the address that it tried first.
#[tokio::test]
async fn a_name_that_fails_by_all_addresses_reports_the_first() {
    let (_v6, _v4, port) = closed_ports();
    let error = connect_with(&lookups_for_test(), &format!("both.test:{port}"), AMPLE).await.unwrap_err();
    assert_eq!(error.text, format!("dial tcp [::1]:{port}: connect: connection refused"));
}

#[tokio::test]
async fn names_without_address_are_not_found() {
    let error = connect_with(&lookups_for_test(), "other.test:80", AMPLE).await.unwrap_err();
    assert_eq!(error.kind, DialErrorKind::NameNotFound);
    assert_eq!(error.text, "dial tcp: lookup other.test on 10.0.0.10:53: no such host");
    let error = connect_with(&lookups_for_test(), "nothing.test:80", AMPLE).await.unwrap_err();
    assert_eq!(error.kind, DialErrorKind::NameNotFound);
}

#[tokio::test]
async fn a_slow_lookup_ends_at_the_limit() {
    let (let_go, stuck) = mpsc::channel::<()>();
    let stuck = Mutex::new(stuck);
    let lookups = Lookups::new(1, move |_| {
        let _ = stuck.lock().unwrap().recv();
        Err(LookupError::NotFound { server: None })
    });
    let error = connect_with(&lookups, "slow.test:80", Duration::from_millis(50)).await.unwrap_err();
    drop(let_go);
    assert_eq!(error.kind, DialErrorKind::TimedOut);
    assert_eq!(error.text, "dial tcp: lookup slow.test: i/o timeout");
}

#[tokio::test]
async fn a_socket_connected_to_itself_is_noticed() {
    let (socket, address) = closed_port("127.0.0.1");
    socket.connect(&address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let stream = TcpStream::from_std(socket.into()).unwrap();
    assert!(is_connected_to_itself(&stream));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    assert!(!is_connected_to_itself(&stream));
}
