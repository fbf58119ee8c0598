//! How a client reaches a target.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::DIAL_WITHIN;
use super::grpc::{Call, Client};
use crate::certificates::Folder;
use crate::peer::Frontend;

/// A reply head longer than this is no answer to CONNECT.
const MAX_REPLY_BYTES: usize = 4096;

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Neither a connection nor an answer.
    #[error("the dial failed: {0}")]
    Io(#[from] io::Error),
    /// The frontend refused.
    #[error("the dial was answered {0:?}")]
    Refused(String),
    /// Bytes of the target came together with the answer.
    #[error("{0} bytes came with the answer")]
    BytesWithReply(usize),
    /// No answer in [`DIAL_WITHIN`].
    #[error("no answer to the dial in {DIAL_WITHIN:?}")]
    TimedOut,
}

/// Why the client's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A file cannot be read or understood.
    #[error("cannot use the client's certificates: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// TLS refuses them.
    #[error("cannot use the client's certificates: {0}")]
    Tls(#[from] rustls::Error),
}

/// How a client reaches a target.
#[derive(Clone)]
pub enum Path {
    /// Without a tunnel.
    Direct,
    /// HTTP CONNECT over a Unix socket.
    Unix(PathBuf),
    /// HTTP CONNECT over mutual TLS.
    MutualTls(SocketAddr, TlsConnector),
    /// gRPC over a Unix socket.
    Grpc(PathBuf, Call),
    /// gRPC over mutual TLS.
    GrpcTls(SocketAddr, TlsConnector, Call),
    /// Each target has a Unix socket of its own, behind which somebody else connects to it (`ssh -L`): such a dial has
    /// no answer.
    Forwarded(Arc<BTreeMap<SocketAddr, PathBuf>>),
}

impl Path {
    /// The path through a pair's frontend that speaks HTTP CONNECT.
    ///
    /// # Errors
    /// [`PathError`] when the client's certificates cannot be used.
    pub fn through(frontend: &Frontend, certificates: &Folder) -> Result<Self, PathError> {
        match frontend {
            Frontend::Unix(path) => Ok(Self::Unix(path.clone())),
            Frontend::MutualTls(address) => Ok(Self::MutualTls(*address, connector(certificates, &[])?)),
        }
    }

    /// The path through a pair's frontend that speaks gRPC.
    ///
    /// # Errors
    /// [`PathError`] when the client's certificates cannot be used.
    pub fn through_grpc(frontend: &Frontend, certificates: &Folder) -> Result<Self, PathError> {
        match frontend {
            Frontend::Unix(path) => Ok(Self::Grpc(path.clone(), Call::over_unix(path))),
            Frontend::MutualTls(address) => {
                let call = Call::over_tls(&address.to_string());
                Ok(Self::GrpcTls(*address, connector(certificates, &[b"h2"])?, call))
            }
        }
    }

    /// Connects to the target.
    ///
    /// # Errors
    /// [`DialError`]; a dial that takes longer than [`DIAL_WITHIN`] is given up.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn dial(&self, target: SocketAddr) -> Result<Dial, DialError> {
        timeout(DIAL_WITHIN, self.connect(target)).await.unwrap_or(Err(DialError::TimedOut))
    }

    async fn connect(&self, target: SocketAddr) -> Result<Dial, DialError> {
        match self {
            Self::Direct => Ok(Dial::Tcp(tcp(target).await?)),
            Self::Unix(path) => ask(Dial::Unix(UnixStream::connect(path).await?), target).await,
            Self::MutualTls(address, connector) => {
                ask(Dial::Tls(Box::new(tls(*address, connector).await?)), target).await
            }
            Self::Grpc(path, call) => {
                let client = Client::dial(UnixStream::connect(path).await?, call, &target.to_string()).await?;
                Ok(Dial::Grpc(Box::new(client)))
            }
            Self::GrpcTls(address, connector, call) => {
                let client = Client::dial(tls(*address, connector).await?, call, &target.to_string()).await?;
                Ok(Dial::GrpcTls(Box::new(client)))
            }
            Self::Forwarded(sockets) => {
                let socket = sockets.get(&target).ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
                Ok(Dial::Unix(UnixStream::connect(socket).await?))
            }
        }
    }
}

async fn tls(address: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    connector.connect(ServerName::from(address.ip()), tcp(address).await?).await
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends CONNECT and reads the answer, which must come alone: every target here waits for the client's first byte.
async fn ask(mut dial: Dial, target: SocketAddr) -> Result<Dial, DialError> {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    dial.write_all(request.as_bytes()).await?;
    dial.flush().await?;
    let mut reply = Vec::with_capacity(256);
    let head = loop {
        if dial.read_buf(&mut reply).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(at) = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if reply.len() > MAX_REPLY_BYTES {
            return Err(DialError::Refused("too much".to_owned()));
        }
    };
    let text = String::from_utf8_lossy(&reply);
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(DialError::Refused(text.replace("\r\n", " ").trim().to_owned()));
    }
    match reply.len() - head {
        0 => Ok(dial),
        more => Err(DialError::BytesWithReply(more)),
    }
}

/// What a client of a frontend with mutual TLS needs, from `ca.crt`, `client.crt` and `client.key`.
///
/// # Errors
/// [`PathError`] when they cannot be used.
pub fn connector(certificates: &Folder, alpn: &[&[u8]]) -> Result<TlsConnector, PathError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(certificates.file("ca.crt"))? {
        roots.add(root?)?;
    }
    let chain = vec![CertificateDer::from_pem_file(certificates.file("client.crt"))?];
    let key = PrivateKeyDer::from_pem_file(certificates.file("client.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The client's side of an established dial.
#[derive(Debug)]
pub enum Dial {
    /// To the target itself, or to a frontend.
    Tcp(TcpStream),
    /// To a frontend.
    Unix(UnixStream),
    /// To a frontend, encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// By gRPC.
    Grpc(Box<Client<UnixStream>>),
    /// By gRPC, encrypted.
    GrpcTls(Box<Client<TlsStream<TcpStream>>>),
}

impl Dial {
    /// Closes it as the clients of its frontend do: HTTP CONNECT has only the socket, gRPC waits for the server's word.
    ///
    /// # Errors
    /// When the server's word does not come.
    pub async fn close(self) -> io::Result<()> {
        match self {
            Self::Grpc(client) => client.close().await,
            Self::GrpcTls(client) => client.close().await,
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => Ok(()),
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Dial::Tcp($stream) => $call,
            Dial::Unix($stream) => $call,
            Dial::Tls($stream) => $call,
            Dial::Grpc($stream) => $call,
            Dial::GrpcTls($stream) => $call,
        }
    };
}

impl AsyncRead for Dial {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Dial {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
