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
//! - [`grpc`]: clients of the gRPC frontend, down to single frames.
//! - [`open`]: an established dial with both its ends.
//! - [`over_link`]: a server and an agent with a bad link between them.
//! - [`bare`]: QUIC peers that send what no library would.
//! - [`balancer`]: one UDP address for several servers.
//! - [`http`]: the health and admin ports.
//! - [`mount`]: certificates in a folder as a kubelet mounts secrets, for rotation.
//! - [`mod@reference`]: the agent of the Go reference.
//! - [`raw`]: QUIC peers that do what they should not.
//! - [`until`](fn@until): waits for a condition.

mod agent;
pub mod balancer;
pub mod bare;
pub mod client;
pub mod grpc;
pub mod http;
pub mod mount;
pub mod open;
pub mod over_link;
pub mod program;
pub mod raw;
pub mod reference;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::certificates::Folder;
use crate::load::path::{Dial, DialError};
use crate::peer::Entrance;
pub use agent::Agent;
use client::Client;
use program::Program;
pub use server::Server;

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

    /// The frontend speaks gRPC instead of HTTP CONNECT.
    #[must_use]
    pub fn grpc(self) -> Self {
        self.server(["--mode=grpc"])
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
