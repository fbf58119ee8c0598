//! proxy-server: takes dials from kube-apiserver and carries them to agents.
//!
//! ```text
//! client --> frontend --> dial --> strategy --> registry --> backend ===== QUIC connection ===== proxy-agent
//!                          |                                    one stream for each dial
//!                          +--> relay, on the worker that carries the backend
//! ```

mod accept;
mod admin;
mod app;
mod auth;
mod backend;
mod config;
mod dial;
mod frontend;
mod grpc;
mod http2;
mod lease;
mod membership;
mod metrics;
mod options;
mod strategy;
mod worker;

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
    // This thread only waits for signals and answers probes; traffic is on the workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(app::run(config));
    // A look at a certificate on a disk that hangs must not hold the process up.
    runtime.shutdown_background();
    result
}
