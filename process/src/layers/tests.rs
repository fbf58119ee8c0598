use std::path::PathBuf;

use clap::ArgAction;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::{duration::GoDuration, list::List, slice::StringSlice};

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
    /// Texts
    #[arg(long, default_value = "x,y", alias = "old-texts")]
    texts: StringSlice,
    /// A level
    #[arg(long, short = 'v', default_value = "4", value_parser = flag::klog_level)]
    v: i64,
    /// Of no use any more
    #[arg(long, default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    useless: bool,
    /// Shown nowhere
    #[arg(long, default_value = "", hide = true)]
    hidden: String,
    #[command(flatten)]
    inner: Inner,
    #[command(flatten)]
    #[serde(flatten)]
    beside: Beside,
}

#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Beside {
    /// At the top level, too
    #[arg(long, default_value = "2", value_parser = flag::integer)]
    beside_number: i64,
    /// At the top level, too
    #[arg(long, default_value = "1m")]
    beside_wait: GoDuration,
}

impl Settings for Outer {
    const PROGRAM: &'static str = "the-program";
    const ROLE: &'static str = "thing";
    const ABOUT: &'static str = "Is tested";
    const ENVIRONMENT: &'static [(&'static str, &'static str)] = &[("the-name", "THE_NAME"), ("inner-wait", "WAIT")];
    const DEPRECATED: &'static [(&'static str, &'static str)] =
        &[("useless", "It does nothing."), ("old-texts", "use --texts instead")];
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
        texts: StringSlice(vec!["x".into(), "y".into()]),
        v: 4,
        useless: false,
        hidden: String::new(),
        inner: Inner { wait: "1s".parse().unwrap() },
        beside: Beside { beside_number: 2, beside_wait: "1m".parse().unwrap() },
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
    let line = effective.to_string();
    let without_file: Vec<_> = line.split(' ').filter(|setting| !setting.starts_with("config=")).collect();
    assert_eq!(
        without_file.join(" "),
        "beside-number=2 beside-wait=1m0s hidden= inner-wait=1m30s names=default on=false port=1 texts=x,y the-name= useless=false v=4"
    );
}

/// A form of flags, and what it means.
type Form = (&'static [&'static str], fn(&Outer) -> bool);

/// Each form was tried with the reference's programs.
#[test]
fn flags_are_written_as_with_pflag() {
    const FORMS: &[Form] = &[
        (&["--port=0x10"], |read| read.port == 16),
        (&["--port", "0x10"], |read| read.port == 16),
        (&["--port", "-1"], |read| read.port == -1),
        (&["--port=1", "--port", "2"], |read| read.port == 2),
        (&["--inner-wait", "-1s"], |read| read.inner.wait.to_string() == "-1s"),
        (&["--the-name", "--port"], |read| read.the_name == "--port" && read.port == 8090),
        (&["--the-name", ""], |read| read.the_name.is_empty()),
        (&["--the-name=a=b"], |read| read.the_name == "a=b"),
        (&["--the-name="], |read| read.the_name.is_empty()),
        (&["--on=false"], |read| !read.on),
        (&["--on=F"], |read| !read.on),
        (&["--on=0", "--port", "1"], |read| !read.on && read.port == 1),
        (&["--on=false", "--on"], |read| read.on),
        (&["--on", "false"], |read| read.on),
        (&["word", "-", "--port=1", "word"], |read| read.port == 1),
        (&["--port=1", "--", "--port=2", "--no-such"], |read| read.port == 1),
        (&["-v=5"], |read| read.v == 5),
        (&["-v", "5"], |read| read.v == 5),
        (&["-v5"], |read| read.v == 5),
        (&["--v=5"], |read| read.v == 5),
        (&["--v", "-5"], |read| read.v == -5),
        (&["--names=a,b", "--names=c"], |read| read.names.0 == ["c"]),
        (&["--texts=a,b"], |read| read.texts.0 == ["a", "b"]),
        (&["--texts=a,b", "--texts", "c", "--texts=\"d,e\""], |read| read.texts.0 == ["a", "b", "c", "d,e"]),
        (&["--texts="], |read| read.texts.0.is_empty()),
        (&["--texts=", "--texts=a"], |read| read.texts.0 == ["a"]),
        (&["--texts=a", "--texts="], |read| read.texts.0 == ["a"]),
        (&["--texts=[]"], |read| read.texts.0 == ["[]"]),
        (&["--texts=\"\"", "--texts=a"], |read| read.texts.0 == ["", "a"]),
        (&["--beside-number=7", "--beside-wait=2s"], |read| {
            read.beside.beside_number == 7 && read.beside.beside_wait.to_string() == "2s"
        }),
        (&["--hidden=a", "--help=false"], |read| read.hidden == "a"),
    ];
    for (arguments, holds) in FORMS {
        let read = options(arguments, &[]);
        assert!(holds(&read), "{arguments:?}: {read:?}");
    }
}

/// The reference's programs say the same, letter for letter, of flags that they have.
#[test]
fn refused_flags() {
    for (arguments, message) in [
        (&["--no-such"][..], "unknown flag: --no-such"),
        (&["--no-such=1", "--other"], "unknown flag: --no-such"),
        (&["--the_name=x"], "unknown flag: --the_name"),
        (&["--help", "--no-such"], "unknown flag: --no-such"),
        (&["-x"], "unknown shorthand flag: 'x' in -x"),
        (&["-xyz"], "unknown shorthand flag: 'x' in -xyz"),
        (&["-port=1"], "unknown shorthand flag: 'p' in -port=1"),
        (&["-hx"], "unknown shorthand flag: 'x' in -x"),
        (&["-=3"], "unknown shorthand flag: '=' in -=3"),
        (&["-\u{e9}"], "unknown shorthand flag: '\u{c3}' in -\u{e9}"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["--port"], "flag needs an argument: --port"),
        (&["-v"], "flag needs an argument: 'v' in -v"),
        (&["--port=x"], "invalid argument \"x\" for \"--port\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
        (&["--port="], "invalid argument \"\" for \"--port\" flag: strconv.ParseInt: parsing \"\": invalid syntax"),
        (
            &["--port=99999999999999999999"],
            "invalid argument \"99999999999999999999\" for \"--port\" flag: strconv.ParseInt: parsing \
             \"99999999999999999999\": value out of range",
        ),
        (&["-v=x"], "invalid argument \"x\" for \"-v, --v\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
        (&["--v=x"], "invalid argument \"x\" for \"-v, --v\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            &["--on=maybe"],
            "invalid argument \"maybe\" for \"--on\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (&["--on="], "invalid argument \"\" for \"--on\" flag: strconv.ParseBool: parsing \"\": invalid syntax"),
        (&["-h=x"], "invalid argument \"x\" for \"-h, --help\" flag: strconv.ParseBool: parsing \"x\": invalid syntax"),
        (&["--inner-wait=5"], "invalid argument \"5\" for \"--inner-wait\" flag: time: missing unit in duration \"5\""),
        (
            &["--inner-wait=5d"],
            "invalid argument \"5d\" for \"--inner-wait\" flag: time: unknown unit \"d\" in duration \"5d\"",
        ),
        (&["--inner-wait="], "invalid argument \"\" for \"--inner-wait\" flag: time: invalid duration \"\""),
        (
            &["--texts=\"a"],
            "invalid argument \"\\\"a\" for \"--texts\" flag: parse error on line 1, column 3: extraneous or missing \" in \
             quoted-field",
        ),
        (
            &["--old-texts=a\"b"],
            "invalid argument \"a\\\"b\" for \"--old-texts\" flag: parse error on line 1, column 2: bare \" in non-quoted-field",
        ),
    ] {
        let Err(Exit::Refused(text)) = load_with(arguments, &[]).map(|loaded| loaded.options) else {
            panic!("{arguments:?}")
        };
        let usage = text.strip_prefix(message).unwrap_or_else(|| panic!("{arguments:?}: {text}"));
        let usage = usage.strip_suffix(message).unwrap_or_else(|| panic!("the usage is long: {text}"));
        assert!(usage.starts_with("\nUsage: the-program [flags]\n") && usage.contains("--port <PORT>"), "{text}");
    }
}

#[test]
fn an_argument_that_is_no_text() {
    use std::os::unix::ffi::OsStringExt;
    let arguments = [OsString::from("the-program"), OsString::from_vec(b"--the-name=\xff".to_vec())];
    let Err(Exit::Refused(text)) = load::<Outer>(arguments, |_| None) else { panic!("it is taken") };
    assert!(text.starts_with("the argument \"--the-name=\u{fffd}\" is not UTF-8\n"), "{text}");
}

#[test]
fn deprecated_flags_work_and_warn() {
    let mut warnings = Vec::new();
    let arguments = ["the-program", "--useless", "--texts=a", "--old-texts=b", "--useless=false"].map(OsString::from);
    let read: Outer = load_and_warn(arguments, |_| None, &mut warnings).unwrap().options;
    assert!(!read.useless);
    assert_eq!(read.texts.0, ["a", "b"]);
    assert_eq!(
        String::from_utf8(warnings).unwrap(),
        "Flag --useless has been deprecated, It does nothing.\n\
         Flag --old-texts has been deprecated, use --texts instead\n\
         Flag --useless has been deprecated, It does nothing.\n"
    );
    let Err(Exit::Told(help)) = load_with(&["-h"], &[]) else { panic!("no help") };
    for hidden in ["useless", "old-texts", "hidden"] {
        assert!(!help.contains(hidden), "{help}");
    }
    assert!(help.contains("--texts") && help.contains("-v, --v"), "{help}");
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
        format!("inner-wait = \"5\" ({path} line 7): time: missing unit in duration \"5\"; {help} says what it takes"),
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
