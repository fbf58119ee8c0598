//! The benchmark program; `scripts/bench.sh` builds what it needs and runs it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use konnectivity_interop::bench::{self, options::Options};
use konnectivity_interop::load::targets;
use konnectivity_interop::wan;
use tokio::signal::unix::{SignalKind, signal};

/// Compares direct TCP, the Go reference and this project's programs in one run.
#[derive(Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    command: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Everything on this machine, over loopback.
    Loopback(Box<Options>),
    /// Over emulated bad links, in network namespaces. Needs root.
    Wan(Box<wan::options::Options>),
    /// (used by the benchmark itself) The process with the targets.
    #[command(hide = true, name = targets::COMMAND)]
    Targets,
}

// One thread: the load is to come from one core at most, and from no work-stealing scheduler.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Command::parse().command {
        Kind::Targets => targets::serve().await,
        Kind::Loopback(options) => until_told_to_stop(bench::run(&options)).await,
        Kind::Wan(options) => until_told_to_stop(wan::run(&options)).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told_to_stop(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    // Whatever was started is stopped when the run is dropped.
    tokio::select! {
        result = run => result,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("told to stop"),
        _ = hangup.recv() => anyhow::bail!("told to stop"),
    }
}
