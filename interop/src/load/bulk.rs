//! As many bytes as will go, one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::Window;
use super::meter::{Cpu, Meter};
use super::path::{Dial, Path};
use super::targets::Targets;

const CHUNK_BYTES: usize = 128 * 1024;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the target: a download.
    ToClient,
    /// To the target: an upload.
    ToTarget,
}

/// What was carried.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// Bytes that arrived.
    pub bytes: u64,
    /// In this time.
    pub time: Duration,
    /// For this CPU time.
    pub cpu: Cpu,
}

/// Carries bytes on so many dials at once; what arrives is counted where it arrives.
///
/// # Errors
/// A dial that fails or ends before its time, or a window in which nothing arrived.
pub async fn run(
    path: &Path,
    targets: &mut Targets,
    meter: Meter<'_>,
    direction: Direction,
    dials: usize,
    window: Window,
) -> anyhow::Result<Carried> {
    let arrived = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..dials {
        match direction {
            Direction::ToClient => {
                let dial = path.dial(targets.source()).await?;
                tasks.spawn(download(dial, arrived.clone()));
            }
            Direction::ToTarget => {
                let dial = path.dial(targets.sink()).await?;
                tasks.spawn(upload(dial));
            }
        }
    }
    tokio::time::sleep(window.ramp).await;
    let start = reading(targets, meter, direction, &arrived).await?;
    tokio::time::sleep(window.length).await;
    let end = reading(targets, meter, direction, &arrived).await?;
    if let Some(ended) = tasks.try_join_next() {
        bail!("a dial ended before its time: {}", ended??);
    }
    tasks.shutdown().await;
    let carried = Carried { bytes: end.bytes - start.bytes, time: end.time - start.time, cpu: end.cpu - start.cpu };
    if carried.bytes == 0 {
        bail!("nothing arrived in {:?}", carried.time);
    }
    Ok(carried)
}

async fn reading(
    targets: &mut Targets,
    meter: Meter<'_>,
    direction: Direction,
    arrived: &AtomicU64,
) -> anyhow::Result<Carried> {
    let (bytes, time) = match direction {
        Direction::ToClient => (arrived.load(Ordering::Relaxed), since_start()),
        Direction::ToTarget => {
            let counters = targets.counters().await?;
            (counters.received, counters.time)
        }
    };
    Ok(Carried { bytes, time, cpu: meter.read()? })
}

/// A clock for [`Carried::time`] where the targets' own is not used.
fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Reads from a source as fast as it can, and counts, to the end of the dial.
pub(crate) async fn download(mut dial: Dial, arrived: Arc<AtomicU64>) -> std::io::Result<&'static str> {
    dial.write_all(&[0]).await?;
    dial.flush().await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match dial.read(&mut chunk).await? {
            0 => return Ok("end of file"),
            length => arrived.fetch_add(length as u64, Ordering::Relaxed),
        };
    }
}

/// Writes to a sink as fast as it takes it, to the end of the dial.
pub(crate) async fn upload(mut dial: Dial) -> std::io::Result<&'static str> {
    let chunk = vec![0xa5; CHUNK_BYTES];
    loop {
        if dial.write(&chunk).await? == 0 {
            return Ok("it takes no more");
        }
    }
}
