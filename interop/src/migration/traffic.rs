//! What clients do all the time: short dials one after the other, and long ones that are in use as long as they live.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::holder;
use crate::load::path::{Dial, DialError};
use crate::matrix::client::Client;
use crate::matrix::open::{Echo, Open, ask};

/// Of each client, so many at once.
const SHORT: usize = 2;
const LONG: usize = 4;

/// Between two short dials of a kind, and between two uses of a long one.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
const LONG_PAUSE: Duration = Duration::from_millis(50);

/// An echo that takes longer has failed.
const ECHO_WITHIN: Duration = Duration::from_secs(5);

/// What became of dials since this was last asked.
#[derive(Debug, Default)]
pub struct Counts {
    /// Short dials that were made and answered an echo.
    pub served: u64,
    /// Dials that found no socket, or one that refused, and were made at the other server.
    pub socket_gone: u64,
    /// Dials that a server refused for want of an agent, and were made at the other server.
    pub no_agent: u64,
    /// Dials that failed, each with its story.
    pub failed: Vec<String>,
    /// The longest time from a short dial to its echo, wherever it was made.
    pub slowest: Duration,
    /// Long dials that ended before their clients wished.
    pub cut: Vec<Cut>,
}

/// The end of a long dial that its client did not wish.
#[derive(Debug)]
pub struct Cut {
    /// Through which server it went.
    pub server: usize,
    /// Through which agent, if that could be told.
    pub agent: Option<usize>,
    /// What its client saw.
    pub error: String,
}

/// Running clients; they stop when this is dropped.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    _echo: Echo,
    _clients: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    doors: Vec<Door>,
    echo: SocketAddr,
    agents: Mutex<Vec<u32>>,
    counts: Mutex<Counts>,
    questions: AtomicU64,
    start: Instant,
}

/// A server, as clients see it.
struct Door {
    client: Client,
    /// Nobody is sent here.
    closed: AtomicBool,
    /// Short dials that are on their way here.
    busy: AtomicUsize,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("closed", &self.closed).field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl Traffic {
    /// Starts the clients of these servers; `agents` are the agents' process ids.
    ///
    /// # Errors
    /// When there is no port for the target.
    pub fn start(clients: Vec<Client>, agents: Vec<u32>) -> anyhow::Result<Self> {
        let echo = Echo::start(Ipv4Addr::LOCALHOST)?;
        let door = |client| Door { client, closed: AtomicBool::new(false), busy: AtomicUsize::new(0) };
        let shared = Arc::new(Shared {
            doors: clients.into_iter().map(door).collect(),
            echo: echo.address,
            agents: Mutex::new(agents),
            counts: Mutex::default(),
            questions: AtomicU64::new(0),
            start: Instant::now(),
        });
        let mut clients = JoinSet::new();
        for home in 0..shared.doors.len() {
            for _ in 0..SHORT {
                clients.spawn(short_dials(shared.clone(), home));
            }
            for _ in 0..LONG {
                clients.spawn(long_dials(shared.clone(), home));
            }
        }
        Ok(Self { shared, _echo: echo, _clients: clients })
    }

    /// What became of dials since this was last called.
    pub fn take(&self) -> Counts {
        self.shared.counts(std::mem::take)
    }

    /// Sends clients elsewhere, as a load balancer in front of kube-apiservers does, and waits until no short dial is on
    /// its way to this server any more.
    pub async fn leave(&self, server: usize) {
        let door = &self.shared.doors[server];
        door.closed.store(true, Ordering::Relaxed);
        while door.busy.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Every client may use its own server again.
    pub fn come_back(&self) {
        self.shared.doors.iter().for_each(|door| door.closed.store(false, Ordering::Relaxed));
    }

    /// The agents' process ids have changed.
    pub fn agents(&self, ids: Vec<u32>) {
        *self.shared.agents.lock().unwrap_or_else(PoisonError::into_inner) = ids;
    }
}

async fn short_dials(shared: Arc<Shared>, home: usize) {
    loop {
        sleep(SHORT_PAUSE).await;
        let start = Instant::now();
        let result = shared.somewhere(home, Kind::Short).await;
        let time = start.elapsed();
        let failed = result.map_err(|(server, error)| shared.story("a short dial", server, time, &error)).err();
        shared.counts(|counts| {
            counts.slowest = counts.slowest.max(time);
            counts.served += u64::from(failed.is_none());
            counts.failed.extend(failed);
        });
    }
}

async fn long_dials(shared: Arc<Shared>, home: usize) {
    loop {
        sleep(LONG_PAUSE).await;
        let start = Instant::now();
        match shared.somewhere(home, Kind::Long).await {
            Err((server, error)) => {
                let story = shared.story("the dial of a long one", server, start.elapsed(), &error);
                shared.counts(|counts| counts.failed.push(story));
            }
            Ok((_, None)) => {}
            Ok((server, Some(open))) => {
                let agent = shared.agent_of(&open);
                let error = use_until_it_ends(open).await;
                shared.counts(|counts| counts.cut.push(Cut { server, agent, error: format!("{error:#}") }));
            }
        }
    }
}

async fn use_until_it_ends(mut open: Open) -> anyhow::Error {
    loop {
        sleep(LONG_PAUSE).await;
        if let Err(error) = open.exchange().await {
            return error;
        }
    }
}

impl Shared {
    /// Dials at home, and at the other server if home is closed, is not there or has no agent. The server that was used
    /// comes with the result.
    async fn somewhere(&self, home: usize, kind: Kind) -> Result<(usize, Option<Open>), (usize, anyhow::Error)> {
        let others = (0..self.doors.len()).filter(|&other| other != home);
        let mut open = std::iter::once(home).chain(others).filter(|&n| !self.doors[n].closed.load(Ordering::Relaxed));
        let mut server = open.next().unwrap_or(home);
        loop {
            let door = &self.doors[server];
            door.busy.fetch_add(1, Ordering::Relaxed);
            let result = match kind {
                Kind::Short => self.short_dial(&door.client).await.map(|()| None),
                Kind::Long => Open::dial(&door.client, Ipv4Addr::LOCALHOST).await.map(Some),
            };
            door.busy.fetch_sub(1, Ordering::Relaxed);
            let error = match result {
                Ok(open) => return Ok((server, open)),
                Err(error) => error,
            };
            let (Some(excuse), Some(next)) = (Excuse::of(&error), open.next()) else { return Err((server, error)) };
            self.counts(|counts| match excuse {
                Excuse::SocketGone => counts.socket_gone += 1,
                Excuse::NoAgent => counts.no_agent += 1,
            });
            server = next;
        }
    }

    async fn short_dial(&self, client: &Client) -> anyhow::Result<()> {
        let mut dial: Dial = client.dial(&self.echo.to_string()).await?;
        ask(&mut dial, self.questions.fetch_add(1, Ordering::Relaxed), ECHO_WITHIN).await?;
        dial.close().await?;
        Ok(())
    }

    fn agent_of(&self, open: &Open) -> Option<usize> {
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        holder::of(open.target.peer_addr().ok()?, &agents)
    }

    fn story(&self, what: &str, server: usize, time: Duration, error: &anyhow::Error) -> String {
        let (at, time) = (self.start.elapsed().as_secs_f64(), time.as_millis());
        format!("{at:.3} s: {what} through server {} failed after {time} ms: {error:#}", server + 1)
    }

    fn counts<T>(&self, with: impl FnOnce(&mut Counts) -> T) -> T {
        with(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a client wants of a dial.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// One echo.
    Short,
    /// To be kept.
    Long,
}

/// Why a dial may be made elsewhere: nothing of it has been begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excuse {
    SocketGone,
    NoAgent,
}

impl Excuse {
    fn of(error: &anyhow::Error) -> Option<Self> {
        match error.downcast_ref::<DialError>()? {
            DialError::Io(error) => {
                let gone = [std::io::ErrorKind::NotFound, std::io::ErrorKind::ConnectionRefused];
                gone.contains(&error.kind()).then_some(Self::SocketGone)
            }
            DialError::Refused(answer) => answer.contains("No agent available").then_some(Self::NoAgent),
            DialError::BytesWithReply(_) | DialError::TimedOut => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_begun_is_excused() {
        let gone = |kind| Excuse::of(&DialError::Io(std::io::Error::from(kind)).into());
        assert_eq!(gone(std::io::ErrorKind::NotFound), Some(Excuse::SocketGone));
        assert_eq!(gone(std::io::ErrorKind::ConnectionRefused), Some(Excuse::SocketGone));
        assert_eq!(gone(std::io::ErrorKind::ConnectionReset), None);
        let refused = |text: &str| Excuse::of(&DialError::Refused(text.to_owned()).into());
        assert_eq!(refused("currently no tunnels available: No agent available"), Some(Excuse::NoAgent));
        assert_eq!(refused("connection refused"), None);
        assert_eq!(Excuse::of(&anyhow::anyhow!("No agent available")), None);
    }
}
