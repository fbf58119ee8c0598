//! Measures a link from outside, with sockets at both ends: rate, delay and loss against what was asked for.
//!
//! What varies over time is checked as it is at its start. Both ends are in this process, so one clock times both.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::conditions::{Conditions, Jitter};
use super::profile::{Direction, Profile};
use super::stats::Stats;
use super::{Link, StartError};

mod probe;

use self::probe::{Flood, Train};

/// How far a rate may be off.
const RATE_TOLERANCE: f64 = 0.03;
/// How far a delay may be off: this and this part of it.
const DELAY_TOLERANCE: (Duration, f64) = (Duration::from_millis(1), 0.02);
/// How many standard deviations chance may be off.
const DEVIATIONS: f64 = 3.0;

/// What was asked for, what was measured, and how far they may be apart.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which way.
    pub direction: Direction,
    /// What: with its unit.
    pub what: &'static str,
    /// What the figures of the link say.
    pub asked: f64,
    /// What was found.
    pub measured: f64,
    /// How far it may be off, either way.
    pub tolerance: f64,
}

/// The outcome of a self check.
#[derive(Debug, Clone)]
pub struct Report {
    /// The link's name.
    pub name: String,
    /// Rate, delay and loss each way.
    pub rows: Vec<Row>,
    /// What the emulator used of one core while it was flooded, the larger one of both directions, 0 to 1.
    pub flooded_cpu: f64,
    /// The emulator's own figures of it all.
    pub stats: Stats,
}

/// Why a link could not be checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// There is none.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The probes' sockets.
    #[error("the probes do not work")]
    Probe(#[source] io::Error),
}

/// Measures a link of this profile. Takes about 7 s for each direction, slow and long ones more.
///
/// # Errors
/// When there is no link, or its sockets do not work; figures that are off are in the report.
pub fn run(profile: &Profile, seed: u64) -> Result<Report, CheckError> {
    let link = Link::start(profile.frozen(), seed)?;
    let mut rows = Vec::new();
    let mut flooded_cpu: f64 = 0.0;
    for direction in Direction::BOTH {
        let conditions = profile.course(direction).first();
        let train = Train::run(&link, direction, &conditions).map_err(CheckError::Probe)?;
        rows.push(delay(direction, &conditions, &train));
        rows.push(loss(direction, &conditions, &train));
        if let Some(rate) = conditions.rate {
            let before = link.stats()?;
            let flood = Flood::run(&link, direction, &conditions, rate).map_err(CheckError::Probe)?;
            let after = link.stats()?;
            let share = (after.cpu - before.cpu).as_secs_f64() / (after.elapsed - before.elapsed).as_secs_f64();
            flooded_cpu = flooded_cpu.max(share);
            rows.push(self::rate(direction, &conditions, rate, &flood));
        }
    }
    Ok(Report { name: profile.name.clone(), rows, flooded_cpu, stats: link.stop()? })
}

fn delay(direction: Direction, conditions: &Conditions, train: &Train) -> Row {
    let asked = conditions.delay + conditions.sending_time(probe::IP_BYTES);
    let (fixed, part) = DELAY_TOLERANCE;
    let chance = delay_deviation(conditions.jitter, train) * DEVIATIONS;
    let tolerance = fixed.as_secs_f64() + asked.as_secs_f64() * part + chance;
    let ms = 1e3;
    let measured = train.median_delay.as_secs_f64() * ms;
    Row { direction, what: "delay, ms", asked: asked.as_secs_f64() * ms, measured, tolerance: tolerance * ms }
}

/// Of the median of a train's delays, in seconds. A wandering delay is independent only from turn to turn.
fn delay_deviation(jitter: Jitter, train: &Train) -> f64 {
    let independent = match jitter {
        Jitter::None => return 0.0,
        Jitter::Reordering(_) => train.sent as f64,
        Jitter::InOrder(spread) => train.took.as_secs_f64() / super::dice::wander_period(spread).as_secs_f64(),
    };
    // The median of n even spreads of half width s has the deviation s / sqrt(n).
    jitter.spread().as_secs_f64() / independent.max(1.0).sqrt()
}

fn loss(direction: Direction, conditions: &Conditions, train: &Train) -> Row {
    let sent = train.sent as f64;
    let variance = conditions.loss_before.variance() + conditions.loss_after.variance();
    // A train too short to lose a packet may lose one all the same.
    let tolerance = DEVIATIONS * (variance / sent).sqrt() + if variance > 0.0 { 1.0 / sent } else { 0.0 };
    let (asked, measured) = (conditions.mean_loss(), train.lost as f64 / sent);
    let percent = 100.0;
    Row {
        direction,
        what: "loss, %",
        asked: asked * percent,
        measured: measured * percent,
        tolerance: tolerance * percent,
    }
}

fn rate(direction: Direction, conditions: &Conditions, rate: u64, flood: &Flood) -> Row {
    // What is lost on the air has taken its time; copies have not.
    let kept = (1.0 - conditions.loss_after.mean()) * (1.0 + conditions.duplicates);
    let asked = rate as f64 * kept / 1e6;
    let chance = DEVIATIONS * (conditions.loss_after.variance() / flood.arrived.max(1) as f64).sqrt();
    let wander = 2.0 * conditions.jitter.spread().as_secs_f64() / flood.took.as_secs_f64().max(1e-3);
    let tolerance = asked * (RATE_TOLERANCE + chance + wander);
    Row { direction, what: "rate, Mbit/s", asked, measured: flood.rate / 1e6, tolerance }
}

impl Row {
    /// Whether it is near enough.
    pub fn is_good(&self) -> bool {
        (self.measured - self.asked).abs() <= self.tolerance
    }
}

impl Report {
    /// Whether all is near enough and the emulator kept up.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good) && self.stats.doubts().is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:<5} {:<13} {:>10} {:>10} {:>9}", self.name, "way", "what", "asked", "measured", "±")?;
        for row in &self.rows {
            let Row { direction, what, asked, measured, tolerance } = row;
            let verdict = if row.is_good() { "" } else { "  OFF" };
            let way = direction.name();
            writeln!(f, "{:<20} {way:<5} {what:<13} {asked:>10.3} {measured:>10.3} {tolerance:>9.3}{verdict}", "")?;
        }
        let late = |direction| self.stats.one_way(direction).around.lateness.percentile(0.99);
        let late = Direction::BOTH.map(late).into_iter().max().unwrap_or_default();
        let share = self.flooded_cpu * 100.0;
        write!(f, "{:<20} emulator: {share:.0} % of one core when flooded, p99 {late:.0?} late", "")?;
        self.stats.doubts().iter().try_for_each(|doubt| write!(f, "\n{:<20} DOUBTFUL: {doubt}", ""))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::Loss;
    use super::*;

    fn train(sent: u64, lost: u64, median_ms: u64) -> Train {
        Train { sent, lost, median_delay: Duration::from_millis(median_ms), took: Duration::from_secs(3) }
    }

    #[test]
    fn figures_are_judged_on_both_sides() {
        let conditions =
            Conditions { loss_before: Loss::Random(0.01), ..Conditions::clean(100_000_000, Duration::from_millis(50)) };
        // 1 ms and 2 % of 50 ms are 2 ms.
        for (median, good) in [(49, true), (47, false), (51, true), (53, false)] {
            assert_eq!(delay(Direction::Up, &conditions, &train(3000, 0, median)).is_good(), good, "{median} ms");
        }
        // 30 are asked for; three deviations are 16.3, and one is added.
        for (lost, good) in [(12, false), (13, true), (30, true), (47, true), (48, false)] {
            assert_eq!(loss(Direction::Up, &conditions, &train(3000, lost, 50)).is_good(), good, "{lost} lost");
        }
        for (mbits, good) in [(96.9, false), (97.1, true), (102.9, true), (103.1, false)] {
            let flood = Flood { arrived: 10_000, rate: mbits * 1e6, took: Duration::from_secs(2) };
            assert_eq!(rate(Direction::Up, &conditions, 100_000_000, &flood).is_good(), good, "{mbits}");
        }
        // Nothing may be lost where nothing should be.
        let clean = Conditions { loss_before: Loss::None, ..conditions };
        assert!(!loss(Direction::Up, &clean, &train(3000, 1, 50)).is_good());
    }
}
