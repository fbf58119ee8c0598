use std::time::{Duration, UNIX_EPOCH};

use super::*;

#[track_caller]
fn assert_bytes(reply: &[u8], expected: &str) {
    assert_eq!(String::from_utf8_lossy(reply), expected);
}

#[test]
fn fixed_replies() {
    assert_bytes(ESTABLISHED, "HTTP/1.1 200 Connection Established\r\n\r\n");
    assert_bytes(
        NO_AGENT,
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\ncurrently no tunnels available: No agent available",
    );
    assert_bytes(
        SEND_TIMED_OUT,
        "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nFailed to tunnel dial request: timed out waiting for backend dial\r\n",
    );
    assert_bytes(
        DIAL_TIMED_OUT,
        "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nBackend dial timeout: timed out waiting for backend dial\r\n",
    );
}

#[test]
fn replies_with_an_error_of_ours() {
    assert_bytes(
        &send_failed("EOF"),
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nFailed to tunnel dial request: EOF\r\n",
    );
    assert_bytes(
        &agent_lost("context canceled"),
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nBackend context error: context canceled\r\n",
    );
}

#[test]
fn a_dial_error_is_repeated_word_by_word() {
    assert_bytes(
        &dial_error("dial tcp 10.0.0.7:80: connect: connection refused"),
        "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ndial tcp 10.0.0.7:80: connect: connection refused",
    );
    assert!(dial_error("i/o timeout").starts_with(b"HTTP/1.1 504 Gateway Timeout\r\n"));
    assert!(dial_error("too many open files").starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
}

#[test]
fn a_dial_errors_status_is_found_by_its_words() {
    for (text, status) in [
        ("dial tcp 10.0.0.7:80: i/o timeout", 504),
        ("context deadline exceeded", 504),
        ("Connection Timeout", 504),
        ("socket: too many open files", 503),
        ("too many open files after timeout", 504),
        ("connect: connection refused", 502),
        ("read: connection reset by peer", 502),
        ("write: broken pipe", 502),
        ("connect: network is unreachable", 502),
        ("connect: no route to host", 502),
        ("host is unreachable", 502),
        ("network is down", 502),
        ("lookup nowhere: no such host", 502),
        ("Temporary failure in name resolution", 502),
        ("tls: handshake failure", 502),
        ("ssl error", 502),
        ("x509: certificate has expired", 502),
        ("anything else", 502),
        ("", 502),
        // The reference finds the word in a host's name, too.
        ("lookup timeout.example: no such host", 504),
    ] {
        assert_eq!(dial_error_status(text), status, "{text:?}");
    }
}

#[test]
fn other_methods_are_told_that_they_are_not_allowed() {
    const HEAD: &str = "405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nDate: Tue, 24 Nov 2026 05:49:02 GMT\r\nContent-Length: 45\r\n";
    const BODY: &str = "this proxy only supports CONNECT passthrough\n";
    let now = UNIX_EPOCH + Duration::from_secs(1_795_499_342);
    for (version, keep_alive, is_head, expected) in [
        (Version::Http11, true, false, format!("HTTP/1.1 {HEAD}\r\n{BODY}")),
        (Version::Http11, false, false, format!("HTTP/1.1 {HEAD}Connection: close\r\n\r\n{BODY}")),
        (Version::Http11, true, true, format!("HTTP/1.1 {HEAD}\r\n")),
        (Version::Http10, false, false, format!("HTTP/1.0 {HEAD}\r\n{BODY}")),
        (Version::Http10, true, false, format!("HTTP/1.0 {HEAD}Connection: keep-alive\r\n\r\n{BODY}")),
    ] {
        let request = OtherRequest { is_head, version, keep_alive, body_bytes: 0 };
        assert_bytes(&method_not_allowed(&request, now), &expected);
    }
}

#[test]
fn bad_heads_are_refused() {
    const HEADERS: &str = "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n";
    for (error, status, body) in [
        (HeadError::Malformed, "400 Bad Request", "400 Bad Request"),
        (
            HeadError::MissingHost,
            "400 Bad Request: missing required Host header",
            "400 Bad Request: missing required Host header",
        ),
        (HeadError::MalformedHost, "400 Bad Request: malformed Host header", "400 Bad Request: malformed Host header"),
        (
            HeadError::UnsupportedVersion,
            "505 HTTP Version Not Supported: unsupported protocol version",
            "505 HTTP Version Not Supported: unsupported protocol version",
        ),
        (HeadError::UnsupportedTransferEncoding, "501 Not Implemented", "Unsupported transfer encoding"),
        (HeadError::TooLarge, "431 Request Header Fields Too Large", "431 Request Header Fields Too Large"),
    ] {
        assert_bytes(head_error(error), &format!("HTTP/1.1 {status}\r\n{HEADERS}{body}"));
    }
}

#[test]
fn plain_http_on_the_tls_port_is_answered_in_plain_http() {
    assert_bytes(
        PLAIN_HTTP_ON_TLS_PORT,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    );
}
