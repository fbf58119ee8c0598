//! Where the programs of either make are, and what they are told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::column::{Carrier, Make};
use super::fleet::Site;

/// How long our agents let a target take to connect. (The reference's five seconds cannot be changed.)
pub const DIAL_TIMEOUT: &str = "--dial-timeout=2s";

/// The executables of both makes.
#[derive(Debug, Clone)]
pub struct Programs {
    go: PathBuf,
    ours: PathBuf,
}

impl Programs {
    /// Ours are beside this program, the reference's in the folder `go` beside that.
    ///
    /// # Errors
    /// Says what has to be built.
    pub fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let ours = own.parent().context("a program is in a folder")?.to_owned();
        let go = ours.parent().context("a folder of builds is in a folder")?.join("go");
        for (folder, how) in [(&ours, "cargo build --workspace --bins"), (&go, "scripts/go-peers.sh")] {
            for program in ["proxy-server", "proxy-agent"] {
                let path = folder.join(program);
                if !path.is_file() {
                    bail!("there is no {}; run {how}", path.display());
                }
            }
        }
        Ok(Self { go, ours })
    }

    /// The reference's are in the one folder, ours in the other.
    pub fn at(go: &Path, ours: &Path) -> Self {
        Self { go: go.to_owned(), ours: ours.to_owned() }
    }

    /// The `proxy-server` of a make.
    pub fn server(&self, make: Make) -> PathBuf {
        self.folder(make).join("proxy-server")
    }

    /// The `proxy-agent` of a make.
    pub fn agent(&self, make: Make) -> PathBuf {
        self.folder(make).join("proxy-agent")
    }

    fn folder(&self, make: Make) -> &Path {
        match make {
            Make::Go => &self.go,
            Make::Ours => &self.ours,
        }
    }
}

impl Site {
    /// The flag that names a file of the certificates.
    pub fn file(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.certificates.file(name).display())
    }

    /// What every server is told, besides its front.
    pub fn server_arguments(
        &self,
        make: Make,
        agents: SocketAddr,
        health: SocketAddr,
        admin_port: u16,
        id: &str,
    ) -> Vec<String> {
        vec![
            self.file("cluster-cert", "server.crt"),
            self.file("cluster-key", "server.key"),
            self.file("cluster-ca-cert", "ca.crt"),
            format!("--agent-bind-address={}", agents.ip()),
            format!("--agent-port={}", agents.port()),
            format!("--health-bind-address={}", health.ip()),
            format!("--health-port={}", health.port()),
            "--admin-bind-address=127.0.0.1".to_owned(),
            format!("--admin-port={admin_port}"),
            format!("--server-id={id}"),
            verbosity(make),
        ]
    }

    /// What every agent is told.
    pub fn agent_arguments(
        &self,
        make: Make,
        servers: SocketAddr,
        health: SocketAddr,
        admin_port: u16,
        id: &str,
    ) -> Vec<String> {
        let own = match make {
            Make::Go => None,
            Make::Ours => Some(DIAL_TIMEOUT.to_owned()),
        };
        let arguments = [
            format!("--proxy-server-host={}", servers.ip()),
            format!("--proxy-server-port={}", servers.port()),
            self.file("ca-cert", "ca.crt"),
            self.file("agent-cert", "agent.crt"),
            self.file("agent-key", "agent.key"),
            format!("--agent-id={id}"),
            format!("--health-server-host={}", health.ip()),
            format!("--health-server-port={}", health.port()),
            format!("--admin-server-port={admin_port}"),
            verbosity(make),
        ];
        arguments.into_iter().chain(own).collect()
    }
}

/// One line for each dial, and no more.
fn verbosity(make: Make) -> String {
    match make {
        Make::Go => "--v=3",
        Make::Ours => "--v=5",
    }
    .to_owned()
}

/// What our programs are told of the carrier.
pub fn transport(carrier: Carrier) -> String {
    format!("--transport={}", carrier.key())
}
