//! `ssh -L`: a server of its own at the site, and one connection from the cloud with a Unix socket for each target.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::unistd::{User, geteuid};
use tokio::time::{Instant, sleep};

use super::setting::Setting;
use super::stage::Stage;
use crate::load::path::Path;
use crate::peer::ports;
use crate::peer::process::Process;

/// Where Debian and others have it: it insists on being started by its full path.
const SSHD: &str = "/usr/sbin/sshd";
/// It insists on this folder if root runs it.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// A tunnel that is not there by then has failed.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// A server and a client; both end when this is dropped.
#[derive(Debug)]
pub struct Ssh {
    client: Process,
    server: Process,
    sockets: Arc<BTreeMap<SocketAddr, PathBuf>>,
}

impl Ssh {
    /// Whether it can be started here; says what is missing if not.
    pub fn missing() -> Option<String> {
        let client = Command::new("ssh").arg("-V").stdin(Stdio::null()).stderr(Stdio::null()).status();
        if client.is_err() || !FilePath::new(SSHD).exists() {
            return Some("install openssh-client and openssh-server".to_owned());
        }
        None
    }

    /// Starts both and waits for the sockets.
    ///
    /// # Errors
    /// With the last lines of the log of the one that does not start.
    pub async fn start(setting: &Setting, stage: &Stage) -> anyhow::Result<Self> {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        if let Some(missing) = Self::missing() {
            bail!(missing);
        }
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let keys = Keys::of(&setting.folder)?;
        let [port] = ports::free();
        let address = stage.link.site().ipv4;
        let config = setting.folder.join(format!("sshd-{number}.conf"));
        fs::write(&config, keys.server_config(address.into(), port)).context("cannot write sshd's configuration")?;
        let arguments = ["-D", "-e", "-f"].map(str::to_owned).into_iter().chain([text(&config)?]);
        let name = format!("sshd-{number}");
        let server = Process::start_in(Some(stage.site()), &name, FilePath::new(SSHD), arguments, &setting.folder)?;
        let targets = stage.targets();
        let sockets: BTreeMap<_, _> = [targets.echo(0), targets.source(), targets.sink(), targets.object()]
            .into_iter()
            .map(|target| (target, setting.folder.join(format!("ssh-{number}-{}.sock", target.port()))))
            .collect();
        let arguments = keys.client_arguments(&format!("{}@{address}", user()?), port, &sockets)?;
        let start = |attempt: usize| {
            let name = format!("ssh-{number}-{attempt}");
            Process::start(&name, FilePath::new("ssh"), arguments.clone().into_iter(), &setting.folder)
        };
        let client = start(0)?;
        let mut ssh = Self { client, server, sockets: Arc::new(sockets) };
        let deadline = Instant::now() + READY_WITHIN;
        for attempt in 1.. {
            // A client that finds no server yet ends, and another is started.
            while ssh.client.ended()?.is_none() {
                if ssh.sockets.values().all(|socket| socket.exists()) {
                    return Ok(ssh);
                }
                ensure!(Instant::now() < deadline, "ssh is not ready{}", ssh.client.last_log_lines());
                sleep(Duration::from_millis(10)).await;
            }
            ssh.server.check()?;
            ensure!(
                Instant::now() < deadline,
                "ssh ends{}{}",
                ssh.client.last_log_lines(),
                ssh.server.last_log_lines()
            );
            sleep(Duration::from_millis(50)).await;
            ssh.client = start(attempt)?;
        }
        unreachable!("a deadline comes")
    }

    /// How clients dial through it.
    pub fn path(&self) -> Path {
        Path::Forwarded(self.sockets.clone())
    }

    /// Checks that both still run.
    ///
    /// # Errors
    /// With the last lines of the log of the one that ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.client.check()?;
        self.server.check()
    }
}

/// Keys that are made for one run.
struct Keys {
    host: PathBuf,
    client: PathBuf,
    folder: PathBuf,
}

impl Keys {
    /// Those in a folder; makes them if there are none.
    fn of(folder: &FilePath) -> anyhow::Result<Self> {
        let keys = Self { host: folder.join("ssh-host"), client: folder.join("ssh-client"), folder: folder.to_owned() };
        for key in [&keys.host, &keys.client] {
            if !key.exists() {
                let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).status();
                ensure!(made.is_ok_and(|status| status.success()), "ssh-keygen makes no key");
            }
        }
        fs::create_dir_all(PRIVILEGE_SEPARATION).context("cannot make /run/sshd")?;
        Ok(keys)
    }

    fn server_config(&self, address: std::net::IpAddr, port: u16) -> String {
        let (host, client) = (self.host.display(), self.client.display());
        format!(
            "ListenAddress {address}\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {client}.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nAllowTcpForwarding local\nLogLevel ERROR\n"
        )
    }

    fn client_arguments(
        &self,
        destination: &str,
        port: u16,
        sockets: &BTreeMap<SocketAddr, PathBuf>,
    ) -> anyhow::Result<Vec<String>> {
        let (key, port) = (text(&self.client)?, port.to_string());
        let known = format!("UserKnownHostsFile={}", self.folder.join("ssh-known").display());
        let mut arguments: Vec<_> = ["-N", "-F", "none", "-i", &key, "-p", &port].map(str::to_owned).into();
        for option in [
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "ExitOnForwardFailure=yes",
            "StreamLocalBindUnlink=yes",
            "LogLevel=ERROR",
            &known,
        ] {
            arguments.extend(["-o".to_owned(), option.to_owned()]);
        }
        for (target, socket) in sockets {
            arguments.extend(["-L".to_owned(), format!("{}:{target}", text(socket)?)]);
        }
        arguments.push(destination.to_owned());
        Ok(arguments)
    }
}

fn text(path: &FilePath) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is no text", path.display()))
}

fn user() -> anyhow::Result<String> {
    let user = User::from_uid(geteuid()).context("cannot ask for this user's name")?;
    Ok(user.context("this user has no name")?.name)
}
