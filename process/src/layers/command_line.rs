//! A command line as pflag reads it: `--name=value`, `--name value`, switches that never take the next word, words in
//! between that mean nothing, and pflag's own messages.

use std::{any::TypeId, collections::BTreeMap, error::Error, ffi::OsString};

use clap::{Arg, ArgMatches, Command};
use toml::Value;

use super::{Settings, leaves, to_table};
use crate::{
    flag::{quoted, quoted_character},
    slice::StringSlice,
};

/// Why a command line cannot be read; in pflag's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlagError {
    /// No flag has the name.
    #[error("unknown flag: --{name}")]
    Unknown { name: String },
    /// No flag has the letter. `group` is it and what was written behind it.
    #[error("unknown shorthand flag: {} in -{group}", quoted_character(*letter))]
    UnknownLetter { letter: char, group: String },
    /// The name is missing, or there is a hyphen too many.
    #[error("bad flag syntax: {word}")]
    Syntax { word: String },
    /// The command line ends before the value.
    #[error("flag needs an argument: --{name}")]
    NoValue { name: String },
    /// The same behind a letter.
    #[error("flag needs an argument: {} in -{letter}", quoted_character(*letter))]
    NoValueOfLetter { letter: char },
    /// The value is not of the flag's type.
    #[error("invalid argument {} for {} flag: {reason}", quoted(value), quoted(flag))]
    Value { value: String, flag: String, reason: String },
    /// Settings are texts.
    #[error("the argument {word:?} is not UTF-8")]
    NotText { word: String },
}

/// What a command line says.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    /// Whether it asks for the help.
    pub(super) help: bool,
    /// Whether it asks for the version.
    pub(super) version: bool,
    /// The file that it names; empty if none.
    pub(super) config: String,
    /// Settings and their values.
    pub(super) settings: BTreeMap<String, Value>,
    /// What to say of flags that one should not use any more.
    pub(super) warnings: Vec<String>,
}

/// What must be known of a flag before its value can be found.
struct Flag {
    long: String,
    aliases: Vec<String>,
    letter: Option<char>,
    /// It is true without a value.
    is_switch: bool,
    /// Each one adds to those before.
    is_slice: bool,
}

impl Flag {
    fn new(argument: &Arg) -> Option<Self> {
        let kind = argument.get_value_parser().type_id();
        Some(Self {
            long: argument.get_long()?.to_owned(),
            aliases: argument.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned).collect(),
            letter: argument.get_short(),
            is_switch: kind == TypeId::of::<bool>(),
            is_slice: kind == TypeId::of::<StringSlice>(),
        })
    }

    fn has_name(&self, name: &str) -> bool {
        self.long == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// As messages about values name it.
    fn title(&self, name: &str) -> String {
        match self.letter {
            Some(letter) if name == self.long => format!("-{letter}, --{name}"),
            _ => format!("--{name}"),
        }
    }
}

/// Reads the words behind the program's name. The first that is wrong ends it, as with pflag.
pub(super) fn read<S: Settings>(
    command: &mut Command,
    words: impl IntoIterator<Item = OsString>,
) -> Result<CommandLine, FlagError> {
    let flags: Vec<Flag> = command.get_arguments().filter_map(Flag::new).collect();
    let mut reader = Reader { command, words: words.into_iter(), line: CommandLine::default() };
    while let Some(word) = reader.next()? {
        match word.strip_prefix('-') {
            // A word of its own means nothing, even if it is a lone hyphen.
            None | Some("") => {}
            Some("-") => break,
            Some(rest) => match rest.strip_prefix('-') {
                Some(text) => reader.long::<S>(&flags, &word, text)?,
                None => reader.letters::<S>(&flags, rest)?,
            },
        }
    }
    Ok(reader.line)
}

struct Reader<'c, W> {
    command: &'c mut Command,
    words: W,
    line: CommandLine,
}

impl<W: Iterator<Item = OsString>> Reader<'_, W> {
    fn next(&mut self) -> Result<Option<String>, FlagError> {
        let word = self.words.next().map(OsString::into_string).transpose();
        word.map_err(|word| FlagError::NotText { word: word.to_string_lossy().into_owned() })
    }

    /// `--name`, of which `text` is what stands behind the hyphens.
    fn long<S: Settings>(&mut self, flags: &[Flag], word: &str, text: &str) -> Result<(), FlagError> {
        if text.starts_with(['-', '=']) {
            return Err(FlagError::Syntax { word: word.to_owned() });
        }
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        let Some(flag) = flags.iter().find(|flag| flag.has_name(name)) else {
            return Err(FlagError::Unknown { name: name.to_owned() });
        };
        let value = match value {
            Some(value) => value,
            None if flag.is_switch => "true".to_owned(),
            None => self.next()?.ok_or_else(|| FlagError::NoValue { name: name.to_owned() })?,
        };
        self.set::<S>(flag, name, value)
    }

    /// Letters behind one hyphen: switches, and at most one with a value, which ends them.
    fn letters<S: Settings>(&mut self, flags: &[Flag], letters: &str) -> Result<(), FlagError> {
        let mut group = letters;
        while let Some(first) = group.bytes().next() {
            // pflag looks at bytes, and shows one as the character of that number.
            let letter = char::from(first);
            let Some(flag) = flags.iter().find(|flag| first.is_ascii() && flag.letter == Some(letter)) else {
                return Err(FlagError::UnknownLetter { letter, group: group.to_owned() });
            };
            let rest = &group[1..];
            group = "";
            let value = match rest.strip_prefix('=') {
                Some(value) if !value.is_empty() => value.to_owned(),
                _ if flag.is_switch => {
                    group = rest;
                    "true".to_owned()
                }
                _ if !rest.is_empty() => rest.to_owned(),
                _ => self.next()?.ok_or(FlagError::NoValueOfLetter { letter })?,
            };
            self.set::<S>(flag, &flag.long, value)?;
        }
        Ok(())
    }

    /// Takes one flag with its value.
    fn set<S: Settings>(&mut self, flag: &Flag, name: &str, value: String) -> Result<(), FlagError> {
        let argument = format!("--{}={value}", flag.long);
        let matches = self.command.try_get_matches_from_mut([S::PROGRAM.to_owned(), argument]);
        let refused = |error: clap::Error| FlagError::Value { value, flag: flag.title(name), reason: reason(&error) };
        let matches = matches.map_err(refused)?;
        match flag.long.as_str() {
            "help" => self.line.help = is_true(&matches, "help"),
            "version" => self.line.version = is_true(&matches, "version"),
            "config" => self.line.config = matches.get_one::<String>("config").cloned().unwrap_or_default(),
            _ => self.set_setting::<S>(flag, &matches),
        }
        if let Some((_, text)) = S::DEPRECATED.iter().find(|(deprecated, _)| *deprecated == name) {
            self.line.warnings.push(format!("Flag --{name} has been deprecated, {text}"));
        }
        Ok(())
    }

    fn set_setting<S: Settings>(&mut self, flag: &Flag, matches: &ArgMatches) {
        let options = S::from_arg_matches(matches).expect("every setting has a default, and this one a value");
        let laid = leaves(&to_table(&options)).into_iter().find(|(key, _)| key.setting() == flag.long);
        let Some((_, value)) = laid else { return };
        match (self.line.settings.get_mut(&flag.long), value) {
            (Some(Value::String(before)), Value::String(more)) if flag.is_slice => append(before, &more),
            (_, value) => {
                self.line.settings.insert(flag.long.clone(), value);
            }
        }
    }
}

/// Adds a record to a record. Empty ones are empty lists.
fn append(record: &mut String, more: &str) {
    if !record.is_empty() && !more.is_empty() {
        record.push(',');
    }
    record.push_str(more);
}

fn is_true(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name) == Some(&true)
}

/// What the type of the value says against it.
fn reason(error: &clap::Error) -> String {
    error.source().map_or_else(|| error.kind().to_string(), ToString::to_string)
}
