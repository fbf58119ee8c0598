//! What happens over time when the path goes away, or changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{sleep, sleep_until};

use super::apart::apart;
use super::setting::Setting;
use super::stage::Stage;
use super::subject::Subject;
use super::work::Works;
use crate::link::conditions::Gate;
use crate::link::profile::{Direction as Way, Profile};
use crate::load::bulk::Direction;

/// The link on which it happens.
pub const LINK: &str = "edge-50ms-1";
/// One point of a line.
const STEP: Duration = Duration::from_millis(250);
/// Everything runs so long before the line begins.
const WARM_UP: Duration = Duration::from_secs(4);
/// When it happens, from the beginning of the line.
pub const AT: Duration = Duration::from_secs(5);
const DIALS: usize = 4;
const ECHOES: usize = 4;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its name in files and JSON.
    pub key: &'static str,
    /// Its name in documents.
    pub title: &'static str,
    /// For how long nothing passes; none: the NAT forgets all flows.
    pub outage: Option<Duration>,
    /// How long the line is.
    pub length: Duration,
}

/// All that are measured.
pub const EVENTS: [Event; 3] = [
    Event {
        key: "outage-5s",
        title: "an outage of 5 s",
        outage: Some(Duration::from_secs(5)),
        length: Duration::from_secs(25),
    },
    Event {
        key: "outage-20s",
        title: "an outage of 20 s",
        outage: Some(Duration::from_secs(20)),
        length: Duration::from_secs(60),
    },
    Event {
        key: "rebinding",
        title: "a NAT that forgets its UDP flows",
        outage: None,
        length: Duration::from_secs(20),
    },
];

/// One subject's line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Whose.
    pub subject: Subject,
    /// What happened.
    pub event: Event,
    /// Mbit/s of each step of 0.25 s.
    pub goodput: Vec<f64>,
    /// The longest echo that began in each step, in milliseconds; none: no echo began; infinite: it had no answer.
    pub echo: Vec<Option<f64>>,
    /// Dials of the bulk that ended.
    pub ended: u64,
    /// What the link did not do as asked for.
    pub doubts: Vec<String>,
}

impl Line {
    /// Goodput before it happened.
    pub fn before(&self) -> f64 {
        let steps = (AT.as_secs_f64() / STEP.as_secs_f64()) as usize;
        let before = &self.goodput[..steps.min(self.goodput.len())];
        before.iter().sum::<f64>() / before.len().max(1) as f64
    }

    /// Seconds from the end of what happened until a second's goodput was half of that before; none: never.
    pub fn back_after(&self) -> Option<f64> {
        let over = AT + self.event.outage.unwrap_or_default();
        let first = (over.as_secs_f64() / STEP.as_secs_f64()) as usize;
        let steps = 4;
        let behind = self.goodput.get(first..)?;
        let at = behind
            .windows(steps)
            .position(|second| second.iter().sum::<f64>() / steps as f64 >= self.before() / 2.0)?;
        Some(at as f64 * STEP.as_secs_f64())
    }

    /// The longest echo, in milliseconds.
    pub fn longest_echo(&self) -> f64 {
        self.echo.iter().flatten().copied().fold(0.0, f64::max)
    }

    /// The middles of all steps, in seconds from the beginning.
    pub fn times(&self) -> impl Iterator<Item = f64> + Clone {
        (0..self.goodput.len()).map(|step| (step as f64 + 0.5) * STEP.as_secs_f64())
    }
}

/// Draws a subject's line.
///
/// # Errors
/// Whatever could not be started, or ended by itself.
///
/// # Cancel safety
/// Dropping the future ends and removes everything.
pub async fn draw(setting: &Arc<Setting>, subject: &Subject, event: Event, seed: u64) -> anyhow::Result<Line> {
    let (setting, subject) = (setting.clone(), subject.clone());
    apart(move || async move {
        let profile = Profile::named(LINK).expect("this link has a name");
        let stage = Stage::set(&profile, seed, &[&subject])?;
        let mut running = subject.start(&setting, &stage).await?;
        let mut works = Works::new();
        let echoes = works.echoes(&running.path, stage.targets().echo(0), ECHOES);
        sleep(setting.timing.before).await;
        let bulk = works.bulk(&running.path, stage.targets(), Direction::ToClient, DIALS);
        sleep(WARM_UP).await;
        let begun = Instant::now();
        let ended_before = bulk.ended();
        if let Some(outage) = event.outage {
            for way in Way::BOTH {
                let course = profile.course(way).clone().with_outage(AT..AT + outage, Gate::Lost);
                stage.link.set(way, course)?;
            }
        }
        let mut goodput = Vec::new();
        let (mut last, mut at, mut is_rebound) = (bulk.to_client(), begun, event.outage.is_some());
        while at < begun + event.length {
            at += STEP;
            if !is_rebound && at > begun + AT {
                stage.link.rebind_nat();
                is_rebound = true;
            }
            sleep_until(at.into()).await;
            let now = bulk.to_client();
            goodput.push((now - last) as f64 * 8e-6 / STEP.as_secs_f64());
            last = now;
        }
        let all = begun..begun + event.length;
        // What is under way still may end.
        echoes.of(all.clone(), setting.timing.patience).await;
        running.check()?;
        Ok(Line {
            subject,
            event,
            echo: longest(&echoes.series(&all), begun, goodput.len()),
            goodput,
            ended: bulk.ended() - ended_before,
            doubts: stage.link.stats()?.doubts(),
        })
    })
    .await
}

fn longest(series: &[(Instant, Option<Duration>)], begun: Instant, steps: usize) -> Vec<Option<f64>> {
    let mut longest = vec![None; steps];
    for (at, took) in series {
        let step = ((*at - begun).as_secs_f64() / STEP.as_secs_f64()) as usize;
        let took = took.map_or(f64::INFINITY, |took| took.as_secs_f64() * 1e3);
        if let Some(longest) = longest.get_mut(step) {
            *longest = Some(longest.map_or(took, |longest: f64| longest.max(took)));
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(goodput: Vec<f64>, event: Event) -> Line {
        Line { subject: "ours".parse().unwrap(), event, echo: Vec::new(), goodput, ended: 0, doubts: Vec::new() }
    }

    #[test]
    fn a_line_says_when_half_of_what_there_was_is_back() {
        let [before, nothing] = [vec![90.0; 20], vec![0.0; 20]];
        let back = line([before.clone(), nothing.clone(), vec![10.0; 4], vec![50.0; 8]].concat(), EVENTS[0]);
        assert_eq!((back.before(), back.back_after()), (90.0, Some(1.0)));
        let never = line([before.clone(), nothing.clone(), nothing].concat(), EVENTS[0]);
        assert_eq!(never.back_after(), None);
        assert_eq!(line(before.repeat(2), EVENTS[2]).back_after(), Some(0.0));
        assert_eq!(line(Vec::new(), EVENTS[0]).back_after(), None);
    }

    #[test]
    fn each_step_has_its_longest_echo() {
        let begun = Instant::now();
        let ms = Duration::from_millis;
        let series = [(begun, Some(ms(50))), (begun + ms(249), Some(ms(60))), (begun + ms(600), None)];
        assert_eq!(longest(&series, begun, 4), [Some(60.0), None, Some(f64::INFINITY), None]);
    }
}
