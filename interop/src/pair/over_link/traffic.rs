//! Dials that carry bytes while something happens to the link, and know what came, whether it was right, and when.

mod flow;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::POLL;
use super::super::open::Open;
use super::OverLink;
pub use flow::Kind;
use flow::{Flow, answer, ask, receive, send};

/// A dial of the beginning, on a good link, has this long.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Dials under way.
#[derive(Debug)]
pub struct Traffic {
    flows: Vec<Arc<Flow>>,
    ends: JoinSet<Ended>,
    stop: CancellationToken,
}

/// One end of a dial is over.
#[derive(Debug)]
struct Ended {
    /// Which of the dials.
    dial: usize,
    kind: Kind,
    end: End,
    /// Sent or received, whichever this end does.
    bytes: usize,
    result: io::Result<()>,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Target,
}

impl Traffic {
    /// Dials for each and begins; all of them are well under way.
    ///
    /// # Errors
    /// When a dial is not served.
    ///
    /// # Panics
    /// When one does not get under way within `limit`.
    pub async fn start(pair: &OverLink, kinds: &[Kind], limit: Duration) -> anyhow::Result<Self> {
        let mut traffic = Self { flows: Vec::new(), ends: JoinSet::new(), stop: CancellationToken::new() };
        for &kind in kinds {
            let open = pair.dial(DIAL_WITHIN).await?;
            let flow = Arc::new(Flow::new(kind));
            traffic.run(open, &flow);
            traffic.flows.push(flow);
        }
        traffic.carries(limit).await;
        Ok(traffic)
    }

    fn run(&mut self, open: Open, flow: &Arc<Flow>) {
        let Open { client, target } = open;
        let kind = flow.kind;
        let (flow, stop) = (flow.clone(), self.stop.clone());
        let dial = self.flows.len();
        let ended = move |end, (bytes, result)| Ended { dial, kind, end, bytes, result, at: Instant::now() };
        let other = stop.clone();
        match kind {
            Kind::ToClient => {
                self.ends.spawn(async move { ended(End::Client, receive(client, &flow, &stop).await) });
                self.ends.spawn(async move { ended(End::Target, send(target, &other).await) });
            }
            Kind::ToTarget => {
                self.ends.spawn(async move { ended(End::Client, send(client, &stop).await) });
                self.ends.spawn(async move { ended(End::Target, receive(target, &flow, &other).await) });
            }
            Kind::Echo(pause) => {
                self.ends.spawn(async move { ended(End::Client, ask(client, pause, &flow, &stop).await) });
                self.ends.spawn(async move { ended(End::Target, answer(target, &other).await) });
            }
        }
    }

    /// From now on pauses are counted anew.
    pub fn mark(&self) {
        for flow in &self.flows {
            let mut progress = flow.progress();
            (progress.last, progress.longest) = (Instant::now(), Duration::ZERO);
        }
    }

    /// The longest time in which nothing came on each, since the last mark.
    pub fn longest_pauses(&self) -> Vec<(Kind, Duration)> {
        let pause = |flow: &Arc<Flow>| {
            let progress = *flow.progress();
            (flow.kind, progress.longest.max(progress.last.elapsed()))
        };
        self.flows.iter().map(pause).collect()
    }

    /// The longest of them.
    pub fn longest_pause(&self) -> Duration {
        self.longest_pauses().into_iter().map(|(_, pause)| pause).max().unwrap_or_default()
    }

    /// Waits until something comes on each; how long that took, in the order of the dials.
    ///
    /// # Panics
    /// When nothing comes on one within `limit`, or a dial has ended.
    pub async fn moves(&mut self, limit: Duration) -> Vec<Duration> {
        self.have_moved(limit, |_, steps| steps > 0).await
    }

    /// Waits until each has carried so much that none of it can have been on its way when this was called.
    ///
    /// # Panics
    /// When that takes longer than `limit`, or a dial has ended.
    pub async fn carries(&mut self, limit: Duration) -> Vec<Duration> {
        self.have_moved(limit, |kind, steps| steps >= kind.many()).await
    }

    async fn have_moved(&mut self, limit: Duration, enough: impl Fn(Kind, u64) -> bool) -> Vec<Duration> {
        let begun = Instant::now();
        let before: Vec<_> = self.flows.iter().map(|flow| flow.progress().steps).collect();
        let mut took = vec![None; before.len()];
        while took.contains(&None) {
            if let Some(ended) = self.ends.try_join_next() {
                panic!("a dial ended: {:?}", whole(ended));
            }
            for (place, flow) in self.flows.iter().enumerate() {
                let steps = flow.progress().steps - before[place];
                if took[place].is_none() && enough(flow.kind, steps) {
                    took[place] = Some(begun.elapsed());
                } else {
                    let late = begun.elapsed() > limit && took[place].is_none();
                    assert!(!late, "{:?} has moved by {steps} only within {limit:?}; others: {took:?}", flow.kind);
                }
            }
            sleep(POLL).await;
        }
        took.into_iter().flatten().collect()
    }

    /// Ends all of them, each with all its bytes and in order.
    ///
    /// # Panics
    /// When an end is none of these, or nothing comes any more for `limit`.
    pub async fn finish(mut self, limit: Duration) {
        self.stop.cancel();
        let ended = self.all_ended(limit, true).await;
        for one in &ended {
            assert!(one.result.is_ok(), "{one:?}");
            let other =
                ended.iter().find(|other| (other.dial, other.kind, other.end) == (one.dial, one.kind, one.end.other()));
            assert_eq!(Some(one.bytes), other.map(|other| other.bytes), "sent and received: {ended:?}");
        }
    }

    /// Waits until both ends of all of them have ended with an error, without having been told to. When the last client
    /// and the last target knew.
    ///
    /// # Panics
    /// When one does not within `limit`, or looks as if all had been sent.
    pub async fn breaks(mut self, limit: Duration) -> (Instant, Instant) {
        let ended = self.all_ended(limit, false).await;
        for one in &ended {
            let error = one.result.as_ref().map_err(io::Error::kind);
            let is_told = match (one.end, error) {
                (_, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)) => true,
                // A Unix socket with nothing unread has no other way to tell of an end, be it early or not.
                (End::Client, Err(ErrorKind::UnexpectedEof)) => true,
                _ => false,
            };
            assert!(is_told, "{one:?}");
        }
        let last = |end| ended.iter().filter(|one| one.end == end).map(|one| one.at).max();
        last(End::Client).zip(last(End::Target)).expect("both ends of each")
    }

    /// Waits for both ends of all; the limit begins anew while bytes come, if so wanted.
    async fn all_ended(&mut self, limit: Duration, while_bytes_come: bool) -> Vec<Ended> {
        let mut all = Vec::new();
        let begun = Instant::now();
        while !self.ends.is_empty() {
            let since = if while_bytes_come { begun.max(self.last()) } else { begun };
            match timeout(limit.saturating_sub(since.elapsed()), self.ends.join_next()).await {
                Ok(ended) => all.extend(ended.map(whole)),
                Err(_) if while_bytes_come && self.last() > since => {}
                Err(_) => {
                    let (open, pauses) = (self.ends.len(), self.longest_pauses());
                    panic!("{open} ends of dials are open after {limit:?}; ended: {all:?}; pauses: {pauses:?}");
                }
            }
        }
        all
    }

    /// When something came last.
    fn last(&self) -> Instant {
        self.flows.iter().map(|flow| flow.progress().last).max().unwrap_or_else(Instant::now)
    }
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }
}

/// What a task has returned; its panic is ours.
fn whole(ended: Result<Ended, JoinError>) -> Ended {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => panic!("a task that nobody ends was ended: {error}"),
    })
}
