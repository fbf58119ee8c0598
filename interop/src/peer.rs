//! Starts a server and an agent of any make as real processes, joined and ready, and stops them by their ids.
//!
//! - [`process`]: one program: its log, whether it still runs, how it is stopped, what it uses.
//! - [`ports`]: numbers that nobody listens on.
//! - [`namespace`]: two networks with a cable between them, through which UDP can be blocked.

pub mod namespace;
pub mod ports;
pub mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::certificates::Folder;
use crate::link::netns;
use process::Process;

/// A pair that is not ready by then has failed.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// The programs of one make, and what they are told beyond what every pair is told.
#[derive(Debug, Clone)]
pub struct Make {
    /// How files and messages call it.
    pub name: String,
    /// The `proxy-server` program.
    pub server: PathBuf,
    /// The `proxy-agent` program.
    pub agent: PathBuf,
    /// More arguments for the server.
    pub server_args: Vec<String>,
    /// More arguments for the agent.
    pub agent_args: Vec<String>,
}

/// What clients say to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// HTTP CONNECT.
    HttpConnect,
    /// gRPC.
    Grpc,
}

/// How clients reach the server, whatever they say to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// A Unix socket.
    Unix,
    /// TCP with mutual TLS.
    MutualTls,
}

/// Where the frontend of a running pair is.
#[derive(Debug, Clone)]
pub enum Frontend {
    /// The path of the Unix socket.
    Unix(PathBuf),
    /// The address that expects the client certificate of the pair's [`Folder`].
    MutualTls(SocketAddr),
}

/// Where a pair's programs run. The server is where the caller is.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where the server listens for agents; its certificate must name it.
    pub server: Ipv4Addr,
    /// The network namespace of the agent, if it is another than the caller's.
    pub agent: Option<String>,
}

impl Places {
    /// Both on this machine, by loopback.
    pub const LOOPBACK: Self = Self { server: Ipv4Addr::LOCALHOST, agent: None };
}

/// One server and one agent, joined; both are killed when this is dropped.
#[derive(Debug)]
pub struct Pair {
    /// The server's process.
    pub server: Process,
    /// The agent's process.
    pub agent: Process,
    /// Where clients dial.
    pub frontend: Frontend,
    name: String,
}

impl Pair {
    /// Starts both programs on loopback with logs and socket in `folder`, and waits until both say that they are ready.
    ///
    /// # Errors
    /// A program that cannot be started, that ends, or that is not ready in time; with the last lines of its log.
    ///
    /// # Cancel safety
    /// Dropping the future kills what was started.
    pub async fn start(
        make: &Make,
        (mode, entrance): (Mode, Entrance),
        certificates: &Folder,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        Self::start_at(&Places::LOOPBACK, make, (mode, entrance), certificates, folder).await
    }

    /// The same elsewhere. The server's health is asked for on loopback where the caller is, the agent's on loopback in
    /// its namespace.
    ///
    /// # Errors
    /// As [`Self::start`].
    ///
    /// # Cancel safety
    /// As [`Self::start`].
    pub async fn start_at(
        places: &Places,
        make: &Make,
        (mode, entrance): (Mode, Entrance),
        certificates: &Folder,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let [agent_port, server_health, agent_health] = ports::free();
        let (frontend, frontend_args) = frontend(entrance, &make.name, certificates, folder);
        let server_args = server_arguments(mode, certificates, (places.server, agent_port), server_health).into_iter();
        let server_args = server_args.chain(frontend_args);
        let mut server = Process::start(
            &format!("{}-server", make.name),
            &make.server,
            server_args.chain(make.server_args.iter().cloned()),
            folder,
        )?;
        // An agent that finds no server waits a second before its next try.
        ready(&mut server, None, server_health, "/healthz").await?;
        let agent_args = agent_arguments(certificates, (places.server, agent_port), agent_health).into_iter();
        let agent_args = agent_args.chain(make.agent_args.iter().cloned());
        let name = format!("{}-agent", make.name);
        let mut agent = Process::start_in(places.agent.as_deref(), &name, &make.agent, agent_args, folder)?;
        ready(&mut agent, places.agent.as_deref(), agent_health, "/readyz").await?;
        ready(&mut server, None, server_health, "/readyz").await?;
        Ok(Self { server, agent, frontend, name: make.name.clone() })
    }

    /// Checks that both processes still run.
    ///
    /// # Errors
    /// Names the one that ended and shows the last lines of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.agent.check()?;
        self.server.check()
    }

    /// CPU time that both processes have used since they were started.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(self.server.cpu()? + self.agent.cpu()?)
    }

    /// Stops the agent, then the server; kills what does not end.
    pub async fn stop(self) {
        self.agent.stop().await;
        self.server.stop().await;
    }

    /// The name of the make.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn frontend(entrance: Entrance, name: &str, certificates: &Folder, folder: &Path) -> (Frontend, Vec<String>) {
    match entrance {
        Entrance::Unix => {
            let path = folder.join(format!("{name}.sock"));
            let args = vec![format!("--uds-name={}", path.display()), "--server-port=0".to_owned()];
            (Frontend::Unix(path), args)
        }
        Entrance::MutualTls => {
            let [port] = ports::free();
            let args = vec![
                format!("--server-port={port}"),
                "--server-bind-address=127.0.0.1".to_owned(),
                file_flag("server-cert", certificates, "server.crt"),
                file_flag("server-key", certificates, "server.key"),
                file_flag("server-ca-cert", certificates, "ca.crt"),
            ];
            (Frontend::MutualTls((Ipv4Addr::LOCALHOST, port).into()), args)
        }
    }
}

fn server_arguments(
    mode: Mode,
    certificates: &Folder,
    (address, port): (Ipv4Addr, u16),
    health_port: u16,
) -> Vec<String> {
    let [admin_port] = ports::free();
    vec![
        match mode {
            Mode::HttpConnect => "--mode=http-connect".to_owned(),
            Mode::Grpc => "--mode=grpc".to_owned(),
        },
        file_flag("cluster-cert", certificates, "server.crt"),
        file_flag("cluster-key", certificates, "server.key"),
        file_flag("cluster-ca-cert", certificates, "ca.crt"),
        format!("--agent-bind-address={address}"),
        format!("--agent-port={port}"),
        "--admin-bind-address=127.0.0.1".to_owned(),
        format!("--admin-port={admin_port}"),
        "--health-bind-address=127.0.0.1".to_owned(),
        format!("--health-port={health_port}"),
        "--server-id=server-1".to_owned(),
        "--server-count=1".to_owned(),
    ]
}

fn agent_arguments(certificates: &Folder, (address, port): (Ipv4Addr, u16), health_port: u16) -> Vec<String> {
    let [admin_port] = ports::free();
    vec![
        format!("--proxy-server-host={address}"),
        format!("--proxy-server-port={port}"),
        file_flag("ca-cert", certificates, "ca.crt"),
        file_flag("agent-cert", certificates, "agent.crt"),
        file_flag("agent-key", certificates, "agent.key"),
        "--agent-id=agent-1".to_owned(),
        "--health-server-host=127.0.0.1".to_owned(),
        format!("--health-server-port={health_port}"),
        format!("--admin-server-port={admin_port}"),
    ]
}

fn file_flag(flag: &str, certificates: &Folder, file: &str) -> String {
    format!("--{flag}={}", certificates.file(file).display())
}

/// Asks until the answer is 200, the process ends, or the time is over.
async fn ready(process: &mut Process, namespace: Option<&str>, port: u16, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        process.check()?;
        let last = match timeout(Duration::from_secs(1), status(namespace, port, path)).await {
            Ok(Ok(200)) => return Ok(()),
            Ok(Ok(status)) => format!("it answered {status}"),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer for a second".to_owned(),
        };
        if Instant::now() > deadline {
            bail!(
                "{} is not ready after {READY_WITHIN:?} ({path} on port {port}: {last}){}",
                process.name(),
                process.last_log_lines()
            );
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn status(namespace: Option<&str>, port: u16, path: &str) -> anyhow::Result<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = match namespace {
        None => TcpStream::connect(address).await?,
        Some(name) => {
            let stream = netns::inside(name, "connect", || {
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            });
            TcpStream::from_std(stream?)?
        }
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.take(64 * 1024).read_to_string(&mut reply).await?;
    let code = reply.split(' ').nth(1).context("not an HTTP reply")?;
    code.parse().with_context(|| format!("not a status: {code:?}"))
}
