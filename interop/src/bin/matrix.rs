//! The interop matrix; `scripts/interop.sh` builds what it needs and runs it.

use std::pin::pin;
use std::process::ExitCode;

use clap::Parser;
use konnectivity_interop::matrix::{self, options::Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match until_told_to_stop(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("matrix: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told_to_stop(options: &Options) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let mut run = pin!(matrix::run(options, &stop));
    tokio::select! {
        result = &mut run => return result,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("matrix: told to stop; ending all programs");
    stop.cancel();
    run.await
}
