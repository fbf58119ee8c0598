//! Measures where CPU time goes: at every tick of the process's CPU clock, the thread that runs notes its stack.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use pprof::{ProfilerGuard, ProfilerGuardBuilder, UnresolvedReport};
use prost::Message;
use tokio::{task::spawn_blocking, time::sleep};

use super::proto::Builder;

/// As in Go.
pub const DEFAULT_SECONDS: u16 = 30;
/// A longer profile holds more stacks than are worth looking at.
pub const MAX_SECONDS: u16 = 300;

/// Stacks in a second of CPU time. A round number could beat in step with timers.
const FREQUENCY: i32 = 99;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Somebody else's is being made.
    #[error("another CPU profile is being taken; try again when it is done")]
    Running,
    /// It cannot be begun.
    #[error("cannot begin a CPU profile: {0}; it needs a folder for temporary files that can be written to (TMPDIR)")]
    Start(pprof::Error),
    /// What was measured cannot be had.
    #[error("cannot finish a CPU profile: {0}")]
    Finish(String),
}

/// A profile of all threads over so many seconds, as the gzip of a `profile.proto`.
///
/// # Errors
/// See [`ProfileError`].
///
/// # Cancel safety
/// Dropping the future ends the measurement.
pub async fn profile(seconds: u16) -> Result<Vec<u8>, ProfileError> {
    // What takes long is not done on the thread that answers probes.
    let guard = blocking(start).await??;
    sleep(Duration::from_secs(seconds.into())).await;
    blocking(move || {
        let report = guard.report().build_unresolved().map_err(|error| ProfileError::Finish(error.to_string()))?;
        drop(guard);
        Ok(packed(report))
    })
    .await?
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ProfileError> {
    spawn_blocking(work).await.map_err(|error| ProfileError::Finish(error.to_string()))
}

/// Begins to measure, until the guard is dropped.
pub(super) fn start() -> Result<ProfilerGuard<'static>, ProfileError> {
    // The kernel's page of functions cannot be unwound everywhere.
    let profiler = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&["vdso"]);
    profiler.build().map_err(|error| match error {
        pprof::Error::Running => ProfileError::Running,
        error => ProfileError::Start(error),
    })
}

fn packed(report: UnresolvedReport) -> Vec<u8> {
    let timing = report.timing;
    let mut builder = Builder::new(timing.start_time, timing.duration, FREQUENCY);
    for (stack, count) in report.data {
        builder.add(&stack.into(), count);
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let profile = builder.finish().encode_to_vec();
    gzip.write_all(&profile).and_then(|()| gzip.finish()).expect("writing to memory does not fail")
}
