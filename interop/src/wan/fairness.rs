//! Who gets how much of a link that others use too.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::apart::apart;
use super::setting::Setting;
use super::stage::Stage;
use super::subject::{Kind, Subject};
use super::work::{Bulk, Works};
use crate::bench::results::Rounds;
use crate::link::conditions::{Conditions, Queue};
use crate::link::course::Course;
use crate::link::profile::{Direction as Way, Profile};
use crate::link::stats::Stats;
use crate::load::bulk::Direction;

/// Bits a second of the shared link.
const RATE: u64 = 20_000_000;
const DELAY: Duration = Duration::from_millis(25);
/// Rate times round trip, in bytes.
const PRODUCT: usize = (RATE / 8) as usize / 1000 * 50;
/// The one that starts first is alone for so long.
const HEAD_START: Duration = Duration::from_secs(5);
/// The unresponsive sender's part of the link: the overload.
const OVERLOAD: f64 = 0.1;
/// An IP packet of the unresponsive sender, and the headers of IP and UDP in it.
const DATAGRAM: (usize, usize) = (1250, 28);

/// One contest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contest {
    /// Whose share is measured: this project's.
    pub subject: Subject,
    /// Beside whom.
    pub beside: Beside,
    /// The queue, in products of rate and round trip.
    pub queue: usize,
    /// Whether ours is there first.
    pub is_first: bool,
}

/// Who shares the link.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// One TCP connection with this congestion control.
    Tcp(&'static str),
    /// A second tunnel of ours, with programs of its own.
    Ours,
    /// A sender of UDP that takes a tenth of the link, whatever happens, while ours fills it.
    Overload,
}

/// What came of a contest with one seed.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Per cent of the bytes that arrived.
    pub share: f64,
    /// What all together carried, Mbit/s.
    pub together: f64,
    /// Per cent of all UDP packets in the bulk's direction that a full queue dropped: ours, beside TCP.
    pub loss: f64,
    /// What the link did not do as asked for.
    pub doubts: Vec<String>,
}

/// A contest with all its seeds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub contest: Contest,
    /// One for each seed.
    pub outcomes: Vec<Outcome>,
}

impl Contest {
    /// All of them for one subject, with queues of 1 and of 4 products.
    pub fn all(subject: &Subject) -> Vec<Self> {
        let contest = |beside, queue, is_first| Self { subject: subject.clone(), beside, queue, is_first };
        let mut all = Vec::new();
        for queue in [1, 4] {
            for name in ["cubic", "bbr"] {
                all.extend([true, false].map(|is_first| contest(Beside::Tcp(name), queue, is_first)));
            }
            all.push(contest(Beside::Ours, queue, true));
            all.push(contest(Beside::Overload, queue, true));
        }
        all
    }

    /// For tables and logs.
    pub fn title(&self) -> String {
        let place = if self.is_first { "first" } else { "second" };
        match self.beside {
            Beside::Tcp(name) => format!("beside TCP {}, {place} to start", name.to_uppercase()),
            Beside::Ours => "beside another of ours, first to start".to_owned(),
            Beside::Overload => "10 % of overload by an unresponsive sender".to_owned(),
        }
    }

    /// What must be reached, in words, and whether these medians do.
    pub fn goal(&self, share: f64, loss: f64) -> (&'static str, bool) {
        match self.beside {
            Beside::Tcp(_) => ("30 to 70 %", (30.0..=70.0).contains(&share)),
            Beside::Ours => ("40 to 60 %", (40.0..=60.0).contains(&share)),
            Beside::Overload => ("loss ≤ 5 %", loss <= 5.0),
        }
    }

    /// Runs it with one seed, for so long after the second has started.
    ///
    /// # Errors
    /// Whatever could not be started, or ended by itself.
    ///
    /// # Cancel safety
    /// Dropping the future ends and removes everything.
    pub async fn run(&self, setting: &Arc<Setting>, seed: u64, length: Duration) -> anyhow::Result<Outcome> {
        let (contest, setting) = (self.clone(), setting.clone());
        apart(move || async move { contest.on_a_stage(&setting, seed, length).await }).await
    }

    async fn on_a_stage(&self, setting: &Setting, seed: u64, length: Duration) -> anyhow::Result<Outcome> {
        let rival = match self.beside {
            Beside::Tcp(name) => Subject { kind: Kind::Direct, congestion_control: Some(name.to_owned()) },
            Beside::Ours | Beside::Overload => self.subject.clone(),
        };
        let stage = Stage::set(&self.profile(), seed, &[&rival])?;
        let mut ours = self.subject.start(setting, &stage).await?;
        let mut other = rival.start(setting, &stage).await?;
        let mut works = Works::new();
        let mut start = |path| works.bulk(path, stage.targets(), Direction::ToClient, 1);
        let (mine, theirs) = match (&self.beside, self.is_first) {
            (Beside::Overload, _) => (start(&ours.path), None),
            (_, true) => {
                let mine = start(&ours.path);
                sleep(HEAD_START).await;
                (mine, Some(start(&other.path)))
            }
            (_, false) => {
                let theirs = start(&other.path);
                sleep(HEAD_START).await;
                (start(&ours.path), Some(theirs))
            }
        };
        if theirs.is_none() {
            sleep(2 * HEAD_START).await;
        }
        let before = (mine.to_client(), theirs.as_ref().map_or(0, Bulk::to_client), stage.link.stats()?);
        let begun = Instant::now();
        match theirs {
            Some(_) => sleep(length).await,
            None => overload(&stage, length).await?,
        }
        let took = begun.elapsed().as_secs_f64();
        let after = stage.link.stats()?;
        let mine = (mine.to_client() - before.0) as f64;
        let theirs = theirs.map_or(0, |theirs| theirs.to_client() - before.1) as f64;
        ours.check()?;
        other.check()?;
        Ok(Outcome {
            share: 100.0 * mine / (mine + theirs).max(1.0),
            together: (mine + theirs) * 8e-6 / took,
            loss: loss(&before.2, &after),
            doubts: after.doubts(),
        })
    }

    fn profile(&self) -> Profile {
        let conditions = Conditions { queue: Queue::Bytes(PRODUCT * self.queue), ..Conditions::clean(RATE, DELAY) };
        Profile::symmetric("shared", Course::constant(conditions))
    }
}

impl Row {
    /// Medians and spreads of share, sum and loss; none without outcomes.
    pub fn rounds(&self) -> Option<[Rounds; 3]> {
        let of = |figure: fn(&Outcome) -> f64| Rounds::of(self.outcomes.iter().map(figure));
        Some([of(|it| it.share)?, of(|it| it.together)?, of(|it| it.loss)?])
    }
}

fn loss(before: &Stats, after: &Stats) -> f64 {
    let [before, after] = [before, after].map(|stats| &stats.one_way(Way::Up).around);
    let offered = after.udp_offered - before.udp_offered;
    100.0 * (after.udp_queue_full - before.udp_queue_full) as f64 / offered.max(1) as f64
}

/// Sends datagrams at its rate from the site to a socket in the cloud that nobody reads.
async fn overload(stage: &Stage, length: Duration) -> anyhow::Result<()> {
    let receiver = UdpSocket::bind((stage.link.cloud().ipv4, 0))?;
    let from = SocketAddr::from((stage.link.site().ipv4, 0));
    let sender = stage.link.site().namespace.inside("open a socket", || UdpSocket::bind(from))?;
    sender.connect(receiver.local_addr()?)?;
    sender.set_nonblocking(true)?;
    let (packet, headers) = DATAGRAM;
    let payload = vec![0; packet - headers];
    let mut ticks = interval(Duration::from_secs_f64(packet as f64 * 8.0 / (RATE as f64 * OVERLOAD)));
    // A late tick is made up for: the rate is what counts.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    while begun.elapsed() < length {
        ticks.tick().await;
        match sender.send(&payload) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contest_of_the_plan_is_there_with_its_goal() {
        let all = Contest::all(&"ours".parse().unwrap());
        assert_eq!(all.len(), 2 * (2 * 2 + 1 + 1));
        for contest in &all {
            let (goal, met) = contest.goal(29.0, 6.0);
            assert!(!met, "{goal}");
            assert!(contest.goal(50.0, 5.0).1);
            contest.profile().check().unwrap();
        }
        assert_eq!(all[0].profile().up.first().queue_bytes(), 125_000);
    }
}
