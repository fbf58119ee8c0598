//! One case on one subject, from starting its programs to stopping them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::sleep;

use super::case::{Case, Kind, Metric};
use super::results::{Lane, Subject};
use crate::certificates::Folder;
use crate::load::Window;
use crate::load::bulk::{self, Direction};
use crate::load::churn;
use crate::load::echo::{Echoes, Latencies};
use crate::load::meter::{Cpu, Meter};
use crate::load::path::Path;
use crate::load::stall::Stalled;
use crate::load::targets::Targets;
use crate::peer::{Make, Pair};

/// Dials that echo beside stalled ones.
const ECHOES_BESIDE: usize = 4;

/// The figures of one measurement.
pub type Figures = Vec<(Metric, f64)>;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For everything that flows.
    pub window: Window,
    /// How long dials are idle before their memory is looked at.
    pub idle: Duration,
    /// How long stalled dials may go on taking bytes.
    pub settle_at_most: Duration,
    /// For echoes with and without stalled dials, in turn.
    pub alternating: Window,
    /// How often dials are stalled and let go again in one measurement.
    pub alternations: usize,
}

/// What all measurements of a run share.
pub struct Bench {
    /// The programs of each subject that has some.
    pub makes: Vec<(Subject, Make)>,
    /// Certificates of everyone.
    pub certificates: Folder,
    /// For sockets and logs.
    pub folder: PathBuf,
    /// How long things take.
    pub timing: Timing,
}

impl Bench {
    /// Starts the subject's programs and the targets, measures, and stops them.
    ///
    /// # Errors
    /// Whatever failed, with the last lines of the log of a program that ended.
    pub async fn measure(&self, lane: Lane, case: &Case) -> anyhow::Result<Figures> {
        let mut targets = Targets::start()?;
        let Lane::Through(way, subject) = lane else {
            return self.figures(case, &Path::Direct, &mut targets, None).await;
        };
        let make = self.makes.iter().find(|(of, _)| *of == subject).context("this subject has no programs")?;
        let entrance = (way.mode(), way.entrance());
        let mut pair = Pair::start(&make.1, entrance, &self.certificates, &self.folder).await?;
        let path = way.path(&pair.frontend, &self.certificates)?;
        let result = self.figures(case, &path, &mut targets, Some(&pair)).await;
        // A program that ended tells more than the dials that failed with it.
        let result = match (pair.check(), result) {
            (Ok(()), result) => result,
            (Err(ended), Ok(_)) => Err(ended),
            (Err(ended), Err(error)) => Err(ended.context(format!("{error:#}"))),
        };
        drop(targets);
        pair.stop().await;
        result
    }

    async fn figures(
        &self,
        case: &Case,
        path: &Path,
        targets: &mut Targets,
        pair: Option<&Pair>,
    ) -> anyhow::Result<Figures> {
        let (window, meter) = (self.timing.window, Meter::new(pair, targets));
        match case.kind {
            Kind::Bulk(direction, dials) => {
                let carried = bulk::run(path, targets, meter, direction, dials, window).await?;
                let mut figures =
                    vec![(Metric::MegabytesPerSecond, carried.bytes as f64 / 1e6 / carried.time.as_secs_f64())];
                if pair.is_some() {
                    let seconds = carried.cpu.tunnel.as_secs_f64();
                    figures.push((Metric::CpuPerGigabyte, seconds * 1e9 / carried.bytes as f64));
                }
                figures.extend(load_figures(carried.cpu, carried.time));
                Ok(figures)
            }
            Kind::Echo(dials) => {
                let echoes = Echoes::open(path, targets, dials).await?;
                Ok(latency_figures(&echoes.start().measure(meter, window).await?, pair.is_some()))
            }
            Kind::Churn(parallel) => {
                let latencies = churn::run(path, targets, meter, parallel, window).await?;
                Ok(latency_figures(&latencies, pair.is_some()))
            }
            Kind::Idle(dials) => self.idle(path, targets, pair.context("idle dials need a pair")?, dials).await,
            Kind::Stalled(direction, count) => self.stalled(path, targets, meter, direction, count).await,
        }
    }

    async fn idle(&self, path: &Path, targets: &mut Targets, pair: &Pair, dials: usize) -> anyhow::Result<Figures> {
        ensure_files(dials)?;
        // What the first dials make once for all is not counted.
        drop(Echoes::open(path, targets, 32).await?);
        sleep(self.timing.idle).await;
        let before = [pair.server.resident_bytes()?, pair.agent.resident_bytes()?];
        let _open = Echoes::open(path, targets, dials).await?;
        sleep(self.timing.idle).await;
        let after = [pair.server.resident_bytes()?, pair.agent.resident_bytes()?];
        let each = |place: usize| (after[place] as f64 - before[place] as f64) / dials as f64;
        Ok(vec![(Metric::ServerBytes, each(0)), (Metric::AgentBytes, each(1))])
    }

    async fn stalled(
        &self,
        path: &Path,
        targets: &mut Targets,
        meter: Meter<'_>,
        direction: Direction,
        count: usize,
    ) -> anyhow::Result<Figures> {
        let mut echoes = Echoes::open(path, targets, ECHOES_BESIDE).await?.start();
        let (mut alone, mut beside, mut taken) = (Latencies::default(), Latencies::default(), 0);
        for _ in 0..self.timing.alternations {
            alone += echoes.measure(meter, self.timing.alternating).await?;
            let stalled = Stalled::start(path, targets, direction, count, self.timing.settle_at_most).await?;
            beside += echoes.measure(meter, self.timing.alternating).await?;
            taken = stalled.taken;
            // Where stalled dials stop the echoes, what comes after them is no measurement without them.
            if beside.stuck > 0 {
                break;
            }
            stalled.end(targets).await?;
        }
        let [before, after] = [&alone, &beside].map(|latencies| microseconds(latencies, 0.99));
        Ok(vec![
            (Metric::PerSecond, beside.per_second()),
            (Metric::P99Alone, before),
            (Metric::P99, after),
            (Metric::TimesAlone, if before.is_finite() { after / before } else { f64::INFINITY }),
            (Metric::Taken, taken as f64 / 1e6),
        ])
    }
}

fn latency_figures(latencies: &Latencies, with_cpu: bool) -> Figures {
    let mut figures = vec![
        (Metric::PerSecond, latencies.per_second()),
        (Metric::P50, microseconds(latencies, 0.5)),
        (Metric::P99, microseconds(latencies, 0.99)),
    ];
    if with_cpu {
        let each = latencies.cpu.tunnel.as_secs_f64() * 1e6 / latencies.completed() as f64;
        figures.push((Metric::CpuEach, each));
    }
    figures.extend(load_figures(latencies.cpu, latencies.time));
    figures
}

/// How much of its one core each part of the load took.
fn load_figures(cpu: Cpu, time: Duration) -> Figures {
    let percent = |part: Duration| 100.0 * part.as_secs_f64() / time.as_secs_f64();
    vec![(Metric::ClientsCpu, percent(cpu.clients)), (Metric::TargetsCpu, percent(cpu.targets))]
}

/// Infinite when nothing ended in the window.
fn microseconds(latencies: &Latencies, part: f64) -> f64 {
    match latencies.quantile(part) {
        Some(duration) if latencies.completed() > 0 => duration.as_secs_f64() * 1e6,
        _ => f64::INFINITY,
    }
}

/// The server holds two files for a dial at most, the others one.
fn ensure_files(dials: usize) -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit};
    const OTHERS: u64 = 512;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let wanted = dials as u64 + OTHERS;
    ensure!(soft >= wanted, "{dials} dials need `ulimit -n {wanted}`, it is {soft}");
    Ok(())
}
