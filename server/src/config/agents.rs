//! What the options say of the port for agents: QUIC on UDP, gRPC on TCP, and who may connect.

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf, time::Duration};

use konnectivity_process::{byte_size::ByteSize, check, listen::Listen, problems::Problems};
use konnectivity_transport::mux::SlowDial;
use uuid::Uuid;

use super::kubernetes;
use crate::{accept::listener::tls::Terms, options::Options};

/// Bytes that may wait for one dial: less would slow an agent for every burst, and four times as many are the most.
const DIAL_BUFFERS: RangeInclusive<u64> = 64 * 1024..=1 << 30;

/// The port that agents connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agents {
    /// The addresses, for UDP and TCP.
    pub listen: Listen,
    /// Readable file with the certificate chain that agents see.
    pub certificate: PathBuf,
    /// Readable file with its private key.
    pub key: PathBuf,
    /// Readable file with the authorities that agents' certificates must come from. `None`: agents show tokens, or any
    /// may connect, which `allow-unauthenticated-agents` has asked for.
    pub client_ca: Option<PathBuf>,
    /// Readable file with the secret that connection ids and stateless resets are made from. `None`: derived
    /// from `key`.
    pub endpoint_key_file: Option<PathBuf>,
    /// What tells this server from others with the same secret, and stays when it is started again: its id if it was
    /// given one, and this machine's name.
    pub endpoint_name: String,
    /// Whether agents are served over QUIC.
    pub quic: bool,
    /// How agents are served over gRPC; `None`: they are not.
    pub grpc: Option<GrpcAgents>,
}

/// How agents are served over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcAgents {
    /// What their handshakes may agree on.
    pub terms: Terms,
    /// How long nothing may come from an agent until it is pinged. At least a second.
    pub keep_alive: Duration,
    /// Bytes that may wait for a dial's client before the agent's stream is slowed.
    pub dial_buffer: usize,
    /// What becomes of a dial whose client takes nothing.
    pub slow_dials: SlowDial,
}

/// What the options say of agents.
pub(super) fn check(options: &Options, terms: &Terms, problems: &mut Problems) -> Option<Agents> {
    let host = ("agent-bind-address", options.agent_bind_address.as_str());
    let listen = super::listen(problems, host, ("agent-port", options.agent_port));
    let (certificate, key) = super::certificate(
        problems,
        ("cluster-cert", &options.cluster_cert),
        ("cluster-key", &options.cluster_key),
        "the port for agents always has TLS",
    );
    let client_ca = check::file(problems, "cluster-ca-cert", &options.cluster_ca_cert);
    match (options.cluster_ca_cert.is_empty(), options.allow_unauthenticated_agents) {
        // Tokens say who may.
        (true, false) if kubernetes::wants_tokens(options) => {}
        (true, false) => problems.add(
            "cluster-ca-cert",
            "nothing says which agents may connect, and an agent can answer dials for any target",
            "set --cluster-ca-cert to the certificate authorities of the agents, or --agent-namespace for their tokens, or, for \
             tests, --allow-unauthenticated-agents",
        ),
        (false, true) => problems.add(
            "allow-unauthenticated-agents",
            "contradicts cluster-ca-cert, by which only agents with a certificate may connect",
            "leave one of them out",
        ),
        (true, true) | (false, false) => {}
    }
    let endpoint_key_file = check::file(problems, "endpoint-key-file", &options.endpoint_key_file);
    let grpc = grpc(options, terms, problems);
    let (quic, wants_grpc) = transport(&options.transport, problems)?;
    Some(Agents {
        listen: listen?,
        certificate: certificate?,
        key: key?,
        client_ca,
        endpoint_key_file,
        endpoint_name: endpoint_name(&options.server_id, || nix::unistd::gethostname().ok()),
        quic,
        grpc: Some(grpc?).filter(|_| wants_grpc),
    })
}

/// Where the machine has no name, one that no other server has, nor this one when it is started again.
fn endpoint_name(server_id: &str, machine: impl FnOnce() -> Option<OsString>) -> String {
    let machine = machine().map_or_else(|| Uuid::new_v4().to_string(), |name| name.to_string_lossy().into_owned());
    format!("{server_id} {machine}")
}

/// Whether agents are served over QUIC, and whether over gRPC.
fn transport(name: &str, problems: &mut Problems) -> Option<(bool, bool)> {
    match name {
        "auto" => Some((true, true)),
        "quic" => Some((true, false)),
        "grpc" => Some((false, true)),
        other => {
            let reason = format!("{other:?} is not a transport; known are auto, quic and grpc");
            problems.rule("transport", reason, "set --transport=auto, which serves both");
            None
        }
    }
}

fn grpc(options: &Options, terms: &Terms, problems: &mut Problems) -> Option<GrpcAgents> {
    let keep_alive = check::duration(problems, "keepalive-time", options.keepalive_time).map(super::keep_alive);
    let slow_dials = match options.grpc_slow_dials.as_str() {
        "close" => Some(SlowDial::Close),
        "wait" => Some(SlowDial::Wait),
        other => {
            let reason = format!("{other:?} is not one of close and wait");
            problems.rule("grpc-slow-dials", reason, "set --grpc-slow-dials=close");
            None
        }
    };
    let buffer = options.grpc_dial_buffer.0;
    let dial_buffer = usize::try_from(buffer).ok().filter(|_| DIAL_BUFFERS.contains(&buffer));
    if dial_buffer.is_none() {
        let remedy = format!("set it to {} up to {}", ByteSize(*DIAL_BUFFERS.start()), ByteSize(*DIAL_BUFFERS.end()));
        problems.add("grpc-dial-buffer", "is out of range", remedy);
    }
    Some(GrpcAgents {
        terms: terms.clone(),
        keep_alive: keep_alive?,
        dial_buffer: dial_buffer?,
        slow_dials: slow_dials?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart_by_id_and_machine() {
        let name = |id, machine: Option<&str>| endpoint_name(id, || machine.map(OsString::from));
        assert_eq!(name("a", Some("m")), name("a", Some("m")), "it stays");
        assert_ne!(name("a", Some("m")), name("b", Some("m")));
        assert_ne!(name("a", Some("m")), name("a", Some("n")));
        assert_ne!(name("", Some("m")), name("", Some("n")));
        assert_ne!(name("", None), name("", None), "nobody can be taken for another one");
    }
}
