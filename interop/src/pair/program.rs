//! One started program with its log in memory.

use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::POLL;

/// How often a program is tried to be started that somebody has open for writing.
const BUSY_TRIES: u32 = 100;

/// What Rust says of a panic. No test is good in which a program has said it.
const PANIC: &str = "panicked at ";

/// A program of this build, found beside the executable of the test.
///
/// # Errors
/// Says how to build it.
pub fn beside_this(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    // Test executables are in `deps`, the programs in the folder above.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        format!("{name} is not beside {}: run `cargo build --workspace --bins{profile}` first", own.display())
    })
}

/// A program that was started here. Dropping it kills it, and shows its log if the test is failing.
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Vec<String>,
    child: Child,
    log: Log,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(name: &str, path: &Path, arguments: Vec<String>) -> anyhow::Result<Self> {
        let command: Vec<_> = std::iter::once(path.display().to_string()).chain(arguments).collect();
        let mut log = Log::default();
        let child = spawn(&command, None, &mut log)?;
        Ok(Self { name: name.to_owned(), command, child, log })
    }

    /// Starts it as another user and group, which takes root.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start_as(name: &str, user: u32, path: &Path, arguments: Vec<String>) -> anyhow::Result<Self> {
        let command: Vec<_> = std::iter::once(path.display().to_string()).chain(arguments).collect();
        let mut log = Log::default();
        let child = spawn(&command, Some(user), &mut log)?;
        Ok(Self { name: name.to_owned(), command, child, log })
    }

    /// Starts it again with the same arguments after it has ended. The log goes on.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.child = spawn(&self.command, None, &mut self.log)?;
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has written until now, standard output and standard error.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until it has logged a line with all of `words`, and returns the line.
    ///
    /// # Errors
    /// When it has not within `limit`; with the log.
    pub async fn logged(&self, words: &[&str], limit: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return Ok(line.to_owned());
            }
            if Instant::now() > deadline {
                bail!("{} has not logged {words:?} within {limit:?}\n{log}", self.name);
            }
            sleep(POLL).await;
        }
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let status = self.child.try_wait().with_context(|| format!("cannot ask about {}", self.name))?;
        if status.is_some() {
            self.log.complete();
        }
        Ok(status)
    }

    /// Waits until it has refused to start, and returns its log.
    ///
    /// # Errors
    /// When it still runs after `limit`, or has ended with another exit code than 1; with the log.
    pub async fn refused(mut self, limit: Duration) -> anyhow::Result<String> {
        let status = self.ended(limit).await?;
        if status.code() != Some(1) {
            bail!("{} ended with {status} instead of code 1\n{}", self.name, self.log());
        }
        Ok(self.log())
    }

    /// Waits for its end. The log is complete then.
    ///
    /// # Errors
    /// When it still runs after `limit`; with the log.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {limit:?}\n{}", self.name, self.log());
            }
            sleep(POLL).await;
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.id()).context("a process id is an i32")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it with SIGKILL, so that it can say good-bye to nobody, and waits for its end.
    pub fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.complete();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        let failing = std::thread::panicking();
        if failing || log.contains(PANIC) {
            eprintln!("---- {} {}\n{}----", self.name, self.command[1..].join(" "), last_lines(&log));
        }
        assert!(failing || !log.contains(PANIC), "a thread of {} has panicked", self.name);
    }
}

/// The end of a log, and how much more there was.
fn last_lines(log: &str) -> String {
    const LINES: usize = 60;
    let lines: Vec<_> = log.lines().collect();
    let before = lines.len().saturating_sub(LINES);
    let head = if before == 0 { String::new() } else { format!("({before} lines before)\n") };
    lines[before..].iter().fold(head, |text, line| text + line + "\n")
}

fn spawn(command: &[String], user: Option<u32>, log: &mut Log) -> anyhow::Result<Child> {
    let (path, arguments) = command.split_first().context("a command has a program")?;
    let mut command = Command::new(path);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
        .args(arguments)
        .env_remove("PROXY_SERVER_ID")
        .env_remove("PROXY_AGENT_ID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut tries = 0;
    let mut child = loop {
        match command.spawn() {
            // A program that was copied just now: what other tests start at this moment may have it open for an instant.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                #[allow(clippy::disallowed_methods, reason = "programs are started outside of any task's turn")]
                std::thread::sleep(POLL);
            }
            child => break child.with_context(|| format!("cannot start {path}"))?,
        }
    };
    log.follow(child.stdout.take());
    log.follow(child.stderr.take());
    Ok(child)
}

/// What a program writes, read by threads of its own: a full pipe would stop it.
#[derive(Debug, Default)]
struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Log {
    fn follow(&mut self, pipe: Option<impl Read + Send + 'static>) {
        let Some(mut pipe) = pipe else { return };
        let bytes = self.bytes.clone();
        self.readers.push(std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
            }
        }));
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits for the last words of a program that has ended.
    fn complete(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader that panicked has shown why.
            let _ = reader.join();
        }
    }
}
