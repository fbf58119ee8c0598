//! Runs jobs side by side, each on a thread of its own: one that has entered another network never leaves it.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, Size};
use super::column::Column;
use super::fleet::{Fleet, Site};
use super::options::Options;
use super::plan::{Job, name};
use super::programs::Programs;
use super::report::{Outcome, Result};
use super::required::Required;
use super::scenario::{Scenario, Stage};
use crate::certificates::Folder;
use crate::peer::namespace::{self, Cable};

/// Runs jobs.
#[derive(Debug)]
pub struct Runner {
    setting: Arc<Setting>,
    at_once: usize,
}

/// What all jobs need.
#[derive(Debug)]
struct Setting {
    programs: Programs,
    certificates: Folder,
    /// For certificates and Unix sockets; gone when the last job is.
    folder: TempDir,
    out: PathBuf,
    size: Size,
}

impl Runner {
    /// Makes certificates and an empty folder for logs.
    ///
    /// # Errors
    /// When a program is missing, or a folder cannot be made.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        raise_open_files()?;
        let folder = tempfile::Builder::new().prefix("kq-matrix-").tempdir().context("no temporary folder")?;
        let certificates = Folder::write(&folder.path().join("pki"), &[namespace::SERVER.to_string()])?;
        empty(&options.out)?;
        let out = options.out.canonicalize().context("no folder for logs")?;
        let programs = Programs::find()?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let setting = Setting { programs, certificates, folder, out, size: options.size() };
        Ok(Self { setting: Arc::new(setting), at_once: options.jobs.unwrap_or(2 * cores) })
    }

    /// Runs all jobs; prints a line for each cell as it ends. When `stop` is cancelled, every job ends its programs, and
    /// cells that have not come to their end have failed.
    ///
    /// # Errors
    /// When a thread cannot be made.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future tells every job to end, but who ends the process at once does not let them.
    pub async fn run(
        &self,
        jobs: Vec<Job>,
        required: &Required,
        stop: &CancellationToken,
    ) -> anyhow::Result<Vec<Result>> {
        let total: usize = jobs.iter().map(|job| job.scenarios.len()).sum();
        let room = Arc::new(Semaphore::new(self.at_once));
        let mut running = JoinSet::new();
        for job in jobs {
            let (setting, room, stop) = (self.setting.clone(), room.clone(), stop.child_token());
            running.spawn(async move {
                let _room = room.acquire().await;
                on_its_own_thread(setting, job, stop).await
            });
        }
        let mut results = Vec::new();
        while let Some(done) = running.join_next().await {
            for (column, scenario, tried) in done?? {
                let must = required.contains(column, scenario.key);
                let result = Result::new(column, scenario.key, must, tried);
                results.push(result);
                let result = &results[results.len() - 1];
                eprintln!("{:4}/{total} {}", results.len(), result.line());
            }
        }
        Ok(results)
    }
}

/// What came of a cell.
#[derive(Debug)]
pub struct Tried {
    /// Whether it passed.
    pub outcome: Outcome,
    /// Why not.
    pub error: Option<String>,
    /// How long it took.
    pub time: Duration,
    /// What the scenario has noted.
    pub notes: Vec<String>,
    /// Where its logs are.
    pub logs: PathBuf,
}

/// The cells of a job and what came of them.
type Done = Vec<(Column, &'static Scenario, Tried)>;

async fn on_its_own_thread(setting: Arc<Setting>, job: Job, stop: CancellationToken) -> anyhow::Result<Done> {
    let (send, receive) = oneshot::channel();
    let _guard = stop.clone().drop_guard();
    let thread = std::thread::Builder::new().name(job.column.to_string());
    let thread = thread.spawn(move || {
        // Nobody listens when the run was told to stop.
        let _ = send.send(all(&setting, &job, &stop));
    });
    let thread = thread.context("cannot make a thread")?;
    let done = receive.await.context("a job has ended without a word");
    // It has said its last word.
    let _ = thread.join();
    done
}

fn all(setting: &Setting, job: &Job, stop: &CancellationToken) -> Done {
    let mut done = Vec::new();
    match job.stage() {
        Stage::Shared => shared(setting, job, stop, &mut done),
        Stage::Empty | Stage::Cable => {
            for (column, scenario) in job.cells() {
                let logs = setting.logs(column, scenario);
                done.push((column, scenario, alone(setting, column, scenario, &logs, stop)));
            }
        }
    }
    done
}

/// A scenario with programs of its own.
fn alone(setting: &Setting, column: Column, scenario: &Scenario, logs: &Path, stop: &CancellationToken) -> Tried {
    let start = Instant::now();
    let cable = match scenario.stage {
        Stage::Cable => match namespace::missing() {
            Some(why) => return Tried::skipped(why, logs),
            None => Cable::lay().and_then(|cable| cable.enter().map(|()| Some(cable))),
        },
        Stage::Shared | Stage::Empty => Ok(None),
    };
    let mut cell = match cable.and_then(|cable| setting.cell(column, logs, cable)) {
        Ok(cell) => cell,
        Err(error) => return Tried::failed(&error, start.elapsed(), logs),
    };
    let result = guarded(stop, async {
        let marks = cell.fleet.marks();
        let result = tried(&mut cell, scenario).await;
        cell.fleet.stop().await;
        // Programs that have panicked on their way out, too.
        result.and(cell.fleet.unharmed(&marks))
    });
    Tried::of(result, start.elapsed(), std::mem::take(&mut cell.notes), logs)
}

/// Scenarios that share a pair, as long as none of them has broken it.
fn shared(setting: &Setting, job: &Job, stop: &CancellationToken, done: &mut Done) {
    let mut cell: Option<Cell> = None;
    let mut left = job.scenarios.iter().copied().peekable();
    // One runtime for all: tasks of one scenario must not outlive the runtime in which the next one finds them.
    let result = guarded(stop, async {
        let mut pairs = 0;
        while let Some(scenario) = left.next() {
            let logs = setting.logs(job.column, scenario);
            let start = Instant::now();
            if cell.is_none() {
                pairs += 1;
                cell = match setting.pair(job.column, pairs).await {
                    Ok(cell) => Some(cell),
                    Err(error) => {
                        // It would be the same, and as slow, with each of the others.
                        for scenario in std::iter::once(scenario).chain(left.by_ref()) {
                            let logs = setting.logs(job.column, scenario);
                            done.push((job.column, scenario, Tried::failed(&error, start.elapsed(), &logs)));
                        }
                        break;
                    }
                };
            }
            let Some(pair) = &mut cell else { continue };
            let marks = pair.fleet.marks();
            let mut result = tried(pair, scenario).await.and(pair.fleet.unharmed(&marks));
            if let Err(error) = pair.fleet.copy_logs(&marks, &logs) {
                result = result.and(Err(error));
            }
            let notes = std::mem::take(&mut pair.notes);
            let broken = result.is_err();
            let marks = pair.fleet.marks();
            if broken || left.peek().is_none() {
                pair.fleet.stop().await;
                result = result.and(pair.fleet.unharmed(&marks));
                cell = None;
            }
            done.push((job.column, scenario, Tried::of(result, start.elapsed(), notes, &logs)));
        }
        Ok(())
    });
    if let Err(error) = result {
        // The harness itself is broken; what has not run has not passed.
        let missing = job.scenarios[done.len().min(job.scenarios.len())..].iter();
        let logs = |scenario| setting.logs(job.column, scenario);
        done.extend(
            missing.map(|&scenario| (job.column, scenario, Tried::failed(&error, Duration::ZERO, &logs(scenario)))),
        );
    }
}

/// Runs a scenario within its limit, and sees to it that every program that should still run does so.
async fn tried(cell: &mut Cell, scenario: &Scenario) -> anyhow::Result<()> {
    let result = timeout(scenario.limit, (scenario.run)(cell)).await;
    let result = result.unwrap_or_else(|_| Err(anyhow!("it has not come to its end within {:?}", scenario.limit)));
    match (result, cell.fleet.alive()) {
        (Ok(()), alive) => alive,
        (Err(error), Ok(())) => Err(error),
        // A program's end explains what the scenario met.
        (Err(error), Err(ended)) => Err(ended.context(format!("{error:#}"))),
    }
}

/// Runs to the end, or until the run is told to stop; a panic is an error.
fn guarded(stop: &CancellationToken, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let until_stopped = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(anyhow!("the run was told to stop")),
            result = work => result,
        }
    };
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(until_stopped)))
        .unwrap_or_else(|panic| Err(anyhow!("the harness has panicked: {}", words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

impl Setting {
    fn logs(&self, column: Column, scenario: &Scenario) -> PathBuf {
        self.out.join(name(column, scenario))
    }

    fn cell(&self, column: Column, logs: &Path, cable: Option<Cable>) -> anyhow::Result<Cell> {
        fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let (server_ip, agent_ip, prefix) = match &cable {
            None => (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv4Addr::LOCALHOST, Vec::new()),
            Some(cable) => (namespace::SERVER, namespace::AGENT, cable.in_agents_network().map(str::to_owned).to_vec()),
        };
        let site = Site {
            programs: self.programs.clone(),
            certificates: self.certificates.clone(),
            sockets: self.folder.path().to_owned(),
            logs: logs.to_owned(),
            server_ip,
            agent_ip,
            agent_prefix: prefix,
        };
        Ok(Cell { fleet: Fleet::new(column, site), size: self.size, cable, notes: Vec::new() })
    }

    async fn pair(&self, column: Column, number: usize) -> anyhow::Result<Cell> {
        let logs = self.out.join(column.to_string()).join(format!("pair-{number}"));
        let mut cell = self.cell(column, &logs, None)?;
        cell.start_pair(&[], &[]).await?;
        Ok(cell)
    }
}

impl Tried {
    fn of(result: anyhow::Result<()>, time: Duration, notes: Vec<String>, logs: &Path) -> Self {
        match result {
            Ok(()) => Self { outcome: Outcome::Passed, error: None, time, notes, logs: logs.to_owned() },
            Err(error) => Self { notes, ..Self::failed(&error, time, logs) },
        }
    }

    fn failed(error: &anyhow::Error, time: Duration, logs: &Path) -> Self {
        let error = Some(format!("{error:#}"));
        Self { outcome: Outcome::Failed, error, time, notes: Vec::new(), logs: logs.to_owned() }
    }

    fn skipped(why: &str, logs: &Path) -> Self {
        let error = Some(why.to_owned());
        Self { outcome: Outcome::Skipped, error, time: Duration::ZERO, notes: Vec::new(), logs: logs.to_owned() }
    }
}

/// An empty folder, whether it was there or not; only what a run leaves is removed from it.
fn empty(folder: &Path) -> anyhow::Result<()> {
    let describe = || format!("cannot empty {}", folder.display());
    fs::create_dir_all(folder).with_context(describe)?;
    for entry in fs::read_dir(folder).with_context(describe)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).with_context(describe)?;
        let ours = Column::all().any(|column| name.to_str() == column.to_string().split('/').next());
        match (ours, name.to_str()) {
            (true, _) => fs::remove_dir_all(&path).with_context(describe)?,
            (false, Some("matrix.md" | "matrix.json")) => fs::remove_file(&path).with_context(describe)?,
            (false, _) => {}
        }
    }
    Ok(())
}

/// Lets this process, and so those that it starts, open as many files as it may.
fn raise_open_files() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}

#[cfg(test)]
mod tests;
