//! Floating-point numbers of 32 bits as Go's flags read and write them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::flag;

/// A number of 32 bits. Two are equal when their bits are, so that options can be compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Float32(pub f32);

impl PartialEq for Float32 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Float32 {}

/// Why a text is not a number of 32 bits, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FloatError(String);

impl FromStr for Float32 {
    type Err = FloatError;

    fn from_str(text: &str) -> Result<Self, FloatError> {
        flag::float32(text).map(Self).map_err(FloatError)
    }
}

impl fmt::Display for Float32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Float32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Float32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Float32;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Float32, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Float32, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Float32, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Float32, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        qps: Float32,
    }

    #[test]
    fn files_hold_them_in_each_form() {
        for (text, number) in [
            ("qps = 5", 5.0),
            ("qps = 0.1", 0.1),
            ("qps = \"1e3\"", 1000.0),
            ("qps = -2", -2.0),
            ("qps = inf", f32::INFINITY),
        ] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(file, File { qps: Float32(number) }, "{text}");
            let written = toml::to_string(&file).unwrap();
            assert_eq!(toml::from_str::<File>(&written).unwrap(), file, "{written}");
        }
        let error = toml::from_str::<File>("qps = 1e300").unwrap_err();
        assert!(error.message().contains("value out of range"), "{error}");
        assert!(toml::from_str::<File>("qps = true").is_err());
    }

    #[test]
    fn short_when_written() {
        for (text, written) in [("0", "0"), ("0.10", "0.1"), ("20.0", "20"), ("1.5", "1.5")] {
            assert_eq!(text.parse::<Float32>().unwrap().to_string(), written);
        }
        assert_eq!(
            "x".parse::<Float32>().unwrap_err().to_string(),
            "strconv.ParseFloat: parsing \"x\": invalid syntax"
        );
    }
}
