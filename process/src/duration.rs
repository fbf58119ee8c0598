//! Durations as Go's flags write them: `1h0m0s`, `100ms`, `1.5h`, `300us`, `0`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::flag::quoted;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A duration with a sign, in Go's syntax and range (64 bits of nanoseconds, 292 years).
///
/// A sign is read because the reference's flags read it; whether a negative duration has a meaning is for the
/// setting's own check to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration {
    nanoseconds: i64,
}

impl GoDuration {
    /// The same as a duration without a sign; `None` when it is negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.nanoseconds).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    /// What is longer than 292 years becomes 292 years.
    fn from(duration: Duration) -> Self {
        Self { nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }
}

/// Why a text is not a duration; in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number where one must be.
    #[error("time: invalid duration {}", quoted(text))]
    Malformed {
        /// All of what was written.
        text: String,
    },
    /// A number other than zero and nothing behind it.
    #[error("time: missing unit in duration {}", quoted(text))]
    MissingUnit {
        /// All of what was written.
        text: String,
    },
    /// Letters that are not a unit.
    #[error("time: unknown unit {} in duration {}", quoted(unit), quoted(text))]
    UnknownUnit {
        /// All of what was written.
        text: String,
        /// The letters.
        unit: String,
    },
    /// More than 292 years.
    #[error("time: invalid duration {}", quoted(text))]
    TooLong {
        /// All of what was written.
        text: String,
    },
}

impl FromStr for GoDuration {
    type Err = DurationError;

    /// Go's `time.ParseDuration`.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if digits == "0" {
            return Ok(Self { nanoseconds: 0 });
        }
        let mut rest = digits;
        let mut total: u64 = 0;
        loop {
            let (nanoseconds, after) = parse_part(rest, text)?;
            total = total.checked_add(nanoseconds).ok_or_else(|| too_long(text))?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let signed = if negative { 0_i64.checked_sub_unsigned(total) } else { 0_i64.checked_add_unsigned(total) };
        signed.map(|nanoseconds| Self { nanoseconds }).ok_or_else(|| too_long(text))
    }
}

fn too_long(text: &str) -> DurationError {
    DurationError::TooLong { text: text.to_owned() }
}

/// One number and its unit at the front of `rest`, in nanoseconds, and what follows.
fn parse_part<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), DurationError> {
    let (whole, after) = split_digits(rest);
    let (fraction, after) = match after.strip_prefix('.') {
        Some(behind_point) => split_digits(behind_point),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed { text: text.to_owned() });
    }
    let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, after) = after.split_at(unit_end);
    let scale = scale(unit, text)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long(text))? };
    let whole = whole.checked_mul(scale).ok_or_else(|| too_long(text))?;
    let nanoseconds = whole.checked_add(scale_fraction(fraction, scale)).ok_or_else(|| too_long(text))?;
    Ok((nanoseconds, after))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Nanoseconds in a unit.
fn scale(unit: &str, text: &str) -> Result<u64, DurationError> {
    Ok(match unit {
        "ns" => 1,
        // Go takes the micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "" => return Err(DurationError::MissingUnit { text: text.to_owned() }),
        _ => return Err(DurationError::UnknownUnit { text: text.to_owned(), unit: unit.to_owned() }),
    })
}

/// The digits behind a decimal point, in nanoseconds, cut off and not rounded. Digits that cannot count are
/// not looked at: an hour has 3.6e12 nanoseconds.
fn scale_fraction(digits: &str, scale: u64) -> u64 {
    let digits = &digits[..digits.len().min(15)];
    let Ok(value) = digits.parse::<u128>() else { return 0 };
    let divisor = digits.bytes().fold(1_u128, |divisor, _| divisor * 10);
    u64::try_from(value * u128::from(scale) / divisor).unwrap_or(u64::MAX)
}

impl fmt::Display for GoDuration {
    /// Go's `time.Duration.String`: below a second in the largest unit that fits, else in hours, minutes and seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        let total = self.nanoseconds.unsigned_abs();
        match total {
            0 => return f.write_str("0s"),
            1..MICROSECOND => return write!(f, "{total}ns"),
            MICROSECOND..MILLISECOND => return write!(f, "{}\u{b5}s", Decimal(total, MICROSECOND)),
            MILLISECOND..SECOND => return write!(f, "{}ms", Decimal(total, MILLISECOND)),
            _ => {}
        }
        let (hours, minutes) = (total / HOUR, total % HOUR / MINUTE);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", Decimal(total % MINUTE, SECOND))
    }
}

/// The first divided by the second, a power of ten, without zeros at the end.
struct Decimal(u64, u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / self.1, self.0 % self.1);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let width = self.1.ilog10() as usize;
        write!(f, "{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes, such as \"5s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanoseconds(text: &str) -> Result<i64, DurationError> {
        text.parse::<GoDuration>().map(|duration| duration.nanoseconds)
    }

    #[test]
    fn reads_what_go_reads() {
        const S: i64 = 1_000_000_000;
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("+0", 0),
            ("0s", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("1478s", 1478 * S),
            ("-5s", -5 * S),
            ("+5s", 5 * S),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600_000_000),
            ("5.s", 5 * S),
            (".5s", S / 2),
            ("1.004s", S + 4_000_000),
            ("1.0040s", S + 4_000_000),
            ("100.00100s", 100 * S + 1_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("300us", 300_000),
            ("100ms", 100_000_000),
            ("14s", 14 * S),
            ("15m", 900 * S),
            ("16h", 57_600 * S),
            ("1.5h", 5_400 * S),
            ("1h0m0s", 3_600 * S),
            ("3h30m", 12_600 * S),
            ("10.5s4m", 250 * S + S / 2),
            ("-2m3.4s", -123 * S - 400_000_000),
            ("1h2m3s4ms5us6ns", 3_723 * S + 4_005_006),
            ("0.3333333333333333333h", 1_199 * S + 999_999_999),
            ("0.100000000000000000000h", 360 * S),
            ("9007199254.740993ms", 9_007_199_254_740_993),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanoseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        let malformed = |text: &str| DurationError::Malformed { text: text.to_owned() };
        for text in ["", "-", "+", "s", ".", "-.", ".s", "+.s", "--5s", "5 s s", "1h s"] {
            let error = nanoseconds(text).unwrap_err();
            assert!(error == malformed(text) || matches!(error, DurationError::UnknownUnit { .. }), "{text}: {error}");
        }
        assert_eq!(nanoseconds("3"), Err(DurationError::MissingUnit { text: "3".into() }));
        assert_eq!(nanoseconds("1.5"), Err(DurationError::MissingUnit { text: "1.5".into() }));
        assert_eq!(nanoseconds("5d"), Err(DurationError::UnknownUnit { text: "5d".into(), unit: "d".into() }));
        for text in ["9223372036854775808ns", "3000000h", "99999999999999999999s", "9223372036s1h"] {
            assert_eq!(nanoseconds(text), Err(too_long(text)), "{text}");
        }
    }

    #[test]
    fn writes_what_go_writes() {
        for (text, expected) in [
            ("0", "0s"),
            ("1ns", "1ns"),
            ("1100ns", "1.1\u{b5}s"),
            ("2200us", "2.2ms"),
            ("3300ms", "3.3s"),
            ("1h", "1h0m0s"),
            ("5m", "5m0s"),
            ("4m5.001s", "4m5.001s"),
            ("5h6m7.001s", "5h6m7.001s"),
            ("-100ms", "-100ms"),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), expected);
            assert_eq!(expected.parse(), Ok(duration), "reading back {expected}");
        }
    }

    #[test]
    fn negative_has_no_std_duration() {
        assert_eq!("-1s".parse::<GoDuration>().unwrap().to_std(), None);
        assert_eq!("1.5s".parse::<GoDuration>().unwrap().to_std(), Some(Duration::from_millis(1500)));
    }
}
