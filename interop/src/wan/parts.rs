//! All contests, all time lines and all points of goodput over loss, each one after the other.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::fairness::{Contest, Outcome, Row};
use super::options::Options;
use super::results::Results;
use super::setting::Setting;
use super::subject::{Kind, Subject};
use super::sweep::{self, LOSSES, ROUND_TRIPS, measure_point};
use super::timeline::{self, EVENTS};

/// Contests are on a slow link, which leaves room for so many at the same time: one for each seed.
const AT_THE_SAME_TIME: usize = 3;

/// Contests of everyone who is ours.
pub async fn fairness(options: &Options, setting: &Arc<Setting>, results: &mut Results, subjects: &[Subject]) {
    let (length, seeds) = options.fairness();
    results.fairness_seconds = length.as_secs_f64();
    let seeds: Vec<u64> = seeds.collect();
    for contest in subjects.iter().filter(|subject| subject.is_ours()).flat_map(Contest::all) {
        let place = format!("{} {}, queue of {}", contest.subject, contest.title(), contest.queue);
        let mut outcomes = Vec::new();
        for seeds in seeds.chunks(AT_THE_SAME_TIME) {
            let mut running = JoinSet::new();
            for &seed in seeds {
                let (contest, setting) = (contest.clone(), setting.clone());
                running.spawn(async move { (seed, contest.run(&setting, seed, length).await) });
            }
            for (seed, outcome) in running.join_all().await {
                match outcome {
                    Ok(outcome) => {
                        let Outcome { share, together, loss, doubts } = &outcome;
                        let doubts = doubts.join("; ");
                        eprintln!(
                            "{place} seed {seed}: {share:.0} % of {together:.1} Mbit/s, loss {loss:.2} % {doubts}"
                        );
                        outcomes.push(outcome);
                    }
                    Err(error) => {
                        eprintln!("{place} seed {seed} FAILED: {error:#}");
                        results.fail(format!("{place}, seed {seed}"), &error);
                    }
                }
            }
        }
        results.fairness.push(Row { contest, outcomes });
    }
}

/// Every event, for ours, and for the reference and direct TCP with their best congestion control.
pub async fn lines(options: &Options, setting: &Arc<Setting>, results: &mut Results, subjects: &[Subject]) {
    let is_shown = |subject: &&Subject| {
        subject.is_ours() || subject.kind != Kind::Ssh && subject.congestion_control.as_deref() == Some("bbr")
    };
    for event in EVENTS {
        for subject in subjects.iter().filter(is_shown) {
            match timeline::draw(setting, subject, event, options.seed).await {
                Ok(line) => {
                    let back = line.back_after().map_or("never".to_owned(), |back| format!("{back:.1} s after it"));
                    eprintln!("{} {subject}: {:.1} Mbit/s before, back {back}", event.title, line.before());
                    results.lines.push(line);
                }
                Err(error) => {
                    eprintln!("{} {subject} FAILED: {error:#}", event.title);
                    results.fail(format!("{} on {subject}", event.title), &error);
                }
            }
        }
    }
}

/// Every point, without `ssh -L`.
pub async fn sweep(options: &Options, setting: &Arc<Setting>, results: &mut Results, subjects: &[Subject]) {
    let shorter = Arc::new(Setting { timing: sweep::timing(setting.timing), ..Setting::clone(setting) });
    for round_trip in ROUND_TRIPS {
        for loss in LOSSES {
            for subject in subjects.iter().filter(|subject| subject.kind != Kind::Ssh) {
                match measure_point(&shorter, subject, (round_trip, loss), options.seed).await {
                    Ok(point) => {
                        eprintln!("{round_trip} ms, {loss} % {subject}: {:.1} Mbit/s", point.goodput);
                        results.sweep.push(point);
                    }
                    Err(error) => {
                        eprintln!("{round_trip} ms, {loss} % {subject} FAILED: {error:#}");
                        results.fail(format!("{round_trip} ms, {loss} % on {subject}"), &error);
                    }
                }
            }
        }
    }
}
