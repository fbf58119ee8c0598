//! The socket that clients connect to, or agents over TCP (here they are called clients, too): bind, accept, and carry on
//! whatever goes wrong with one of them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    os::unix::net::UnixListener as StdUnixListener,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use konnectivity_process::{listen::is_of_one_connection, reload::Current, sparse::Sparse};
use tokio::{
    net::{TcpListener, UnixListener},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use self::{
    tls::{HandshakeError, handshake},
    unix::{BindUnixError, SocketFile},
};
use super::stream::PeerStream;

pub mod tls;
pub mod unix;

/// TLS handshakes under way at once: a bound for what clients can cost that have not shown a certificate. More of them
/// wait in the kernel's backlog until one is over or the oldest has had [`HANDSHAKE_SHARE`].
const MAX_HANDSHAKES: usize = 1024;

/// How long a handshake may take when others wait for its place. Clients that connect and say nothing must not keep out
/// those that do; but 2,000 honest ones at once, who take a second or two, must not push each other out either.
const HANDSHAKE_SHARE: Duration = Duration::from_secs(5);

/// How long to wait before accepting again when the process or the machine has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that clients connect to.
#[derive(Debug)]
pub struct Listener(Bound);

#[derive(Debug)]
enum Bound {
    Unix(StdUnixListener, SocketFile),
    Tls(std::net::TcpListener, Current<tls::Settings>),
}

/// Who connects to a listener, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Peers {
    /// Clients of the frontend.
    #[default]
    Clients,
    /// Agents over TCP.
    Agents,
}

impl Peers {
    /// One of them, in words.
    fn one(self) -> &'static str {
        match self {
            Self::Clients => "a client",
            Self::Agents => "an agent",
        }
    }
}

/// What has happened at a listener since the start.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Who connects to it.
    pub peers: Peers,
    /// Times that accepting failed.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed, for want of a certificate for instance. Probes that say nothing don't count.
    pub handshake_errors: AtomicU64,
}

impl Listener {
    /// Makes a Unix socket that the owner and the group may connect to (mode 0770, whatever the umask). Its file goes
    /// when the listener goes, unless another process has put its own there by then.
    ///
    /// # Errors
    /// See [`BindUnixError`].
    pub fn unix(path: &Path, delete_existing: bool) -> Result<Self, BindUnixError> {
        let (socket, file) = unix::bind(path, delete_existing)?;
        Ok(Self(Bound::Unix(socket, file)))
    }

    /// Clients over TLS, on a TCP socket that listens already. `settings` come from [`tls::settings`]; each handshake takes
    /// them as they are when it begins.
    ///
    /// # Errors
    /// When the socket refuses an option.
    pub fn tls(socket: std::net::TcpListener, settings: Current<tls::Settings>) -> io::Result<Self> {
        tls::prepare(&socket)?;
        Ok(Self(Bound::Tls(socket, settings)))
    }

    /// Where a TCP socket listens; for messages.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Bound::Unix(..) => None,
            Bound::Tls(socket, _) => socket.local_addr().ok(),
        }
    }

    /// Accepts clients until `stop`, and gives each to `on_client`. Clients in the middle of a TLS handshake are
    /// disconnected by `stop`.
    ///
    /// What goes wrong with accepting or with a handshake is counted and logged, not returned: it must not end the
    /// service.
    ///
    /// # Errors
    /// When the runtime doesn't take the socket.
    ///
    /// # Cancel safety
    /// Cancelling is the same as `stop`.
    pub async fn run(
        self,
        stop: CancellationToken,
        counts: &ListenerCounts,
        on_client: impl FnMut(PeerStream),
    ) -> io::Result<()> {
        match self.0 {
            Bound::Unix(socket, file) => {
                let socket = UnixListener::from_std(socket)?;
                accept_plain(&socket, stop, counts, on_client).await;
                // Before the socket closes: who comes now had better find no file than one that refuses.
                drop(file);
            }
            Bound::Tls(socket, settings) => {
                let socket = TcpListener::from_std(socket)?;
                accept_tls(&socket, &settings, stop, counts, on_client).await;
            }
        }
        Ok(())
    }
}

async fn accept_plain(
    socket: &UnixListener,
    stop: CancellationToken,
    counts: &ListenerCounts,
    mut on_client: impl FnMut(PeerStream),
) {
    let mut log = AcceptLog::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            (stream, _) = accept(|cx| socket.poll_accept(cx), counts, &mut log) => on_client(stream.into()),
        }
    }
}

async fn accept_tls(
    socket: &TcpListener,
    settings: &Current<tls::Settings>,
    stop: CancellationToken,
    counts: &ListenerCounts,
    mut on_client: impl FnMut(PeerStream),
) {
    let mut handshakes = JoinSet::new();
    let mut oldest_first = VecDeque::new();
    let (mut accept_log, mut handshake_log) = (AcceptLog::default(), Sparse::default());
    loop {
        let now = Instant::now();
        let full_until = make_room(&mut oldest_first, now);
        tokio::select! {
            () = stop.cancelled() => return,
            Some(finished) = handshakes.join_next() => match finished {
                Ok(Ok(stream)) => on_client(stream),
                Ok(Err(error)) => handshake_failed(&error, counts, &mut handshake_log),
                Err(error) if error.is_cancelled() => {
                    counts.handshake_errors.fetch_add(1, Relaxed);
                    if let Some(unlogged) = handshake_log.due(Instant::now()) {
                        tracing::warn!(unlogged, "too many TLS handshakes under way; the oldest was given up");
                    }
                }
                Err(panic) => tracing::error!(%panic, "a TLS handshake ended in a panic"),
            },
            () = tokio::time::sleep_until(full_until.unwrap_or(now).into()), if full_until.is_some() => {}
            (stream, peer) = accept(|cx| socket.poll_accept(cx), counts, &mut accept_log),
                if full_until.is_none() =>
            {
                let handshake = handshakes.spawn(handshake(stream, peer, (*settings.get()).clone()));
                oldest_first.push_back((Instant::now(), handshake));
            }
        }
    }
}

/// Makes room for one more handshake: forgets those that are over, and ends the oldest if there are too many and it has
/// had its time. If it has not, returns when it will have.
fn make_room(oldest_first: &mut VecDeque<(Instant, AbortHandle)>, now: Instant) -> Option<Instant> {
    while oldest_first.front().is_some_and(|(_, handshake)| handshake.is_finished()) {
        oldest_first.pop_front();
    }
    // Only when the oldest is slow are the others looked at.
    if oldest_first.len() >= MAX_HANDSHAKES {
        oldest_first.retain(|(_, handshake)| !handshake.is_finished());
    }
    if oldest_first.len() < MAX_HANDSHAKES {
        return None;
    }
    let end = oldest_first.front().map(|(began, _)| *began + HANDSHAKE_SHARE)?;
    if now < end {
        return Some(end);
    }
    if let Some((_, oldest)) = oldest_first.pop_front() {
        oldest.abort();
    }
    None
}

/// Accepts one connection, trying for as long as it takes.
///
/// # Cancel safety
/// No connection is lost by cancelling.
async fn accept<T>(
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    counts: &ListenerCounts,
    log: &mut AcceptLog,
) -> T {
    loop {
        if let Some(until) = log.paused_until {
            tokio::time::sleep_until(until).await;
            log.paused_until = None;
        }
        let error = match poll_fn(&mut poll).await {
            Ok(accepted) => return accepted,
            Err(error) => error,
        };
        counts.accept_errors.fetch_add(1, Relaxed);
        if let Some(unlogged) = log.sparse.due(Instant::now()) {
            tracing::warn!(%error, unlogged, "cannot accept {}; trying on", counts.peers.one());
        }
        if !is_of_one_connection(&error) {
            log.paused_until = Some(tokio::time::Instant::now() + PAUSE);
        }
    }
}

/// What a listener remembers of failed accepts. The pause is kept here, because the future that waits for it is dropped
/// whenever something else happens at the listener.
#[derive(Debug, Default)]
struct AcceptLog {
    sparse: Sparse,
    paused_until: Option<tokio::time::Instant>,
}

fn handshake_failed(error: &HandshakeError, counts: &ListenerCounts, log: &mut Sparse) {
    let peer = error.peer;
    if error.is_probe() {
        tracing::debug!(%peer, "{} connected and left without a word", counts.peers.one());
        return;
    }
    counts.handshake_errors.fetch_add(1, Relaxed);
    if let Some(unlogged) = log.due(Instant::now()) {
        tracing::warn!(%peer, error = %error.kind, unlogged, "TLS handshake with {} failed", counts.peers.one());
    }
}

#[cfg(test)]
mod tests;
