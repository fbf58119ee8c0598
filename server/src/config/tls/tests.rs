use rustls::CipherSuite::{TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256};

use super::*;
use crate::config::{
    Frontend,
    tests::{Fixture, load, valid},
};

/// The terms of the TLS port with these flags, and what is told of them.
fn terms(more: &[&str]) -> (Terms, Vec<String>) {
    let fixture = Fixture::new();
    let mut flags = fixture.tcp();
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let config = valid(&flags);
    let Frontend::Tcp(tcp) = config.frontend else { panic!("{:?}", config.frontend) };
    (tcp.terms, config.notices)
}

#[test]
fn versions_of_tls() {
    for (flag, only_tls13, notice) in [
        ("--tls-min-version=", false, ""),
        ("--tls-min-version=VersionTLS10", false, "--tls-min-version=VersionTLS10 is below TLS 1.2"),
        ("--tls-min-version=VersionTLS11", false, "--tls-min-version=VersionTLS11 is below TLS 1.2"),
        ("--tls-min-version=VersionTLS12", false, ""),
        ("--tls-min-version=VersionTLS13", true, ""),
    ] {
        let (terms, notices) = terms(&[flag]);
        assert_eq!(terms.only_tls13, only_tls13, "{flag}");
        assert_eq!(notices.len(), usize::from(!notice.is_empty()), "{flag}: {notices:?}");
        assert!(notices.iter().all(|told| told.starts_with(notice)), "{flag}: {notices:?}");
    }
}

#[test]
fn cipher_suites_of_tls_1_2() {
    let cbc = "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA";
    let only_tls13 = "; nothing is left for TLS 1.2, and only TLS 1.3 is spoken";
    for (list, suites, notice) in [
        ("", None, String::new()),
        ("TLS_AES_128_GCM_SHA256", Some(vec![]), String::new()),
        (
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            Some(vec![TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]),
            String::new(),
        ),
        (cbc, Some(vec![]), format!("--cipher-suites: {cbc} cannot be used here: CBC is not implemented{only_tls13}")),
        (
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
            Some(vec![TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]),
            format!("--cipher-suites: {cbc} cannot be used here: CBC is not implemented"),
        ),
    ] {
        let (terms, notices) = terms(&[&format!("--cipher-suites={list}")]);
        assert_eq!(terms.cipher_suites, suites, "{list}");
        assert_eq!(notices.concat(), notice, "{list}");
    }
    let several = ["--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--cipher-suites=TLS_AES_128_GCM_SHA256"];
    assert_eq!(terms(&several).0.cipher_suites, Some(vec![TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]));
}

#[test]
fn clients_over_tcp_must_name_h2_unless_the_environment_lets_them() {
    let fixture = Fixture::new();
    let protocol = |variable: &str| {
        let mut flags = fixture.tcp();
        flags.push("--mode=grpc".into());
        let config = load(&flags, &[("GRPC_ENFORCE_ALPN_ENABLED", variable)]).unwrap();
        let Frontend::Tcp(tcp) = config.frontend else { panic!("{:?}", config.frontend) };
        tcp.terms.protocol
    };
    for (variable, demand_alpn) in [("", true), ("true", true), ("0", true), ("false", false), ("FALSE", false)] {
        assert_eq!(protocol(variable), Protocol::Http2 { demand_alpn }, "{variable}");
    }
}
