#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use http::{HeaderName, HeaderValue};

use super::*;

#[test]
fn an_authority_without_a_host_is_replaced() {
    for value in [
        "%2Fetc%2Fkubernetes%2Fkonnectivity-server%2Fkonnectivity-server.socket",
        "%2Frun%2Fx.socket",
        "/run/x.socket",
        "fd00::1",
        "::1",
        "",
        "a b",
        "host:port:port",
    ] {
        assert_eq!(judge(b":authority", value.as_bytes()), Verdict::Localhost, "{value}");
    }
    assert_eq!(judge(b":authority", b"\xff\xfe"), Verdict::Localhost);
}

#[test]
fn an_authority_that_a_uri_may_have_stays() {
    for value in ["localhost", "127.0.0.1:8090", "[fd00::1]:8090", "[fd00::1]", "proxy-server.kube-system.svc", "a:b@c"]
    {
        assert_eq!(judge(b":authority", value.as_bytes()), Verdict::Keep, "{value}");
    }
}

#[test]
fn other_fields_stay_as_they_are() {
    for (name, value) in [
        (":method", "POST"),
        (":method", "get"),
        (":path", "/ProxyService/Proxy"),
        (":path", ""),
        (":scheme", "http"),
        ("host", "%2Frun%2Fx.socket"),
        ("user-agent", "grpc-go/1.80.0"),
        ("x", " \t"),
        ("x", "\u{e9}"),
    ] {
        assert_eq!(judge(name.as_bytes(), value.as_bytes()), Verdict::Keep, "{name}: {value}");
    }
}

#[test]
fn what_http_forbids_makes_a_request_malformed() {
    for (name, value) in [
        ("", "v"),
        ("Upper", "v"),
        ("a b", "v"),
        ("a:", "v"),
        (":unknown", "v"),
        (":status", "200"),
        (":method", ""),
        (":method", "a b"),
        (":path", "/\n"),
        (":authority", "a\r\nb"),
        ("x", "\0"),
        ("x", "\u{7f}"),
    ] {
        assert_eq!(judge(name.as_bytes(), value.as_bytes()), Verdict::Malformed, "{name}: {value:?}");
    }
    assert_eq!(judge(b":path", b"/\xff"), Verdict::Malformed);
}

/// What the library would end the connection for must not reach it.
#[test]
fn every_octet_is_judged_as_the_library_does() {
    for octet in 0..=u8::MAX {
        let name = HeaderName::from_lowercase(&[b'a', octet]).is_ok();
        // The library takes a quotation mark, which is no part of a token.
        let name = name && octet != b'"';
        assert_eq!(judge(&[b'a', octet], b"v") == Verdict::Keep, name, "in a name: {octet:#x}");
        let value = HeaderValue::from_bytes(&[octet]).is_ok();
        assert_eq!(judge(b"a", &[octet]) == Verdict::Keep, value, "in a value: {octet:#x}");
    }
}

#[test]
fn lengths_are_written_as_the_rfc_has_them() {
    for (length, prefix) in
        [(0, &[0][..]), (126, &[126]), (127, &[127, 0]), (128, &[127, 1]), (254, &[127, 127]), (255, &[127, 0x80, 1])]
    {
        let mut out = Vec::new();
        put_string(&mut out, &vec![b'x'; length]);
        assert_eq!(&out[..out.len() - length], prefix, "{length}");
    }
}
