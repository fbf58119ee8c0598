//! Connects to the target of a dial, within one time limit that counts everything, and says what went wrong in the
//! words of the reference: clients match on the text of a Go agent.
//!
//! ```text
//! "host:port" --> address (parse) --> lookup (system resolver) --> happy_eyeballs --> TCP connect
//!                                                  every failure --> error (Go's text, kind for the wire)
//! ```

mod address;
mod errno;
mod error;
mod lookup;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

pub use self::error::TargetError;
use self::{
    address::{Address, Host},
    error::AttemptError,
    lookup::Lookups,
};
use crate::happy_eyeballs::{STAGGER, order, race};

/// A limit above a year is a year: instants cannot be added to without bound.
const LONGEST_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// TCP keep-alive towards targets, as Go's dialer sets it: first probe after 15 s of silence.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
/// Time between two unanswered probes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered probes that end the connection.
const KEEP_ALIVE_PROBES: u32 = 9;

/// How often a connect that found itself is tried again, as Go does.
const SELF_CONNECT_RETRIES: usize = 2;

/// Connects to `address` (`host:port`; IPv6 in brackets; an empty host is this machine) within `limit`. The socket
/// has `TCP_NODELAY` and keep-alive set.
///
/// At most [`lookup::MOST_LOOKUPS`] names are resolved at once in this process; waiting for a turn counts towards
/// `limit`. Literal addresses never wait.
///
/// # Errors
/// [`TargetError`]: Go's text and the kind to send in a `DialReply`.
///
/// # Cancel safety
/// Dropping the future abandons the connect and closes its sockets. A name resolution under way goes on in its
/// thread, because the C library cannot be interrupted, but nobody is told.
pub async fn connect(address: &str, limit: Duration) -> Result<TcpStream, TargetError> {
    connect_with(Lookups::of_process(), address, limit).await
}

async fn connect_with(lookups: &Arc<Lookups>, address: &str, limit: Duration) -> Result<TcpStream, TargetError> {
    let deadline = Instant::now() + limit.min(LONGEST_LIMIT);
    let address = Address::parse(address)?;
    let candidates = match address.host() {
        Host::Literal(ip) => vec![*ip],
        Host::Name(name) => match timeout_at(deadline, lookups.addresses(name)).await {
            Ok(found) => found.map_err(|error| TargetError::lookup(name, &error))?.to_vec(),
            Err(_elapsed) => return Err(TargetError::lookup_timed_out(name)),
        },
    };
    let candidates = candidates.into_iter().map(|ip| address.with_port(ip)).collect();

    // Each attempt has the deadline of the whole, so that the race ends at it with every failure at hand.
    race(order(candidates), STAGGER, |candidate| attempt(candidate, deadline)).await.map_err(|failures| match failures
        .first()
    {
        // Go reports the first address it tried.
        Some((candidate, error)) => TargetError::attempt(&address.shown(*candidate), error),
        None => TargetError::no_address(address.text()),
    })
}

async fn attempt(address: SocketAddr, deadline: Instant) -> Result<TcpStream, AttemptError> {
    // An address whose turn comes too late gets no socket.
    if Instant::now() >= deadline {
        return Err(AttemptError::TimedOut);
    }
    timeout_at(deadline, open(address)).await.unwrap_or(Err(AttemptError::TimedOut))
}

async fn open(address: SocketAddr) -> Result<TcpStream, AttemptError> {
    for _ in 0..=SELF_CONNECT_RETRIES {
        let socket = new_socket(address).map_err(AttemptError::Socket)?;
        let stream = socket.connect(address).await.map_err(AttemptError::Connect)?;
        if !is_connected_to_itself(&stream) {
            return Ok(stream);
        }
    }
    Err(AttemptError::Connect(io::Error::from_raw_os_error(nix::libc::ECONNREFUSED)))
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Neither is a reason not to connect; Go ignores their failure too.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(&socket).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE_IDLE)
            .with_interval(KEEP_ALIVE_INTERVAL)
            .with_retries(KEEP_ALIVE_PROBES),
    );
    Ok(socket)
}

/// Whether a connect to a local port without listener was given that very port as its source, and so met itself
/// (TCP's simultaneous open, RFC 9293, section 3.5). The client would talk to its own echo.
fn is_connected_to_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

#[cfg(test)]
mod tests;
