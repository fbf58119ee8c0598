//! Which cells run, and in which jobs.

use anyhow::bail;

use super::column::{Column, Front, Pairing, matches};
use super::options::Options;
use super::scenario::{self, Scenario, Stage};

/// Cells of one column that run one after the other.
#[derive(Clone)]
pub struct Job {
    /// The programs.
    pub column: Column,
    /// What they are put through, all of it from the same [`Stage`].
    pub scenarios: Vec<&'static Scenario>,
}

impl Job {
    /// Its cells.
    pub fn cells(&self) -> impl Iterator<Item = (Column, &'static Scenario)> {
        self.scenarios.iter().map(|&scenario| (self.column, scenario))
    }

    /// From what its scenarios begin.
    pub fn stage(&self) -> Stage {
        self.scenarios.first().map_or(Stage::Empty, |scenario| scenario.stage)
    }
}

/// What was asked for, the longest first.
///
/// # Errors
/// When a pattern fits no cell.
pub fn jobs(options: &Options) -> anyhow::Result<Vec<Job>> {
    for pattern in &options.only {
        let fits = |column: Column| scenario::ALL.iter().any(|scenario| matches(pattern, &name(column, scenario)));
        if !Column::all().any(fits) {
            bail!("no cell fits {pattern:?}; --list prints all names");
        }
    }
    let mut jobs = Vec::new();
    for column in Column::all() {
        let wanted = |scenario: &&Scenario| wanted(options, column, scenario);
        let mut shared = Vec::new();
        for scenario in scenario::ALL.iter().filter(wanted) {
            match scenario.stage {
                Stage::Shared => shared.push(scenario),
                Stage::Empty | Stage::Cable => jobs.push(Job { column, scenarios: vec![scenario] }),
            }
        }
        if !shared.is_empty() {
            jobs.push(Job { column, scenarios: shared });
        }
    }
    jobs.sort_by_key(|job| match job.stage() {
        Stage::Cable => 0,
        Stage::Shared => 1,
        Stage::Empty => 2,
    });
    Ok(jobs)
}

/// The name of a cell.
pub fn name(column: Column, scenario: &Scenario) -> String {
    format!("{column}/{}", scenario.key)
}

fn wanted(options: &Options, column: Column, scenario: &Scenario) -> bool {
    if !(scenario.applies)(column) {
        return false;
    }
    if options.only.is_empty() {
        return !options.quick || scenario.stage == Stage::Shared || is_the_one_front(column, scenario);
    }
    options.only.iter().any(|pattern| matches(pattern, &name(column, scenario)))
}

/// In a quick run, a scenario with programs of its own has one front in each pairing: in turn, so that each front is
/// met by every kind of scenario.
fn is_the_one_front(column: Column, scenario: &Scenario) -> bool {
    let place = |key: &str| scenario::ALL.iter().position(|other| other.key == key).unwrap_or(0);
    let turn = Pairing::ALL.iter().position(|&pairing| pairing == column.pairing).unwrap_or(0);
    Front::ALL[(place(scenario.key) + turn) % Front::ALL.len()] == column.front
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    fn names(arguments: &[&str]) -> Vec<String> {
        let options = Options::parse_from([&["matrix"], arguments].concat());
        jobs(&options).unwrap().iter().flat_map(Job::cells).map(|(column, scenario)| name(column, scenario)).collect()
    }

    #[test]
    fn a_full_run_has_every_cell_that_applies() {
        let all = names(&[]);
        let applying =
            Column::all().flat_map(|column| scenario::ALL.iter().filter(move |scenario| (scenario.applies)(column)));
        assert_eq!(all.len(), applying.count());
        assert!(!all.iter().any(|name| name.ends_with("grpc-uds/half-close")));
    }

    #[test]
    fn a_quick_run_has_every_pairing_in_every_scenario_and_every_front() {
        let quick = names(&["--quick"]);
        assert!(quick.len() * 2 < names(&[]).len() * 3, "{}", quick.len());
        for scenario in scenario::ALL {
            for pairing in Pairing::ALL {
                let applies = Front::ALL.into_iter().any(|front| (scenario.applies)(Column { pairing, front }));
                let runs = quick.iter().any(|name| matches(&format!("{pairing}/*/{}", scenario.key), name));
                assert_eq!(runs, applies, "{pairing} {}", scenario.key);
            }
            for front in Front::ALL {
                let applies = Pairing::ALL.into_iter().any(|pairing| (scenario.applies)(Column { pairing, front }));
                let runs = quick.iter().any(|name| matches(&format!("*/{}/{}", front.key(), scenario.key), name));
                assert_eq!(runs, applies, "{front:?} {}", scenario.key);
            }
        }
    }

    #[test]
    fn what_is_asked_for_runs_whether_quick_or_not() {
        assert_eq!(names(&["--quick", "--only", "go-go/*/connect-*/drain-agent"]).len(), 2);
        let options = Options::parse_from(["matrix", "--only", "ours-theirs/*"]);
        assert!(jobs(&options).err().unwrap().to_string().starts_with("no cell fits \"ours-theirs/*\""));
    }
}
