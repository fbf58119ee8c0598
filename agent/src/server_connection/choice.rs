//! Which transport is tried first, and when QUIC is tried again by an agent that had to take gRPC: a value. Time and
//! randomness are arguments. Reasons: docs/decisions/0012-racing-quic-and-tcp.md.

use std::{collections::HashMap, fmt, time::Duration};

use konnectivity_transport::id::ServerId;
use tokio::time::Instant;

/// How long QUIC has the field to itself. The "connection attempt delay" of RFC 8305, section 5: most paths have
/// answered by then, and nobody notices the wait.
pub const HEAD_START: Duration = Duration::from_millis(250);

/// How long gRPC has the field to itself where QUIC has proved unstable or silent. Longer than QUIC's: TCP, TLS and HTTP/2 take
/// twice as many round trips, and QUIC would win on every long path again.
pub const GRPC_HEAD_START: Duration = Duration::from_secs(2);

/// Two losses of QUIC to one server within this time make it unstable.
pub const UNSTABLE: Duration = Duration::from_secs(60);

/// For so long after QUIC was lost by silence it has no head start: what has failed for an idle timeout is not waited for.
/// Where it works again all the same it is through sooner, or takes over a moment later.
const JUST_LOST: Duration = Duration::from_secs(5);

/// The longest pause between attempts to come back to QUIC, before jitter; and how long a connection must have lasted
/// for the pauses to begin anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A pause is lengthened by up to this part of itself: agents that lost QUIC together must not come back in step.
const JITTER: f64 = 0.2;

/// The pause when QUIC works but a balancer led to another server, and how many such pauses there are in a row.
const SOON: Duration = Duration::from_secs(1);
const SOON_ATTEMPTS: u32 = 5;

/// Servers that are remembered. Those of which nothing was heard for longest make room.
const MOST_SERVERS: usize = 1_024;

/// What carries dials between a server and this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A QUIC connection with a stream for each dial.
    Quic,
    /// One gRPC stream on TCP, as the reference has it.
    Grpc,
}

impl Transport {
    /// Its name in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Grpc => "grpc",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What the operator wants (`--transport`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// QUIC where it works, gRPC as long as it does not.
    Auto,
    /// This one and no other.
    Only(Transport),
}

/// How the next connection is to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Only so.
    Only(Transport),
    /// Both; `first` has a head start.
    Race {
        /// Which begins.
        first: Transport,
        /// After this long, or a failure, the other one begins.
        head_start: Duration,
    },
}

/// Why a transport serves, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `--transport` names it.
    Configured,
    /// QUIC has answered the first attempt.
    QuicAnswered,
    /// QUIC has not answered in time.
    NoQuicAnswer,
    /// QUIC has failed.
    QuicFailed,
    /// QUIC was lost by silence just now, and has not come back at once.
    QuicLost,
    /// QUIC was lost so twice within a minute.
    QuicUnstable,
    /// QUIC has answered an attempt to come back to it.
    QuicBack,
    /// gRPC was to be first and has failed.
    GrpcFailed,
}

impl Reason {
    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::QuicAnswered => "quic_answered",
            Self::NoQuicAnswer => "no_quic_answer",
            Self::QuicFailed => "quic_failed",
            Self::QuicLost => "quic_lost",
            Self::QuicUnstable => "quic_unstable",
            Self::QuicBack => "quic_back",
            Self::GrpcFailed => "grpc_failed",
        }
    }
}

/// Why a transport serves, for people too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// For metrics.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

impl Why {
    /// A reason in words.
    pub fn new(reason: Reason, text: impl ToString) -> Self {
        Self { reason, text: text.to_string() }
    }
}

/// What became of QUIC while gRPC came into use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quic {
    /// It was not tried: it had proved unstable, or silent.
    NotTried,
    /// No answer yet, after this head start.
    Silent(Duration),
    /// This went wrong.
    Failed(String),
}

/// What became of an attempt to come back to QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempted {
    /// No connection, or there was no attempt yet.
    Failed,
    /// A connection to another server: a balancer chose it.
    OtherServer,
}

/// What was learned of the path to the servers.
#[derive(Debug)]
pub struct Choice {
    wanted: Wanted,
    first_pause: Duration,
    /// gRPC goes first: QUIC connections come up on this path and do not stay.
    unstable: bool,
    /// When QUIC to some server was last lost by silence.
    lost: Option<Instant>,
    /// Until then gRPC goes first: QUIC was silent in a race, and an agent that looks for more servers races often.
    quiet: Option<Instant>,
    /// Races in a row in which QUIC was silent.
    silences: u32,
    servers: HashMap<ServerId, Known>,
}

/// What was learned of one server.
#[derive(Debug)]
struct Known {
    /// When something was last heard.
    heard: Instant,
    /// When QUIC was last lost by silence, and why in words.
    lost: Option<Instant>,
    /// How many times in a row QUIC was lost by silence before it had proved stable.
    losses: u32,
    /// Attempts in a row that have failed.
    failures: u32,
    /// Soon attempts that are left.
    soon: u32,
}

impl Choice {
    /// Nothing is known yet. `first_pause` is `--quic-retry-interval`.
    pub fn new(wanted: Wanted, first_pause: Duration) -> Self {
        Self { wanted, first_pause, unstable: false, lost: None, quiet: None, silences: 0, servers: HashMap::new() }
    }

    /// Whether an agent on gRPC is to come back to QUIC.
    pub fn comes_back(&self) -> bool {
        self.wanted == Wanted::Auto
    }

    /// How to try the next connection.
    pub fn plan(&self, now: Instant) -> Plan {
        let just_lost = self.lost.is_some_and(|lost| now.saturating_duration_since(lost) <= JUST_LOST);
        match self.wanted {
            Wanted::Only(transport) => Plan::Only(transport),
            Wanted::Auto if self.unstable || self.quiet.is_some_and(|until| now < until) => {
                Plan::Race { first: Transport::Grpc, head_start: GRPC_HEAD_START }
            }
            Wanted::Auto => {
                let head_start = if just_lost { Duration::ZERO } else { HEAD_START };
                Plan::Race { first: Transport::Quic, head_start }
            }
        }
    }

    /// A QUIC connection to `server` is up. Whatever spoke for gRPC does so no more: either QUIC has come back, or gRPC,
    /// which was first, does not work.
    pub fn on_quic(&mut self, server: &ServerId, now: Instant) {
        self.unstable = false;
        self.quiet = None;
        self.silences = 0;
        let known = self.known(server, now);
        known.failures = 0;
        known.soon = SOON_ATTEMPTS;
    }

    /// A QUIC connection to `server` has ended after it has `lasted` so long; `silent`: nothing was heard for its idle
    /// timeout. Other ends say nothing about the path.
    pub fn on_quic_ended(&mut self, server: &ServerId, silent: bool, lasted: Duration, now: Instant) {
        let known = self.known(server, now);
        if lasted >= LONGEST_PAUSE {
            known.losses = 0;
        }
        if !silent {
            return;
        }
        known.losses = known.losses.saturating_add(1);
        let before = known.lost.replace(now);
        self.lost = Some(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) <= UNSTABLE) {
            self.unstable = true;
        }
    }

    /// A gRPC connection to `server` is up: says why it is not QUIC that serves.
    pub fn on_grpc(&mut self, server: &ServerId, quic: &Quic, now: Instant) -> Why {
        let lost = self.known(server, now).lost.map(|lost| now.saturating_duration_since(lost));
        if let Quic::Silent(_) = quic {
            self.silences = self.silences.saturating_add(1);
            self.quiet = Some(now + growing(self.first_pause, self.silences - 1));
        }
        let was_lost = lost.is_some_and(|ago| ago <= UNSTABLE);
        let fell_silent = |then: String| Why::new(Reason::QuicLost, format!("the QUIC connection fell silent{then}"));
        match quic {
            Quic::NotTried if !self.unstable => {
                Why::new(Reason::NoQuicAnswer, "no QUIC answer of late, so TCP went first")
            }
            Quic::NotTried => Why::new(Reason::QuicUnstable, "QUIC was lost twice within a minute, so TCP went first"),
            Quic::Silent(waited) if waited.is_zero() => {
                fell_silent(", and TCP was through before a new one".to_owned())
            }
            Quic::Silent(waited) if was_lost => fell_silent(format!("; then no QUIC answer within {waited:?}")),
            Quic::Silent(waited) => Why::new(Reason::NoQuicAnswer, format!("no QUIC answer within {waited:?}")),
            Quic::Failed(error) if was_lost => fell_silent(format!("; then QUIC failed: {error}")),
            Quic::Failed(error) => Why::new(Reason::QuicFailed, format!("QUIC failed: {error}")),
        }
    }

    /// How long to wait until QUIC to `server` is tried again. `random` is drawn by the caller from `[0, 1)`.
    pub fn pause(&mut self, server: &ServerId, attempted: Attempted, now: Instant, random: f64) -> Duration {
        let (first, known) = (self.first_pause, self.known(server, now));
        let pause = match attempted {
            Attempted::OtherServer if known.soon > 0 => {
                known.soon -= 1;
                first.min(SOON)
            }
            // QUIC works: the pauses do not grow.
            Attempted::OtherServer => {
                known.soon = SOON_ATTEMPTS;
                first
            }
            Attempted::Failed => {
                known.soon = SOON_ATTEMPTS;
                known.failures = known.failures.saturating_add(1);
                let doublings = known.losses.saturating_sub(1).saturating_add(known.failures - 1);
                growing(first, doublings)
            }
        };
        jittered(pause, random)
    }

    fn known(&mut self, server: &ServerId, now: Instant) -> &mut Known {
        if !self.servers.contains_key(server) && self.servers.len() >= MOST_SERVERS {
            let oldest = self.servers.iter().min_by_key(|(_, known)| known.heard).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.servers.remove(&id));
        }
        let new = Known { heard: now, lost: None, losses: 0, failures: 0, soon: SOON_ATTEMPTS };
        let known = self.servers.entry(server.clone()).or_insert(new);
        known.heard = now;
        known
    }
}

/// A pause after so many doublings.
fn growing(first: Duration, doublings: u32) -> Duration {
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(LONGEST_PAUSE.max(first))
}

fn jittered(pause: Duration, random: f64) -> Duration {
    let more = pause.as_secs_f64() * JITTER * random.clamp(0.0, 1.0);
    pause.saturating_add(Duration::try_from_secs_f64(more).unwrap_or_default())
}

#[cfg(test)]
mod tests;
