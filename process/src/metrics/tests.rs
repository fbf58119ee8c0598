use std::net::{Ipv4Addr, SocketAddr};

use konnectivity_transport::connection::ConnectionStats;

use super::*;

const PREFIX: &str = "test_";

/// The lines of one family.
fn family<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| {
            let name_of_line = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            name_of_line.split([' ', '{']).next() == Some(name)
        })
        .collect()
}

fn nothing() -> QuicSnapshot<'static> {
    QuicSnapshot { label_names: &["server_id"], ..QuicSnapshot::default() }
}

#[test]
fn each_kind_is_printed_in_text_format() {
    let registry = Registry::new(PREFIX);
    registry.gauge("open", "Open things.").set(-2);
    registry.gauges("ready", "Ready things.", &["kind"]).with_label_values(&["a\"b\\c\n"]).set(1);
    registry.counters("failed_total", "Failed things.", &["reason"]);
    let waits = registry.histograms("wait_seconds", "Waits.", &[], &[1e-6, 1e-5, 1e-4, 0.025, 12.5]);
    observe(&series(&waits, []), Duration::from_micros(5));
    let text = registry.encode(&nothing(), &[]).unwrap();

    assert_eq!(family(&text, "test_open"), ["# HELP test_open Open things.", "# TYPE test_open gauge", "test_open -2"]);
    assert_eq!(family(&text, "test_ready")[2..], [r#"test_ready{kind="a\"b\\c\n"} 1"#]);
    assert!(family(&text, "test_failed_total").is_empty(), "no sample, no family");
    assert_eq!(
        family(&text, "test_wait_seconds_bucket"),
        [
            r#"test_wait_seconds_bucket{le="1e-06"} 0"#,
            r#"test_wait_seconds_bucket{le="1e-05"} 1"#,
            r#"test_wait_seconds_bucket{le="0.0001"} 1"#,
            r#"test_wait_seconds_bucket{le="0.025"} 1"#,
            r#"test_wait_seconds_bucket{le="12.5"} 1"#,
            r#"test_wait_seconds_bucket{le="+Inf"} 1"#,
        ]
    );
    assert_eq!(family(&text, "test_wait_seconds_count"), ["test_wait_seconds_count 1"]);
    assert!(text.ends_with('\n'));
}

#[test]
fn a_series_is_shown_from_its_first_use() {
    let registry = Registry::new(PREFIX);
    let open = series(&registry.gauges("open", "Open things.", &[]), []);
    let sent = series(&registry.counters("sent_total", "Sent things.", &["segment", "kind"]), ["a", "b"]);
    let text = registry.encode(&nothing(), &[]).unwrap();
    assert!(family(&text, "test_open").is_empty() && family(&text, "test_sent_total").is_empty(), "{text}");

    drop(Counted::new(&open));
    sent.inc();
    let text = registry.encode(&nothing(), &[]).unwrap();
    assert_eq!(family(&text, "test_open")[2..], ["test_open 0"]);
    assert_eq!(family(&text, "test_sent_total")[2..], [r#"test_sent_total{kind="b",segment="a"} 1"#]);
}

#[test]
fn counters_that_are_kept_elsewhere_are_counters_too() {
    let refused = KeptCounter { name: "refused_total", help: "Refused things.", value: 4 };
    let text = Registry::new(PREFIX).encode(&nothing(), &[refused]).unwrap();
    assert_eq!(
        family(&text, "test_refused_total"),
        ["# HELP test_refused_total Refused things.", "# TYPE test_refused_total counter", "test_refused_total 4"]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_measured_without_prefix() {
    let text = Registry::new(PREFIX).encode(&nothing(), &[]).unwrap();
    for name in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert_eq!(family(&text, name).len(), 3, "{name}");
    }
}

#[test]
fn connections_are_printed_as_they_are_at_the_scrape() {
    let registry = Registry::new(PREFIX);
    let stats = ConnectionStats {
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 8091)),
        rtt: Duration::from_micros(12_500),
        congestion_window_bytes: 120_000,
        mtu_bytes: 1_452,
        lost_packets: 3,
        sent_packets: 400,
        sent_bytes: u64::MAX,
        received_bytes: 60_000,
        open_dials: 7,
        stalled_dials: 2,
        unacknowledged_bytes: 0,
        age: Duration::from_secs(60),
    };
    let snapshot = QuicSnapshot {
        label_names: &["agent_id", "connection"],
        connections: vec![
            (vec!["node-1".to_owned(), "4".to_owned()], stats.clone()),
            // A caller's mistake costs its own line only.
            (vec!["node-2".to_owned()], stats),
        ],
        memory_budget: u64::MAX,
        memory_used: 1_024,
    };
    let text = registry.encode(&snapshot, &[]).unwrap();
    let sample = |name: &str| family(&text, name)[2..].join("\n");
    for (name, value) in [
        ("test_quic_rtt_seconds", "0.0125"),
        ("test_quic_congestion_window_bytes", "120000"),
        ("test_quic_mtu_bytes", "1452"),
        ("test_quic_open_dials", "7"),
        ("test_quic_stalled_dials", "2"),
        ("test_quic_lost_packets_total", "3"),
        ("test_quic_sent_packets_total", "400"),
        ("test_quic_received_bytes_total", "60000"),
    ] {
        assert_eq!(sample(name), format!(r#"{name}{{agent_id="node-1",connection="4"}} {value}"#));
    }
    let memory = sample("test_quic_memory_budget_bytes");
    assert!(memory.starts_with("test_quic_memory_budget_bytes 922337203685477"), "{memory}");
    assert_eq!(sample("test_quic_memory_budget_used_bytes"), "test_quic_memory_budget_used_bytes 1024");

    // Nothing of it stays.
    let text = registry.encode(&nothing(), &[]).unwrap();
    assert!(family(&text, "test_quic_rtt_seconds").is_empty());
    assert_eq!(family(&text, "test_quic_memory_budget_bytes").len(), 3);
}

#[test]
fn dials_are_counted_when_they_end() {
    let registry = Registry::new(PREFIX);
    let totals = DialTotals::new(&registry);
    totals.ended("finished", 10, 2_000);
    totals.ended("finished", 0, 1);
    totals.ended("refused", 0, 0);
    let text = registry.encode(&nothing(), &[]).unwrap();
    assert_eq!(
        family(&text, "test_dials_total")[2..],
        [r#"test_dials_total{outcome="finished"} 2"#, r#"test_dials_total{outcome="refused"} 1"#]
    );
    assert_eq!(
        family(&text, "test_dial_bytes_total")[2..],
        [r#"test_dial_bytes_total{direction="to_client"} 2001"#, r#"test_dial_bytes_total{direction="to_target"} 10"#]
    );
}

#[test]
fn what_is_counted_leaves_the_gauge_when_it_is_dropped() {
    let gauge = Registry::new(PREFIX).gauge("open", "Open things.");
    let one = Counted::new(&gauge);
    let two = Counted::new(&gauge);
    assert_eq!(gauge.get(), 2);
    drop((one, two));
    assert_eq!(gauge.get(), 0);
}
