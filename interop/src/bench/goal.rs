//! What must be reached, from the project's plan: mostly ratios to the Go reference in the same run.

use super::case::Metric;
use crate::peer::Mode;

/// A limit for one figure of this project's programs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// So many times the reference's figure, or more.
    AtLeastTimesGo(f64),
    /// So many times the reference's figure, or less.
    AtMostTimesGo(f64),
    /// No more than this, whatever the reference has.
    AtMost(f64),
}

/// The goal for a figure, if it has one.
pub fn of(mode: Mode, case: &str, metric: Metric) -> Option<Goal> {
    match mode {
        Mode::HttpConnect => of_http_connect(case, metric),
        Mode::Grpc => of_grpc(case, metric),
    }
}

/// What pairs of two makes must reach, in everything that they are measured by: no less than the reference alone.
pub const OF_MIXED_PAIRS: Goal = Goal::AtLeastTimesGo(1.0);

fn of_grpc(case: &str, metric: Metric) -> Option<Goal> {
    Some(match (case, metric) {
        ("bulk/to-client/1" | "bulk/to-target/1", Metric::MegabytesPerSecond) => Goal::AtLeastTimesGo(2.0),
        ("bulk/to-client/1" | "bulk/to-target/1", Metric::CpuPerGigabyte) => Goal::AtMostTimesGo(0.4),
        ("echo/1" | "echo/64", Metric::PerSecond) => Goal::AtLeastTimesGo(1.8),
        ("dial/8", Metric::PerSecond) => Goal::AtLeastTimesGo(2.5),
        ("idle/1000" | "idle/10000", Metric::ServerBytes) => Goal::AtMost(16_000.0),
        ("idle/1000" | "idle/10000", Metric::AgentBytes) => Goal::AtMost(8000.0),
        ("stall/readers/64", Metric::TimesAlone) => Goal::AtMost(1.2),
        _ => return None,
    })
}

fn of_http_connect(case: &str, metric: Metric) -> Option<Goal> {
    Some(match (case, metric) {
        ("bulk/to-client/1" | "bulk/to-target/1", Metric::MegabytesPerSecond) => Goal::AtLeastTimesGo(2.0),
        ("bulk/to-client/1" | "bulk/to-target/1", Metric::CpuPerGigabyte) => Goal::AtMostTimesGo(0.36),
        ("echo/1" | "echo/64", Metric::PerSecond) => Goal::AtLeastTimesGo(2.0),
        ("dial/8", Metric::PerSecond) => Goal::AtLeastTimesGo(2.7),
        ("idle/1000" | "idle/10000", Metric::ServerBytes | Metric::AgentBytes) => Goal::AtMost(8000.0),
        ("stall/readers/1" | "stall/readers/64" | "stall/targets/64", Metric::TimesAlone) => Goal::AtMost(1.2),
        _ => return None,
    })
}

impl Goal {
    /// Whether it is met; none when a figure to compare with is missing.
    pub fn met(self, ours: f64, go: Option<f64>) -> Option<bool> {
        Some(match self {
            Self::AtLeastTimesGo(times) => ours >= times * go?,
            Self::AtMostTimesGo(times) => ours <= times * go?,
            Self::AtMost(limit) => ours <= limit,
        })
    }

    /// For tables.
    pub fn show(self, metric: Metric) -> String {
        match self {
            Self::AtLeastTimesGo(times) => format!("≥ {times}x Go"),
            Self::AtMostTimesGo(times) => format!("≤ {times}x Go"),
            Self::AtMost(limit) => format!("≤ {}", metric.show(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::CASES;

    #[test]
    fn goals_are_sharp_on_both_sides() {
        assert_eq!(Goal::AtLeastTimesGo(2.0).met(200.0, Some(100.0)), Some(true));
        assert_eq!(Goal::AtLeastTimesGo(2.0).met(199.9, Some(100.0)), Some(false));
        assert_eq!(Goal::AtMostTimesGo(0.36).met(0.36, Some(1.0)), Some(true));
        assert_eq!(Goal::AtMostTimesGo(0.36).met(0.37, Some(1.0)), Some(false));
        assert_eq!(Goal::AtMost(8000.0).met(8000.0, None), Some(true));
        assert_eq!(Goal::AtMost(8000.0).met(8001.0, None), Some(false));
        assert_eq!(Goal::AtMost(1.2).met(f64::INFINITY, None), Some(false));
        assert_eq!(Goal::AtLeastTimesGo(2.0).met(200.0, None), None);
    }

    #[test]
    fn every_row_of_the_plan_has_its_goal() {
        for (mode, count) in [(Mode::HttpConnect, 4 + 2 + 1 + 4 + 3), (Mode::Grpc, 4 + 2 + 1 + 4 + 1)] {
            let goals = CASES.iter().flat_map(|case| case.metrics().iter().filter_map(|&it| of(mode, case.key, it)));
            assert_eq!(goals.count(), count, "{mode:?}");
        }
    }
}
