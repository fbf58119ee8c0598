//! What is measured, and the figures that come of it.

use super::results::Subject;
use crate::load::bulk::Direction;

/// One thing that is measured on each subject.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name in options and JSON, `WORK/...`.
    pub key: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// What is done.
    pub kind: Kind,
}

/// What is done in a [`Case`].
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Bytes one way on so many dials.
    Bulk(Direction, usize),
    /// Ping-pong on so many dials.
    Echo(usize),
    /// Dial, echo, close; so many in parallel.
    Churn(usize),
    /// So many dials that have echoed once and are idle.
    Idle(usize),
    /// Ping-pong on four dials, in turn alone and beside so many whose receiver does not read.
    Stalled(Direction, usize),
}

const fn case(key: &'static str, title: &'static str, kind: Kind) -> Case {
    Case { key, title, kind }
}

/// Every case, in the order of the report.
pub const CASES: &[Case] = &[
    case("bulk/to-client/1", "bulk to the client, 1 dial", Kind::Bulk(Direction::ToClient, 1)),
    case("bulk/to-client/8", "bulk to the client, 8 dials", Kind::Bulk(Direction::ToClient, 8)),
    case("bulk/to-target/1", "bulk to the target, 1 dial", Kind::Bulk(Direction::ToTarget, 1)),
    case("bulk/to-target/8", "bulk to the target, 8 dials", Kind::Bulk(Direction::ToTarget, 8)),
    case("echo/1", "64-byte echo, 1 dial", Kind::Echo(1)),
    case("echo/64", "64-byte echo, 64 dials", Kind::Echo(64)),
    case("dial/1", "dial + echo + close, one at a time", Kind::Churn(1)),
    case("dial/8", "dial + echo + close, 8 in parallel", Kind::Churn(8)),
    case("idle/1000", "memory per idle dial, 1,000 dials", Kind::Idle(1_000)),
    case("idle/10000", "memory per idle dial, 10,000 dials", Kind::Idle(10_000)),
    case("stall/readers/1", "echo on 4 dials beside 1 stalled reader", Kind::Stalled(Direction::ToClient, 1)),
    case("stall/readers/64", "echo on 4 dials beside 64 stalled readers", Kind::Stalled(Direction::ToClient, 64)),
    case("stall/targets/64", "echo on 4 dials beside 64 stalled targets", Kind::Stalled(Direction::ToTarget, 64)),
];

/// All keys, for messages.
pub fn keys() -> String {
    CASES.iter().map(|case| case.key).collect::<Vec<_>>().join(", ")
}

impl Case {
    /// Whether it means anything for a subject: an idle dial without a tunnel holds nothing, and pairs of two makes are
    /// measured by what they carry.
    pub fn has(&self, subject: Subject) -> bool {
        match (subject, self.kind) {
            (Subject::Direct, kind) => !matches!(kind, Kind::Idle(_)),
            (Subject::GoAgent | Subject::GoServer, kind) => {
                matches!(kind, Kind::Bulk(_, 1) | Kind::Echo(_) | Kind::Churn(8))
            }
            _ => true,
        }
    }

    /// How many rounds it needs on a subject, of so many. Memory hardly varies, and no goal depends on many dials in bulk.
    /// The p99 beside stalled dials varies most, from start to start; beside them the reference's echoes never come back.
    pub fn rounds(&self, of: usize, subject: Subject) -> usize {
        match self.kind {
            Kind::Bulk(_, 1) | Kind::Echo(_) | Kind::Churn(_) => of,
            Kind::Bulk(..) => of.min(3),
            Kind::Idle(_) => of.min(2),
            Kind::Stalled(..) if subject == Subject::Go => 1,
            Kind::Stalled(_, 64) if subject != Subject::Direct => 2 * of - 1,
            Kind::Stalled(..) => of.min(3),
        }
    }

    /// Whether the load's own CPU time is measured.
    pub fn has_load(&self) -> bool {
        matches!(self.kind, Kind::Bulk(..) | Kind::Echo(_) | Kind::Churn(_))
    }

    /// The figures that it gives, in the order of the report; those of the load itself are [`LOAD`].
    pub fn metrics(&self) -> &'static [Metric] {
        match self.kind {
            Kind::Bulk(..) => &[Metric::MegabytesPerSecond, Metric::CpuPerGigabyte],
            Kind::Echo(_) | Kind::Churn(_) => &[Metric::PerSecond, Metric::P50, Metric::P99, Metric::CpuEach],
            Kind::Idle(_) => &[Metric::ServerBytes, Metric::AgentBytes],
            Kind::Stalled(..) => &[Metric::PerSecond, Metric::P99Alone, Metric::P99, Metric::TimesAlone, Metric::Taken],
        }
    }
}

/// The figures of the load itself.
pub const LOAD: [Metric; 2] = [Metric::ClientsCpu, Metric::TargetsCpu];

/// One figure of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Million bytes per second.
    MegabytesPerSecond,
    /// CPU seconds of server and agent for 10^9 bytes.
    CpuPerGigabyte,
    /// How many per second.
    PerSecond,
    /// Median duration in microseconds.
    P50,
    /// 99th percentile in microseconds.
    P99,
    /// The 99th percentile with nothing stalled, in microseconds.
    P99Alone,
    /// How many times the one is the other.
    TimesAlone,
    /// CPU microseconds of server and agent for each.
    CpuEach,
    /// Resident bytes of the server for each dial.
    ServerBytes,
    /// Resident bytes of the agent for each dial.
    AgentBytes,
    /// Million bytes that the stalled dials took before they came to a halt.
    Taken,
    /// Per cent of a core that all clients took; they have one.
    ClientsCpu,
    /// Per cent of a core that all targets took; they have one.
    TargetsCpu,
}

impl Metric {
    /// Its name in JSON, with the unit.
    pub fn key(self) -> &'static str {
        match self {
            Self::MegabytesPerSecond => "megabytes_per_second",
            Self::CpuPerGigabyte => "cpu_seconds_per_gigabyte",
            Self::PerSecond => "per_second",
            Self::P50 => "p50_microseconds",
            Self::P99 => "p99_microseconds",
            Self::P99Alone => "p99_alone_microseconds",
            Self::TimesAlone => "p99_times_alone",
            Self::CpuEach => "cpu_microseconds_each",
            Self::ServerBytes => "server_bytes_per_dial",
            Self::AgentBytes => "agent_bytes_per_dial",
            Self::Taken => "megabytes_taken",
            Self::ClientsCpu => "clients_cpu_percent",
            Self::TargetsCpu => "targets_cpu_percent",
        }
    }

    /// Its name in tables, with the unit.
    pub fn title(self) -> &'static str {
        match self {
            Self::MegabytesPerSecond => "MB/s",
            Self::CpuPerGigabyte => "CPU s per GB, server + agent",
            Self::PerSecond => "per second",
            Self::P50 => "p50, µs",
            Self::P99 => "p99, µs",
            Self::P99Alone => "p99 with nothing stalled, µs",
            Self::TimesAlone => "p99 by that",
            Self::CpuEach => "CPU µs each, server + agent",
            Self::ServerBytes => "server, KB",
            Self::AgentBytes => "agent, KB",
            Self::Taken => "MB taken by the stalled dials",
            Self::ClientsCpu => "CPU of the clients, %",
            Self::TargetsCpu => "CPU of the targets, %",
        }
    }

    /// The figure as people read it; infinite means that it never came.
    pub fn show(self, value: f64) -> String {
        if value.is_infinite() {
            return "never".to_owned();
        }
        match self {
            Self::CpuPerGigabyte => format!("{value:.2}"),
            Self::TimesAlone => format!("{value:.2}x"),
            Self::ServerBytes | Self::AgentBytes => format!("{:.1}", value / 1000.0),
            Self::CpuEach | Self::Taken if value < 100.0 => format!("{value:.1}"),
            _ => thousands(value),
        }
    }

    /// The same with its unit.
    pub fn show_with_unit(self, value: f64) -> String {
        format!("{}: {}", self.title(), self.show(value))
    }
}

/// Rounded, with a comma before each three digits.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_as_people_read_them() {
        for (value, text) in
            [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567"), (-1234.0, "-1,234")]
        {
            assert_eq!(Metric::PerSecond.show(value), text);
        }
        assert_eq!(Metric::ServerBytes.show(7_960.0), "8.0");
        assert_eq!(Metric::P99.show(f64::INFINITY), "never");
    }

    #[test]
    fn keys_are_distinct() {
        let keys: std::collections::BTreeSet<_> = CASES.iter().map(|case| case.key).collect();
        assert_eq!(keys.len(), CASES.len());
    }
}
