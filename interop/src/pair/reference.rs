//! The reference's agent, as built by `scripts/go-peers.sh`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::program::{self, Program};
use super::{POLL, Pair, READY_WITHIN, STARTS, answers, file_flag};
use crate::peer::ports;

/// A program of the reference.
///
/// # Errors
/// Says how to build it.
pub fn built(name: &str) -> anyhow::Result<PathBuf> {
    let ours = program::beside_this("proxy-server")?;
    let built = ours.ancestors().nth(2).map(|target| target.join("go").join(name)).filter(|path| path.is_file());
    built.with_context(|| format!("the reference's {name} is not built: run `scripts/go-peers.sh {name}` first"))
}

/// A started agent of the reference, which has no draining end: it is killed when this is dropped.
#[derive(Debug)]
pub struct ReferenceAgent {
    /// Its process.
    pub program: Program,
    /// The health port.
    pub health: SocketAddr,
}

impl ReferenceAgent {
    /// Starts an agent called `id` and waits until it is ready and the pair's server has it.
    ///
    /// # Errors
    /// When it is not built, cannot be started, ends, or is not ready in time; with its log.
    pub async fn join(pair: &Pair, id: &str, more: &[&str]) -> anyhow::Result<Self> {
        let before = pair.server.connections().await?.len();
        for _ in 0..STARTS {
            let mut agent = Self::spawn(pair, id, more)?;
            match answers(&mut agent.program, agent.health, "/readyz").await {
                Err(_) if agent.program.log().contains("in use") => continue,
                ready => ready?,
            }
            let deadline = Instant::now() + READY_WITHIN;
            while pair.server.connections().await?.len() <= before {
                if Instant::now() > deadline {
                    bail!("the server does not have {id} after {READY_WITHIN:?}\n{}", agent.program.log());
                }
                sleep(POLL).await;
            }
            return Ok(agent);
        }
        bail!("{STARTS} times another process took a port of the agent")
    }

    fn spawn(pair: &Pair, id: &str, more: &[&str]) -> anyhow::Result<Self> {
        let server = pair.server.agents;
        let [health, admin] = ports::free().map(|port| SocketAddr::new(server.ip(), port));
        let mut arguments = vec![
            format!("--proxy-server-host={}", server.ip()),
            format!("--proxy-server-port={}", server.port()),
            file_flag("ca-cert", &pair.certificates, "ca.crt"),
            file_flag("agent-cert", &pair.certificates, "agent.crt"),
            file_flag("agent-key", &pair.certificates, "agent.key"),
            format!("--health-server-host={}", server.ip()),
            format!("--health-server-port={}", health.port()),
            format!("--admin-server-port={}", admin.port()),
            format!("--agent-id={id}"),
            // It looks for its connection to be gone this often, and then connects anew.
            "--probe-interval=100ms".to_owned(),
            "--sync-interval=100ms".to_owned(),
            "--sync-interval-cap=200ms".to_owned(),
        ];
        arguments.extend(more.iter().map(|&text| text.to_owned()));
        let program = Program::start(id, &built("proxy-agent")?, arguments)?;
        Ok(Self { program, health })
    }
}
