use std::path::Path;

use konnectivity_process::metrics::document;

use super::*;
use crate::auth::Refusal;

/// What the reference shows before anything has happened; it is 0.
const FROM_THE_START: [&str; 4] =
    ["culled_leases_count", "http_connections", "ready_backend_connections", "ready_backends"];

/// Families of the reference that are in use here.
const REFERENCE: [&str; 18] = [
    "connection_duration_seconds",
    "culled_leases_count",
    "dial_duration_seconds",
    "dial_failure_count",
    "established_connections",
    "frontend_write_duration_seconds",
    "full_receive_channels",
    "grpc_connections",
    "http_connections",
    "lease_delete_latency_seconds",
    "lease_delete_total",
    "lease_list_latency_seconds",
    "lease_list_total",
    "pending_backend_dials",
    "ready_backend_connections",
    "ready_backends",
    "stream_errors_total",
    "stream_packets_total",
];

/// Uses everything once.
fn touch(metrics: &Metrics) {
    drop((metrics.http_connection(), metrics.grpc_connection(), metrics.channel_full(), metrics.pending_dial()));
    drop((metrics.agent_stream(), metrics.agent_slowed()));
    drop(metrics.established_connection());
    metrics.dial_established(Duration::from_micros(500));
    metrics.frontend_write(Duration::from_micros(5));
    metrics.dial_failed(DialFailure::NoAgent);
    metrics.packet_received(PacketType::DialReq);
    metrics.packet_sent(PacketType::DialRsp);
    metrics.stream_error(Segment::FromClient, "Canceled", "Unknown");
    metrics.leases.culled();
    metrics.leases.deleted(200, "", Duration::from_millis(7));
    metrics.leases.listed(500, "InternalError", Duration::from_millis(7));
    metrics.leases.renewed(200, "");
    metrics.certificates.loaded("cluster-cert", Some(SystemTime::now()));
    metrics.agent_authenticated(Carried::Quic, Reached::Accepted);
    metrics.token_reviewed(ReviewResult::Good, Duration::from_millis(7));
    metrics.token_ended(Carried::Quic, &TokenEnd::Expired(Refusal::NoToken));
    metrics.token_ended(Carried::Grpc, &TokenEnd::Withdrawn(Refusal::NoToken));
    metrics.dial_ended("finished", 5, 7, Duration::ZERO);
}

#[test]
fn metrics_document() {
    let metrics = Metrics::new();
    touch(&metrics);
    let quic = document::one_connection(&["agent_id", "connection"]);
    let scrape = metrics.render([(Strategy::Default, 2)], ListenerErrors::default(), &quic).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    document::check_document(&path, "proxy-server", &scrape, PREFIX, &REFERENCE);
}

/// TRAP 5: the reference's tests compare whole families, so nothing is there before it was used.
#[test]
fn nothing_is_shown_before_its_first_use_but_what_the_reference_shows() {
    let metrics = Metrics::new();
    let ready = [(Strategy::Default, 0), (Strategy::DestHost, 0)];
    let before = metrics.render(ready, ListenerErrors::default(), &QuicSnapshot::default()).unwrap();
    for name in REFERENCE {
        assert_eq!(!family(&before, name).is_empty(), FROM_THE_START.contains(&name), "{name}");
    }
    for name in FROM_THE_START {
        let family = family(&before, name);
        assert!(family.lines().skip(2).all(|line| line.ends_with(" 0")), "{family}");
    }
    assert_eq!(family(&before, "ready_backends").lines().count(), 4);

    // One packet makes one sample, and so on.
    touch(&metrics);
    let after = text(&metrics);
    for (name, samples) in [
        ("dial_failure_count", "{reason=\"no_agent\"} 1\n"),
        (
            "full_receive_channels",
            "{service_method=\"Connect\"} 0\nkonnectivity_network_proxy_server_full_receive_channels\
             {service_method=\"Proxy\"} 0\n",
        ),
        (
            "grpc_connections",
            "{service_method=\"Connect\"} 0\nkonnectivity_network_proxy_server_grpc_connections\
             {service_method=\"Proxy\"} 0\n",
        ),
        ("stream_errors_total", "{code=\"Canceled\",packet_type=\"Unknown\",segment=\"from_client\"} 1\n"),
        ("lease_list_total", "{http_status_code=\"500\",reason=\"InternalError\"} 1\n"),
    ] {
        let lines: String = family(&after, name).lines().skip(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(lines, format!("{PREFIX}{name}{samples}"));
    }
    let packets = family(&after, "stream_packets_total");
    assert_eq!(packets.lines().count(), 4, "{packets}");
    for one in [
        "{packet_type=\"DIAL_REQ\",segment=\"from_client\"} 1\n",
        "{packet_type=\"DIAL_RSP\",segment=\"to_client\"} 1\n",
    ] {
        assert!(packets.contains(one), "{packets}");
    }
}

fn text(metrics: &Metrics) -> String {
    metrics.render([(Strategy::Default, 2)], ListenerErrors::default(), &QuicSnapshot::default()).unwrap()
}

/// The family as the reference's tests compare it.
fn family(text: &str, name: &str) -> String {
    document::family(text, &format!("{PREFIX}{name}"))
}

/// What a family with one sample looks like.
fn expected(name: &str, kind: &str, help: &str, sample: &str) -> String {
    format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name}{sample}\n")
}

#[test]
fn families_that_the_references_tests_compare_are_equal_byte_for_byte() {
    let metrics = Metrics::new();
    metrics.dial_failed(DialFailure::NoAgent);
    let _guards = (metrics.pending_dial(), metrics.established_connection(), metrics.grpc_connection());
    metrics.packet_received(PacketType::CloseReq);
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
        (
            "grpc_connections",
            "gauge",
            "Number of current grpc connections, partitioned by service method.",
            "{service_method=\"Proxy\"} 1",
        ),
        (
            "stream_packets_total",
            "counter",
            "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
            "{packet_type=\"CLOSE_REQ\",segment=\"from_client\"} 1",
        ),
    ] {
        assert_eq!(family(&text, name), expected(name, kind, help, sample));
    }
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
fn strategies_in_use_are_shown_and_the_deprecated_gauge_follows_the_last_with_an_agent() {
    let metrics = Metrics::new();
    let ready = [(Strategy::DestHost, 1), (Strategy::Default, 4)];
    let listeners = ListenerErrors { accept: 3, handshake: 2, agent_accept: 5, agent_handshake: 4 };
    let text = metrics.render(ready, listeners, &QuicSnapshot::default()).unwrap();
    assert!(family(&text, "ready_backend_connections").ends_with(" 4\n"));
    let both = family(&text, "ready_backends");
    assert!(both.contains("=\"default\"} 4\n") && both.contains("=\"destHost\"} 1\n"), "{both}");
    assert_eq!(both.lines().count(), 4);
    for (default, hosts, shown) in [(3, 0, 3), (3, 2, 2), (0, 0, 0)] {
        let ready = [(Strategy::Default, default), (Strategy::DestHost, hosts)];
        let text = metrics.render(ready, ListenerErrors::default(), &QuicSnapshot::default()).unwrap();
        assert!(family(&text, "ready_backend_connections").ends_with(&format!(" {shown}\n")));
    }
    assert!(family(&text, "frontend_accept_errors_total").ends_with("_total 3\n"));
    assert!(family(&text, "frontend_handshake_errors_total").ends_with("_total 2\n"));
    assert!(family(&text, "agent_accept_errors_total").ends_with("_total 5\n"));
    assert!(family(&text, "agent_handshake_errors_total").ends_with("_total 4\n"));
}

#[test]
fn histograms_have_the_references_buckets() {
    let metrics = Metrics::new();
    touch(&metrics);
    let text = text(&metrics);
    let bounds = |name| -> Vec<String> {
        let family = family(&text, name);
        family.lines().filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
    };
    for name in ["dial_duration_seconds_bucket", "frontend_write_duration_seconds_bucket"] {
        assert_eq!(
            bounds(name),
            ["1e-06", "1e-05", "0.0001", "0.005", "0.025", "0.1", "0.5", "2.5", "12.5", "+Inf"],
            "{name}"
        );
    }
    let latencies = family(&text, "lease_list_latency_seconds_bucket");
    let latencies: Vec<_> =
        latencies.lines().filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(latencies, ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]);
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
    let of_calls = (metrics.grpc_connection(), metrics.channel_full());
    let during = text(&metrics);
    drop((guards, of_calls));
    let after = text(&metrics);
    for name in [
        "http_connections",
        "pending_backend_dials",
        "established_connections",
        "grpc_connections",
        "full_receive_channels",
    ] {
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
