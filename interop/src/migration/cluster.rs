//! Two servers behind one address and two agents. Each has a place with ports of its own, which stay when a program of
//! another make takes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::time::sleep;

use crate::matrix::balancer::Balancer;
use crate::matrix::client::Client;
use crate::matrix::column::{Front, Make};
use crate::matrix::fleet::{Site, answers};
use crate::pair::http;
use crate::peer::process::Process;
use crate::peer::{Frontend, Mode, ports};

/// What Kubernetes calls the grace period of a pod: behind it comes SIGKILL. (There it is 30 s.)
const GRACE: Duration = Duration::from_secs(6);

/// How long our programs let dials run on after SIGTERM. What is left of the grace period is for a busy machine.
const DRAIN: &str = "--graceful-shutdown-timeout=2s";

/// By then, every agent has found every server again.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A place in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One of the servers.
    Server(usize),
    /// One of the agents.
    Agent(usize),
}

impl Part {
    /// What people call it.
    pub fn name(self) -> String {
        match self {
            Self::Server(number) => format!("server {}", number + 1),
            Self::Agent(number) => format!("agent {}", number + 1),
        }
    }
}

/// A program in its place.
#[derive(Debug)]
struct Seat {
    make: Make,
    process: Process,
    health: SocketAddr,
    admin: u16,
}

/// What of a server stays when it is replaced.
#[derive(Debug)]
struct Door {
    socket: PathBuf,
    agents: SocketAddr,
}

/// The programs; all are killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    site: Site,
    front: Front,
    doors: Vec<Door>,
    servers: Vec<Seat>,
    agents: Vec<Seat>,
    balancer: Balancer,
    /// For their logs.
    gone: Vec<Process>,
}

impl Cluster {
    /// Starts the reference everywhere, and waits until it is whole.
    ///
    /// # Errors
    /// When a program does not start, or does not find the others in time.
    pub async fn start(site: Site, front: Front) -> anyhow::Result<Self> {
        let doors: Vec<_> = (1..=2)
            .map(|number| {
                let [agents] = ports::free();
                let socket = site.sockets.join(format!("server-{number}.sock"));
                Door { socket, agents: (Ipv4Addr::LOCALHOST, agents).into() }
            })
            .collect();
        let balancer = Balancer::start(doors.iter().map(|door| door.agents).collect()).await?;
        let mut cluster =
            Self { site, front, doors, servers: Vec::new(), agents: Vec::new(), balancer, gone: Vec::new() };
        for server in 0..2 {
            cluster.start_server(server, Make::Go).await?;
        }
        for agent in 0..2 {
            cluster.start_agent(agent, Make::Go)?;
        }
        cluster.whole().await?;
        Ok(cluster)
    }

    /// Starts a server in its place and waits until it serves; no agent may have found it yet.
    ///
    /// # Errors
    /// When it does not start, ends, or does not answer in time.
    pub async fn start_server(&mut self, number: usize, make: Make) -> anyhow::Result<()> {
        let (health, admin) = place(&self.servers, number);
        let (door, id) = (&self.doors[number], format!("server-{}", number + 1));
        let mut arguments = self.site.server_arguments(make, door.agents, health, admin, &id);
        arguments.extend([
            match self.front.mode() {
                Mode::Grpc => "--mode=grpc".to_owned(),
                Mode::HttpConnect => "--mode=http-connect".to_owned(),
            },
            format!("--uds-name={}", door.socket.display()),
            "--server-port=0".to_owned(),
            "--server-count=2".to_owned(),
        ]);
        if make == Make::Ours {
            arguments.push(DRAIN.to_owned());
        }
        let process = self.process(&id, self.site.programs.server(make), arguments)?;
        let seat = sit(&mut self.servers, number, Seat { make, process, health, admin }, &mut self.gone);
        answers(&mut seat.process, health, "/healthz").await
    }

    /// Starts an agent in its place, without waiting for anything.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_agent(&mut self, number: usize, make: Make) -> anyhow::Result<()> {
        let (health, admin) = place(&self.agents, number);
        let id = format!("agent-{}", number + 1);
        let mut arguments = self.site.agent_arguments(make, self.balancer.address, health, admin, &id);
        // A test has less patience than the defaults of one second and ten.
        arguments.extend(["--sync-interval=200ms", "--sync-interval-cap=1s"].map(str::to_owned));
        if make == Make::Ours {
            arguments.push(DRAIN.to_owned());
        }
        let process = self.process(&id, self.site.programs.agent(make), arguments)?;
        sit(&mut self.agents, number, Seat { make, process, health, admin }, &mut self.gone);
        Ok(())
    }

    fn process(&self, id: &str, program: PathBuf, arguments: Vec<String>) -> anyhow::Result<Process> {
        let name = format!("{:02}-{id}", self.servers.len() + self.agents.len() + self.gone.len() + 1);
        Process::start(&name, &program, arguments.into_iter(), &self.site.logs)
    }

    /// Ends a server as Kubernetes ends a pod.
    ///
    /// # Errors
    /// When it ends with an error.
    pub async fn stop_server(&mut self, number: usize) -> anyhow::Result<()> {
        end(&mut self.servers[number]).await
    }

    /// Ends an agent as Kubernetes ends a pod.
    ///
    /// # Errors
    /// When it ends with an error.
    pub async fn stop_agent(&mut self, number: usize) -> anyhow::Result<()> {
        end(&mut self.agents[number]).await
    }

    /// Waits until every server has both agents, which is what an operator has to wait for, too.
    ///
    /// # Errors
    /// When a program has ended, or it takes too long.
    pub async fn whole(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.alive()?;
            let mut missing = Vec::new();
            for (number, server) in self.servers.iter().enumerate() {
                let agents = gauge(server.health, "konnectivity_network_proxy_server_ready_backends").await;
                if agents != Some(2.0) {
                    missing.push(format!("server {} has {agents:?} of 2 agents", number + 1));
                }
            }
            for (number, agent) in self.agents.iter().enumerate() {
                let servers = gauge(agent.health, "konnectivity_network_proxy_agent_open_server_connections").await;
                if servers != Some(2.0) {
                    missing.push(format!("agent {} has {servers:?} of 2 servers", number + 1));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            if start.elapsed() > WHOLE_WITHIN {
                bail!("not whole within {WHOLE_WITHIN:?}: {}", missing.join(", "));
            }
            sleep(POLL).await;
        }
    }

    /// Checks that every program still runs.
    ///
    /// # Errors
    /// Names one that does not, with the last lines of its log.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        self.servers.iter_mut().chain(&mut self.agents).try_for_each(|seat| seat.process.check())
    }

    /// The clients of both servers.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn clients(&self) -> anyhow::Result<Vec<Client>> {
        let frontends = self.doors.iter().map(|door| Frontend::Unix(door.socket.clone()));
        frontends.map(|frontend| Client::of(self.front.mode(), &frontend, &self.site.certificates)).collect()
    }

    /// The agents' process ids.
    pub fn agent_ids(&self) -> Vec<u32> {
        self.agents.iter().map(|agent| agent.process.id()).collect()
    }

    /// What the agents speak to the servers: for each agent how many connections over which carrier.
    pub async fn carriers(&self) -> String {
        let mut all = Vec::new();
        for agent in &self.agents {
            all.push(match agent.make {
                Make::Go => "gRPC".to_owned(),
                Make::Ours => carriers(agent.health).await,
            });
        }
        all.join(", ")
    }

    /// Ends all programs, agents first.
    ///
    /// # Errors
    /// When one has panicked at any time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let seats = self.agents.drain(..).chain(self.servers.drain(..));
        let mut all: Vec<_> = seats.map(|seat| seat.process).collect();
        for process in &mut all {
            process.terminate().await;
        }
        for process in all.iter().chain(&self.gone) {
            if let Some(panic) = process.panic_since(0) {
                bail!("{} has panicked: {panic}{}", process.name(), process.last_log_lines());
            }
        }
        Ok(())
    }
}

/// The ports of a place: those of who sits there, or new ones.
fn place(seats: &[Seat], number: usize) -> (SocketAddr, u16) {
    match seats.get(number) {
        Some(seat) => (seat.health, seat.admin),
        None => {
            let [health, admin] = ports::free();
            ((Ipv4Addr::LOCALHOST, health).into(), admin)
        }
    }
}

fn sit<'a>(seats: &'a mut Vec<Seat>, number: usize, seat: Seat, gone: &mut Vec<Process>) -> &'a mut Seat {
    if number == seats.len() {
        seats.push(seat);
    } else {
        gone.push(std::mem::replace(&mut seats[number], seat).process);
    }
    &mut seats[number]
}

/// SIGTERM, the grace period, SIGKILL. Whoever ends by itself has to do so with success.
async fn end(seat: &mut Seat) -> anyhow::Result<()> {
    seat.process.signal(nix::sys::signal::Signal::SIGTERM)?;
    let start = Instant::now();
    while start.elapsed() < GRACE {
        if let Some(status) = seat.process.ended()? {
            let log = seat.process.last_log_lines();
            ensure!(status.success(), "{} has ended with {status}{log}", seat.process.name());
            return Ok(());
        }
        sleep(POLL).await;
    }
    // The reference's agent waits for this, and so does its server while a dial lives.
    ensure!(seat.make == Make::Go, "{} still runs after the grace period", seat.process.name());
    seat.process.kill();
    Ok(())
}

async fn gauge(health: SocketAddr, name: &str) -> Option<f64> {
    let page = http::get(health, "/metrics").await.ok()?.body;
    let samples = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Option<Vec<f64>> = samples.map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    values.filter(|values| !values.is_empty()).map(|values| values.iter().sum())
}

async fn carriers(health: SocketAddr) -> String {
    let count = async |transport: &str| {
        let page = http::get(health, "/metrics").await.context("no metrics")?.body;
        let name = format!("konnectivity_network_proxy_agent_server_transport{{transport=\"{transport}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0");
        anyhow::Ok(value.trim().parse::<f64>()?)
    };
    let mut spoken = Vec::new();
    for (transport, name) in [("quic", "QUIC"), ("grpc", "gRPC")] {
        if count(transport).await.is_ok_and(|connections| connections > 0.0) {
            spoken.push(name);
        }
    }
    if spoken.is_empty() { "?".to_owned() } else { spoken.join(" and ") }
}
