//! What was asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use super::case::Case;
use super::measure::Timing;
use super::results::Subject;
use crate::load::Window;
use crate::peer::{Entrance, Make};

/// The way into the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FrontendOption {
    /// HTTP CONNECT over a Unix socket.
    Uds,
    /// HTTP CONNECT over TCP with mutual TLS.
    Mtls,
}

/// Options of `bench loopback`.
#[derive(Debug, Args)]
pub struct Options {
    /// A look in under two minutes: one short round, and 1,000 idle dials instead of 10,000.
    #[arg(long)]
    pub quick: bool,
    /// Measure only this case or these cases, such as `bulk`, `echo/64`, `dial`, `idle/1000`, `stall/readers`; may be given several times.
    #[arg(long, value_name = "CASE")]
    pub only: Vec<String>,
    /// Measure only this subject; may be given several times.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Vec<Subject>,
    /// How many times everything is measured [default: 5, with --quick 1]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// How long each measurement counts [default: 2, with --quick 0.7]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// How clients reach the server.
    #[arg(long, value_enum, default_value_t = FrontendOption::Uds)]
    pub frontend: FrontendOption,
    /// Write all figures of all rounds to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the table, with the facts of the machine, to this file.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write docs/benchmarks.md (run it in the project's folder).
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
    /// Another build of our proxy-server, measured beside the first as the subject `other`.
    #[arg(long, value_name = "PROGRAM")]
    pub other_server: Option<PathBuf>,
    /// Another build of our proxy-agent, for the subject `other`.
    #[arg(long, value_name = "PROGRAM")]
    pub other_agent: Option<PathBuf>,
    /// One more argument for the subject `other`'s proxy-server; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub other_server_arg: Vec<String>,
    /// One more argument for the subject `other`'s proxy-agent; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub other_agent_arg: Vec<String>,
}

impl Options {
    /// How many rounds.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// Which subjects; `other` only where something about it is other.
    pub fn subjects(&self) -> Vec<Subject> {
        if !self.subject.is_empty() {
            return self.subject.clone();
        }
        let mut subjects = vec![Subject::Direct, Subject::Go, Subject::Ours];
        let other = [&self.other_server_arg, &self.other_agent_arg].iter().any(|args| !args.is_empty())
            || self.other_server.is_some()
            || self.other_agent.is_some();
        if other {
            subjects.push(Subject::Other);
        }
        subjects
    }

    /// Whether a case is wanted.
    pub fn wants(&self, case: &Case) -> bool {
        if self.only.is_empty() {
            return !(self.quick && case.key == "idle/10000");
        }
        self.only.iter().any(|wanted| {
            case.key
                .strip_prefix(wanted.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// How long things take.
    pub fn timing(&self) -> Timing {
        let seconds = |full: f64, quick: f64| Duration::from_secs_f64(if self.quick { quick } else { full });
        let length = self.seconds.map_or(seconds(2.0, 0.7), Duration::from_secs_f64);
        Timing {
            window: Window { ramp: seconds(0.5, 0.3), length },
            idle: seconds(3.0, 1.0),
            settle_at_most: seconds(10.0, 3.0),
            alternating: Window { ramp: seconds(0.2, 0.1), length: length / 2 },
            alternations: if self.quick { 2 } else { 5 },
        }
    }

    /// How clients reach a server.
    pub fn entrance(&self) -> Entrance {
        match self.frontend {
            FrontendOption::Uds => Entrance::Unix,
            FrontendOption::Mtls => Entrance::MutualTls,
        }
    }

    /// The programs of every wanted subject that has some.
    ///
    /// # Errors
    /// Names a program that is not there, and how it is built.
    pub fn makes(&self) -> anyhow::Result<Vec<(Subject, Make)>> {
        let here = std::env::current_exe().context("cannot find this program")?;
        let folder = here.parent().context("this program lies in no folder")?;
        let or = |path: &Option<PathBuf>, default: &str| path.clone().unwrap_or_else(|| folder.join(default));
        let mut makes = Vec::new();
        for subject in self.subjects() {
            let (server, agent, server_args, agent_args) = match subject {
                Subject::Direct => continue,
                Subject::Go => {
                    (or(&self.go_server, "../go/proxy-server"), or(&self.go_agent, "../go/proxy-agent"), vec![], vec![])
                }
                Subject::Ours => (
                    or(&self.server, "proxy-server"),
                    or(&self.agent, "proxy-agent"),
                    self.ours_server_arg.clone(),
                    self.ours_agent_arg.clone(),
                ),
                Subject::Other => (
                    or(&self.other_server, "proxy-server"),
                    or(&self.other_agent, "proxy-agent"),
                    self.other_server_arg.clone(),
                    self.other_agent_arg.clone(),
                ),
            };
            for program in [&server, &agent] {
                ensure!(
                    program.is_file(),
                    "{} is not there; scripts/bench.sh builds it, or use --subject to leave {} out",
                    program.display(),
                    subject.key()
                );
            }
            makes.push((subject, Make { name: subject.key().to_owned(), server, agent, server_args, agent_args }));
        }
        Ok(makes)
    }

    /// How this run was started, for the report: `scripts/bench.sh` and what followed.
    pub fn command_line(&self) -> String {
        std::env::args().skip(1).fold("scripts/bench.sh".to_owned(), |line, argument| line + " " + &argument)
    }
}
