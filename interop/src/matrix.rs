//! The interop matrix: every pairing of programs, through every front, in every scenario, as real processes.
//!
//! ```text
//! plan (columns x scenarios) --> jobs --> a thread for each job: cells, one after the other --> report
//!                                           |-- fleet: servers and agents     |-- client --> front
//!                                           `-- scenario(cell)                `-- open: both ends of a dial
//! ```
//!
//! - [`mod@column`]: server, agent, carrier and front; [`scenario`]: what is done with them.
//! - [`options`], [`plan`]: what was asked for, and the jobs that come of it.
//! - [`runner`]: runs jobs side by side; [`cell`]: what a scenario has in its hand.
//! - [`fleet`], [`programs`]: servers and agents of either make; [`logs`]: what they logged; [`balancer`]: one address
//!   for several servers.
//! - [`client`], [`open`]: dials, and what is done with them.
//! - [`required`]: which cells must pass; [`report`], [`table`]: what came of them.
//!
//! The scenarios: [`first`], [`failures`], [`stalls`], [`life`], [`several`], [`drains`], [`udp`].

pub mod balancer;
pub mod cell;
pub mod client;
pub mod column;
pub mod drains;
pub mod failures;
pub mod first;
pub mod fleet;
pub mod life;
pub mod logs;
pub mod open;
pub mod options;
pub mod plan;
pub mod programs;
pub mod report;
pub mod required;
pub mod runner;
pub mod scenario;
pub mod several;
pub mod stalls;
pub mod table;
pub mod udp;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use options::Options;
use report::Report;
use required::Required;
use runner::Runner;

/// Runs what was asked for and reports it; when `stop` is cancelled, what has run until then.
///
/// # Errors
/// When nothing could be started or written, or a required cell has failed.
///
/// # Cancel safety
/// Not cancel safe: cancel `stop` and wait, so that every program is ended.
pub async fn run(options: &Options, stop: &CancellationToken) -> anyhow::Result<()> {
    let required = Required::read(&options.required)?;
    let jobs = plan::jobs(options)?;
    if options.list {
        for (column, scenario) in jobs.iter().flat_map(plan::Job::cells) {
            let must = if required.contains(column, scenario.key) { "required" } else { "" };
            println!("{column}/{} {must}", scenario.key);
        }
        return Ok(());
    }
    let start = Instant::now();
    let runner = Runner::new(options)?;
    let report = Report::new(runner.run(jobs, &required, stop).await?, options.size(), start.elapsed());
    let text = table::text(&report);
    println!("\n{text}");
    write(&options.out.join("matrix.md"), &table::markdown(&report))?;
    write(&options.out.join("matrix.json"), &serde_json::to_string_pretty(&report)?)?;
    if options.write_docs {
        let path = Path::new("docs/interop.md");
        let document = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        write(path, &table::embedded(&document, &report)?)?;
    }
    println!("every cell's logs: {}/SERVER-AGENT/CARRIER/FRONT/SCENARIO/", options.out.display());
    match report.failed() {
        0 => Ok(()),
        count => bail!("{count} required cells have failed"),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
