//! Gauges and counters of each QUIC connection, made from plain values when somebody asks.

use konnectivity_transport::connection::ConnectionStats;
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, core::Collector, proto::MetricFamily};

use super::gauge_value;

/// All QUIC connections of a process at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub struct QuicSnapshot<'a> {
    /// Names of the labels that tell connections apart, for instance `server_id`.
    pub label_names: &'a [&'a str],
    /// For each connection its labels' values, as many as there are names, and its state.
    pub connections: Vec<(Vec<String>, ConnectionStats)>,
    /// Bytes by which all connections together may raise their receive windows.
    pub memory_budget: u64,
    /// How many of them are in use.
    pub memory_used: u64,
}

/// Name, help text and value of a metric of each connection.
type Metric = (&'static str, &'static str, fn(&ConnectionStats) -> u64);

const GAUGES: [Metric; 4] = [
    ("quic_congestion_window_bytes", "Bytes that may be in flight on the QUIC connection.", |stats| {
        stats.congestion_window_bytes
    }),
    ("quic_mtu_bytes", "Largest UDP payload that the QUIC connection's path is known to take.", |stats| {
        stats.mtu_bytes
    }),
    ("quic_open_dials", "Dials open on the QUIC connection.", |stats| stats.open_dials as u64),
    (
        "quic_stalled_dials",
        "Dials of the QUIC connection whose receiver at this end takes no bytes just now.",
        |stats| stats.stalled_dials,
    ),
];

const COUNTERS: [Metric; 4] = [
    ("quic_lost_packets_total", "Packets of the QUIC connection that were declared lost.", |stats| stats.lost_packets),
    ("quic_sent_packets_total", "Packets sent on the QUIC connection.", |stats| stats.sent_packets),
    ("quic_sent_bytes_total", "UDP payload bytes sent on the QUIC connection.", |stats| stats.sent_bytes),
    ("quic_received_bytes_total", "UDP payload bytes received on the QUIC connection.", |stats| stats.received_bytes),
];

impl QuicSnapshot<'_> {
    pub(super) fn families(&self, prefix: &str) -> Vec<MetricFamily> {
        let mut families = self.rtt(prefix);
        for metric in &GAUGES {
            families.extend(self.gauges(prefix, metric));
        }
        for metric in &COUNTERS {
            families.extend(self.counters(prefix, metric));
        }
        // The encoder refuses a family without samples, and there is no connection at first.
        families.retain(|family| !family.get_metric().is_empty());
        families.extend(self.memory(prefix));
        families
    }

    fn rtt(&self, prefix: &str) -> Vec<MetricFamily> {
        let options = options(prefix, "quic_rtt_seconds", "Smoothed round-trip time of the QUIC connection.");
        let gauges = GaugeVec::new(options, self.label_names).expect("a constant name");
        self.for_each(|labels, stats| {
            if let Ok(gauge) = gauges.get_metric_with_label_values(labels) {
                gauge.set(stats.rtt.as_secs_f64());
            }
        });
        gauges.collect()
    }

    fn gauges(&self, prefix: &str, (name, help, value): &Metric) -> Vec<MetricFamily> {
        let gauges = IntGaugeVec::new(options(prefix, name, help), self.label_names).expect("a constant name");
        self.for_each(|labels, stats| {
            if let Ok(gauge) = gauges.get_metric_with_label_values(labels) {
                gauge.set(gauge_value(value(stats)));
            }
        });
        gauges.collect()
    }

    fn counters(&self, prefix: &str, (name, help, value): &Metric) -> Vec<MetricFamily> {
        let counters = IntCounterVec::new(options(prefix, name, help), self.label_names).expect("a constant name");
        self.for_each(|labels, stats| {
            if let Ok(counter) = counters.get_metric_with_label_values(labels) {
                counter.inc_by(value(stats));
            }
        });
        counters.collect()
    }

    fn memory(&self, prefix: &str) -> Vec<MetricFamily> {
        let gauge = |name, help, value| {
            let gauge = IntGauge::with_opts(options(prefix, name, help)).expect("a constant name");
            gauge.set(gauge_value(value));
            gauge.collect()
        };
        let mut families = gauge(
            "quic_memory_budget_bytes",
            "Bytes by which all QUIC connections together may raise their receive windows.",
            self.memory_budget,
        );
        families.extend(gauge("quic_memory_budget_used_bytes", "Bytes of the memory budget in use.", self.memory_used));
        families
    }

    fn for_each(&self, mut each: impl FnMut(&[&str], &ConnectionStats)) {
        for (labels, stats) in &self.connections {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            each(&labels, stats);
        }
    }
}

fn options(prefix: &str, name: &str, help: &str) -> Opts {
    Opts::new(format!("{prefix}{name}"), help)
}
