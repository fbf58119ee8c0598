//! Request targets, by the rules of Go's net/url, which decides what the reference forwards and what it refuses.

use std::{net::Ipv6Addr, str};

/// The request target is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTarget;

/// The `host:port` in the target of a CONNECT that isn't a path: what is left of it without user, path and query,
/// percent-decoded. It may be empty.
///
/// # Errors
/// When Go's `url.Parse` refuses `http://` with this behind it, or when the host is not UTF-8 once decoded.
pub fn authority(target: &str) -> Result<String, InvalidTarget> {
    refuse_controls(target)?;
    let (target, _query) = target.split_once('?').unwrap_or((target, ""));
    let (authority, path) = match target.find('/') {
        Some(slash) => target.split_at(slash),
        None => (target, ""),
    };
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            check_user(user)?;
            host
        }
        None => authority,
    };
    let host = parse_host(host)?;
    check_escapes(path)?;
    Ok(host)
}

/// Whether the target of another method, or a path in a CONNECT, is one. The server named in an absolute target is
/// not looked at: the request is refused in any case.
///
/// # Errors
/// When Go's `url.ParseRequestURI` refuses it.
pub fn check_other(target: &str) -> Result<(), InvalidTarget> {
    refuse_controls(target)?;
    let (path, _query) = target.split_once('?').unwrap_or((target, ""));
    if target == "*" || has_scheme(target) {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(InvalidTarget);
    }
    check_escapes(path)
}

fn refuse_controls(target: &str) -> Result<(), InvalidTarget> {
    let control = target.bytes().any(|byte| byte < b' ' || byte == 0x7f);
    if control { Err(InvalidTarget) } else { Ok(()) }
}

/// Whether it begins with a scheme (RFC 3986, section 3.1).
fn has_scheme(target: &str) -> bool {
    let Some((scheme, _)) = target.split_once(':') else {
        return false;
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// RFC 3986, section 3.2.1; Go allows `@` besides.
fn check_user(user: &str) -> Result<(), InvalidTarget> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if !user.bytes().all(allowed) {
        return Err(InvalidTarget);
    }
    check_escapes(user)
}

/// RFC 3986, section 3.2.2, and RFC 6874 for the zone of an IPv6 address.
fn parse_host(host: &str) -> Result<String, InvalidTarget> {
    let Some(bracketed) = host.strip_prefix('[') else {
        if host.contains('[') {
            return Err(InvalidTarget);
        }
        if let Some((_, port)) = host.split_once(':') {
            check_port(port)?;
        }
        return unescape(host, Part::Host);
    };
    let (address, port) = bracketed.rsplit_once(']').ok_or(InvalidTarget)?;
    if address.contains('[') {
        return Err(InvalidTarget);
    }
    if !port.is_empty() {
        check_port(port.strip_prefix(':').ok_or(InvalidTarget)?)?;
    }
    let address = match address.find("%25") {
        Some(zone) => {
            let (address, zone) = address.split_at(zone);
            unescape(address, Part::Host)? + &unescape(zone, Part::Zone)?
        }
        None => unescape(address, Part::Host)?,
    };
    check_ipv6(&address)?;
    Ok(format!("[{address}]{port}"))
}

fn check_port(port: &str) -> Result<(), InvalidTarget> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if digits { Ok(()) } else { Err(InvalidTarget) }
}

fn check_ipv6(address: &str) -> Result<(), InvalidTarget> {
    let address = match address.split_once('%') {
        Some((_, "")) => return Err(InvalidTarget),
        Some((address, _zone)) => address,
        None => address,
    };
    let parsed = address.parse::<Ipv6Addr>();
    parsed.map(drop).map_err(|_| InvalidTarget)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Escapes stand for bytes that are not ASCII, and for `%`.
    Host,
    /// Escapes stand for bytes that a host may have, and for spaces, which Windows puts there.
    Zone,
}

fn unescape(text: &str, part: Part) -> Result<String, InvalidTarget> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = if *first == b'%' {
            let byte = escaped(rest)?;
            let allowed = match part {
                Part::Host => byte >= 0x80 || byte == b'%',
                Part::Zone => b"% ".contains(&byte) || is_host_byte(byte),
            };
            (allowed.then_some(byte), &after[2..])
        } else {
            let allowed = *first >= 0x80 || is_host_byte(*first);
            (allowed.then_some(*first), after)
        };
        decoded.push(byte.ok_or(InvalidTarget)?);
        rest = after;
    }
    String::from_utf8(decoded).map_err(|_| InvalidTarget)
}

/// Whether every `%` begins an escape.
fn check_escapes(text: &str) -> Result<(), InvalidTarget> {
    let bytes = text.as_bytes();
    let percents = (0..bytes.len()).filter(|&place| bytes[place] == b'%');
    for place in percents {
        escaped(&bytes[place..])?;
    }
    Ok(())
}

/// The byte that an escape at the beginning of `bytes` stands for.
fn escaped(bytes: &[u8]) -> Result<u8, InvalidTarget> {
    let digits = bytes.get(1..3).ok_or(InvalidTarget)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(InvalidTarget);
    }
    let digits = str::from_utf8(digits).map_err(|_| InvalidTarget)?;
    u8::from_str_radix(digits, 16).map_err(|_| InvalidTarget)
}

/// What Go takes in a host as it is: unreserved, sub-delims, `:` and brackets, and four that others refuse.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]<>\"".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn authorities_are_taken_as_go_takes_them() {
        for (target, host) in [
            ("node-1:10250", "node-1:10250"),
            ("Node-1:10250", "Node-1:10250"),
            ("node-1", "node-1"),
            ("node-1:", "node-1:"),
            (":80", ":80"),
            ("", ""),
            ("10.0.0.7:443", "10.0.0.7:443"),
            ("[::1]:80", "[::1]:80"),
            ("[fd00::7]", "[fd00::7]"),
            ("[::ffff:10.0.0.7]:80", "[::ffff:10.0.0.7]:80"),
            ("[fe80::1%25eth0]:80", "[fe80::1%eth0]:80"),
            ("[fe80::1%25a%20b]:80", "[fe80::1%a b]:80"),
            ("user:secret@node-1:80", "node-1:80"),
            ("a@b@node-1:80", "node-1:80"),
            ("node-1:80/path", "node-1:80"),
            ("node-1:80?query", "node-1:80"),
            ("node-1:80/a%20b", "node-1:80"),
            ("caf%C3%A9:80", "café:80"),
            ("café:80", "café:80"),
            ("a%25b:80", "a%b:80"),
            ("a]:80", "a]:80"),
            ("<\"a\">!$&'()*+,;=_~.-:80", "<\"a\">!$&'()*+,;=_~.-:80"),
        ] {
            assert_eq!(authority(target).as_deref(), Ok(host), "{target:?}");
        }
    }

    #[test]
    fn other_authorities_are_refused_as_go_refuses_them() {
        for target in [
            "::1",
            "9878::7675",
            "a:b:80",
            "node-1:http",
            "node-1:80x",
            "node-1:-1",
            "[::1",
            "::1]:80",
            "[::1]80",
            "[::1]:http",
            "[10.0.0.7]:80",
            "[node-1]:80",
            "[::1%25]:80",
            "[::1%eth0]:80",
            "[fe80::1%25[]:80",
            "a[::1]:80",
            "[[::1]]:80",
            "a%20b:80",
            "a%2Fb:80",
            "a%:80",
            "a%4:80",
            "a%zz:80",
            "a b:80",
            "a\tb:80",
            "a\x7fb:80",
            "a#b:80",
            "a|b:80",
            "a\\b:80",
            "us er@node-1:80",
            "us<er@node-1:80",
            "us%er@node-1:80",
            "node-1:80/a%zz",
            // Decoded, this is not UTF-8, which an agent could not be told.
            "a%ff:80",
        ] {
            assert_eq!(authority(target), Err(InvalidTarget), "{target:?}");
        }
    }

    #[test]
    fn other_targets_are_paths_or_have_a_scheme() {
        for target in ["/", "*", "/a%20b", "//a", "/?%zz", "http://a/", "mailto:a", "a+b-c.d:"] {
            assert_eq!(check_other(target), Ok(()), "{target:?}");
        }
        for target in ["", "a", "a/b", "?", ":a", "1a:b", "/%zz", "/\x01", "**"] {
            assert_eq!(check_other(target), Err(InvalidTarget), "{target:?}");
        }
    }

    proptest! {
        #[test]
        fn no_target_panics(target in "[ -~é\t]{0,40}|(\\[|%|25|::|1|\\]|@|/|:80|\\?){0,12}") {
            let _ = authority(&target);
            let _ = check_other(&target);
        }
    }
}
