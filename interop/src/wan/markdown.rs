//! The figures as Markdown.

use std::fmt::Write as _;

use super::case::Metric;
use super::goal;
use super::results::Results;
use super::subject::Subject;
use super::sweep::{LOSSES, Point, ROUND_TRIPS};
use super::timeline::LINK;
use crate::bench::results::Rounds;
use crate::link::named;

/// How docs/benchmarks-wan.md explains the tables.
const EXPLANATION: &str = include_str!("explanation.md");

/// What the fairness table shows.
const FAIRNESS: &str = include_str!("fairness.md");

/// The name of the picture of goodput over loss.
pub const SWEEP_PLOT: &str = "goodput-over-loss";

/// The name of a link's picture of latencies.
pub fn latency_plot(link: &str) -> String {
    format!("latency-{link}")
}

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

/// The goals, goodput over loss, fairness, the time lines, then a section for each link, then what failed.
pub fn tables(results: &Results) -> String {
    let mut text = goals(results) + &sweep(results) + &fairness(results) + &lines(results);
    for link in results.links() {
        let about = named::ALL.iter().find(|named| named.name == link).map_or("", |named| named.about);
        let _ = write!(
            text,
            "## {link}\n\n{about}\n\n{}\n{}",
            figures(results, &link),
            picture(&latency_plot(&link), "cumulative latency distributions")
        );
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

fn sweep(results: &Results) -> String {
    if results.sweep.is_empty() {
        return String::new();
    }
    let mut subjects: Vec<_> = results.sweep.iter().map(|point| &point.subject).collect();
    subjects.sort();
    subjects.dedup();
    let mut head = vec!["round trip, ms".to_owned(), "loss each way, %".to_owned()];
    head.extend(subjects.iter().map(|subject| subject.to_string()));
    let mut rows = String::new();
    for round_trip in ROUND_TRIPS {
        for loss in LOSSES {
            let mut cells = vec![round_trip.to_string(), loss.to_string()];
            cells.extend(subjects.iter().map(|subject| {
                let is_it = |point: &&Point| {
                    point.subject == **subject && point.round_trip == round_trip && (point.loss - loss).abs() < 1e-9
                };
                let point = results.sweep.iter().find(is_it);
                point.map_or("-".to_owned(), |it| format!("{:.1}{}", it.goodput, mark(!it.doubts.is_empty())))
            }));
            rows += &line(&cells);
        }
    }
    let picture = picture(SWEEP_PLOT, "goodput over loss at several round trips");
    format!(
        "## Goodput over loss\n\n{picture}One dial to the client on 100 Mbit/s, Mbit/s:\n\n{}{}{rows}\n",
        line(&head),
        rule(2, head.len())
    )
}

fn fairness(results: &Results) -> String {
    let mut rows = String::new();
    for row in &results.fairness {
        let Some(rounds) = row.rounds() else { continue };
        let [share, together, loss] = &rounds;
        let doubtful = row.outcomes.iter().any(|outcome| !outcome.doubts.is_empty());
        let (goal, met) = row.contest.goal(share.median(), loss.median());
        let shown = |rounds: &Rounds, decimals: usize| {
            let (least, most) = rounds.spread();
            let [median, least, most] = [rounds.median(), least, most].map(|it| format!("{it:.decimals$}"));
            if least == most { median } else { format!("{median} ({least}..{most})") }
        };
        rows += &line(&[
            row.contest.subject.to_string(),
            row.contest.title(),
            row.contest.queue.to_string(),
            shown(share, 0) + mark(doubtful),
            shown(together, 1),
            shown(loss, 2),
            format!("{goal}: {}", if met { "met" } else { "**not met**" }),
        ]);
    }
    if rows.is_empty() {
        return rows;
    }
    let seconds = results.fairness_seconds;
    let head = ["subject", "what", "queue, products", "share, %", "together, Mbit/s", "loss, %", "goal"];
    let head = line(&head.map(str::to_owned)) + &rule(2, head.len());
    format!("## Fairness\n\n{}\n{head}{rows}\n", FAIRNESS.replace("SECONDS", &seconds.to_string()))
}

fn lines(results: &Results) -> String {
    let mut text = String::new();
    for (event, lines) in results.lines_by_event() {
        let mut rows = String::new();
        for it in &lines {
            rows += &line(&[
                it.subject.to_string() + mark(!it.doubts.is_empty()),
                format!("{:.1}", it.before()),
                it.back_after().map_or("never".to_owned(), |back| format!("{back:.2}")),
                Metric::EchoP99.show(it.longest_echo()),
                it.ended.to_string(),
            ]);
        }
        let head =
            ["subject", "Mbit/s before", "s until half of it is back", "longest echo, ms", "bulk dials that ended"];
        let head = line(&head.map(str::to_owned)) + &rule(1, head.len());
        let title = lines[0].event.title;
        let _ = write!(
            text,
            "## {}{}\n\nOn {LINK}, 4 dials to the client and 4 that echo; it begins at 5 s.\n\n{}{head}{rows}\n",
            title[..1].to_uppercase(),
            &title[1..],
            picture(event, title)
        );
    }
    text
}

fn picture(name: &str, about: &str) -> String {
    format!("![{about}](plots/{name}.svg)\n\n")
}

fn mark(doubtful: bool) -> &'static str {
    if doubtful { "?" } else { "" }
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
    let mark = mark(*doubtful);
    if least == most { format!("{median}{mark}") } else { format!("{median}{mark} ({least}..{most})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;
    use crate::wan::case::{CASES, Case};
    use crate::wan::fairness::{Contest, Outcome, Row};
    use crate::wan::measure::{Found, Which};
    use crate::wan::timeline::{EVENTS, Line};

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
    fn contests_time_lines_and_points_have_their_tables() {
        let mut results = results();
        let subject: Subject = "ours".parse().unwrap();
        let outcome = |share| Outcome { share, together: 18.9, loss: 0.4, doubts: Vec::new() };
        let contest = Contest::all(&subject).swap_remove(0);
        results.fairness.push(Row { contest, outcomes: [28.0, 29.0, 52.0].map(outcome).into() });
        let (goodput, echo) = ([vec![90.0; 20], vec![0.0; 20], vec![80.0; 20]].concat(), vec![Some(5050.0)]);
        let event = EVENTS[0];
        results.lines.push(Line { subject: subject.clone(), event, goodput, echo, ended: 0, doubts: Vec::new() });
        results.sweep.push(Point { subject, round_trip: 50, loss: 0.1, goodput: 93.21, doubts: Vec::new() });
        let text = tables(&results);
        for line in [
            "| ours | beside TCP CUBIC, first to start | 1 | 29 (28..52) | 18.9 | 0.40 | 30 to 70 %: **not met** |",
            "| ours | 90.0 | 0.00 | 5050 | 0 |",
            "| 50 | 0.1 | 93.2 |",
            "## An outage of 5 s",
            "![an outage of 5 s](plots/outage-5s.svg)",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_document_says_how_it_was_made() {
        assert!(document(&results()).contains("Made by `scripts/bench.sh wan` on "));
    }
}
