//! What the controller is about, and what it does next.

use std::time::{Duration, Instant};

use super::{Compete, Load, Model, Round, rival::Look};
use crate::congestion::loss::{self, MARGIN};

/// Start-up ends when the rate has not grown by a quarter for so many rounds.
const FULL_ROUNDS: u32 = 3;
const GROWTH: f64 = 1.25;

/// Rounds between two looks for more, at least; up to three more, so that flows do not look at the same time.
const CRUISE: u32 = 6;

/// A look for more puts this much in flight, and the next round this much, so that the queue is empty again.
const UP: f64 = 1.25;
const DOWN: f64 = 0.9;

/// If it finds this much more, the next look follows at once.
const FOUND: f64 = 1.1;

/// Loss that is looked into at once.
const HEAVY: f64 = 0.3;

/// The step by which a bound is first tried.
const STEP: f64 = 0.1;

/// The largest step beyond a bound that was shown to be there: a policer may have saved up for a while.
const MOST_STEP: f64 = 0.25;

/// Loss below the bound takes this off it.
const BACK: f64 = 0.96;

/// What the controller is about.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Doubling the window each round, to find the path's rate.
    Startup { full: f64, rounds: u32 },
    /// Letting go of the queue that start-up has built.
    Drain { rounds: u32 },
    /// Using what was found.
    Cruise { left: u32 },
    /// Asking for more.
    Up { from: f64 },
    /// Asking for less, so that the queue is empty and shows the path's own delay and loss.
    Down { from: f64 },
    /// The queue is long: asking for as much as was delivered, to see if it is ours.
    Brake { before: f64, rounds: u32, standing: f64, rtt: f64 },
    /// Much is lost: asking for less, to see if it is our doing.
    Test { lost: f64, rounds: u32, seen: f64 },
    /// Others keep the queue long: doing as they do.
    Compete { rival: Compete, look_at: Instant, floors: [f64; 2] },
    /// In between: asking for less, to see if they still do.
    Look { rival: Compete, rounds: u32, look: Look, floors: [f64; 2] },
}

impl Phase {
    pub(super) fn startup() -> Self {
        Self::Startup { full: 0.0, rounds: 0 }
    }

    pub(super) fn cruise(seed: u64) -> Self {
        Self::Cruise { left: CRUISE + (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62) as u32 }
    }

    /// How much it asks of the path.
    pub(super) fn load(&self) -> Load {
        match self {
            Self::Startup { .. } | Self::Up { .. } => Load::High,
            Self::Down { .. } | Self::Test { .. } | Self::Look { .. } => Load::Low,
            _ => Load::Even,
        }
    }
}

/// A window above which packets are lost.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    window: f64,
    step: f64,
    /// A test has shown that it is there; otherwise a look for more lost much, which may be chance.
    proven: bool,
}

impl Model {
    /// An acknowledgement came while the window was in use.
    pub(super) fn grow(&mut self, now: Instant, bytes: u64) {
        let rtt = Duration::from_secs_f64(self.low().min(10.0));
        match &mut self.phase {
            Phase::Startup { .. } => {
                if self.startup_overshoots() {
                    self.enter(Phase::Drain { rounds: 0 });
                } else {
                    self.set_window(self.window + bytes as f64);
                }
            }
            Phase::Compete { rival, .. } => {
                rival.on_ack(now, bytes as f64 / self.packet as f64, rtt);
                self.compete_window();
            }
            _ => {}
        }
    }

    /// Whether this round's packets, the first eight or more, all met a queue (RFC 9406, section 4.2), or a part of
    /// them was lost that no path loses by itself.
    fn startup_overshoots(&self) -> bool {
        let rise = (self.base() / 8.0).clamp(0.004, 0.016);
        let queued = self.round.samples >= 8 && self.round.least > self.base() + rise;
        let lost = self.round.lost > 8 * self.packet && self.round.lost > self.round.acked / 4;
        queued || lost
    }

    /// A router marked packets instead of dropping them (RFC 9002, section 7.1).
    pub(super) fn on_mark(&mut self) {
        let window = self.window * 0.85;
        if matches!(self.phase, Phase::Startup { .. }) {
            self.phase = Phase::cruise(self.measured_rounds);
        }
        self.bound = Some(Bound { window, step: STEP, proven: true });
        self.set_window(window);
    }

    /// Decides what the next round is for.
    pub(super) fn next_phase(&mut self, now: Instant, round: &Round, known: Option<&loss::Round>) {
        let standing = self.low() - self.delay.base();
        if matches!(self.phase, Phase::Cruise { .. } | Phase::Down { .. }) && round.samples > 0 {
            self.delay.vary(round.sum / f64::from(round.samples) - round.least);
        }
        if !round.limited {
            return;
        }
        self.judge(known);
        let long = standing > self.queue_limit();
        let next = match self.phase.clone() {
            Phase::Startup { full, rounds } => self.after_startup_round(full, rounds),
            Phase::Drain { rounds: 0 } => Phase::Drain { rounds: 1 },
            Phase::Drain { .. } => Phase::Up { from: self.bandwidth.get() },
            Phase::Cruise { .. } | Phase::Down { .. } if self.loses_ground(standing) => {
                self.compete(now, Compete::new(now, self.window / self.packet as f64))
            }
            Phase::Cruise { .. } | Phase::Up { .. } | Phase::Down { .. } if long => self.on_long_queue(now, standing),
            Phase::Cruise { left: 0 } => Phase::Up { from: self.bandwidth.get() },
            Phase::Cruise { left } => self.or_test(known, Phase::Cruise { left: left - 1 }),
            Phase::Up { from } => Phase::Down { from },
            Phase::Down { from } if self.bandwidth.get() > from * FOUND => Phase::Up { from: self.bandwidth.get() },
            Phase::Down { .. } => Phase::cruise(self.measured_rounds),
            Phase::Brake { before, rounds, standing: last, rtt } => {
                let lossless = (round.lost as f64) < (self.losses.base() + MARGIN) * round.acked as f64;
                self.after_brake(now, before, rounds, [last, standing], [rtt, round.least], lossless)
            }
            Phase::Test { lost, rounds, seen } => self.after_test(known, lost, rounds, seen),
            Phase::Compete { rival, look_at, floors } => {
                self.after_compete_round(now, rival, look_at, floors, round, known)
            }
            Phase::Look { rival, rounds, mut look, floors } => {
                let falls = round.least < 0.9 * look.floor;
                look.floor = look.floor.min(round.least);
                self.after_look(now, rival, rounds, look, floors, falls)
            }
        };
        self.before = round.least;
        self.enter(next);
    }

    /// Learns from a round's losses whether there is a bound.
    fn judge(&mut self, known: Option<&loss::Round>) {
        let Some(known) = known else { return };
        let noticeable = known.load == Load::Even && self.losses.is_noticeable(known, self.packet);
        if std::mem::replace(&mut self.noticed, noticeable) && noticeable {
            // What the bound was raised to last was too much.
            let least = 0.9 * self.lately() * self.base();
            if let Some(bound) = self.bound.as_mut().filter(|bound| bound.proven) {
                bound.window = (bound.window * BACK).max(least);
                bound.step = STEP;
            }
        }
        if known.load != Load::High || matches!(self.phase, Phase::Startup { .. }) {
            return;
        }
        let excessive = self.losses.is_excessive(known, self.packet);
        let target = self.target();
        match &mut self.bound {
            Some(bound) if excessive => bound.step = STEP,
            Some(bound) => {
                bound.window *= 1.0 + bound.step;
                bound.step = (bound.step * 2.0).min(if bound.proven { MOST_STEP } else { 1.0 });
                if bound.window > UP * target {
                    self.bound = None;
                }
            }
            None if excessive => self.bound = Some(Bound { window: target, step: STEP, proven: false }),
            None => {}
        }
    }

    /// Much loss for two rounds, or very much in one, is to be looked into.
    fn or_test(&mut self, known: Option<&loss::Round>, otherwise: Phase) -> Phase {
        let Some(known) = known.filter(|known| known.load == Load::Even) else { return otherwise };
        let excessive = self.losses.is_excessive(known, self.packet);
        let twice = std::mem::replace(&mut self.lossy, excessive) && excessive;
        if twice || (excessive && known.rate() > self.losses.base() + HEAVY) {
            self.lossy = false;
            return Phase::Test { lost: known.rate(), rounds: 0, seen: 0.0 };
        }
        otherwise
    }

    fn after_startup_round(&self, full: f64, rounds: u32) -> Phase {
        let rate = self.bandwidth.get();
        if rate >= full * GROWTH {
            Phase::Startup { full: rate, rounds: 0 }
        } else if rounds + 1 >= FULL_ROUNDS {
            Phase::Drain { rounds: 0 }
        } else {
            Phase::Startup { full, rounds: rounds + 1 }
        }
    }

    fn after_test(&mut self, known: Option<&loss::Round>, lost: f64, rounds: u32, seen: f64) -> Phase {
        let seen = match known {
            Some(known) if known.load == Load::Low => seen.max(known.rate()),
            _ => seen,
        };
        if rounds < 3 {
            return Phase::Test { lost, rounds: rounds + 1, seen };
        }
        self.losses.accept(seen);
        if lost > seen + MARGIN.max(lost / 3.0) {
            let rate = self.lately();
            self.bound = Some(Bound { window: rate * self.base(), step: STEP, proven: true });
            self.bandwidth.reset(self.measured_rounds, rate);
        }
        Phase::cruise(self.measured_rounds)
    }

    /// Begins a phase with its window.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let target = self.target();
        let fastest = self.recent[0].max(self.recent[1]);
        let window = match &self.phase {
            Phase::Startup { .. } => return,
            Phase::Drain { .. } => self.needed(self.bandwidth.get()),
            Phase::Cruise { .. } => self.bounded(target, 0.0),
            Phase::Up { .. } => self.bounded((target * UP).max(target + (2 * self.packet) as f64), 1.0),
            Phase::Down { .. } => self.bounded(self.little(self.bandwidth.get().min(fastest)), 0.0),
            Phase::Brake { .. } => self.little(self.last).max(0.7 * self.window),
            Phase::Look { rounds: 0, .. } => self.little(self.last).max(0.5 * self.in_flight as f64),
            Phase::Test { rounds: 0, .. } => self.bounded(self.little(self.lately()), 0.0),
            Phase::Test { .. } | Phase::Look { .. } => return,
            Phase::Compete { .. } => return self.compete_window(),
        };
        self.set_window(window);
    }

    /// A window below what carries `rate`, whatever is lost.
    pub(super) fn little(&self, rate: f64) -> f64 {
        DOWN * rate * (self.base() + self.delay.jitter())
    }

    /// A window that keeps to the bound; `beyond` times its step may be tried.
    fn bounded(&self, window: f64, beyond: f64) -> f64 {
        match &self.bound {
            Some(bound) => window.min(bound.window * (1.0 + beyond * bound.step)),
            None => window,
        }
    }
}
