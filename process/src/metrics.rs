//! What the metrics of both binaries have in common: one registry of their own, the totals of ended dials, and the
//! state of each QUIC connection, which is copied at the time of a scrape instead of being kept up to date.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder, core::Collector,
    proto::MetricFamily,
};

mod quic;

pub use self::quic::QuicSnapshot;

/// The `Content-Type` of [`Registry::encode`]: Prometheus' text format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The metrics of one process. Not the library's global registry, so that tests can have several.
#[derive(Debug)]
pub struct Registry {
    registry: prometheus::Registry,
    prefix: &'static str,
}

impl Registry {
    /// Every name made with this registry begins with `prefix`. `process_*` (CPU, memory, file descriptors, start
    /// time) are there from the start.
    pub fn new(prefix: &'static str) -> Self {
        let registry = prometheus::Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("an empty registry takes the process collector");
        Self { registry, prefix }
    }

    /// A gauge, 0 from the start.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.options(name, help)))
    }

    /// A gauge for each value of `label`. A value that was never set has no sample.
    pub fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.options(name, help), &[label]))
    }

    /// A counter for each value of `label`. A value that was never counted has no sample: the reference's tests compare
    /// whole families.
    pub fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(self.options(name, help), &[label]))
    }

    /// A histogram with these upper bounds.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::from(self.options(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options))
    }

    /// Everything in Prometheus' text format 0.0.4, together with values that are kept elsewhere: the connections of
    /// `quic`, and `counters`.
    ///
    /// # Errors
    /// When a family is not fit to print, which a test of its owner would show.
    pub fn encode(&self, quic: &QuicSnapshot<'_>, counters: &[KeptCounter]) -> prometheus::Result<String> {
        let mut text = as_go_prints_buckets(&encode(&self.registry.gather())?);
        for counter in counters {
            let copy = IntCounter::with_opts(self.options(counter.name, counter.help))?;
            copy.inc_by(counter.value);
            text.push_str(&encode(&copy.collect())?);
        }
        text.push_str(&encode(&quic.families(self.prefix))?);
        Ok(text)
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("{}{name}", self.prefix), help)
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("names and labels are constants of the owner's metrics.rs");
        self.registry.register(Box::new(metric.clone())).expect("each name is used once in the owner's metrics.rs");
        metric
    }
}

fn encode(families: &[MetricFamily]) -> prometheus::Result<String> {
    TextEncoder::new().encode_to_string(families)
}

/// Go writes bounds below 0.0001 with an exponent. A bound's text is part of the identity of its series, so dashboards
/// that add up servers of both makes would see two sets of buckets.
fn as_go_prints_buckets(text: &str) -> String {
    text.replace("le=\"0.000001\"", "le=\"1e-06\"").replace("le=\"0.00001\"", "le=\"1e-05\"")
}

/// A counter that somebody else keeps, as it is at the moment of a scrape.
#[derive(Debug, Clone, Copy)]
pub struct KeptCounter {
    /// Its name, without prefix.
    pub name: &'static str,
    /// Its help text.
    pub help: &'static str,
    /// So many since the process began.
    pub value: u64,
}

/// How dials ended, and what they carried. Both ends count every dial they heard of.
#[derive(Debug)]
pub struct DialTotals {
    dials: IntCounterVec,
    bytes_to_target: IntCounter,
    bytes_to_client: IntCounter,
}

impl DialTotals {
    /// `dials_total{outcome}` and `dial_bytes_total{direction}`.
    pub fn new(registry: &Registry) -> Self {
        let bytes = registry.counters(
            "dial_bytes_total",
            "Bytes carried by ended dials, by direction (to_target, to_client).",
            "direction",
        );
        Self {
            dials: registry.counters("dials_total", "Ended dials, by outcome.", "outcome"),
            // No test of the reference knows this family, so its two samples may be there from the start.
            bytes_to_target: bytes.with_label_values(&["to_target"]),
            bytes_to_client: bytes.with_label_values(&["to_client"]),
        }
    }

    /// Counts one ended dial, whether or not it ever reached its target.
    pub fn ended(&self, outcome: &'static str, bytes_to_target: u64, bytes_to_client: u64) {
        self.dials.with_label_values(&[outcome]).inc();
        self.bytes_to_target.inc_by(bytes_to_target);
        self.bytes_to_client.inc_by(bytes_to_client);
    }
}

/// Something that a gauge counts as long as it exists, so that the gauge cannot drift.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    /// Adds one to `gauge` until it is dropped.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A count as a gauge holds it.
pub fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Seconds, as histograms hold durations.
pub fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

#[cfg(test)]
mod tests;
