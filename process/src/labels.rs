//! Labels as the reference's flags list them: `k8s-app=konnectivity-server,zone=a`.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// Labels and their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

/// Why a text lists no labels; in the reference's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// Nothing was written.
    #[error("empty string provided")]
    Empty,
    /// What stands between two commas is not a name, one equals sign and a value.
    #[error("invalid label format: {pair}")]
    NotAPair {
        /// What was written there.
        pair: String,
    },
}

impl FromStr for Labels {
    type Err = LabelsError;

    /// Spaces around names and values don't count. Of two values of a label the last one counts.
    fn from_str(text: &str) -> Result<Self, LabelsError> {
        if text.is_empty() {
            return Err(LabelsError::Empty);
        }
        let mut labels = BTreeMap::new();
        for pair in text.split(',') {
            match pair.split_once('=') {
                Some((name, value)) if !value.contains('=') => {
                    labels.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                _ => return Err(LabelsError::NotAPair { pair: pair.to_owned() }),
            }
        }
        Ok(Self(labels))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reference_reads() {
        let read = |text: &str| text.parse::<Labels>().map(|labels| labels.to_string());
        for (text, written) in [
            ("app=myapp", "app=myapp"),
            ("b=1,a=2", "a=2,b=1"),
            (" key = value , other = x ", "key=value,other=x"),
            ("a=1,a=2", "a=2"),
            ("a=", "a="),
            ("=", "="),
        ] {
            assert_eq!(read(text), Ok(written.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_the_reference_refuses() {
        let refused = |text: &str| text.parse::<Labels>().unwrap_err().to_string();
        assert_eq!(refused(""), "empty string provided");
        for (text, pair) in [("a", "a"), ("a=1,b", "b"), ("a=1,", ""), ("a==1", "a==1"), ("a=1=2", "a=1=2"), (" ", " ")]
        {
            assert_eq!(refused(text), format!("invalid label format: {pair}"));
        }
    }
}
