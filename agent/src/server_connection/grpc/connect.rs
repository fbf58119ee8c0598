//! From an address to a stream of packets: TCP, a proxy if there is one, TLS, HTTP/2, the RPC and its answer
//! (compat 1.3 to 1.5).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use h2::{RecvStream, SendStream, client};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header, uri};
use konnectivity_process::version;
use konnectivity_transport::{
    control::HELLO_LIMIT,
    endpoint::HANDSHAKE_LIMIT,
    id::{IdError, ServerId},
    packet::frame::PacketBuf,
};
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
    status::Status,
};

/// The one method of the reference's service for agents.
const PATH: &str = "/AgentService/Connect";

/// Bytes that a server may send before it hears that more were taken: this part of a dial's buffer. A dial that fills its
/// buffer slows the stream so far that four buffers last ten seconds; what is on its way then passes in a third of one.
const WINDOWS_PER_BUFFER: usize = 8;
const LEAST_WINDOW: usize = 64 * 1024;
const MOST_WINDOW: usize = 16 * 1024 * 1024;

/// Bytes that HTTP/2 holds towards the server: what is there cannot be overtaken by a dial with little to say.
const SEND_BUFFER: usize = 128 * 1024;

/// What small frames that wait may cost beyond their bytes. The reference sends each packet in frames of its own; the
/// library's default would end the connection of an agent that looks away for a moment.
const FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// The answer has two headers of interest.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The kernel looks after a silent server by itself: at most this long and [`PING_LIMIT`] after its last word.
const TCP_KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Why there is no connection to a server over gRPC.
#[derive(Debug, thiserror::Error)]
pub enum GrpcConnectError {
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

/// What a server says of itself.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) server_id: ServerId,
    pub(super) server_count: u32,
}

/// Connects, calls, and waits for the answer.
pub(super) async fn connect(
    connector: &GrpcConnector,
    remote: SocketAddr,
) -> Result<(Carrier, Answer), GrpcConnectError> {
    let request = request(connector)?;
    let waited_for = "TCP and TLS";
    let io = timeout(HANDSHAKE_LIMIT, open(connector, remote)).await;
    let io = io.map_err(|_| GrpcConnectError::Timeout { remote, limit: HANDSHAKE_LIMIT, waited_for })??;
    let waited_for = "the answer to AgentService/Connect";
    let call = timeout(HELLO_LIMIT, call(io, request, remote, window(connector.link.dial_buffer))).await;
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
    let tls = TlsConnector::from(connector.tls.clone());
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
        .data_frame_budget(FRAME_BUDGET)
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

/// The call, with what compat 1.3 and 1.5 list.
fn request(connector: &GrpcConnector) -> Result<Request<()>, GrpcConnectError> {
    let header = |setting, value: &str| HeaderValue::from_str(value).map_err(|_| GrpcConnectError::Header { setting });
    // Go names the port unless the name is one that the agent shows a certificate to.
    let shows_certificate = connector.tls.client_auth_cert_resolver.has_certs();
    let authority = authority(&connector.host, (!shows_certificate).then_some(connector.port));
    let uri = Uri::builder().scheme(uri::Scheme::HTTPS).authority(authority).path_and_query(PATH).build();
    let uri = uri.map_err(|_| GrpcConnectError::Header { setting: "--proxy-server-host" })?;
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::USER_AGENT, header("the version", &user_agent())?);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert("agentid", header("--agent-id", connector.agent_id.as_str())?);
    headers.insert("agentidentifiers", header("--agent-identifiers", &connector.identifiers)?);
    Ok(request)
}

/// What the agent calls itself.
pub(super) fn user_agent() -> String {
    format!("konnectivity-quic/{}", version::VERSION)
}

/// `host` or `host:port`. An address of IPv6 is put into brackets, which the reference forgets; its zone is nobody
/// else's business.
fn authority(host: &str, port: Option<u16>) -> String {
    let address = host.split('%').next().unwrap_or(host);
    let host =
        if address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) { format!("[{address}]") } else { host.into() };
    port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

/// What the head of the answer says.
fn answer(status: StatusCode, headers: &HeaderMap, remote: SocketAddr) -> Result<Answer, GrpcConnectError> {
    let bad = |reason: String| GrpcConnectError::Answer { remote, reason };
    // A refusal has nothing but its status, and no other answer has one so early.
    if let Some(status) = Status::of(headers).filter(|status| !status.is_ok()) {
        return Err(GrpcConnectError::Refused { remote, status });
    }
    if status != StatusCode::OK {
        return Err(bad(format!("HTTP status {status}")));
    }
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content.starts_with("application/grpc") {
        return Err(bad(format!("its content type is {content:?}")));
    }
    let server_id = one(headers, "serverid").map_err(bad)?;
    let server_id = ServerId::new(server_id).map_err(|source| GrpcConnectError::ServerId { remote, source })?;
    let count = one(headers, "servercount").map_err(bad)?;
    let server_count = count.parse::<i64>().map_err(|_| bad(format!("its server count is {count:?}")))?;
    let server_count = u32::try_from(server_count.max(0)).unwrap_or(u32::MAX);
    Ok(Answer { server_id, server_count })
}

/// The only value of a header.
fn one(headers: &HeaderMap, name: &str) -> Result<String, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(value)), None) => Ok(value.to_owned()),
        (Some(Err(_)), None) => Err(format!("its {name} is not printable")),
        (None, _) => Err(format!("it has no {name}")),
        (Some(_), Some(_)) => Err(format!("it has more than one {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8091);

    fn answered(status: u16, rows: &[(&'static str, &'static str)]) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in rows {
            headers.append(*name, HeaderValue::from_static(value));
        }
        answer(StatusCode::from_u16(status).unwrap(), &headers, REMOTE).map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_has_one_server_id_and_one_count() {
        let grpc = ("content-type", "application/grpc");
        let (id, count) = (("serverid", "server 1"), ("servercount", "3"));
        let good = Answer { server_id: ServerId::new("server 1".to_owned()).unwrap(), server_count: 3 };
        assert_eq!(answered(200, &[grpc, id, count]), Ok(good));
        for (servers, expected) in [("0", 0), ("-4", 0), ("99999999999", u32::MAX)] {
            assert_eq!(answered(200, &[grpc, id, ("servercount", servers)]).unwrap().server_count, expected);
        }
        for (status, rows, error) in [
            (200, &[grpc, count][..], "it has no serverid"),
            (200, &[grpc, id], "it has no servercount"),
            (200, &[grpc, id, id, count], "it has more than one serverid"),
            (200, &[grpc, id, ("servercount", "many")], "its server count is \"many\""),
            (200, &[id, count], "its content type is \"\""),
            (200, &[("content-type", "text/html"), id, count], "its content type is \"text/html\""),
            (503, &[grpc, id, count], "HTTP status 503 Service Unavailable"),
        ] {
            let expected = format!("127.0.0.1:8091 does not answer as a proxy-server: {error}");
            assert_eq!(answered(status, rows), Err(expected));
        }
        assert_eq!(
            answered(200, &[grpc, ("grpc-status", "2"), ("grpc-message", "too many (2) tokens")]),
            Err("the server at 127.0.0.1:8091 did not accept this agent: Unknown: too many (2) tokens".to_owned())
        );
        assert!(answered(200, &[grpc, ("serverid", ""), count]).unwrap_err().contains("an id that cannot be used"));
    }

    #[test]
    fn the_authority_is_the_references_but_for_brackets() {
        for (host, port, expected) in [
            ("server.example", None, "server.example"),
            ("server.example", Some(8091), "server.example:8091"),
            ("10.0.0.1", Some(1), "10.0.0.1:1"),
            ("fd00::1", None, "[fd00::1]"),
            ("fe80::1%eth0", Some(8091), "[fe80::1]:8091"),
        ] {
            assert_eq!(authority(host, port), expected);
        }
    }
}
