//! Keeps a book of leases current: lists them, watches their changes, and lists them again, for as long as anybody
//! asks.
//!
//! ```text
//! list --> watch --> changes, expiries ... --> its time is over, or it is silent --> list
//!   |        |                  +-- broken soon: wait, longer each time
//!   |        +-- not allowed: wait for the time of the next list
//!   +-- failed: wait, longer each time
//! ```
//!
//! Where lists are granted and watches are not, or break at once, leases expire as anywhere: only while no list comes,
//! too, time stands still.
//!
//! Not the library's own watcher: what was asked and answered is counted here, and what cannot be heard must not
//! expire.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::{
    book::LeaseBook,
    call::{LeaseChange, LeaseScope},
};
use crate::{client::Kubernetes, error::ApiError};

/// First and longest wait after a failure. Up to a fifth more is by lot.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A watch of which nothing is heard for so long is doubted when a lease expires. Servers renew every 15 s.
const SILENCE: Duration = Duration::from_secs(20);

/// A watch that ends sooner, and before half of its time, is of little use: the next one is not tried at once.
const LASTING_WATCH: Duration = Duration::from_secs(20);

/// A watch that has not ended by so much after its time is dead.
const WATCH_GRACE: Duration = Duration::from_secs(5);

/// What to follow, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowSettings {
    /// Which leases.
    pub scope: LeaseScope,
    /// How long a watch lasts, and with it the time between lists. Up to a fifth more is by lot.
    pub relist: Duration,
    /// The time between lists where watching is not allowed.
    pub relist_without_watch: Duration,
}

/// A request that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// For all leases.
    List,
    /// For their changes.
    Watch,
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A request was granted, after so long. With a list, the book is new.
    Granted(Request, Duration),
    /// A request was refused, or a watch has broken.
    Failed(Request, Duration, ApiError),
    /// A lease was changed, or has expired.
    Changed,
}

type Changes = Pin<Box<dyn Stream<Item = Result<LeaseChange, ApiError>> + Send>>;

struct Watch {
    changes: Changes,
    since: Instant,
    /// It is dead if it has not ended by then.
    until: Instant,
}

enum State {
    /// Lists at this instant.
    Lists(Instant),
    /// Watches from this version on.
    Watches(String),
    /// Hears changes.
    Hears(Watch),
}

/// Follows the leases.
pub struct LeaseFollower {
    kubernetes: Kubernetes,
    settings: FollowSettings,
    book: LeaseBook,
    state: State,
    /// The wait after the next failure: of lists, and of watches.
    pause: Duration,
    watch_pause: Duration,
    /// When the API has last said anything.
    heard: Instant,
    /// The last list was refused, or there was no answer.
    is_away: bool,
}

impl LeaseFollower {
    /// Nothing is known yet.
    pub fn new(kubernetes: Kubernetes, settings: FollowSettings) -> Self {
        let now = Instant::now();
        let book = LeaseBook::default();
        let state = State::Lists(now);
        let (pause, watch_pause) = (FIRST_PAUSE, FIRST_PAUSE);
        Self { kubernetes, settings, book, state, pause, watch_pause, heard: now, is_away: false }
    }

    /// What is known. Empty before the first list.
    pub fn book(&self) -> &LeaseBook {
        &self.book
    }

    /// Waits for the next event.
    ///
    /// # Cancel safety
    /// Safe; a request under way is made again.
    pub async fn next(&mut self) -> Event {
        loop {
            let event = match &mut self.state {
                State::Lists(at) => {
                    sleep_until(*at).await;
                    Some(self.list().await)
                }
                State::Watches(version) => {
                    let version = version.clone();
                    Some(self.watch(&version).await)
                }
                State::Hears(..) => self.hear().await,
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    async fn list(&mut self) -> Event {
        let begun = Instant::now();
        match self.kubernetes.list_leases(&self.settings.scope).await {
            Ok((leases, version)) => {
                self.heard = Instant::now();
                if !std::mem::take(&mut self.is_away) {
                    self.book.was_there();
                }
                self.book.list(leases, self.heard, SystemTime::now());
                self.pause = FIRST_PAUSE;
                self.state = State::Watches(version);
                Event::Granted(Request::List, begun.elapsed())
            }
            Err(error) => self.failed(Request::List, begun, error),
        }
    }

    async fn watch(&mut self, version: &str) -> Event {
        let begun = Instant::now();
        let lasts = lengthened(self.settings.relist);
        match self.kubernetes.watch_leases(&self.settings.scope, version, lasts).await {
            Ok(changes) => {
                self.heard = Instant::now();
                let (since, until) = (self.heard, self.heard + lasts + WATCH_GRACE);
                self.state = State::Hears(Watch { changes: Box::pin(changes), since, until });
                Event::Granted(Request::Watch, begun.elapsed())
            }
            Err(error) => self.failed(Request::Watch, begun, error),
        }
    }

    /// Waits for a change or an expiry. `None`: neither, and it is time to do something else.
    async fn hear(&mut self) -> Option<Event> {
        let State::Hears(watch) = &mut self.state else { return None };
        let until = watch.until;
        let expiry = self.book.next_expiry(Instant::now());
        tokio::select! {
            change = watch.changes.next() => match change {
                Some(Ok(change)) => {
                    self.heard = Instant::now();
                    match change {
                        LeaseChange::Written(lease) => self.book.change(lease, self.heard),
                        LeaseChange::Deleted(name) => self.book.delete(&name),
                        LeaseChange::Alive => return None,
                    }
                    Some(Event::Changed)
                }
                Some(Err(error)) if !error.is_expired() => {
                    let heard = self.heard;
                    Some(self.failed(Request::Watch, heard, error))
                }
                // Its time is over, or somebody on the way thinks so; or what was listed is too old for the API.
                None | Some(Err(_)) => {
                    let pause = self.pause_after_watch(false);
                    self.list_at(Instant::now() + pause)
                }
            },
            () = sleep_until(until) => self.list_at(Instant::now()),
            () = sleep_until(expiry.unwrap_or(until)) => self.expired(),
        }
    }

    /// A lease has expired. Where nothing at all was heard, it may be the watch that is dead.
    fn expired(&mut self) -> Option<Event> {
        let now = Instant::now();
        match now.saturating_duration_since(self.heard) >= SILENCE {
            // A list says it; and if there is none, time has stood still since the API was heard.
            true => self.list_at(now),
            false => Some(Event::Changed),
        }
    }

    fn list_at(&mut self, instant: Instant) -> Option<Event> {
        self.state = State::Lists(instant);
        None
    }

    fn failed(&mut self, request: Request, begun: Instant, error: ApiError) -> Event {
        let now = Instant::now();
        let pause = match request {
            Request::List => {
                self.is_away = true;
                next(&mut self.pause, LONGEST_PAUSE)
            }
            // Whoever may list and not watch lists more often. The API is there, and time goes on.
            Request::Watch if error.code() == 403 => {
                self.state = State::Lists(now + self.settings.relist_without_watch);
                return Event::Failed(request, now - begun, error);
            }
            Request::Watch => self.pause_after_watch(true),
        };
        // The next list shows whether it is the API that is away.
        self.book.lost(self.heard);
        self.state = State::Lists(now + pause);
        Event::Failed(request, now - begun, error)
    }

    /// The wait before the next list, now that a watch is over or was refused. One that has lasted was a good one.
    fn pause_after_watch(&mut self, broken: bool) -> Duration {
        let least = LASTING_WATCH.min(self.settings.relist / 2);
        let lasted = matches!(&self.state, State::Hears(watch) if watch.since.elapsed() >= least);
        if lasted {
            self.watch_pause = FIRST_PAUSE;
        }
        match lasted && !broken {
            true => Duration::ZERO,
            false => next(&mut self.watch_pause, self.settings.relist_without_watch),
        }
    }
}

/// The wait that it is the turn of; the one after it is twice as long, up to `longest`.
fn next(pause: &mut Duration, longest: Duration) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(longest);
    lengthened(now)
}

/// A time and up to a fifth of it more, so that many do not ask in step.
fn lengthened(time: Duration) -> Duration {
    time.mul_f64(1.0 + rand::random::<f64>() / 5.0)
}
