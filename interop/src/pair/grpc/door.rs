//! How clients of the gRPC frontend are let in.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::sleep,
};
use tokio_rustls::TlsConnector;

use crate::{
    certificates::Folder,
    load::path::{Dial, PathError},
    pair::Pair,
    peer::Frontend,
};

/// A frontend and what it takes to be let in.
#[derive(Clone)]
pub enum Door {
    /// The path of the Unix socket.
    Unix(PathBuf),
    /// TCP with TLS.
    Tls(SocketAddr, TlsConnector),
}

/// What a TLS client shows.
#[derive(Debug, Clone)]
pub struct Papers {
    /// Its certificate and key; `None` shows none.
    pub identity: Option<[PathBuf; 2]>,
    /// The protocols that it offers; none for a client without ALPN.
    pub protocols: Vec<Vec<u8>>,
}

impl Papers {
    /// Those that every honest client has.
    pub fn good(certificates: &Folder) -> Self {
        let identity = Some([certificates.file("client.crt"), certificates.file("client.key")]);
        Self { identity, protocols: vec![b"h2".to_vec()] }
    }
}

impl Door {
    /// The way of honest clients into a pair.
    ///
    /// # Panics
    /// When the client's certificate cannot be used.
    pub fn of(pair: &Pair) -> Self {
        Self::with(&pair.server.frontend, &pair.certificates, &Papers::good(&pair.certificates))
            .expect("the pair's own certificates can be used")
    }

    /// The way of a client with these papers, which a Unix socket does not look at.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn with(frontend: &Frontend, certificates: &Folder, papers: &Papers) -> Result<Self, PathError> {
        match frontend {
            Frontend::Unix(path) => Ok(Self::Unix(path.clone())),
            Frontend::MutualTls(address) => Ok(Self::Tls(*address, connector(certificates, papers)?)),
        }
    }

    /// Connects, TLS included, and says nothing yet.
    ///
    /// # Errors
    /// When the frontend does not accept.
    pub async fn open(&self) -> io::Result<Dial> {
        match self {
            Self::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    // The queue of those that wait to be accepted is full; clients try again.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(Duration::from_millis(1)).await,
                    connected => return Ok(Dial::Unix(connected?)),
                }
            },
            Self::Tls(address, connector) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
                Ok(Dial::Tls(Box::new(stream)))
            }
        }
    }

    /// What kube-apiserver sends as `:authority`: the percent-encoded path of the socket, or the address.
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string().replace('/', "%2F"),
            Self::Tls(address, _) => address.to_string(),
        }
    }
}

fn connector(certificates: &Folder, papers: &Papers) -> Result<TlsConnector, PathError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.file("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &papers.identity {
        None => builder.with_no_client_auth(),
        Some([certificate, key]) => {
            let chain = vec![CertificateDer::from_pem_file(certificate)?];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
    };
    config.alpn_protocols.clone_from(&papers.protocols);
    Ok(TlsConnector::from(Arc::new(config)))
}
