//! Certificates that are wrong in one way each: who refuses, what both ends say, and that nobody else suffers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use konnectivity_interop::certificates::{Authority, Folder, Identity, Leaf};
use konnectivity_interop::load::path::DialError;
use konnectivity_interop::pair::{Agent, Options, Pair, Server, http, until};
use konnectivity_interop::peer::{Entrance, Frontend};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An authority that nobody trusts unless told to, and where its files go.
struct Other {
    authority: Authority,
    folder: TempDir,
}

impl Other {
    fn new() -> Self {
        let other = Self { authority: Authority::new("another authority").unwrap(), folder: TempDir::new().unwrap() };
        other.authority.identity().write(other.folder.path(), "ca").unwrap();
        other
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ca(&self) -> String {
        self.path().join("ca.crt").display().to_string()
    }

    /// Signs a certificate; the flags `--NAME-cert` and `--NAME-key` with its files.
    fn flags(&self, name: &str, leaf: &Leaf) -> [String; 2] {
        let (certificate, key) = self.authority.issue(leaf).unwrap().write(self.path(), name).unwrap();
        [format!("--{name}-cert={}", certificate.display()), format!("--{name}-key={}", key.display())]
    }
}

/// Starts a server and an agent that cannot come together, and checks what both say. A good agent, which `good` makes
/// one of, is served all the while.
async fn apart(server: &[String], bad: &[String], good: &[String], agent_says: &str, server_says: &str) {
    let mut pair = Pair::start(Options::unix().server(server).agents([])).await.unwrap();
    let bad = Agent::start(&pair.certificates, pair.server.agents, HERE, bad).await.unwrap();
    let ready = until("the agent says why it is not ready", LIMIT, || async {
        let reply = http::get(bad.health, "/readyz").await.ok()?;
        reply.body.contains("servers connected: ").then_some(reply)
    })
    .await;
    assert_eq!(ready.status, 503);
    let expected = format!("[-]server-connected failed: no servers connected: {agent_says}\n");
    let expected = expected.replace("{server}", &pair.server.agents.to_string());
    assert!(ready.body.contains(&expected), "expected {expected}, got {}", ready.body);
    bad.program.logged(&["WARN", "cannot connect to a server"], LIMIT).await.unwrap();
    let said = pair.server.program.logged(&["WARN", "an agent could not connect"], LIMIT).await.unwrap();
    assert!(said.contains(server_says), "expected {server_says}, got {said}");
    assert_eq!(pair.server.connections().await.unwrap().len(), 0);
    assert!(matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("No agent available")));

    let good = Agent::start(&pair.certificates, pair.server.agents, HERE, good).await.unwrap();
    pair.agents.push(good);
    pair.ready().await.unwrap();
    assert!(matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("connection refused")));
}

#[tokio::test]
async fn an_agent_that_trusts_another_authority() {
    let other = Other::new();
    apart(
        &[],
        &[format!("--ca-cert={}", other.ca())],
        &[],
        "QUIC handshake with {server} failed: the peer's certificate is not accepted: invalid peer certificate: \
         UnknownIssuer; check it, and the certificate authorities given to this end",
        "failed: the peer does not accept this end's certificate: invalid peer certificate: UnknownIssuer; check it, and \
         the certificate authorities given to the peer",
    )
    .await;
}

#[tokio::test]
async fn a_server_that_trusts_another_authority() {
    let other = Other::new();
    apart(
        &[format!("--cluster-ca-cert={}", other.ca())],
        &[],
        &other.flags("agent", &Leaf::client("agent")),
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: invalid peer \
         certificate: UnknownIssuer; check it, and the certificate authorities given to the peer",
        "failed: the peer's certificate is not accepted: invalid peer certificate: UnknownIssuer; check it, and the \
         certificate authorities given to this end",
    )
    .await;
}

#[tokio::test]
async fn an_expired_agent_certificate() {
    let other = Other::new();
    apart(
        &[format!("--cluster-ca-cert={}", other.ca())],
        &other.flags("agent", &Leaf::client("agent").expired()),
        &other.flags("agent", &Leaf::client("agent")).map(|flag| flag.replace("agent.", "agent.")),
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: invalid peer \
         certificate: certificate expired",
        "the peer's certificate is not accepted: invalid peer certificate: certificate expired",
    )
    .await;
}

#[tokio::test]
async fn an_agent_certificate_of_the_future() {
    let other = Other::new();
    let early = other.flags("agent", &Leaf::client("agent").not_yet_valid());
    apart(
        &[format!("--cluster-ca-cert={}", other.ca())],
        &early,
        &early,
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: invalid peer \
         certificate: certificate not valid yet",
        "the peer's certificate is not accepted: invalid peer certificate: certificate not valid yet",
    )
    .await;
}

#[tokio::test]
async fn an_agent_without_certificate_where_one_is_asked_for() {
    apart(
        &[],
        &["--agent-cert=".to_owned(), "--agent-key=".to_owned()],
        &[],
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: peer sent no \
         certificates; check it, and the certificate authorities given to the peer",
        "the peer's certificate is not accepted: peer sent no certificates",
    )
    .await;
}
