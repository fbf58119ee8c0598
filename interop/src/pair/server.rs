//! A started server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::bail;

use super::program::{self, Program};
use super::{STARTS, answers, file_flag, http};
use crate::certificates::Folder;
use crate::peer::{Entrance, Frontend, ports};

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

    /// Starts the reference's server in the same way. Its admin port has no list of connections.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_reference(
        certificates: &Folder,
        folder: &Path,
        entrance: Entrance,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let path = super::reference::built("proxy-server")?;
        for _ in 0..STARTS {
            let host = Ipv4Addr::LOCALHOST.into();
            let mut server = Self::spawn_from(&path, certificates, folder, entrance, host, more)?;
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
        Self::spawn_from(&program::beside_this("proxy-server")?, certificates, folder, entrance, host, more)
    }

    fn spawn_from(
        path: &Path,
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
        let program = Program::start("proxy-server", path, arguments)?;
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
