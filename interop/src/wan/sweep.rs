//! Goodput over loss, at several round trips.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::case::{CASES, Case, Metric};
use super::measure::measure;
use super::setting::{Setting, Timing};
use super::subject::Subject;
use crate::link::course::Course;
use crate::link::named::edge;
use crate::link::profile::Profile;

/// Round trips in milliseconds.
pub const ROUND_TRIPS: [u64; 3] = [20, 50, 100];
/// Per cent of packets that are lost each way.
pub const LOSSES: [f64; 6] = [0.0, 0.1, 1.0, 3.0, 5.0, 10.0];
/// One dial to the client.
const CASE: &str = "bulk/to-client/1";

/// One point.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Whose.
    pub subject: Subject,
    /// Milliseconds without queue.
    pub round_trip: u64,
    /// Per cent each way.
    pub loss: f64,
    /// Mbit/s.
    pub goodput: f64,
    /// What the link did not do as asked for.
    pub doubts: Vec<String>,
}

/// Measures one point, for a short time.
///
/// # Errors
/// Whatever could not be started, or ended by itself.
///
/// # Cancel safety
/// Dropping the future ends and removes everything.
pub async fn measure_point(
    setting: &Arc<Setting>,
    subject: &Subject,
    (round_trip, loss): (u64, f64),
    seed: u64,
) -> anyhow::Result<Point> {
    let profile =
        Profile::symmetric(&format!("{round_trip} ms, {loss} %"), Course::constant(edge(round_trip, loss / 100.0)));
    let found = measure(setting, &profile, subject, case(), seed).await?;
    let goodput = found.figures.iter().find(|(metric, _)| *metric == Metric::Goodput).map_or(0.0, |(_, value)| *value);
    Ok(Point { subject: subject.clone(), round_trip, loss, goodput, doubts: found.doubts })
}

fn case() -> &'static Case {
    CASES.iter().find(|case| case.key == CASE).expect("this case is in the list")
}

/// How long things take here.
pub fn timing(of_rows: Timing) -> Timing {
    Timing { ramp: Duration::from_secs(3), window: Duration::from_secs(3).min(of_rows.window), ..of_rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_bulk_dial() {
        assert!(case().metrics().contains(&Metric::Goodput));
    }
}
