//! Binds UDP sockets, connects to a server, accepts agents.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{hkdf, hmac};
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::{ServerName, UnixTime};
use tokio::time::timeout;

use crate::{
    budget::MemoryBudget,
    congestion::Room,
    connection::{Connection, ConnectionLost, shared::first_stream_limit},
    settings::QuicSettings,
    tls::{ClientTls, Identity, ServerTls},
    udp::{self, split::Alone},
    wire::code::ConnectionCode,
};

/// How long a QUIC handshake may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long the last packets of a connection that was refused may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Streams that an agent may open: its control stream.
const AGENT_STREAM_LIMIT: u32 = 1;

/// Round-trip time assumed before the first sample: a lost first packet is sent again after three of them, 0.3 s.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Packets may arrive this much out of order before they count as lost; the largest that the library's duplicate
/// detection accepts.
const REORDERING: u32 = 128;

/// A packet that was sent so many round trips ago is lost if a later one has arrived. With the library's 9/8, jitter of a
/// fifth of the round trip has a third of the packets sent twice; more than this, and a lost echo is noticed late. Where
/// much is sent, [`REORDERING`] tells of a loss long before.
const TIME_THRESHOLD: f32 = 1.25;

/// Congestion window at the start, in full packets.
const INITIAL_WINDOW: u64 = 32 * 1200;

/// Never the limit: the send credit is in front of it.
const SEND_WINDOW: u64 = 1 << 30;

/// A restarted server tells this often that it does not know a connection: 5,000 agents within a second.
const RESET_INTERVAL: Duration = Duration::from_micros(200);

/// Handshakes under way above which an agent must first show that it can be reached at its address (RFC 9000, section
/// 8.1.2), and above which no more are begun: forged packets must not cost more than that.
const VALIDATE_ABOVE: usize = 256;
const MAX_HANDSHAKES: usize = 2048;

/// Connections that may be waiting for acceptance, and bytes kept for each and for all.
const MAX_INCOMING: usize = 4096;
const INCOMING_BYTES: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

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
    /// No answer in time.
    #[error("no QUIC answer from {remote} within {} s; is UDP allowed on the way?", HANDSHAKE_LIMIT.as_secs())]
    Timeout {
        /// The server's address.
        remote: SocketAddr,
    },
}

/// What keys of a server are derived from that must outlive a restart, so that agents learn of it at once. Servers that
/// have the same secret must have different names: a server can end the connections of any other one with the same keys,
/// and does so for whoever sends it a packet of them (RFC 9000, section 21.11).
#[derive(Clone)]
pub struct EndpointKeys {
    root: hmac::Key,
}

/// The keys of one endpoint: those of stateless resets, connection ids and address-validation tokens.
struct Keys {
    reset: Arc<hmac::Key>,
    token: Arc<hkdf::Prk>,
    connection_ids: u64,
}

impl EndpointKeys {
    /// For the server of this name, from any secret of 16 bytes or more, such as a file made for it.
    pub fn from_secret(secret: &[u8], server: &str) -> Self {
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), server.as_bytes());
        Self { root: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()) }
    }

    /// The same, from the private key of the certificate that the endpoint shows.
    pub fn from_identity(identity: &Identity, server: &str) -> Self {
        Self::from_secret(identity.secret(), server)
    }

    /// The keys of the endpoint at `address`: another one of the same server does not know its connections either.
    fn at(&self, address: SocketAddr) -> Keys {
        let derive = |label: &str| hmac::sign(&self.root, format!("{label} {address}").as_bytes());
        let mut id_key = [0; 8];
        id_key.copy_from_slice(&derive("konnectivity-quic connection ids").as_ref()[..8]);
        Keys {
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derive("konnectivity-quic stateless reset").as_ref())),
            token: Arc::new(
                hkdf::Salt::new(hkdf::HKDF_SHA256, b"konnectivity-quic")
                    .extract(derive("konnectivity-quic address validation").as_ref()),
            ),
            connection_ids: u64::from_le_bytes(id_key),
        }
    }
}

/// A UDP socket on which a server accepts agents.
pub struct ServerEndpoint {
    endpoint: quinn::Endpoint,
    tls: Arc<Mutex<Tls>>,
    token_key: Arc<hkdf::Prk>,
    settings: QuicSettings,
    budget: Arc<MemoryBudget>,
    handshakes: Arc<AtomicUsize>,
    alone: Arc<Alone>,
}

/// What handshakes begin with, and what agents are verified by when they end.
struct Tls {
    crypto: Arc<QuicServerConfig>,
    verify: ServerTls,
}

impl Tls {
    fn new(tls: ServerTls) -> Result<Self, BindError> {
        let crypto =
            QuicServerConfig::try_from(tls.config.clone()).map_err(|error| BindError::Tls(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), verify: tls })
    }
}

impl ServerEndpoint {
    /// Binds `address`. Must be called within the runtime that is to receive packets.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        tls: ServerTls,
        keys: &EndpointKeys,
        settings: &QuicSettings,
        budget: Arc<MemoryBudget>,
    ) -> Result<Self, BindError> {
        let tls = Tls::new(tls)?;
        let socket =
            udp::bind(address, settings.udp_buffer_bytes).map_err(|source| BindError::Socket { address, source })?;
        // With the port that the system has chosen where the address leaves that to it.
        let bound = socket.local_addr().map_err(|source| BindError::Socket { address, source })?;
        let keys = keys.at(bound);
        let mut config = EndpointConfig::new(keys.reset);
        let id_key = keys.connection_ids;
        config
            .cid_generator(move || Box::new(quinn_cid(id_key)))
            .min_reset_interval(RESET_INTERVAL)
            .max_udp_payload_size(settings.max_udp_payload)
            .map_err(|_| BindError::Setting { name: "max-udp-payload" })?;
        let alone = Arc::<Alone>::default();
        let endpoint = udp::split::wrap(socket, alone.clone())
            .and_then(|socket| quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)))
            .map_err(|source| BindError::Socket { address, source })?;
        let server = Self {
            endpoint,
            tls: Arc::new(Mutex::new(tls)),
            token_key: keys.token,
            settings: settings.clone(),
            budget,
            handshakes: Arc::default(),
            alone,
        };
        // For connections whose own settings cannot be made; as these can, there are none.
        server.endpoint.set_server_config(Some(server.config_for(udp::MIN_PAYLOAD, Arc::default())?));
        Ok(server)
    }

    fn config_for(&self, payload: u16, room: Arc<Room>) -> Result<quinn::ServerConfig, BindError> {
        let crypto = self.tls.lock().unwrap_or_else(PoisonError::into_inner).crypto.clone();
        let mut config = quinn::ServerConfig::with_crypto(crypto);
        config
            .transport_config(Arc::new(transport_config(&self.settings, payload, AGENT_STREAM_LIMIT, room)?))
            .token_key(self.token_key.clone())
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
        Ok(config)
    }

    /// Takes other TLS settings for handshakes that begin from now on; those under way must satisfy both. Open connections
    /// stay as they are, and so do the endpoint's keys: connection ids that are in use were made with them.
    ///
    /// # Errors
    /// [`BindError::Tls`] when the settings cannot serve QUIC; nothing has changed then.
    pub fn set_tls(&self, tls: ServerTls) -> Result<(), BindError> {
        let tls = Tls::new(tls)?;
        // Every connection gets settings of its own when it is accepted.
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// The address bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Waits for the next agent; `None` once the endpoint is closed. The handshake is [`IncomingConnection::accept`],
    /// which may run on another thread: the connection lives on the runtime where it is accepted.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn accept(&self) -> Option<IncomingConnection> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let under_way = self.handshakes.load(Ordering::Relaxed);
            if under_way >= MAX_HANDSHAKES {
                incoming.ignore();
                continue;
            }
            if under_way >= VALIDATE_ABOVE && incoming.may_retry() {
                // Fails only if it may not be retried, which was asked.
                let _ = incoming.retry();
                continue;
            }
            let payload = udp::route_payload(incoming.remote_address(), self.settings.max_udp_payload);
            let room = Arc::<Room>::default();
            return Some(IncomingConnection {
                incoming,
                config: self.config_for(payload, room.clone()).ok().map(Arc::new),
                tls: self.tls.clone(),
                room,
                alone: self.alone.clone(),
                settings: self.settings.clone(),
                budget: self.budget.clone(),
                handshake: Handshake::count(&self.handshakes),
            });
        }
    }

    /// Closes every connection with a code and a reason, and waits, at most `limit`, until that has been sent.
    pub async fn close(&self, code: ConnectionCode, reason: &str, limit: Duration) {
        self.endpoint.close(VarInt::from_u32(code.into()), reason.as_bytes());
        // Running into the limit means that a peer does not answer; it will time out by itself.
        let _ = timeout(limit, self.endpoint.wait_idle()).await;
    }
}

fn quinn_cid(key: u64) -> impl quinn::ConnectionIdGenerator {
    quinn_proto::HashedConnectionIdGenerator::from_key(key)
}

/// An agent that wants to connect; nothing of it is validated yet.
pub struct IncomingConnection {
    incoming: quinn::Incoming,
    config: Option<Arc<quinn::ServerConfig>>,
    tls: Arc<Mutex<Tls>>,
    room: Arc<Room>,
    alone: Arc<Alone>,
    settings: QuicSettings,
    budget: Arc<MemoryBudget>,
    handshake: Handshake,
}

/// Counts a handshake under way.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn count(handshakes: &Arc<AtomicUsize>) -> Self {
        handshakes.fetch_add(1, Ordering::Relaxed);
        Self(handshakes.clone())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IncomingConnection {
    /// The agent's address as it appears here.
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Says no; the agent learns it at once.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Does the QUIC and TLS handshake, and verifies the agent's certificate as of now even if a session was resumed.
    ///
    /// # Errors
    /// [`ConnectError`]: a certificate that is not accepted, or no answer in time.
    pub async fn accept(self) -> Result<Connection, ConnectError> {
        let remote = self.remote();
        let failed = |source: quinn::ConnectionError| ConnectError::Handshake { remote, source: source.into() };
        let connecting = match self.config {
            Some(config) => self.incoming.accept_with(config),
            None => self.incoming.accept(),
        };
        let connecting = connecting.map_err(failed)?;
        let quinn = timeout(HANDSHAKE_LIMIT, connecting)
            .await
            .map_err(|_| ConnectError::Timeout { remote })?
            .map_err(failed)?;
        drop(self.handshake);
        let connection = Connection::new(quinn, None, &self.settings, self.budget, self.room, self.alone);
        let tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner).verify.clone();
        let verified = tls.verify(&connection.peer_chain(), UnixTime::now());
        accepted(connection, verified)
    }
}

/// The connection if its peer's certificate was found good; else it is closed.
fn accepted(connection: Connection, verified: Result<(), rustls::Error>) -> Result<Connection, ConnectError> {
    let Err(error) = verified else { return Ok(connection) };
    let reason = error.to_string();
    connection.close(ConnectionCode::Unauthorized, &format!("the certificate is not accepted: {reason}"));
    let source = ConnectionLost::PeerCertificate { reason };
    Err(ConnectError::Handshake { remote: connection.remote(), source })
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
    let quinn = timeout(HANDSHAKE_LIMIT, connecting)
        .await
        .map_err(|_| ConnectError::Timeout { remote })?
        .map_err(|source| ConnectError::Handshake { remote, source: source.into() })?;
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

fn transport_config(
    settings: &QuicSettings,
    payload: u16,
    streams: u32,
    room: Arc<Room>,
) -> Result<TransportConfig, BindError> {
    let window = |bytes, name| VarInt::from_u64(bytes).map_err(|_| BindError::Setting { name });
    let idle = IdleTimeout::try_from(settings.idle_timeout).map_err(|_| BindError::Setting { name: "idle-timeout" })?;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(payload);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(settings.keep_alive_interval))
        .stream_receive_window(window(settings.stream_receive_window, "stream-receive-window")?)
        .receive_window(window(settings.connection_receive_window, "connection-receive-window")?)
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .packet_threshold(REORDERING)
        .time_threshold(TIME_THRESHOLD)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(settings.congestion_control.factory(INITIAL_WINDOW, room))
        .enable_segmentation_offload(settings.segmentation_offload);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use quinn::ConnectionIdGenerator;

    use super::*;

    const SECRET: &[u8] = b"a secret of some bytes";
    const HERE: &str = "192.0.2.1:8091";

    fn keys(secret: &[u8], server: &str, address: &str) -> Keys {
        EndpointKeys::from_secret(secret, server).at(address.parse().unwrap())
    }

    #[test]
    fn a_server_that_is_started_again_knows_its_connection_ids_and_no_other_does() {
        let id = quinn_cid(keys(SECRET, "one", HERE).connection_ids).generate_cid();
        let knows = |keys: Keys| quinn_cid(keys.connection_ids).validate(&id).is_ok();
        let signs = |keys: &Keys| hmac::sign(&keys.reset, &id).as_ref().to_vec();
        assert!(knows(keys(SECRET, "one", HERE)));
        assert_eq!(signs(&keys(SECRET, "one", HERE)), signs(&keys(SECRET, "one", HERE)));
        for (secret, server, address) in [
            (&b"another secret of some"[..], "one", HERE),
            (SECRET, "two", HERE),
            (SECRET, "one", "192.0.2.1:8191"),
            (SECRET, "one", "[2001:db8::1]:8091"),
        ] {
            let other = keys(secret, server, address);
            assert_ne!(signs(&other), signs(&keys(SECRET, "one", HERE)), "{server} {address}");
            assert!(!knows(other), "{server} {address}");
        }
    }
}
