//! All figures of a run.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::case::{CASES, Case, Metric};
use super::machine::Machine;
use super::measure::Figures;
use super::way::Way;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Subject {
    /// TCP without a tunnel.
    Direct,
    /// The Go reference.
    Go,
    /// This project's programs.
    Ours,
    /// Another build or other settings of this project's programs.
    Other,
    /// This project's server with the reference's agent.
    GoAgent,
    /// The reference's server with this project's agent.
    GoServer,
}

impl Subject {
    /// Its name in options, logs and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Go => "go",
            Self::Ours => "ours",
            Self::Other => "other",
            Self::GoAgent => "go-agent",
            Self::GoServer => "go-server",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct TCP",
            Self::Go => "Go",
            Self::Ours => "ours",
            Self::Other => "other",
            Self::GoAgent => "our server, Go agent",
            Self::GoServer => "Go server, our agent",
        }
    }

    /// Whether its programs are of two makes.
    pub fn is_mixed(self) -> bool {
        matches!(self, Self::GoAgent | Self::GoServer)
    }
}

/// A subject by one of the ways to it; everything is measured on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// TCP without a tunnel: there is one way only.
    Direct,
    /// A tunnel.
    Through(Way, Subject),
}

impl Lane {
    /// What is measured.
    pub fn subject(self) -> Subject {
        match self {
            Self::Direct => Subject::Direct,
            Self::Through(_, subject) => subject,
        }
    }

    /// The name of the way to it in options, logs and JSON.
    pub fn way_key(self) -> &'static str {
        match self {
            Self::Direct => "tcp",
            Self::Through(way, _) => way.key(),
        }
    }
}

/// A measurement that gave no figures.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// By which way.
    pub way: &'static str,
    /// Which subject.
    pub subject: &'static str,
    /// Which case.
    pub case: &'static str,
    /// Which round, from 0.
    pub round: usize,
    /// Why.
    pub error: String,
}

/// The rounds' figures of one row for one subject; never empty.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Rounds(Vec<Figure>);

/// One figure; infinite (it never came) is `null` in JSON.
#[derive(Debug, Clone, Copy)]
struct Figure(f64);

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.is_finite().then_some(self.0).serialize(serializer)
    }
}

impl Rounds {
    /// These, if there are any.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let rounds = Self(figures.into_iter().map(Figure).collect());
        (!rounds.0.is_empty()).then_some(rounds)
    }

    /// The middle one (of two middle ones the mean).
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
    }

    /// The least and the most.
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted: Vec<_> = self.0.iter().map(|figure| figure.0).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }
}

/// Everything that a run has found.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// By what command.
    pub command: String,
    /// How many rounds were asked for.
    pub rounds: String,
    /// The ways that were asked for.
    #[serde(skip)]
    pub ways: Vec<Way>,
    /// What went wrong.
    pub failures: Vec<Failure>,
    /// Way, then case, then metric, then subject.
    figures: BTreeMap<&'static str, Cases>,
}

type Cases = BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<&'static str, Rounds>>>;

impl Results {
    /// None yet.
    pub fn new(machine: Machine, command: String, rounds: String, ways: Vec<Way>) -> Self {
        Self { machine, command, rounds, ways, failures: Vec::new(), figures: BTreeMap::new() }
    }

    /// One measurement's figures.
    pub fn add(&mut self, lane: Lane, case: &Case, figures: Figures) {
        let row = self.figures.entry(lane.way_key()).or_default().entry(case.key).or_default();
        for (metric, value) in figures {
            let subjects = row.entry(metric.key()).or_default();
            subjects.entry(lane.subject().key()).or_insert_with(|| Rounds(Vec::new())).0.push(Figure(value));
        }
    }

    /// One measurement that failed.
    pub fn fail(&mut self, lane: Lane, case: &Case, round: usize, error: &anyhow::Error) {
        let (way, subject) = (lane.way_key(), lane.subject().key());
        self.failures.push(Failure { way, subject, case: case.key, round, error: format!("{error:#}") });
    }

    /// The rounds of one row for one subject, if there are any.
    pub fn rounds(&self, lane: Lane, case: &str, metric: Metric) -> Option<&Rounds> {
        self.figures.get(lane.way_key())?.get(case)?.get(metric.key())?.get(lane.subject().key())
    }

    /// The cases that have figures on one of these lanes, in the order of the report.
    pub fn cases(&self, lanes: &[Lane]) -> Vec<&'static Case> {
        let has = |case: &&Case| lanes.iter().any(|lane| self.has(*lane, |key| key == case.key));
        CASES.iter().filter(has).collect()
    }

    /// The lanes of a way that have figures, with TCP first.
    pub fn lanes(&self, way: Way) -> Vec<Lane> {
        let subjects = Subject::value_variants().iter().map(|&subject| match subject {
            Subject::Direct => Lane::Direct,
            subject => Lane::Through(way, subject),
        });
        subjects.filter(|&lane| self.has(lane, |_| true)).collect()
    }

    fn has(&self, lane: Lane, case: impl Fn(&str) -> bool) -> bool {
        let cases = self.figures.get(lane.way_key()).into_iter().flatten();
        let mut rows = cases.filter(|(key, _)| case(key)).flat_map(|(_, row)| row.values());
        rows.any(|subjects| subjects.contains_key(lane.subject().key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_is_the_middle_one() {
        let rounds = |values: &[f64]| Rounds(values.iter().copied().map(Figure).collect());
        assert!((rounds(&[3.0, 1.0, 2.0]).median() - 2.0).abs() < 1e-9);
        assert!((rounds(&[4.0, 1.0, 2.0, 3.0]).median() - 2.5).abs() < 1e-9);
        assert!(rounds(&[f64::INFINITY, 1.0, f64::INFINITY]).median().is_infinite());
        assert_eq!(rounds(&[3.0, 1.0, 2.0]).spread(), (1.0, 3.0));
        assert_eq!(serde_json::to_string(&rounds(&[1.5, f64::INFINITY])).unwrap(), "[1.5,null]");
    }
}
