//! Measures an agent in a control group; `scripts/memory.sh` builds what it needs and runs it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use konnectivity_interop::{load::targets, memory};
use tokio::signal::unix::{SignalKind, signal};

/// Measures the memory of an agent that may have only so much.
#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    command: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Measures
    Measure(memory::Options),
    /// (used by the program itself) The process with the targets.
    #[command(hide = true, name = targets::COMMAND)]
    Targets,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Command::parse().command {
        Kind::Targets => targets::serve().await,
        Kind::Measure(options) => until_told_to_stop(&options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told_to_stop(options: &memory::Options) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whatever was started is stopped when the run is dropped.
    tokio::select! {
        result = memory::run(options) => result,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("told to stop"),
    }
}
