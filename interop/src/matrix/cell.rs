//! What a scenario has in its hand: the programs of its column, clients of their front, and a place for notes.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::column::Column;
use super::fleet::Fleet;
use super::open::Open;
use crate::load::path::{Dial, DialError};
use crate::pair::http;
use crate::peer::Mode;
use crate::peer::namespace::Cable;

/// One try of many: so long it may take.
const TRY_WITHIN: Duration = Duration::from_secs(2);

/// How much is done in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// What fits into a few minutes for the whole matrix, with debug builds.
    Quick,
    /// Everything.
    Full,
}

/// A column and a scenario, while it runs.
#[derive(Debug)]
pub struct Cell {
    /// The programs.
    pub fleet: Fleet,
    /// How much is done.
    pub size: Size,
    /// The cable between server and agent, if that is what the scenario needs.
    pub cable: Option<Cable>,
    /// What the report is to show, whatever comes of the cell.
    pub notes: Vec<String>,
}

impl Cell {
    /// Which programs they are.
    pub fn column(&self) -> Column {
        self.fleet.column
    }

    /// What clients say to the front.
    pub fn mode(&self) -> Mode {
        self.fleet.column.front.mode()
    }

    /// Where targets listen.
    pub fn target_ip(&self) -> Ipv4Addr {
        self.fleet.site.server_ip
    }

    /// A client of the first server's front.
    ///
    /// # Errors
    /// When there is no server.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.fleet.client(0)
    }

    /// Dials a target through the first server.
    ///
    /// # Errors
    /// What the front answered.
    pub async fn dial(&self, target: &str) -> Result<Dial, DialError> {
        let client = self.client().map_err(|error| DialError::Io(std::io::Error::other(error)))?;
        client.dial(target).await
    }

    /// Dials a new target through the first server; both ends.
    ///
    /// # Errors
    /// When the dial fails or does not reach its target.
    pub async fn open(&self) -> anyhow::Result<Open> {
        Open::dial(&self.client()?, self.target_ip()).await
    }

    /// The same, so many times, each used once.
    ///
    /// # Errors
    /// The first dial that fails.
    pub async fn open_many(&self, count: usize) -> anyhow::Result<Vec<Open>> {
        let mut all = Vec::with_capacity(count);
        for number in 1..=count {
            let mut open = self.open().await.with_context(|| format!("dial {number} of {count}"))?;
            open.exchange().await.with_context(|| format!("dial {number} of {count}"))?;
            all.push(open);
        }
        Ok(all)
    }

    /// Dials through a server until it works; how long that took.
    ///
    /// # Errors
    /// What the last try met, when none has worked within `limit`.
    pub async fn served(&self, server: usize, limit: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let client = self.fleet.client(server)?;
            let tried = timeout(TRY_WITHIN, async {
                let mut open = Open::dial(&client, self.target_ip()).await?;
                open.exchange().await
            });
            let error = match tried.await {
                Ok(Ok(())) => return Ok(start.elapsed()),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("nothing within {TRY_WITHIN:?}"),
            };
            if start.elapsed() > limit {
                bail!("expected a dial to be served within {limit:?}, but the last try met: {error}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts what most scenarios need: a server and an agent, with arguments for each.
    ///
    /// # Errors
    /// When either is not ready in time; with the last lines of its log.
    pub async fn start_pair(&mut self, server: &[&str], agent: &[&str]) -> anyhow::Result<()> {
        self.fleet.start_server(server).await?;
        let agents = self.fleet.servers[0].agents;
        self.fleet.start_agent(agents, agent)?;
        self.fleet.ready().await?;
        // An agent says that it is ready a little before the server can use it.
        self.served(0, Duration::from_secs(5)).await?;
        Ok(())
    }

    /// Connections that an agent has over a carrier, `quic` or `grpc`, as its metrics say; none for a Go agent.
    ///
    /// # Errors
    /// When the agent's health port does not answer.
    pub async fn connections(&self, agent: usize, transport: &str) -> anyhow::Result<u64> {
        let health = self.fleet.agents.get(agent).context("the scenario has no such agent")?.health;
        let page = http::get(health, "/metrics").await?.body;
        let name = format!("konnectivity_network_proxy_agent_server_transport{{transport=\"{transport}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0");
        Ok(value.trim().parse::<f64>().with_context(|| format!("{name}{value}"))? as u64)
    }

    /// Puts a line into the report.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}
