//! One case on one subject and one link, with one seed, from making the link to removing it.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::time::sleep;

use super::apart::apart;
use super::case::{Case, Kind, Metric};
use super::log::Latencies;
use super::setting::{Setting, Timing};
use super::stage::Stage;
use super::subject::{Running, Subject};
use super::work::{Arrived, Bulk, Works};
use crate::link::profile::{Direction as Way, Profile};
use crate::link::stats::{OneWay, Stats};
use crate::load::bulk::Direction;

/// Dials that echo.
const ECHOES: usize = 8;
/// Dials that are made at the same time.
const DIALS: usize = 4;
/// Bytes of a dial in a full TCP packet: 1,500 without headers of IP and TCP, and TCP's time stamps. QUIC's is about the
/// same.
const PAYLOAD: f64 = 1448.0;

/// The figures of one measurement.
pub type Figures = Vec<(Metric, f64)>;

/// What one measurement has found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The figures.
    pub figures: Figures,
    /// Echoes.
    pub echo: Latencies,
    /// Dials with an echo each.
    pub dial: Latencies,
    /// What the link did not do as asked for.
    pub doubts: Vec<String>,
}

/// Which measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Which {
    /// On which link.
    pub link: String,
    /// Of whom.
    pub subject: Subject,
    /// What.
    pub case: &'static str,
    /// With which chances.
    pub seed: u64,
}

/// Makes the link, starts everything, measures, and removes it all.
///
/// # Errors
/// Whatever could not be started, or ended by itself.
///
/// # Cancel safety
/// Dropping the future ends and removes everything.
pub async fn measure(
    setting: &Arc<Setting>,
    profile: &Profile,
    subject: &Subject,
    case: &'static Case,
    seed: u64,
) -> anyhow::Result<Found> {
    let (setting, profile, subject) = (setting.clone(), profile.clone(), subject.clone());
    apart(move || async move {
        let mut stage = Stage::set(&profile, seed, &[&subject])?;
        let mut running = subject.start(&setting, &stage).await?;
        let timing = setting.timing;
        let found = match case.kind {
            Kind::Alone => alone(&mut stage, &running, timing).await,
            Kind::Bulk(direction, dials) => flowing(&mut stage, &running, timing, direction, (dials, false)).await,
            Kind::Beside(direction, dials) => flowing(&mut stage, &running, timing, direction, (dials, true)).await,
        };
        // A program that ended tells more than what failed with it.
        running.check()?;
        let doubts = stage.link.stats()?.doubts();
        Ok(Found { doubts, ..found? })
    })
    .await
}

async fn alone(stage: &mut Stage, running: &Running, timing: Timing) -> anyhow::Result<Found> {
    let (path, targets) = (&running.path, stage.targets());
    let mut works = Works::new();
    let echo = works.echoes(path, targets.echo(0), ECHOES);
    let dial = works.dials(path, targets.echo(0), DIALS);
    sleep(timing.before).await;
    let start = Instant::now();
    sleep(timing.window).await;
    let window = start..Instant::now();
    let echo = echo.of(window.clone(), timing.patience).await;
    let dial = dial.of(window, timing.patience).await;
    drop(works);
    let mut figures = latencies(&echo, &dial);
    let mut failed = echo.failed + dial.failed;
    for (metric, bytes) in [(Metric::Fetch10k, 10_000), (Metric::Fetch1m, 1_000_000)] {
        let mut works = Works::new();
        let start = Instant::now();
        let log = works.fetches(path, targets.object(), bytes);
        sleep(timing.window / 2).await;
        let fetches = log.of(start..Instant::now(), timing.patience).await;
        figures.push((metric, fetches.quantile(0.5)));
        failed += fetches.failed;
    }
    figures.push((Metric::Failed, failed as f64));
    Ok(Found { figures, echo, dial, doubts: Vec::new() })
}

/// Bulk; with something beside it, or not.
async fn flowing(
    stage: &mut Stage,
    running: &Running,
    timing: Timing,
    direction: Direction,
    (dials, with_others): (usize, bool),
) -> anyhow::Result<Found> {
    let path = &running.path;
    let mut works = Works::new();
    let beside = with_others.then(|| {
        let target = stage.targets().echo(0);
        (works.echoes(path, target, ECHOES), works.dials(path, target, DIALS))
    });
    if with_others {
        sleep(timing.before).await;
    }
    let bulk = works.bulk(path, stage.targets(), direction, dials);
    sleep(timing.ramp).await;
    let before = reading(stage, &bulk).await?;
    let start = Instant::now();
    sleep(timing.window).await;
    let window = start..Instant::now();
    let after = reading(stage, &bulk).await?;
    let mut figures = flow(direction, before, after);
    let ended = bulk.ended() as f64;
    let Some((echo, dial)) = beside else {
        figures.push((Metric::Failed, ended));
        return Ok(Found { figures, ..Found::default() });
    };
    let echo = echo.of(window.clone(), timing.patience).await;
    let dial = dial.of(window, timing.patience).await;
    figures.extend(latencies(&echo, &dial));
    figures.push((Metric::Failed, ended + (echo.failed + dial.failed) as f64));
    Ok(Found { figures, echo, dial, doubts: Vec::new() })
}

async fn reading(stage: &mut Stage, bulk: &Bulk) -> anyhow::Result<(Arrived, Stats)> {
    let arrived = bulk.arrived(stage.targets_mut()).await?;
    Ok((arrived, stage.link.stats()?))
}

fn latencies(echo: &Latencies, dial: &Latencies) -> Figures {
    vec![
        (Metric::EchoP50, echo.quantile(0.5)),
        (Metric::EchoP99, echo.quantile(0.99)),
        (Metric::DialP50, dial.quantile(0.5)),
        (Metric::DialP99, dial.quantile(0.99)),
    ]
}

fn flow(direction: Direction, before: (Arrived, Stats), after: (Arrived, Stats)) -> Figures {
    let bytes = (after.0.bytes - before.0.bytes) as f64;
    let seconds = (after.0.time - before.0.time).as_secs_f64();
    let [before, after] = [&before.1, &after.1].map(|stats| one_way(stats, direction));
    let entered = (after.path.offered - before.path.offered) as f64;
    let dropped = (after.path.dropped.queue_full - before.path.dropped.queue_full) as f64;
    let queue = after.path.queue_delay.since(&before.path.queue_delay);
    let [p50, p99] = [0.5, 0.99].map(|part| queue.percentile(part).as_secs_f64() * 1e3);
    vec![
        (Metric::Goodput, bytes * 8e-6 / seconds),
        (Metric::PacketsPerNeeded, if bytes > 0.0 { entered / (bytes / PAYLOAD) } else { f64::INFINITY }),
        (Metric::QueueP50, p50),
        (Metric::QueueP99, p99),
        (Metric::QueueLoss, 100.0 * dropped / entered.max(1.0)),
    ]
}

/// Targets are at the site, clients in the cloud.
fn one_way(stats: &Stats, direction: Direction) -> &OneWay {
    stats.one_way(match direction {
        Direction::ToClient => Way::Up,
        Direction::ToTarget => Way::Down,
    })
}
