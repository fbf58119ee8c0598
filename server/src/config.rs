//! What the options mean: settings that cannot be wrong. All problems are found before any is reported, and before
//! anything is bound.

mod agents;
mod frontend;
mod kubernetes;
mod leases;
mod peers;
mod tls;

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use konnectivity_process::{
    check::{self, REGISTERED_PORTS},
    exit::Exit,
    klog::KlogOptions,
    layers::{self, Loaded, Settings},
    listen::Listen,
    logging::Logging,
    memory_limit::MemoryLimit,
    problems::{Effective, Problems},
};
use konnectivity_transport::{id::ServerId, settings::QuicSettings};
use uuid::Uuid;

pub use agents::Agents;
pub use frontend::Frontend;
pub use kubernetes::{AgentRules, Kubernetes};
pub use peers::Peers;

use crate::{
    lease::LeaseSettings,
    options::Options,
    strategy::{Strategy, UnknownStrategy},
};

/// Most servers that agents are told of; each means a connection of every agent.
const MOST_SERVERS: i64 = 1_000;
/// Settings of the reference that mean nothing here, or nothing yet.
const WITHOUT_EFFECT: [&str; 4] =
    ["enable-contention-profiling", "kube-api-content-type", "warn-on-channel-limit", "xfr-channel-size"];
/// What a keep-alive time of 0 stands for in the reference's gRPC library.
const KEEP_ALIVE_OF_ZERO: Duration = Duration::from_hours(2);
/// The shortest keep-alive time that it takes.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Most threads; more than any machine has cores.
const MOST_THREADS: i64 = 1_024;

/// Everything the server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who this server is; a random UUID when nobody named it.
    pub server_id: ServerId,
    /// How many servers there are, as agents are told.
    pub server_count: u32,
    /// Who the servers are, and where agents reach them.
    pub peers: Peers,
    /// The rules that pick a backend, in order: the first that knows one wins. Never empty.
    pub strategies: Vec<Strategy>,
    /// What clients speak.
    pub mode: Mode,
    /// Where clients dial.
    pub frontend: Frontend,
    /// How long nothing may come from a gRPC client until it is pinged. At least a second.
    pub frontend_keepalive_time: Duration,
    /// Where agents connect, and who may.
    pub agents: Agents,
    /// What agents must show beyond their certificate, and what they may say.
    pub agent_rules: AgentRules,
    /// The leases, if this server keeps one.
    pub leases: Option<LeaseSettings>,
    /// Where health and metrics are served.
    pub health: Listen,
    /// Where metrics and what is for administrators are served.
    pub admin: Listen,
    /// Whether the admin port serves profiles.
    pub profiling: bool,
    /// How long dials may run on after the first signal to stop. Zero: they are ended at once.
    pub graceful_shutdown_timeout: Duration,
    /// How long a dial may take until the target is connected; `None`: as long as the agent allows.
    pub backend_dial_timeout: Option<Duration>,
    /// Threads that carry traffic.
    pub worker_threads: NonZeroUsize,
    /// How QUIC connections behave.
    pub quic: QuicSettings,
    /// What is logged.
    pub logging: Logging,
    /// All settings as text, for the log.
    pub effective: Effective,
    /// What is taken although it does not mean what it says, for the log.
    pub notices: Vec<String>,
}

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// gRPC: a stream of packets for each dial.
    Grpc,
    /// HTTP/1.1 with the method CONNECT.
    HttpConnect,
}

/// What only the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether gRPC clients over TLS must name their protocol. The reference's gRPC library has this variable.
    pub enforce_alpn: bool,
}

impl Surroundings {
    fn read(environment: impl Fn(&str) -> Option<String>) -> Self {
        let enforced = environment("GRPC_ENFORCE_ALPN_ENABLED");
        Self { enforce_alpn: !enforced.is_some_and(|value| value.eq_ignore_ascii_case("false")) }
    }
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
        Self::check(&options, Surroundings::read(environment), problems)
            .map_err(|problems| Exit::Refused(format!("failed to validate {} options with {problems}", Options::ROLE)))
    }

    /// Lowers the defaults that bound memory to what fits the limit, and says so.
    #[must_use]
    pub fn within(mut self, memory: MemoryLimit) -> Self {
        self.notices.extend(memory.fit(&mut self.quic, &mut self.effective));
        self
    }

    /// What the options mean.
    ///
    /// # Errors
    /// Everything that is wrong with them, and what was found before.
    pub fn check(options: &Options, surroundings: Surroundings, mut problems: Problems) -> Result<Self, Problems> {
        match Self::build(options, surroundings, &mut problems) {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// Makes every check before the first result is looked at.
    fn build(options: &Options, surroundings: Surroundings, problems: &mut Problems) -> Option<Self> {
        let mut notices = Vec::new();
        let terms = tls::check(options, surroundings, problems, &mut notices);
        let frontend = frontend::check(options, &terms, problems);
        let frontend_keepalive_time =
            check::duration(problems, "frontend-keepalive-time", options.frontend_keepalive_time).map(keep_alive);
        let agents = agents::check(options, &terms, problems);
        let server_id = server_id(&options.server_id, problems);
        let peers = peers::check(options, server_id.as_ref(), problems);
        let advertised = peers.as_ref().map(|peers| &peers.advertised[..]);
        let leases = leases::check(options, server_id.as_ref(), advertised, problems);
        let server_count = check::number(problems, "server-count", options.server_count, 1..=MOST_SERVERS);
        let strategies = strategies(&options.proxy_strategies.0, problems);
        let health_host = ("health-bind-address", options.health_bind_address.as_str());
        let health = listen(problems, health_host, ("health-port", options.health_port));
        let admin_host = ("admin-bind-address", options.admin_bind_address.as_str());
        let admin = listen(problems, admin_host, ("admin-port", options.admin_port));
        let graceful_shutdown_timeout =
            check::duration(problems, "graceful-shutdown-timeout", options.graceful_shutdown_timeout);
        let backend_dial_timeout = check::duration(problems, "backend-dial-timeout", options.backend_dial_timeout);
        let worker_threads = check::number(problems, "worker-threads", options.worker_threads, 0..=MOST_THREADS);
        let agent_rules = kubernetes::check(options, problems);
        check::channel_size(problems, options.xfr_channel_size);
        check::profiling(problems, options.enable_profiling, options.enable_contention_profiling);
        notices.extend(check::without_effect(problems, WITHOUT_EFFECT.iter().chain(&KlogOptions::WITHOUT_EFFECT)));
        notices.extend(options.klog.notice(problems));
        let quic = options.quic.settings(problems);
        let logging = options.klog.logging(problems, &options.log_level, &options.log_format);

        let server_id = server_id?;
        let (mode, frontend) = frontend?;
        let mut effective = problems.effective().clone();
        effective.set("server-id", server_id.to_string(), effective.origin("server-id"));
        Some(Self {
            server_id,
            server_count: server_count?,
            peers: peers?,
            strategies: strategies?,
            mode,
            frontend,
            frontend_keepalive_time: frontend_keepalive_time?,
            agents: agents?,
            agent_rules: agent_rules?,
            leases: leases?,
            health: health?,
            admin: admin?,
            profiling: options.enable_profiling,
            graceful_shutdown_timeout: graceful_shutdown_timeout?,
            backend_dial_timeout: Some(backend_dial_timeout?).filter(|limit| !limit.is_zero()),
            worker_threads: NonZeroUsize::new(worker_threads?).unwrap_or_else(cores),
            quic,
            logging: logging?,
            effective,
            notices,
        })
    }
}

fn listen(problems: &mut Problems, host: (&str, &str), port: (&'static str, i64)) -> Option<Listen> {
    let number = check::port(problems, port.0, port.1, REGISTERED_PORTS);
    check::listen(problems, host, port.0, number)
}

fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A keep-alive time as the reference's gRPC library understands it.
fn keep_alive(time: Duration) -> Duration {
    if time.is_zero() { KEEP_ALIVE_OF_ZERO } else { time.max(SHORTEST_KEEP_ALIVE) }
}

/// A random id when none was given: two servers must not have the same by mistake.
fn server_id(id: &str, problems: &mut Problems) -> Option<ServerId> {
    let id = if id.is_empty() { Uuid::new_v4().to_string() } else { id.to_owned() };
    match ServerId::new(id) {
        Ok(id) => Some(id),
        Err(error) => {
            problems.add("server-id", error, "set it to the server's host name, for instance");
            None
        }
    }
}

/// Empty names and repetitions are passed over, as in the reference.
fn strategies(names: &[String], problems: &mut Problems) -> Option<Vec<Strategy>> {
    const REMEDY: &str = "set --proxy-strategies to one or more of default, destHost, defaultRoute and leastLoaded, with \
                          commas, such as destHost,default";
    if names.is_empty() {
        problems.rule("proxy-strategies", "ProxyStrategies cannot be empty", "set --proxy-strategies=default");
        return None;
    }
    let mut strategies = Vec::with_capacity(names.len());
    for name in names.iter().filter(|name| !name.is_empty()) {
        match name.parse() {
            Ok(strategy) if strategies.contains(&strategy) => {}
            Ok(strategy) => strategies.push(strategy),
            Err(UnknownStrategy { name }) => {
                let reason = format!("invalid proxy strategies: unknown proxy strategy: {name}");
                problems.rule("proxy-strategies", reason, REMEDY);
            }
        }
    }
    if names.iter().all(String::is_empty) {
        let reason = "invalid proxy strategies: proxy strategies cannot be empty";
        problems.rule("proxy-strategies", reason, "set --proxy-strategies=default");
    }
    Some(strategies)
}

/// Both files of an end that cannot do without.
fn certificate(
    problems: &mut Problems,
    certificate: (&str, &str),
    key: (&str, &str),
    reason: &str,
) -> (Option<PathBuf>, Option<PathBuf>) {
    if certificate.1.is_empty() && key.1.is_empty() {
        let reason = format!("{} and {} must be set: {reason}", certificate.0, key.0);
        problems.add(certificate.0, reason, format_args!("set --{} and --{}", certificate.0, key.0));
    }
    check::pair(problems, certificate, key)
}

#[cfg(test)]
mod compatibility;
#[cfg(test)]
mod tests;
