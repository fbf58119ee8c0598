//! Dial, one echo, close; and again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use tokio::task::JoinSet;

use super::Window;
use super::echo::{self, Latencies, Recorder};
use super::meter::Meter;
use super::path::Path;
use super::targets::Targets;

/// So many do it at the same time, each as fast as it can.
///
/// # Errors
/// The first dial or echo that fails.
pub async fn run(
    path: &Path,
    targets: &Targets,
    meter: Meter<'_>,
    parallel: usize,
    window: Window,
) -> anyhow::Result<Latencies> {
    let mut tasks = JoinSet::new();
    let mut recorders = Vec::with_capacity(parallel);
    let next = Arc::new(AtomicUsize::new(0));
    let echoes: Arc<[_]> = (0..16).map(|n| targets.echo(n)).collect();
    for _ in 0..parallel {
        let recorder = Recorder::default();
        recorders.push(recorder.clone());
        tasks.spawn(again(path.clone(), echoes.clone(), next.clone(), recorder));
    }
    let latencies = echo::watch(&recorders, meter, window).await?;
    if let Some(ended) = tasks.try_join_next() {
        let Err(error) = ended?;
        return Err(error.context("dial, echo and close failed"));
    }
    tasks.shutdown().await;
    Ok(latencies)
}

/// For ever, or until the first error.
async fn again(
    path: Path,
    echoes: Arc<[SocketAddr]>,
    next: Arc<AtomicUsize>,
    recorder: Recorder,
) -> Result<Infallible, anyhow::Error> {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        recorder.begin();
        let mut dial = path.dial(echoes[n % echoes.len()]).await?;
        echo::once(&mut dial, n as u64).await?;
        dial.close().await.context("cannot close")?;
        recorder.end();
    }
}
