//! A queue that is too long: is it ours or another's, and what then?

use std::time::{Duration, Instant};

use super::{Compete, MIN_PACKETS, Model, Phase, Round};
use crate::congestion::loss;

/// Rounds in which braking must show.
const BRAKE_ROUNDS: u32 = 3;

/// Round trips that differ by less than this part are the same.
const SAME: f64 = 0.015;

/// Round trips after a brake within which another counts as one more of the same kind, as we have not asked for more;
/// and how many of them show that the queue is not ours.
const AGAIN: u32 = 12;
const BRAKES: u32 = 4;

/// Falling to this part of the most of late is losing ground.
const GROUND: f64 = 0.7;

/// Beside a rival, more loss than this beyond the path's own is our doing too.
const BEARABLE: f64 = 0.03;

/// Bandwidth-delay products in flight of who starves: BBR, version 1, which is deaf to loss, has two, and a burst of ours
/// loses more in a full queue than its single packets do.
const DEAF: f64 = 2.5;

/// A rival that was away for longer is another one.
const STRANGER: Duration = Duration::from_secs(10);

/// Time between two looks whether the rival is still there.
const LOOK_AFTER: Duration = Duration::from_secs(4);

/// A round trip that falls to this part of the last one's says that another flow gives way.
const INVITATION: f64 = 0.8;

/// Rounds of one look: one until what was in flight is gone, one to see.
const LOOK_ROUNDS: u32 = 2;

/// What was before a look, and what it shows.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) in_flight: u64,
    rtt: f64,
    /// A round trip as short as this shows that nobody else is there.
    alone: f64,
    pub(super) floor: f64,
    /// Another flow gave way at the same time: how far the queue falls does not tell how fast it moves.
    invited: bool,
}

/// What is remembered of a queue that was too long, so that it is known again.
#[derive(Debug, Clone, Default)]
pub(super) struct Rivals {
    /// The window before the first brake of several in a row, and when the last one was.
    pub(super) braked: Option<(f64, Instant, u32)>,
    /// The rival that seemed to be gone, and since when.
    pub(super) left: Option<(Compete, Instant)>,
}

impl Model {
    /// Whether the path brings much less than it did, and has a queue that we have not asked for.
    pub(super) fn loses_ground(&self, standing: f64) -> bool {
        self.bandwidth.get() < GROUND * self.peak.get() && standing > self.empty_queue()
    }

    /// The queue is long. Once, that may be ours; again, or soon after a rival has left, it is not.
    pub(super) fn on_long_queue(&mut self, now: Instant, standing: f64) -> Phase {
        let round = Duration::from_secs_f64(self.delay.base() + standing);
        let before = self.window.min(self.target());
        let (first, times) = match self.rivals.braked.take() {
            Some((first, at, times)) if now.saturating_duration_since(at) < round * AGAIN => (first, times + 1),
            _ => (before, 1),
        };
        if times >= BRAKES {
            let fresh = || Compete::new(now, first / self.packet as f64);
            let rival = self.rivals.left.take().filter(|(_, since)| now.saturating_duration_since(*since) < STRANGER);
            return self.compete(now, rival.map_or_else(fresh, |(rival, _)| rival));
        }
        self.rivals.braked = Some((first, now, times));
        Phase::Brake { before: first, rounds: 0, standing, rtt: self.delay.base() + standing }
    }

    pub(super) fn compete(&mut self, now: Instant, rival: Compete) -> Phase {
        self.bound = None;
        Phase::Compete { rival, look_at: now + LOOK_AFTER / 4, floors: [0.0; 2] }
    }

    /// `standing` and `rtt` are pairs: before and now.
    pub(super) fn after_brake(
        &mut self,
        now: Instant,
        before: f64,
        rounds: u32,
        standing: [f64; 2],
        rtt: [f64; 2],
        lossless: bool,
    ) -> Phase {
        if standing[1] <= self.queue_limit() {
            self.bandwidth.reset(self.measured_rounds, self.last.max(self.recent[0]));
            return Phase::cruise(self.measured_rounds);
        }
        let helps = standing[1] < 0.8 * standing[0];
        let rounds = if helps { rounds } else { rounds + 1 };
        if rounds < BRAKE_ROUNDS {
            return Phase::Brake { before, rounds, standing: standing[1], rtt: rtt[0] };
        }
        // A queue, whoever fills it, is a little shorter when a half of ours is gone, or full; a longer path is neither.
        if lossless && (rtt[1] - rtt[0]).abs() < SAME * rtt[0] {
            self.delay.rebase(now, rtt[1]);
            self.rivals = Rivals::default();
            return Phase::cruise(self.measured_rounds);
        }
        self.compete(now, Compete::new(now, before / self.packet as f64))
    }

    pub(super) fn after_compete_round(
        &mut self,
        now: Instant,
        mut rival: Compete,
        look_at: Instant,
        floors: [f64; 2],
        round: &Round,
        known: Option<&loss::Round>,
    ) -> Phase {
        if let Some(known) = known {
            rival.on_overload(known.rate() - self.losses.base() - BEARABLE);
        }
        rival.on_round(self.last / self.packet as f64);
        // A queue that falls at once may be another's look; looking together shows more.
        let invited = round.least < INVITATION * self.before && look_at.saturating_duration_since(now) < LOOK_AFTER / 2;
        if now < look_at && !invited {
            return Phase::Compete { rival, look_at, floors };
        }
        let in_flight = self.in_flight.max(1);
        let part = (self.little(self.last) / in_flight as f64).clamp(0.5, 1.0);
        let alone = (self.delay.base() + self.empty_queue()).max(1.1 * part * round.least);
        let look = Look { in_flight, rtt: round.least, alone, floor: round.least, invited };
        Phase::Look { rival, rounds: 0, look, floors }
    }

    pub(super) fn after_look(
        &mut self,
        now: Instant,
        mut rival: Compete,
        rounds: u32,
        look: Look,
        floors: [f64; 2],
        falls: bool,
    ) -> Phase {
        if rounds + 1 < LOOK_ROUNDS || (falls && rounds < 2 * LOOK_ROUNDS) {
            return Phase::Look { rival, rounds: rounds + 1, look, floors };
        }
        let alone = look.floor <= look.alone;
        if rival.is_alone(alone) {
            self.bandwidth.reset(self.measured_rounds, self.last.max(self.recent[0]));
            self.peak.reset(self.measured_rounds, self.bandwidth.get());
            self.rivals = Rivals { braked: Some((self.window, now, BRAKES - 2)), left: Some((rival, now)) };
            return Phase::cruise(self.measured_rounds);
        }
        if alone {
            return Phase::Compete { rival, look_at: now + LOOK_AFTER / 4, floors };
        }
        // A queue that others fill is not as long each time; a path that is longer than it was, is.
        if floors.iter().all(|other| (other - look.floor).abs() < 0.04 * look.floor) {
            self.delay.rebase(now, look.floor);
            return Phase::cruise(self.measured_rounds);
        }
        if look.invited {
            return Phase::Compete { rival, look_at: now + LOOK_AFTER, floors: [look.floor, floors[0]] };
        }
        let packets = look.in_flight.saturating_sub(self.in_flight) as f64 / self.packet as f64;
        let queue = look.rtt - self.delay.base();
        rival.learn_capacity(packets, look.rtt - look.floor, queue);
        Phase::Compete { rival, look_at: now + LOOK_AFTER, floors: [look.floor, floors[0]] }
    }

    pub(super) fn compete_window(&mut self) {
        if let Phase::Compete { rival, .. } = &self.phase {
            let window = rival.window() * self.packet as f64;
            let deaf = DEAF * self.bandwidth.get() * self.base() + (MIN_PACKETS * self.packet) as f64;
            let least = if rival.is_pushed() { deaf } else { self.target() };
            self.set_window(window.max(least));
        }
    }
}
