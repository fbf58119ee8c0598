//! What must be reached on which link, from the project's plan.

use super::case::{Case, Kind, Metric};

/// A limit for one figure of this project's programs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// What is done, as far as goals distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Alone,
    /// Any number of dials, either way.
    Bulk,
    /// 4 dials, either way.
    Beside,
}

impl Work {
    fn is_in(self, case: &Case) -> bool {
        match (self, case.kind) {
            (Self::Alone, Kind::Alone) | (Self::Bulk, Kind::Bulk(..)) => true,
            (Self::Bulk | Self::Beside, Kind::Beside(_, dials)) => dials == 4,
            _ => false,
        }
    }
}

use Goal::{AtLeast, AtMost};
use Metric::{DialP50, DialP99, EchoP50, EchoP99, Goodput};

const GOALS: &[(&str, Work, Metric, Goal)] = &[
    ("edge-50ms-0", Work::Beside, EchoP50, AtMost(60.0)),
    ("edge-50ms-0", Work::Beside, EchoP99, AtMost(110.0)),
    ("edge-50ms-1", Work::Bulk, Goodput, AtLeast(92.0)),
    ("edge-50ms-1", Work::Alone, EchoP99, AtMost(130.0)),
    ("edge-50ms-1", Work::Beside, EchoP50, AtMost(60.0)),
    ("edge-50ms-1", Work::Beside, EchoP99, AtMost(160.0)),
    ("edge-50ms-1", Work::Alone, DialP50, AtMost(102.0)),
    ("edge-50ms-1", Work::Alone, DialP99, AtMost(205.0)),
    ("edge-100ms-3", Work::Bulk, Goodput, AtLeast(88.0)),
    ("edge-100ms-3", Work::Beside, EchoP50, AtMost(115.0)),
    ("edge-100ms-3", Work::Beside, EchoP99, AtMost(310.0)),
    ("edge-100ms-3", Work::Alone, DialP50, AtMost(203.0)),
    ("edge-100ms-3", Work::Alone, DialP99, AtMost(420.0)),
    ("edge-100ms-5", Work::Bulk, Goodput, AtLeast(85.0)),
    ("bufferbloat", Work::Beside, EchoP50, AtMost(70.0)),
    ("bufferbloat", Work::Beside, EchoP99, AtMost(120.0)),
    ("edge-50ms-reordering", Work::Bulk, Goodput, AtLeast(90.0)),
];

/// The goal for a figure, if it has one.
pub fn of(link: &str, case: &Case, metric: Metric) -> Option<Goal> {
    let found = GOALS.iter().find(|(of, work, what, _)| *of == link && work.is_in(case) && *what == metric);
    found.map(|(.., goal)| *goal)
}

impl Goal {
    /// Whether it is met.
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    /// For tables.
    pub fn show(self) -> String {
        match self {
            Self::AtLeast(limit) => format!("≥ {limit}"),
            Self::AtMost(limit) => format!("≤ {limit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::profile::Profile;
    use crate::wan::case::CASES;

    #[test]
    fn goals_are_sharp_and_never_is_never_good() {
        assert!(AtLeast(92.0).met(92.0) && !AtLeast(92.0).met(91.9));
        assert!(AtMost(60.0).met(60.0) && !AtMost(60.0).met(60.1) && !AtMost(60.0).met(f64::INFINITY));
    }

    #[test]
    fn every_goal_is_of_a_figure_that_is_measured_on_a_link_that_exists() {
        for (link, work, metric, _) in GOALS {
            assert!(Profile::named(link).is_some(), "{link}");
            let cases = CASES.iter().filter(|case| work.is_in(case));
            let cases = cases.filter(|case| case.metrics().contains(metric) && of(link, case, *metric).is_some());
            // Each way, and bulk on 1 and on 4 dials.
            let expected = match work {
                Work::Alone => 1,
                Work::Beside => 2,
                Work::Bulk => 4,
            };
            assert_eq!(cases.count(), expected, "{link} {work:?} {metric:?}");
        }
    }
}
