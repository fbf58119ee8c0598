//! For the tests of both programs: what ties the example files and the documentation to the settings.

use std::{
    fmt::{Debug, Write},
    fs,
    path::Path,
};

use clap::{Arg, Command};

use crate::{
    exit::Exit,
    layers::{self, Settings},
};

pub mod reference;

/// Flags that are settings: all but those that name the file or ask for a text.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !matches!(argument.get_long(), Some("config" | "help" | "version") | None))
}

/// An example file with the settings that are commented out (`#name = value`) made active.
fn uncomment(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if is_assignment(setting) => setting,
        _ => line,
    });
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Whether a line is `name = value` and not prose.
fn is_assignment(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
}

/// The settings as Markdown, a table for each heading of `--help`, as `docs/operating/settings.md` has them.
fn document<S: Settings>() -> String {
    let command = layers::command::<S>();
    let mut text = String::new();
    let mut heading = None;
    for argument in arguments(&command) {
        if argument.get_help_heading() != heading {
            heading = argument.get_help_heading();
            let heading = heading.unwrap_or("Settings");
            let _ =
                write!(text, "\n### {heading}\n\n| Setting | Value | Default | What it does |\n|---|---|---|---|\n");
        }
        let name = argument.get_long().unwrap_or_default();
        let kind = argument.get_value_names().and_then(|names| names.first()).map_or("", |kind| kind.as_str());
        let default = argument.get_default_values().first().and_then(|value| value.to_str()).unwrap_or_default();
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "| `{name}` | {} | {default} | {help} |", kind.to_lowercase());
    }
    text
}

/// Makes sure that the program's section of `docs/operating/settings.md` is what [`document`] gives; with
/// `KONNECTIVITY_WRITE_DOCS` in the environment it is made so.
///
/// # Panics
/// When it is not, or the file cannot be read.
pub fn check_document<S: Settings>(path: &Path) {
    check_section(path, S::PROGRAM, &document::<S>(), "settings_document");
}

/// Makes sure that a section of a document, between the comments `begin` and `end` with its name, is what the program
/// says; with `KONNECTIVITY_WRITE_DOCS` in the environment it is made so. `test` does that.
///
/// # Panics
/// When it is not, or the file cannot be read.
fn check_section(path: &Path, name: &str, expected: &str, test: &str) {
    let text = fs::read_to_string(path).expect("the document is in the repository");
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin).expect("the document says where the section begins");
    let (section, after) = rest.split_once(&end).expect("the document says where the section ends");
    if std::env::var_os("KONNECTIVITY_WRITE_DOCS").is_some() {
        fs::write(path, format!("{before}{begin}{expected}{end}{after}")).expect("the document can be written");
    } else {
        assert_eq!(section, expected, "KONNECTIVITY_WRITE_DOCS=1 cargo test {test} writes it anew");
    }
}

/// The lines of a refusal, one for each problem with the options.
///
/// # Panics
/// When it is none.
pub fn problems<S: Settings, T: Debug>(loaded: Result<T, Exit>) -> Vec<String> {
    match loaded {
        Err(Exit::Refused(text)) => {
            let begin = format!("failed to validate {} options with ", S::ROLE);
            assert!(text.starts_with(&begin), "{text}");
            text.lines().skip(2).map(|line| line.trim().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Makes sure that an example file has every setting once, that what is commented out could be used, and that it shows
/// the default where there is one. Which values make sense together is for the caller to look at.
///
/// # Panics
/// When it is not so.
pub fn check_example<S: Settings>(example: &str) {
    let folder = tempfile::TempDir::new().expect("a folder for the test");
    let load = |text: &str| {
        let path = folder.path().join("example.toml");
        fs::write(&path, text).expect("the folder can be written to");
        let arguments = [S::PROGRAM.into(), "--config".into(), path.into_os_string()];
        layers::load::<S>(arguments, |_| None).expect("there are no flags that could be wrong").problems
    };
    // TOML refuses a key that is there twice.
    let problems = load(&uncomment(example));
    assert!(problems.is_empty(), "{problems}");
    let all = problems.effective();
    let active = load(example);
    for argument in arguments(&layers::command::<S>()) {
        let name = argument.get_long().unwrap_or_default();
        assert!(all.is_set(name), "{name} is not in the example");
        let default = argument.get_default_values().first().and_then(|value| value.to_str()).unwrap_or_default();
        if !active.effective().is_set(name) && !default.is_empty() {
            assert_eq!(all.value(name), Some(default), "{name} is commented out, so its default is to be shown");
        }
    }
}
