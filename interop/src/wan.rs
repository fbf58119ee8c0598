//! The benchmark on bad links: direct TCP, `ssh -L`, the Go reference and this project's programs.
//!
//! ```text
//!   cloud's namespace                      emulated link       site's namespace
//!  clients (one thread) --> server, ssh ==================== agent, sshd --> targets (one thread)
//! ```
//!
//! Each measurement has a fresh link and freshly started programs. All subjects have the same links with the same seeds;
//! they take turns. Medians are over seeds.
//!
//! - [`options`]: what was asked for; [`setting`]: what all measurements share.
//! - [`case`]: what is measured, and the figures that come of it; [`goal`]: what must be reached.
//! - [`subject`]: what it is measured on; [`ssh`]: one of them.
//! - [`mod@measure`]: one case on one subject, on a [`stage`], on a thread [`mod@apart`].
//! - [`work`]: what clients do; [`log`]: how long it took.
//! - [`fairness`], [`timeline`], [`sweep`]: other measurements than cases; [`parts`]: all of each.
//! - [`results`]: all figures of a run; [`markdown`]: as tables; [`plot`]: as pictures.

pub mod apart;
pub mod case;
pub mod fairness;
pub mod goal;
pub mod log;
pub mod markdown;
pub mod measure;
pub mod options;
pub mod parts;
pub mod plot;
pub mod results;
pub mod setting;
pub mod ssh;
pub mod stage;
pub mod subject;
pub mod sweep;
pub mod timeline;
pub mod work;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::bench::machine::Machine;
use crate::bench::{self, RunFolder};
use crate::certificates::Folder;
use crate::link::netns::Namespace;
use crate::link::profile::Profile;
use crate::link::{self, Link};
use case::Case;
use measure::{Which, measure};
use options::Options;
use results::Results;
use setting::Setting;
use ssh::Ssh;
use subject::{Kind, Subject};

/// Runs the whole benchmark, writes what was asked for, and prints the tables.
///
/// # Errors
/// When nothing can be started, a file cannot be written, or a measurement failed (the others are reported all the same).
///
/// # Cancel safety
/// Dropping the future stops every program and removes every namespace.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    Link::possible()?;
    bench::raise_file_limit()?;
    let (links, cases) = (options.links()?, options.cases()?);
    let mut results = Results::new(Machine::look(), bench::command_line());
    let subjects = possible(options.subjects(), &mut results)?;
    let folder = RunFolder::new()?;
    let (ours, go) = options.makes(&subjects)?;
    let certificates = Folder::write(&folder.0.join("certificates"), &[link::CLOUD_IPV4.to_string()])?;
    let setting = Arc::new(Setting { ours, go, certificates, folder: folder.0.clone(), timing: options.timing() });
    rows(options, &setting, &mut results, (&links, &cases, &subjects)).await;
    if options.wants("sweep") {
        parts::sweep(options, &setting, &mut results, &subjects).await;
    }
    if options.wants("lines") {
        parts::lines(options, &setting, &mut results, &subjects).await;
    }
    if options.wants("fairness") {
        parts::fairness(options, &setting, &mut results, &subjects).await;
    }
    write_out(options, &results)?;
    if options.keep {
        eprintln!("logs are in {}", folder.0.display());
        std::mem::forget(folder);
    }
    match results.failures.len() {
        0 => Ok(()),
        count => bail!("{count} measurements failed"),
    }
}

/// Leaves out who cannot be measured here, and says why.
fn possible(subjects: Vec<Subject>, results: &mut Results) -> anyhow::Result<Vec<Subject>> {
    let namespace = Namespace::create("possible")?;
    let why_not = |subject: &Subject| {
        if let (Kind::Ssh, Some(missing)) = (subject.kind, Ssh::missing()) {
            return Some(missing);
        }
        let name = subject.congestion_control.as_deref().filter(|_| !subject.is_ours())?;
        namespace.set_congestion_control(name).err().map(|error| error.to_string())
    };
    let mut left = Vec::new();
    for subject in subjects {
        match why_not(&subject) {
            None => left.push(subject),
            Some(why) => {
                eprintln!("{subject} is left out: {why}");
                results.skipped.push(format!("{subject}: {why}"));
            }
        }
    }
    if left.is_empty() {
        bail!("no subject can be measured here");
    }
    Ok(left)
}

/// Links, then seeds, then cases, then subjects: what is compared is measured right after one another, in turning order.
async fn rows(
    options: &Options,
    setting: &Arc<Setting>,
    results: &mut Results,
    (links, cases, subjects): (&[Profile], &[&'static Case], &[Subject]),
) {
    let all = || subjects.iter().flat_map(|of| cases.iter().map(move |case| options.seeds(of, case)));
    let most = all().map(|seeds| seeds.end).max().unwrap_or(0);
    for link in links {
        for seed in options.seed..most {
            for (turn, case) in cases.iter().enumerate() {
                let places = (0..subjects.len()).map(|place| &subjects[(place + turn) % subjects.len()]);
                for subject in places.filter(|of| options.seeds(of, case).contains(&seed)) {
                    row(setting, results, link, subject, case, seed).await;
                }
            }
        }
    }
}

/// What is doubtful is measured once more; the second time counts, whatever it is like.
async fn row(
    setting: &Arc<Setting>,
    results: &mut Results,
    link: &Profile,
    subject: &Subject,
    case: &'static Case,
    seed: u64,
) {
    let place = format!("{:20} seed {seed} {:18} {subject:12}", link.name, case.key);
    let which = || Which { link: link.name.clone(), subject: subject.clone(), case: case.key, seed };
    for is_last in [false, true] {
        match measure(setting, link, subject, case, seed).await {
            Ok(found) => {
                let shown: Vec<_> = found
                    .figures
                    .iter()
                    .map(|(metric, value)| format!("{} {}", metric.title(), metric.show(*value)))
                    .collect();
                eprintln!("{place} {}", shown.join("; "));
                if found.doubts.is_empty() || is_last {
                    results.add(which(), found);
                    return;
                }
                eprintln!("{place} DOUBTFUL: {}; once more", found.doubts.join("; "));
            }
            Err(error) if is_last => {
                eprintln!("{place} FAILED: {error:#}");
                results.fail(format!("{} on {}, {}, seed {seed}", case.key, link.name, subject), &error);
            }
            Err(error) => eprintln!("{place} FAILED: {error:#}; once more"),
        }
    }
}

fn write_out(options: &Options, results: &Results) -> anyhow::Result<()> {
    println!("{}", markdown::tables(results));
    if let Some(path) = &options.json {
        bench::write(path, &serde_json::to_string_pretty(results).context("cannot write the figures as JSON")?)?;
    }
    if let Some(path) = &options.markdown {
        bench::write(path, &markdown::report(results))?;
    }
    if let Some(folder) = &options.plots {
        plots(folder, results)?;
    }
    if options.write_docs {
        plots(Path::new("docs/plots"), results)?;
        bench::write(Path::new("docs/benchmarks-wan.md"), &markdown::document(results))?;
    }
    Ok(())
}

/// A picture of everything that there is, under the names that the document shows.
fn plots(folder: &Path, results: &Results) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, svg: String| bench::write(&folder.join(format!("{name}.svg")), &svg);
    if !results.sweep.is_empty() {
        write(markdown::SWEEP_PLOT, plot::sweep(&results.sweep)?)?;
    }
    for link in results.links() {
        write(&markdown::latency_plot(&link), plot::latencies(results, &link)?)?;
    }
    for (event, lines) in results.lines_by_event() {
        write(event, plot::timeline(&lines)?)?;
    }
    Ok(())
}
