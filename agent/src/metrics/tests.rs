use super::*;

fn text(metrics: &Metrics) -> String {
    metrics.render(0, 0, &QuicSnapshot::default()).unwrap()
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

#[test]
fn families_that_the_references_tests_compare_are_equal_byte_for_byte() {
    let metrics = Metrics::new();
    // TRAP 5: no sample before the first failure, and then only of the reason that occurred.
    assert_eq!(family(&text(&metrics), "endpoint_dial_failure_total"), "");
    metrics.dial_failed(DialErrorKind::TimedOut);
    assert_eq!(
        family(&text(&metrics), "endpoint_dial_failure_total"),
        "# HELP konnectivity_network_proxy_agent_endpoint_dial_failure_total \
         Number of failures dialing the remote endpoint, by reason (example: timeout).\n\
         # TYPE konnectivity_network_proxy_agent_endpoint_dial_failure_total counter\n\
         konnectivity_network_proxy_agent_endpoint_dial_failure_total{reason=\"timeout\"} 1\n"
    );

    let _one = metrics.endpoint_connection();
    drop(metrics.endpoint_connection());
    assert_eq!(
        family(&text(&metrics), "open_endpoint_connections"),
        "# HELP konnectivity_network_proxy_agent_open_endpoint_connections \
         Current number of open endpoint connections.\n\
         # TYPE konnectivity_network_proxy_agent_open_endpoint_connections gauge\n\
         konnectivity_network_proxy_agent_open_endpoint_connections 1\n"
    );
}

#[test]
fn every_failure_but_a_time_out_is_unknown() {
    let metrics = Metrics::new();
    for kind in [
        DialErrorKind::Refused,
        DialErrorKind::Unreachable,
        DialErrorKind::NameNotFound,
        DialErrorKind::Malformed,
        DialErrorKind::NoResources,
        DialErrorKind::Other,
    ] {
        metrics.dial_failed(kind);
    }
    let family = family(&text(&metrics), "endpoint_dial_failure_total");
    assert_eq!(family.lines().count(), 3);
    assert!(family.ends_with("_total{reason=\"unknown\"} 6\n"), "{family}");
}

/// The reference's harness gives up on an agent whose `open_server_connections` is missing.
#[test]
fn gauges_are_there_from_the_start() {
    let metrics = Metrics::new();
    for name in ["open_server_connections", "known_server_count", "open_endpoint_connections"] {
        let family = family(&text(&metrics), name);
        assert!(family.ends_with(&format!("{PREFIX}{name} 0\n")), "{family}");
    }
    let text = metrics.render(2, 3, &QuicSnapshot::default()).unwrap();
    assert!(family(&text, "open_server_connections").ends_with(" 2\n"));
    assert!(family(&text, "known_server_count").ends_with(" 3\n"));
}

#[test]
fn dials_have_the_references_buckets() {
    let metrics = Metrics::new();
    metrics.dial_connected(Duration::from_millis(30));
    let buckets = family(&text(&metrics), "dial_duration_seconds_bucket");
    let bounds: Vec<_> = buckets.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(bounds, ["0.005", "0.025", "0.1", "0.5", "2.5", "10", "30", "+Inf"]);
    assert!(buckets.contains("{le=\"0.025\"} 0\n") && buckets.contains("{le=\"0.1\"} 1\n"), "{buckets}");
}

#[test]
fn what_the_target_sends_goes_to_the_client() {
    let metrics = Metrics::new();
    metrics.dial_ended("finished", 5, 7, Duration::ZERO);
    let text = text(&metrics);
    assert!(family(&text, "dials_total").ends_with("{outcome=\"finished\"} 1\n"));
    let bytes = family(&text, "dial_bytes_total");
    assert!(bytes.contains("{direction=\"to_client\"} 5\n") && bytes.contains("{direction=\"to_target\"} 7\n"));
}
