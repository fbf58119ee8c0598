use std::path::Path;

use konnectivity_process::metrics::document;

use super::*;

/// Families of the reference that are in use here.
const REFERENCE: [&str; 11] = [
    "dial_duration_seconds",
    "endpoint_dial_failure_total",
    "known_server_count",
    "lease_list_latency_seconds",
    "lease_lists_total",
    "lease_watches_total",
    "open_endpoint_connections",
    "open_server_connections",
    "server_connection_failure_count",
    "stream_errors_total",
    "stream_packets_total",
];

/// Uses everything once.
fn touch(metrics: &Metrics) {
    metrics.dial_connected(Duration::from_millis(30));
    metrics.dial_failed(DialErrorKind::Refused);
    metrics.server_gone(&ConnectionLost::TimedOut);
    metrics.packet_received(PacketType::DialReq);
    drop(metrics.endpoint_connection());
    drop(metrics.server_transport(Transport::Quic, Reason::QuicAnswered));
    metrics.leases.listed(200, "", Duration::from_millis(7));
    metrics.leases.watched(500, "InternalError");
    metrics.certificates.loaded("agent-cert", Some(SystemTime::now()));
    metrics.dial_ended("finished", 5, 7, Duration::ZERO);
}

#[test]
fn metrics_document() {
    let metrics = Metrics::new();
    touch(&metrics);
    let scrape = metrics.render(1, 1, &document::one_connection(&["server_id"])).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    document::check_document(&path, "proxy-agent", &scrape, PREFIX, &REFERENCE);
}

/// TRAP 5: the reference's tests compare whole families, so nothing is there before it was used. But its harness gives
/// up on an agent without `open_server_connections`.
#[test]
fn nothing_is_shown_before_its_first_use_but_what_must_be_there() {
    let metrics = Metrics::new();
    let before = text(&metrics);
    for name in REFERENCE {
        let family = family(&before, name);
        if ["known_server_count", "open_server_connections"].contains(&name) {
            assert!(family.ends_with(&format!("{PREFIX}{name} 0\n")), "{family}");
        } else {
            assert_eq!(family, "", "{name}");
        }
    }
    touch(&metrics);
    let after = text(&metrics);
    assert_eq!(family(&after, "endpoint_dial_failure_total").lines().count(), 3);
    assert!(family(&after, "open_endpoint_connections").ends_with(" 0\n"));
    assert!(family(&after, "server_connection_failure_count").ends_with("{direction=\"from_server\"} 1\n"));
    let text = metrics.render(2, 3, &QuicSnapshot::default()).unwrap();
    assert!(family(&text, "open_server_connections").ends_with(" 2\n"));
    assert!(family(&text, "known_server_count").ends_with(" 3\n"));
}

#[test]
fn a_server_that_stops_is_no_failure() {
    let metrics = Metrics::new();
    let closed = |code| ConnectionLost::Closed { code, reason: String::new() };
    for how in [
        ConnectionLost::ClosedHere,
        closed(Some(ConnectionCode::Drained)),
        closed(Some(ConnectionCode::DrainDeadline)),
        closed(Some(ConnectionCode::Stopping)),
    ] {
        metrics.server_gone(&how);
    }
    for name in ["server_connection_failure_count", "stream_errors_total"] {
        assert_eq!(family(&text(&metrics), name), "");
    }
    for how in [ConnectionLost::Reset, closed(Some(ConnectionCode::Protocol)), closed(None)] {
        metrics.server_gone(&how);
    }
    assert_eq!(
        family(&text(&metrics), "server_connection_failure_count"),
        format!(
            "# HELP {PREFIX}server_connection_failure_count Count of failures to send to or receive from the proxy \
             server, labeled by the direction (from_server or to_server). DEPRECATED, please use \
             stream_events_error_total\n\
             # TYPE {PREFIX}server_connection_failure_count counter\n\
             {PREFIX}server_connection_failure_count{{direction=\"from_server\"}} 3\n"
        )
    );
    let errors = family(&text(&metrics), "stream_errors_total");
    let sample = "{code=\"Unavailable\",packet_type=\"Unknown\",segment=\"to_agent\"} 3\n";
    assert!(errors.lines().count() == 3 && errors.ends_with(sample), "{errors}");
}

#[test]
fn packets_are_counted_as_the_reference_counts_them() {
    let metrics = Metrics::new();
    metrics.packet_received(PacketType::DialReq);
    metrics.packet_sent(PacketType::DialRsp);
    metrics.packet_sent(PacketType::Data);
    metrics.packet_sent(PacketType::Data);
    metrics.stream_lost(None);
    assert_eq!(
        family(&text(&metrics), "stream_packets_total"),
        format!(
            "# HELP {PREFIX}stream_packets_total Count of packets processed, by segment and packet type \
             (example: from_client, DIAL_REQ)\n\
             # TYPE {PREFIX}stream_packets_total counter\n\
             {PREFIX}stream_packets_total{{packet_type=\"DATA\",segment=\"from_agent\"}} 2\n\
             {PREFIX}stream_packets_total{{packet_type=\"DIAL_REQ\",segment=\"to_agent\"}} 1\n\
             {PREFIX}stream_packets_total{{packet_type=\"DIAL_RSP\",segment=\"from_agent\"}} 1\n"
        )
    );
    assert_eq!(family(&text(&metrics), "stream_errors_total"), "");
    metrics.stream_lost(Some("Canceled"));
    let errors = family(&text(&metrics), "stream_errors_total");
    let sample = "{code=\"Canceled\",packet_type=\"Unknown\",segment=\"to_agent\"} 1\n";
    assert!(errors.lines().count() == 3 && errors.ends_with(sample), "{errors}");
}

fn text(metrics: &Metrics) -> String {
    metrics.render(0, 0, &QuicSnapshot::default()).unwrap()
}

/// The family as the reference's tests compare it.
fn family(text: &str, name: &str) -> String {
    document::family(text, &format!("{PREFIX}{name}"))
}

#[test]
fn families_that_the_references_tests_compare_are_equal_byte_for_byte() {
    let metrics = Metrics::new();
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
