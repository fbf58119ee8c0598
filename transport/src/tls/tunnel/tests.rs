// A test may panic.
#![allow(clippy::unwrap_used)]

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConnection, DigitallySignedStruct, DistinguishedName, HandshakeKind, ServerConnection, SignatureScheme,
    client::danger::HandshakeSignatureValid, pki_types::PrivateKeyDer, server::danger::ClientCertVerified,
};
use tokio::time::timeout;

use super::*;
use crate::{
    budget::MemoryBudget,
    connection::{Connection, ConnectionLost},
    endpoint::{ConnectError, EndpointKeys, ServerEndpoint, connect},
    settings::QuicSettings,
    tls::{TUNNEL_ALPN, server_config},
    wire::{code::ConnectionCode, message::DialRequest},
};

/// Nothing here takes longer, unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        Self { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
    }

    /// Signs a certificate that is good for a peer of either kind, until then.
    fn issue(&self, until: SystemTime) -> Identity {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + until.duration_since(UNIX_EPOCH).unwrap();
        let key = KeyPair::generate().unwrap();
        Identity {
            chain: vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            certificate_path: PathBuf::new(),
            key_path: PathBuf::new(),
        }
    }

    fn server(&self, identity: &Identity) -> ServerTls {
        ServerTls::new(identity, Some(self.roots.clone()), TUNNEL_ALPN).unwrap()
    }

    fn client(&self, identity: &Identity) -> ClientTls {
        ClientTls::new(self.roots.clone(), Some(identity), TUNNEL_ALPN).unwrap()
    }
}

/// In a year.
fn long() -> SystemTime {
    SystemTime::now() + YEAR
}

/// In two seconds, or a little less.
fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(2)
}

/// Waits until a certificate has expired.
async fn outlive(until: SystemTime) {
    while SystemTime::now() <= until + Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Counts what only full handshakes do.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ClientCertVerifier>,
    full_handshakes: AtomicUsize,
}

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner.verify_client_cert(own, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.full_handshakes.fetch_add(1, Ordering::Relaxed);
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A server that counts its full handshakes.
struct Server {
    endpoint: ServerEndpoint,
    tls: ServerTls,
    counting: Arc<Counting>,
}

/// What a handshake came to at one end.
type End = Result<Connection, ConnectError>;

impl Server {
    fn new(identity: &Identity, client_roots: &Arc<RootCertStore>) -> Self {
        let inner = client_verifier(client_roots.clone()).unwrap();
        let counting = Arc::new(Counting { inner, full_handshakes: AtomicUsize::new(0) });
        let tls = ServerTls::with_verifier(identity, Some(counting.clone()), TUNNEL_ALPN).unwrap();
        let (settings, budget) = settings();
        let keys = EndpointKeys::from_identity(identity, "server");
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = ServerEndpoint::bind(address, tls.clone(), &keys, &settings, budget).unwrap();
        Self { endpoint, tls, counting }
    }

    fn full_handshakes(&self) -> usize {
        self.counting.full_handshakes.load(Ordering::Relaxed)
    }

    /// Replaces the TLS settings and keeps the sessions all the same, as other programs do.
    fn keep_sessions_with(&self, mut tls: ServerTls) {
        tls.config.session_storage = self.tls.config.session_storage.clone();
        self.endpoint.set_tls(tls).unwrap();
    }

    /// An agent's handshake as the server and the agent see it.
    async fn handshake(&self, agent: &ClientTls) -> (End, End) {
        let address = self.endpoint.local_address().unwrap();
        let accept = async { self.endpoint.accept().await.unwrap().accept().await };
        let (settings, budget) = settings();
        let both = async { tokio::join!(accept, connect(address, "localhost", agent, &settings, budget)) };
        timeout(LIMIT, both).await.unwrap()
    }

    /// An agent comes, gets a session, and goes.
    async fn visit(&self, agent: &ClientTls) {
        let (at_server, at_agent) = self.handshake(agent).await;
        let (at_server, at_agent) = (at_server.unwrap(), at_agent.unwrap());
        let request = DialRequest { dial_id: 1, network: "tcp".into(), address: "target:1".into(), timeout_ms: 0 };
        let _dial = at_server.open_dial(&request).await.unwrap();
        // The session was sent before it.
        timeout(LIMIT, at_agent.accept_dial()).await.unwrap().unwrap();
        at_agent.close(ConnectionCode::Drained, "the visit is over");
    }
}

fn settings() -> (QuicSettings, Arc<MemoryBudget>) {
    let settings = QuicSettings::default();
    let budget = MemoryBudget::new(settings.memory_budget);
    (settings, budget)
}

/// What this end does not accept in the other's certificate.
fn refused_here(end: End) -> String {
    match end {
        Err(ConnectError::Handshake { source: ConnectionLost::PeerCertificate { reason }, .. }) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the certificate is accepted"),
    }
}

/// What this end is told of its certificate.
async fn refused_there(end: End) -> String {
    match timeout(LIMIT, end.unwrap().closed()).await.unwrap() {
        ConnectionLost::Closed { code: Some(ConnectionCode::Unauthorized), reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_comes_back_resumes_its_session() {
    let authority = Authority::new("authority");
    let server = Server::new(&authority.issue(long()), &authority.roots);
    let agent = authority.client(&authority.issue(long()));
    for visit in 1..=3 {
        server.visit(&agent).await;
        assert_eq!(server.full_handshakes(), 1, "visit {visit}");
    }
    server.visit(&authority.client(&authority.issue(long()))).await;
    assert_eq!(server.full_handshakes(), 2, "another agent");
}

#[tokio::test]
async fn a_server_refuses_a_session_of_an_expired_certificate() {
    let authority = Authority::new("authority");
    let server = Server::new(&authority.issue(long()), &authority.roots);
    let end = soon();
    let agent = authority.client(&authority.issue(end));
    server.visit(&agent).await;
    outlive(end).await;
    let (at_server, at_agent) = server.handshake(&agent).await;
    let reason = refused_here(at_server);
    assert!(reason.contains("expired"), "{reason}");
    let told = refused_there(at_agent).await;
    assert!(told.contains("the certificate is not accepted") && told.contains("expired"), "{told}");
    assert_eq!(server.full_handshakes(), 1, "nothing was resumed that could have been refused");
}

#[tokio::test]
async fn an_agent_refuses_a_session_of_an_expired_certificate_and_then_finds_the_new_one() {
    let authority = Authority::new("authority");
    let end = soon();
    let server = Server::new(&authority.issue(end), &authority.roots);
    let mut generous = server.tls.clone();
    generous.config.send_tls13_tickets = 2;
    server.endpoint.set_tls(generous).unwrap();
    let agent = authority.client(&authority.issue(long()));
    server.visit(&agent).await;
    outlive(end).await;
    let renewed = authority.issue(long());
    let verifier = Some(server.counting.clone() as Arc<dyn ClientCertVerifier>);
    server.keep_sessions_with(ServerTls::with_verifier(&renewed, verifier, TUNNEL_ALPN).unwrap());

    let (at_server, at_agent) = server.handshake(&agent).await;
    let reason = refused_here(at_agent);
    assert!(reason.contains("expired"), "{reason}");
    let told = refused_there(at_server).await;
    assert!(told.contains("expired"), "{told}");
    assert_eq!(server.full_handshakes(), 1, "nothing was resumed that could have been refused");

    server.visit(&agent).await;
    assert_eq!(server.full_handshakes(), 2, "after a refusal no session is resumed");
}

#[tokio::test]
async fn with_other_authorities_no_session_is_resumed() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let identity = old.issue(long());
    let server = Server::new(&identity, &old.roots);
    let agent = old.client(&old.issue(long()));
    server.visit(&agent).await;
    server.endpoint.set_tls(new.server(&identity)).unwrap();
    let (at_server, at_agent) = server.handshake(&agent).await;
    let reason = refused_here(at_server);
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    // A full handshake: it is TLS that tells the agent.
    let lost = timeout(LIMIT, at_agent.unwrap().closed()).await.unwrap();
    assert!(matches!(lost, ConnectionLost::OwnCertificate { .. }), "{lost:?}");
}

#[tokio::test]
async fn other_authorities_do_not_accept_a_session_that_was_kept() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let identity = old.issue(long());
    let server = Server::new(&identity, &old.roots);
    let agent = old.client(&old.issue(long()));
    server.visit(&agent).await;
    server.keep_sessions_with(new.server(&identity));
    let (at_server, at_agent) = server.handshake(&agent).await;
    let reason = refused_here(at_server);
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    let told = refused_there(at_agent).await;
    assert!(told.contains("UnknownIssuer"), "{told}");
}

#[tokio::test]
async fn a_handshake_under_way_while_authorities_change_must_satisfy_the_new_ones() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let identity = old.issue(long());
    let server = Server::new(&identity, &old.roots);
    let agent = old.client(&old.issue(long()));
    let address = server.endpoint.local_address().unwrap();
    let accept = async {
        let incoming = server.endpoint.accept().await.unwrap();
        server.endpoint.set_tls(new.server(&identity)).unwrap();
        incoming.accept().await
    };
    let (settings, budget) = settings();
    let both = async { tokio::join!(accept, connect(address, "localhost", &agent, &settings, budget)) };
    let (at_server, at_agent) = timeout(LIMIT, both).await.unwrap();
    let reason = refused_here(at_server);
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    refused_there(at_agent).await;
}

#[test]
fn nothing_is_sent_or_taken_before_the_handshake() {
    let authority = Authority::new("authority");
    let identity = authority.issue(long());
    assert_eq!(authority.server(&identity).config.max_early_data_size, 0);
    assert!(!authority.client(&identity).config.enable_early_data);
}

#[test]
fn sessions_are_bounded_and_each_is_taken_once() {
    let sessions = Sessions(ServerSessionMemoryCache::new(2));
    assert!(sessions.put(b"small".to_vec(), vec![0; MAX_SESSION_BYTES]));
    assert!(!sessions.put(b"large".to_vec(), vec![0; MAX_SESSION_BYTES + 1]), "a session without a bound");
    assert!(sessions.take(b"small").is_some());
    assert!(sessions.take(b"small").is_none(), "taken twice");
    assert!(sessions.take(b"large").is_none());
}

/// A handshake over TCP, without the TCP; the client reads all that the server has to say.
fn tcp_handshake(client: &ClientConfig, server: &Arc<ServerConfig>) -> HandshakeKind {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    loop {
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut asked).unwrap();
        }
        server.read_tls(&mut asked.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        while server.wants_write() {
            server.write_tls(&mut answered).unwrap();
        }
        client.read_tls(&mut answered.as_slice()).unwrap();
        client.process_new_packets().unwrap();
        if asked.is_empty() && answered.is_empty() {
            return client.handshake_kind().unwrap();
        }
    }
}

#[test]
fn over_tcp_every_handshake_is_a_full_one_even_with_a_server_that_offers_sessions() {
    let authority = Authority::new("authority");
    let server = Arc::new(server_config(&authority.issue(long()), Some(authority.roots.clone()), &[b"h2"]).unwrap());
    let agent = authority.client(&authority.issue(long()));
    let names = [b"h2".to_vec()];
    let mut resuming = agent.config.clone();
    resuming.alpn_protocols = names.to_vec();
    tcp_handshake(&resuming, &server);
    assert_eq!(tcp_handshake(&resuming, &server), HandshakeKind::Resumed, "the server offers none");
    for _ in 0..2 {
        assert_eq!(tcp_handshake(&agent.over_tcp(&names), &server), HandshakeKind::Full);
    }
}
