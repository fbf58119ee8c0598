//! All figures of a run.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::case::{CASES, Case, Metric};
use super::machine::Machine;
use super::measure::Figures;

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
}

impl Subject {
    /// Its name in options, logs and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Go => "go",
            Self::Ours => "ours",
            Self::Other => "other",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct TCP",
            Self::Go => "Go, HTTP CONNECT",
            Self::Ours => "ours, HTTP CONNECT",
            Self::Other => "other",
        }
    }
}

/// A measurement that gave no figures.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
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
    pub rounds: usize,
    /// What went wrong.
    pub failures: Vec<Failure>,
    /// Case, then metric, then subject.
    figures: BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<&'static str, Rounds>>>,
}

impl Results {
    /// None yet.
    pub fn new(machine: Machine, command: String, rounds: usize) -> Self {
        Self { machine, command, rounds, failures: Vec::new(), figures: BTreeMap::new() }
    }

    /// One measurement's figures.
    pub fn add(&mut self, subject: Subject, case: &Case, figures: Figures) {
        let row = self.figures.entry(case.key).or_default();
        for (metric, value) in figures {
            let subjects = row.entry(metric.key()).or_default();
            subjects.entry(subject.key()).or_insert_with(|| Rounds(Vec::new())).0.push(Figure(value));
        }
    }

    /// One measurement that failed.
    pub fn fail(&mut self, subject: Subject, case: &Case, round: usize, error: &anyhow::Error) {
        let error = format!("{error:#}");
        self.failures.push(Failure { subject: subject.key(), case: case.key, round, error });
    }

    /// The rounds of one row for one subject, if there are any.
    pub fn rounds(&self, case: &str, metric: Metric, subject: Subject) -> Option<&Rounds> {
        self.figures.get(case)?.get(metric.key())?.get(subject.key())
    }

    /// The cases that have figures, in the order of the report.
    pub fn cases(&self) -> impl Iterator<Item = &'static Case> {
        CASES.iter().filter(|case| self.figures.contains_key(case.key))
    }

    /// The subjects that have figures.
    pub fn subjects(&self) -> Vec<Subject> {
        let has = |subject: &Subject| {
            self.figures.values().flat_map(BTreeMap::values).any(|subjects| subjects.contains_key(subject.key()))
        };
        Subject::value_variants().iter().copied().filter(has).collect()
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
