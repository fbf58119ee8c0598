use std::path::PathBuf;

use clap::ArgAction;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::{flag, list::List};

#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Inner {
    /// Inside
    #[arg(long = "inner-wait", default_value = "1s")]
    wait: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Outer {
    /// A text
    #[arg(long, default_value = "")]
    the_name: String,
    /// A number
    #[arg(long, default_value = "8090", value_parser = flag::integer)]
    port: i64,
    /// A switch
    #[arg(long, default_value = "true", value_parser = flag::boolean, action = ArgAction::Set)]
    on: bool,
    /// Names
    #[arg(long, default_value = "default")]
    names: List,
    #[command(flatten)]
    inner: Inner,
}

impl Settings for Outer {
    const PROGRAM: &'static str = "the-program";
    const ROLE: &'static str = "thing";
    const ABOUT: &'static str = "Is tested";
    const ENVIRONMENT: &'static [(&'static str, &'static str)] = &[("the-name", "THE_NAME"), ("inner-wait", "WAIT")];
}

fn load_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Loaded<Outer>, Exit> {
    let arguments = std::iter::once("the-program").chain(arguments.iter().copied()).map(OsString::from);
    load(arguments, |name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
}

/// What is loaded without any problem.
fn options(arguments: &[&str], environment: &[(&str, &str)]) -> Outer {
    let loaded = load_with(arguments, environment).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    loaded.options
}

fn file(text: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("settings.toml");
    std::fs::write(&path, text).unwrap();
    (folder, format!("--config={}", path.display()))
}

fn problems(arguments: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    load_with(arguments, environment).unwrap().problems.found().iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_stand_where_nobody_said_anything() {
    let expected = Outer {
        the_name: String::new(),
        port: 8090,
        on: true,
        names: List(vec!["default".into()]),
        inner: Inner { wait: "1s".parse().unwrap() },
    };
    assert_eq!(options(&[], &[]), expected);
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let (_folder, config) = file("the-name = \"file\"\nport = 1\n[inner]\nwait = \"2s\"\n");
    let read = options(&[&config], &[]);
    assert_eq!((read.the_name.as_str(), read.port, read.inner.wait.to_string().as_str()), ("file", 1, "2s"));
    let environment = [("THE_NAME", "environment"), ("WAIT", "3s")];
    let read = options(&[&config], &environment);
    assert_eq!((read.the_name.as_str(), read.port, read.inner.wait.to_string().as_str()), ("environment", 1, "3s"));
    let read = options(&[&config, "--the-name=flag", "--inner-wait", "4s"], &environment);
    assert_eq!((read.the_name.as_str(), read.port, read.inner.wait.to_string().as_str()), ("flag", 1, "4s"));
    assert_eq!(options(&["--the-name="], &environment).the_name, "", "an empty flag is a flag");
    assert_eq!(options(&[&config], &[("THE_NAME", "")]).the_name, "file", "an empty variable is none");
    assert_eq!(options(&[&config, "--port=8090"], &[]).port, 8090, "the default's value, typed, goes over the file");
}

#[test]
fn each_origin_is_known() {
    let (_folder, config) = file("# first line\nport = 1\n");
    let loaded = load_with(&[&config, "--on=f"], &[("WAIT", "90s")]).unwrap();
    let effective = loaded.problems.effective();
    let origin = |setting| effective.origin(setting).to_string();
    assert!(origin("port").ends_with("settings.toml line 2"), "{}", origin("port"));
    assert_eq!(origin("inner-wait"), "environment variable WAIT");
    assert_eq!(origin("on"), "flag");
    assert_eq!(origin("names"), "default");
    assert_eq!(
        effective.to_string().split_once(' ').unwrap().1,
        "inner-wait=1m30s names=default on=false port=1 the-name="
    );
}

#[test]
fn flags_are_written_as_with_go() {
    assert!(!options(&["--on=false"], &[]).on);
    assert!(options(&["--on=false", "--on"], &[]).on, "the last one wins");
    assert!(!options(&["--on=0", "--port", "0x10"], &[]).on);
    assert_eq!(options(&["--port", "0x10"], &[]).port, 16);
    assert_eq!(options(&["--port", "-1"], &[]).port, -1);
    assert_eq!(options(&["--inner-wait", "-1s"], &[]).inner.wait.to_string(), "-1s");
    assert_eq!(options(&["--names=a,b", "--names=c"], &[]).names.0, ["c"]);
}

#[test]
fn refused_flags() {
    for (arguments, start) in [
        (&["--no-such"][..], "unexpected argument '--no-such' found"),
        (&["--on", "false"], "unexpected argument 'false' found"),
        (&["--port=x"], "invalid value 'x' for '--port <PORT>': write a whole number, such as 8090"),
        (&["--inner-wait=5"], "invalid value '5' for '--inner-wait <WAIT>': \"5\" has no unit"),
        (&["--on=yes"], "invalid value 'yes' for '--on[=<ON>]': write true or false"),
    ] {
        match load_with(arguments, &[]).map(|loaded| loaded.options) {
            Err(Exit::Refused(text)) => assert!(text.starts_with(start), "{text}"),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }
}

#[test]
fn help_and_version_are_told() {
    let Err(Exit::Told(version)) = load_with(&["--version"], &[]) else { panic!("no version") };
    let start = format!("the-program {} (commit ", env!("CARGO_PKG_VERSION"));
    assert!(version.starts_with(&start), "{version}");
    assert!(version.trim_end().ends_with(", protocol konnectivity-quic/1)"), "{version}");
    let Err(Exit::Told(help)) = load_with(&["--help", "--port=5"], &[]) else { panic!("no help") };
    for part in ["--port <PORT>", "[default: 8090]", "--config <FILE>", "--inner-wait", "Is tested\n"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
    assert!(!help.contains("[default: \"\"]"), "{help}");
}

#[test]
fn all_that_is_wrong_in_a_file_is_found_with_its_line() {
    let (_folder, config) = file(
        "prot = 1\nport = \"x\"\nthe_name = \"a\"\ninner-wait = \"1s\"\non = 3\n[inner]\nwait = \"5\"\nwiat = 1\n[other]\nx = 1\n[names]\n",
    );
    let (_, path) = config.split_once('=').unwrap();
    let help = "the-program --help";
    let expected = [
        format!(
            "prot ({path} line 1): no setting has this name; remove it, or correct its name; {help} lists the settings"
        ),
        format!("port = \"x\" ({path} line 2): invalid type: string \"x\", expected i64; {help} says what it takes"),
        format!("the_name ({path} line 3): no setting has this name; write the-name"),
        format!("inner-wait ({path} line 4): no setting has this name; write wait in the table [inner]"),
        format!("on = \"3\" ({path} line 5): invalid type: integer `3`, expected a boolean; {help} says what it takes"),
        format!(
            "inner-wait = \"5\" ({path} line 7): \"5\" has no unit; append one of ns, us, ms, s, m, h; {help} says what it takes"
        ),
        format!(
            "inner.wiat ({path} line 8): no setting has this name; remove it, or correct its name; {help} lists the settings"
        ),
        format!(
            "other.x ({path} line 10): no setting has this name; remove it, or correct its name; {help} lists the settings"
        ),
    ];
    let found = problems(&[&config], &[]);
    assert_eq!(found[..8], expected);
    assert!(found[8].starts_with(&format!("names = \"{{}}\" ({path} line 11): expected names")), "{}", found[8]);
    assert_eq!(found.len(), 9);
}

#[test]
fn a_value_of_a_wrong_kind_leaves_the_layer_below() {
    let (_folder, config) = file("port = 1\n[inner]\nwait = \"2s\"\n");
    let loaded = load_with(&[&config], &[("WAIT", "soon")]).unwrap();
    assert_eq!(loaded.options.inner.wait.to_string(), "2s");
    assert!(loaded.problems.to_string().contains("inner-wait = \"soon\" (environment variable WAIT)"));
}

#[test]
fn broken_and_missing_files() {
    let (folder, config) = file("port = 1\nport = 2\n");
    let found = problems(&[&config], &[]);
    assert!(found[0].contains("settings.toml line 2): ") && found[0].contains("duplicate key"), "{found:?}");
    let missing = folder.path().join("missing.toml");
    let found = problems(&["--config", missing.to_str().unwrap()], &[]);
    assert!(found[0].contains("cannot read the file: No such file"), "{found:?}");
    assert_eq!(problems(&["--config="], &[]), Vec::<String>::new(), "no file is named");
}

#[test]
fn other_ways_to_write_a_file() {
    let (_folder, config) = file("inner.wait = \"2s\"\nnames = [\"a\", \"b\"]\nport = 0x10\n");
    let read = options(&[&config], &[]);
    assert_eq!((read.inner.wait.to_string().as_str(), read.port), ("2s", 16));
    assert_eq!(read.names.0, ["a", "b"]);
    let (_folder, config) = file("names = \"a,b\"\n[inner]\n");
    assert_eq!(options(&[&config], &[]).names.0, ["a", "b"]);
}
