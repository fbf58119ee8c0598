//! All figures of a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::case::{CASES, Case, Metric};
use super::fairness::Row;
use super::log::Latencies;
use super::measure::{Found, Which};
use super::subject::Subject;
use super::sweep::Point;
use super::timeline::{EVENTS, Line};
use crate::bench::machine::Machine;
use crate::bench::results::Rounds;

/// Points of each distribution that are kept.
const POINTS: usize = 100;

/// Everything that a run has found.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// By what command.
    pub command: String,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// What went wrong.
    pub failures: Vec<Failure>,
    /// Every measurement of a case.
    pub starts: Vec<Start>,
    /// Every contest.
    pub fairness: Vec<Row>,
    /// For how long each contest went on, in seconds.
    pub fairness_seconds: f64,
    /// Every time line.
    pub lines: Vec<Line>,
    /// Goodput over loss.
    pub sweep: Vec<Point>,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub struct Start {
    /// Which.
    #[serde(flatten)]
    pub which: Which,
    /// Its figures; infinite (it never came) is `null` in JSON.
    pub figures: BTreeMap<&'static str, f64>,
    /// Milliseconds that 1, 2, 3 ... % of the echoes did not exceed.
    pub echo_ms: Vec<f64>,
    /// The same of dials with an echo.
    pub dial_ms: Vec<f64>,
    /// What the link did not do as asked for.
    pub doubts: Vec<String>,
    #[serde(skip)]
    echo: Latencies,
    #[serde(skip)]
    dial: Latencies,
}

/// A measurement that gave no figures.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Which, in words.
    pub which: String,
    /// Why.
    pub error: String,
}

impl Results {
    /// None yet.
    pub fn new(machine: Machine, command: String) -> Self {
        Self {
            machine,
            command,
            skipped: Vec::new(),
            failures: Vec::new(),
            starts: Vec::new(),
            fairness: Vec::new(),
            fairness_seconds: 0.0,
            lines: Vec::new(),
            sweep: Vec::new(),
        }
    }

    /// One measurement.
    pub fn add(&mut self, which: Which, found: Found) {
        self.starts.push(Start {
            which,
            figures: found.figures.iter().map(|(metric, value)| (metric.key(), *value)).collect(),
            echo_ms: found.echo.distribution(POINTS),
            dial_ms: found.dial.distribution(POINTS),
            doubts: found.doubts,
            echo: found.echo,
            dial: found.dial,
        });
    }

    /// One that failed.
    pub fn fail(&mut self, which: String, error: &anyhow::Error) {
        self.failures.push(Failure { which, error: format!("{error:#}") });
    }

    /// The links that have figures, in the order in which they were measured.
    pub fn links(&self) -> Vec<String> {
        distinct(self.starts.iter().map(|start| start.which.link.clone()))
    }

    /// The subjects that have figures on a link.
    pub fn subjects(&self, link: &str) -> Vec<Subject> {
        let mut subjects = distinct(self.of(link).map(|start| start.which.subject.clone()));
        subjects.sort();
        subjects
    }

    /// The cases that have figures on a link.
    pub fn cases(&self, link: &str) -> Vec<&'static Case> {
        CASES.iter().filter(|case| self.of(link).any(|start| start.which.case == case.key)).collect()
    }

    /// A figure with each seed, and whether one of them is doubtful.
    pub fn rounds(&self, link: &str, subject: &Subject, case: &Case, metric: Metric) -> Option<(Rounds, bool)> {
        let starts = || self.of(link).filter(|it| it.which.case == case.key && it.which.subject == *subject);
        let rounds = Rounds::of(starts().filter_map(|start| start.figures.get(metric.key()).copied()))?;
        Some((rounds, starts().any(|start| !start.doubts.is_empty())))
    }

    /// Echoes and dials of all seeds of the cases with such a beginning together.
    pub fn latencies(&self, link: &str, subject: &Subject, cases: &str) -> (Latencies, Latencies) {
        let starts = self.of(link).filter(|it| it.which.case.starts_with(cases) && it.which.subject == *subject);
        starts.fold((Latencies::default(), Latencies::default()), |(echo, dial), start| {
            (echo.and(start.echo.clone()), dial.and(start.dial.clone()))
        })
    }

    /// The time lines of each event that has some.
    pub fn lines_by_event(&self) -> Vec<(&'static str, Vec<&Line>)> {
        let of = |key| self.lines.iter().filter(|line| line.event.key == key).collect::<Vec<_>>();
        EVENTS.iter().map(|event| (event.key, of(event.key))).filter(|(_, lines)| !lines.is_empty()).collect()
    }

    /// How many seeds a subject had, at least and at most.
    pub fn seeds(&self) -> (usize, usize) {
        let mut counts: BTreeMap<(&str, String, &str), usize> = BTreeMap::new();
        for Start { which, .. } in &self.starts {
            *counts.entry((&which.link, which.subject.to_string(), which.case)).or_default() += 1;
        }
        (counts.values().copied().min().unwrap_or(0), counts.values().copied().max().unwrap_or(0))
    }

    fn of(&self, link: &str) -> impl Iterator<Item = &Start> {
        self.starts.iter().filter(move |start| start.which.link == link)
    }
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut distinct, value| {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
        distinct
    })
}
