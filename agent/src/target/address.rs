//! The `host:port` of a dial, read as Go's `net` package reads it, with its error texts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::error::TargetError;

/// The named ports that Go knows without a file (`net/lookup.go`). `/etc/services` is not read.
const NAMED_PORTS: [(&str, u16); 15] = [
    ("domain", 53),
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("imap3", 220),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("smtp", 25),
    ("ssh", 22),
    ("submissions", 465),
    ("telnet", 23),
];

/// Where a dial wants to go, parsed.
#[derive(Debug, PartialEq)]
pub(super) struct Address<'a> {
    text: &'a str,
    host_text: &'a str,
    host: Host<'a>,
    port: u16,
}

#[derive(Debug, PartialEq)]
pub(super) enum Host<'a> {
    /// An IP address (with its zone, port 0), or this machine when the host is empty.
    Literal(SocketAddr),
    /// A name to be resolved, which may still not be a valid one.
    Name(&'a str),
}

impl<'a> Address<'a> {
    /// # Errors
    /// `Malformed`, with the text of Go's `net.Dial`.
    pub(super) fn parse(text: &'a str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::malformed("missing address"));
        }
        let (host_text, port) = split(text).map_err(|why| TargetError::malformed(&format!("address {text}: {why}")))?;
        let port = parse_port(port)?;
        let host = match parse_ip(host_text) {
            Some(ip) => Host::Literal(ip),
            None => Host::Name(host_text),
        };
        Ok(Self { text, host_text, host, port })
    }

    pub(super) fn text(&self) -> &str {
        self.text
    }

    pub(super) fn host(&self) -> &Host<'a> {
        &self.host
    }

    pub(super) fn with_port(&self, mut ip: SocketAddr) -> SocketAddr {
        ip.set_port(self.port);
        ip
    }

    /// How Go prints the address it connected to: as it was written when that has what a socket address lacks (no
    /// host at all, the name of a zone).
    pub(super) fn shown(&self, candidate: SocketAddr) -> String {
        match self.host {
            Host::Literal(_) if self.host_text.is_empty() => format!(":{}", self.port),
            Host::Literal(_) if self.host_text.contains('%') => format!("[{}]:{}", self.host_text, self.port),
            _ => candidate.to_string(),
        }
    }
}

/// Go's `net.SplitHostPort`: the port stands behind the last colon, brackets only around the host.
fn split(text: &str) -> Result<(&str, &str), &'static str> {
    const MISSING_PORT: &str = "missing port in address";
    const TOO_MANY_COLONS: &str = "too many colons in address";

    let (before, port) = text.rsplit_once(':').ok_or(MISSING_PORT)?;
    let (host, rest) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, behind) = bracketed.split_once(']').ok_or("missing ']' in address")?;
        match behind.strip_prefix(':') {
            Some(only) if only.len() == port.len() => (host, port),
            Some(_) => return Err(TOO_MANY_COLONS),
            None => return Err(MISSING_PORT),
        }
    } else if before.contains(':') {
        return Err(TOO_MANY_COLONS);
    } else {
        (before, text)
    };
    if host.contains('[') || rest.contains('[') {
        return Err("unexpected '[' in address");
    }
    if rest.contains(']') {
        return Err("unexpected ']' in address");
    }
    Ok((host, port))
}

/// Go's `parsePort`: empty is 0, a sign is allowed, anything but digits is a name.
fn parse_port(text: &str) -> Result<u16, TargetError> {
    if text.is_empty() {
        return Ok(0);
    }
    let (sign, digits) = match text.as_bytes()[0] {
        b'+' | b'-' => text.split_at(1),
        _ => ("", text),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return NAMED_PORTS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, port)| *port)
            .ok_or_else(|| TargetError::malformed(&format!("lookup tcp/{text}: unknown port")));
    }
    let value = match digits.trim_start_matches('0') {
        "" => Some(0),
        significant if sign == "-" || significant.len() > 5 => None,
        significant => significant.parse().ok(),
    };
    value.ok_or_else(|| TargetError::malformed(&format!("address {text}: invalid port")))
}

/// An IP address, with its zone if it has one. IPv4 written as IPv6 (`::ffff:1.2.3.4`) is IPv4, as in Go.
fn parse_ip(host: &str) -> Option<SocketAddr> {
    if host.is_empty() {
        return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    }
    if let Some((ip, zone)) = host.split_once('%') {
        let ip: Ipv6Addr = ip.parse().ok()?;
        return (!zone.is_empty()).then(|| SocketAddrV6::new(ip, 0, 0, zone_index(zone)).into());
    }
    let ip: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), 0))
}

/// The index of a network interface given by name or number; 0 (the kernel then refuses link-local addresses) when
/// there is none.
fn zone_index(zone: &str) -> u32 {
    nix::net::if_::if_nametoindex(zone).ok().or_else(|| zone.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use konnectivity_transport::wire::message::DialErrorKind;
    use proptest::prelude::*;

    use super::*;

    /// Each text is what Go 1.26's `net.Dial("tcp", address)` says.
    #[test]
    fn malformed_addresses_get_gos_words() {
        for (address, text) in [
            ("", "dial tcp: missing address"),
            ("foo", "dial tcp: address foo: missing port in address"),
            ("[::1]", "dial tcp: address [::1]: missing port in address"),
            ("[::1", "dial tcp: address [::1: missing ']' in address"),
            ("[::1]x:1", "dial tcp: address [::1]x:1: missing port in address"),
            ("[::1]:1:2", "dial tcp: address [::1]:1:2: too many colons in address"),
            ("::1:1", "dial tcp: address ::1:1: too many colons in address"),
            ("a[b:1", "dial tcp: address a[b:1: unexpected '[' in address"),
            ("[a[b]:1", "dial tcp: address [a[b]:1: unexpected '[' in address"),
            ("a]b:1", "dial tcp: address a]b:1: unexpected ']' in address"),
            ("[a]:]", "dial tcp: address [a]:]: unexpected ']' in address"),
            ("127.0.0.1:65536", "dial tcp: address 65536: invalid port"),
            ("127.0.0.1:-1", "dial tcp: address -1: invalid port"),
            ("127.0.0.1:99999999999", "dial tcp: address 99999999999: invalid port"),
            ("127.0.0.1:foo", "dial tcp: lookup tcp/foo: unknown port"),
            ("127.0.0.1: 80", "dial tcp: lookup tcp/ 80: unknown port"),
        ] {
            let error = Address::parse(address).expect_err(address);
            assert_eq!((error.kind, error.text.as_str()), (DialErrorKind::Malformed, text), "{address}");
        }
    }

    #[test]
    fn literal_addresses_are_shown_as_go_shows_them() {
        for (address, connects_to, shown) in [
            ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1", "[::1]:1"),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", "127.0.0.1:1"),
            ("[127.0.0.1]:1", "127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:", "127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:+80", "127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:-0", "127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:0000080", "127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:65535", "127.0.0.1:65535", "127.0.0.1:65535"),
            ("127.0.0.1:HTTPS", "127.0.0.1:443", "127.0.0.1:443"),
            (":80", "127.0.0.1:80", ":80"),
            ("[]:80", "127.0.0.1:80", ":80"),
            ("[fe80::1%lo]:80", "[fe80::1%1]:80", "[fe80::1%lo]:80"),
            ("[fe80::1%1]:80", "[fe80::1%1]:80", "[fe80::1%1]:80"),
            ("[fe80::1%no-such-interface]:80", "[fe80::1]:80", "[fe80::1%no-such-interface]:80"),
        ] {
            let parsed = Address::parse(address).expect(address);
            let Host::Literal(ip) = parsed.host() else { panic!("{address} is literal") };
            let candidate = parsed.with_port(*ip);
            assert_eq!(candidate, connects_to.parse().expect(connects_to), "{address}");
            assert_eq!(parsed.shown(candidate), shown);
        }
    }

    #[test]
    fn anything_else_is_a_name() {
        for (address, name) in [
            ("localhost:80", "localhost"),
            ("kubelet.example:10250", "kubelet.example"),
            // Shorthand that the C library takes for 127.0.0.1; Go does not.
            ("127.1:80", "127.1"),
            ("[localhost]:80", "localhost"),
            ("a b:80", "a b"),
            ("[::1%]:80", "::1%"),
        ] {
            assert_eq!(Address::parse(address).expect(address).host(), &Host::Name(name));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(address in "\\PC{0,40}") {
            if let Ok(parsed) = Address::parse(&address) {
                parsed.shown(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            }
        }

        #[test]
        fn every_socket_address_parses_to_itself(ip in any::<IpAddr>(), port in any::<u16>()) {
            let address = SocketAddr::new(ip.to_canonical(), port);
            let text = address.to_string();
            let parsed = Address::parse(&text).expect("a socket address is host:port");
            let Host::Literal(ip) = parsed.host() else { panic!("{text} is literal") };
            prop_assert_eq!(parsed.with_port(*ip), address);
        }
    }
}
