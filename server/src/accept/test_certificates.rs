//! Certificates for the tests of this folder, and clients that use them.

use std::{fs, io, net::SocketAddr, sync::Arc};

use konnectivity_transport::tls::Identity;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::listener::tls::{Protocol, Settings, Terms, settings};

/// A certificate and its key.
pub type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("ours")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self) -> ClientIdentity {
        self.issue_with(|_| {})
    }

    pub fn issue_with(&self, change: impl FnOnce(&mut CertificateParams)) -> ClientIdentity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// A server with a certificate of this authority, for clients with one of this authority.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server_with(Protocol::Http1).config
    }

    pub fn server_with(&self, protocol: Protocol) -> Settings {
        self.server_of(&Terms { protocol, only_tls13: false, cipher_suites: None })
    }

    pub fn server_of(&self, terms: &Terms) -> Settings {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [certificate_file, key_file] = ["certificate", "key"].map(|name| folder.path().join(name));
        fs::write(&certificate_file, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let identity = Identity::load(&certificate_file, &key_file).unwrap();
        settings(&identity, Some(Arc::new(self.roots())), terms).unwrap()
    }

    /// A client that trusts this authority.
    pub fn client(&self, identity: Option<ClientIdentity>) -> ClientConfig {
        self.client_of(&[&TLS12, &TLS13], identity)
    }

    pub fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<ClientIdentity>,
    ) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        match identity {
            Some((certificates, key)) => config.with_client_auth_cert(certificates, key).unwrap(),
            None => config.with_no_client_auth(),
        }
    }
}

pub async fn connect(address: SocketAddr, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
