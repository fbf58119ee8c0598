//! proxy-agent: dials out to the proxy-servers and connects to targets for them.
//!
//! ```text
//! server_set --> server_connection ===== QUIC connection ===== proxy-server
//!                      |   one stream for each dial
//!                      +--> dial --> target (look-up, happy eyeballs, TCP) --> relay
//! ```

mod admin;
mod app;
mod backoff;
mod config;
mod dial;
mod happy_eyeballs;
mod lease_count;
mod metrics;
mod options;
mod server_connection;
mod server_set;
mod target;
mod token;

use std::process::ExitCode;

use konnectivity_process::{exit::failure, memory_limit::MemoryLimit, open_files};

use crate::config::Config;

fn main() -> ExitCode {
    let config = match Config::load(std::env::args_os(), |name| std::env::var(name).ok()) {
        Ok(config) => config.within(MemoryLimit::of_this_process()),
        Err(exit) => return exit.report(),
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error).report(),
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    config.logging.start()?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    open_files::raise();
    // One thread carries everything: its dials share it with the QUIC connection, so that no lock is contended.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(app::run(config));
    // A look-up that hangs in the system's resolver must not hold the process up.
    runtime.shutdown_background();
    result
}
