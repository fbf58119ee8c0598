//! What clients do on a bad link: everything goes on for ever, what fails is counted and tried again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::log::Log;
use crate::load::bulk::{self, Direction};
use crate::load::echo;
use crate::load::path::{Dial, Path};
use crate::load::targets::Targets;

/// Before it is tried again.
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);
/// An answer that takes longer never comes: the limit of dials, for what follows them.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Tasks that end when this is dropped.
#[derive(Default)]
pub struct Works {
    tasks: JoinSet<()>,
}

/// Bytes on the way in one direction.
#[derive(Debug, Clone)]
pub struct Bulk {
    direction: Direction,
    to_client: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

/// What has arrived, and when.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Bytes; counted where they arrive.
    pub bytes: u64,
    /// By the clock of whoever counts.
    pub time: Duration,
}

impl Works {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many dials on which one echo follows the other.
    pub fn echoes(&mut self, path: &Path, target: SocketAddr, count: usize) -> Log {
        let log = Log::default();
        for _ in 0..count {
            self.tasks.spawn(echo_again(path.clone(), target, log.clone()));
        }
        log
    }

    /// So many that dial, echo once, and close.
    pub fn dials(&mut self, path: &Path, target: SocketAddr, count: usize) -> Log {
        let log = Log::default();
        for _ in 0..count {
            let path = path.clone();
            self.tasks.spawn(again(log.clone(), move || {
                let path = path.clone();
                async move {
                    let mut dial = path.dial(target).await?;
                    echo::once(&mut dial, 0).await?;
                    dial.close().await.context("cannot close")
                }
            }));
        }
        log
    }

    /// Fetches an object of so many bytes on a fresh dial, again and again.
    pub fn fetches(&mut self, path: &Path, target: SocketAddr, bytes: u64) -> Log {
        let log = Log::default();
        let path = path.clone();
        self.tasks.spawn(again(log.clone(), move || {
            let path = path.clone();
            async move { fetch(path.dial(target).await?, bytes).await }
        }));
        log
    }

    /// So many dials that carry what goes, one way.
    pub fn bulk(&mut self, path: &Path, targets: &Targets, direction: Direction, count: usize) -> Bulk {
        let flow = Bulk { direction, to_client: Arc::default(), ended: Arc::default() };
        let target = match direction {
            Direction::ToClient => targets.source(),
            Direction::ToTarget => targets.sink(),
        };
        for _ in 0..count {
            self.tasks.spawn(bulk_again(path.clone(), target, flow.clone()));
        }
        flow
    }
}

impl Bulk {
    /// Dials that ended, or could not be made, so far.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Bytes that have come to clients so far.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    /// What has arrived so far. Of several that go to targets, all together.
    ///
    /// # Errors
    /// When the targets are gone.
    pub async fn arrived(&self, targets: &mut Targets) -> anyhow::Result<Arrived> {
        Ok(match self.direction {
            Direction::ToClient => Arrived { bytes: self.to_client.load(Ordering::Relaxed), time: since_start() },
            Direction::ToTarget => {
                let counters = targets.counters().await?;
                Arrived { bytes: counters.received, time: counters.time }
            }
        })
    }
}

fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

async fn again<F: Future<Output = anyhow::Result<()>>>(log: Log, attempt: impl Fn() -> F) {
    loop {
        let number = log.begin();
        let well = matches!(timeout(2 * ANSWER_WITHIN, attempt()).await, Ok(Ok(())));
        log.end(number, well);
        if !well {
            sleep(AFTER_A_FAILURE).await;
        }
    }
}

async fn echo_again(path: Path, target: SocketAddr, log: Log) {
    loop {
        if let Ok(mut dial) = path.dial(target).await {
            // The first proves the dial, which may be slow to open; it is not counted.
            let mut number = None;
            for n in 0.. {
                let answered = timeout(ANSWER_WITHIN, echo::once(&mut dial, n)).await;
                let well = matches!(answered, Ok(Ok(())));
                if let Some(number) = number {
                    log.end(number, well);
                }
                if !well {
                    break;
                }
                number = Some(log.begin());
            }
        }
        sleep(AFTER_A_FAILURE).await;
    }
}

async fn fetch(mut dial: Dial, bytes: u64) -> anyhow::Result<()> {
    dial.write_u64(bytes).await.context("cannot ask")?;
    dial.flush().await.context("cannot ask")?;
    let mut chunk = vec![0; 64 * 1024];
    let mut got = 0;
    loop {
        match dial.read(&mut chunk).await.context("cannot read")? {
            0 => break,
            length => got += length as u64,
        }
    }
    ensure!(got == bytes, "{got} of {bytes} bytes came");
    Ok(())
}

async fn bulk_again(path: Path, target: SocketAddr, flow: Bulk) {
    loop {
        if let Ok(dial) = path.dial(target).await {
            let _ = match flow.direction {
                Direction::ToClient => bulk::download(dial, flow.to_client.clone()).await,
                Direction::ToTarget => bulk::upload(dial).await,
            };
        }
        flow.ended.fetch_add(1, Ordering::Relaxed);
        sleep(AFTER_A_FAILURE).await;
    }
}
