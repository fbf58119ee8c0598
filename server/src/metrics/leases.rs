//! Server leases: what is written, listed and deleted of them at the Kubernetes API, and which servers are known by them.

use std::time::Duration;

use konnectivity_process::metrics::{Registry, gauge_value, observe};
use prometheus::{DEFAULT_BUCKETS, HistogramVec, IntCounter, IntCounterVec, IntGauge};

/// What is counted of leases. Labels are the API's HTTP status and its reason, which is empty after success.
#[derive(Debug)]
pub struct LeaseMetrics {
    culled: IntCounter,
    delete_latency: HistogramVec,
    deletes: IntCounterVec,
    list_latency: HistogramVec,
    lists: IntCounterVec,
    listed_servers: IntGauge,
    renewals: IntCounterVec,
}

impl LeaseMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let latency = |name, help| registry.histograms(name, help, &["http_status_code"], DEFAULT_BUCKETS);
        let calls = |name, help| registry.counters(name, help, &["http_status_code", "reason"]);
        Self {
            culled: registry.counter(
                "culled_leases_count",
                "Count of expired leases that the lease garbage collection controller has culled.",
            ),
            delete_latency: latency(
                "lease_delete_latency_seconds",
                "Latency of lease deletion calls by the garbage collection controller in seconds.",
            ),
            // The slips of the pen in these two texts are the reference's.
            deletes: calls(
                "lease_delete_total",
                "Count of lease delection calls by the garbage collection controller. \
                 Labeled by HTTP status code and reason.",
            ),
            list_latency: latency(
                "lease_list_latency_seconds",
                "Latency of lease list calls by the garbage collection controller in seconds.",
            ),
            lists: calls(
                "lease_list_total",
                "Count of lease deletion calls by the garbage collection controller. \
                 Labeled by HTTP status code and reason.",
            ),
            listed_servers: registry.gauge(
                "listed_servers",
                "Servers that agents over QUIC are told of by name, this one among them; 0 when only their number is known.",
            ),
            renewals: calls(
                "lease_renewals_total",
                "Tries to write this server's own lease, by HTTP status code (0 without an answer) and reason.",
            ),
        }
    }
}

impl LeaseMetrics {
    /// An expired lease is gone.
    pub fn culled(&self) {
        self.culled.inc();
    }

    /// So many servers are known by name. To be called before a scrape.
    pub fn listed_servers(&self, servers: usize) {
        self.listed_servers.set(gauge_value(servers as u64));
    }

    /// The API was asked to delete a lease.
    pub fn deleted(&self, status: u16, reason: &str, took: Duration) {
        called(&self.deletes, &self.delete_latency, status, reason, took);
    }

    /// The API was asked to write this server's own lease.
    pub fn renewed(&self, status: u16, reason: &str) {
        self.renewals.with_label_values(&[status.to_string().as_str(), reason]).inc();
    }

    /// The API was asked for all leases.
    pub fn listed(&self, status: u16, reason: &str, took: Duration) {
        called(&self.lists, &self.list_latency, status, reason, took);
    }
}

fn called(calls: &IntCounterVec, latency: &HistogramVec, status: u16, reason: &str, took: Duration) {
    let status = status.to_string();
    calls.with_label_values(&[status.as_str(), reason]).inc();
    observe(&latency.with_label_values(&[status.as_str()]), took);
}
