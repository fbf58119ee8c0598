use std::path::Path;

use clap::FromArgMatches;

use super::*;
use crate::problems::Effective;

fn options(flags: &[&str]) -> KlogOptions {
    let command = KlogOptions::augment_args(clap::Command::new("test"));
    let matches = command.get_matches_from(std::iter::once(&"test").chain(flags));
    KlogOptions::from_arg_matches(&matches).unwrap()
}

/// Problems whose settings have these origins.
fn problems(origins: &[(&str, Origin)]) -> Problems {
    let mut effective = Effective::default();
    for (setting, origin) in origins {
        effective.set(setting, String::new(), origin.clone());
    }
    Problems::new(effective, Vec::new())
}

fn file() -> Origin {
    Origin::File { path: Path::new("a.toml").into(), line: 1 }
}

fn filter(v: &str, origins: &[(&str, Origin)]) -> String {
    let flag = format!("-v={v}");
    options(&[&flag]).logging(&mut problems(origins), "warn", "text").unwrap().filter
}

#[test]
fn levels() {
    let flag = [("v", Origin::Flag)];
    for v in ["-1", "0", "4"] {
        assert_eq!(filter(v, &flag), "info");
    }
    let ours = |level: &str| {
        let ours = ["konnectivity_process", "konnectivity_transport", "proxy_agent", "proxy_server"];
        ours.iter().fold("info".to_owned(), |filter, part| format!("{filter},{part}={level}"))
    };
    assert_eq!(filter("5", &flag), ours("debug"));
    assert_eq!(filter("6", &flag), ours("trace"));
    assert_eq!(filter("10", &flag), ours("trace"));
    tracing_subscriber::EnvFilter::builder().parse(ours("trace")).unwrap();
}

#[test]
fn of_two_levels_the_one_of_higher_rank_counts() {
    assert_eq!(filter("4", &[]), "warn", "nobody has said anything: the default of log-level");
    assert_eq!(filter("4", &[("v", Origin::Flag), ("log-level", Origin::Flag)]), "warn");
    assert_eq!(filter("4", &[("v", Origin::Flag), ("log-level", file())]), "info");
    assert_eq!(filter("4", &[("v", file()), ("log-level", Origin::Flag)]), "warn");
    assert_eq!(filter("4", &[("v", file()), ("log-level", file())]), "warn");
    assert_eq!(filter("4", &[("v", file())]), "info");
}

fn destination(flags: &[&str]) -> Destination {
    options(flags).logging(&mut problems(&[]), "info", "text").unwrap().destination
}

/// Conditions of klog's `output`, row by row.
#[test]
fn destinations() {
    let stderr = |least| Destination { stderr: least, files: None };
    assert_eq!(destination(&[]), stderr(Severity::INFO));
    assert_eq!(destination(&["--log-file=/a", "--logtostderr=true"]), stderr(Severity::INFO));
    assert_eq!(destination(&["--stderrthreshold=WARNING"]), stderr(Severity::INFO));
    assert_eq!(
        destination(&["--stderrthreshold=WARNING", "--legacy-stderr-threshold-behavior=false"]),
        stderr(Severity::WARNING)
    );
    let file = |least, most_bytes| {
        let files = Place::File { path: "/a".into(), most_bytes };
        Destination { stderr: least, files: Some(files) }
    };
    let to_file = ["--logtostderr=false", "--log-file=/a"];
    let with = |flags: &[&str]| destination(&[&to_file, flags].concat());
    assert_eq!(with(&[]), file(Severity::ERROR, 1800 << 20));
    assert_eq!(with(&["--log-file-max-size=0"]), file(Severity::ERROR, u64::MAX));
    assert_eq!(with(&["--log-file-max-size=0x2"]), file(Severity::ERROR, 2 << 20));
    assert_eq!(with(&["--stderrthreshold=0"]), file(Severity::INFO, 1800 << 20));
    assert_eq!(with(&["--alsologtostderr=true"]), file(Severity::INFO, 1800 << 20));
    assert_eq!(with(&["--alsologtostderr=true", "--alsologtostderrthreshold=1"]), file(Severity::WARNING, 1800 << 20));
    let folder = destination(&["--logtostderr=false", "--log-dir=/b", "--one-output=true", "--log-file-max-size=1"]);
    let folders = vec!["/b".into(), std::env::temp_dir()];
    let files = Place::Folder { folders, one_output: true, most_bytes: 1800 << 20 };
    assert_eq!(folder, Destination { stderr: Severity::ERROR, files: Some(files) });
}

#[test]
fn a_negative_bound_of_a_file_is_refused() {
    let mut options = options(&[]);
    options.log_file_max_size = -1;
    let mut problems = problems(&[("log-file-max-size", file())]);
    assert_eq!(options.logging(&mut problems, "info", "text"), None);
    assert_eq!(problems.found().len(), 1);
}

#[test]
fn files_that_are_never_written_are_told_of() {
    let set = [("log-file", Origin::Flag), ("log-file-max-size", file()), ("v", Origin::Flag)];
    let expected =
        "logs go to standard error, as --logtostderr says; without effect then: --log-file, --log-file-max-size";
    assert_eq!(options(&[]).notice(&problems(&set)).as_deref(), Some(expected));
    assert_eq!(options(&["--logtostderr=false"]).notice(&problems(&set)), None);
    assert_eq!(options(&[]).notice(&problems(&[])), None);
}
