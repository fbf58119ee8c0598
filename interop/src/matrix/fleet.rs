//! The servers and agents of a cell: real processes of either make, started, restarted and killed at will.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::column::{Carrier, Column, Make};
use super::programs::{self, Programs};
use crate::certificates::Folder;
use crate::pair::http;
use crate::peer::process::Process;
use crate::peer::{Entrance, Frontend, Mode, ports};

/// A program that is not ready by then has failed.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Starts are repeated with other ports when another process took one in between.
const STARTS: usize = 4;

/// Where programs run, and what they all need.
#[derive(Debug, Clone)]
pub struct Site {
    /// The executables.
    pub programs: Programs,
    /// Everyone's certificates.
    pub certificates: Folder,
    /// A folder for Unix sockets; its path is short, as theirs must be.
    pub sockets: PathBuf,
    /// A folder for logs.
    pub logs: PathBuf,
    /// Where servers listen for agents, and where targets are.
    pub server_ip: Ipv4Addr,
    /// Where agents listen for probes.
    pub agent_ip: Ipv4Addr,
    /// The program and its first arguments by which agents are started, if they are elsewhere.
    pub agent_prefix: Vec<String>,
}

/// A started server.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where clients dial.
    pub frontend: Frontend,
    /// Where agents connect to.
    pub agents: SocketAddr,
    /// The health port.
    pub health: SocketAddr,
}

/// A started agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Process,
    /// Who made it.
    pub make: Make,
    /// The health port.
    pub health: SocketAddr,
}

/// The programs of a cell; all are killed when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// Which programs they are.
    pub column: Column,
    /// Where they run.
    pub site: Site,
    /// Servers that run.
    pub servers: Vec<Server>,
    /// Agents that run.
    pub agents: Vec<Agent>,
    /// Programs that have been told to end, for the sake of their logs.
    pub gone: Vec<Process>,
}

impl Fleet {
    /// Nothing runs yet.
    pub fn new(column: Column, site: Site) -> Self {
        Self { column, site, servers: Vec::new(), agents: Vec::new(), gone: Vec::new() }
    }

    /// Starts a server with these arguments besides, and waits until it serves; it has no agent yet.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer in time; with the last lines of its log.
    pub async fn start_server(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let transport = self.column.pairing.carrier;
        self.start_server_for(transport, more).await
    }

    /// The same for agents that speak this, and not what the column says.
    ///
    /// # Errors
    /// As [`Self::start_server`].
    pub async fn start_server_for(&mut self, transport: Carrier, more: &[&str]) -> anyhow::Result<()> {
        let make = self.column.pairing.server;
        // A Go agent cannot be told what to speak, and our server is as it is by default.
        let told = make == Make::Ours && self.column.pairing.agent == Make::Ours;
        for _ in 0..STARTS {
            let name = format!("server-{}", self.servers.len() + 1);
            let [front, agents, health, admin] = ports::free();
            let agents = SocketAddr::from((self.site.server_ip, agents));
            let health = SocketAddr::from((Ipv4Addr::LOCALHOST, health));
            let (frontend, mut arguments) = self.frontend(front);
            arguments.extend(self.site.server_arguments(make, agents, health, admin, &name));
            if told {
                arguments.push(programs::transport(transport));
            }
            arguments.extend(more.iter().map(|&argument| argument.to_owned()));
            let program = self.site.programs.server(make);
            let log = self.unique(&name);
            let mut process = Process::start(&log, &program, arguments.into_iter(), &self.site.logs)?;
            match answers(&mut process, health, "/healthz").await {
                Err(_) if port_taken(&process) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.servers.push(Server { process, frontend, agents, health });
                    return Ok(());
                }
            }
        }
        bail!("{STARTS} times another process took a port of the server")
    }

    /// Starts an agent of the column with these arguments besides, without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, servers: SocketAddr, more: &[&str]) -> anyhow::Result<()> {
        let pairing = self.column.pairing;
        self.start_agent_of(pairing.agent, pairing.carrier, servers, more)
    }

    /// Starts an agent of any make.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent_of(
        &mut self,
        make: Make,
        transport: Carrier,
        servers: SocketAddr,
        more: &[&str],
    ) -> anyhow::Result<()> {
        let name = format!("agent-{}", self.agents.len() + 1);
        let [health, admin] = ports::free();
        let health = SocketAddr::from((self.site.agent_ip, health));
        let mut arguments = self.site.agent_arguments(make, servers, health, admin, &name);
        if make == Make::Ours {
            arguments.push(programs::transport(transport));
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let program = self.site.programs.agent(make).display().to_string();
        let mut command = self.site.agent_prefix.iter().cloned().chain([program]).chain(arguments);
        let program = command.next().context("a command has a program")?;
        let log = self.unique(&name);
        let process = Process::start(&log, Path::new(&program), command, &self.site.logs)?;
        self.agents.push(Agent { process, make, health });
        Ok(())
    }

    /// A name for a log that no other program of this folder has.
    fn unique(&self, name: &str) -> String {
        let names = (1..).map(|n| if n == 1 { name.to_owned() } else { format!("{name}-take-{n}") });
        let is_free = |name: &String| !self.site.logs.join(format!("{name}.log")).exists();
        names.into_iter().find(is_free).unwrap_or_else(|| name.to_owned())
    }

    /// Waits until every agent says that it is ready, and every server too.
    ///
    /// # Errors
    /// When a program ends, or is not ready in time; with the last lines of its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for agent in &mut self.agents {
            answers(&mut agent.process, agent.health, "/readyz").await?;
        }
        for server in &mut self.servers {
            answers(&mut server.process, server.health, "/readyz").await?;
        }
        Ok(())
    }

    /// A client of a server's front.
    ///
    /// # Errors
    /// When there is no such server, or the client's certificate cannot be used.
    pub fn client(&self, server: usize) -> anyhow::Result<Client> {
        let server = self.servers.get(server).context("the scenario has no such server")?;
        Client::of(self.column.front.mode(), &server.frontend, &self.site.certificates)
    }

    /// Checks that every program still runs.
    ///
    /// # Errors
    /// Names the first one that ended, with the last lines of its log.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        self.agents.iter_mut().try_for_each(|agent| agent.process.check())?;
        self.servers.iter_mut().try_for_each(|server| server.process.check())
    }

    /// Ends all programs as an operator does, agents first. How they took it, [`Self::unharmed`] tells.
    pub async fn stop(&mut self) {
        let agents = self.agents.drain(..).map(|agent| agent.process);
        let all: Vec<_> = agents.chain(self.servers.drain(..).map(|server| server.process)).collect();
        for mut process in all {
            process.terminate().await;
            self.gone.push(process);
        }
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        let agents = self.agents.iter().map(|agent| &agent.process);
        self.servers.iter().map(|server| &server.process).chain(agents).chain(&self.gone)
    }

    fn frontend(&self, port: u16) -> (Frontend, Vec<String>) {
        let mode = match self.column.front.mode() {
            Mode::Grpc => "--mode=grpc".to_owned(),
            Mode::HttpConnect => "--mode=http-connect".to_owned(),
        };
        match self.column.front.entrance() {
            Entrance::Unix => {
                let path = self.site.sockets.join(format!("{port}.sock"));
                let arguments = vec![mode, format!("--uds-name={}", path.display()), "--server-port=0".to_owned()];
                (Frontend::Unix(path), arguments)
            }
            Entrance::MutualTls => {
                let arguments = vec![
                    mode,
                    format!("--server-port={port}"),
                    "--server-bind-address=127.0.0.1".to_owned(),
                    self.site.file("server-cert", "server.crt"),
                    self.site.file("server-key", "server.key"),
                    self.site.file("server-ca-cert", "ca.crt"),
                ];
                (Frontend::MutualTls((Ipv4Addr::LOCALHOST, port).into()), arguments)
            }
        }
    }
}

/// Asks until the answer is 200, the process ends, or the time is over.
///
/// # Errors
/// Says what the last answer was, with the last lines of the process's log.
pub async fn answers(process: &mut Process, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        process.check()?;
        let last = match http::get(address, path).await {
            Ok(reply) if reply.status == 200 => return Ok(()),
            Ok(reply) => format!("{} {}", reply.status, reply.body),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            let log = process.last_log_lines();
            bail!("{} does not answer {path} with 200 within {READY_WITHIN:?} but {last}{log}", process.name());
        }
        sleep(POLL).await;
    }
}

fn port_taken(process: &Process) -> bool {
    fs::read_to_string(process.log()).is_ok_and(|log| log.contains("in use"))
}
