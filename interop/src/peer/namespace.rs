//! Two networks with a cable between them, as network namespaces of Linux: for what loopback cannot show, such as a
//! network that loses all UDP. It takes root, iproute2 and nftables.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};

/// The server's address on the cable. Every cable has its own two networks, so all may use the same.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 254, 79, 1);

/// The agent's address on the cable.
pub const AGENT: Ipv4Addr = Ipv4Addr::new(10, 254, 79, 2);

/// The names of the cable's ends; interfaces of different namespaces may have the same.
const SERVER_END: &str = "kqserver";
const AGENT_END: &str = "kqagent";

static CABLES: AtomicU32 = AtomicU32::new(0);

/// A network for a server, one for an agent, and the cable between them; all is removed when this is dropped, when the
/// programs in it must have ended.
#[derive(Debug)]
pub struct Cable {
    server: String,
    agent: String,
}

impl Cable {
    /// Lays a cable.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn lay() -> anyhow::Result<Self> {
        let number = CABLES.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("kq-{}-{number}-{end}", std::process::id());
        let cable = Self { server: name("server"), agent: name("agent") };
        // Whatever fails, what was made is removed.
        for namespace in [&cable.server, &cable.agent] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        let peer = ["peer", "name", AGENT_END, "netns", &cable.agent];
        ip(&[&["-n", &cable.server, "link", "add", SERVER_END, "type", "veth"], &peer[..]].concat())?;
        for (namespace, end, address) in [(&cable.server, SERVER_END, SERVER), (&cable.agent, AGENT_END, AGENT)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/30"), "dev", end])?;
            ip(&["-n", namespace, "link", "set", end, "up"])?;
        }
        Ok(cable)
    }

    /// Moves the calling thread into the server's network, for good: its sockets, and the programs and threads that it
    /// starts, are there from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter(&self) -> anyhow::Result<()> {
        let path = PathBuf::from("/run/netns").join(&self.server);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
    }

    /// The program and its first arguments that start another program in the agent's network, under its own process id.
    pub fn in_agents_network(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.agent]
    }

    /// From now on, each end drops what comes from the other by UDP from or to `port`, without a word to the sender.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub fn block_udp(&self, port: u16) -> anyhow::Result<()> {
        for (namespace, field) in [(&self.server, "dport"), (&self.agent, "sport")] {
            // A packet dropped on its way out would be an error to who sends it; one dropped on its way in is just lost.
            let rules = format!(
                "add table inet kq; add chain inet kq lost {{ type filter hook input priority 0; }}; \
                 add rule inet kq lost udp {field} {port} counter drop"
            );
            inside(namespace, &["nft", &rules])?;
        }
        Ok(())
    }

    /// Lets UDP pass again.
    ///
    /// # Errors
    /// When it was not blocked, or `nft` refuses.
    pub fn unblock_udp(&self) -> anyhow::Result<()> {
        inside(&self.server, &["nft", "delete table inet kq"])?;
        inside(&self.agent, &["nft", "delete table inet kq"])
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The cable goes with its ends.
        for namespace in [&self.server, &self.agent] {
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

/// Why no cable can be laid here, such as "needs root"; found out once.
pub fn missing() -> Option<&'static str> {
    static MISSING: LazyLock<Option<String>> = LazyLock::new(|| {
        if !nix::unistd::geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        let tried = Cable::lay().and_then(|cable| cable.block_udp(1));
        tried.err().map(|error| format!("needs network namespaces and nftables: {error:#}"))
    });
    MISSING.as_deref()
}

fn inside(namespace: &str, command: &[&str]) -> anyhow::Result<()> {
    ip(&[&["netns", "exec", namespace], command].concat())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let text = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", text()))?;
    if !output.status.success() {
        bail!("{}: {}", text(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::ErrorKind;
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// Whether a datagram of the agent's network reaches a socket in the server's; must be called in the latter.
    fn arrives(cable: &Cable, socket: &UdpSocket) -> bool {
        let port = socket.local_addr().unwrap().port();
        let send = format!("echo hello >/dev/udp/{SERVER}/{port}");
        let [program, arguments @ ..] = cable.in_agents_network();
        assert!(Command::new(program).args(arguments).args(["bash", "-c", &send]).status().unwrap().success());
        match socket.recv(&mut [0; 16]) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn udp_passes_and_is_blocked_and_passes_again() {
        if let Some(why) = missing() {
            eprintln!("skipped: {why}");
            return;
        }
        // A thread of its own, as it stays in the other network.
        let tried = std::thread::spawn(|| {
            let cable = Cable::lay().unwrap();
            cable.enter().unwrap();
            let socket = UdpSocket::bind((SERVER, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert!(arrives(&cable, &socket), "nothing is blocked yet");
            cable.block_udp(socket.local_addr().unwrap().port()).unwrap();
            assert!(!arrives(&cable, &socket), "it is blocked");
            cable.unblock_udp().unwrap();
            assert!(arrives(&cable, &socket), "it is not blocked any more");
            cable.server.clone()
        });
        let name = tried.join().unwrap();
        assert!(!PathBuf::from("/run/netns").join(name).exists(), "it is removed");
    }
}
