//! A server in the cloud and an agent at a site, with an emulated link between them.
//!
//! ```text
//!  client -- Unix socket -- server == cloud's namespace == link == site's namespace == agent -- target
//! ```
//!
//! The client needs no network, and the target is a socket of this process that was made in the site's namespace. Links
//! do not know of each other: several tests may run at once.
//!
//! - [`traffic`]: dials that carry bytes while something happens to the link.

pub mod traffic;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::Client;
use super::http::{self, Reply};
use super::open::Open;
use super::program::{Program, beside_this};
use super::until;
use crate::certificates::Folder;
use crate::link::conditions::Conditions;
use crate::link::course::Course;
use crate::link::profile::{Direction, Profile};
use crate::link::{DEVICE, End, Link, netns};
use crate::peer::{Frontend, ports};

/// What a target's kernel keeps for it to be sent. With more, a transfer would have most of its bytes on the target's
/// side of the link when that is cut, and take long to end.
const TARGET_SEND_BUFFER: usize = 64 * 1024;

/// A link that is the same in both directions; `None`, with the reason printed, where none can be made.
///
/// # Panics
/// With impossible figures, or when the system refuses.
pub fn link(both: Conditions) -> Option<Link> {
    if let Err(why) = Link::possible() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    Some(Link::start(Profile::symmetric("test", Course::constant(both)), 7).expect("a link"))
}

/// Runs cases side by side. When the last has ended, fails as the first that has failed.
///
/// # Panics
/// As that did.
pub async fn side_by_side(cases: impl IntoIterator<Item = Case>) {
    let mut running: JoinSet<()> = cases.into_iter().collect();
    let mut failed = None;
    while let Some(ended) = running.join_next().await {
        failed = failed.or(ended.err());
    }
    if let Some(error) = failed {
        std::panic::resume_unwind(error.try_into_panic().expect("nobody ends a case"));
    }
}

/// What a test does with a link of its own.
pub type Case = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the two are to be; the default is what they are without a word from us.
#[derive(Debug, Clone, Default)]
pub struct Options {
    server: Vec<String>,
    agent: Vec<String>,
    chain: usize,
}

impl Options {
    /// Both show so many certificates besides their own, half a kilobyte each. Nobody needs them.
    #[must_use]
    pub fn longer_chains(self, more: usize) -> Self {
        Self { chain: more, ..self }
    }

    /// More arguments for both.
    #[must_use]
    pub fn both(self, arguments: &[&str]) -> Self {
        self.server(arguments).agent(arguments)
    }

    /// More arguments for the server.
    #[must_use]
    pub fn server(mut self, arguments: &[&str]) -> Self {
        self.server.extend(arguments.iter().map(|&text| text.to_owned()));
        self
    }

    /// More arguments for the agent.
    #[must_use]
    pub fn agent(mut self, arguments: &[&str]) -> Self {
        self.agent.extend(arguments.iter().map(|&text| text.to_owned()));
        self
    }
}

/// A server, an agent and what is between them; all of it is gone when this is dropped.
pub struct OverLink {
    /// The agent.
    pub agent: Program,
    /// The server.
    pub server: Program,
    /// What is between them.
    pub link: Link,
    client: Client,
    health: u16,
    admin: u16,
    _folder: TempDir,
}

impl OverLink {
    /// Starts both and waits for nothing.
    ///
    /// # Errors
    /// When a program cannot be found or run.
    pub fn start(link: Link, options: &Options) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let certificates = Folder::write(folder.path(), &[link.cloud().ipv4.to_string()])?;
        for own in ["server.crt", "agent.crt"] {
            let authority = fs::read_to_string(certificates.file("ca.crt"))?;
            let text = fs::read_to_string(certificates.file(own))? + &authority.repeat(options.chain);
            fs::write(certificates.file(own), text)?;
        }
        let [agents, health, admin] = ports::free();
        let socket = folder.path().join("frontend.sock");
        let server = [
            &[
                "--mode=http-connect".to_owned(),
                "--server-port=0".to_owned(),
                "--server-id=server-1".to_owned(),
                format!("--uds-name={}", socket.display()),
                format!("--agent-port={agents}"),
                format!("--health-port={health}"),
                format!("--admin-port={admin}"),
                super::file_flag("cluster-cert", &certificates, "server.crt"),
                super::file_flag("cluster-key", &certificates, "server.key"),
                super::file_flag("cluster-ca-cert", &certificates, "ca.crt"),
            ],
            &options.server[..],
        ]
        .concat();
        let server = spawn(link.cloud(), "proxy-server", server)?;
        let agent = [
            &[
                format!("--proxy-server-host={}", link.cloud().ipv4),
                format!("--proxy-server-port={agents}"),
                format!("--health-server-port={health}"),
                format!("--admin-server-port={admin}"),
                super::file_flag("ca-cert", &certificates, "ca.crt"),
                super::file_flag("agent-cert", &certificates, "agent.crt"),
                super::file_flag("agent-key", &certificates, "agent.key"),
                "--sync-interval=100ms".to_owned(),
                "--sync-interval-cap=1s".to_owned(),
            ],
            &options.agent[..],
        ]
        .concat();
        let agent = spawn(link.site(), "proxy-agent", agent)?;
        let client = Client::of(&Frontend::Unix(socket), &certificates)?;
        Ok(Self { agent, server, link, client, health, admin, _folder: folder })
    }

    /// The same, and waits until the agent is connected.
    ///
    /// # Errors
    /// As [`Self::start`].
    ///
    /// # Panics
    /// When it is not within `limit`.
    pub async fn connected(link: Link, options: &Options, limit: Duration) -> anyhow::Result<Self> {
        let pair = Self::start(link, options)?;
        pair.has_agent(limit).await;
        Ok(pair)
    }

    /// Waits until the server has exactly one connection of an agent.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn has_agent(&self, limit: Duration) {
        let one = async || self.connections(self.link.cloud()).await.is_ok_and(|all| all.len() == 1).then_some(());
        until("the server has an agent", limit, one).await;
    }

    /// A target that nobody else knows.
    ///
    /// # Errors
    /// When the namespace or the system refuses.
    pub fn target(&self) -> anyhow::Result<TcpListener> {
        let listen = || -> io::Result<std::net::TcpListener> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // Connections that it accepts have it, too.
            socket.set_send_buffer_size(TARGET_SEND_BUFFER)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            socket.listen(8)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        Ok(TcpListener::from_std(self.link.site().namespace.inside("listen", listen)?)?)
    }

    /// Dials a target of its own.
    ///
    /// # Errors
    /// When it is refused or has no answer within `limit`.
    pub async fn dial(&self, limit: Duration) -> anyhow::Result<Open> {
        Open::dial_within(limit, &self.client, &self.target()?).await
    }

    /// Dials until a dial is served; each may take a quarter of `limit`.
    ///
    /// # Panics
    /// When none is within `limit`.
    pub async fn served(&self, limit: Duration) -> Open {
        until("a dial is served", limit, async || {
            let mut open = self.dial(limit / 4).await.ok()?;
            open.exchange().await.ok().map(|()| open)
        })
        .await
    }

    /// Another link from now on, the same in both directions.
    ///
    /// # Errors
    /// With impossible figures.
    pub fn set(&self, both: Conditions) -> anyhow::Result<()> {
        for direction in Direction::BOTH {
            self.link.set(direction, Course::constant(both))?;
        }
        Ok(())
    }

    /// The site has another address from now on. With a `pause` its device is down meanwhile, for that long.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn readdress(&self, from: Ipv4Addr, to: Ipv4Addr, pause: Option<Duration>) -> anyhow::Result<()> {
        let site = &self.link.site().namespace;
        let run = |arguments: &[&str]| netns::ip(&[&["-n", site.name()], arguments].concat());
        // Else the kernel removes what was added to an address together with that.
        site.set("ipv4/conf/all/promote_secondaries", "1")?;
        if let Some(pause) = pause {
            run(&["link", "set", DEVICE, "down"])?;
            sleep(pause).await;
        }
        run(&["address", "add", &format!("{to}/24"), "dev", DEVICE])?;
        run(&["address", "del", &format!("{from}/24"), "dev", DEVICE])?;
        run(&["link", "set", DEVICE, "up"])?;
        Ok(())
    }

    /// What a health port says.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn health(&self, end: &End, path: &str) -> anyhow::Result<Reply> {
        get(end, self.health, path).await
    }

    /// The connections that one end knows.
    ///
    /// # Errors
    /// When it does not answer in time, or not with a JSON list.
    pub async fn connections(&self, end: &End) -> anyhow::Result<Vec<serde_json::Value>> {
        let reply = get(end, self.admin, "/connections").await?;
        serde_json::from_str(&reply.body).with_context(|| format!("not a JSON list: {}", reply.body))
    }

    /// Waits until neither end has an open dial, by its connections and by its metrics.
    ///
    /// # Panics
    /// When some stay.
    pub async fn has_no_dials(&self, limit: Duration) {
        let none = async || {
            let (cloud, site) = (self.link.cloud(), self.link.site());
            let mut connections = self.connections(cloud).await.ok()?;
            connections.extend(self.connections(site).await.ok()?);
            let server = self.health(cloud, "/metrics").await.ok()?.body;
            let agent = self.health(site, "/metrics").await.ok()?.body;
            let is_zero = |page: &str, name: &str| {
                let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                value.is_none_or(|value| value == "0")
            };
            let all = connections.iter().all(|connection| connection["open_dials"] == 0)
                && is_zero(&server, "konnectivity_network_proxy_server_established_connections")
                && is_zero(&server, "konnectivity_network_proxy_server_http_connections")
                && is_zero(&server, "konnectivity_network_proxy_server_pending_backend_dials")
                && is_zero(&agent, "konnectivity_network_proxy_agent_open_endpoint_connections");
            all.then_some(())
        };
        until("no dial is open at either end", limit, none).await;
    }
}

fn spawn(end: &End, name: &str, arguments: Vec<String>) -> anyhow::Result<Program> {
    let program = beside_this(name)?.display().to_string();
    // It becomes the program, so that signals reach that.
    let command = ["netns", "exec", end.namespace.name()].map(str::to_owned).into_iter().chain([program]);
    Program::start(name, Path::new("ip"), command.chain(arguments).collect())
}

async fn get(end: &End, port: u16, path: &str) -> anyhow::Result<Reply> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = end.namespace.inside("ask a program", || {
        let stream = StdStream::connect(address)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })?;
    http::get_over(TcpStream::from_std(stream)?, path).await
}
