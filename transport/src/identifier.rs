//! What an agent says it can reach, in the reference's form: a URL-encoded query such as
//! `host=node-1&ipv4=10.0.0.7&default-route=true`.
//!
//! Decoding follows Go's `url.ParseQuery`, which refuses what other libraries let pass.

/// What an agent can reach. Values are kept as they were written: strategies compare them literally.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identifiers {
    /// Values of `ipv4`.
    pub ipv4: Vec<String>,
    /// Values of `ipv6`, without brackets.
    pub ipv6: Vec<String>,
    /// Values of `host`; case counts.
    pub host: Vec<String>,
    /// Values of `cidr`; no strategy uses them.
    pub cidr: Vec<String>,
    /// Whether the first `default-route` is true as Go's `strconv.ParseBool` has it.
    pub default_route: bool,
}

/// Why a text is not a list of identifiers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// A bare `;`, which Go refuses since it stopped being a separator.
    #[error("bare ';' in {pair:?}; separate identifiers by '&', or write %3B")]
    Semicolon {
        /// The part between two `&`.
        pair: String,
    },
    /// A `%` that two hexadecimal digits do not follow.
    #[error("invalid escape {escape:?}; '%' must be followed by two hexadecimal digits, or be written %25")]
    BadEscape {
        /// The `%` and up to two characters after it.
        escape: String,
    },
    /// A key that has no meaning; only [`Identifiers::parse_strict`] minds.
    #[error("unknown identifier {key:?}; known are host, ipv4, ipv6, cidr and default-route")]
    UnknownKey {
        /// The key, decoded.
        key: String,
    },
}

impl Identifiers {
    /// The server's rule: unknown keys are ignored.
    ///
    /// # Errors
    /// [`IdentifierError::Semicolon`] or [`IdentifierError::BadEscape`].
    pub fn parse(query: &str) -> Result<Self, IdentifierError> {
        Self::parse_with(query, |_| Ok(()))
    }

    /// The rule of the agent's flag: only known keys, so that a typing error is found at the start.
    ///
    /// # Errors
    /// Any [`IdentifierError`].
    pub fn parse_strict(query: &str) -> Result<Self, IdentifierError> {
        Self::parse_with(query, |key| Err(IdentifierError::UnknownKey { key: key.to_owned() }))
    }

    fn parse_with(
        query: &str,
        on_unknown: impl Fn(&str) -> Result<(), IdentifierError>,
    ) -> Result<Self, IdentifierError> {
        let mut identifiers = Self::default();
        let mut default_route = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err(IdentifierError::Semicolon { pair: pair.to_owned() });
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (unescape(key)?, unescape(value)?);
            match key.as_str() {
                "ipv4" => identifiers.ipv4.push(value),
                "ipv6" => identifiers.ipv6.push(value),
                "host" => identifiers.host.push(value),
                "cidr" => identifiers.cidr.push(value),
                "default-route" => {
                    default_route.get_or_insert(is_true(&value));
                }
                unknown => on_unknown(unknown)?,
            }
        }
        identifiers.default_route = default_route.unwrap_or(false);
        Ok(identifiers)
    }
}

/// Go's `strconv.ParseBool`, with its error as false.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Go's `url.QueryUnescape`. Bytes that are not UTF-8 become U+FFFD: Go would keep them, and neither matches any target.
fn unescape(text: &str) -> Result<String, IdentifierError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let Some(value) = escaped_byte(after) else {
                    let place = text.len() - after.len() - 1;
                    let escape = text[place..].chars().take(3).collect();
                    return Err(IdentifierError::BadEscape { escape });
                };
                rest = &after[2..];
                value
            }
            other => other,
        });
    }
    Ok(String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The byte that two hexadecimal digits at the front stand for.
fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let digit = |place: usize| digits.get(place).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn parses_what_an_agent_sends() {
        let query = "ipv4=10.0.0.1&ipv6=fd00%3A%3A1&ipv4=10.0.0.2&host=Node+1&cidr=10.0.0.0/8&default-route=true";
        let expected = Identifiers {
            ipv4: list(&["10.0.0.1", "10.0.0.2"]),
            ipv6: list(&["fd00::1"]),
            host: list(&["Node 1"]),
            cidr: list(&["10.0.0.0/8"]),
            default_route: true,
        };
        assert_eq!(Identifiers::parse(query), Ok(expected.clone()));
        assert_eq!(Identifiers::parse_strict(query), Ok(expected));
    }

    #[test]
    fn odd_forms_mean_what_they_mean_to_go() {
        let table: [(&str, &[&str]); 10] = [
            ("", &[]),
            ("&&", &[]),
            ("host", &[""]),
            ("host=", &[""]),
            ("host=a=b", &["a=b"]),
            ("h%6fst=x", &["x"]),
            ("HOST=x&=y", &[]),
            ("host=%2526%26%3B", &["%26&;"]),
            ("host=${HOST_IP}", &["${HOST_IP}"]),
            ("host=%ff%C3%A9", &["\u{fffd}é"]),
        ];
        for (query, hosts) in table {
            let identifiers = Identifiers::parse(query).unwrap();
            assert_eq!(identifiers, Identifiers { host: list(hosts), ..Identifiers::default() }, "{query}");
        }
    }

    #[test]
    fn default_route_is_its_first_value() {
        for (query, expected) in [
            ("default-route=true&default-route=false", true),
            ("default-route=false&default-route=true", false),
            ("default-route=yes&default-route=true", false),
            ("default-route", false),
            ("default-route=1", true),
            ("default-route=tRUE", false),
        ] {
            assert_eq!(Identifiers::parse(query).unwrap().default_route, expected, "{query}");
        }
        for value in ["1", "t", "T", "true", "TRUE", "True"] {
            assert!(Identifiers::parse(&format!("default-route={value}")).unwrap().default_route);
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        let semicolon = IdentifierError::Semicolon { pair: "b;c".into() };
        assert_eq!(Identifiers::parse("a&b;c"), Err(semicolon));
        for (query, escape) in
            [("host=%", "%"), ("host=%4", "%4"), ("%zz=1", "%zz"), ("host=a%4g4", "%4g"), ("host=%é1", "%é1")]
        {
            let expected = IdentifierError::BadEscape { escape: escape.into() };
            assert_eq!(Identifiers::parse(query), Err(expected.clone()), "{query}");
            assert_eq!(Identifiers::parse_strict(query), Err(expected), "{query}");
        }
    }

    #[test]
    fn only_the_strict_rule_minds_unknown_keys() {
        for (query, key) in [("uid=1", "uid"), ("host=a&ipv5=b", "ipv5"), ("=x", ""), ("Host=a", "Host")] {
            assert!(Identifiers::parse(query).is_ok());
            let expected = IdentifierError::UnknownKey { key: key.into() };
            assert_eq!(Identifiers::parse_strict(query), Err(expected), "{query}");
        }
    }

    fn escape(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    proptest! {
        #[test]
        fn any_text_never_panics(query: String) {
            let _ = Identifiers::parse(&query);
            let _ = Identifiers::parse_strict(&query);
        }

        #[test]
        fn text_of_special_characters_never_panics(query in "[%&=;+0-9a-fé]{0,20}") {
            let _ = Identifiers::parse(&query);
        }

        #[test]
        fn any_value_round_trips(hosts in vec(any::<String>(), 0..4), ipv6 in vec(any::<String>(), 0..4)) {
            let pairs = hosts.iter().map(|host| format!("host={}", escape(host)));
            let pairs = pairs.chain(ipv6.iter().map(|ip| format!("{}={}", escape("ipv6"), escape(ip))));
            let query = pairs.collect::<Vec<_>>().join("&");
            let expected = Identifiers { host: hosts.clone(), ipv6: ipv6.clone(), ..Identifiers::default() };
            prop_assert_eq!(Identifiers::parse_strict(&query), Ok(expected));
        }
    }
}
