use super::*;

fn text(metrics: &Metrics) -> String {
    metrics.render([(Strategy::Default, 2)], FrontendErrors::default(), &QuicSnapshot::default()).unwrap()
}

/// The family as the reference's tests compare it: HELP, TYPE and samples as a whole.
fn family(text: &str, name: &str) -> String {
    let name = format!("{PREFIX}{name}");
    text.lines()
        .filter(|line| {
            let line = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            line.split([' ', '{']).next() == Some(name.as_str())
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What a family with one sample looks like.
fn expected(name: &str, kind: &str, help: &str, sample: &str) -> String {
    format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name}{sample}\n")
}

#[test]
fn families_that_the_references_tests_compare_are_equal_byte_for_byte() {
    let metrics = Metrics::new();
    // TRAP 5: no sample of a reason that has not occurred.
    assert_eq!(family(&text(&metrics), "dial_failure_count"), "");

    metrics.dial_failed(DialFailure::NoAgent);
    let _pending = metrics.pending_dial();
    let _established = metrics.established_connection();
    let text = text(&metrics);
    for (name, kind, help, sample) in [
        (
            "dial_failure_count",
            "counter",
            "Number of dial failures observed. Multiple failures can occur for a single dial request.",
            "{reason=\"no_agent\"} 1",
        ),
        ("pending_backend_dials", "gauge", "Current number of pending backend dial requests", " 1"),
        (
            "ready_backend_connections",
            "gauge",
            "Number of konnectivity agent connected to the proxy server. DEPRECATED, please use ready_backends",
            " 2",
        ),
        (
            "ready_backends",
            "gauge",
            "Number of konnectivity agent connected to the proxy server",
            "{proxy_strategy=\"default\"} 2",
        ),
        ("established_connections", "gauge", "Current number of established end-to-end connections (post-dial).", " 1"),
    ] {
        assert_eq!(family(&text, name), expected(name, kind, help, sample));
    }
}

#[test]
fn gauges_are_there_from_the_start() {
    let text =
        Metrics::new().render([(Strategy::Default, 0)], FrontendErrors::default(), &QuicSnapshot::default()).unwrap();
    for name in [
        "http_connections",
        "ready_backend_connections",
        "pending_backend_dials",
        "established_connections",
        "frontend_accept_errors_total",
    ] {
        assert!(family(&text, name).ends_with(&format!("{PREFIX}{name} 0\n")), "{name}");
    }
    assert!(family(&text, "ready_backends").ends_with("{proxy_strategy=\"default\"} 0\n"));
}

#[test]
fn failures_have_the_references_reasons() {
    let metrics = Metrics::new();
    for failure in [
        DialFailure::NoAgent,
        DialFailure::ErrorResponse,
        DialFailure::SendResponse,
        DialFailure::BackendClose,
        DialFailure::BackendDialTimeout,
        DialFailure::FrontendClose,
    ] {
        metrics.dial_failed(failure);
    }
    let family = family(&text(&metrics), "dial_failure_count");
    let reasons: Vec<_> = family.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(
        reasons,
        ["backend_close", "backend_dial_timeout", "error_response", "frontend_close", "no_agent", "send_rsp"]
    );
}

#[test]
fn strategies_in_use_are_shown_and_the_deprecated_gauge_follows_the_first() {
    let metrics = Metrics::new();
    let ready = [(Strategy::DestHost, 1), (Strategy::Default, 4)];
    let text = metrics.render(ready, FrontendErrors { accept: 3, handshake: 2 }, &QuicSnapshot::default()).unwrap();
    assert!(family(&text, "ready_backend_connections").ends_with(" 1\n"));
    let both = family(&text, "ready_backends");
    assert!(both.contains("=\"default\"} 4\n") && both.contains("=\"destHost\"} 1\n"), "{both}");
    assert_eq!(both.lines().count(), 4);
    assert!(family(&text, "frontend_accept_errors_total").ends_with("_total 3\n"));
    assert!(family(&text, "frontend_handshake_errors_total").ends_with("_total 2\n"));
}

#[test]
fn histograms_have_the_references_buckets() {
    let metrics = Metrics::new();
    metrics.dial_established(Duration::from_micros(500));
    drop(metrics.established_connection());
    let text = text(&metrics);
    let bounds = |name| -> Vec<String> {
        let family = family(&text, name);
        family.lines().filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
    };
    assert_eq!(
        bounds("dial_duration_seconds_bucket"),
        ["1e-06", "1e-05", "0.0001", "0.005", "0.025", "0.1", "0.5", "2.5", "12.5", "+Inf"]
    );
    assert_eq!(
        bounds("connection_duration_seconds_bucket"),
        ["1", "5", "15", "30", "60", "300", "900", "1800", "3600", "14400", "43200", "86400", "+Inf"]
    );
    assert!(family(&text, "dial_duration_seconds_count").ends_with(" 1\n"));
    assert!(family(&text, "connection_duration_seconds_count").ends_with(" 1\n"));
}

#[test]
fn guards_count_as_long_as_they_live() {
    let metrics = Metrics::new();
    let guards = (metrics.http_connection(), metrics.pending_dial(), metrics.established_connection());
    let during = text(&metrics);
    drop(guards);
    let after = text(&metrics);
    for name in ["http_connections", "pending_backend_dials", "established_connections"] {
        assert!(family(&during, name).ends_with(" 1\n"), "{name}");
        assert!(family(&after, name).ends_with(" 0\n"), "{name}");
    }
}

#[test]
fn what_the_client_sends_goes_to_the_target() {
    let metrics = Metrics::new();
    metrics.dial_ended("finished", 5, 7, Duration::ZERO);
    let text = text(&metrics);
    assert!(family(&text, "dials_total").ends_with("{outcome=\"finished\"} 1\n"));
    let bytes = family(&text, "dial_bytes_total");
    assert!(bytes.contains("{direction=\"to_client\"} 7\n") && bytes.contains("{direction=\"to_target\"} 5\n"));
}
