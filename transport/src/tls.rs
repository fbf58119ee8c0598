//! Certificates, trust roots and TLS settings, for both roles.

mod tunnel;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::danger::ClientCertVerifier,
};

pub use self::tunnel::{ClientTls, ServerTls};
use crate::wire::ALPN;

/// Why TLS cannot be set up. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}; make it readable by the user that this program runs as", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{} is not a valid PEM file: {reason}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has none of what is looked for.
    #[error("{} holds no {what}; name a PEM file that does", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
    },
    /// A certificate of a CA bundle cannot be used.
    #[error("{} holds a certificate that cannot be used as a trust root: {reason}", .path.display())]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not fit.
    #[error(
        "the certificate {} and the key {} cannot be used together: {reason}; name the key that the certificate was made with",
        .certificate.display(), .key.display()
    )]
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The TLS library refuses the settings.
    #[error("cannot set up TLS: {0}")]
    Settings(String),
}

/// A certificate chain with its private key, and the files they came from.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_path: PathBuf,
    key_path: PathBuf,
}

impl Identity {
    /// Reads a chain and a key in PEM form.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            chain: load_certificates(certificate)?,
            key: load_private_key(key)?,
            certificate_path: certificate.to_owned(),
            key_path: key.to_owned(),
        })
    }

    /// The bytes of the private key, to derive other secrets from.
    pub(crate) fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    fn mismatch(&self, error: &rustls::Error) -> TlsError {
        TlsError::Pair {
            certificate: self.certificate_path.clone(),
            key: self.key_path.clone(),
            reason: error.to_string(),
        }
    }
}

/// Reads the certificates of a PEM file, in order.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(path, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::Missing { path: path.to_owned(), what: "certificate" });
    }
    Ok(certificates)
}

/// Reads the first private key of a PEM file.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn load_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsError::Missing { path: path.to_owned(), what: "private key" }),
        Err(error) => Err(pem_error(path, &error)),
    }
}

/// Reads a CA bundle. Blocks of other types are skipped; a certificate that cannot be parsed is an error (compat 6.1).
///
/// # Errors
/// [`TlsError`] names the file.
pub fn load_roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::BadRoot { path: path.to_owned(), reason: error.to_string() })?;
    }
    Ok(Arc::new(roots))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn pem_error(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Pem { path: path.to_owned(), reason: error.to_string() }
}

/// The cryptography of every TLS and QUIC connection. AES-128 goes before AES-256, which costs a few per cent more on
/// the data path and protects nothing here that the 128-bit curve of the handshake does not limit already.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    Arc::new(provider)
}

/// TLS settings of a listener: its identity, the roots that client certificates must chain to (`None`: no client
/// certificate is asked for), and the application protocols it offers.
///
/// # Errors
/// [`TlsError::Pair`] when certificate and key do not fit.
pub fn server_config(
    identity: &Identity,
    client_roots: Option<Arc<RootCertStore>>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    restricted_server_config(identity, client_roots, alpn, provider(), ALL_VERSIONS)
}

/// The same with fewer cipher suites, those of `cryptography`, and only some versions of TLS.
///
/// # Errors
/// [`TlsError::Pair`] when certificate and key do not fit, [`TlsError::Settings`] when no suite is left for any of the
/// versions.
pub fn restricted_server_config(
    identity: &Identity,
    client_roots: Option<Arc<RootCertStore>>,
    alpn: &[&[u8]],
    cryptography: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    server_config_with(identity, client_roots.map(tunnel::client_verifier).transpose()?, alpn, cryptography, versions)
}

fn server_config_with(
    identity: &Identity,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    alpn: &[&[u8]],
    cryptography: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(cryptography)
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Settings(error.to_string()))?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| identity.mismatch(&error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// TLS settings of an agent: the roots its server's certificate must chain to, and its own identity if it has one.
///
/// # Errors
/// [`TlsError::Pair`] when certificate and key do not fit, [`TlsError::Settings`] when the roots cannot be used.
pub fn client_config(
    roots: Arc<RootCertStore>,
    identity: Option<&Identity>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    ClientTls::new(roots, identity, alpn).map(|tls| tls.config)
}

fn client_config_with(
    servers: Arc<WebPkiServerVerifier>,
    identity: Option<&Identity>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Settings(error.to_string()))?
        .with_webpki_verifier(servers);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| identity.mismatch(&error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The application protocols of the tunnel itself.
pub const TUNNEL_ALPN: &[&[u8]] = &[ALPN];
