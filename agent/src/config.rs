//! What the options mean: settings that cannot be wrong.

use std::{path::PathBuf, time::Duration};

use konnectivity_process::{listen::Listen, logging::Logging};
use konnectivity_transport::{id::AgentId, identifier::Identifiers, settings::QuicSettings};

/// Everything the agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who this agent is; a random UUID when nobody named it.
    pub agent_id: AgentId,
    /// What it says it can reach, decoded.
    pub identifiers: Identifiers,
    /// The same as it was typed, which is what the wire carries.
    pub identifiers_query: String,
    /// The servers' common address.
    pub server: ServerAddress,
    /// How server and agent prove who they are.
    pub tls: Tls,
    /// When connections are tried.
    pub reconnect: Reconnect,
    /// How long a target may take to connect, its name's look-up included.
    pub dial_timeout: Duration,
    /// How long dials may run on after the first signal to stop. Zero: they are ended at once.
    pub graceful_shutdown_timeout: Duration,
    /// Where health and metrics are served.
    pub health: Listen,
    /// Where what is for administrators is served.
    pub admin: Listen,
    /// How QUIC connections behave.
    pub quic: QuicSettings,
    /// What is logged.
    pub logging: Logging,
}

/// Where the servers are: one name and port for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Readable file with the authorities that the servers' certificates must come from.
    pub ca: PathBuf,
    /// What the agent shows; `None`: nothing, and the server must allow that.
    pub identity: Option<Identity>,
}

/// The agent's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Readable file with the certificate chain.
    pub certificate: PathBuf,
    /// Readable file with its private key.
    pub key: PathBuf,
}

/// When connections to servers are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// Wait after the first failure, and between looks for more servers. Above zero.
    pub interval: Duration,
    /// The longest wait; at least `interval`.
    pub interval_cap: Duration,
    /// Whether to look for more servers when all known ones are connected.
    pub forever: bool,
}
