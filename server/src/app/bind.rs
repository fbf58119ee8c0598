//! Binds what agents and clients connect to, with the certificates that this takes.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use konnectivity_process::{
    certificates::{self, AuthoritiesFile, IdentityFiles, TlsFiles},
    listen::is_missing_family,
    metrics::CertificateMetrics,
    reload::{Current, Reloader},
};
use konnectivity_transport::{
    budget::MemoryBudget,
    endpoint::{BindError, EndpointKeys, ServerEndpoint},
    tls::{Identity, ServerTls, TUNNEL_ALPN},
};
use socket2::SockRef;

use crate::{
    accept::listener::{Listener, tls as listener_tls},
    config::{Agents, Config, Frontend},
    worker::Worker,
};

/// How long bytes to an agent over TCP may be without an acknowledgement, as in the reference.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// How agents are spoken to, with the certificates that are on disk.
pub(super) struct AgentTls {
    quic: ServerTls,
    grpc: Option<listener_tls::Settings>,
}

/// Reads the certificates of the port for agents, now and when they change.
///
/// # Errors
/// What could not be loaded.
pub(super) fn agent_tls(
    agents: &Agents,
    reloader: &mut Reloader,
    metrics: &Arc<CertificateMetrics>,
) -> Result<Current<AgentTls>> {
    let files = TlsFiles {
        identity: Some(IdentityFiles {
            settings: ["cluster-cert", "cluster-key"],
            certificate: agents.certificate.clone(),
            key: agents.key.clone(),
        }),
        authorities: agents.client_ca.clone().map(|path| AuthoritiesFile { setting: "cluster-ca-cert", path }),
    };
    let terms = agents.grpc.as_ref().map(|grpc| grpc.terms.clone());
    certificates::load(reloader, metrics, files, move |identity, authorities| {
        let identity = identity.expect("the files have one");
        let quic = ServerTls::new(identity, authorities.clone(), TUNNEL_ALPN)?;
        let grpc = terms.as_ref().map(|terms| listener_tls::settings(identity, authorities, terms));
        Ok(AgentTls { quic, grpc: grpc.transpose()? })
    })
}

/// The TCP listeners for agents, if there are to be any.
///
/// # Errors
/// What could not be bound.
pub(super) fn grpc_agents(agents: &Agents, tls: &Current<AgentTls>) -> Result<Vec<Listener>> {
    if agents.grpc.is_none() {
        return Ok(Vec::new());
    }
    let settings = tls.map(|tls| tls.grpc.clone().expect("it is there if agents are served over gRPC"));
    let listen = |socket: std::net::TcpListener| Listener::tls(gives_up(socket)?, settings.clone());
    Ok(agents.listen.bind_tcp()?.into_iter().map(listen).collect::<io::Result<_>>()?)
}

/// The same listener, whose connections end when their peer has acknowledged nothing for [`USER_TIMEOUT`].
fn gives_up(socket: std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    // Connections inherit it.
    SockRef::from(&socket).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(socket)
}

/// The UDP sockets for agents, if there are to be any.
///
/// # Errors
/// What could not be loaded or bound.
pub(super) fn quic_agents(
    config: &Config,
    tls: &Current<AgentTls>,
    worker: &Worker,
    budget: &Arc<MemoryBudget>,
) -> Result<Vec<Arc<ServerEndpoint>>> {
    let agents = &config.agents;
    if !agents.quic {
        return Ok(Vec::new());
    }
    let keys = match &agents.endpoint_key_file {
        Some(path) => endpoint_keys(path, &agents.endpoint_name)?,
        None => EndpointKeys::from_identity(
            &Identity::load(&agents.certificate, &agents.key).context("--cluster-cert and --cluster-key")?,
            &agents.endpoint_name,
        ),
    };
    // The socket belongs to the runtime of the worker that is to receive its packets.
    let _runtime = worker.handle().enter();
    let mut endpoints = Vec::new();
    for address in &agents.listen.addresses {
        match ServerEndpoint::bind(*address, tls.get().quic.clone(), &keys, &config.quic, budget.clone()) {
            Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
            Err(BindError::Socket { source, .. }) if agents.listen.all_interfaces && is_missing_family(&source) => {
                tracing::info!(%address, "this machine does not have this address family");
            }
            Err(error) => return Err(error).context("--agent-port"),
        }
    }
    let renewed = endpoints.clone();
    tls.follow(move |tls| {
        for endpoint in &renewed {
            if let Err(error) = endpoint.set_tls(tls.quic.clone()) {
                tracing::error!(%error, "the new certificate cannot be used over QUIC");
            }
        }
    });
    Ok(endpoints)
}

/// Bytes that a secret must have, so that nobody can guess the keys made from it.
const MIN_SECRET_BYTES: usize = 32;

fn endpoint_keys(path: &Path, server: &str) -> Result<EndpointKeys> {
    let secret =
        std::fs::read(path).with_context(|| format!("cannot read {} of --endpoint-key-file", path.display()))?;
    anyhow::ensure!(
        secret.len() >= MIN_SECRET_BYTES,
        "{} of --endpoint-key-file has {} bytes; put at least {MIN_SECRET_BYTES} random bytes into it",
        path.display(),
        secret.len()
    );
    Ok(EndpointKeys::from_secret(&secret, server))
}

/// The listeners for clients.
///
/// # Errors
/// What could not be loaded or bound.
pub(super) fn frontend(
    frontend: &Frontend,
    reloader: &mut Reloader,
    metrics: &Arc<CertificateMetrics>,
) -> Result<Vec<Listener>> {
    match frontend {
        Frontend::Unix(unix) => Ok(vec![Listener::unix(&unix.path, unix.delete_existing).context("--uds-name")?]),
        Frontend::Tcp(tcp) => {
            let files = TlsFiles {
                identity: Some(IdentityFiles {
                    settings: ["server-cert", "server-key"],
                    certificate: tcp.certificate.clone(),
                    key: tcp.key.clone(),
                }),
                authorities: Some(AuthoritiesFile { setting: "server-ca-cert", path: tcp.client_ca.clone() }),
            };
            let terms = tcp.terms.clone();
            let settings = certificates::load(reloader, metrics, files, move |identity, authorities| {
                listener_tls::settings(identity.expect("the files have one"), authorities, &terms)
            })?;
            let sockets = tcp.listen.bind_tcp()?;
            let listeners = sockets.into_iter().map(|socket| Listener::tls(socket, settings.clone()));
            Ok(listeners.collect::<io::Result<_>>()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_agents_over_tcp_give_up_a_silent_peer() {
        let listener = gives_up(std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).expect("an option");
        let agent = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (stream, _) = listener.accept().expect("it is there");
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().expect("an option"), Some(USER_TIMEOUT));
        drop(agent);
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        for (bytes, accepted) in [(0, false), (MIN_SECRET_BYTES - 1, false), (MIN_SECRET_BYTES, true)] {
            std::fs::write(&path, vec![7; bytes]).expect("a file");
            let keys = endpoint_keys(&path, "server").map(drop).map_err(|error| error.to_string());
            assert_eq!(keys.is_ok(), accepted, "{bytes} bytes: {keys:?}");
            assert!(keys.is_ok() || keys.is_err_and(|error| error.contains("--endpoint-key-file")));
        }
    }
}
