//! What a client may do per second: pings as gRPC allows them, and frames that carry nothing.
//!
//! Time is an argument: how long the connection has existed.

use std::time::Duration;

use super::head::{Head, flag, kind};

/// How often a client may ping while it has streams: grpc-go's default enforcement policy.
const PING_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How often it may ping without streams, which grpc-go calls none.
const IDLE_PING_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// How often a peer may ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingPolicy {
    /// While it has streams.
    pub with_streams: Duration,
    /// Without any.
    pub without: Duration,
}

impl PingPolicy {
    /// For clients.
    pub const CLIENT: Self = Self { with_streams: PING_INTERVAL, without: IDLE_PING_INTERVAL };
    /// For agents: what the reference's server sets on its port for them.
    pub const AGENT: Self = Self { with_streams: Duration::from_secs(30), without: Duration::from_secs(30) };
}

impl Default for PingPolicy {
    fn default() -> Self {
        Self::CLIENT
    }
}

/// Pings too early that are overlooked, as in grpc-go.
const MAX_PING_STRIKES: u8 = 2;

/// How much a client may do within a second without sending or being sent anything. One frame counts one, and a large
/// header block more.
const MAX_IDLE_COST: u32 = 10_000;

/// What a frame with payload, or one that the server sends, allows for. grpc-go sends two WINDOW_UPDATE and a PING for a
/// frame that it receives; opening and closing a dial takes some five frames in each direction.
const CREDIT: u32 = 4;

/// Octets of work that cost as much as another frame.
const WORK_PER_COST: usize = 512;

/// What one connection may do before the other tasks of its thread have a turn: some tenths of a millisecond of work.
const MAX_TURN_COST: u32 = 256;

/// Frames with more payload than this do not count for the turn: the runtime counts reads of a socket itself.
const SMALL_BYTES: u32 = 1024;

/// A padded DATA frame may be all padding; above this length it cannot.
const MAX_PADDING_BYTES: u32 = 256;

/// Beyond this many open streams no more are told apart. The HTTP/2 library refuses them long before.
const MAX_KNOWN_STREAMS: usize = 16 * 1024;

/// How a client has broken the rules of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Violation {
    /// More pings than gRPC's keepalive policy allows.
    TooManyPings = 1,
    /// Thousands of frames that carry no payload.
    Flood = 2,
    /// A header block that is larger, or in more pieces, than any honest one.
    HeadersTooLarge = 3,
    /// A header block that does not follow RFC 7541.
    BadCompression = 4,
}

impl Violation {
    /// Every violation.
    pub const ALL: [Self; 4] = [Self::TooManyPings, Self::Flood, Self::HeadersTooLarge, Self::BadCompression];

    /// What to log and to tell the client; gRPC's own word where it has one.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooManyPings => "too_many_pings",
            Self::Flood => "too_many_frames_without_payload",
            Self::HeadersTooLarge => "header_block_too_large",
            Self::BadCompression => "malformed_header_compression",
        }
    }
}

/// Counts the frames of one connection.
#[derive(Debug, Default)]
pub struct Pace {
    pings: PingPolicy,
    now: Duration,
    turn_cost: u32,
    /// The second that is counted, and what it has cost.
    second: Duration,
    idle_cost: u32,
    last_ping: Option<Duration>,
    strikes: u8,
    /// Whether the server has sent HEADERS or DATA since the last ping.
    answered: bool,
    streams: Streams,
    violation: Option<Violation>,
}

impl Pace {
    /// How often the client may ping, from now on.
    pub fn set_pings(&mut self, pings: PingPolicy) {
        self.pings = pings;
    }

    /// What follows happens at `now`, counted from the connection's begin.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// The client has sent a frame.
    pub fn received(&mut self, head: Head) {
        match head.kind {
            kind::DATA if has_payload(head) => {
                self.idle_cost = self.idle_cost.saturating_sub(CREDIT);
                self.turn_cost += u32::from(head.length <= SMALL_BYTES);
                return;
            }
            kind::HEADERS => self.streams.open(head.stream),
            kind::RST_STREAM => self.streams.close(head.stream),
            kind::PING if !head.has(flag::ACK) => self.ping(),
            _ => {}
        }
        self.spend(1);
    }

    /// Rewriting a header block has touched so many octets.
    pub fn worked(&mut self, octets: usize) {
        self.spend((octets / WORK_PER_COST) as u32);
    }

    /// The server has sent a frame.
    pub fn sent(&mut self, head: Head) {
        match head.kind {
            kind::DATA | kind::HEADERS => {
                self.answered = true;
                self.idle_cost = self.idle_cost.saturating_sub(CREDIT);
                if head.has(flag::END_STREAM) {
                    self.streams.close(head.stream);
                }
            }
            kind::RST_STREAM => self.streams.close(head.stream),
            _ => {}
        }
    }

    /// Whether a stream has had headers before.
    pub fn is_known(&self, stream: u32) -> bool {
        stream <= self.streams.newest
    }

    /// Whether the other tasks of the thread should have a turn now.
    pub fn is_tired(&self) -> bool {
        self.turn_cost >= MAX_TURN_COST
    }

    /// They have had one.
    pub fn rest(&mut self) {
        self.turn_cost = 0;
    }

    /// How the client has first broken the rules.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// The client has broken a rule.
    pub fn violate(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn spend(&mut self, cost: u32) {
        self.turn_cost += cost;
        if self.now.saturating_sub(self.second) >= Duration::from_secs(1) {
            self.second = self.now;
            self.idle_cost = 0;
        }
        self.idle_cost += cost;
        if self.idle_cost > MAX_IDLE_COST {
            self.violate(Violation::Flood);
        }
    }

    fn ping(&mut self) {
        let last = self.last_ping.replace(self.now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
            return;
        }
        let interval = if self.streams.open.is_empty() { self.pings.without } else { self.pings.with_streams };
        if last.is_some_and(|last| self.now.saturating_sub(last) < interval) {
            self.strikes += 1;
        }
        if self.strikes > MAX_PING_STRIKES {
            self.violate(Violation::TooManyPings);
        }
    }

    /// Octets held.
    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        self.streams.open.capacity() * size_of::<u32>()
    }
}

fn has_payload(head: Head) -> bool {
    let least = if head.has(flag::PADDED) { MAX_PADDING_BYTES + 1 } else { 1 };
    head.length >= least
}

/// The streams that the client has opened and nobody has ended, as the server sees it: a client that has only finished its
/// half still has the stream.
#[derive(Debug, Default)]
struct Streams {
    /// In the order of their numbers, which is the order of their opening.
    open: Vec<u32>,
    newest: u32,
}

impl Streams {
    fn open(&mut self, stream: u32) {
        if stream > self.newest {
            self.newest = stream;
            if self.open.len() < MAX_KNOWN_STREAMS {
                self.open.push(stream);
            }
        }
    }

    fn close(&mut self, stream: u32) {
        if let Ok(place) = self.open.binary_search(&stream) {
            self.open.remove(place);
        }
        if self.open.is_empty() {
            self.open = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests;
