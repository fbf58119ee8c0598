//! Dials whose receiver does not read: bytes pile up until the sender is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::bulk::Direction;
use super::path::{Dial, Path};
use super::targets::Targets;

/// Bytes have stopped when none was taken for this long.
const QUIET: Duration = Duration::from_millis(400);

/// Stalled dials; they end when this is dropped.
#[derive(Default)]
pub struct Stalled {
    /// Downloads that nobody reads.
    unread: Vec<Dial>,
    /// Uploads to targets that do not read.
    uploads: JoinSet<()>,
    /// Bytes that were taken before all came to a halt.
    pub taken: u64,
}

impl Stalled {
    /// Opens dials, then lets bytes flow on all of them, and waits until none flows, `at_most` so long.
    ///
    /// # Errors
    /// A dial that fails.
    pub async fn start(
        path: &Path,
        targets: &mut Targets,
        direction: Direction,
        count: usize,
        at_most: Duration,
    ) -> anyhow::Result<Self> {
        let target = match direction {
            Direction::ToClient => targets.source(),
            Direction::ToTarget => targets.stalled(),
        };
        // All are dialled before the first stalls: where one stalled dial stops all others, no further one would come about.
        let mut dials = Vec::with_capacity(count);
        for _ in 0..count {
            dials.push(path.dial(target).await?);
        }
        let mut stalled = Self::default();
        let written = Arc::new(AtomicU64::new(0));
        for mut dial in dials {
            match direction {
                Direction::ToClient => {
                    dial.write_all(&[0]).await?;
                    dial.flush().await?;
                    stalled.unread.push(dial);
                }
                Direction::ToTarget => {
                    stalled.uploads.spawn(upload(dial, written.clone()));
                }
            }
        }
        stalled.taken = settle(targets, direction, &written, at_most).await?;
        Ok(stalled)
    }

    /// Ends the dials at both ends: what a target has not read would else keep its dial.
    ///
    /// # Errors
    /// When the targets are gone.
    pub async fn end(self, targets: &mut Targets) -> anyhow::Result<()> {
        drop(self);
        targets.release().await
    }
}

async fn settle(
    targets: &mut Targets,
    direction: Direction,
    written: &AtomicU64,
    at_most: Duration,
) -> anyhow::Result<u64> {
    let start = Instant::now();
    let (mut last, mut changed) = (0, start);
    while changed.elapsed() < QUIET && start.elapsed() < at_most {
        let taken = match direction {
            Direction::ToClient => targets.counters().await?.sent,
            Direction::ToTarget => written.load(Ordering::Relaxed),
        };
        if taken != last {
            (last, changed) = (taken, Instant::now());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(last)
}

async fn upload(mut dial: Dial, written: Arc<AtomicU64>) {
    let chunk = vec![0xa5; 128 * 1024];
    while let Ok(length @ 1..) = dial.write(&chunk).await {
        written.fetch_add(length as u64, Ordering::Relaxed);
    }
    // An end is not what was asked for, but the echoes beside it show whether it mattered.
    std::future::pending().await
}
