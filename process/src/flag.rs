//! Values of flags as Go's pflag reads them, for clap's `value_parser`. The errors are Go's own texts: scripts and
//! people know them from the reference.

use std::num::IntErrorKind;

const MALFORMED: &str = "invalid syntax";
const OUT_OF_RANGE: &str = "value out of range";

/// Go's `strconv.ParseBool`.
///
/// # Errors
/// The text to show when it is none of the words.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(text))),
    }
}

/// The same for klog's flags, which come from Go's own `flag` package.
///
/// # Errors
/// Less of a text, when it is none of the words.
pub fn klog_boolean(text: &str) -> Result<bool, String> {
    boolean(text).map_err(|_| "parse error".to_owned())
}

/// Go's `strconv.ParseInt` with base 0: `10`, `0x1f`, `0b1`, `0o7`, `017`, `1_000`.
///
/// # Errors
/// The text to show when it is no such number, or more than 64 bits hold.
pub fn integer(text: &str) -> Result<i64, String> {
    let failure = |reason| format!("strconv.ParseInt: parsing {}: {reason}", quoted(text));
    let (negative, digits) = split_sign(text);
    let magnitude = base_zero(digits).map_err(failure)?;
    let signed = if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    signed.ok_or_else(|| failure(OUT_OF_RANGE))
}

/// klog's `--v`: a decimal number of 32 bits.
///
/// # Errors
/// The text to show when it is no such number.
pub fn klog_level(text: &str) -> Result<i64, String> {
    text.parse::<i32>().map(i64::from).map_err(|error| {
        let reason = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => OUT_OF_RANGE,
            _ => MALFORMED,
        };
        format!("strconv.ParseInt: parsing {}: {reason}", quoted(text))
    })
}

/// A number without a sign from Go's own `flag` package: klog's `--log-file-max-size`.
///
/// # Errors
/// The text to show when it is no such number, or more than 63 bits hold.
pub fn klog_unsigned(text: &str) -> Result<i64, String> {
    match base_zero(text) {
        Ok(number) => i64::try_from(number).map_err(|_| OUT_OF_RANGE.to_owned()),
        Err(MALFORMED) => Err("parse error".to_owned()),
        Err(reason) => Err(reason.to_owned()),
    }
}

/// Go's `strconv.ParseFloat` for 32 bits, but for hexadecimal numbers.
///
/// # Errors
/// The text to show when it is no such number, or more than 32 bits hold.
pub fn float32(text: &str) -> Result<f32, String> {
    let failure = |reason| format!("strconv.ParseFloat: parsing {}: {reason}", quoted(text));
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let lone =
        |(place, byte): (usize, &u8)| *byte == b'_' && !(digit(bytes[..place].last()) && digit(bytes.get(place + 1)));
    if bytes.iter().enumerate().any(lone) {
        return Err(failure(MALFORMED));
    }
    let number: f32 = text.replace('_', "").parse().map_err(|_| failure(MALFORMED))?;
    let named = text.contains(['n', 'N']);
    if number.is_infinite() && !named { Err(failure(OUT_OF_RANGE)) } else { Ok(number) }
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Digits whose base is in front of them.
fn base_zero(digits: &str) -> Result<u64, &'static str> {
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // Go lets an underscore stand between digits, or between the base's prefix and a digit.
    let after_prefix = if radix == 10 { body } else { body.strip_prefix('_').unwrap_or(body) };
    if after_prefix.split('_').any(str::is_empty) {
        return Err(MALFORMED);
    }
    let plain = after_prefix.replace('_', "");
    if !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(MALFORMED);
    }
    u64::from_str_radix(&plain, radix).map_err(|_| OUT_OF_RANGE)
}

/// A text as Go's `%q` shows it.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.chars().map(|c| escaped(c, '"')).collect::<String>())
}

/// A character as Go's `%q` shows it.
pub fn quoted_character(c: char) -> String {
    format!("'{}'", escaped(c, '\''))
}

fn escaped(c: char, quote: char) -> String {
    match c {
        '\x07' => r"\a".to_owned(),
        '\x08' => r"\b".to_owned(),
        '\x0b' => r"\v".to_owned(),
        '\x0c' => r"\f".to_owned(),
        '\n' => r"\n".to_owned(),
        '\r' => r"\r".to_owned(),
        '\t' => r"\t".to_owned(),
        '\\' => r"\\".to_owned(),
        c if c == quote => format!("\\{c}"),
        '"' | '\'' => c.to_string(),
        c if c < ' ' || c == '\x7f' => format!("\\x{:02x}", u32::from(c)),
        // What Rust does not print, Go does not either, but for a few characters of newer Unicode versions.
        c if c.escape_debug().len() > 1 && u32::from(c) > 0xffff => format!("\\U{:08x}", u32::from(c)),
        c if c.escape_debug().len() > 1 => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_of_go() {
        for word in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(word), Ok(true));
        }
        for word in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(word), Ok(false));
        }
        for word in ["", "yes", "no", "on", "tRUE", " true"] {
            assert_eq!(boolean(word), Err(format!("strconv.ParseBool: parsing {word:?}: invalid syntax")));
            assert_eq!(klog_boolean(word), Err("parse error".to_owned()));
        }
    }

    #[test]
    fn integers_of_go() {
        for (text, value) in [
            ("0", 0),
            ("10", 10),
            ("+10", 10),
            ("-10", -10),
            ("0x1f", 31),
            ("0X1F", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("0_17", 15),
            ("0x_1f", 31),
            ("1_000", 1000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text), Ok(value), "{text}");
        }
        for text in ["", "-", "x", "1.0", "08", "0x", "_1", "1_", "1__0", "0b2", " 1", "--1", "+-1", "\u{661}"] {
            assert_eq!(integer(text), Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")));
        }
        for text in ["9223372036854775808", "-9223372036854775809", "99999999999999999999"] {
            assert_eq!(integer(text), Err(format!("strconv.ParseInt: parsing {text:?}: value out of range")));
        }
    }

    #[test]
    fn numbers_of_klog() {
        for (text, value) in [("4", 4), ("-1", -1), ("010", 10), ("+2147483647", 2_147_483_647)] {
            assert_eq!(klog_level(text), Ok(value));
        }
        for (text, reason) in
            [("", MALFORMED), ("0x4", MALFORMED), ("1_0", MALFORMED), ("x", MALFORMED), ("2147483648", OUT_OF_RANGE)]
        {
            assert_eq!(klog_level(text), Err(format!("strconv.ParseInt: parsing {text:?}: {reason}")));
        }
        assert_eq!(klog_unsigned("0x10"), Ok(16));
        assert_eq!(klog_unsigned("9223372036854775807"), Ok(i64::MAX));
        for text in ["-1", "+1", "x", "", "1.5"] {
            assert_eq!(klog_unsigned(text), Err("parse error".to_owned()), "{text}");
        }
        assert_eq!(klog_unsigned("18446744073709551616"), Err("value out of range".to_owned()));
    }

    #[test]
    fn floats_of_go() {
        for (text, value) in [
            ("0", 0.0),
            ("-1.5", -1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("+Inf", f32::INFINITY),
            ("1_000.5", 1000.5),
            ("1e-400", 0.0),
        ] {
            assert_eq!(float32(text), Ok(value), "{text}");
        }
        assert!(float32("NaN").is_ok_and(f32::is_nan));
        for text in ["", "x", "1,5", "1__0", "_1", "1_", "1_.5", " 1", "."] {
            assert_eq!(float32(text), Err(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")));
        }
        assert_eq!(float32("1e39"), Err("strconv.ParseFloat: parsing \"1e39\": value out of range".to_owned()));
    }

    #[test]
    fn quotes_of_go() {
        for (text, expected) in [
            ("a b", r#""a b""#),
            ("it's \"x\"\\", r#""it's \"x\"\\""#),
            ("\0\x07\n\t\x1b\x7f", r#""\x00\a\n\t\x1b\x7f""#),
            ("é\u{200b}\u{e0001}", r#""é\u200b\U000e0001""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!((quoted_character('x'), quoted_character('\'')), ("'x'".to_owned(), r"'\''".to_owned()));
    }
}
