//! The benchmark: direct TCP, the Go reference and this project's programs, side by side in one run.
//!
//! Rounds are interleaved: in each round every case is measured on every subject, right after one another, in turning
//! order, each with freshly started programs. The report shows medians, and ratios of medians.
//!
//! - [`options`]: what was asked for.
//! - [`case`]: what is measured, and the figures that come of it.
//! - [`way`]: the frontends by which it is measured.
//! - [`mod@measure`]: one case on one subject.
//! - [`goal`]: what must be reached.
//! - [`results`]: all figures of a run; [`markdown`]: as a table; [`machine`]: where it ran.

pub mod case;
pub mod goal;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod options;
pub mod results;
pub mod way;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::certificates::Folder;
use case::{CASES, Case};
use machine::Machine;
use measure::Bench;
use options::Options;
use results::{Lane, Results};

/// How this run was started, for a report: `scripts/bench.sh` and what followed.
pub(crate) fn command_line() -> String {
    std::env::args().skip(1).fold("scripts/bench.sh".to_owned(), |line, argument| line + " " + &argument)
}

/// Runs the whole benchmark, writes what was asked for, and prints the table.
///
/// # Errors
/// When nothing can be started, a file cannot be written, or a measurement failed (the others are reported all the same).
///
/// # Cancel safety
/// Dropping the future stops every program that was started.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    raise_file_limit()?;
    let folder = RunFolder::new()?;
    let bench = Bench {
        makes: options.makes()?,
        certificates: Folder::write(&folder.0.join("certificates"), &[])?,
        folder: folder.0.clone(),
        timing: options.timing(),
    };
    let mut results = Results::new(Machine::look(), command_line(), options.rounds_text(), options.ways());
    if results.machine.is_busy() {
        eprintln!("the load average is {}: others use this machine, ratios may be off", results.machine.load_before);
    }
    let lanes = options.lanes();
    let cases: Vec<&Case> = CASES.iter().filter(|case| options.wants(case)).collect();
    if cases.is_empty() {
        bail!("no case has a name that --only asks for; cases: {}", case::keys());
    }
    let rounds = |case: &Case, lane: Lane| options.rounds_of(case, lane.subject());
    let most = cases.iter().flat_map(|case| lanes.iter().map(|lane| rounds(case, *lane))).max().unwrap_or(0);
    for round in 0..most {
        for (turn, case) in cases.iter().enumerate() {
            let places = (0..lanes.len()).map(|place| lanes[(place + round + turn) % lanes.len()]);
            for lane in places.filter(|lane| round < rounds(case, *lane)) {
                measure(&bench, &mut results, lane, case, round).await;
            }
        }
    }
    write_out(options, &results)?;
    match results.failures.len() {
        0 => Ok(()),
        count => bail!("{count} measurements failed"),
    }
}

async fn measure(bench: &Bench, results: &mut Results, lane: Lane, case: &Case, round: usize) {
    let place = format!("round {} {:8} {:9} {:22}", round + 1, lane.way_key(), lane.subject().key(), case.key);
    match bench.measure(lane, case).await {
        Ok(figures) => {
            let shown: Vec<_> = figures.iter().map(|(metric, value)| metric.show_with_unit(*value)).collect();
            eprintln!("{place} {}", shown.join(", "));
            results.add(lane, case, figures);
        }
        Err(error) => {
            eprintln!("{place} FAILED: {error:#}");
            results.fail(lane, case, round, &error);
        }
    }
}

fn write_out(options: &Options, results: &Results) -> anyhow::Result<()> {
    let table = markdown::table(results);
    println!("{table}");
    if let Some(path) = &options.json {
        write(path, &serde_json::to_string_pretty(results).context("cannot write the figures as JSON")?)?;
    }
    if let Some(path) = &options.markdown {
        write(path, &markdown::report(results))?;
    }
    if options.write_docs {
        write(Path::new("docs/benchmarks.md"), &markdown::document(results))?;
    }
    Ok(())
}

pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

/// Lets this process, and so those that it starts, open as many files as it may.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}

/// Holds certificates, sockets and logs of one run; its path is short, as those of Unix sockets must be.
pub(crate) struct RunFolder(pub PathBuf);

impl RunFolder {
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("konnectivity-bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
