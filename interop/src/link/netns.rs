//! Network namespaces, made and removed with iproute2's `ip`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";
/// What all our names begin with; the process's id and a number follow.
const PREFIX: &str = "konnectivity-link-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Why something with a namespace did not work.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is no `ip`, or it cannot be started.
    #[error("cannot run `ip`; install iproute2")]
    NoIp(#[source] io::Error),
    /// It refused.
    #[error("`ip {arguments}` failed: {message}")]
    Ip {
        /// What it was told.
        arguments: String,
        /// What it said.
        message: String,
    },
    /// A name that should be free: a process with our id was killed earlier and could not clean up.
    #[error("the network namespace {0} is left over from a killed run; remove it with `link --clean`")]
    LeftOver(String),
    /// A congestion control that the kernel does not have, or does not let namespaces have.
    #[error(
        "TCP cannot use {name} here: the kernel has {available}, and namespaces may use {allowed}; what it has is allowed by \
         `sysctl -w net.ipv4.tcp_allowed_congestion_control='{allowed} {name}'`, for the whole machine"
    )]
    CongestionControl {
        /// What was wanted.
        name: String,
        /// What there is.
        available: String,
        /// What may be used.
        allowed: String,
    },
    /// Entering, or what was to be done inside.
    #[error("cannot {what} in the network namespace {name}")]
    Inside {
        /// Which one.
        name: String,
        /// What was to be done.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A namespace of our own; dropping it kills the processes in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one whose name ends so and is nobody else's.
    ///
    /// # Errors
    /// Without root or `ip`, or if a killed run has left one of that name.
    pub fn create(ending: &str) -> Result<Self, NetnsError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{ending}", std::process::id());
        if Path::new(FOLDER).join(&name).exists() {
            return Err(NetnsError::LeftOver(name));
        }
        ip(&["netns", "add", &name])?;
        // From here on it is removed whatever happens.
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// For `ip netns exec` and others.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does something in it, on a thread of its own: a socket made there stays there.
    ///
    /// # Errors
    /// When it cannot be entered, or what the work returns.
    pub fn inside<T: Send>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, NetnsError> {
        inside(&self.name, what, work)
    }

    /// Moves the calling thread into it, for good: its sockets, and the programs and threads that it starts, are there
    /// from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter(&self) -> Result<(), NetnsError> {
        enter(&self.name).map_err(|source| NetnsError::Inside { name: self.name.clone(), what: "stay", source })
    }

    /// Sets a value below `/proc/sys/net`.
    ///
    /// # Errors
    /// When the kernel does not know it or does not want it.
    pub fn set(&self, key: &str, value: &str) -> Result<(), NetnsError> {
        self.inside("set a kernel setting", || fs::write(format!("/proc/sys/net/{key}"), value))
    }

    /// Reads a value below `/proc/sys/net`.
    ///
    /// # Errors
    /// When the kernel does not know it.
    pub fn get(&self, key: &str) -> Result<String, NetnsError> {
        let text = self.inside("read a kernel setting", || fs::read_to_string(format!("/proc/sys/net/{key}")))?;
        Ok(text.trim().to_owned())
    }

    /// TCP's congestion control for sockets made from now on, by the kernel's name for it. Gives back what is used now.
    ///
    /// # Errors
    /// When the kernel does not have it, or does not let namespaces have it; the message says what to do.
    pub fn set_congestion_control(&self, name: &str) -> Result<String, NetnsError> {
        if self.set("ipv4/tcp_congestion_control", name).is_err() {
            let [available, allowed] =
                ["available", "allowed"].map(|list| self.get(&format!("ipv4/tcp_{list}_congestion_control")));
            return Err(NetnsError::CongestionControl {
                name: name.to_owned(),
                available: available?,
                allowed: allowed?,
            });
        }
        self.congestion_control()
    }

    /// TCP's congestion control for new sockets.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn congestion_control(&self) -> Result<String, NetnsError> {
        self.get("ipv4/tcp_congestion_control")
    }

    /// Packets that the kernel dropped because the emulator did not fetch them in time.
    pub(super) fn kernel_drops(&self, device: &str) -> Result<u64, NetnsError> {
        let text = self.inside("read the device's counters", || fs::read_to_string("/proc/thread-self/net/dev"))?;
        Ok(transmit_drops(&text, device).unwrap_or(0))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let inode = fs::metadata(Path::new(FOLDER).join(&self.name)).map(|file| file.ino());
        // Without a name it cannot be entered any more; it lives on as long as there are processes in it.
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("link: {error}; `link --clean` tries again");
        }
        if let Ok(inode) = inode {
            kill_processes_in(inode);
        }
    }
}

/// All of them, whoever started them: nobody but our users has reason to be in a namespace of ours.
fn kill_processes_in(namespace: u64) {
    let own = Pid::this();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    for pid in pids.filter(|pid| *pid != own) {
        let of_process = fs::metadata(format!("/proc/{pid}/ns/net")).map(|file| file.ino());
        if of_process.is_ok_and(|inode| inode == namespace) {
            // It may have ended meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Does something in the namespace of that name, on a thread of its own: a socket made there stays there.
///
/// # Errors
/// When it cannot be entered, or what the work returns.
pub fn inside<T: Send>(
    name: &str,
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, NetnsError> {
    let enter_and_work = || {
        enter(name)?;
        work()
    };
    let result = thread::scope(|scope| scope.spawn(enter_and_work).join());
    let result = result.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
    result.map_err(|source| NetnsError::Inside { name: name.to_owned(), what, source })
}

fn enter(name: &str) -> io::Result<()> {
    setns(File::open(Path::new(FOLDER).join(name))?, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// A program to be run in the namespace of that name: arguments, environment and so on are the caller's.
pub fn command(name: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]).arg(program);
    command
}

/// Namespaces of emulators that are gone without having cleaned up.
pub fn left_over() -> Vec<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names: BTreeSet<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names
        .into_iter()
        .filter(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
        .collect()
}

/// Removes what killed emulators have left; gives back the names.
pub fn clean() -> Vec<String> {
    left_over().into_iter().map(|name| Namespace { name }).map(|namespace| namespace.name.clone()).collect()
}

/// The process that made a namespace of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Runs `ip` and gives back what it says.
pub(crate) fn ip(arguments: &[&str]) -> Result<String, NetnsError> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().map_err(NetnsError::NoIp)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetnsError::Ip { arguments: arguments.join(" "), message })
}

/// From `/proc/net/dev`: eight figures for receiving, then packets are the second and drops the fourth for sending.
fn transmit_drops(text: &str, device: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    line.split_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_in_the_right_column() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n    \
                    lo:       1       2    3    4    5     6          7         8        9      10   11   12   13\n \
                    link0:     1       2    3    4    5     6          7         8        9      10   11   77   13\n";
        assert_eq!(transmit_drops(text, "link0"), Some(77));
        assert_eq!(transmit_drops(text, "link"), None);
    }

    #[test]
    fn the_owner_is_in_the_name() {
        assert_eq!(owner("konnectivity-link-123-4-site"), Some(123));
        assert_eq!(owner("konnectivity-link-x"), None);
        assert_eq!(owner("somebody-elses"), None);
    }
}
