//! A real server with real agents for end-to-end tests: free ports, new certificates, joined and ready.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use konnectivity_interop::pair::{Options, Pair};
//! let pair = Pair::start(Options::unix().agent(["--dial-timeout=1s"])).await?;
//! let dial = pair.dial("127.0.0.1:80").await?;
//! # Ok(()) }
//! ```
//!
//! The programs are those of the same build, found beside the test's own executable. What they log is kept in memory
//! and shown when a test fails. Nothing outlives the [`Pair`].
//!
//! - [`program`]: one program: its log, its end, signals to it.
//! - [`client`]: clients of a frontend, with every byte in their hand.
//! - [`open`]: an established dial with both its ends.
//! - [`balancer`]: one UDP address for several servers.
//! - [`http`]: the health and admin ports.
//! - [`raw`]: QUIC peers that do what they should not.
//! - [`until`](fn@until): waits for a condition.

pub mod balancer;
pub mod client;
pub mod http;
pub mod open;
pub mod program;
pub mod raw;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::certificates::Folder;
use crate::load::path::{Dial, DialError};
use crate::peer::{Entrance, Frontend, ports};
use client::Client;
use program::Program;

/// A program that is not ready by then has failed. Machines that run many tests at once are slow.
pub const READY_WITHIN: Duration = Duration::from_secs(20);

/// Starts are repeated with other ports when another process took one in between.
const STARTS: usize = 5;

/// How a [`Pair`] is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// How clients reach the server.
    pub entrance: Entrance,
    /// Where everything listens: 127.0.0.1, or ::1.
    pub host: IpAddr,
    /// More arguments for the server. A flag that is there already is replaced.
    pub server: Vec<String>,
    /// One agent for each, with these arguments besides. They are called `agent-1`, `agent-2` and so on.
    pub agents: Vec<Vec<String>>,
    /// More arguments for all agents.
    pub every_agent: Vec<String>,
}

impl Options {
    /// A frontend on a Unix socket, and one agent.
    pub fn unix() -> Self {
        Self {
            entrance: Entrance::Unix,
            host: Ipv4Addr::LOCALHOST.into(),
            server: Vec::new(),
            agents: vec![Vec::new()],
            every_agent: Vec::new(),
        }
    }

    /// A frontend on TCP with mutual TLS, and one agent.
    pub fn mutual_tls() -> Self {
        Self { entrance: Entrance::MutualTls, ..Self::unix() }
    }

    /// More arguments for the server.
    #[must_use]
    pub fn server<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.server.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// More arguments for every agent.
    #[must_use]
    pub fn agent<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.every_agent.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// One agent for each list of arguments; none at all for an empty list.
    #[must_use]
    pub fn agents<const N: usize>(mut self, agents: [&[&str]; N]) -> Self {
        self.agents = agents.iter().map(|arguments| arguments.iter().map(|&text| text.to_owned()).collect()).collect();
        self
    }

    /// Listens on this address instead of 127.0.0.1.
    #[must_use]
    pub fn host(mut self, host: impl Into<IpAddr>) -> Self {
        self.host = host.into();
        self
    }
}

/// A server and its agents; all are killed when this is dropped.
#[derive(Debug)]
pub struct Pair {
    /// The server.
    pub server: Server,
    /// The agents, in the order of [`Options::agents`].
    pub agents: Vec<Agent>,
    /// The certificates that all of them use.
    pub certificates: Folder,
    /// Where certificates and the Unix socket are. Last, so that it goes when the programs have gone.
    pub folder: TempDir,
}

impl Pair {
    /// Starts everything and waits until the server has all its agents and all say that they are ready.
    ///
    /// # Errors
    /// A program that cannot be found or started, that ends, or that is not ready in time; with its log.
    ///
    /// # Cancel safety
    /// Dropping the future kills what was started.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("konnectivity-test-").tempdir().context("no temporary folder")?;
        let certificates = Folder::write(folder.path(), &[])?;
        let server =
            Server::start(&certificates, folder.path(), options.entrance, options.host, &options.server).await?;
        let mut agents = Vec::new();
        for (place, own) in options.agents.iter().enumerate() {
            let id = format!("--agent-id=agent-{}", place + 1);
            let arguments: Vec<_> = [id].iter().chain(&options.every_agent).chain(own).cloned().collect();
            let mut agent = Agent::start(&certificates, server.agents, options.host, &arguments).await?;
            // One after the other: the server numbers connections in this order.
            agent.ready().await?;
            agents.push(agent);
        }
        let mut pair = Self { server, agents, certificates, folder };
        pair.ready().await?;
        Ok(pair)
    }

    /// Waits until the server has all agents and all say that they are ready.
    ///
    /// # Errors
    /// When a program ends or the time is over; with its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for agent in &mut self.agents {
            agent.ready().await?;
        }
        if !self.agents.is_empty() {
            answers(&mut self.server.program, self.server.health, "/readyz").await?;
        }
        let expected = self.agents.len();
        let deadline = Instant::now() + READY_WITHIN;
        while self.server.connections().await?.len() < expected {
            if Instant::now() > deadline {
                bail!("the server has not {expected} agents after {READY_WITHIN:?}\n{}", self.server.program.log());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Clients of the frontend.
    ///
    /// # Errors
    /// When the client's certificate cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::of(&self.server.frontend, &self.certificates)
    }

    /// Dials a target through the tunnel, by HTTP CONNECT.
    ///
    /// # Errors
    /// [`DialError::Refused`] has the whole reply of the frontend.
    pub async fn dial(&self, target: &str) -> Result<Dial, DialError> {
        let client = self.client().map_err(|error| DialError::Io(std::io::Error::other(error)))?;
        client.dial(target).await
    }
}

/// A started server.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub program: Program,
    /// Where clients dial.
    pub frontend: Frontend,
    /// The UDP port for agents.
    pub agents: SocketAddr,
    /// The health port.
    pub health: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
}

impl Server {
    /// Starts a server with its socket in `folder` and waits until it serves (it may have no agent yet).
    ///
    /// # Errors
    /// When it cannot be found or started, ends, or does not answer in time; with its log.
    pub async fn start(
        certificates: &Folder,
        folder: &Path,
        entrance: Entrance,
        host: IpAddr,
        more: &[String],
    ) -> anyhow::Result<Self> {
        for _ in 0..STARTS {
            let mut server = Self::spawn(certificates, folder, entrance, host, more)?;
            match answers(&mut server.program, server.health, "/healthz").await {
                Err(_) if server.program.log().contains("in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
        bail!("{STARTS} times another process took a port of the server")
    }

    /// Starts a server without waiting for anything: for those that are to fail.
    ///
    /// # Errors
    /// When it cannot be found or run.
    pub fn spawn(
        certificates: &Folder,
        folder: &Path,
        entrance: Entrance,
        host: IpAddr,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let [frontend, agents, health, admin] = ports::free().map(|port| SocketAddr::new(host, port));
        let (frontend, mut arguments) = match entrance {
            Entrance::Unix => {
                let path = folder.join(format!("{}.sock", frontend.port()));
                let arguments = vec![format!("--uds-name={}", path.display()), "--server-port=0".to_owned()];
                (Frontend::Unix(path), arguments)
            }
            Entrance::MutualTls => (Frontend::MutualTls(frontend), tcp_arguments(certificates, frontend)),
        };
        arguments.extend([
            "--mode=http-connect".to_owned(),
            file_flag("cluster-cert", certificates, "server.crt"),
            file_flag("cluster-key", certificates, "server.key"),
            file_flag("cluster-ca-cert", certificates, "ca.crt"),
            format!("--agent-bind-address={host}"),
            format!("--agent-port={}", agents.port()),
            format!("--health-bind-address={host}"),
            format!("--health-port={}", health.port()),
            format!("--admin-bind-address={host}"),
            format!("--admin-port={}", admin.port()),
            "--server-id=server-1".to_owned(),
            "--server-count=1".to_owned(),
        ]);
        arguments.extend_from_slice(more);
        let program = Program::start("proxy-server", &program::beside_this("proxy-server")?, arguments)?;
        Ok(Self { program, frontend, agents, health, admin })
    }

    /// Waits until it serves, after a restart.
    ///
    /// # Errors
    /// When it ends or does not answer in time.
    pub async fn serves(&mut self) -> anyhow::Result<()> {
        answers(&mut self.program, self.health, "/healthz").await
    }

    /// Its agents' connections, as the admin port shows them.
    ///
    /// # Errors
    /// When it does not answer, or not with a JSON list.
    pub async fn connections(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        http::connections(self.admin).await
    }
}

fn tcp_arguments(certificates: &Folder, address: SocketAddr) -> Vec<String> {
    vec![
        format!("--server-bind-address={}", address.ip()),
        format!("--server-port={}", address.port()),
        file_flag("server-cert", certificates, "server.crt"),
        file_flag("server-key", certificates, "server.key"),
        file_flag("server-ca-cert", certificates, "ca.crt"),
    ]
}

/// A started agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub program: Program,
    /// The health port.
    pub health: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
}

impl Agent {
    /// Starts an agent for the servers at `server`, and waits until its health port answers (it may have no server
    /// yet).
    ///
    /// # Errors
    /// When it cannot be found or started, ends, or does not answer in time; with its log.
    pub async fn start(
        certificates: &Folder,
        server: SocketAddr,
        host: IpAddr,
        more: &[String],
    ) -> anyhow::Result<Self> {
        for _ in 0..STARTS {
            let mut agent = Self::spawn(certificates, server, host, more)?;
            match answers(&mut agent.program, agent.health, "/healthz").await {
                Err(_) if agent.program.log().contains("in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(agent),
            }
        }
        bail!("{STARTS} times another process took a port of the agent")
    }

    /// Starts an agent without waiting for anything: for those that are to fail.
    ///
    /// # Errors
    /// When it cannot be found or run.
    pub fn spawn(certificates: &Folder, server: SocketAddr, host: IpAddr, more: &[String]) -> anyhow::Result<Self> {
        let [health, admin] = ports::free().map(|port| SocketAddr::new(host, port));
        let mut arguments = vec![
            format!("--proxy-server-host={}", server.ip()),
            format!("--proxy-server-port={}", server.port()),
            file_flag("ca-cert", certificates, "ca.crt"),
            file_flag("agent-cert", certificates, "agent.crt"),
            file_flag("agent-key", certificates, "agent.key"),
            format!("--health-server-host={host}"),
            format!("--health-server-port={}", health.port()),
            format!("--admin-bind-address={host}"),
            format!("--admin-server-port={}", admin.port()),
        ];
        arguments.extend_from_slice(more);
        let program = Program::start("proxy-agent", &program::beside_this("proxy-agent")?, arguments)?;
        Ok(Self { program, health, admin })
    }

    /// Waits until it has a server.
    ///
    /// # Errors
    /// When it ends or is not ready in time; with its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        answers(&mut self.program, self.health, "/readyz").await
    }

    /// Its connections, as the admin port shows them.
    ///
    /// # Errors
    /// When it does not answer, or not with a JSON list.
    pub async fn connections(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        http::connections(self.admin).await
    }
}

fn file_flag(flag: &str, certificates: &Folder, file: &str) -> String {
    format!("--{flag}={}", certificates.file(file).display())
}

/// Asks until the answer is 200, the program ends, or the time is over.
async fn answers(program: &mut Program, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if let Some(status) = program.status()? {
            bail!("{} ended: {status}\n{}", program.name(), program.log());
        }
        let last = match http::get(address, path).await {
            Ok(reply) if reply.status == 200 => return Ok(()),
            Ok(reply) => format!("{} {}", reply.status, reply.body),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("{} does not answer {path} with 200 but with {last}\n{}", program.name(), program.log());
        }
        sleep(POLL).await;
    }
}

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Looks until there is a value, and returns it.
///
/// # Panics
/// When there is none within `limit`, with `what` was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(POLL).await;
    }
}
