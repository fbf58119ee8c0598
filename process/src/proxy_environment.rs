//! The HTTP proxy that the environment asks programs to use: `HTTPS_PROXY`, `NO_PROXY` and their lower-case spellings,
//! as Go's `golang.org/x/net/http/httpproxy` reads them.
//!
//! The reference's agent reaches its servers through such a proxy. A CONNECT proxy carries TCP, so that only connections
//! over gRPC go through it.

use std::net::IpAddr;

use crate::percent;

/// Without a port in a proxy's address, gRPC's library for Go takes this one.
const DEFAULT_PORT: u16 = 443;

/// A proxy that is asked by CONNECT, without TLS of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// What `Proxy-Authorization` is to say. Secret.
    pub authorization: Option<String>,
}

impl std::fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpProxy").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why a proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpProxyError {
    /// It is to be spoken to in another way.
    #[error("{shown:?} is not an HTTP proxy that is spoken to without TLS")]
    Scheme {
        /// The address without name and password.
        shown: String,
    },
    /// It is no address.
    #[error("{shown:?} is not the address of a proxy, such as http://proxy:3128")]
    Address {
        /// The address without name and password.
        shown: String,
    },
}

impl HttpProxy {
    /// Takes `http://name:password@host:port`, of which only the host must be there.
    ///
    /// # Errors
    /// [`HttpProxyError`].
    pub fn parse(address: &str) -> Result<Self, HttpProxyError> {
        let shown = || without_credentials(address);
        let rest = match address.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(HttpProxyError::Scheme { shown: shown() }),
            None => address,
        };
        let rest = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let bad = || HttpProxyError::Address { shown: shown() };
        let (host, port) = match split_host_port(place) {
            Some((host, "")) => (host, DEFAULT_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (place.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(place), DEFAULT_PORT),
        };
        if host.is_empty() || port == 0 || host.contains(|c: char| c.is_whitespace() || "[]@".contains(c)) {
            return Err(bad());
        }
        let authorization = credentials.map(|text| {
            let (name, password) = text.split_once(':').unwrap_or((text, ""));
            let plain =
                [percent::decoded(name.as_bytes()), b":".to_vec(), percent::decoded(password.as_bytes())].concat();
            format!("Basic {}", base64(&plain))
        });
        Ok(Self { host: host.to_owned(), port, authorization })
    }
}

/// The proxy that applies to a host and port, ready to be used; `None` when the host is to be reached directly.
///
/// # Errors
/// [`HttpProxyError`] when the environment names something else than an HTTP proxy.
pub fn http_proxy_for(
    host: &str,
    port: u16,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<HttpProxy>, HttpProxyError> {
    named_proxy(host, port, environment).map(|proxy| HttpProxy::parse(&proxy)).transpose()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |place: usize| u32::from(group.get(place).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

/// The proxy that applies to a host and port, without the name and password that may be in its address; `None` when
/// the host is to be reached directly.
///
/// It differs from Go in two rare points: what Go cannot read as an address counts as a proxy too, since somebody wanted
/// one, and names outside of ASCII are compared as they are written.
pub fn proxy_for(host: &str, port: u16, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    named_proxy(host, port, environment).map(|proxy| without_credentials(&proxy))
}

/// The same with name and password.
fn named_proxy(host: &str, port: u16, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    let either =
        |upper, lower| [upper, lower].into_iter().find_map(|name| environment(name).filter(|it| !it.is_empty()));
    let proxy = either("HTTPS_PROXY", "https_proxy")?;
    let no_proxy = either("NO_PROXY", "no_proxy").unwrap_or_default();
    uses_proxy(host, port, &no_proxy).then_some(proxy)
}

/// Whether no rule excepts the host.
fn uses_proxy(host: &str, port: u16, no_proxy: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare == "localhost" {
        return false;
    }
    // A zone, as in fe80::1%eth0, is of no interest to the rules.
    let address = bare.split('%').next().unwrap_or(bare);
    let target = match address.parse::<IpAddr>() {
        Ok(ip) if ip.to_canonical().is_loopback() => return false,
        Ok(ip) => Target::Address(ip.to_canonical()),
        Err(_) => Target::Name(bare.trim().to_lowercase()),
    };
    !no_proxy.split(',').any(|rule| target.is_excepted(&rule.trim().to_lowercase(), port))
}

/// What is to be reached.
enum Target {
    /// Never an IPv4 address that is written as IPv6.
    Address(IpAddr),
    /// In lower case.
    Name(String),
}

impl Target {
    /// Whether one entry of `NO_PROXY` names it.
    fn is_excepted(&self, rule: &str, port: u16) -> bool {
        if rule == "*" {
            return true;
        }
        if let Some(network) = network(rule) {
            return matches!(self, Self::Address(ip) if contains(network, *ip));
        }
        let (host, rule_port) = split_host_port(rule).unwrap_or((rule, ""));
        let same_port = rule_port.is_empty() || rule_port == port.to_string();
        match (self, host.parse::<IpAddr>()) {
            (Self::Address(ip), Ok(excepted)) => same_port && *ip == excepted.to_canonical(),
            (Self::Name(name), Err(_)) => same_port && is_domain(name, host),
            _ => false,
        }
    }
}

/// Whether a name is of a domain: `example.com` means it and what is below it, `.example.com` and `*.example.com` only
/// what is below.
fn is_domain(name: &str, domain: &str) -> bool {
    let domain = domain.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(domain);
    if domain.is_empty() {
        return false;
    }
    if domain.starts_with('.') {
        return name.ends_with(domain);
    }
    name == domain || name.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
}

/// An address and the length of its prefix.
fn network(rule: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = rule.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let length: u32 = length.parse().ok()?;
    match (address, address.to_canonical()) {
        (IpAddr::V4(_), _) if length <= 32 => Some((address, length)),
        (IpAddr::V6(_), IpAddr::V4(inner)) if length <= 128 => Some((inner.into(), length.saturating_sub(96))),
        (IpAddr::V6(_), IpAddr::V6(_)) if length <= 128 => Some((address, length)),
        _ => None,
    }
}

fn contains((network, length): (IpAddr, u32), ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

/// Go's `net.SplitHostPort`: `None` where there is no port, or too many colons.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let brackets = ['[', ']'];
    (!host.contains(brackets) && !port.contains(brackets)).then_some((host, port))
}

/// An address as it can be logged.
fn without_credentials(proxy: &str) -> String {
    let begin = proxy.find("://").map_or(0, |place| place + 3);
    let (scheme, rest) = proxy.split_at(begin);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(place) => format!("{scheme}{}", &rest[place + 1..]),
        None => proxy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(host: &str, no_proxy: &str) -> bool {
        let environment = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://proxy:3128".to_owned()),
            "no_proxy" => Some(no_proxy.to_owned()),
            _ => None,
        };
        proxy_for(host, 8091, environment).is_none()
    }

    /// Each row was given to Go's `httpproxy`.
    #[test]
    fn exceptions() {
        for (host, no_proxy, is_direct) in [
            ("example.com", "", false),
            ("localhost", "", true),
            ("LOCALHOST", "", false),
            ("localhost.", "", false),
            ("127.0.0.1", "", true),
            ("127.1.2.3", "", true),
            ("::1", "", true),
            ("[::1]", "", true),
            ("::ffff:127.0.0.1", "", true),
            ("10.0.0.1", "", false),
            ("example.com", "*", true),
            ("10.0.0.1", "x.com, *", true),
            ("example.com", "example.com", true),
            ("EXAMPLE.com", "Example.COM", true),
            ("a.example.com", "example.com", true),
            ("aexample.com", "example.com", false),
            ("example.com", ".example.com", false),
            ("a.example.com", ".example.com", true),
            ("example.com", "*.example.com", false),
            ("a.b.example.com", "*.example.com", true),
            ("a.example.com", "*example.com", false),
            ("example.com", " x.com , example.com ", true),
            ("example.com", "example.com:8091", true),
            ("example.com", "example.com:443", false),
            ("a.example.com", ".example.com:8091", true),
            ("example.com", "example.com:", true),
            ("example.com", ":8091", false),
            ("example.com", ",,", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "10.0.0.1:8091", true),
            ("10.0.0.1", "10.0.0.1:80", false),
            ("10.0.0.1", "10.0.0.0/8", true),
            ("11.0.0.1", "10.0.0.0/8", false),
            ("11.0.0.1", "10.0.0.0/0", true),
            ("10.0.0.1", "10.0.0.0/33", false),
            ("10.0.0.1", "10.0.0.0/8:8091", false),
            ("::ffff:10.0.0.1", "10.0.0.0/8", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.0/104", true),
            ("10.0.0.1", "0.1", false),
            ("fd00::1", "fd00::/8", true),
            ("fd00::1", "[fd00::1]:8091", true),
            ("fd00::1", "fd00::1", true),
            ("fd00::1", "[fd00::1]", false),
            ("fd00::1", "fd00::2", false),
            ("fd00::1", "10.0.0.0/0", false),
            ("fe80::1%eth0", "fe80::/10", true),
        ] {
            assert_eq!(direct(host, no_proxy), is_direct, "{host} with NO_PROXY={no_proxy}");
        }
    }

    #[test]
    fn which_variable_counts() {
        let look = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
            proxy_for("server", 8091, |name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        let proxy = |address: &str| Some(address.to_owned());
        assert_eq!(look(&[]), None);
        assert_eq!(look(&[("HTTP_PROXY", "http://a"), ("ALL_PROXY", "http://a")]), None);
        assert_eq!(look(&[("https_proxy", "http://b")]), proxy("http://b"));
        assert_eq!(look(&[("HTTPS_PROXY", "a:3128"), ("https_proxy", "b")]), proxy("a:3128"));
        assert_eq!(look(&[("HTTPS_PROXY", ""), ("https_proxy", "b")]), proxy("b"));
        assert_eq!(look(&[("https_proxy", "b"), ("NO_PROXY", "x"), ("no_proxy", "server")]), proxy("b"));
        assert_eq!(look(&[("https_proxy", "b"), ("NO_PROXY", ""), ("no_proxy", "server")]), None);
    }

    #[test]
    fn addresses_of_proxies() {
        let proxy = |host: &str, port, authorization: Option<&str>| {
            Ok(HttpProxy { host: host.to_owned(), port, authorization: authorization.map(str::to_owned) })
        };
        for (address, expected) in [
            ("http://proxy:3128", proxy("proxy", 3128, None)),
            ("HTTP://proxy:3128/path?query", proxy("proxy", 3128, None)),
            ("proxy:3128", proxy("proxy", 3128, None)),
            ("proxy", proxy("proxy", 443, None)),
            ("http://proxy", proxy("proxy", 443, None)),
            ("http://[fd00::1]:3128", proxy("fd00::1", 3128, None)),
            ("http://[fd00::1]", proxy("fd00::1", 443, None)),
            ("http://user:s%40cret@proxy:1", proxy("proxy", 1, Some("Basic dXNlcjpzQGNyZXQ="))),
            ("user@proxy:1", proxy("proxy", 1, Some("Basic dXNlcjo="))),
        ] {
            assert_eq!(HttpProxy::parse(address), expected, "{address}");
        }
        for address in ["https://u:p@proxy:3128", "socks5://proxy:1080"] {
            let error = HttpProxy::parse(address).unwrap_err();
            assert!(matches!(&error, HttpProxyError::Scheme { shown } if !shown.contains("u:p")), "{error}");
        }
        for address in ["http://", "http://proxy:many", "http://proxy:0", "pro xy:1", "http://user:secret@:80"] {
            let error = HttpProxy::parse(address).unwrap_err().to_string();
            assert!(error.contains("is not the address of a proxy") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn base64_of_every_length() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn passwords_are_not_told() {
        let proxy = HttpProxy::parse("http://user:secret@proxy").unwrap();
        assert!(!format!("{proxy:?}").contains("authorization"), "{proxy:?}");
        for (proxy, told) in [
            ("http://user:secret@proxy:3128", "http://proxy:3128"),
            ("user:s@cret@proxy:3128", "proxy:3128"),
            ("http://proxy/a@b", "http://proxy/a@b"),
            ("https://proxy", "https://proxy"),
        ] {
            assert_eq!(without_credentials(proxy), told);
        }
    }
}
