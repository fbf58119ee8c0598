//! Server leases, as the agent asks the Kubernetes API for them to know how many servers there are.

use std::time::Duration;

use konnectivity_process::metrics::{Registry, observe};
use prometheus::{HistogramVec, IntCounterVec};

use super::BUCKETS;

/// What is counted of leases. Labels are the API's HTTP status and its reason, which is empty after success.
#[derive(Debug)]
pub struct LeaseMetrics {
    lists: IntCounterVec,
    watches: IntCounterVec,
    list_latency: HistogramVec,
}

impl LeaseMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let calls = |name, help| registry.counters(name, help, &["http_response_code", "reason"]);
        Self {
            lists: calls(
                "lease_lists_total",
                "Count of server lease list calls made by the agent to the k8s apiserver, \
                 labeled by HTTP response code and reason",
            ),
            watches: calls(
                "lease_watches_total",
                "Count of server lease watch calls made by the agent to the k8s apiserver, \
                 labeled by HTTP response code and reason",
            ),
            list_latency: registry.histograms(
                "lease_list_latency_seconds",
                "Latency of server lease listing in seconds",
                &["http_response_code"],
                &BUCKETS,
            ),
        }
    }
}

impl LeaseMetrics {
    /// The API was asked for all leases.
    pub fn listed(&self, status: u16, reason: &str, took: Duration) {
        let status = status.to_string();
        self.lists.with_label_values(&[status.as_str(), reason]).inc();
        observe(&self.list_latency.with_label_values(&[status.as_str()]), took);
    }

    /// The API was asked to tell of changes. The reference counts these as lists by mistake.
    pub fn watched(&self, status: u16, reason: &str) {
        self.watches.with_label_values(&[status.to_string().as_str(), reason]).inc();
    }
}
