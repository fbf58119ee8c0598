//! QUIC peers that do what they should not: an agent, or a server, in the hand of a test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use konnectivity_transport::tls::{Identity, TUNNEL_ALPN, client_config, load_roots, server_config};
use konnectivity_transport::wire::ALPN;
use konnectivity_transport::wire::code::ConnectionCode;
use konnectivity_transport::wire::codec::{MAX_CONTROL_BYTES, decode, encode};
use konnectivity_transport::wire::message::{Control, ControlBody, Hello, Welcome};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::time::timeout;

use crate::certificates::Folder;

/// Everything here is on one machine; the protocol's own limits are 10 s.
const WITHIN: Duration = Duration::from_secs(20);

/// A connection and its control stream.
#[derive(Debug)]
pub struct Peer {
    /// The endpoint, which must outlive the connection.
    pub endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
    /// Our direction of the control stream.
    pub send: SendStream,
    /// The other one.
    pub receive: RecvStream,
}

/// Connects to a server as an agent with a valid certificate, and opens the control stream without a word.
///
/// # Errors
/// When the server does not let it in.
pub async fn agent(server: SocketAddr, certificates: &Folder) -> anyhow::Result<Peer> {
    let (endpoint, connection) = connect(server, certificates, ALPN, TransportConfig::default()).await?;
    let (send, receive) = connection.open_bi().await?;
    Ok(Peer { endpoint, connection, send, receive })
}

/// Connects to a server as an agent with a valid certificate and says nothing at all.
///
/// # Errors
/// When the server does not let it in.
pub async fn connect(
    server: SocketAddr,
    certificates: &Folder,
    protocol: &[u8],
    transport: TransportConfig,
) -> anyhow::Result<(Endpoint, Connection)> {
    let roots = load_roots(&certificates.file("ca.crt"))?;
    let identity = Identity::load(&certificates.file("agent.crt"), &certificates.file("agent.key"))?;
    let tls = client_config(roots, Some(&identity), &[protocol])?;
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client((IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into())?;
    let connecting = endpoint.connect_with(config, server, &server.ip().to_string())?;
    let connection = timeout(WITHIN, connecting).await.context("no handshake")??;
    Ok((endpoint, connection))
}

/// A server that agents connect to, with a valid certificate.
///
/// # Errors
/// When it cannot be bound.
pub fn server(certificates: &Folder) -> anyhow::Result<Endpoint> {
    let identity = Identity::load(&certificates.file("server.crt"), &certificates.file("server.key"))?;
    let tls = server_config(&identity, Some(load_roots(&certificates.file("ca.crt"))?), TUNNEL_ALPN)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok(Endpoint::server(config, (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into())?)
}

/// The next agent of a server, which has opened its control stream and said hello.
///
/// # Errors
/// When none comes, or it says something else.
pub async fn accept(endpoint: &Endpoint) -> anyhow::Result<(Peer, Hello)> {
    let accepted = async {
        let connection = endpoint.accept().await.context("the endpoint is closed")?.await?;
        let (send, receive) = connection.accept_bi().await?;
        let mut peer = Peer { endpoint: endpoint.clone(), connection, send, receive };
        match peer.next().await? {
            ControlBody::Hello(hello) => Ok((peer, hello)),
            other => bail!("not a Hello but {other:?}"),
        }
    };
    timeout(WITHIN, accepted).await.context("no agent")?
}

impl Peer {
    /// Sends a control message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn say(&mut self, body: ControlBody) -> anyhow::Result<()> {
        let bytes = encode(&Control { body: Some(body) }, MAX_CONTROL_BYTES)?;
        Ok(self.send.write_all(&bytes).await?)
    }

    /// Says hello as an agent does, and waits for the Welcome.
    ///
    /// # Errors
    /// When there is none.
    pub async fn hello(&mut self, agent_id: &str, identifiers: &str) -> anyhow::Result<Welcome> {
        self.say(hello(agent_id, identifiers)).await?;
        match self.next().await? {
            ControlBody::Welcome(welcome) => Ok(welcome),
            other => bail!("not a Welcome but {other:?}"),
        }
    }

    /// The next control message.
    ///
    /// # Errors
    /// When there is none.
    pub async fn next(&mut self) -> anyhow::Result<ControlBody> {
        let message = async {
            let mut buffer = bytes::BytesMut::new();
            loop {
                if let Some(control) = decode::<Control>(&mut buffer, MAX_CONTROL_BYTES)? {
                    return control.body.context("a Control without a body");
                }
                // Byte by byte: what is behind the message stays in the stream.
                let mut byte = [0];
                self.receive.read_exact(&mut byte).await?;
                buffer.extend_from_slice(&byte);
            }
        };
        timeout(WITHIN, message).await.context("no control message")?
    }

    /// Waits for the other end to close the connection, and returns its code and reason.
    ///
    /// # Errors
    /// When it does not, or the connection ends in another way.
    pub async fn closed(&self) -> anyhow::Result<(ConnectionCode, String)> {
        closed(&self.connection).await
    }
}

/// Waits for the other end to close a connection, and returns its code and reason.
///
/// # Errors
/// When it does not, or the connection ends in another way.
pub async fn closed(connection: &Connection) -> anyhow::Result<(ConnectionCode, String)> {
    match timeout(WITHIN, connection.closed()).await.context("the connection is not closed")? {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            let code = ConnectionCode::from_u64(code).with_context(|| format!("unknown code {code:#x}"))?;
            Ok((code, String::from_utf8_lossy(&close.reason).into_owned()))
        }
        other => bail!("not closed with a code: {other}"),
    }
}

/// A Hello without token.
pub fn hello(agent_id: &str, identifiers: &str) -> ControlBody {
    ControlBody::Hello(Hello { agent_id: agent_id.into(), identifiers: identifiers.into(), ..Hello::default() })
}

/// A Welcome of one server.
pub fn welcome(server_id: &str) -> ControlBody {
    ControlBody::Welcome(Welcome { server_id: server_id.into(), server_count: 1, ..Welcome::default() })
}
