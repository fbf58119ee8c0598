//! Which cells must pass, from `required.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use super::column::{Column, matches};
use super::scenario;

/// For each scenario, patterns of the columns in which it must pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Required(BTreeMap<String, Vec<String>>);

impl Required {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or names something that there is not.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Understands the file's text.
    ///
    /// # Errors
    /// When it names a scenario that there is not, or columns in which there is nothing to pass: a mistyped word would
    /// let failures pass.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let lists: BTreeMap<String, Vec<String>> = toml::from_str(text)?;
        for (key, patterns) in &lists {
            let Some(scenario) = scenario::ALL.iter().find(|scenario| scenario.key == *key) else {
                bail!("there is no scenario {key:?}");
            };
            for pattern in patterns {
                let fits = |column: &Column| matches(pattern, &column.to_string());
                if !Column::all().filter(|&column| (scenario.applies)(column)).any(|column| fits(&column)) {
                    bail!("{key}: no column in which it means anything fits {pattern:?}");
                }
            }
        }
        Ok(Self(lists))
    }

    /// Whether a cell must pass.
    pub fn contains(&self, column: Column, scenario: &str) -> bool {
        let column = column.to_string();
        self.0.get(scenario).is_some_and(|patterns| patterns.iter().any(|pattern| matches(pattern, &column)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_file_of_this_project_can_be_read_and_asks_nothing_of_the_reference() {
        let required = Required::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/required.toml"))).unwrap();
        for column in Column::all() {
            let any = scenario::ALL.iter().any(|scenario| required.contains(column, scenario.key));
            assert_eq!(any, !column.pairing.is_reference(), "{column}");
        }
    }

    #[test]
    fn patterns_say_in_which_columns() {
        let required = Required::parse("echo = ['ours-*', 'go-ours/auto/*']").unwrap();
        let required: Vec<_> = Column::all().filter(|&column| required.contains(column, "echo")).collect();
        assert_eq!(required.len(), 20);
    }

    #[test]
    fn what_is_mistyped_is_refused() {
        for (text, error) in [
            ("ecko = ['*']", "there is no scenario \"ecko\""),
            ("echo = ['our-*']", "echo: no column in which it means anything fits \"our-*\""),
            ("half-close = ['*/grpc-uds']", "half-close: no column in which it means anything fits \"*/grpc-uds\""),
        ] {
            assert_eq!(Required::parse(text).unwrap_err().to_string(), error);
        }
        assert!(Required::parse("echo = 'ours-*'").is_err());
    }
}
