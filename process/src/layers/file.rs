//! A TOML file as a list of keys, each with its line. Everything that is wrong with its syntax is found, not only
//! the first.

use std::ops::Range;

use serde::{Deserialize, de::IntoDeserializer};
use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

/// A key that is not a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Names of its tables, then its own.
    pub(super) key: Vec<String>,
    pub(super) value: Value,
    /// From 1.
    pub(super) line: usize,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    /// In the file's order.
    pub(super) entries: Vec<Entry>,
    /// Line and message.
    pub(super) errors: Vec<(usize, String)>,
}

/// Reads the text of a file.
pub(super) fn read(text: &str) -> Read {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut read = Read::default();
    for error in errors {
        read.errors.push((line(text, error.span()), error.message().to_owned()));
    }
    // What recovery made of a broken file would only give rise to more messages.
    if read.errors.is_empty() {
        walk(text, &mut Vec::new(), table.get_ref(), &mut read);
        read.entries.sort_by_key(|entry| entry.line);
    }
    read
}

fn walk(text: &str, tables: &mut Vec<String>, table: &DeTable<'_>, read: &mut Read) {
    for (name, value) in table {
        tables.push(name.get_ref().to_string());
        match value.get_ref() {
            // An empty table is an entry too: else an unknown one would not be found.
            DeValue::Table(inner) if !inner.is_empty() => walk(text, tables, inner, read),
            _ => {
                let line = line(text, Some(name.span()));
                match to_value(value) {
                    Ok(value) => read.entries.push(Entry { key: tables.clone(), value, line }),
                    Err(message) => read.errors.push((line, message)),
                }
            }
        }
        tables.pop();
    }
}

fn to_value(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    Value::deserialize(value.clone().into_deserializer()).map_err(|error| error.message().to_owned())
}

/// The line where a span starts; 1 for what has no place.
fn line(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_lines() {
        let read = read("# a comment\nb = 1\na = \"x\"\n\n[quic]\nc-d = true\n[empty]\n");
        let entries: Vec<_> = read.entries.iter().map(|entry| (entry.key.join("."), entry.line)).collect();
        assert_eq!(read.errors, []);
        assert_eq!(entries, [("b".into(), 2), ("a".into(), 3), ("quic.c-d".into(), 6), ("empty".into(), 7)]);
        assert_eq!(read.entries[0].value, Value::Integer(1));
    }

    #[test]
    fn all_errors_are_found() {
        let read = read("a = 1\na = 2\nb = = 3\nc = \"open\nd = 4\n");
        let lines: Vec<usize> = read.errors.iter().map(|(line, _)| *line).collect();
        assert!([2, 3, 4].iter().all(|line| lines.contains(line)), "{:?}", read.errors);
        assert_eq!(read.entries, []);
    }
}
