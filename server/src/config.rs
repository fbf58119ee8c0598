//! What the options mean: settings that cannot be wrong.

use std::{path::PathBuf, time::Duration};

use konnectivity_process::{listen::Listen, logging::Logging};
use konnectivity_transport::{id::ServerId, settings::QuicSettings};

/// Everything the server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who this server is; a random UUID when nobody named it.
    pub server_id: ServerId,
    /// How many servers there are, as agents are told.
    pub server_count: u32,
    /// Names of the rules that pick a backend, the first that knows one wins. Never empty.
    pub strategies: Vec<String>,
    /// Where clients dial.
    pub frontend: Frontend,
    /// Where agents connect, and who may.
    pub agents: Agents,
    /// Where health and metrics are served.
    pub health: Listen,
    /// Where metrics and what is for administrators are served.
    pub admin: Listen,
    /// How long dials may run on after the first signal to stop. Zero: they are ended at once.
    pub graceful_shutdown_timeout: Duration,
    /// How long a dial may take until the target is connected; `None`: as long as the agent allows.
    pub backend_dial_timeout: Option<Duration>,
    /// Threads that carry traffic, at least one.
    pub worker_threads: usize,
    /// How QUIC connections behave.
    pub quic: QuicSettings,
    /// What is logged.
    pub logging: Logging,
}

/// Where clients dial, over HTTP CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// A Unix socket without TLS.
    Unix(UnixFrontend),
    /// TCP with mutual TLS.
    Tcp(TcpFrontend),
}

/// The frontend on a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixFrontend {
    /// Where the socket is made; its folder exists, and the path is short enough.
    pub path: PathBuf,
    /// Whether a socket that is there already is removed first.
    pub delete_existing: bool,
}

/// The frontend on a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpFrontend {
    /// The addresses.
    pub listen: Listen,
    /// Readable file with the frontend's certificate chain.
    pub certificate: PathBuf,
    /// Readable file with its private key.
    pub key: PathBuf,
    /// Readable file with the authorities that clients' certificates must come from.
    pub client_ca: PathBuf,
}

/// The port that agents connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agents {
    /// The addresses; UDP.
    pub listen: Listen,
    /// Readable file with the certificate chain that agents see.
    pub certificate: PathBuf,
    /// Readable file with its private key.
    pub key: PathBuf,
    /// Readable file with the authorities that agents' certificates must come from. `None`: any agent may
    /// connect, which `allow-unauthenticated-agents` has asked for.
    pub client_ca: Option<PathBuf>,
    /// Readable file with the secret that connection ids and stateless resets are made from. `None`: derived
    /// from `key`.
    pub endpoint_key_file: Option<PathBuf>,
}
