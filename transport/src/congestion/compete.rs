//! A window for a queue that others keep full: CUBIC's (RFC 9438), with a limit to how much loss can take.
//!
//! Who keeps the queue short beside a flow that fills it gets nothing. So while others fill it, the window grows and
//! shrinks as theirs does. One thing differs: CUBIC gives up 30 % for each round with a loss, on the assumption that
//! the last such round is long ago and that the others give up as much. A flow that is deaf to loss (BBR, version 1)
//! keeps the queue at its end, and would take everything from it. Here a loss takes of the 30 % the part that the time
//! since the last loss is of the time CUBIC needs to win 30 % back: beside CUBIC all of it, beside a deaf flow little.

use std::time::{Duration, Instant};

/// CUBIC's constants: the scale of its growth, packets per second cubed, and what a loss takes.
const SCALE: f64 = 0.4;
const TAKEN: f64 = 0.3;

/// Packets per round trip by which CUBIC grows at least, so as not to lose against Reno (RFC 9438, section 4.3).
const RENO: f64 = 3.0 * TAKEN / (2.0 - TAKEN);

/// Who has so much of the path does not ask for more.
const FAIR: f64 = 0.6;

/// Who has less than this part asks for more by this factor each round, whatever CUBIC would do.
const STARVING: f64 = 0.6;
const GAIN: f64 = 1.05;

/// With so much loss more nobody is followed who is deaf to it: several of ours would do that to each other.
const UNBEARABLE: f64 = 0.06;

/// Unless it stays for so many rounds without our doing. BBR, version 1, at a queue of one bandwidth-delay product makes a
/// tenth to a sixth of all packets be lost, whether it is followed or not; then it is followed for so many rounds, if
/// that does not make it more than by this factor, and never beyond this part.
const SUFFERED: u32 = 10;
const FOLLOWED: u32 = 200;
const MORE_LOSS: f64 = 1.3;
const MOST_LOSS: f64 = 0.25;

/// And only if nothing was lost for so many rounds.
const CALM: u32 = 2;

/// Looks in a row that must find nobody else: a rival may be about to give way just then.
const LOOKS: u32 = 2;

/// Who has more than this part gives way by this factor each round.
const DOMINANT: f64 = 0.75;
const YIELD: f64 = 0.97;

/// The window, in packets.
#[derive(Debug, Clone)]
pub(super) struct Compete {
    window: f64,
    /// Where it was when it was last reduced, how long CUBIC takes back to there, and what Reno would have.
    most: f64,
    back: f64,
    reno: f64,
    reduced_at: Instant,
    /// The part of the path's rate that is ours, as far as it is known.
    share: f64,
    /// Packets per second of the whole path, as the last looks have shown them.
    capacities: [f64; 3],
    looks: usize,
    /// Rounds since the last loss.
    calm: u32,
    /// Part of the packets lost of late beyond what is bearable.
    overload: f64,
    /// What is bearable now, for how many rounds it was not, and for how many more than [`UNBEARABLE`] is.
    bearable: f64,
    suffered: u32,
    followed: u32,
    alone: u32,
}

impl Compete {
    pub(super) fn new(now: Instant, window: f64) -> Self {
        let window = window.max(2.0);
        Self {
            window,
            most: window,
            back: 0.0,
            reno: window,
            reduced_at: now,
            share: 0.0,
            capacities: [0.0; 3],
            looks: 0,
            calm: 0,
            overload: 0.0,
            bearable: UNBEARABLE,
            suffered: 0,
            followed: 0,
            alone: 0,
        }
    }

    /// Packets that may be in flight.
    pub(super) fn window(&self) -> f64 {
        self.window
    }

    /// Having `packets` less in flight took `seconds` off a `queue` of seconds: that is how fast the queue moves.
    pub(super) fn learn_capacity(&mut self, packets: f64, seconds: f64, queue: f64) {
        // What does not shorten a queue is hardly in it.
        let found = packets / seconds.max(queue / 50.0).max(1e-3);
        if packets > 0.0 && queue > 0.0 {
            self.capacities.rotate_right(1);
            self.capacities[0] = found;
            self.looks += 1;
        }
    }

    /// Packets per second of the whole path, once known. Others that grow during a look make it seem faster, and others
    /// that give way slower, so one look in three does not count.
    fn capacity(&self) -> Option<f64> {
        let mut known = self.capacities;
        let known = &mut known[..self.looks.min(3)];
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }

    /// This many packets were delivered each second, for a round.
    pub(super) fn on_round(&mut self, rate: f64) {
        self.calm = self.calm.saturating_add(1);
        let Some(capacity) = self.capacity() else { return };
        self.share = (rate / capacity).min(1.0);
        if self.share > DOMINANT {
            self.window = (self.window * YIELD).max(2.0);
            self.most = self.most.min(self.window);
            self.reno = self.reno.min(self.window);
        } else if self.starves() && self.calm >= CALM {
            self.window = (self.window * GAIN).min(1e9);
            self.most = self.most.max(self.window);
            self.reno = self.reno.max(self.window);
        }
    }

    /// A look found nobody else, or somebody; whether to believe that nobody is there.
    pub(super) fn is_alone(&mut self, alone: bool) -> bool {
        self.alone = if alone { self.alone + 1 } else { 0 };
        self.alone >= LOOKS
    }

    /// Whether others leave us less than we need.
    pub(super) fn starves(&self) -> bool {
        self.looks > 0 && self.share < STARVING
    }

    /// Whether others leave us too little, and that we ask for as much as they does not lose too much.
    pub(super) fn is_pushed(&self) -> bool {
        self.starves() && self.is_bearable()
    }

    fn is_bearable(&self) -> bool {
        self.overload < self.bearable
    }

    /// How much less than CUBIC gives way who has less than half: deaf to loss at nothing, as CUBIC at half.
    fn weight(&self) -> f64 {
        if self.looks == 0 || !self.is_bearable() { 1.0 } else { (2.0 * self.share).clamp(0.4, 1.0) }
    }

    /// So many packets were acknowledged while the window was in use.
    pub(super) fn on_ack(&mut self, now: Instant, packets: f64, rtt: Duration) {
        if self.share > FAIR {
            return;
        }
        let at = (now.saturating_duration_since(self.reduced_at) + rtt).as_secs_f64();
        let target = (SCALE * (at - self.back).powi(3) + self.most).clamp(self.window, 1.5 * self.window);
        self.reno += RENO * packets / self.window;
        self.window = (self.window + (target - self.window) * packets / self.window).max(self.reno).min(1e9);
    }

    /// Of a round's packets the part `excess` was lost beyond what others and the path explain.
    pub(super) fn on_overload(&mut self, excess: f64) {
        self.overload += (excess - self.overload) * 0.25;
        self.suffer();
        let window = (self.window * (1.0 - self.weight() * (excess / 2.0).clamp(0.0, 0.5))).max(2.0);
        self.reno = self.reno.min(window);
        self.most = self.most.min(window);
        self.window = window;
    }

    /// Finds out whether what is lost is lost whatever we do.
    fn suffer(&mut self) {
        if self.followed > 0 {
            self.followed -= 1;
            return;
        }
        self.bearable = UNBEARABLE;
        self.suffered = if self.is_bearable() { 0 } else { self.suffered + 1 };
        if self.suffered >= SUFFERED {
            self.bearable = (MORE_LOSS * self.overload).min(MOST_LOSS);
            (self.suffered, self.followed) = (0, FOLLOWED);
        }
    }

    /// A packet sent at `sent` was lost.
    pub(super) fn on_loss(&mut self, now: Instant, sent: Instant, rtt: Duration) {
        self.calm = 0;
        if sent <= self.reduced_at {
            return;
        }
        let cubic = (TAKEN * self.window / SCALE).cbrt();
        let reno = TAKEN * self.window / RENO * rtt.as_secs_f64();
        let waited = now.saturating_duration_since(self.reduced_at).as_secs_f64();
        let due = (waited / cubic.min(reno).max(1e-6)).min(1.0);
        // Whoever is reduced before it was back where it stood leaves room for a newcomer (section 4.7).
        self.most = if due >= 1.0 && self.window < self.most { self.window * (1.0 - TAKEN / 2.0) } else { self.window };
        self.window = (self.window * (1.0 - TAKEN * due * self.weight())).max(2.0);
        self.back = ((self.most - self.window) / SCALE).max(0.0).cbrt();
        self.reno = self.window;
        self.reduced_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// Grows for so many round trips.
    fn grow(compete: &mut Compete, mut now: Instant, rounds: u32) -> Instant {
        for _ in 0..rounds {
            now += RTT;
            compete.on_ack(now, compete.window(), RTT);
        }
        now
    }

    #[test]
    fn a_loss_after_a_full_period_takes_what_cubic_gives() {
        let start = Instant::now();
        let mut compete = Compete::new(start, 100.0);
        let now = grow(&mut compete, start, 100);
        let before = compete.window();
        compete.on_loss(now, now, RTT);
        assert!((compete.window() / before - 0.7).abs() < 0.01);
    }

    #[test]
    fn losses_all_the_time_leave_a_window() {
        let start = Instant::now();
        let mut compete = Compete::new(start, 100.0);
        let mut now = start;
        for _ in 0..600 {
            now = grow(&mut compete, now, 1);
            compete.on_loss(now, now, RTT);
        }
        assert!((40.0..110.0).contains(&compete.window()), "{}", compete.window());
    }

    #[test]
    fn one_loss_counts_once_a_round() {
        let start = Instant::now();
        let mut compete = Compete::new(start, 100.0);
        let now = grow(&mut compete, start, 100);
        compete.on_loss(now, now, RTT);
        let window = compete.window();
        compete.on_loss(now + RTT, now, RTT);
        assert_eq!(compete.window(), window);
    }
}
