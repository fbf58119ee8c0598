//! What the options say of TLS on the TCP ports for clients and agents: the lowest version, and the suites of TLS 1.2.

use konnectivity_process::problems::Problems;
use rustls::CipherSuite;

use crate::{
    accept::listener::tls::{Protocol, Terms},
    config::Surroundings,
    options::Options,
};

/// A name that `cipher-suites` takes, and what it stands for.
type Named = (&'static str, Suite);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    /// A suite of TLS 1.3, which is always there.
    Tls13,
    /// A suite of TLS 1.2.
    Tls12(CipherSuite),
    /// A suite of TLS 1.2 with CBC, whose padding can be attacked. Go has it, the library here does not.
    Missing,
}

/// The names of Go's list of secure suites.
const SUITES: [Named; 13] = [
    ("TLS_AES_128_GCM_SHA256", Suite::Tls13),
    ("TLS_AES_256_GCM_SHA384", Suite::Tls13),
    ("TLS_CHACHA20_POLY1305_SHA256", Suite::Tls13),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", Suite::Missing),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", Suite::Missing),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", Suite::Missing),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", Suite::Missing),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Suite::Tls12(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Suite::Tls12(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Suite::Tls12(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Suite::Tls12(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Suite::Tls12(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Suite::Tls12(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
];

/// What handshakes with peers that speak gRPC may agree on. What is taken and means something else than it says goes to `notices`.
pub(super) fn check(
    options: &Options,
    surroundings: Surroundings,
    problems: &mut Problems,
    notices: &mut Vec<String>,
) -> Terms {
    let protocol = Protocol::Http2 { demand_alpn: surroundings.enforce_alpn };
    let only_tls13 = only_tls13(&options.tls_min_version, problems, notices);
    let cipher_suites = cipher_suites(&options.cipher_suites.0, problems, notices);
    Terms { protocol, only_tls13, cipher_suites }
}

fn only_tls13(version: &str, problems: &mut Problems, notices: &mut Vec<String>) -> bool {
    const NAMES: &str = "VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13";
    match version {
        "" | "VersionTLS12" => {}
        "VersionTLS13" => return true,
        "VersionTLS10" | "VersionTLS11" => notices.push(format!(
            "--tls-min-version={version} is below TLS 1.2 and insecure (RFC 8996): it is not spoken here, and TLS 1.2 \
             is the lowest"
        )),
        other => problems.rule(
            "tls-min-version",
            format_args!("unsupported TLS version {other:?}, supported values are: {NAMES}"),
            "set it to VersionTLS12 or VersionTLS13",
        ),
    }
    false
}

/// The suites of TLS 1.2 in a list; `None` when there is no list.
fn cipher_suites(names: &[String], problems: &mut Problems, notices: &mut Vec<String>) -> Option<Vec<CipherSuite>> {
    let mut suites = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match SUITES.iter().find(|(known, _)| known == name) {
            Some((_, Suite::Tls12(suite))) => suites.push(*suite),
            Some((_, Suite::Tls13)) => {}
            Some((_, Suite::Missing)) => missing.push(name.as_str()),
            None => problems.rule(
                "cipher-suites",
                format_args!("cipher suite {name} not supported, doesn't exist or considered as insecure"),
                "remove it, or write it as in TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ),
        }
    }
    if !missing.is_empty() {
        let left = if suites.is_empty() { "; nothing is left for TLS 1.2, and only TLS 1.3 is spoken" } else { "" };
        notices
            .push(format!("--cipher-suites: {} cannot be used here: CBC is not implemented{left}", missing.join(", ")));
    }
    (!names.is_empty()).then_some(suites)
}

#[cfg(test)]
mod tests;
