//! One direction over time.

use std::ops::Range;
use std::time::Duration;

use super::conditions::{Conditions, Gate, Invalid};

/// One direction over time: conditions that change in steps, perhaps again and again, and outages.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// From when on which conditions hold; the first from 0.
    steps: Vec<(Duration, Conditions)>,
    /// After which the steps begin again.
    period: Option<Duration>,
    /// Once each, counted from the start of the course whatever the period.
    outages: Vec<(Range<Duration>, Gate)>,
}

/// What holds at a moment, and until when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// The conditions, an outage included.
    pub conditions: Conditions,
    /// When something else may hold; none: never.
    pub until: Option<Duration>,
}

impl Course {
    /// The same for ever.
    pub fn constant(conditions: Conditions) -> Self {
        Self { steps: vec![(Duration::ZERO, conditions)], period: None, outages: Vec::new() }
    }

    /// Another from this time on; times are given in order.
    #[must_use]
    pub fn then(mut self, from: Duration, conditions: Conditions) -> Self {
        self.steps.push((from, conditions));
        self
    }

    /// The steps begin again after this time.
    #[must_use]
    pub fn repeated_after(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// In this window, counted from the start, packets are lost or held, once.
    #[must_use]
    pub fn with_outage(mut self, window: Range<Duration>, gate: Gate) -> Self {
        self.outages.push((window, gate));
        self
    }

    /// What holds at its start, without outages.
    pub fn first(&self) -> Conditions {
        self.steps[0].1
    }

    /// All conditions that it knows.
    pub fn all(&self) -> impl Iterator<Item = &Conditions> {
        self.steps.iter().map(|(_, conditions)| conditions)
    }

    /// What holds so long after its start.
    pub fn at(&self, time: Duration) -> Moment {
        let (turn, phase) = match self.period {
            Some(period) => {
                let phase = super::conditions::nanos(time.as_nanos() % period.as_nanos());
                (time - phase, phase)
            }
            None => (Duration::ZERO, time),
        };
        let next = self.steps.partition_point(|(from, _)| *from <= phase);
        let mut conditions = self.steps[next.saturating_sub(1)].1;
        let mut until = self.steps.get(next).map(|(from, _)| *from).or(self.period).map(|end| turn + end);
        for (window, gate) in &self.outages {
            if window.contains(&time) {
                conditions.gate = *gate;
            }
            let boundary = [window.start, window.end].into_iter().find(|boundary| *boundary > time);
            until = [until, boundary].into_iter().flatten().min();
        }
        Moment { conditions, until }
    }

    /// Checks the figures.
    ///
    /// # Errors
    /// Names the first that no link can have.
    pub fn check(&self) -> Result<(), Invalid> {
        let rising = self.steps.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let last = self.steps.last().map_or(Duration::ZERO, |(from, _)| *from);
        if self.steps[0].0 != Duration::ZERO || !rising || self.period.is_some_and(|period| period <= last) {
            return Err(Invalid::Steps);
        }
        if self.outages.iter().any(|(window, _)| window.start > window.end) {
            return Err(Invalid::Window);
        }
        self.all().try_for_each(Conditions::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(rate: u64) -> Conditions {
        Conditions::clean(rate, SECOND / 100)
    }

    #[test]
    fn steps_follow_each_other_and_begin_again() {
        let course = Course::constant(rate(1)).then(2 * SECOND, rate(2)).repeated_after(3 * SECOND);
        course.check().unwrap();
        for (time, expected, until) in [(0.0, 1, 2), (1.9, 1, 2), (2.0, 2, 3), (2.9, 2, 3), (3.0, 1, 5), (5.0, 2, 6)] {
            let moment = course.at(SECOND.mul_f64(time));
            assert_eq!((moment.conditions.rate, moment.until), (Some(expected), Some(until * SECOND)), "at {time}");
        }
        let for_ever = Course::constant(rate(1)).then(SECOND, rate(2));
        assert_eq!(for_ever.at(100 * SECOND), Moment { conditions: rate(2), until: None });
    }

    #[test]
    fn an_outage_happens_once_and_ends_where_it_says() {
        let course = Course::constant(rate(1)).repeated_after(SECOND).with_outage(5 * SECOND..7 * SECOND, Gate::Lost);
        assert_eq!(course.at(SECOND * 49 / 10).conditions.gate, Gate::Open);
        assert_eq!(course.at(5 * SECOND).conditions.gate, Gate::Lost);
        assert_eq!(course.at(SECOND * 65 / 10).until, Some(7 * SECOND));
        assert_eq!(course.at(7 * SECOND).conditions.gate, Gate::Open);
        let constant = Course::constant(rate(1)).with_outage(5 * SECOND..7 * SECOND, Gate::Held);
        assert_eq!(constant.at(Duration::ZERO).until, Some(5 * SECOND));
        assert_eq!(constant.at(8 * SECOND).until, None);
    }

    #[test]
    fn steps_out_of_order_are_refused() {
        let second_first = Course::constant(rate(1)).then(2 * SECOND, rate(2)).then(SECOND, rate(3));
        assert_eq!(second_first.check(), Err(Invalid::Steps));
        assert_eq!(Course::constant(rate(1)).then(SECOND, rate(2)).repeated_after(SECOND).check(), Err(Invalid::Steps));
        assert_eq!(Course::constant(rate(1)).repeated_after(Duration::ZERO).check(), Err(Invalid::Steps));
        let backwards = Course::constant(rate(1)).with_outage(2 * SECOND..SECOND, Gate::Lost);
        assert_eq!(backwards.check(), Err(Invalid::Window));
        assert_eq!(Course::constant(rate(0)).check(), Err(Invalid::Rate));
    }
}
