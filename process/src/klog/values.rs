//! Types of klog's flags, with its errors.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::flag::quoted;

/// How bad a log line is, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(pub i32);

impl Severity {
    /// What is to be expected.
    pub const INFO: Self = Self(0);
    /// Something is not as it should be.
    pub const WARNING: Self = Self(1);
    /// Someone must act.
    pub const ERROR: Self = Self(2);
    /// The names of klog's severities, by their numbers.
    pub const NAMES: [&'static str; 4] = ["INFO", "WARNING", "ERROR", "FATAL"];
}

impl From<&tracing::Level> for Severity {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::ERROR => Self::ERROR,
            tracing::Level::WARN => Self::WARNING,
            _ => Self::INFO,
        }
    }
}

/// Why a value of klog's flags cannot be read; in klog's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Neither a name nor a number.
    #[error("strconv.ParseInt: parsing {}: {reason}", quoted(text))]
    Severity {
        /// What was written.
        text: String,
        /// What is wrong with it as a number.
        reason: &'static str,
    },
    /// Not `pattern=N`.
    #[error("syntax error: expect comma-separated list of filename=N")]
    Modules,
    /// A level below zero.
    #[error("negative value for vmodule level")]
    NegativeModule,
    /// Not `file.go:line`.
    #[error("syntax error: expect file.go:234")]
    Place,
    /// A line below one.
    #[error("negative or zero value for level")]
    Line,
}

impl FromStr for Severity {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let name = Self::NAMES.iter().zip(0..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, number)) = name {
            return Ok(Self(number));
        }
        let refused = |error: ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let is_large = matches!(error.kind(), PosOverflow | NegOverflow);
            let reason = if is_large { "value out of range" } else { "invalid syntax" };
            ValueError::Severity { text: text.to_owned(), reason }
        };
        text.parse().map(Self).map_err(refused)
    }
}

impl fmt::Display for Severity {
    /// Its name, if it has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|number| Self::NAMES.get(number)) {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Levels for files of Go sources; nothing here has one, so that the text is checked and kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modules(String);

impl FromStr for Modules {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        for module in text.split(',').filter(|module| !module.is_empty()) {
            match module.split_once('=') {
                Some((pattern, level)) if !pattern.is_empty() => {
                    if level.parse::<i32>().map_err(|_| ValueError::Modules)? < 0 {
                        return Err(ValueError::NegativeModule);
                    }
                }
                _ => return Err(ValueError::Modules),
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Modules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line of Go sources; nothing here is one, so that the text is checked and kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BacktracePlace(String);

impl FromStr for BacktracePlace {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !text.is_empty() {
            let (file, line) = text.split_once(':').ok_or(ValueError::Place)?;
            if !file.contains('.') {
                return Err(ValueError::Place);
            }
            if line.parse::<i64>().map_err(|_| ValueError::Place)? <= 0 {
                return Err(ValueError::Line);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for BacktracePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Files hold these types as texts, a severity as its number as well.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = "expected a text")]
                enum Written {
                    Text(String),
                    Number(i64),
                }
                let text = match Written::deserialize(deserializer)? {
                    Written::Text(text) => text,
                    Written::Number(number) => number.to_string(),
                };
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

as_text!(Severity);
as_text!(Modules);
as_text!(BacktracePlace);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was given to the reference.
    #[test]
    fn values_of_klog() {
        for (text, severity) in
            [("INFO", 0), ("warning", 1), ("Error", 2), ("FATAL", 3), ("0", 0), ("-1", -1), ("+2", 2), ("9", 9)]
        {
            assert_eq!(text.parse(), Ok(Severity(severity)));
        }
        for text in ["", "ERR", "0x1", "1_0"] {
            let error = text.parse::<Severity>().unwrap_err().to_string();
            assert_eq!(error, format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
        }
        let error = "3000000000".parse::<Severity>().unwrap_err().to_string();
        assert_eq!(error, "strconv.ParseInt: parsing \"3000000000\": value out of range");
        assert_eq!((Severity(1).to_string(), Severity(7).to_string()), ("WARNING".to_owned(), "7".to_owned()));
    }

    #[test]
    fn places_in_go_sources() {
        for text in ["", "a=1", "a=1,b*=2,", ",,", "a=0"] {
            assert_eq!(text.parse::<Modules>().map(|modules| modules.to_string()), Ok(text.to_owned()));
        }
        for text in ["a", "a=", "=1", "a=x", "a=1=2"] {
            assert_eq!(text.parse::<Modules>(), Err(ValueError::Modules), "{text}");
        }
        assert_eq!("a=-1".parse::<Modules>(), Err(ValueError::NegativeModule));
        for text in ["", "a.go:1"] {
            assert_eq!(text.parse::<BacktracePlace>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        for text in ["x", "a:1", ":0", "a.go", "a.go:x", "a.go:1:2"] {
            assert_eq!(text.parse::<BacktracePlace>(), Err(ValueError::Place), "{text}");
        }
        assert_eq!("a.go:0".parse::<BacktracePlace>(), Err(ValueError::Line));
    }
}
