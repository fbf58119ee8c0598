//! From an address to a stream of packets: TCP, a proxy if there is one, TLS, HTTP/2, the RPC.

use std::{io, net::SocketAddr, time::Duration};

use h2::{RecvStream, SendStream, client};
use http::Request;
use konnectivity_transport::{control::HELLO_LIMIT, endpoint::HANDSHAKE_LIMIT, id::IdError, packet::frame::PacketBuf};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    GrpcConnector,
    http_proxy::{self, ProxyError},
    lost::{GrpcLost, PING_LIMIT},
    rpc::{Answer, answer, authority, request},
    status::Status,
};
use crate::token::{TokenError, TokenFile};

/// Bytes that a server may send before it hears that more were taken: this part of a dial's buffer. A dial that fills its
/// buffer slows the stream so far that four buffers last ten seconds; what is on its way then passes in less than half of one.
const WINDOWS_PER_BUFFER: usize = 8;
const LEAST_WINDOW: usize = 64 * 1024;
const MOST_WINDOW: usize = 16 * 1024 * 1024;

/// Bytes that HTTP/2 holds towards the server: what is there cannot be overtaken by a dial with little to say.
const SEND_BUFFER: usize = 128 * 1024;

/// What small frames that wait may cost beyond their bytes, in windows and at least. The reference sends each packet in
/// frames of its own: a keystroke in 30 bytes, for which the library counts 256. Its default would end the connection of
/// an agent that looks away for a moment.
const FRAME_BUDGET_WINDOWS: usize = 8;
const LEAST_FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// The answer has two headers of interest.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The kernel looks after a silent server by itself: at most this long and [`PING_LIMIT`] after its last word.
const TCP_KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Why there is no connection to a server over gRPC.
#[derive(Debug, thiserror::Error)]
pub enum GrpcConnectError {
    /// There is no token to show.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// TCP.
    #[error("cannot connect to {remote} over TCP")]
    Tcp {
        /// The server's or the proxy's address.
        remote: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The HTTP proxy of the environment does not lead to the server.
    #[error("the HTTP proxy at {remote} does not lead to the server")]
    Proxy {
        /// The proxy's address.
        remote: SocketAddr,
        /// What it says.
        source: ProxyError,
    },
    /// The server's name cannot be checked.
    #[error("{host:?} cannot be the name in a certificate")]
    Name {
        /// The name.
        host: String,
    },
    /// TLS.
    #[error("TLS handshake with {remote} failed")]
    Tls {
        /// The server's address.
        remote: SocketAddr,
        /// Which check.
        source: io::Error,
    },
    /// Whoever it is, it speaks no HTTP/2.
    #[error("{remote} offers no HTTP/2 in its TLS handshake (ALPN); is this the port for agents?")]
    NoHttp2 {
        /// The server's address.
        remote: SocketAddr,
    },
    /// No answer in time.
    #[error("no answer from {remote} over TCP within {} s: {waited_for}", .limit.as_secs())]
    Timeout {
        /// The server's address.
        remote: SocketAddr,
        /// How long it was waited for.
        limit: Duration,
        /// What for.
        waited_for: &'static str,
    },
    /// The connection was lost before the server's answer.
    #[error("the connection to {remote} was lost before the server's answer")]
    Lost {
        /// The server's address.
        remote: SocketAddr,
        /// How.
        source: GrpcLost,
    },
    /// The server does not want this agent.
    #[error("the server at {remote} did not accept this agent: {status}")]
    Refused {
        /// The server's address.
        remote: SocketAddr,
        /// What it says.
        status: Status,
    },
    /// The answer is none of a server's.
    #[error("{remote} does not answer as a proxy-server: {reason}")]
    Answer {
        /// The server's address.
        remote: SocketAddr,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The server's id cannot be used.
    #[error("the server at {remote} says an id that cannot be used")]
    ServerId {
        /// Its address.
        remote: SocketAddr,
        /// What is wrong with it.
        source: IdError,
    },
    /// A setting cannot be sent in a header.
    #[error("{setting} cannot be sent over gRPC; use printable ASCII characters only")]
    Header {
        /// Its name.
        setting: &'static str,
    },
}

/// TLS over TCP.
pub(super) type Io = TlsStream<TcpStream>;

/// A stream of packets, and the HTTP/2 connection that carries nothing else.
pub(super) struct Carrier {
    /// Must be polled for anything to move.
    pub(super) connection: client::Connection<Io, PacketBuf>,
    /// Keeps the connection open, and tells when the server wants no more streams.
    pub(super) requests: client::SendRequest<PacketBuf>,
    pub(super) send: SendStream<PacketBuf>,
    pub(super) receive: RecvStream,
    /// Bytes that the server may send before it hears that more were taken.
    pub(super) window: u32,
}

/// Connects, calls, and waits for the answer.
pub(super) async fn connect(
    connector: &GrpcConnector,
    remote: SocketAddr,
) -> Result<(Carrier, Answer), GrpcConnectError> {
    let token = connector.token.as_ref().map(TokenFile::read).transpose()?;
    let request = request(connector, token.as_ref())?;
    let waited_for = "TCP and TLS";
    let io = timeout(HANDSHAKE_LIMIT, open(connector, remote)).await;
    let io = io.map_err(|_| GrpcConnectError::Timeout { remote, limit: HANDSHAKE_LIMIT, waited_for })??;
    let waited_for = "the answer to AgentService/Connect";
    let call = timeout(HELLO_LIMIT, call(io, request, remote, window(connector.mux.dial_buffer))).await;
    call.map_err(|_| GrpcConnectError::Timeout { remote, limit: HELLO_LIMIT, waited_for })?
}

async fn open(connector: &GrpcConnector, remote: SocketAddr) -> Result<Io, GrpcConnectError> {
    let name = ServerName::try_from(connector.host.clone())
        .map_err(|_| GrpcConnectError::Name { host: connector.host.clone() })?;
    let mut stream = tcp(remote).await.map_err(|source| GrpcConnectError::Tcp { remote, source })?;
    if let Some(proxy) = &connector.proxy {
        let target = authority(&connector.host, Some(connector.port));
        http_proxy::open_tunnel(&mut stream, proxy, &target)
            .await
            .map_err(|source| GrpcConnectError::Proxy { remote, source })?;
    }
    let tls = TlsConnector::from(connector.tls.get());
    let stream = tls.connect(name, stream).await.map_err(|source| GrpcConnectError::Tls { remote, source })?;
    // As in the reference: any of the names that were offered will do, none will not.
    if stream.get_ref().1.alpn_protocol().is_none() {
        return Err(GrpcConnectError::NoHttp2 { remote });
    }
    Ok(stream)
}

async fn tcp(remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = socket.connect(remote).await?;
    // Better without these than not at all.
    let _ = stream.set_nodelay(true);
    let settings = SockRef::from(&stream);
    let _ = settings.set_tcp_user_timeout(Some(PING_LIMIT));
    let keep_alive = TcpKeepalive::new().with_time(TCP_KEEP_ALIVE_IDLE).with_interval(TCP_KEEP_ALIVE_INTERVAL);
    let _ = settings.set_tcp_keepalive(&keep_alive);
    Ok(stream)
}

/// The windows of HTTP/2 for dials with such buffers.
fn window(dial_buffer: usize) -> u32 {
    // The largest one is far below what 32 bits hold.
    (dial_buffer / WINDOWS_PER_BUFFER).clamp(LEAST_WINDOW, MOST_WINDOW) as u32
}

async fn call(
    io: Io,
    request: Request<()>,
    remote: SocketAddr,
    window: u32,
) -> Result<(Carrier, Answer), GrpcConnectError> {
    let lost = |error: h2::Error| GrpcConnectError::Lost { remote, source: error.into() };
    let (mut requests, mut connection) = client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(window)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget((window as usize * FRAME_BUDGET_WINDOWS).max(LEAST_FRAME_BUDGET))
        .max_header_list_size(MAX_HEADER_BYTES)
        .enable_push(false)
        .handshake::<_, PacketBuf>(io)
        .await
        .map_err(lost)?;
    let (response, send) = requests.send_request(request, false).map_err(lost)?;
    let mut response = std::pin::pin!(response);
    let response = tokio::select! {
        biased;
        response = &mut response => response.map_err(lost)?,
        ended = &mut connection => match ended {
            // What came before the end may be the answer.
            Ok(()) => response.await.map_err(lost)?,
            Err(error) => response.await.map_err(|_| lost(error))?,
        },
    };
    let (head, receive) = response.into_parts();
    let answer = answer(head.status, &head.headers, remote)?;
    Ok((Carrier { connection, requests, send, receive, window }, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_gives_up_a_silent_server() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = tcp(listener.local_addr().expect("an address")).await.expect("a connection");
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().expect("an option"), Some(PING_LIMIT));
    }
}
