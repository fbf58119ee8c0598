//! What was asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

use super::case::Case;
use super::measure::Timing;
use super::results::{Lane, Subject};
use super::way::Way;
use crate::load::Window;
use crate::peer::Make;

/// Rounds of a whole run.
const ROUNDS: usize = 4;

/// Cases that a quick look leaves out.
const LEFT_OUT: [&str; 4] = ["bulk/to-client/8", "bulk/to-target/8", "idle/10000", "stall/readers/1"];

/// Options of `bench loopback`.
#[derive(Debug, Args)]
pub struct Options {
    /// A look in under three minutes: one short round without the cases that have a smaller one beside them.
    #[arg(long)]
    pub quick: bool,
    /// Measure only this case or these cases, such as `bulk`, `echo/64`, `dial`, `idle/1000`, `stall/readers`; may be given several times.
    #[arg(long, value_name = "CASE")]
    pub only: Vec<String>,
    /// Measure only this subject; may be given several times.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Vec<Subject>,
    /// How many times everything is measured [default: 4; memory 2, bulk on 8 dials 3, 64 stalled dials 7; with --quick 1]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// How long each measurement counts [default: 2, with --quick 0.7]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// How clients reach the server; may be given several times [default: uds and grpc-uds]
    #[arg(long, value_enum)]
    pub frontend: Vec<Way>,
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
    /// How many rounds most cases get.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { ROUNDS })
    }

    /// How many rounds a case gets on a subject.
    pub fn rounds_of(&self, case: &Case, subject: Subject) -> usize {
        match self.rounds {
            _ if !case.has(subject) => 0,
            Some(rounds) => rounds,
            None => case.rounds(self.rounds(), subject),
        }
    }

    /// The same for the report.
    pub fn rounds_text(&self) -> String {
        match self.rounds {
            None if !self.quick => {
                format!("{ROUNDS}; memory 2, bulk on 8 dials 3, beside 64 stalled dials 7, Go beside stalled dials 1")
            }
            _ => self.rounds().to_string(),
        }
    }

    /// How clients reach a server.
    pub fn ways(&self) -> Vec<Way> {
        if self.frontend.is_empty() { vec![Way::Uds, Way::GrpcUds] } else { self.frontend.clone() }
    }

    /// Everything that a case is measured on.
    pub fn lanes(&self) -> Vec<Lane> {
        let subjects = self.subjects();
        let direct = subjects.contains(&Subject::Direct).then_some(Lane::Direct);
        let tunnels: Vec<_> = subjects.into_iter().filter(|&subject| subject != Subject::Direct).collect();
        let through = self.ways().into_iter().flat_map(|way| tunnels.iter().map(move |&it| Lane::Through(way, it)));
        direct.into_iter().chain(through).collect()
    }

    /// Which subjects; `other` only where something about it is other.
    pub fn subjects(&self) -> Vec<Subject> {
        if !self.subject.is_empty() {
            return self.subject.clone();
        }
        let mut subjects = vec![Subject::Direct, Subject::Go, Subject::Ours, Subject::GoAgent, Subject::GoServer];
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
            return !(self.quick && LEFT_OUT.contains(&case.key));
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
                Subject::GoAgent => (
                    or(&self.server, "proxy-server"),
                    or(&self.go_agent, "../go/proxy-agent"),
                    self.ours_server_arg.clone(),
                    vec![],
                ),
                Subject::GoServer => (
                    or(&self.go_server, "../go/proxy-server"),
                    or(&self.agent, "proxy-agent"),
                    vec![],
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
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::case::CASES;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Command::parse_from([&["bench"], arguments].concat()).options
    }

    #[test]
    fn both_kinds_of_frontend_are_measured_and_tcp_once() {
        let through = |way, subject| Lane::Through(way, subject);
        let tunnels = [Subject::Go, Subject::Ours, Subject::GoAgent, Subject::GoServer];
        let by = |way| tunnels.map(|subject| through(way, subject));
        let all = [&[Lane::Direct][..], &by(Way::Uds), &by(Way::GrpcUds)].concat();
        assert_eq!(options(&[]).lanes(), all);
        let one = options(&["--frontend", "grpc-mtls", "--subject", "ours"]);
        assert_eq!(one.lanes(), [through(Way::GrpcMtls, Subject::Ours)]);
    }

    #[test]
    fn a_case_has_fewer_rounds_only_where_none_are_asked_for() {
        let rounds = |arguments: &[&str], subject| {
            CASES.iter().map(|case| options(arguments).rounds_of(case, subject)).collect::<Vec<_>>()
        };
        assert_eq!(rounds(&[], Subject::Ours), [4, 3, 4, 3, 4, 4, 4, 4, 2, 2, 3, 7, 7]);
        assert_eq!(rounds(&[], Subject::Go), [4, 3, 4, 3, 4, 4, 4, 4, 2, 2, 1, 1, 1]);
        assert_eq!(rounds(&[], Subject::Direct), [4, 3, 4, 3, 4, 4, 4, 4, 0, 0, 3, 3, 3]);
        assert_eq!(rounds(&[], Subject::GoAgent), [4, 0, 4, 0, 4, 4, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(rounds(&["--rounds", "4"], Subject::Ours), [4; CASES.len()]);
        assert_eq!(rounds(&["--quick"], Subject::Ours), [1; CASES.len()]);
    }

    #[test]
    fn a_quick_look_leaves_out_what_has_a_smaller_one_beside_it() {
        let quick = options(&["--quick"]);
        assert_eq!(CASES.iter().filter(|case| quick.wants(case)).count(), CASES.len() - LEFT_OUT.len());
        let asked = options(&["--quick", "--only", "idle/10000"]);
        assert_eq!(
            CASES.iter().filter(|case| asked.wants(case)).map(|case| case.key).collect::<Vec<_>>(),
            ["idle/10000"]
        );
    }
}
