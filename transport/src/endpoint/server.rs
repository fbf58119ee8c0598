//! Accepts agents on a UDP socket.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{hkdf, hmac};
use quinn::{EndpointConfig, TokioRuntime, VarInt, crypto::rustls::QuicServerConfig};
use rustls::pki_types::UnixTime;
use tokio::time::timeout;

use super::{
    BindError, ConnectError, HANDSHAKE_LIMIT, HANDSHAKE_REST_LIMIT, accepted, parameters::transport_config, shake_hands,
};
use crate::{
    budget::MemoryBudget,
    congestion::Room,
    connection::Connection,
    settings::QuicSettings,
    tls::{Identity, ServerTls},
    udp::{self, split::Alone},
    wire::code::ConnectionCode,
};

/// Streams that an agent may open: its control stream.
const AGENT_STREAM_LIMIT: u32 = 1;

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
                // Where many come, who is slow must not keep others out.
                handshake_limit: if under_way < VALIDATE_ABOVE { HANDSHAKE_REST_LIMIT } else { HANDSHAKE_LIMIT },
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
    handshake_limit: Duration,
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
        let quinn = shake_hands(connecting, remote, self.handshake_limit).await?;
        drop(self.handshake);
        let connection = Connection::new(quinn, None, &self.settings, self.budget, self.room, self.alone);
        let tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner).verify.clone();
        let verified = tls.verify(&connection.peer_chain(), UnixTime::now());
        accepted(connection, verified)
    }
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
