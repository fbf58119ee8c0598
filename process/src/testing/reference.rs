//! The reference's flags, as data, and what is held against them: the programs' own flags and
//! `docs/compatibility.md`.

use std::{ffi::OsString, fmt, path::Path};

use clap::{Arg, Command};

use crate::layers::{self, Settings};

/// A type of the reference's flags, by the words of its `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number in Go's base 0.
    Int,
    /// The same without a sign.
    Uint,
    /// A level of klog: a whole number, decimal.
    Level,
    /// `--name` alone is true.
    Bool,
    /// Go's duration.
    Duration,
    /// A record of CSV; a second flag adds to the first.
    Strings,
    /// A decimal number.
    Float32,
    /// Kubernetes' label selector.
    Selector,
    /// A severity of klog: INFO, WARNING, ERROR or FATAL, or its number.
    Severity,
    /// `file:line`.
    TraceLocation,
    /// `pattern=level`, with commas.
    ModuleSpec,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "string",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Level => "Level",
            Self::Bool => "bool",
            Self::Duration => "duration",
            Self::Strings => "strings",
            Self::Float32 => "float32",
            Self::Selector => "selector",
            Self::Severity => "severity",
            Self::TraceLocation => "file:line",
            Self::ModuleSpec => "pattern=N",
        })
    }
}

impl Kind {
    /// What a flag of this type takes and what it does not.
    fn samples(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Text => (&["=", "=x=y", "= "], &[]),
            Self::Int => (&["=10", "=0x1f", "=1_000", "=-1"], &["=", "=x", "=1.5"]),
            Self::Uint => (&["=10", "=0x1f", "=0"], &["=", "=x", "=-1"]),
            Self::Level => (&["=4", "=-1", "=010"], &["=", "=0x1f", "=x"]),
            Self::Bool => (&["", "=t", "=False", "=0"], &["=", "=yes"]),
            Self::Duration => (&["=1h", "=0", "=1m30.5s", "=100ms", "=-1s"], &["=", "=5", "=1d"]),
            Self::Strings => (&["=", "=a", "=a,b", "=[]"], &["=\"a"]),
            Self::Float32 => (&["=1", "=0.5", "=1e3"], &["=", "=x"]),
            Self::Selector => (&["=", "=a=b", "=a=b,c in (d,e),!f"], &["=a in b", "=a=b=c"]),
            Self::Severity => (&["=0", "=2", "=WARNING"], &["=x"]),
            Self::TraceLocation => (&["=", "=a.go:10"], &["=x"]),
            Self::ModuleSpec => (&["=", "=a=1,b*=2"], &["=a=x"]),
        }
    }
}

/// What has become of a flag of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It means what it means there.
    Same,
    /// Its name, type and default are those of the reference; what it is about is something else.
    OtherMeaning,
    /// It is checked, and then nothing happens.
    WithoutEffect,
    /// It is checked, and refused when it switches on what is for a later version.
    RefusedUntilLater,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::OtherMeaning => "same name, other meaning",
            Self::WithoutEffect => "accepted without effect",
            Self::RefusedUntilLater => "refused until later",
        })
    }
}

/// A flag of the reference.
#[derive(Debug, Clone, Copy)]
pub struct ReferenceFlag {
    /// Without hyphens in front.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// What the reference's value is when nobody sets it.
    pub default: &'static str,
    /// What it is here.
    pub status: Status,
    /// What else an operator must know who comes from the reference: another default, a value that is refused here.
    /// Empty: nothing.
    pub note: &'static str,
}

/// Flags whose default is meant to be another one; the document says why in their notes.
pub type Differences = [(&'static str, &'static str)];

/// klog's flags, which both programs of the reference have.
pub const KLOG: [ReferenceFlag; 15] = {
    use {Kind::*, Status::*};
    [
        row("v", Level, "4", OtherMeaning, ""),
        row("vmodule", ModuleSpec, "", WithoutEffect, ""),
        row("logtostderr", Bool, "true", Same, ""),
        row("alsologtostderr", Bool, "false", Same, ""),
        row("alsologtostderrthreshold", Severity, "INFO", Same, ""),
        row("stderrthreshold", Severity, "ERROR", Same, ""),
        row("legacy-stderr-threshold-behavior", Bool, "true", Same, ""),
        row("log-dir", Text, "", Same, ""),
        row("log-file", Text, "", Same, ""),
        row("log-file-max-size", Uint, "1800", Same, ""),
        row("one-output", Bool, "false", Same, ""),
        row("log-backtrace-at", TraceLocation, "", WithoutEffect, ""),
        row("add-dir-header", Bool, "false", WithoutEffect, ""),
        row("skip-headers", Bool, "false", WithoutEffect, ""),
        row("skip-log-headers", Bool, "false", WithoutEffect, ""),
    ]
};

/// A row of the tables.
pub const fn row(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    status: Status,
    note: &'static str,
) -> ReferenceFlag {
    ReferenceFlag { name, kind, default, status, note }
}

/// The argument that a flag of the reference is here, under its own name or as an alias.
fn argument<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long() == Some(name) || aliases.contains(&name)
    })
}

/// Makes sure that every flag of the reference is here, takes the values of its type, refuses others, and has the
/// reference's default, or else the one that `differences` names.
///
/// # Panics
/// When it is not so.
pub fn check_flags<S: Settings>(reference: &[ReferenceFlag], differences: &Differences) {
    let command = layers::command::<S>();
    let load = |arguments: &[String]| {
        let arguments = std::iter::once(S::PROGRAM.to_owned()).chain(arguments.iter().cloned());
        layers::load::<S>(arguments.map(OsString::from), |_| None)
    };
    let defaults = load(&[]).expect("no flags are no wrong flags").problems;
    for ReferenceFlag { name, kind, default, .. } in reference {
        let argument = argument(&command, name).unwrap_or_else(|| panic!("there is no --{name}"));
        let setting = argument.get_long().unwrap_or_default();
        let expected = differences.iter().find(|(known, _)| known == name).map_or(*default, |(_, ours)| ours);
        assert_eq!(defaults.effective().value(setting), Some(expected), "default of --{name}");
        assert!(!differences.contains(&(name, default)), "--{name} does not differ");
        let (taken, refused) = kind.samples();
        for value in taken {
            let loaded = load(&[format!("--{name}{value}")]).unwrap_or_else(|exit| panic!("--{name}{value}: {exit:?}"));
            assert!(loaded.problems.is_empty(), "--{name}{value}: {}", loaded.problems);
        }
        for value in refused {
            assert!(load(&[format!("--{name}{value}")]).is_err(), "--{name}{value} is taken");
        }
        if !matches!(kind, Kind::Bool) {
            let apart = [format!("--{name}"), taken[taken.len() - 1].trim_start_matches('=').to_owned()];
            assert!(load(&apart).is_ok(), "{apart:?}");
        }
    }
}

/// Makes sure that the program's table in `docs/compatibility.md` is what the flags say; with `KONNECTIVITY_WRITE_DOCS`
/// in the environment it is made so.
///
/// # Panics
/// When it is not, or the file cannot be read.
pub fn check_document<S: Settings>(path: &Path, reference: &[ReferenceFlag], differences: &Differences) {
    let command = layers::command::<S>();
    let mut table =
        "\n| Flag | Type | Default | Status | What it means with QUIC |\n|---|---|---|---|---|\n".to_owned();
    for flag in reference {
        let argument = argument(&command, flag.name).unwrap_or_else(|| panic!("there is no --{}", flag.name));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let default = match differences.iter().find(|(name, _)| *name == flag.name) {
            Some((_, ours)) => format!("{}, in the reference {}", code(ours), code(flag.default)),
            None => code(flag.default),
        };
        let note = if flag.note.is_empty() { String::new() } else { format!(". {}", flag.note) };
        let text = format!("{help}{note}").replace('|', "\\|");
        table += &format!("| `{}` | {} | {default} | {} | {text} |\n", flag.name, flag.kind, flag.status);
    }
    super::check_section(path, &format!("{} flags", S::PROGRAM), &format!("{table}\n"), "compatibility_document");
}

fn code(default: &str) -> String {
    if default.is_empty() { "none".to_owned() } else { format!("`{default}`") }
}
