//! What the options mean: settings that cannot be wrong. All problems are found before any is reported, and before
//! anything is bound.

mod kubernetes;
mod leases;
pub mod transport;

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf, time::Duration};

use konnectivity_process::{
    check,
    exit::Exit,
    klog::KlogOptions,
    layers::{self, Loaded, Settings},
    listen::Listen,
    logging::Logging,
    memory_limit::MemoryLimit,
    problems::{Effective, Problems},
};
use konnectivity_transport::{
    id::AgentId,
    identifier::{IdentifierError, Identifiers},
    settings::QuicSettings,
};
use uuid::Uuid;

pub use self::leases::CountedLeases;
use self::transport::Transports;
use crate::{options::Options, server_connection::direct::DirectPolicy, server_set::CountSource, token::TokenFile};

/// Ports that the reference's agent takes.
const PORTS: RangeInclusive<i64> = 1..=65_535;

/// Settings of the reference that mean nothing here, or nothing yet.
const WITHOUT_EFFECT: [&str; 5] = [
    "enable-contention-profiling",
    "kube-api-content-type",
    "probe-interval",
    "warn-on-channel-limit",
    "xfr-channel-size",
];

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
    /// What carries dials to them and from them.
    pub transports: Transports,
    /// How server and agent prove who they are.
    pub tls: Tls,
    /// The token that is shown to servers, if any.
    pub token: Option<TokenFile>,
    /// When connections are tried.
    pub reconnect: Reconnect,
    /// Which addresses that servers name are dialled.
    pub direct_servers: DirectPolicy,
    /// The leases by which servers are counted, if they are.
    pub leases: Option<CountedLeases>,
    /// How long a target may take to connect, its name's look-up included.
    pub dial_timeout: Duration,
    /// Bytes that the kernel should hold for a target, in either direction; `None`: what it thinks best.
    pub socket_bytes: Option<u32>,
    /// How long dials may run on after the first signal to stop. Zero: they are ended at once.
    pub graceful_shutdown_timeout: Duration,
    /// Whether the process ends when it has drained. If not, it serves on until the second signal.
    pub exit_after_drain: bool,
    /// Where health and metrics are served.
    pub health: Listen,
    /// Where what is for administrators is served.
    pub admin: Listen,
    /// Whether the admin port serves profiles.
    pub profiling: bool,
    /// How QUIC connections behave.
    pub quic: QuicSettings,
    /// What is logged.
    pub logging: Logging,
    /// All settings as text, for the log.
    pub effective: Effective,
    /// What is taken although it does not mean what it says, for the log.
    pub notices: Vec<String>,
}

/// Where the servers are: one name and port for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// UDP for QUIC, TCP for gRPC.
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
    /// Whose count of the servers is believed.
    pub count_source: CountSource,
}

impl Config {
    /// Reads flags (the first argument is the program's name), the file they name, and the environment.
    ///
    /// # Errors
    /// [`Exit`]: a text that was asked for, or all problems.
    pub fn load(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Exit> {
        let Loaded { options, problems } = layers::load::<Options>(arguments, &environment)?;
        Self::check(&options, environment, problems)
            .map_err(|problems| Exit::Refused(format!("failed to validate {} options with {problems}", Options::ROLE)))
    }

    /// Lowers the defaults that bound memory to what fits the limit, and says so.
    #[must_use]
    pub fn within(mut self, memory: MemoryLimit) -> Self {
        self.notices.extend(memory.fit(&mut self.quic, &mut self.effective));
        self.socket_bytes = memory.socket_bytes();
        self
    }

    /// What the options mean.
    ///
    /// # Errors
    /// Everything that is wrong with them, and what was found before.
    pub fn check(
        options: &Options,
        environment: impl Fn(&str) -> Option<String>,
        mut problems: Problems,
    ) -> Result<Self, Problems> {
        match Self::build(options, environment, &mut problems) {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// Makes every check before the first result is looked at.
    fn build(options: &Options, environment: impl Fn(&str) -> Option<String>, problems: &mut Problems) -> Option<Self> {
        let agent_id = agent_id(&options.agent_id, problems);
        let identifiers = identifiers(&options.agent_identifiers, problems);
        let server = server(options, problems);
        let transports = transport::check(options, environment, problems);
        let tls = tls(options, problems);
        let reconnect = reconnect(options, problems);
        let direct_servers = direct_servers(options, problems);
        let leases = leases::check(options, problems);
        let dial_timeout = check::positive_duration(problems, "dial-timeout", options.dial_timeout);
        let graceful_shutdown_timeout =
            check::duration(problems, "graceful-shutdown-timeout", options.graceful_shutdown_timeout);
        let health_host = ("health-server-host", options.health_server_host.as_str());
        let health = listen(problems, health_host, ("health-server-port", options.health_server_port));
        let admin_host = ("admin-bind-address", options.admin_bind_address.as_str());
        let admin = listen(problems, admin_host, ("admin-server-port", options.admin_server_port));
        let token = kubernetes::check(options, problems);
        check::channel_size(problems, options.xfr_channel_size);
        check::profiling(problems, options.enable_profiling, options.enable_contention_profiling);
        let quic = options.quic.settings(problems);
        let logging = options.klog.logging(problems, &options.log_level, &options.log_format);

        let agent_id = agent_id?;
        let mut effective = problems.effective().clone();
        effective.set("agent-id", agent_id.to_string(), effective.origin("agent-id"));
        Some(Self {
            agent_id,
            identifiers: identifiers?,
            identifiers_query: options.agent_identifiers.clone(),
            server: server?,
            transports: transports?,
            tls: tls?,
            token,
            reconnect: reconnect?,
            direct_servers: direct_servers?,
            leases,
            dial_timeout: dial_timeout?,
            socket_bytes: None,
            graceful_shutdown_timeout: graceful_shutdown_timeout?,
            exit_after_drain: options.exit_after_drain,
            health: health?,
            admin: admin?,
            profiling: options.enable_profiling,
            quic,
            logging: logging?,
            effective,
            notices: notices(options, problems),
        })
    }
}

/// What is taken although it does not mean what it says.
fn notices(options: &Options, problems: &Problems) -> Vec<String> {
    let without_effect = check::without_effect(problems, WITHOUT_EFFECT.iter().chain(&KlogOptions::WITHOUT_EFFECT));
    without_effect.into_iter().chain(options.klog.notice(problems)).collect()
}

fn listen(problems: &mut Problems, host: (&str, &str), port: (&'static str, i64)) -> Option<Listen> {
    let number = check::port(problems, port.0, port.1, PORTS);
    check::listen(problems, host, port.0, number)
}

/// A random id when none was given: two agents must not have the same by mistake.
fn agent_id(id: &str, problems: &mut Problems) -> Option<AgentId> {
    let id = if id.is_empty() { Uuid::new_v4().to_string() } else { id.to_owned() };
    match AgentId::new(id) {
        Ok(id) => Some(id),
        Err(error) => {
            problems.add("agent-id", error, "set it to the node's name, for instance");
            None
        }
    }
}

fn identifiers(query: &str, problems: &mut Problems) -> Option<Identifiers> {
    match Identifiers::parse_strict(query) {
        Ok(identifiers) => Some(identifiers),
        Err(error) => {
            let reason = match error {
                IdentifierError::Semicolon { .. } => "invalid semicolon separator in query".to_owned(),
                IdentifierError::BadEscape { escape } => format!("invalid URL escape {escape:?}"),
                IdentifierError::UnknownKey { key } => format!("unknown address type: {key}"),
            };
            let reason = format!("agent address is invalid: {reason}");
            let remedy = "set it to host, ipv4, ipv6, cidr and default-route as in host=node-1&ipv4=10.0.0.7";
            problems.rule("agent-identifiers", reason, remedy);
            None
        }
    }
}

fn server(options: &Options, problems: &mut Problems) -> Option<ServerAddress> {
    let host = options.proxy_server_host.as_str();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(char::is_whitespace) {
        problems.add("proxy-server-host", "is not the name or address of a host", "set it to where the servers are");
    }
    let port = check::port(problems, "proxy-server-port", options.proxy_server_port, PORTS)?;
    Some(ServerAddress { host: host.to_owned(), port })
}

fn tls(options: &Options, problems: &mut Problems) -> Option<Tls> {
    let reason = "so that the agent knows whose servers to trust";
    let ca = check::required_file(problems, "ca-cert", &options.ca_cert, reason);
    let (certificate, key) =
        check::pair(problems, ("agent-cert", &options.agent_cert), ("agent-key", &options.agent_key));
    let identity = certificate.zip(key).map(|(certificate, key)| Identity { certificate, key });
    Some(Tls { ca: ca?, identity })
}

fn direct_servers(options: &Options, problems: &mut Problems) -> Option<DirectPolicy> {
    match DirectPolicy::new(options.direct_server_networks.0.iter().map(String::as_str)) {
        Ok(policy) => Some(policy),
        Err(error) => {
            problems.add("direct-server-networks", error, "set it to any, to none, or to the networks of the servers");
            None
        }
    }
}

fn reconnect(options: &Options, problems: &mut Problems) -> Option<Reconnect> {
    let interval = check::positive_duration(problems, "sync-interval", options.sync_interval);
    let interval_cap = check::positive_duration(problems, "sync-interval-cap", options.sync_interval_cap);
    let count_source = leases::source(options, problems);
    let reconnect = Reconnect {
        interval: interval?,
        interval_cap: interval_cap?,
        forever: options.sync_forever,
        count_source: count_source?,
    };
    if reconnect.interval > reconnect.interval_cap {
        let reason = format!(
            "sync interval {} must be less than sync interval cap {}",
            options.sync_interval, options.sync_interval_cap
        );
        problems.rule("sync-interval", reason, "lower it, or raise --sync-interval-cap");
    }
    Some(reconnect)
}

#[cfg(test)]
mod compatibility;
#[cfg(test)]
mod tests;
