//! Certificates that are read from files: until when they are good, and what became of changes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use prometheus::{IntCounterVec, IntGaugeVec};

use super::{Registry, gauge_value};

/// What is counted of files with certificates, by the setting that names them.
#[derive(Debug)]
pub struct CertificateMetrics {
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
    refused: IntGaugeVec,
    ends: Mutex<BTreeMap<&'static str, SystemTime>>,
}

impl CertificateMetrics {
    /// `certificate_expiry_seconds{setting}`, `certificate_reloads_total{setting,result}` and
    /// `certificate_files_refused{setting}`.
    pub fn new(registry: &Registry) -> Self {
        Self {
            expiry: registry.gauges(
                "certificate_expiry_seconds",
                "Seconds until the certificate in use expires, or the next of the authorities in use, by the setting \
                 that names the file; below 0 when it has.",
                &["setting"],
            ),
            reloads: registry.counters(
                "certificate_reloads_total",
                "Changes of certificate files on disk, by the setting that names the file and by result (used, refused).",
                &["setting", "result"],
            ),
            refused: registry.gauges(
                "certificate_files_refused",
                "Whether the files on disk cannot be used (1), so that what was read before stays in use, by the setting \
                 that names the file.",
                &["setting"],
            ),
            ends: Mutex::default(),
        }
    }

    /// They were read at the start.
    pub fn loaded(&self, setting: &'static str, expires: Option<SystemTime>) {
        for result in ["used", "refused"] {
            self.reloads.with_label_values(&[setting, result]).inc_by(0);
        }
        self.in_use(setting, expires);
    }

    /// They have changed, and are in use.
    pub fn used(&self, setting: &'static str, expires: Option<SystemTime>) {
        self.reloads.with_label_values(&[setting, "used"]).inc();
        self.in_use(setting, expires);
    }

    /// They have changed, and cannot be used.
    pub fn refused(&self, setting: &'static str) {
        self.reloads.with_label_values(&[setting, "refused"]).inc();
        self.refused.with_label_values(&[setting]).set(1);
    }

    /// They were refused, and are again what is in use.
    pub fn restored(&self, setting: &'static str) {
        self.refused.with_label_values(&[setting]).set(0);
    }

    /// To be called before a scrape: what is left decreases by itself.
    pub fn update(&self, now: SystemTime) {
        for (setting, end) in self.ends.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let left = match end.duration_since(now) {
                Ok(left) => gauge_value(left.as_secs()),
                Err(over) => -gauge_value(over.duration().as_secs()),
            };
            self.expiry.with_label_values(&[setting]).set(left);
        }
    }

    fn in_use(&self, setting: &'static str, expires: Option<SystemTime>) {
        self.refused.with_label_values(&[setting]).set(0);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match expires {
            Some(end) => drop(ends.insert(setting, end)),
            None => {
                ends.remove(setting);
                // It was not there, perhaps.
                let _ = self.expiry.remove_label_values(&[setting]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::QuicSnapshot;

    /// The samples of a scrape, without prefix and `certificate_`.
    fn samples(registry: &Registry) -> Vec<String> {
        let scrape = registry.encode(&QuicSnapshot::default(), &[]).unwrap();
        scrape.lines().filter_map(|line| line.strip_prefix("p_certificate_").map(str::to_owned)).collect()
    }

    #[test]
    fn what_is_left_runs_out_and_refusals_last_until_they_are_mended() {
        let registry = Registry::new("p_");
        let metrics = CertificateMetrics::new(&registry);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        metrics.loaded("ca-cert", Some(now + Duration::from_secs(60)));
        metrics.update(now);
        let fresh = [
            "expiry_seconds{setting=\"ca-cert\"} 60",
            "files_refused{setting=\"ca-cert\"} 0",
            "reloads_total{result=\"refused\",setting=\"ca-cert\"} 0",
            "reloads_total{result=\"used\",setting=\"ca-cert\"} 0",
        ];
        assert_eq!(samples(&registry), fresh);

        metrics.refused("ca-cert");
        metrics.update(now + Duration::from_secs(70));
        assert_eq!(
            samples(&registry)[..3],
            [
                "expiry_seconds{setting=\"ca-cert\"} -10",
                "files_refused{setting=\"ca-cert\"} 1",
                "reloads_total{result=\"refused\",setting=\"ca-cert\"} 1",
            ]
        );
        metrics.restored("ca-cert");
        assert_eq!(samples(&registry)[1], fresh[1]);
        metrics.refused("ca-cert");
        metrics.used("ca-cert", None);
        metrics.update(now);
        assert_eq!(
            samples(&registry),
            [
                "files_refused{setting=\"ca-cert\"} 0",
                "reloads_total{result=\"refused\",setting=\"ca-cert\"} 2",
                "reloads_total{result=\"used\",setting=\"ca-cert\"} 1",
            ]
        );
    }
}
