//! Values of flags as Go's pflag reads them, for clap's `value_parser`.

/// Go's `strconv.ParseBool`.
///
/// # Errors
/// The text to show when it is none of the words.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Go's `strconv.ParseInt` with base 0: `10`, `0x1f`, `0b1`, `0o7`, `017`, `1_000`.
///
/// # Errors
/// The text to show when it is no such number, or more than 64 bits hold.
pub fn integer(text: &str) -> Result<i64, String> {
    let malformed = || "write a whole number, such as 8090".to_owned();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
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
        return Err(malformed());
    }
    let plain = after_prefix.replace('_', "");
    if !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(malformed());
    }
    let signed = if negative { format!("-{plain}") } else { plain };
    i64::from_str_radix(&signed, radix).map_err(|_| "the number is more than 64 bits hold".to_owned())
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
            assert!(boolean(word).is_err(), "{word}");
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
        for text in
            ["", "-", "x", "1.0", "08", "0x", "_1", "1_", "1__0", "0b2", " 1", "--1", "\u{661}", "9223372036854775808"]
        {
            assert!(integer(text).is_err(), "{text}");
        }
    }
}
