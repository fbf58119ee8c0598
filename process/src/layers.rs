//! Settings from four places, one over the other: flag > environment > file > default.
//!
//! Each setting is ONE field of a program's options. clap's derive makes a flag and the default of it, serde's a key of
//! the file with the same name; a nested struct is a table of the file, and its name the front of its flags' names.

mod command_line;
mod file;

use std::{
    any::TypeId,
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use clap::{Arg, ArgAction, Args, Command};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{
    exit::Exit,
    flag,
    problems::{Effective, Origin, Problem, Problems},
    version,
};

/// The options of a program.
///
/// Every field needs a clap default and a long flag with the name that serde gives it (of a nested struct: its name
/// and a hyphen in front). `deny_unknown_fields` isn't needed: unknown keys are found here, with their line.
///
/// A flag with two names has the second as an `alias` of clap; of both on one command line, the last one counts. What
/// `hide` keeps out of `--help` works all the same.
pub trait Settings: Args + Serialize + DeserializeOwned {
    /// The program's name.
    const PROGRAM: &'static str;
    /// What it is in messages: `server`.
    const ROLE: &'static str;
    /// What it does, in a sentence for `--help`.
    const ABOUT: &'static str;
    /// Settings that a variable of the environment can give, and the variable. An empty one counts as not there.
    const ENVIRONMENT: &'static [(&'static str, &'static str)];
    /// Flags that work, but are not shown by `--help` and give a warning, of which this is the end: `use --x instead`.
    const DEPRECATED: &'static [(&'static str, &'static str)] = &[];
}

/// What the four places say together.
#[derive(Debug)]
pub struct Loaded<S> {
    /// Every setting's value. Where a value was of a wrong kind, that of the place below it.
    pub options: S,
    /// What was found wrong until now: to be added to, then reported.
    pub problems: Problems,
}

/// The command line of a program.
pub fn command<S: Settings>() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .default_value("")
        .help("File with settings in TOML, under the names of the flags. A flag goes over the environment, that over the file");
    let switch = |name| Arg::new(name).long(name).value_name("BOOL").value_parser(flag::boolean).default_value("false");
    let help = switch("help").short('h').help("Prints this").hide_default_value(true);
    let version = switch("version").help("Prints the version").hide_default_value(true);
    let command = Command::new(S::PROGRAM)
        .bin_name(S::PROGRAM)
        .version(version::long())
        .disable_help_flag(true)
        .disable_version_flag(true)
        .override_usage(format!("{} [flags]", S::PROGRAM))
        .args([config, help, version]);
    S::augment_args(command).about(S::ABOUT).mut_args(|argument| {
        let is_deprecated = S::DEPRECATED.iter().any(|(flag, _)| argument.get_long() == Some(flag));
        let argument = as_go_does(argument);
        if is_deprecated { argument.hide(true) } else { argument }
    })
}

/// Booleans take a value behind `=` only, and `--help` has no empty defaults.
fn as_go_does(argument: Arg) -> Arg {
    let has_default = argument.get_default_values().iter().any(|value| !value.is_empty());
    let hides_default = argument.is_hide_default_value_set() || !has_default;
    let argument = argument.hide_default_value(hides_default);
    if argument.get_value_parser().type_id() != TypeId::of::<bool>() {
        return argument;
    }
    argument.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true")
}

/// Reads flags (the first argument is the program's name), the file they name, and the environment. Warnings about
/// flags go to standard error.
///
/// # Errors
/// [`Exit`] for `--help`, `--version`, and flags that cannot be read. Everything else that is wrong is in
/// [`Loaded::problems`], so that it can be reported together with what the values' own checks find.
pub fn load<S: Settings>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Loaded<S>, Exit> {
    load_and_warn(arguments, environment, &mut io::stderr())
}

fn load_and_warn<S: Settings>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
    warnings: &mut dyn Write,
) -> Result<Loaded<S>, Exit> {
    let mut command = command::<S>();
    let matches = command.try_get_matches_from_mut([S::PROGRAM])?;
    let mut layers = Layers::<S>::new(to_table(&S::from_arg_matches(&matches)?));

    let line = match command_line::read::<S>(&mut command, arguments.into_iter().skip(1)) {
        Ok(line) => line,
        // The usage is long, so that the reason is told behind it, too.
        Err(error) => return Err(Exit::Refused(format!("{error}\n{}\nError: {error}", help(command.about(None))))),
    };
    for warning in &line.warnings {
        // Nobody is left to hear that standard error is closed.
        let _ = writeln!(warnings, "{warning}");
    }
    if line.help {
        return Err(Exit::Told(help(command)));
    }
    if line.version {
        return Err(Exit::Told(command.render_version()));
    }
    if !line.config.is_empty() {
        layers.lay_file(&line.config);
    }
    for (setting, variable) in S::ENVIRONMENT {
        if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
            layers.lay(setting, Value::String(value), Origin::Environment(variable));
        }
    }
    for (setting, value) in line.settings {
        layers.lay(&setting, value, Origin::Flag);
    }
    Ok(layers.finish())
}

/// The text of `--help`.
fn help(mut command: Command) -> String {
    let is_long = command.get_arguments().any(|argument| argument.get_long_help().is_some());
    let help = if is_long { command.render_long_help() } else { command.render_help() };
    help.to_string()
}

fn to_table<S: Serialize>(options: &S) -> Table {
    Table::try_from(options).expect("options are texts, numbers and booleans, and TOML holds those")
}

/// Where a setting stands in the file: table by table, its own key last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<String>);

impl Key {
    /// The setting's name: `quic-idle-timeout` for the key `idle-timeout` of the table `[quic]`.
    fn setting(&self) -> String {
        self.0.join("-")
    }

    fn put(&self, table: &mut Table, value: Value) {
        let Some((last, tables)) = self.0.split_last() else { return };
        let mut table = table;
        for name in tables {
            match table.get_mut(name) {
                Some(Value::Table(inner)) => table = inner,
                _ => return,
            }
        }
        table.insert(last.clone(), value);
    }
}

/// All keys of a table that are not tables, those of inner tables included.
fn leaves(table: &Table) -> Vec<(Key, Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => found.extend(
                leaves(inner)
                    .into_iter()
                    .map(|(key, value)| (Key(std::iter::once(name.clone()).chain(key.0).collect()), value)),
            ),
            value => found.push((Key(vec![name.clone()]), value.clone())),
        }
    }
    found
}

/// The places laid over each other up to now.
struct Layers<S> {
    table: Table,
    keys: BTreeMap<String, Key>,
    effective: Effective,
    found: Vec<Problem>,
    options: std::marker::PhantomData<S>,
}

impl<S: Settings> Layers<S> {
    fn new(defaults: Table) -> Self {
        let leaves = leaves(&defaults);
        let mut effective = Effective::default();
        for (key, value) in &leaves {
            effective.set(&key.setting(), to_text(value), Origin::Default);
        }
        let keys = leaves.into_iter().map(|(key, _)| (key.setting(), key)).collect();
        Self { table: defaults, keys, effective, found: Vec::new(), options: std::marker::PhantomData }
    }

    /// Lays one value over what is there, if it is of the right kind.
    fn lay(&mut self, setting: &str, value: Value, origin: Origin) {
        let Some(key) = self.keys.get(setting) else { return };
        let mut table = self.table.clone();
        let text = to_text(&value);
        key.put(&mut table, value);
        match S::deserialize(table.clone()) {
            Ok(options) => {
                let laid = leaves(&to_table(&options)).into_iter().find(|(laid, _)| laid == key);
                self.effective.set(setting, laid.map_or(text, |(_, value)| to_text(&value)), origin);
                self.table = table;
            }
            Err(error) => self.found.push(Problem {
                setting: setting.to_owned(),
                value: Some(text),
                origin,
                reason: error.message().to_owned(),
                is_rule: false,
                remedy: format!("{} --help says what it takes", S::PROGRAM),
            }),
        }
    }

    fn lay_file(&mut self, path: &str) {
        self.effective.set("config", path.to_owned(), Origin::Flag);
        let path: Arc<Path> = Path::new(path).into();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let remedy = "name a file that this user can read, or leave --config out".to_owned();
                return self.refuse("config", &path, Origin::Flag, format!("cannot read the file: {error}"), remedy);
            }
        };
        let read = file::read(&text);
        for (line, message) in read.errors {
            let origin = Origin::File { path: path.clone(), line };
            self.refuse("config", &path, origin, message, "correct the file's TOML".to_owned());
        }
        for entry in read.entries {
            let origin = Origin::File { path: path.clone(), line: entry.line };
            let setting = Key(entry.key.clone()).setting();
            match self.keys.get(&setting) {
                Some(known) if known.0 == entry.key => self.lay(&setting, entry.value, origin),
                _ if entry.value.is_table() && self.is_table(&entry.key) => {}
                _ => self.found.push(self.unknown_key(&entry.key, origin)),
            }
        }
    }

    /// Whether settings stand in a table of this name.
    fn is_table(&self, key: &[String]) -> bool {
        self.keys.values().any(|Key(known)| known.len() > key.len() && known.starts_with(key))
    }

    fn refuse(&mut self, setting: &str, path: &Path, origin: Origin, reason: String, remedy: String) {
        let value = Some(path.display().to_string());
        self.found.push(Problem { setting: setting.to_owned(), value, origin, reason, is_rule: false, remedy });
    }

    /// Names the key, and the one that was perhaps meant.
    fn unknown_key(&self, key: &[String], origin: Origin) -> Problem {
        let hyphenated = key.join("-").replace('_', "-");
        let remedy = match self.keys.get(&hyphenated) {
            Some(Key(known)) => match known.split_last() {
                Some((last, [])) => format!("write {last}"),
                Some((last, tables)) => format!("write {last} in the table [{}]", tables.join(".")),
                None => String::new(),
            },
            None => format!("remove it, or correct its name; {} --help lists the settings", S::PROGRAM),
        };
        let reason = "no setting has this name".to_owned();
        Problem { setting: key.join("."), value: None, origin, reason, is_rule: false, remedy }
    }

    fn finish(self) -> Loaded<S> {
        let options = S::deserialize(self.table).expect("every layer was tried when it was laid");
        Loaded { options, problems: Problems::new(self.effective, self.found) }
    }
}

/// A value as a flag would be given it.
fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
