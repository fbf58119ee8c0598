//! Dials that carry bytes while something happens to the link, and know what came, whether it was right, and when.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::POLL;
use super::super::open::Open;
use super::OverLink;
use crate::ends::pattern;

/// Bytes written at once.
const CHUNK: usize = 16 * 1024;
/// Bytes of an echo: a key press with what is around it.
const ECHO: usize = 64;
/// A dial of the beginning, on a good link, has this long.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// What a dial does, without end until it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The target sends as fast as it can.
    ToClient,
    /// The client sends as fast as it can.
    ToTarget,
    /// The client sends some bytes, waits until they are back, and so long besides.
    Echo(Duration),
}

impl Kind {
    /// Both transfers, and echoes all the time.
    pub const ALL: [Self; 3] = [Self::ToClient, Self::ToTarget, Self::Echo(Duration::from_millis(50))];

    /// Steps (bytes or echoes) after which a flow is well under way, whatever was buffered on its way.
    fn many(self) -> u64 {
        if let Self::Echo(_) = self { 3 } else { 256 * 1024 }
    }
}

/// Dials under way.
#[derive(Debug)]
pub struct Traffic {
    flows: Vec<Arc<Flow>>,
    ends: JoinSet<Ended>,
    stop: CancellationToken,
}

/// One of them.
#[derive(Debug)]
struct Flow {
    kind: Kind,
    progress: Mutex<Progress>,
}

/// What has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Bytes or echoes.
    steps: u64,
    last: Instant,
    /// Between two steps.
    longest: Duration,
}

/// One end of a dial is over.
#[derive(Debug)]
struct Ended {
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
            let progress = Progress { steps: 0, last: Instant::now(), longest: Duration::ZERO };
            let flow = Arc::new(Flow { kind, progress: Mutex::new(progress) });
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
        let ended = move |end, (bytes, result)| Ended { kind, end, bytes, result, at: Instant::now() };
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
            let other = ended.iter().find(|other| (other.kind, other.end) == (one.kind, one.end.other()));
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

impl Flow {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self, steps: u64) {
        let mut progress = self.progress();
        progress.steps += steps;
        progress.longest = progress.longest.max(progress.last.elapsed());
        progress.last = Instant::now();
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

/// Sends until it is told to stop, and then the end.
async fn send(mut to: impl AsyncWrite + Unpin, stop: &CancellationToken) -> (usize, io::Result<()>) {
    let mut sent = 0;
    while !stop.is_cancelled() {
        if let Err(error) = to.write_all(&pattern(sent, CHUNK)).await {
            return (sent, Err(error));
        }
        sent += CHUNK;
    }
    (sent, to.shutdown().await)
}

/// Receives until the end, and checks each byte.
async fn receive(mut from: impl AsyncRead + Unpin, flow: &Flow, stop: &CancellationToken) -> (usize, io::Result<()>) {
    let mut buffer = vec![0; 4 * CHUNK];
    let mut received = 0;
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return (received, expected_end(stop)),
            Ok(bytes) => {
                assert!(buffer[..bytes] == pattern(received, bytes), "a byte after {received} is not what was sent");
                received += bytes;
                flow.moved(bytes as u64);
            }
            Err(error) => return (received, Err(error)),
        }
    }
}

/// Sends bytes and waits for them to come back, again and again.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    pause: Duration,
    flow: &Flow,
    stop: &CancellationToken,
) -> (usize, io::Result<()>) {
    let mut asked = 0;
    let mut round = async || {
        let bytes = pattern(asked, ECHO);
        stream.write_all(&bytes).await?;
        let mut back = [0; ECHO];
        stream.read_exact(&mut back).await?;
        assert!(back == bytes[..], "another echo than what was sent after {asked}");
        asked += ECHO;
        flow.moved(1);
        // The pause need not be waited for to the end.
        let _ = timeout(pause, stop.cancelled()).await;
        io::Result::Ok(())
    };
    let result = async {
        while !stop.is_cancelled() {
            round().await?;
        }
        Ok(())
    };
    if let Err(error) = result.await {
        return (asked, Err(error));
    }
    let end = async {
        stream.shutdown().await?;
        if stream.read(&mut [0]).await? == 0 { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    };
    (asked, end.await)
}

/// Sends back what comes.
async fn answer(mut stream: TcpStream, stop: &CancellationToken) -> (usize, io::Result<()>) {
    let (mut read, mut write) = stream.split();
    let mut buffer = [0; ECHO];
    let mut answered = 0;
    let result = loop {
        match read.read(&mut buffer).await {
            Ok(0) => break expected_end(stop),
            Ok(bytes) => {
                if let Err(error) = write.write_all(&buffer[..bytes]).await {
                    break Err(error);
                }
                answered += bytes;
            }
            Err(error) => break Err(error),
        }
    };
    (answered, result)
}

/// A clean end, which is none unless it was told to stop.
fn expected_end(stop: &CancellationToken) -> io::Result<()> {
    if stop.is_cancelled() { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
