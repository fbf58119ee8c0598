//! The move of a running cluster, tried; `scripts/migration.sh` builds what it needs and runs it.

use std::process::ExitCode;

use clap::Parser;
use konnectivity_interop::migration::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

// One thread, as the load of the benchmark: the programs need the other cores.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match until_told_to_stop(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("migration: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told_to_stop(options: &Options) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whatever was started is stopped when the run is dropped.
    tokio::select! {
        result = migration::run(options) => result,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("told to stop"),
    }
}
