//! The figures as Markdown.

use std::fmt::Write as _;

use super::case::{Case, Metric};
use super::goal;
use super::results::{Results, Rounds, Subject};

/// How docs/benchmarks.md explains the table.
const EXPLANATION: &str = include_str!("explanation.md");

/// The whole of docs/benchmarks.md.
pub fn document(results: &Results) -> String {
    format!("# Benchmarks\n\n{EXPLANATION}\n{}", report(results))
}

/// The facts of the machine, then the table.
pub fn report(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!("Made by `{}` on {}.\n\n", results.command, machine.date);
    let [receive, send] = &machine.socket_buffer_max;
    for (what, value) in [
        ("processor", format!("{}, {} cores", machine.processor, machine.cores)),
        ("memory", machine.memory.clone()),
        ("kernel", format!("Linux {}", machine.kernel)),
        ("TCP congestion control", machine.tcp_congestion_control.clone()),
        ("largest socket buffers", format!("{receive} bytes receiving, {send} sending")),
        ("load average before", machine.load_before.clone()),
        ("rounds", results.rounds.to_string()),
    ] {
        let _ = writeln!(text, "- {what}: {value}");
    }
    text + "\n" + &table(results)
}

/// Medians with the spread of the rounds, ratios, goals; and what failed.
pub fn table(results: &Results) -> String {
    let subjects = results.subjects();
    let both = subjects.contains(&Subject::Go) && subjects.contains(&Subject::Ours);
    let goals = subjects.contains(&Subject::Ours);
    let mut head = vec!["work".to_owned(), "figure".to_owned()];
    head.extend(subjects.iter().map(|subject| subject.title().to_owned()));
    head.extend(both.then(|| "ours / Go".to_owned()));
    head.extend(goals.then(|| "goal".to_owned()));
    let mut text = line(&head);
    let rules: Vec<_> = (0..head.len()).map(|place| if place < 2 { "---" } else { "---:" }.to_owned()).collect();
    text += &line(&rules);
    for case in results.cases() {
        let mut title = case.title;
        for &metric in case.metrics() {
            let mut cells = vec![std::mem::take(&mut title).to_owned(), metric.title().to_owned()];
            cells.extend(subjects.iter().map(|&subject| cell(results.rounds(case.key, metric, subject), metric)));
            cells.extend(both.then(|| ratio(results, case, metric)));
            cells.extend(goals.then(|| goal_cell(results, case, metric)));
            text += &line(&cells);
        }
    }
    for failure in &results.failures {
        let _ = write!(
            text,
            "\nFailed: {} on {}, round {}:\n\n```text\n{}\n```\n",
            failure.case,
            failure.subject,
            failure.round + 1,
            failure.error
        );
    }
    text
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// `median (least..most)`.
fn cell(rounds: Option<&Rounds>, metric: Metric) -> String {
    let Some(rounds) = rounds else { return "-".to_owned() };
    let (median, (least, most)) = (metric.show(rounds.median()), rounds.spread());
    let (least, most) = (metric.show(least), metric.show(most));
    if least == most { median } else { format!("{median} ({least}..{most})") }
}

fn median(results: &Results, case: &str, metric: Metric, subject: Subject) -> Option<f64> {
    results.rounds(case, metric, subject).map(Rounds::median)
}

fn ratio(results: &Results, case: &Case, metric: Metric) -> String {
    // A ratio of ratios says nothing.
    if metric == Metric::TimesAlone {
        return "-".to_owned();
    }
    let of = |subject| median(results, case.key, metric, subject);
    match (of(Subject::Ours), of(Subject::Go)) {
        (Some(ours), Some(go)) if ours.is_finite() && go.is_finite() && go != 0.0 => format!("{:.2}x", ours / go),
        _ => "-".to_owned(),
    }
}

fn goal_cell(results: &Results, case: &Case, metric: Metric) -> String {
    let Some(goal) = goal::of(case.key, metric) else { return String::new() };
    let of = |subject| median(results, case.key, metric, subject);
    let verdict = match of(Subject::Ours).and_then(|ours| goal.met(ours, of(Subject::Go))) {
        Some(true) => ": met",
        Some(false) => ": **not met**",
        None => "",
    };
    goal.show(metric) + verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::CASES;
    use crate::bench::machine::Machine;

    fn results() -> Results {
        let mut results = Results::new(Machine::look(), "scripts/bench.sh loopback".to_owned(), 2);
        let case = |key: &str| CASES.iter().find(|case| case.key == key).unwrap();
        for (go, ours) in [(90.0, 180.0), (110.0, 240.0)] {
            results.add(Subject::Go, case("bulk/to-client/1"), vec![(Metric::MegabytesPerSecond, go)]);
            results.add(Subject::Ours, case("bulk/to-client/1"), vec![(Metric::MegabytesPerSecond, ours)]);
        }
        results.add(Subject::Go, case("stall/readers/64"), vec![(Metric::TimesAlone, f64::INFINITY)]);
        results.add(Subject::Ours, case("stall/readers/64"), vec![(Metric::TimesAlone, 1.5)]);
        results.fail(Subject::Go, case("echo/1"), 0, &anyhow::anyhow!("it broke"));
        results
    }

    #[test]
    fn a_table_shows_median_spread_ratio_and_goal() {
        let text = table(&results());
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert_eq!(
            row("| bulk to the client, 1 dial"),
            "| bulk to the client, 1 dial | MB/s | 100 (90..110) | 210 (180..240) | 2.10x | ≥ 2x Go: met |"
        );
        assert!(text.contains("| p99 by that | never | 1.50x | - | ≤ 1.20x: **not met** |"), "{text}");
        assert!(text.contains("Failed: echo/1 on go, round 1:\n\n```text\nit broke"));
    }

    #[test]
    fn the_document_says_how_it_was_made() {
        let text = document(&results());
        assert!(text.contains("Made by `scripts/bench.sh loopback` on "), "{text}");
    }
}
