//! Sizes in bytes, as a plain number or with a unit: `65536`, `64KiB`, `512MiB`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units by falling size. Only powers of 1,024: windows and buffers are made of them, and "MB" means two things.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// Neither a number nor a number with a unit.
    #[error("{text:?} is not a size; write a whole number of bytes, or one with KiB, MiB, GiB or TiB, such as 512MiB")]
    Malformed {
        /// All of what was written.
        text: String,
    },
    /// More than 64 bits hold.
    #[error("{text:?} is more than 64 bits hold")]
    TooLarge {
        /// All of what was written.
        text: String,
    },
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let suffix = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
        let (digits, scale) = suffix.unwrap_or((text, 1));
        let digits = digits.trim_end();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ByteSizeError::Malformed { text: text.to_owned() });
        }
        let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        bytes.map(Self).ok_or_else(|| ByteSizeError::TooLarge { text: text.to_owned() })
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of bytes, or a text such as \"512MiB\"")
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, bytes, written) in [
            ("0", 0, "0"),
            ("1000", 1000, "1000"),
            ("65536", 65_536, "64KiB"),
            ("64KiB", 65_536, "64KiB"),
            ("512MiB", 512 << 20, "512MiB"),
            ("512 MiB", 512 << 20, "512MiB"),
            ("1536MiB", 1536 << 20, "1536MiB"),
            ("2GiB", 2 << 30, "2GiB"),
            ("1TiB", 1 << 40, "1TiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size, ByteSize(bytes), "{text}");
            assert_eq!(size.to_string(), written);
        }
    }

    #[test]
    fn refuses() {
        for text in ["", "MiB", "1.5MiB", "-1", "5MB", "5M", "5mib", "+5", "0x10"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::Malformed { text: text.to_owned() }));
        }
        for text in ["18446744073709551616", "18446744073709551615KiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::TooLarge { text: text.to_owned() }));
        }
    }
}
