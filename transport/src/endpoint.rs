//! Binds UDP sockets, connects to a server, accepts agents.

mod parameters;
mod server;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{EndpointConfig, TokioRuntime, crypto::rustls::QuicClientConfig};
use rustls::pki_types::{ServerName, UnixTime};
use tokio::time::timeout;

use self::parameters::transport_config;
pub use self::server::{EndpointKeys, IncomingConnection, ServerEndpoint};
use crate::{
    budget::MemoryBudget,
    congestion::Room,
    connection::{Connection, ConnectionLost, shared::first_stream_limit},
    settings::QuicSettings,
    tls::ClientTls,
    udp::{self, split::Alone},
    wire::code::ConnectionCode,
};

/// How long a peer may take for its first answer in a QUIC handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long it may then take for the rest. At 9.6 kbit/s that is some 8 s with short certificate chains, as what is repeated
/// is in the way of what is not.
pub const HANDSHAKE_REST_LIMIT: Duration = Duration::from_secs(20);

/// How long the last packets of a connection that was refused may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Why an endpoint cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket.
    #[error("cannot bind UDP {address}{}", hint(.source))]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS settings cannot serve QUIC.
    #[error("the TLS settings cannot serve QUIC: {0}")]
    Tls(String),
    /// A setting is out of QUIC's range.
    #[error("the setting {name} is out of range")]
    Setting {
        /// Its name.
        name: &'static str,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process uses the port: stop it or choose another port",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023 or grant CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The local socket, or its settings.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The attempt could not be started.
    #[error("cannot start a connection to {remote}: {reason}")]
    Start {
        /// The server's address.
        remote: SocketAddr,
        /// What the library says.
        reason: String,
    },
    /// The handshake failed.
    #[error("QUIC handshake with {remote} failed")]
    Handshake {
        /// The server's address.
        remote: SocketAddr,
        /// Which check.
        source: ConnectionLost,
    },
    /// There was an answer, and no more of it in time.
    #[error(
        "the QUIC handshake with {remote} has not ended within {} s after its first packet; the path is very slow or loses \
         much: shorter certificate chains on both sides get through sooner", .limit.as_secs()
    )]
    Slow {
        /// The other end's address.
        remote: SocketAddr,
        /// How long it was waited.
        limit: Duration,
    },
    /// No answer in time.
    #[error("no QUIC answer from {remote} within {} s; is UDP allowed on the way?", HANDSHAKE_LIMIT.as_secs())]
    Timeout {
        /// The server's address.
        remote: SocketAddr,
    },
}

/// Connects to a server from a fresh UDP socket, whose new source port lets a load balancer choose anew. Resumes
/// a session of `tls` if there is one, and verifies the server's certificate as of now all the same.
///
/// # Errors
/// [`ConnectError`].
///
/// # Cancel safety
/// Dropping the future abandons the attempt.
pub async fn connect(
    remote: SocketAddr,
    server_name: &str,
    tls: &ClientTls,
    settings: &QuicSettings,
    budget: Arc<MemoryBudget>,
) -> Result<Connection, ConnectError> {
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|error| ConnectError::Start { remote, reason: format!("{server_name}: {error}") })?;
    let crypto = QuicClientConfig::try_from(tls.config.clone()).map_err(|error| BindError::Tls(error.to_string()))?;
    let local: SocketAddr =
        if remote.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket =
        udp::bind(local, settings.udp_buffer_bytes).map_err(|source| BindError::Socket { address: local, source })?;
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(settings.max_udp_payload)
        .map_err(|_| BindError::Setting { name: "max-udp-payload" })?;
    let alone = Arc::<Alone>::default();
    let endpoint = udp::split::wrap(socket, alone.clone())
        .and_then(|socket| quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)))
        .map_err(|source| BindError::Socket { address: local, source })?;
    let payload = udp::route_payload(remote, settings.max_udp_payload);
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    let room = Arc::<Room>::default();
    let transport = transport_config(settings, payload, first_stream_limit(settings), room.clone())?;
    client.transport_config(Arc::new(transport));
    let connecting = endpoint
        .connect_with(client, remote, server_name)
        .map_err(|error| ConnectError::Start { remote, reason: error.to_string() })?;
    let quinn = shake_hands(connecting, remote, HANDSHAKE_REST_LIMIT).await?;
    let connection = Connection::new(quinn, Some(endpoint), settings, budget, room, alone);
    let verified = tls.verify(&name, &connection.peer_chain(), UnixTime::now());
    let refused = connection.clone();
    let accepted = accepted(connection, verified);
    if accepted.is_err() {
        // The server is to hear why.
        refused.wait_closed(CLOSE_LIMIT).await;
    }
    accepted
}

/// Waits for a handshake, whose rest may take `rest`.
async fn shake_hands(
    mut connecting: quinn::Connecting,
    remote: SocketAddr,
    rest: Duration,
) -> Result<quinn::Connection, ConnectError> {
    let failed = |source: quinn::ConnectionError| ConnectError::Handshake { remote, source: source.into() };
    let answer = timeout(HANDSHAKE_LIMIT, connecting.handshake_data()).await;
    answer.map_err(|_| ConnectError::Timeout { remote })?.map_err(failed)?;
    let done = timeout(rest, connecting).await;
    done.map_err(|_| ConnectError::Slow { remote, limit: rest })?.map_err(failed)
}

/// The connection if its peer's certificate was found good; else it is closed.
fn accepted(connection: Connection, verified: Result<(), rustls::Error>) -> Result<Connection, ConnectError> {
    let Err(error) = verified else { return Ok(connection) };
    let reason = error.to_string();
    connection.close(ConnectionCode::Unauthorized, &format!("the certificate is not accepted: {reason}"));
    let source = ConnectionLost::PeerCertificate { reason };
    Err(ConnectError::Handshake { remote: connection.remote(), source })
}
