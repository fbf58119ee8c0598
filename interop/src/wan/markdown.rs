//! The figures as Markdown.

use std::fmt::Write as _;

use super::case::Metric;
use super::goal;
use super::results::Results;
use super::subject::Subject;
use crate::bench::results::Rounds;
use crate::link::named;

/// How docs/benchmarks-wan.md explains the tables.
const EXPLANATION: &str = include_str!("explanation.md");

/// The whole of docs/benchmarks-wan.md.
pub fn document(results: &Results) -> String {
    format!("# Benchmarks on bad links\n\n{EXPLANATION}\n{}", report(results))
}

/// The facts of the machine, then the tables.
pub fn report(results: &Results) -> String {
    let machine = &results.machine;
    let (least, most) = results.seeds();
    let mut text = format!("Made by `{}` on {}.\n\n", results.command, machine.date);
    for (what, value) in [
        ("processor", format!("{}, {} cores", machine.processor, machine.cores)),
        ("memory", machine.memory.clone()),
        ("kernel", format!("Linux {}", machine.kernel)),
        ("load average before", machine.load_before.clone()),
        ("seeds of each figure", if least == most { most.to_string() } else { format!("{least} to {most}") }),
    ] {
        let _ = writeln!(text, "- {what}: {value}");
    }
    for skipped in &results.skipped {
        let _ = writeln!(text, "- left out: {skipped}");
    }
    text + "\n" + &tables(results)
}

/// The goals, then a section for each link, then what failed.
pub fn tables(results: &Results) -> String {
    let mut text = goals(results);
    for link in results.links() {
        let about = named::ALL.iter().find(|named| named.name == link).map_or("", |named| named.about);
        let _ = write!(text, "## {link}\n\n{about}\n\n{}\n", figures(results, &link));
    }
    for failure in &results.failures {
        let _ = write!(text, "Failed: {}:\n\n```text\n{}\n```\n\n", failure.which, failure.error);
    }
    text.trim_end().to_owned() + "\n"
}

/// What the plan asks for, and what was reached.
fn goals(results: &Results) -> String {
    let mut rows = String::new();
    for link in results.links() {
        for subject in results.subjects(&link).iter().filter(|subject| subject.is_ours()) {
            for case in results.cases(&link) {
                for &metric in case.metrics() {
                    let Some(goal) = goal::of(&link, case, metric) else { continue };
                    let Some((rounds, doubtful)) = results.rounds(&link, subject, case, metric) else { continue };
                    let verdict = if goal.met(rounds.median()) { "met" } else { "**not met**" };
                    rows += &line(&[
                        link.clone(),
                        case.title.to_owned(),
                        metric.title().to_owned(),
                        goal.show(),
                        subject.to_string(),
                        cell(Some(&(rounds, doubtful)), metric),
                        verdict.to_owned(),
                    ]);
                }
            }
        }
    }
    if rows.is_empty() {
        return rows;
    }
    let head = ["link", "work", "figure", "goal", "subject", "median (least..most)", ""];
    format!("## Goals\n\n{}{}{rows}\n", line(&head.map(str::to_owned)), rule(3, head.len()))
}

fn figures(results: &Results, link: &str) -> String {
    let subjects = results.subjects(link);
    let mut head = vec!["work".to_owned(), "figure".to_owned()];
    head.extend(subjects.iter().map(Subject::to_string));
    let mut text = line(&head) + &rule(2, head.len());
    for case in results.cases(link) {
        let mut title = case.title;
        for &metric in case.metrics() {
            let mut cells = vec![std::mem::take(&mut title).to_owned(), metric.title().to_owned()];
            cells.extend(subjects.iter().map(|of| cell(results.rounds(link, of, case, metric).as_ref(), metric)));
            text += &line(&cells);
        }
    }
    text
}

/// The first so many columns are names, to the left; the others figures, to the right.
fn rule(names: usize, columns: usize) -> String {
    line(&(0..columns).map(|at| if at < names { "---" } else { "---:" }.to_owned()).collect::<Vec<_>>())
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// `median (least..most)`, with a question mark where the link was doubtful.
fn cell(found: Option<&(Rounds, bool)>, metric: Metric) -> String {
    let Some((rounds, doubtful)) = found else { return "-".to_owned() };
    let (median, (least, most)) = (metric.show(rounds.median()), rounds.spread());
    let (least, most) = (metric.show(least), metric.show(most));
    let mark = if *doubtful { "?" } else { "" };
    if least == most { format!("{median}{mark}") } else { format!("{median}{mark} ({least}..{most})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;
    use crate::wan::case::{CASES, Case};
    use crate::wan::measure::{Found, Which};

    fn results() -> Results {
        let mut results = Results::new(Machine::look(), "scripts/bench.sh wan".to_owned());
        let mut add = |subject: &str, case: &Case, seed, figures, doubt: bool| {
            let which =
                Which { link: "edge-50ms-1".to_owned(), subject: subject.parse().unwrap(), case: case.key, seed };
            let doubts = if doubt { vec!["late".to_owned()] } else { Vec::new() };
            results.add(which, Found { figures, doubts, ..Found::default() });
        };
        let case = |key: &str| CASES.iter().find(|case| case.key == key).unwrap();
        for (seed, rate) in [(1, 91.0), (2, 93.5), (3, 94.0)] {
            let figures = vec![(Metric::Goodput, rate), (Metric::EchoP99, 170.0)];
            add("ours", case("beside/to-client/4"), seed, figures, seed == 3);
        }
        add("go/cubic", case("beside/to-client/4"), 1, vec![(Metric::EchoP99, f64::INFINITY)], false);
        results.fail("alone on ssh/bbr".to_owned(), &anyhow::anyhow!("it broke"));
        results
    }

    #[test]
    fn a_table_shows_median_spread_doubt_and_goal() {
        let text = tables(&results());
        for line in [
            "| edge-50ms-1 | beside 4 bulk dials to the client | goodput, Mbit/s | ≥ 92 | ours | 93.5? (91.0..94.0) | met |",
            "| edge-50ms-1 | beside 4 bulk dials to the client | echo p99, ms | ≤ 160 | ours | 170? | **not met** |",
            "| work | figure | ours | go/cubic |",
            "| beside 4 bulk dials to the client | goodput, Mbit/s | 93.5? (91.0..94.0) | - |",
            "|  | echo p99, ms | 170? | never |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(text.contains("Failed: alone on ssh/bbr:\n\n```text\nit broke\n"));
    }

    #[test]
    fn the_document_says_how_it_was_made() {
        assert!(document(&results()).contains("Made by `scripts/bench.sh wan` on "));
    }
}
