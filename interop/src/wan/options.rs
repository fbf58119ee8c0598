//! What was asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::case::{self, CASES, Case, On};
use super::setting::Timing;
use super::subject::Subject;
use crate::link::named;
use crate::link::profile::Profile;
use crate::peer::Make;

/// The links of the goals.
const LINKS: [&str; 6] =
    ["edge-50ms-0", "edge-50ms-1", "edge-100ms-3", "edge-100ms-5", "bufferbloat", "edge-50ms-reordering"];
/// The ones of a quick look.
const QUICK_LINKS: [&str; 3] = ["edge-50ms-1", "edge-100ms-3", "bufferbloat"];
/// Who is compared.
const SUBJECTS: [&str; 7] = ["ours", "go/cubic", "go/bbr", "ssh/cubic", "ssh/bbr", "direct/cubic", "direct/bbr"];
/// Who is compared in a quick look.
const QUICK_SUBJECTS: [&str; 4] = ["ours", "go/cubic", "ssh/cubic", "direct/cubic"];
/// The cases that a quick look leaves out.
const LEFT_OUT: &str = "bulk/";

/// Options of `bench wan`.
#[derive(Debug, Args)]
pub struct Options {
    /// A look in about six minutes: three links, CUBIC only, one seed, shorter windows.
    #[arg(long)]
    pub quick: bool,
    /// Only this part: rows, or a case of them such as `alone`, `bulk`, `beside/to-client/4`; fairness; lines; sweep; may be given several times.
    #[arg(long, value_name = "PART")]
    pub only: Vec<String>,
    /// Only this link, any that has a name (`link --list`); may be given several times.
    #[arg(long, value_name = "LINK")]
    pub link: Vec<String>,
    /// Only this subject: ours, ours/CC, go/CC, ssh/CC or direct/CC, CC being a congestion control; may be given several times.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Vec<Subject>,
    /// Ours with these congestion controls of QUIC, such as model,cubic,bbr, in the place of the default.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub ours_congestion_control: Vec<String>,
    /// How many seeds ours is measured with [default: 3, with --quick 1]
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// How many seeds the others are measured with [default: 1]
    #[arg(long, value_name = "N")]
    pub rival_seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How long each measurement counts [default: 5, with --quick 2.5]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// How long bulk goes on before that [default: 2.5, with --quick 1.5]
    #[arg(long, value_name = "SECONDS")]
    pub ramp: Option<f64>,
    /// How long each contest of the fairness table goes on [default: 60, with --quick 20]
    #[arg(long, value_name = "SECONDS")]
    pub fairness_seconds: Option<f64>,
    /// Write all figures of all seeds to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables, with the facts of the machine, to this file.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write the plots to this folder.
    #[arg(long, value_name = "FOLDER")]
    pub plots: Option<PathBuf>,
    /// Write docs/benchmarks-wan.md and docs/plots/ (run it in the project's folder).
    #[arg(long)]
    pub write_docs: bool,
    /// Our proxy-server [default: beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub server: Option<PathBuf>,
    /// Our proxy-agent [default: beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub agent: Option<PathBuf>,
    /// The reference's proxy-server [default: ../go/proxy-server beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub go_server: Option<PathBuf>,
    /// The reference's proxy-agent [default: ../go/proxy-agent beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub go_agent: Option<PathBuf>,
    /// One more argument for our proxy-server; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub ours_server_arg: Vec<String>,
    /// One more argument for our proxy-agent; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub ours_agent_arg: Vec<String>,
    /// Keep sockets and logs, and say where.
    #[arg(long)]
    pub keep: bool,
}

impl Options {
    /// The links.
    ///
    /// # Errors
    /// Names one that there is not.
    pub fn links(&self) -> anyhow::Result<Vec<Profile>> {
        let names: Vec<&str> = match (self.link.is_empty(), self.quick) {
            (false, _) => self.link.iter().map(String::as_str).collect(),
            (true, true) => QUICK_LINKS.to_vec(),
            (true, false) => LINKS.to_vec(),
        };
        let find = |name: &&str| {
            Profile::named(name).with_context(|| {
                let names: Vec<_> = named::ALL.iter().map(|link| link.name).collect();
                format!("there is no link {name:?}; there are {}", names.join(", "))
            })
        };
        names.iter().map(find).collect()
    }

    /// Who is compared.
    pub fn subjects(&self) -> Vec<Subject> {
        let default = if self.quick { &QUICK_SUBJECTS[..] } else { &SUBJECTS };
        let subjects: Vec<Subject> = match self.subject.is_empty() {
            false => self.subject.clone(),
            true => default.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let instead = |subject: Subject| match (subject.is_ours(), &self.ours_congestion_control[..]) {
            (true, names @ [_, ..]) => names
                .iter()
                .map(|name| Subject { congestion_control: Some(name.clone()), ..subject.clone() })
                .collect::<Vec<_>>(),
            _ => vec![subject],
        };
        subjects.into_iter().flat_map(instead).collect()
    }

    /// The cases.
    ///
    /// # Errors
    /// When a part is asked for that there is not.
    pub fn cases(&self) -> anyhow::Result<Vec<&'static Case>> {
        if self.only.is_empty() || self.only.iter().any(|part| part == "rows") {
            return Ok(CASES.iter().filter(|case| !(self.quick && self.leaves_out(case))).collect());
        }
        let is_of = |case: &Case, part: &str| {
            case.key
                .strip_prefix(part.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for part in &self.only {
            let is_known = PARTS.contains(&part.as_str()) || CASES.iter().any(|case| is_of(case, part));
            ensure!(
                is_known,
                "there is no part {part:?}; there are {}, and of rows: {}",
                PARTS.join(", "),
                case::keys()
            );
        }
        Ok(CASES.iter().filter(|case| self.only.iter().any(|part| is_of(case, part))).collect())
    }

    fn leaves_out(&self, case: &Case) -> bool {
        case.key.starts_with(LEFT_OUT) || case.on == On::OursOnce
    }

    /// Whether a part is wanted that is not rows.
    pub fn wants(&self, part: &str) -> bool {
        if self.only.is_empty() { !self.quick } else { self.only.iter().any(|wanted| wanted == part) }
    }

    /// The seeds of a subject for a case.
    pub fn seeds(&self, subject: &Subject, case: &Case) -> std::ops::Range<u64> {
        let ours = self.seeds.unwrap_or(if self.quick { 1 } else { 3 });
        let count = match (subject.is_ours(), case.on) {
            (true, On::All) => ours,
            (true, On::OursOnce) => 1,
            (false, On::All) => self.rival_seeds.unwrap_or(1),
            (false, On::OursOnce) => 0,
        };
        self.seed..self.seed + count
    }

    /// How long contests go on, and with how many seeds.
    pub fn fairness(&self) -> (Duration, std::ops::Range<u64>) {
        let length = if self.quick { 20.0 } else { 60.0 };
        let seeds = self.seeds.unwrap_or(if self.quick { 1 } else { 3 });
        (Duration::from_secs_f64(self.fairness_seconds.unwrap_or(length)), self.seed..self.seed + seeds)
    }

    /// How long things take.
    pub fn timing(&self) -> Timing {
        let seconds = |asked: Option<f64>, full: f64, quick: f64| {
            Duration::from_secs_f64(asked.unwrap_or(if self.quick { quick } else { full }))
        };
        Timing {
            before: Duration::from_millis(700),
            ramp: seconds(self.ramp, 2.5, 1.5),
            window: seconds(self.seconds, 5.0, 2.5),
            patience: Duration::from_secs(10),
        }
    }

    /// This project's programs and the reference's.
    ///
    /// # Errors
    /// Names a program that is not there, and how it is built.
    pub fn makes(&self, subjects: &[Subject]) -> anyhow::Result<(Make, Make)> {
        let here = std::env::current_exe().context("cannot find this program")?;
        let folder = here.parent().context("this program lies in no folder")?;
        let or = |path: &Option<PathBuf>, default: &str| path.clone().unwrap_or_else(|| folder.join(default));
        let ours = Make {
            name: "ours".to_owned(),
            server: or(&self.server, "proxy-server"),
            agent: or(&self.agent, "proxy-agent"),
            server_args: self.ours_server_arg.clone(),
            // What is measured is QUIC, not the choice between it and TCP.
            agent_args: [&["--transport=quic".to_owned()], &self.ours_agent_arg[..]].concat(),
        };
        let go = Make {
            name: "go".to_owned(),
            server: or(&self.go_server, "../go/proxy-server"),
            agent: or(&self.go_agent, "../go/proxy-agent"),
            server_args: Vec::new(),
            agent_args: Vec::new(),
        };
        for subject in subjects {
            let make = match subject.kind {
                super::subject::Kind::Ours => &ours,
                super::subject::Kind::Go => &go,
                _ => continue,
            };
            for program in [&make.server, &make.agent] {
                if !program.is_file() {
                    bail!(
                        "{} is not there; scripts/bench.sh builds it, or use --subject to leave {subject} out",
                        program.display()
                    );
                }
            }
        }
        Ok((ours, go))
    }
}

/// What there is beside the cases.
const PARTS: [&str; 4] = ["rows", "fairness", "lines", "sweep"];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Command::parse_from([&["bench"], arguments].concat()).options
    }

    #[test]
    fn ours_may_have_several_congestion_controls() {
        let shown = |arguments: &[&str]| {
            options(arguments).subjects().iter().map(Subject::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&["--subject", "ours", "--ours-congestion-control", "model,cubic"]), "ours/model ours/cubic");
        assert_eq!(shown(&["--quick"]), QUICK_SUBJECTS.join(" "));
        assert_eq!(shown(&[]), SUBJECTS.join(" "));
    }

    #[test]
    fn parts_are_chosen_by_name() {
        let keys = |arguments: &[&str]| {
            options(arguments).cases().unwrap().iter().map(|case| case.key).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(&["--only", "bulk"]), "bulk/to-client/1 bulk/to-target/1");
        assert_eq!(keys(&["--only", "beside/to-client/4"]), "beside/to-client/4");
        assert_eq!(keys(&["--quick"]), "alone beside/to-client/4 beside/to-target/4");
        assert!(options(&["--only", "bul"]).cases().is_err());
        assert!(options(&["--link", "none"]).links().is_err());
        assert_eq!(options(&[]).links().unwrap().len(), LINKS.len());
    }

    #[test]
    fn rivals_have_fewer_seeds() {
        let all = options(&["--seed", "5"]);
        let [ours, go] = ["ours", "go/bbr"].map(|name| name.parse().unwrap());
        let [every, once] = [On::All, On::OursOnce].map(|on| CASES.iter().find(|case| case.on == on).unwrap());
        assert_eq!([all.seeds(&ours, every), all.seeds(&go, every)], [5..8, 5..6]);
        assert_eq!([all.seeds(&ours, once), all.seeds(&go, once)], [5..6, 5..5]);
    }
}
