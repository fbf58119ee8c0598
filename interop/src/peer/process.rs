//! One started program.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// What `/proc/PID/stat` counts in: Linux shows 100 a second to every program, whatever the kernel's own rate.
const TICKS_PER_SECOND: u64 = 100;

/// A program that was started here; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the program with its output in `folder/NAME.log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be run.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: impl Iterator<Item = String>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let arguments: Vec<_> = arguments.collect();
        let child = spawn(program, &arguments, file)?;
        Ok(Self { name: name.to_owned(), program: program.to_owned(), arguments, child, log })
    }

    /// The same in another network namespace, if one is named.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(
        namespace: Option<&str>,
        name: &str,
        program: &Path,
        arguments: impl Iterator<Item = String>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let Some(namespace) = namespace else { return Self::start(name, program, arguments, folder) };
        // `ip` becomes the program, under the same process id.
        let program = program.to_str().with_context(|| format!("{} is no text", program.display()))?;
        let before = ["netns", "exec", namespace, program].map(str::to_owned);
        Self::start(name, Path::new("ip"), before.into_iter().chain(arguments), folder)
    }

    /// Starts it once more with the same arguments, after its end; kills it first if it still runs. The log goes on.
    ///
    /// # Errors
    /// When it cannot be run, or the log cannot be opened.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        let file = OpenOptions::new().append(true).open(&self.log);
        let file = file.with_context(|| format!("cannot open {}", self.log.display()))?;
        self.child = spawn(&self.program, &self.arguments, file)?;
        Ok(())
    }

    /// Kills it with SIGKILL, so that it can say good-bye to nobody, and waits for its end.
    pub fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its name in logs and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// Says how it ended and shows the last lines of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}{}", self.name, self.last_log_lines()),
        }
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot ask about {}", self.name))
    }

    /// The end of its log, indented, on lines of its own.
    pub fn last_log_lines(&self) -> String {
        const BYTES: u64 = 4096;
        const LINES: usize = 15;
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match tail() {
            Err(error) => format!("\n    (no log: {error})"),
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let lines: Vec<_> = text.lines().collect();
                let last = &lines[lines.len().saturating_sub(LINES)..];
                last.iter().map(|line| format!("\n    | {line}")).collect()
            }
        }
    }

    /// The first words of a panic, or of a Go runtime that gave up, behind so many bytes of its log.
    pub fn panic_since(&self, bytes: u64) -> Option<String> {
        let mut text = Vec::new();
        let mut file = File::open(&self.log).ok()?;
        file.seek(SeekFrom::Start(bytes)).ok()?;
        file.read_to_end(&mut text).ok()?;
        panic_in(&String::from_utf8_lossy(&text)).map(str::to_owned)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`; with the last lines of its log.
    pub async fn end(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs {limit:?} later{}", self.name, self.last_log_lines());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// CPU time used since the start, by all its threads, to 10 ms.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.id()).with_context(|| format!("{} is gone", self.name))
    }

    /// Resident memory in bytes; kernel memory of its sockets is not in it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        // `status` may be off by some pages per thread, `smaps_rollup` counts.
        let path = format!("/proc/{}/smaps_rollup", self.id());
        let text = fs::read_to_string(&path).with_context(|| format!("{} is gone", self.name))?;
        let kilobytes = text
            .lines()
            .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .with_context(|| format!("no Rss in {path}"))?;
        Ok(kilobytes * 1024)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.id()).context("a process id is an i32")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to stop, asks again, kills it at last. (The first signal makes the reference's agent drain, for ever.)
    pub async fn stop(mut self) {
        self.terminate().await;
    }

    /// The same, and it remains to be asked how it went.
    pub async fn terminate(&mut self) {
        for patience in [Duration::from_millis(50), Duration::from_secs(3)] {
            let _ = self.signal(Signal::SIGTERM);
            if self.ends_within(patience).await {
                return;
            }
        }
        self.kill();
    }

    async fn ends_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Path, arguments: &[String], log: File) -> anyhow::Result<Child> {
    Command::new(program)
        .args(arguments)
        // They would take the place of ids that are not given.
        .env_remove("PROXY_SERVER_ID")
        .env_remove("PROXY_AGENT_ID")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// The line with which Rust's or Go's runtime says that something is broken. A panic that Go code caught and logged is
/// not at the start of a line.
fn panic_in(log: &str) -> Option<&str> {
    const AT_START: [&str; 3] = ["panic: ", "fatal error: ", "SIGSEGV: "];
    log.lines().find(|line| {
        line.contains("' panicked at ")
            || line.contains(") panicked at ")
            || AT_START.iter().any(|start| line.starts_with(start))
    })
}

/// CPU time that a process has used since its start, by all its threads, to 10 ms.
///
/// # Errors
/// When it is gone.
pub fn cpu_of(id: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("cannot understand {path}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// User and system time from a line of `/proc/PID/stat` (proc(5)): fields 14 and 15, counted behind the name, which may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_an_odd_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 4 0 0 20 0 3 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(21));
        assert_eq!(cpu_ticks("42 (short) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn a_panic_is_told_from_one_that_was_caught() {
        let rust = "INFO ready\nthread 'main' (7) panicked at src/main.rs:1:1:\nboom";
        assert_eq!(panic_in(rust), Some("thread 'main' (7) panicked at src/main.rs:1:1:"));
        assert_eq!(panic_in("thread 'worker' panicked at a.rs:1:1:"), Some("thread 'worker' panicked at a.rs:1:1:"));
        assert_eq!(panic_in("I1 ok\npanic: send on closed channel\n"), Some("panic: send on closed channel"));
        assert_eq!(panic_in("E1124 client.go:1] recovered from panic: send on closed channel"), None);
    }

    #[tokio::test]
    async fn a_program_starts_again_into_the_same_log() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["-c", "echo once"].map(str::to_owned);
        let mut process = Process::start("twice", Path::new("/bin/sh"), arguments.into_iter(), folder.path()).unwrap();
        process.end(Duration::from_secs(10)).await.unwrap();
        process.start_again().unwrap();
        process.end(Duration::from_secs(10)).await.unwrap();
        assert_eq!(fs::read_to_string(process.log()).unwrap(), "once\nonce\n");
    }

    #[tokio::test]
    async fn a_program_that_ends_is_told_with_its_last_words() {
        let folder = std::env::temp_dir();
        let arguments = ["-c", "echo first; echo last words >&2; exit 3"].map(str::to_owned);
        let mut process = Process::start("a-shell", Path::new("/bin/sh"), arguments.into_iter(), &folder).unwrap();
        process.child.wait().unwrap();
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("| last words"), "{error}");
        fs::remove_file(process.log()).unwrap();
    }
}
