//! What became of dials in each step, as a table.

use std::fmt;
use std::time::Duration;

use super::cluster::{Cluster, Part};
use super::traffic::{Counts, Cut};

const COLUMNS: [&str; 8] = [
    "step",
    "carriers",
    "whole after",
    "short dials",
    "slowest",
    "socket gone / no agent",
    "long: cut with it",
    "failed",
];

/// A step that has ended.
#[derive(Debug)]
pub struct Row {
    cells: [String; 8],
    failures: Vec<String>,
}

impl Row {
    /// What a step has brought; `replaced` is the program that it had to stop, and how long the cluster was not whole.
    pub async fn new(step: &str, cluster: &Cluster, counts: Counts, replaced: Option<(Part, Duration)>) -> Self {
        let (part, whole) = replaced.unzip();
        let (expected, unexpected): (Vec<_>, Vec<_>) = counts.cut.iter().partition(|cut| has_to_end(cut, part));
        let mut failures = counts.failed;
        failures.extend(unexpected.into_iter().map(|cut| {
            let agent = cut.agent.map_or("an unknown agent".to_owned(), |agent| Part::Agent(agent).name());
            format!("a long dial through {} and {agent} was cut: {}", Part::Server(cut.server).name(), cut.error)
        }));
        let cells = [
            step.to_owned(),
            cluster.carriers().await,
            whole.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())),
            counts.served.to_string(),
            format!("{} ms", counts.slowest.as_millis()),
            format!("{} / {}", counts.socket_gone, counts.no_agent),
            expected.len().to_string(),
            failures.len().to_string(),
        ];
        Self { failures: failures.into_iter().map(|failure| format!("{step}: {failure}")).collect(), cells }
    }

    /// How many dials have failed, or were cut without need.
    pub fn failed(&self) -> u64 {
        self.failures.len() as u64
    }

    /// Their stories.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(self.cells.each_ref().map(String::as_str)))
    }
}

/// The program that was stopped carried it.
fn has_to_end(cut: &Cut, part: Option<Part>) -> bool {
    match part {
        Some(Part::Server(server)) => cut.server == server,
        Some(Part::Agent(agent)) => cut.agent == Some(agent),
        None => false,
    }
}

/// The head of the table.
pub fn head() -> String {
    line(COLUMNS) + "\n" + &line(COLUMNS.map(|column| &"---------------------"[..column.len().min(21)]))
}

/// The whole table, as Markdown.
pub fn table(rows: &[Row]) -> String {
    rows.iter().fold(head() + "\n", |table, row| table + &row.to_string() + "\n")
}

fn line(cells: [&str; 8]) -> String {
    const WIDTHS: [usize; 8] = [32, 19, 11, 11, 8, 22, 17, 6];
    let cells: Vec<_> = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_the_dials_of_its_own_program_only() {
        let cut = |server, agent| Cut { server, agent, error: String::new() };
        assert!(has_to_end(&cut(1, None), Some(Part::Server(1))));
        assert!(has_to_end(&cut(0, Some(1)), Some(Part::Agent(1))));
        assert!(!has_to_end(&cut(0, Some(1)), Some(Part::Server(1))));
        assert!(!has_to_end(&cut(1, Some(0)), Some(Part::Agent(1))));
        assert!(!has_to_end(&cut(1, None), Some(Part::Agent(1))));
        assert!(!has_to_end(&cut(1, Some(1)), None));
    }
}
