//! What is measured on each link and subject, and the figures that come of it.

use serde::Serialize;

use crate::load::bulk::Direction;

/// Something that is measured with freshly started programs on a fresh link.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name in options and JSON.
    pub key: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// What is done.
    pub kind: Kind,
    /// On whom, and how often.
    pub on: On,
}

/// What is done in a [`Case`].
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Echo, and dial and echo, with nothing beside them; then objects are fetched.
    Alone,
    /// Bytes one way on so many dials.
    Bulk(Direction, usize),
    /// The same, and beside them echo, and dial and echo.
    Beside(Direction, usize),
}

/// Who does a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Everyone, with each seed.
    All,
    /// Only this project's programs, with the first seed.
    OursOnce,
}

const fn case(key: &'static str, title: &'static str, kind: Kind, on: On) -> Case {
    Case { key, title, kind, on }
}

use Direction::{ToClient, ToTarget};

/// Every case, in the order of the report.
pub const CASES: &[Case] = &[
    case("alone", "nothing else", Kind::Alone, On::All),
    case("bulk/to-client/1", "bulk to the client, 1 dial", Kind::Bulk(ToClient, 1), On::All),
    case("bulk/to-target/1", "bulk to the target, 1 dial", Kind::Bulk(ToTarget, 1), On::All),
    case("beside/to-client/4", "beside 4 bulk dials to the client", Kind::Beside(ToClient, 4), On::All),
    case("beside/to-target/4", "beside 4 bulk dials to the target", Kind::Beside(ToTarget, 4), On::All),
    case("beside/to-client/1", "beside 1 bulk dial to the client", Kind::Beside(ToClient, 1), On::OursOnce),
    case("beside/to-target/1", "beside 1 bulk dial to the target", Kind::Beside(ToTarget, 1), On::OursOnce),
    case("beside/to-client/64", "beside 64 bulk dials to the client", Kind::Beside(ToClient, 64), On::OursOnce),
    case("beside/to-target/64", "beside 64 bulk dials to the target", Kind::Beside(ToTarget, 64), On::OursOnce),
];

/// All keys, for messages.
pub fn keys() -> String {
    CASES.iter().map(|case| case.key).collect::<Vec<_>>().join(", ")
}

impl Case {
    /// The figures that it gives, in the order of the report.
    pub fn metrics(&self) -> &'static [Metric] {
        use Metric::{
            DialP50, DialP99, EchoP50, EchoP99, Failed, Fetch1m, Fetch10k, Goodput, PacketsPerNeeded, QueueLoss,
            QueueP50, QueueP99,
        };
        match self.kind {
            Kind::Alone => &[EchoP50, EchoP99, DialP50, DialP99, Fetch10k, Fetch1m, Failed],
            Kind::Bulk(..) => &[Goodput, PacketsPerNeeded, QueueP50, QueueP99, QueueLoss, Failed],
            Kind::Beside(..) => {
                &[Goodput, EchoP50, EchoP99, DialP50, DialP99, PacketsPerNeeded, QueueP50, QueueP99, QueueLoss, Failed]
            }
        }
    }
}

/// One figure of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "&'static str")]
pub enum Metric {
    /// Million bits of the dials' bytes a second.
    Goodput,
    /// Median echo in milliseconds.
    EchoP50,
    /// 99th percentile of echo in milliseconds.
    EchoP99,
    /// Median of dial and echo in milliseconds.
    DialP50,
    /// 99th percentile of dial and echo in milliseconds.
    DialP99,
    /// Median time to the last of 10,000 bytes on a fresh dial, in milliseconds.
    Fetch10k,
    /// Median time to the last of 1,000,000 bytes on a fresh dial, in milliseconds.
    Fetch1m,
    /// IP packets that entered the link in the bulk's direction, for each full one that its bytes need.
    PacketsPerNeeded,
    /// Median wait of packets before the bottleneck in the bulk's direction, in milliseconds.
    QueueP50,
    /// 99th percentile of the same.
    QueueP99,
    /// Packets dropped by a full queue in the bulk's direction, per cent of those that entered the link.
    QueueLoss,
    /// Echoes, dials and fetches that failed or never ended, and dials of the bulk that ended.
    Failed,
}

impl From<Metric> for &'static str {
    fn from(metric: Metric) -> Self {
        metric.key()
    }
}

impl Metric {
    /// Its name in JSON, with the unit.
    pub fn key(self) -> &'static str {
        match self {
            Self::Goodput => "goodput_megabits_per_second",
            Self::EchoP50 => "echo_p50_ms",
            Self::EchoP99 => "echo_p99_ms",
            Self::DialP50 => "dial_echo_p50_ms",
            Self::DialP99 => "dial_echo_p99_ms",
            Self::Fetch10k => "fetch_10_kb_p50_ms",
            Self::Fetch1m => "fetch_1_mb_p50_ms",
            Self::PacketsPerNeeded => "packets_per_packet_needed",
            Self::QueueP50 => "queue_delay_p50_ms",
            Self::QueueP99 => "queue_delay_p99_ms",
            Self::QueueLoss => "queue_loss_percent",
            Self::Failed => "failed",
        }
    }

    /// Its name in tables, with the unit.
    pub fn title(self) -> &'static str {
        match self {
            Self::Goodput => "goodput, Mbit/s",
            Self::EchoP50 => "echo p50, ms",
            Self::EchoP99 => "echo p99, ms",
            Self::DialP50 => "dial + echo p50, ms",
            Self::DialP99 => "dial + echo p99, ms",
            Self::Fetch10k => "fetch 10 kB p50, ms",
            Self::Fetch1m => "fetch 1 MB p50, ms",
            Self::PacketsPerNeeded => "packets per packet needed",
            Self::QueueP50 => "queue delay p50, ms",
            Self::QueueP99 => "queue delay p99, ms",
            Self::QueueLoss => "dropped by the queue, %",
            Self::Failed => "failed",
        }
    }

    /// The figure as people read it; infinite means that it never came.
    pub fn show(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "never".to_owned(),
            Self::Goodput | Self::QueueP50 | Self::QueueP99 if value < 1000.0 => format!("{value:.1}"),
            Self::EchoP50 | Self::DialP50 | Self::Fetch10k if value < 1000.0 => format!("{value:.1}"),
            Self::PacketsPerNeeded | Self::QueueLoss => format!("{value:.2}"),
            _ => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_distinct_and_figures_readable() {
        assert_eq!(CASES.iter().map(|case| case.key).collect::<BTreeSet<_>>().len(), CASES.len());
        for (metric, value, text) in [
            (Metric::Goodput, 95.94, "95.9"),
            (Metric::EchoP99, 159.6, "160"),
            (Metric::EchoP50, 50.34, "50.3"),
            (Metric::EchoP50, f64::INFINITY, "never"),
            (Metric::PacketsPerNeeded, 1.031, "1.03"),
            (Metric::Failed, 0.0, "0"),
        ] {
            assert_eq!(metric.show(value), text);
        }
    }
}
