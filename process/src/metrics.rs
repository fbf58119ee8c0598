//! What the metrics of both binaries have in common: one registry of their own, the totals of ended dials, and the
//! state of each QUIC connection, which is copied at the time of a scrape instead of being kept up to date.

use std::{sync::LazyLock, time::Duration};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
    proto::MetricFamily,
};

mod certificates;
#[cfg(any(test, feature = "testing"))]
pub mod document;
mod quic;

pub use self::{certificates::CertificateMetrics, quic::QuicSnapshot};

/// A series that is not shown before its first use: the reference keeps even metrics without labels in vectors, and its
/// tests compare whole families. It is looked up once only.
pub type Series<M> = LazyLock<M, Box<dyn FnOnce() -> M + Send>>;

/// The series of `family` that has these values of its labels.
pub fn series<B, const N: usize>(family: &MetricVec<B>, values: [&'static str; N]) -> Series<B::M>
where
    B: MetricVecBuilder + 'static,
{
    let family = family.clone();
    LazyLock::new(Box::new(move || family.with_label_values(&values)))
}

/// The `Content-Type` of [`Registry::encode`], as the reference writes it: Prometheus' text format, and no names beyond
/// letters, digits, underscores and colons.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

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

    /// A counter, 0 from the start.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(self.options(name, help)))
    }

    /// A gauge for each combination of values of `labels`. What was never set has no sample.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.options(name, help), labels))
    }

    /// A counter for each combination of values of `labels`. What was never counted has no sample.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.options(name, help), labels))
    }

    /// A histogram with these upper bounds for each combination of values of `labels`. What was never observed has no
    /// sample.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::from(self.options(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels))
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
            &["direction"],
        );
        Self {
            dials: registry.counters("dials_total", "Ended dials, by outcome.", &["outcome"]),
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
