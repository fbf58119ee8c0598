//! Dial, one echo, close; and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use tokio::task::JoinSet;

use super::Window;
use super::echo::{self, Latencies, Recorder};
use super::path::Path;
use super::targets::Targets;
use crate::peer::Pair;

/// So many do it at the same time, each as fast as it can.
///
/// # Errors
/// The first dial or echo that fails.
pub async fn run(
    path: &Path,
    targets: &Targets,
    pair: Option<&Pair>,
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
        let (path, next, echoes) = (path.clone(), next.clone(), echoes.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                recorder.begin();
                let mut dial = path.dial(echoes[n % echoes.len()]).await?;
                echo::once(&mut dial, n as u64).await?;
                drop(dial);
                recorder.end();
            }
            #[expect(unreachable_code, reason = "it names the type of the error")]
            anyhow::Ok(())
        });
    }
    let latencies = echo::watch(&recorders, pair, window).await?;
    if let Some(ended) = tasks.try_join_next() {
        ended?.context("dial, echo and close failed")?;
    }
    tasks.shutdown().await;
    Ok(latencies)
}
