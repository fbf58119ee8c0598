//! A run as a table: rows are scenarios, columns are pairings, and each place has a sign for each of the four fronts.

use std::fmt::Write;

use anyhow::Context;

use super::column::{Column, Front, Pairing};
use super::report::{Report, Result, Verdict};
use super::scenario::{self, Scenario, Stage};

/// Where the table says nothing: the cell was not asked for, or means nothing.
const NOT_RUN: char = '·';
const MEANS_NOTHING: char = '-';

const LEGEND: &str = "✓ passed   ✗ FAILED   + passed, not required   f fails, not required   s skipped   · not run   - means nothing there";

/// Errors are cut after so many characters where they are listed; the JSON has all of them.
const ERROR_CHARACTERS: usize = 300;

/// For the terminal.
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n{LEGEND}\n{}\n\n", heading(report), fronts());
    let width = scenario::ALL.iter().map(|scenario| scenario.key.len()).max().unwrap_or(0);
    let pairings: Vec<_> = pairings(report).map(|pairing| (pairing, pairing.to_string())).collect();
    let _ = write!(text, "{:width$}", "");
    for (_, name) in &pairings {
        let _ = write!(text, "  {name}");
    }
    for scenario in scenarios(report) {
        let _ = write!(text, "\n{:width$}", scenario.key);
        for (pairing, name) in &pairings {
            let _ = write!(text, "  {:1$}", signs(report, *pairing, scenario), name.len());
        }
    }
    text.push('\n');
    for (title, cells) in lists(report, is_time_line) {
        let _ = write!(text, "\n{title}:\n");
        for (name, why) in cells {
            let _ = writeln!(text, "  {name}{}", if why.is_empty() { why } else { format!(": {why}") });
        }
    }
    let _ = write!(text, "\n{}", sums(report));
    text
}

/// For a page, with everything that was seen.
pub fn markdown(report: &Report) -> String {
    page(report, |_| true)
}

/// `document` with this run's table between its marks.
///
/// # Errors
/// When the marks are not there.
pub fn embedded(document: &str, report: &Report) -> anyhow::Result<String> {
    const BEGIN: &str = "<!-- begin table -->\n";
    const END: &str = "<!-- end table -->\n";
    let marks = document.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = marks.context("the document has no marks for the table")?;
    Ok(format!("{head}{BEGIN}{}{END}{tail}", page(report, is_time_line)))
}

/// Everything that was seen is a long list; time lines of a network are worth a look each time.
fn is_time_line(cell: &Result) -> bool {
    scenario::ALL.iter().any(|row| row.key == cell.scenario && row.stage == Stage::Cable)
}

fn page(report: &Report, noted: fn(&Result) -> bool) -> String {
    let mut text = format!("{}\n\n{LEGEND}\n\n{}\n\n", heading(report), fronts());
    let (head, rule): (String, String) = pairings(report).map(|pairing| (format!(" {pairing} |"), "---|")).unzip();
    let _ = writeln!(text, "| |{head}\n|---|{rule}");
    for scenario in scenarios(report) {
        let signs: String =
            pairings(report).map(|pairing| format!(" `{}` |", signs(report, pairing, scenario))).collect();
        let _ = writeln!(text, "| {} |{signs}", scenario.key);
    }
    for (title, cells) in lists(report, noted) {
        let _ = write!(text, "\n{title}:\n\n");
        for (name, why) in cells {
            let (why, log) = why.split_once('\n').map_or((why.as_str(), None), |(why, log)| (why, Some(log)));
            let _ = writeln!(text, "- `{name}`{}", if why.is_empty() { String::new() } else { format!(": {why}") });
            let _ = log.map(|log| writeln!(text, "\n  ```text\n{log}\n  ```\n"));
        }
    }
    let _ = writeln!(text, "\n{}", sums(report));
    text
}

/// The pairings of which anything ran.
fn pairings(report: &Report) -> impl Iterator<Item = Pairing> {
    let ran = |pairing: &Pairing| report.cells.iter().any(|cell| cell.column.pairing == *pairing);
    Pairing::ALL.into_iter().filter(ran)
}

/// The scenarios that ran anywhere.
fn scenarios(report: &Report) -> impl Iterator<Item = &'static Scenario> {
    scenario::ALL.iter().filter(|scenario| report.cells.iter().any(|cell| cell.scenario == scenario.key))
}

fn heading(report: &Report) -> String {
    let Report { size, build, time, machine, .. } = report;
    format!("Interop matrix, {size}: {build} builds, {machine}, {:.0} s", time.as_secs_f64())
}

fn fronts() -> String {
    format!("columns: server-agent/carrier; the four signs of each: {}", Front::ALL.map(Front::key).join(", "))
}

fn signs(report: &Report, pairing: Pairing, scenario: &Scenario) -> String {
    let sign = |front| {
        let column = Column { pairing, front };
        let cell = report.cells.iter().find(|cell| cell.column == column && cell.scenario == scenario.key);
        match cell {
            Some(cell) => cell.verdict().sign(),
            None if (scenario.applies)(column) => NOT_RUN,
            None => MEANS_NOTHING,
        }
    };
    Front::ALL.map(sign).iter().collect()
}

/// What is to be read behind the table, each with a title; of notes, those of these cells.
fn lists(report: &Report, noted: impl Fn(&Result) -> bool) -> Vec<(&'static str, Vec<(String, String)>)> {
    let named = |verdict: Verdict| {
        let cells = report.cells.iter().filter(|cell| cell.verdict() == verdict);
        let why = |cell: &Result| match (verdict, cell.error.as_deref().unwrap_or_default()) {
            // With the last lines of a log, if there are any.
            (Verdict::Bad, error) => error.to_owned(),
            (_, error) => first_line(error),
        };
        cells.map(|cell| (name(cell), why(cell))).collect::<Vec<_>>()
    };
    let notes = report
        .cells
        .iter()
        .filter(|cell| noted(cell))
        .flat_map(|cell| cell.notes.iter().map(|note| (name(cell), note.clone())));
    let all = [
        ("FAILED", named(Verdict::Bad)),
        ("pass, though required.toml does not say so", named(Verdict::Bonus)),
        ("fail, as they may", named(Verdict::Known)),
        ("fail between the reference's own programs", named(Verdict::ReferenceBad)),
        ("skipped", named(Verdict::Skipped)),
        ("seen", notes.collect()),
    ];
    all.into_iter().filter(|(_, cells)| !cells.is_empty()).collect()
}

fn name(cell: &Result) -> String {
    format!("{}/{}", cell.column, cell.scenario)
}

/// The line breaks of an error stand before the last lines of a log.
fn first_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    match line.char_indices().nth(ERROR_CHARACTERS) {
        None => line.to_owned(),
        Some((at, _)) => format!("{}...", &line[..at]),
    }
}

fn sums(report: &Report) -> String {
    let count = |verdict| report.count(verdict);
    format!(
        "required: {} passed, {} failed; not required: {} passed, {} failed; the reference: {} passed, {} failed; skipped: {}",
        count(Verdict::Good),
        count(Verdict::Bad),
        count(Verdict::Bonus),
        count(Verdict::Known),
        count(Verdict::ReferenceGood),
        count(Verdict::ReferenceBad),
        count(Verdict::Skipped)
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::matrix::cell::Size;
    use crate::matrix::report::Outcome;
    use crate::matrix::runner::Tried;

    fn cell(pairing: usize, front: Front, scenario: &'static str, required: bool, error: Option<&str>) -> Result {
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Passed };
        let (error, time) = (error.map(str::to_owned), Duration::from_millis(1234));
        let tried = Tried { outcome, error, time, notes: vec!["a note".to_owned()], logs: PathBuf::from("logs") };
        Result::new(Column { pairing: Pairing::ALL[pairing], front }, scenario, required, tried)
    }

    fn report() -> Report {
        let cells = vec![
            cell(4, Front::ConnectUds, "half-close", true, Some("it broke\n    | last words")),
            cell(4, Front::ConnectMtls, "half-close", true, None),
            cell(0, Front::ConnectUds, "half-close", false, Some("as ever")),
            cell(3, Front::ConnectUds, "half-close", false, None),
        ];
        Report::new(cells, Size::Quick, Duration::from_secs(7))
    }

    #[test]
    fn a_row_has_a_sign_for_each_front_of_each_pairing() {
        let table = text(&report());
        let row = table.lines().find(|line| line.starts_with("half-close")).unwrap_or_default();
        let signs: Vec<_> = row.split_ascii_whitespace().collect();
        assert_eq!(signs, ["half-close", "--f·", "--+·", "--✗✓"]);
        let head = table.lines().find(|line| line.contains("go-go/grpc")).unwrap_or_default();
        assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["go-go/grpc", "ours-go/grpc", "ours-ours/quic"]);
        assert!(!table.contains("\necho"), "nothing is shown of what did not run");
    }

    #[test]
    fn what_failed_is_listed_with_its_reason_and_counted() {
        let report = report();
        assert_eq!(report.failed(), 1);
        let table = text(&report);
        assert!(
            table.contains("\nFAILED:\n  ours-ours/quic/connect-uds/half-close: it broke\n    | last words\n\n"),
            "{table}"
        );
        assert!(table.contains("reference's own programs:\n  go-go/grpc/connect-uds/half-close: as ever\n"), "{table}");
        assert!(table.contains("does not say so:\n  ours-go/grpc/connect-uds/half-close\n"), "{table}");
        assert!(
            table.ends_with("required: 1 passed, 1 failed; not required: 1 passed, 0 failed; the reference: 0 passed, 1 failed; skipped: 0"),
            "{table}"
        );
    }

    #[test]
    fn a_page_has_the_same() {
        let page = markdown(&report());
        let row = "| half-close | `--f·` | `--+·` | `--✗✓` |";
        assert!(page.lines().any(|line| line == row), "{page}");
        assert!(
            page.contains(
                "- `ours-ours/quic/connect-uds/half-close`: it broke\n\n  ```text\n    | last words\n  ```\n"
            ),
            "{page}"
        );
    }

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let document = "# Head\n<!-- begin table -->\nold\n<!-- end table -->\ntail\n";
        let new = embedded(document, &report()).unwrap_or_default();
        assert!(new.starts_with("# Head\n<!-- begin table -->\nInterop matrix, quick"), "{new}");
        assert!(
            new.ends_with("\n<!-- end table -->\ntail\n") && !new.contains("old") && !new.contains("a note"),
            "{new}"
        );
        assert!(embedded("no marks", &report()).is_err());
    }

    #[test]
    fn json_has_everything_about_a_cell() {
        let json = serde_json::to_value(report()).unwrap_or_default();
        let cell = &json["cells"][2];
        assert_eq!(cell["server"], "ours");
        assert_eq!(cell["carrier"], "quic");
        assert_eq!(cell["front"], "connect-uds");
        assert_eq!(cell["outcome"], "failed");
        assert_eq!(cell["error"], "it broke\n    | last words");
        assert_eq!(cell["seconds"], 1.234);
    }
}
