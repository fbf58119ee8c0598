//! Clients over TLS: what the server demands of them, and their handshakes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use konnectivity_transport::tls::{Identity, TlsError, provider, restricted_server_config};
use rustls::{
    CipherSuite, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::{
    accept::{linger, stream::PeerStream},
    frontend::http_connect::reply,
};

/// How long a client may take over its handshake, as in the reference.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// First byte of a TLS handshake record (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How requests begin that were sent without TLS: Go's net/http answers the first five, and `CONNECT` is what clients
/// of this port say.
const PLAIN_HTTP: [&[u8; 5]; 6] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"CONNE"];

/// What clients speak inside of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, in which CONNECT is spoken.
    Http1,
    /// HTTP/2, which carries gRPC.
    Http2 {
        /// Whether a client that names no protocol is turned away, as HTTP/2 has it (RFC 9113, section 3.3).
        demand_alpn: bool,
    },
}

impl Protocol {
    /// Its name in the handshake (RFC 7301, section 6).
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 { .. } => b"h2",
        }
    }

    /// Whether a client that has finished its handshake should have named it and did not.
    fn is_missing(self, client: &PeerStream) -> bool {
        self == Self::Http2 { demand_alpn: true } && client.protocol().is_none()
    }
}

/// What handshakes with clients may agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What is spoken inside.
    pub protocol: Protocol,
    /// Whether TLS 1.2 is refused and only TLS 1.3 spoken.
    pub only_tls13: bool,
    /// The suites of TLS 1.2 that may be used; `None`: all that there are. Those of TLS 1.3 are never restricted.
    pub cipher_suites: Option<Vec<CipherSuite>>,
}

/// A listener's TLS.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How TLS is spoken.
    pub config: Arc<ServerConfig>,
    protocol: Protocol,
}

/// What the server demands of clients: `terms`, a certificate from one of `client_roots` if there are any, and the protocol of the terms
/// if they name protocols at all.
///
/// There are no session tickets: every client's certificate is verified anew, and kube-apiserver would not use them.
///
/// # Errors
/// When the server's certificate can't be used with its key, or the roots not at all.
pub fn settings(
    identity: &Identity,
    client_roots: Option<Arc<RootCertStore>>,
    terms: &Terms,
) -> Result<Settings, TlsError> {
    let mut cryptography = Arc::unwrap_or_clone(provider());
    cryptography.cipher_suites.retain(|suite| terms.allow(suite));
    let speaks_tls12 = cryptography.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let versions: &[&'static SupportedProtocolVersion] = if speaks_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let alpn = [terms.protocol.alpn()];
    let mut config = restricted_server_config(identity, client_roots, &alpn, Arc::new(cryptography), versions)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Settings { config: Arc::new(config), protocol: terms.protocol })
}

impl Terms {
    fn allow(&self, suite: &SupportedCipherSuite) -> bool {
        let listed = || self.cipher_suites.as_ref().is_none_or(|listed| listed.contains(&suite.suite()));
        suite.tls13().is_some() || (!self.only_tls13 && listed())
    }
}

/// Sets what every accepted connection is to have. On Linux it inherits these options from the listening socket,
/// which saves five system calls for each.
pub fn prepare(socket: &std::net::TcpListener) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Go's defaults.
    let keep_alive =
        TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(15)).with_retries(9);
    socket.set_tcp_keepalive(&keep_alive)
}

/// Why a client got no further than the handshake.
#[derive(Debug)]
pub struct HandshakeError {
    /// The client's address.
    pub peer: SocketAddr,
    /// What went wrong.
    pub kind: HandshakeErrorKind,
}

impl HandshakeError {
    /// Whether the client said nothing at all, as load balancers do to see if the port is open.
    pub fn is_probe(&self) -> bool {
        matches!(self.kind, HandshakeErrorKind::Silent)
    }
}

/// What went wrong in a handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeErrorKind {
    /// The client left without a word.
    #[error("the client left without a word")]
    Silent,
    /// The client speaks HTTP without TLS. It was told.
    #[error("the client sent plain HTTP; it must use https")]
    PlainHttp,
    /// The client named no protocol, and so perhaps does not speak HTTP/2.
    #[error(
        "the client names no protocol (ALPN), and gRPC needs \"h2\"; it must name it, or \
         GRPC_ENFORCE_ALPN_ENABLED=false be set in the server's environment"
    )]
    NoProtocol,
    /// The client speaks something else.
    #[error("the client does not speak TLS")]
    NotTls,
    /// The client took too long.
    #[error("not finished within {} seconds", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    /// TLS or the socket failed.
    #[error(transparent)]
    Failed(io::Error),
}

/// Carries out a client's handshake, or tells the client why not.
///
/// # Errors
/// See [`HandshakeErrorKind`]. The connection is closed then.
///
/// # Cancel safety
/// Cancelling closes the connection.
pub async fn handshake(stream: TcpStream, peer: SocketAddr, settings: Settings) -> Result<PeerStream, HandshakeError> {
    let kind = match timeout(HANDSHAKE_TIMEOUT, attempt(stream, settings)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(refused)) => {
            linger::close_with(refused.stream, refused.last_words).await;
            refused.kind
        }
        Err(_) => HandshakeErrorKind::TimedOut,
    };
    Err(HandshakeError { peer, kind })
}

/// A client to be sent away.
struct Refused {
    kind: HandshakeErrorKind,
    stream: PeerStream,
    last_words: &'static [u8],
}

async fn attempt(mut stream: TcpStream, settings: Settings) -> Result<PeerStream, Refused> {
    let (kind, stream) = match not_tls(&mut stream).await {
        Some(kind) => (kind, stream.into()),
        None => match PeerStream::accept_tls(stream, settings.config).await {
            Ok(stream) if settings.protocol.is_missing(&stream) => (HandshakeErrorKind::NoProtocol, stream),
            Ok(stream) => return Ok(stream),
            // The client has been sent an alert, and may well have sent a request by now.
            Err((error, stream)) => (HandshakeErrorKind::Failed(error), stream.into()),
        },
    };
    let last_words: &[u8] = match (&kind, settings.protocol) {
        (HandshakeErrorKind::PlainHttp, Protocol::Http1) => reply::PLAIN_HTTP_ON_TLS_PORT,
        _ => b"",
    };
    Err(Refused { kind, stream, last_words })
}

/// Looks at the first byte, and takes nothing if it may be TLS.
async fn not_tls(stream: &mut TcpStream) -> Option<HandshakeErrorKind> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Some(HandshakeErrorKind::Silent),
        Ok(_) if first == [HANDSHAKE_RECORD] => return None,
        Ok(_) => {}
        Err(error) => return Some(HandshakeErrorKind::Failed(error)),
    }
    let mut start = [0; 5];
    match stream.read_exact(&mut start).await {
        Ok(_) if PLAIN_HTTP.contains(&&start) => Some(HandshakeErrorKind::PlainHttp),
        _ => Some(HandshakeErrorKind::NotTls),
    }
}
