//! Settings from four places, one over the other: flag > environment > file > default.
//!
//! Each setting is ONE field of a program's options. clap's derive makes a flag and the default of it, serde's a key of
//! the file with the same name; a nested struct is a table of the file, and its name the front of its flags' names.

mod file;

use std::{collections::BTreeMap, ffi::OsString, path::Path, sync::Arc};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, parser::ValueSource};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{
    duration::GoDuration,
    exit::Exit,
    problems::{Effective, Origin, Problem, Problems},
    version,
};

/// The options of a program.
///
/// Every field needs a clap default and a long flag with the name that serde gives it (of a nested struct: its name
/// and a hyphen in front). `deny_unknown_fields` isn't needed: unknown keys are found here, with their line.
pub trait Settings: Args + Serialize + DeserializeOwned {
    /// The program's name.
    const PROGRAM: &'static str;
    /// What it is in messages: `server`.
    const ROLE: &'static str;
    /// What it does, in a sentence for `--help`.
    const ABOUT: &'static str;
    /// Settings that a variable of the environment can give, and the variable. An empty one counts as not there.
    const ENVIRONMENT: &'static [(&'static str, &'static str)];
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
    let command =
        Command::new(S::PROGRAM).bin_name(S::PROGRAM).version(version::long()).args_override_self(true).arg(config);
    S::augment_args(command).about(S::ABOUT).mut_args(as_go_does)
}

/// Booleans take a value behind `=` only, numbers and durations may be negative, and `--help` has no empty defaults.
fn as_go_does(arg: Arg) -> Arg {
    let has_default = arg.get_default_values().iter().any(|value| !value.is_empty());
    let arg = arg.hide_default_value(!has_default);
    let kind = arg.get_value_parser().type_id();
    if kind == std::any::TypeId::of::<bool>() {
        arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        let signed = [std::any::TypeId::of::<i64>(), std::any::TypeId::of::<GoDuration>()];
        let may_be_negative = signed.iter().any(|signed| kind == *signed);
        arg.allow_hyphen_values(may_be_negative)
    }
}

/// Reads flags (the first argument is the program's name), the file they name, and the environment.
///
/// # Errors
/// [`Exit`] for `--help`, `--version`, and flags that clap refuses. Everything else that is wrong is in
/// [`Loaded::problems`], so that it can be reported together with what the values' own checks find.
pub fn load<S: Settings>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Loaded<S>, Exit> {
    let command = command::<S>();
    let defaults = to_table(&S::from_arg_matches(&command.clone().try_get_matches_from([S::PROGRAM])?)?);
    let matches = command.clone().try_get_matches_from(arguments)?;
    let flags = S::from_arg_matches(&matches)?;

    let mut layers = Layers::<S>::new(defaults);
    if let Some(path) = matches.get_one::<String>("config").filter(|path| !path.is_empty()) {
        layers.lay_file(path);
    }
    for (setting, variable) in S::ENVIRONMENT {
        if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
            layers.lay(setting, Value::String(value), Origin::Environment(variable));
        }
    }
    for (key, value) in leaves(&to_table(&flags)) {
        if is_typed(&command, &matches, &key.setting()) {
            layers.lay(&key.setting(), value, Origin::Flag);
        }
    }
    Ok(layers.finish())
}

/// Whether the command line holds the flag.
fn is_typed(command: &Command, matches: &ArgMatches, flag: &str) -> bool {
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
    argument.is_some_and(|argument| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine))
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
        self.found.push(Problem { setting: setting.to_owned(), value, origin, reason, remedy });
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
        Problem { setting: key.join("."), value: None, origin, reason: "no setting has this name".to_owned(), remedy }
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
