//! A started agent.

use std::net::{IpAddr, SocketAddr};

use anyhow::bail;

use super::program::{self, Program};
use super::{STARTS, answers, file_flag, http};
use crate::certificates::Folder;
use crate::peer::ports;

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
    /// Starts an agent for the servers at `server`, over QUIC unless `more` says otherwise, and waits until its health
    /// port answers (it may have no server yet).
    ///
    /// # Errors
    /// When it cannot be found or started, ends, or does not answer in time; with its log.
    pub async fn start(
        certificates: &Folder,
        server: SocketAddr,
        host: IpAddr,
        more: &[String],
    ) -> anyhow::Result<Self> {
        // What is not said would be chosen, and on a busy machine not always alike.
        let more = [&["--transport=quic".to_owned()], more].concat();
        for _ in 0..STARTS {
            let mut agent = Self::spawn(certificates, server, host, &more)?;
            match answers(&mut agent.program, agent.health, "/healthz").await {
                Err(_) if agent.program.log().contains("in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(agent),
            }
        }
        bail!("{STARTS} times another process took a port of the agent")
    }

    /// Starts an agent without waiting for anything: for those that are to fail. It is told to use QUIC only, unless `more`
    /// says otherwise: where a machine is busy with other tests, some agents would begin over TCP.
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
            "--transport=quic".to_owned(),
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
