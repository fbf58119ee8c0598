//! Lists of names: `a,b` on the command line; in a file the same, or an array.

use std::{convert::Infallible, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names in order. An empty text is the empty list; spaces around a name don't count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List(pub Vec<String>);

impl FromStr for List {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(text.split(',').map(|name| name.trim().to_owned()).collect()))
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected names, as an array of texts or as one text with commas")]
        enum Written {
            Text(String),
            Array(Vec<String>),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse().unwrap_or_default(),
            Written::Array(names) => Self(names),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate() {
        let names = |text: &str| text.parse::<List>().map(|list| list.0).unwrap();
        assert_eq!(names(""), Vec::<String>::new());
        assert_eq!(names("default"), ["default"]);
        assert_eq!(names("destHost, default"), ["destHost", "default"]);
        assert_eq!(names("a,,b"), ["a", "", "b"]);
    }
}
