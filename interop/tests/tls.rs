//! Certificates that are wrong in one way each: who refuses, what both ends say, and that nobody else suffers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

    /// Signs a certificate into files called `name`, and returns the flags `--ROLE-cert` and `--ROLE-key` with them.
    fn flags(&self, role: &str, name: &str, leaf: &Leaf) -> [String; 2] {
        let (certificate, key) = self.authority.issue(leaf).unwrap().write(self.path(), name).unwrap();
        [format!("--{role}-cert={}", certificate.display()), format!("--{role}-key={}", key.display())]
    }
}

/// Starts a server and an agent that cannot come together, and checks what both say. A good agent, which `good` makes
/// one of, is served beside it.
async fn apart(server: &[String], bad: &[String], good: &[String], agent_says: &str, server_says: &str) {
    let mut pair = Pair::start(Options::unix().server(server).agents([])).await.unwrap();
    let bad = Agent::start(&pair.certificates, pair.server.agents, HERE, bad).await.unwrap();
    let ready = until("the agent says why it is not ready", LIMIT, || async {
        let reply = http::get(bad.health, "/readyz").await.ok()?;
        reply.body.contains("servers connected: ").then_some(reply)
    })
    .await;
    assert_eq!(ready.status, 503);
    let expected = format!("[-]server-connected failed: no servers connected: {agent_says}");
    let expected = expected.replace("{server}", &pair.server.agents.to_string());
    assert!(ready.body.contains(&expected), "expected {expected}, got {}", ready.body);
    bad.program.logged(&["WARN", "cannot connect to a server"], LIMIT).await.unwrap();
    let said = pair.server.program.logged(&["WARN", "an agent could not connect"], LIMIT).await.unwrap();
    assert!(said.contains(server_says), "expected {server_says}, got {said}");
    assert_eq!(pair.server.connections().await.unwrap().len(), 0);
    assert!(
        matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("No agent available"))
    );

    let good = Agent::start(&pair.certificates, pair.server.agents, HERE, good).await.unwrap();
    pair.agents.push(good);
    pair.ready().await.unwrap();
    assert!(
        matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("connection refused"))
    );
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
        &other.flags("agent", "good", &Leaf::client("agent")),
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
        &other.flags("agent", "expired", &Leaf::client("agent").expired()),
        &other.flags("agent", "good", &Leaf::client("agent")),
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: invalid peer \
         certificate: certificate expired: verification time ",
        "the peer's certificate is not accepted: invalid peer certificate: certificate expired: verification time ",
    )
    .await;
}

#[tokio::test]
async fn an_agent_certificate_of_the_future() {
    let other = Other::new();
    apart(
        &[format!("--cluster-ca-cert={}", other.ca())],
        &other.flags("agent", "early", &Leaf::client("agent").not_yet_valid()),
        &other.flags("agent", "good", &Leaf::client("agent")),
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: invalid peer \
         certificate: certificate not valid yet: verification time ",
        "the peer's certificate is not accepted: invalid peer certificate: certificate not valid yet: verification time ",
    )
    .await;
}

#[tokio::test]
async fn a_certificate_for_servers_does_not_make_an_agent() {
    let other = Other::new();
    apart(
        &[format!("--cluster-ca-cert={}", other.ca())],
        &other.flags("agent", "server", &Leaf::server(["localhost"])),
        &other.flags("agent", "good", &Leaf::client("agent")),
        "the server at {server} did not accept this agent: the peer does not accept this end's certificate: invalid peer \
         certificate: certificate does not allow extended key usage for client authentication",
        "the peer's certificate is not accepted: invalid peer certificate: certificate does not allow extended key usage",
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

/// A server whose certificate agents cannot accept; they all say why.
async fn bad_server(leaf: &Leaf, agent_says: &str) {
    let other = Other::new();
    let server = other.flags("cluster", "server", leaf);
    let pair = Pair::start(Options::unix().server(server).agents([])).await.unwrap();
    let trust = [format!("--ca-cert={}", other.ca())];
    let agent = Agent::start(&pair.certificates, pair.server.agents, HERE, &trust).await.unwrap();
    let expected = format!(
        "QUIC handshake with {} failed: the peer's certificate is not accepted: invalid peer certificate: {agent_says}",
        pair.server.agents
    );
    let said = agent.program.logged(&["WARN", "cannot connect to a server"], LIMIT).await.unwrap();
    // The agent's log has it in quotes.
    assert!(said.replace("\\\"", "\"").contains(&expected), "expected {expected}, got {said}");
    let said = pair.server.program.logged(&["WARN", "an agent could not connect"], LIMIT).await.unwrap();
    assert!(
        said.contains(&format!(
            "the peer does not accept this end's certificate: invalid peer certificate: {agent_says}"
        ))
    );
}

#[tokio::test]
async fn an_expired_server_certificate() {
    bad_server(&Leaf::server(["127.0.0.1"]).expired(), "certificate expired: verification time ").await;
}

#[tokio::test]
async fn a_server_certificate_for_another_name() {
    bad_server(&Leaf::server(["tunnel.example"]), "certificate not valid for name \"127.0.0.1\"").await;
}

#[tokio::test]
async fn the_server_may_be_called_by_a_name_of_its_certificate() {
    let other = Other::new();
    let server = other.flags("cluster", "server", &Leaf::server(["localhost"]));
    let options = Options::unix().server(server);
    let pair =
        Pair::start(options.agent(["--proxy-server-host=localhost", &format!("--ca-cert={}", other.ca())])).await;
    assert_eq!(pair.unwrap().server.connections().await.unwrap().len(), 1);
}

/// What a program says that cannot use its certificates.
async fn refused(entrance: Option<Entrance>, arguments: &[String]) -> String {
    let folder = TempDir::new().unwrap();
    let certificates = Folder::write(folder.path(), &[]).unwrap();
    let program = match entrance {
        Some(entrance) => Server::spawn(&certificates, folder.path(), entrance, HERE, arguments).unwrap().program,
        None => Agent::spawn(&certificates, (HERE, 8091).into(), HERE, arguments).unwrap().program,
    };
    let said = program.refused(LIMIT).await.unwrap();
    said.trim_end().lines().last().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_that_does_not_match_its_certificate() {
    let other = Other::new();
    let [certificate, _] = other.flags("x", "one", &Leaf::server(["127.0.0.1"]));
    let [_, key] = other.flags("x", "two", &Leaf::server(["127.0.0.1"]));
    for (role, entrance) in [("cluster", Some(Entrance::Unix)), ("server", Some(Entrance::MutualTls)), ("agent", None)]
    {
        let flags = [certificate.replace("--x-", &format!("--{role}-")), key.replace("--x-", &format!("--{role}-"))];
        let expected = format!(
            "Error: --{role}-cert and --{role}-key: the certificate {0}/one.crt and the key {0}/two.key cannot be used \
             together: keys may not be consistent: KeyMismatch; name the key that the certificate was made with",
            other.path().display()
        );
        assert_eq!(refused(entrance, &flags).await, expected);
    }
}

#[tokio::test]
async fn files_that_hold_something_else() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let file = path.display();
    let garbage = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let not_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let no_certificate = format!("{file} holds no certificate; name a PEM file that does");
    let no_key = format!("{file} holds no private key; name a PEM file that does");
    let cases = [
        ("", "ca-cert", "--ca-cert", no_certificate.clone()),
        ("hello", "ca-cert", "--ca-cert", no_certificate.clone()),
        (garbage, "ca-cert", "--ca-cert", format!("{file} is not a valid PEM file: ")),
        (not_x509, "ca-cert", "--ca-cert", format!("{file} holds a certificate that cannot be used as a trust root: ")),
        ("", "agent-cert", "--agent-cert and --agent-key", no_certificate.clone()),
        ("", "agent-key", "--agent-cert and --agent-key", no_key.clone()),
        ("", "cluster-ca-cert", "--cluster-ca-cert", no_certificate.clone()),
        ("", "cluster-cert", "--cluster-cert and --cluster-key", no_certificate.clone()),
        (garbage, "cluster-cert", "--cluster-cert and --cluster-key", format!("{file} is not a valid PEM file: ")),
        ("", "cluster-key", "--cluster-cert and --cluster-key", no_key.clone()),
        ("", "server-ca-cert", "--server-ca-cert", no_certificate.clone()),
        ("", "server-key", "--server-cert and --server-key", no_key),
    ];
    for (content, setting, named, expected) in cases {
        std::fs::write(&path, content).unwrap();
        let entrance = match setting {
            "ca-cert" | "agent-cert" | "agent-key" => None,
            _ if setting.starts_with("server") => Some(Entrance::MutualTls),
            _ => Some(Entrance::Unix),
        };
        let said = refused(entrance, &[format!("--{setting}={file}")]).await;
        assert!(said.starts_with(&format!("Error: {named}: {expected}")), "{setting}, {content:?}: {said}");
    }
}

/// Connects to a frontend with TLS as told, asks for a target, and returns what came back before the end.
async fn ask(address: SocketAddr, roots: &Path, identity: Option<&Identity>) -> std::io::Result<String> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(roots).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(trusted);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect(ServerName::from(address.ip()), stream).await?;
    stream.write_all(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}

#[tokio::test]
async fn clients_with_wrong_certificates_are_refused_and_the_others_served() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let Frontend::MutualTls(address) = pair.server.frontend else { unreachable!() };
    let roots = pair.certificates.file("ca.crt");
    let other = Other::new();
    let foreign = other.authority.issue(&Leaf::client("foreign")).unwrap();
    let without = ask(address, &roots, None).await.unwrap_err().to_string();
    assert!(without.contains("CertificateRequired"), "{without}");
    let foreign = ask(address, &roots, Some(&foreign)).await.unwrap_err().to_string();
    assert!(foreign.contains("UnknownCA"), "{foreign}");
    let said = pair.server.program.logged(&["WARN", "TLS handshake with a client failed"], LIMIT).await.unwrap();
    assert!(said.contains("peer sent no certificates"), "{said}");
    assert!(
        matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("connection refused"))
    );
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused() {
    let other = Other::new();
    let pair = Pair::start(Options::mutual_tls().server([format!("--server-ca-cert={}", other.ca())])).await.unwrap();
    let Frontend::MutualTls(address) = pair.server.frontend else { unreachable!() };
    let roots = pair.certificates.file("ca.crt");
    let expired = other.authority.issue(&Leaf::client("client").expired()).unwrap();
    let said = ask(address, &roots, Some(&expired)).await.unwrap_err().to_string();
    assert!(said.contains("CertificateExpired"), "{said}");
    let good = other.authority.issue(&Leaf::client("client")).unwrap();
    let reply = ask(address, &roots, Some(&good)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && reply.ends_with("connection refused"), "{reply}");
}
