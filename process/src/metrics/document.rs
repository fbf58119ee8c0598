//! For the tests of both programs: what ties `docs/metrics.md` to the metrics that there are.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use konnectivity_transport::connection::ConnectionStats;

use super::QuicSnapshot;

/// What a scrape says of a family.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    labels: Vec<String>,
}

/// The families of a scrape whose names begin with `prefix`, by the rest of their names.
fn families(scrape: &str, prefix: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in scrape.lines() {
        let (what, rest) = match line.strip_prefix("# ").and_then(|line| line.split_once(' ')) {
            Some((what, rest)) => (what, rest),
            None => ("sample", line),
        };
        let Some(rest) = rest.strip_prefix(prefix) else { continue };
        let (name, value) = rest.split_once([' ', '{']).unwrap_or((rest, ""));
        match what {
            "HELP" => families.entry(name.to_owned()).or_default().help = value.to_owned(),
            "TYPE" => families.entry(name.to_owned()).or_default().kind = value.to_owned(),
            _ if rest.contains('{') => {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                let name = if families.contains_key(name) { name } else { base.unwrap_or(name) };
                families.entry(name.to_owned()).or_default().labels = label_names(value);
            }
            _ => {}
        }
    }
    families
}

/// The names in `a="1",b="2"} 3`, but not that of a histogram's bounds.
fn label_names(labels: &str) -> Vec<String> {
    let names = labels.split("=\"").filter_map(|part| part.rsplit(['"', ',']).next());
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    // What comes after the last equals sign is a value.
    names.pop();
    names.retain(|name| name != "le");
    names
}

/// The last cell of each row of a section, by the name in the first.
fn notes(section: &str) -> BTreeMap<&str, &str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.filter_map(|row| Some((row.split_once('`')?.0, row.rsplit_once(" | ")?.1))).collect()
}

/// The section as it should be: a table of the reference's families and one of ours.
fn document(families: &BTreeMap<String, Family>, reference: &[&str], notes: &BTreeMap<&str, &str>) -> String {
    let mut text = String::new();
    for (heading, of_reference) in [("The reference's", true), ("More", false)] {
        let _ = write!(text, "\n### {heading}\n\n| Name | Type | Labels | Help | When |\n|---|---|---|---|---|\n");
        for (name, family) in families {
            if reference.contains(&name.as_str()) == of_reference {
                let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
                let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
                let note = notes.get(name.as_str()).copied().unwrap_or_default();
                let _ = writeln!(text, "| `{name}` | {} | {labels} | {} | {note} |", family.kind, family.help);
            }
        }
    }
    text
}

/// One connection with these labels, so that a scrape has every family of QUIC's.
pub fn one_connection<'a>(label_names: &'a [&'a str]) -> QuicSnapshot<'a> {
    let stats = ConnectionStats {
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 8091)),
        rtt: Duration::from_micros(12_500),
        congestion_window_bytes: 120_000,
        mtu_bytes: 1_452,
        lost_packets: 3,
        sent_packets: 400,
        sent_bytes: 70_000,
        received_bytes: 60_000,
        open_dials: 7,
        stalled_dials: 2,
        unacknowledged_bytes: 0,
        age: Duration::from_secs(60),
    };
    let labels = label_names.iter().map(|name| (*name).to_owned()).collect();
    QuicSnapshot { label_names, connections: vec![(labels, stats)], memory_budget: 1_024, memory_used: 0 }
}

/// A family of a scrape, by its whole name, as the reference's tests compare it: HELP, TYPE and samples as a whole.
pub fn family(scrape: &str, name: &str) -> String {
    let of_family = |line: &&str| {
        let line = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        line.split([' ', '{']).next() == Some(name)
    };
    scrape.lines().filter(of_family).map(|line| format!("{line}\n")).collect()
}

/// Makes sure that the program's section of `docs/metrics.md` lists the families of `scrape` that begin with `prefix`,
/// each with type, labels and help text as they are, and says of each when it changes; with `KONNECTIVITY_WRITE_DOCS` in
/// the environment all but the last is made so.
///
/// # Panics
/// When it is not, the file cannot be read, or a family of `reference` is missing.
pub fn check_document(path: &Path, program: &str, scrape: &str, prefix: &str, reference: &[&str]) {
    let text = fs::read_to_string(path).expect("the document is in the repository");
    let (begin, end) = (format!("<!-- begin {program} -->\n"), format!("<!-- end {program} -->"));
    let (before, rest) = text.split_once(&begin).expect("the document says where the section begins");
    let (section, after) = rest.split_once(&end).expect("the document says where the section ends");
    let families = families(scrape, prefix);
    for name in reference {
        assert!(families.contains_key(*name), "{name} is not in the scrape:\n{scrape}");
    }
    let notes = notes(section);
    let expected = document(&families, reference, &notes);
    if std::env::var_os("KONNECTIVITY_WRITE_DOCS").is_some() {
        fs::write(path, format!("{before}{begin}{expected}{end}{after}")).expect("the document can be written");
        return;
    }
    assert_eq!(section, expected, "KONNECTIVITY_WRITE_DOCS=1 cargo test metrics_document writes it anew");
    for name in families.keys() {
        assert!(notes.get(name.as_str()).is_some_and(|note| !note.is_empty()), "{name}: say when it changes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "# HELP p_sent_total Things, sent.\n# TYPE p_sent_total counter\n\
        p_sent_total{kind=\"a=\\\"b\\\",\",to=\"c\"} 1\n\
        # HELP other Not ours.\n# TYPE other gauge\nother 1\n\
        # HELP p_wait_seconds Waits.\n# TYPE p_wait_seconds histogram\n\
        p_wait_seconds_bucket{code=\"1\",le=\"+Inf\"} 1\np_wait_seconds_sum{code=\"1\"} 1\n\
        p_wait_seconds_count{code=\"1\"} 1\n# HELP p_open_count Open.\n# TYPE p_open_count gauge\np_open_count 1\n";

    #[test]
    fn a_scrape_becomes_two_tables_that_keep_their_notes() {
        let families = families(SCRAPE, "p_");
        let old = "| `sent_total` | gauge | - | Old. | after it was sent |\n| `gone` | gauge | - | Gone. | never |\n";
        let text = document(&families, &["sent_total"], &notes(old));
        let (reference, ours) = text.split_once("### More").unwrap();
        assert!(
            reference.ends_with("| `sent_total` | counter | `kind`, `to` | Things, sent. | after it was sent |\n\n"),
            "{text}"
        );
        assert!(ours.contains("| `open_count` | gauge | - | Open. |  |\n"), "{text}");
        assert!(ours.ends_with("| `wait_seconds` | histogram | `code` | Waits. |  |\n"), "{text}");
        assert!(!text.contains("other") && !text.contains("gone"), "{text}");
    }
}
