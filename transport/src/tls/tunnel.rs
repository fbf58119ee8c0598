//! TLS of the tunnel over QUIC, where agents that come back resume their sessions, and what makes that safe.
//!
//! A resumed handshake shows no certificate, and the TLS library verifies none: it takes over what was verified when the
//! session began, which may since have expired or lost its authority. So both ends verify the peer's chain again after
//! every handshake (`docs/decisions/0013-resumption-and-0rtt.md`).

use std::{fmt, sync::Arc};

use rustls::{
    ALL_VERSIONS, ClientConfig, Error, RootCertStore, ServerConfig,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, WebPkiServerVerifier, danger::ServerCertVerifier,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{Identity, TlsError, client_config_with, provider, server_config_with};

/// Sessions that a server keeps: one for each of so many agents, the last ones.
const MAX_SESSIONS: usize = 8192;

/// Bytes of the largest session that is kept: 32 MiB for all. Some 100 bytes and the agent's certificates, whose sizes are
/// the agent's choice: a chain of two has 1 to 3 kB.
const MAX_SESSION_BYTES: usize = 4096;

/// An agent keeps the sessions of one server name, 8 at most.
const CLIENT_SESSIONS: usize = 8;

/// How a server speaks TLS with agents over QUIC.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub(crate) config: ServerConfig,
    /// `None`: agents need no certificate.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// The server's identity, the roots that agents' certificates must chain to (`None`: no certificate is asked for),
    /// and the application protocols. Sessions belong to this value and its clones: with other roots none is resumed.
    ///
    /// # Errors
    /// [`TlsError::Pair`] when certificate and key do not fit, [`TlsError::Settings`] when the roots cannot be used.
    pub fn new(
        identity: &Identity,
        client_roots: Option<Arc<RootCertStore>>,
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        Self::with_verifier(identity, client_roots.map(client_verifier).transpose()?, alpn)
    }

    fn with_verifier(
        identity: &Identity,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let mut config = server_config_with(identity, verifier.clone(), alpn, provider(), ALL_VERSIONS)?;
        config.session_storage = Arc::new(Sessions(ServerSessionMemoryCache::new(MAX_SESSIONS)));
        // An agent has one connection, and each makes a session anew.
        config.send_tls13_tickets = 1;
        Ok(Self { config, verifier })
    }

    /// Verifies, as of `now`, the chain that an agent has shown in this handshake or in the one that it resumes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (own, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        verifier.verify_client_cert(own, others, now).map(drop)
    }
}

/// How an agent speaks TLS with servers.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub(crate) config: ClientConfig,
    verifier: Arc<WebPkiServerVerifier>,
    sessions: Arc<ClientSessionMemoryCache>,
}

impl ClientTls {
    /// The roots that servers' certificates must chain to, the agent's own identity if it has one, and the application
    /// protocols. Sessions belong to this value and its clones: with other roots or another identity none is resumed.
    ///
    /// # Errors
    /// [`TlsError::Pair`] when certificate and key do not fit, [`TlsError::Settings`] when the roots cannot be used.
    pub fn new(roots: Arc<RootCertStore>, identity: Option<&Identity>, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| TlsError::Settings(error.to_string()))?;
        let sessions = Arc::new(ClientSessionMemoryCache::new(CLIENT_SESSIONS));
        let mut config = client_config_with(verifier.clone(), identity, alpn)?;
        config.resumption = Resumption::store(sessions.clone());
        Ok(Self { config, verifier, sessions })
    }

    /// The same for TCP, with other application protocols: every handshake is a full one, in which the TLS library itself
    /// verifies all there is to verify. Resuming would save no round trip there either.
    pub fn over_tcp(&self, alpn: &[Vec<u8>]) -> ClientConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.to_vec();
        config.resumption = Resumption::disabled();
        config
    }

    /// Verifies, as of `now`, the chain that the server `name` has shown in this handshake or in the one that it resumes.
    /// Forgets the sessions with a server whose chain is not good any more: the next handshake shows the chain of today.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn verify(
        &self,
        name: &ServerName<'static>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let (own, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let verified = self.verifier.verify_server_cert(own, others, name, &[], now);
        if verified.is_err() {
            while self.sessions.take_tls13_ticket(name).is_some() {}
        }
        verified.map(drop)
    }
}

/// Verifies client certificates.
///
/// # Errors
/// [`TlsError::Settings`] when the roots cannot be used.
pub(super) fn client_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::Settings(error.to_string()))
}

/// The last sessions, none of which is large. Each can be taken once.
struct Sessions(Arc<ServerSessionMemoryCache>);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        session.len() <= MAX_SESSION_BYTES && self.0.put(id, session)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.0.get(id)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.0.take(id)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
