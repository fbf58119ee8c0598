//! The figures as Markdown.

use std::fmt::Write as _;

use super::case::{Case, LOAD, Metric};
use super::goal::{self, Goal, OF_MIXED_PAIRS};
use super::results::{Lane, Results, Rounds, Subject};
use super::way::Way;

/// How docs/benchmarks.md explains the tables.
const EXPLANATION: &str = include_str!("explanation.md");

/// What the table of the load itself shows.
const LOAD_EXPLANATION: &str =
    "What the load itself took meanwhile, clients + targets, each in per cent of the one core that it can use:";

/// What the table of mixed pairs shows.
const MIXED_EXPLANATION: &str = "Pairs of two makes, which speak gRPC with each other, as the reference's do; their agent has the default transport:";

/// The whole of docs/benchmarks.md.
pub fn document(results: &Results) -> String {
    format!("# Benchmarks\n\n{EXPLANATION}\n{}", report(results))
}

/// The facts of the machine, then the tables.
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
        ("rounds", results.rounds.clone()),
    ] {
        let _ = writeln!(text, "- {what}: {value}");
    }
    text + "\n" + &table(results)
}

/// A section for each way into the servers; and what failed.
pub fn table(results: &Results) -> String {
    let mut text = String::new();
    for &way in &results.ways {
        let lanes = results.lanes(way);
        if lanes.iter().all(|lane| *lane == Lane::Direct) && results.ways.len() > 1 {
            continue;
        }
        let (mixed, lanes): (Vec<_>, Vec<_>) = lanes.into_iter().partition(|lane| lane.subject().is_mixed());
        let _ = write!(text, "## {}\n\n{}", way.title(), figures(results, way, &lanes));
        if !mixed.is_empty() {
            let _ = write!(text, "\n{MIXED_EXPLANATION}\n\n{}", mixed_pairs(results, way, &mixed));
        }
        let cases: Vec<_> = results.cases(&lanes).into_iter().filter(|case| case.has_load()).collect();
        if !cases.is_empty() {
            let _ = write!(text, "\n{LOAD_EXPLANATION}\n\n{}", load(results, &cases, &lanes));
        }
        text.push('\n');
    }
    for failure in &results.failures {
        let _ = write!(
            text,
            "Failed: {} on {} ({}), round {}:\n\n```text\n{}\n```\n\n",
            failure.case,
            failure.subject,
            failure.way,
            failure.round + 1,
            failure.error
        );
    }
    text.trim_end().to_owned() + "\n"
}

/// Medians with the spread of the rounds, ratios, goals.
fn figures(results: &Results, way: Way, lanes: &[Lane]) -> String {
    let [go, ours] = [Subject::Go, Subject::Ours].map(|subject| Lane::Through(way, subject));
    let both = lanes.contains(&go) && lanes.contains(&ours);
    let goals = lanes.contains(&ours);
    let more = [(both, "ours / Go"), (goals, "goal")];
    let mut text = head(&["work", "figure"], lanes, more.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| *name));
    for case in results.cases(lanes) {
        let mut title = case.title;
        for &metric in case.metrics() {
            let of = |lane: Lane| results.rounds(lane, case.key, metric);
            let mut cells = vec![std::mem::take(&mut title).to_owned(), metric.title().to_owned()];
            cells.extend(lanes.iter().map(|&lane| cell(of(lane), metric)));
            let [go, ours] = [go, ours].map(|lane| of(lane).map(Rounds::median));
            cells.extend(both.then(|| ratio(metric, ours, go)));
            cells.extend(goals.then(|| goal_cell(goal::of(way.mode(), case.key, metric), metric, ours, go)));
            text += &line(&cells);
        }
    }
    text
}

/// Pairs of two makes beside the reference's own pair.
fn mixed_pairs(results: &Results, way: Way, lanes: &[Lane]) -> String {
    let go = Lane::Through(way, Subject::Go);
    let shown: Vec<_> = std::iter::once(go).chain(lanes.iter().copied()).collect();
    let names: Vec<_> = lanes.iter().map(|lane| format!("{} / Go", lane.subject().title())).collect();
    let mut text = head(&["work", "figure"], &shown, names.iter().map(String::as_str));
    for case in results.cases(lanes) {
        let mut title = case.title;
        for &metric in case.metrics() {
            let of = |lane: Lane| results.rounds(lane, case.key, metric);
            let mut cells = vec![std::mem::take(&mut title).to_owned(), metric.title().to_owned()];
            cells.extend(shown.iter().map(|&lane| cell(of(lane), metric)));
            let reference = of(go).map(Rounds::median);
            for &lane in lanes {
                let figure = of(lane).map(Rounds::median);
                let goal = matches!(metric, Metric::MegabytesPerSecond | Metric::PerSecond).then_some(OF_MIXED_PAIRS);
                let verdict = goal_cell(goal, metric, figure, reference);
                let verdict = if verdict.is_empty() { verdict } else { format!(" ({verdict})") };
                cells.push(ratio(metric, figure, reference) + &verdict);
            }
            text += &line(&cells);
        }
    }
    text
}

/// Medians of what the load itself took.
fn load(results: &Results, cases: &[&Case], lanes: &[Lane]) -> String {
    let mut text = head(&["work"], lanes, std::iter::empty());
    for case in cases {
        let mut cells = vec![case.title.to_owned()];
        cells.extend(lanes.iter().map(|&lane| {
            let parts =
                LOAD.map(|metric| results.rounds(lane, case.key, metric).map(|rounds| (metric, rounds.median())));
            match parts {
                [Some((one, clients)), Some((other, targets))] => {
                    format!("{} + {}", one.show(clients), other.show(targets))
                }
                _ => "-".to_owned(),
            }
        }));
        text += &line(&cells);
    }
    text
}

/// The first lines of a table: names are to the left, figures to the right.
fn head<'a>(names: &[&str], lanes: &[Lane], more: impl Iterator<Item = &'a str>) -> String {
    let mut cells: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    cells.extend(lanes.iter().map(|lane| lane.subject().title().to_owned()));
    cells.extend(more.map(str::to_owned));
    let rules: Vec<_> =
        (0..cells.len()).map(|place| if place < names.len() { "---" } else { "---:" }.to_owned()).collect();
    line(&cells) + &line(&rules)
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

fn ratio(metric: Metric, ours: Option<f64>, go: Option<f64>) -> String {
    match (ours, go) {
        // A ratio of ratios says nothing.
        _ if metric == Metric::TimesAlone => "-".to_owned(),
        (Some(ours), Some(go)) if ours.is_finite() && go.is_finite() && go != 0.0 => format!("{:.2}x", ours / go),
        _ => "-".to_owned(),
    }
}

fn goal_cell(goal: Option<Goal>, metric: Metric, ours: Option<f64>, go: Option<f64>) -> String {
    let Some(goal) = goal else { return String::new() };
    let verdict = match ours.and_then(|ours| goal.met(ours, go)) {
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
        let ways = vec![Way::Uds, Way::GrpcUds, Way::GrpcMtls];
        let mut results = Results::new(Machine::look(), "scripts/bench.sh loopback".to_owned(), "2".to_owned(), ways);
        let case = |key: &str| CASES.iter().find(|case| case.key == key).unwrap();
        let [go, ours] = [Subject::Go, Subject::Ours].map(|subject| Lane::Through(Way::Uds, subject));
        for (go_rate, ours_rate) in [(90.0, 180.0), (110.0, 240.0)] {
            results.add(go, case("bulk/to-client/1"), vec![(Metric::MegabytesPerSecond, go_rate)]);
            let load = [(Metric::ClientsCpu, 60.0), (Metric::TargetsCpu, ours_rate / 4.0)];
            let figures = [vec![(Metric::MegabytesPerSecond, ours_rate)], load.to_vec()].concat();
            results.add(ours, case("bulk/to-client/1"), figures);
        }
        let mixed = Lane::Through(Way::Uds, Subject::GoServer);
        results.add(mixed, case("bulk/to-client/1"), vec![(Metric::MegabytesPerSecond, 90.0)]);
        results.add(go, case("stall/readers/64"), vec![(Metric::TimesAlone, f64::INFINITY)]);
        results.add(ours, case("stall/readers/64"), vec![(Metric::TimesAlone, 1.5)]);
        let grpc = Lane::Through(Way::GrpcUds, Subject::Ours);
        results.add(grpc, case("idle/1000"), vec![(Metric::ServerBytes, 12_000.0)]);
        results.add(Lane::Direct, case("echo/1"), vec![(Metric::PerSecond, 10_000.0)]);
        results.fail(grpc, case("echo/1"), 0, &anyhow::anyhow!("it broke"));
        results
    }

    #[test]
    fn a_table_shows_median_spread_ratio_and_goal() {
        let text = table(&results());
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert_eq!(
            row("| bulk to the client, 1 dial"),
            "| bulk to the client, 1 dial | MB/s | - | 100 (90..110) | 210 (180..240) | 2.10x | ≥ 2x Go: met |"
        );
        assert!(text.contains("| p99 by that | - | never | 1.50x | - | ≤ 1.20x: **not met** |"), "{text}");
        assert!(text.contains(&format!(
            "\n{MIXED_EXPLANATION}\n\n| work | figure | Go | Go server, our agent | Go server, our agent / Go |\n"
        )));
        assert!(text.contains("| MB/s | 100 (90..110) | 90 | 0.90x (≥ 1x Go: **not met**) |"), "{text}");
        assert!(text.contains("Failed: echo/1 on ours (grpc-uds), round 1:\n\n```text\nit broke"));
    }

    #[test]
    fn each_way_has_a_table_with_its_own_goals_and_what_the_load_took() {
        let text = table(&results());
        let headings: Vec<_> = text.lines().filter(|line| line.starts_with("##")).collect();
        assert_eq!(headings, ["## HTTP CONNECT over a Unix socket", "## gRPC over a Unix socket"]);
        let (connect, grpc) = text.split_once("## gRPC").unwrap();
        assert!(connect.contains("| bulk to the client, 1 dial | - | - | 60 + 52 |"), "{text}");
        assert!(grpc.contains("| memory per idle dial, 1,000 dials | server, KB | - | 12.0 | ≤ 16.0: met |"), "{text}");
        assert!(connect.contains("| per second | 10,000 |") && grpc.contains("| per second | 10,000 |"), "{text}");
    }

    #[test]
    fn the_document_says_how_it_was_made() {
        let text = document(&results());
        assert!(text.contains("Made by `scripts/bench.sh loopback` on "), "{text}");
    }
}
