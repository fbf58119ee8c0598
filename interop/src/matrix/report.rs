//! What came of a run, cell by cell.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::cell::Size;
use super::column::Column;
use super::runner::Tried;
use super::scenario;

/// What came of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not so.
    Failed,
    /// It could not be tried here.
    Skipped,
}

/// A cell, what was asked of it and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    /// The programs.
    #[serde(flatten)]
    pub column: Column,
    /// What they were put through.
    pub scenario: &'static str,
    /// Whether it must pass.
    pub required: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took; with the start of its pair, if it was the first to need that.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
    /// What was seen besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The folder with what each program logged meanwhile.
    pub logs: PathBuf,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// How a cell is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It must pass, and has.
    Good,
    /// It must pass, and has not.
    Bad,
    /// It need not pass, and has.
    Bonus,
    /// It need not pass, and has not.
    Known,
    /// It has passed between the reference's own programs.
    ReferenceGood,
    /// It has failed between the reference's own programs.
    ReferenceBad,
    /// It could not be tried here.
    Skipped,
}

impl Verdict {
    /// Its sign in the table.
    pub fn sign(self) -> char {
        match self {
            Self::Good | Self::ReferenceGood => '✓',
            Self::Bad => '✗',
            Self::Bonus => '+',
            Self::Known | Self::ReferenceBad => 'f',
            Self::Skipped => 's',
        }
    }
}

impl Result {
    /// What came of a cell.
    pub fn new(column: Column, scenario: &'static str, required: bool, tried: Tried) -> Self {
        let Tried { outcome, error, time, notes, logs } = tried;
        Self { column, scenario, required, outcome, error, time, notes, logs }
    }

    /// How it is seen.
    pub fn verdict(&self) -> Verdict {
        let reference = self.column.pairing.is_reference();
        match (self.outcome, self.required) {
            (Outcome::Passed, false) if reference => Verdict::ReferenceGood,
            (Outcome::Failed, false) if reference => Verdict::ReferenceBad,
            (Outcome::Passed, true) => Verdict::Good,
            (Outcome::Failed, true) => Verdict::Bad,
            (Outcome::Passed, false) => Verdict::Bonus,
            (Outcome::Failed, false) => Verdict::Known,
            (Outcome::Skipped, _) => Verdict::Skipped,
        }
    }

    /// One line, for who watches the run.
    pub fn line(&self) -> String {
        let said = match self.verdict() {
            Verdict::Good | Verdict::ReferenceGood => "ok",
            Verdict::Bad => "FAILED",
            Verdict::Bonus => "ok, though not required",
            Verdict::Known => "fails, as it may",
            Verdict::ReferenceBad => "the reference fails",
            Verdict::Skipped => "skipped",
        };
        let why = self.error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default();
        let line = format!("{}/{}: {said} ({:.1} s) {why}", self.column, self.scenario, self.time.as_secs_f64());
        line.trim_end().to_owned()
    }
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `quick` or `full`.
    pub size: &'static str,
    /// How our programs were built.
    pub build: &'static str,
    /// How long all of it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
    /// The system and its processors.
    pub machine: String,
    /// Every cell that was tried, in the order of the table.
    pub cells: Vec<Result>,
}

impl Report {
    /// Puts the cells in order.
    pub fn new(mut cells: Vec<Result>, size: Size, time: Duration) -> Self {
        let place = |key: &str| scenario::ALL.iter().position(|scenario| scenario.key == key);
        cells.sort_by_key(|cell| (place(cell.scenario), cell.column));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            size: match size {
                Size::Quick => "quick",
                Size::Full => "full",
            },
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            time,
            machine: format!("Linux {}, {cores} cores", kernel.trim()),
            cells,
        }
    }

    /// How many cells are seen like this.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cells.iter().filter(|cell| cell.verdict() == verdict).count()
    }

    /// How many required cells have failed.
    pub fn failed(&self) -> usize {
        self.count(Verdict::Bad)
    }
}
