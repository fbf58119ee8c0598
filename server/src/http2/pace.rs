//! What a client may do per second: pings as gRPC allows them, and frames that carry nothing.
//!
//! Time is an argument: how long the connection has existed.

use std::time::Duration;

use super::{
    code::{Code, Fault},
    head::{Head, flag, kind},
};

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

/// More pings than gRPC's keepalive policy allows; gRPC's own words.
pub const TOO_MANY_PINGS: Fault = Fault::new(Code::ENHANCE_YOUR_CALM, "too_many_pings");

/// Thousands of frames that carry no payload.
pub const FLOOD: Fault = Fault::new(Code::ENHANCE_YOUR_CALM, "too_many_frames_without_payload");

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
    violation: Option<Fault>,
}

impl Pace {
    /// For a client that may ping as often as this.
    pub fn new(pings: PingPolicy) -> Self {
        Self { pings, ..Self::default() }
    }

    /// What follows happens at `now`, counted from the connection's begin.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// The client has sent a frame. `has_streams`: it had streams before, or streams that it has only finished its half of.
    pub fn received(&mut self, head: Head, has_streams: bool) {
        match head.kind {
            kind::DATA if has_payload(head) => {
                self.idle_cost = self.idle_cost.saturating_sub(CREDIT);
                self.turn_cost += u32::from(head.length <= SMALL_BYTES);
                return;
            }
            kind::PING if !head.has(flag::ACK) => self.ping(has_streams),
            _ => {}
        }
        self.spend(1);
    }

    /// Rewriting a header block has touched so many octets.
    pub fn worked(&mut self, octets: usize) {
        self.spend((octets / WORK_PER_COST) as u32);
    }

    /// The server sends so many frames of HEADERS or DATA.
    pub fn answered(&mut self, frames: u32) {
        self.answered |= frames > 0;
        self.idle_cost = self.idle_cost.saturating_sub(CREDIT.saturating_mul(frames));
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
    pub fn violation(&self) -> Option<Fault> {
        self.violation
    }

    fn spend(&mut self, cost: u32) {
        self.turn_cost += cost;
        if self.now.saturating_sub(self.second) >= Duration::from_secs(1) {
            self.second = self.now;
            self.idle_cost = 0;
        }
        self.idle_cost += cost;
        if self.idle_cost > MAX_IDLE_COST {
            self.violation.get_or_insert(FLOOD);
        }
    }

    fn ping(&mut self, has_streams: bool) {
        let last = self.last_ping.replace(self.now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
            return;
        }
        let interval = if has_streams { self.pings.with_streams } else { self.pings.without };
        if last.is_some_and(|last| self.now.saturating_sub(last) < interval) {
            self.strikes += 1;
        }
        if self.strikes > MAX_PING_STRIKES {
            self.violation.get_or_insert(TOO_MANY_PINGS);
        }
    }
}

fn has_payload(head: Head) -> bool {
    let least = if head.has(flag::PADDED) { MAX_PADDING_BYTES + 1 } else { 1 };
    head.length >= least
}

#[cfg(test)]
mod tests;
