//! Models of the controllers with whom a link is shared, and of the library's own.

use std::time::{Duration, Instant};

use super::{
    super::{
        filter::Largest,
        rate::{Deliveries, Sample},
    },
    Control, PACKET, Pacing,
};

/// CUBIC (RFC 9438), with the delay-based end of slow start of RFC 9406. `paced`, it stands for the library's.
pub(in super::super) struct Cubic {
    window: f64,
    threshold: f64,
    most: f64,
    k: f64,
    epoch: Option<Instant>,
    recovery: Option<Instant>,
    estimate: f64,
    rtt: Duration,
    least_rtt: Duration,
    paced: bool,
}

impl Cubic {
    /// TCP's.
    pub(in super::super) fn tcp() -> Self {
        Self {
            window: 10.0,
            threshold: f64::INFINITY,
            most: 0.0,
            k: 0.0,
            epoch: None,
            recovery: None,
            estimate: 0.0,
            rtt: Duration::MAX,
            least_rtt: Duration::MAX,
            paced: false,
        }
    }

    /// The library's: paced, and a larger window to begin with.
    pub(in super::super) fn library() -> Self {
        Self { window: 32.0, paced: true, ..Self::tcp() }
    }
}

impl Control for Cubic {
    fn on_sent(&mut self, _: Instant, _: u64) {}

    fn on_ack(&mut self, now: Instant, sent: Instant, _: u64, app_limited: bool) {
        self.rtt = now.saturating_duration_since(sent);
        self.least_rtt = self.least_rtt.min(self.rtt);
        if app_limited || self.recovery.is_some_and(|from| sent <= from) {
            return;
        }
        if self.window < self.threshold {
            self.window += 1.0;
            let rise = (self.least_rtt / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
            if !self.paced && self.window > 16.0 && self.rtt > self.least_rtt + rise {
                self.threshold = self.window;
            }
            return;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.estimate = self.window;
            self.most = self.most.max(self.window);
            now
        });
        let at = (now.saturating_duration_since(epoch) + self.rtt).as_secs_f64();
        let target = (0.4 * (at - self.k).powi(3) + self.most).clamp(self.window, 1.5 * self.window);
        self.estimate += 3.0 * 0.3 / 1.7 / self.window;
        self.window += (target - self.window) / self.window;
        self.window = self.window.max(self.estimate);
    }

    fn on_end_acks(&mut self, _: Instant, _: u64, _: bool) {}

    fn on_loss(&mut self, now: Instant, sent: Instant, persistent: bool, _: u64) {
        if self.recovery.is_some_and(|from| sent <= from) {
            return;
        }
        self.recovery = Some(now);
        self.most = if self.window < self.most { self.window * 0.85 } else { self.window };
        self.window = (self.window * 0.7).max(2.0);
        self.k = ((self.most - self.window) / 0.4).max(0.0).cbrt();
        self.threshold = self.window;
        self.estimate = self.window;
        self.epoch = Some(now);
        if persistent {
            self.window = 2.0;
        }
    }

    fn window(&self) -> u64 {
        (self.window * PACKET as f64) as u64 + 1
    }

    fn pacing(&self) -> Pacing {
        if self.paced { Pacing::Library } else { Pacing::None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt(Option<Instant>),
}

/// BBR, version 1, as TCP has it (draft-cardwell-iccrg-bbr-congestion-control-00): paced, at most two bandwidth-delay
/// products in flight, deaf to loss.
pub(in super::super) struct TcpBbr {
    deliveries: Deliveries,
    bandwidth: Largest,
    least_rtt: Duration,
    least_at: Instant,
    round_from: Instant,
    round: u64,
    mode: Mode,
    full: f64,
    full_rounds: u32,
    cycle: usize,
    cycle_at: Instant,
    window: f64,
    in_flight: f64,
    /// When the recovery began in whose first round as much is sent as arrives, and the window before it.
    recovery: Option<(Instant, f64)>,
    recovered_from: Instant,
}

const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];

impl TcpBbr {
    pub(in super::super) fn new() -> Self {
        let now = Instant::now();
        Self {
            deliveries: Deliveries::new(now),
            bandwidth: Largest::new(10),
            least_rtt: Duration::MAX,
            least_at: now,
            round_from: now,
            round: 0,
            mode: Mode::Startup,
            full: 0.0,
            full_rounds: 0,
            cycle: 2,
            cycle_at: now,
            window: 10.0 * PACKET as f64,
            in_flight: 0.0,
            recovery: None,
            recovered_from: now,
        }
    }

    fn product(&self) -> f64 {
        self.bandwidth.get() * self.least_rtt.min(Duration::from_secs(10)).as_secs_f64()
    }

    fn advance(&mut self, now: Instant, in_flight: u64) {
        let in_flight = in_flight as f64;
        match self.mode {
            Mode::Startup if self.full_rounds >= 3 => self.mode = Mode::Drain,
            Mode::Drain if in_flight <= self.product() => self.mode = Mode::ProbeBandwidth,
            Mode::ProbeBandwidth => {
                let long = now.saturating_duration_since(self.cycle_at) > self.least_rtt;
                let next = match self.cycle {
                    0 => long && in_flight >= 1.25 * self.product() - 3.0 * PACKET as f64,
                    1 => long || in_flight <= self.product(),
                    _ => long,
                };
                if next {
                    self.cycle = (self.cycle + 1) % CYCLE.len();
                    self.cycle_at = now;
                }
            }
            _ => {}
        }
        let stale = now.saturating_duration_since(self.least_at) > Duration::from_secs(10);
        match self.mode {
            Mode::ProbeRtt(None) if in_flight <= 5.0 * PACKET as f64 => {
                self.mode = Mode::ProbeRtt(Some(now + Duration::from_millis(200)));
            }
            Mode::ProbeRtt(Some(until)) if now > until => {
                self.least_at = now;
                self.mode = if self.full_rounds >= 3 { Mode::ProbeBandwidth } else { Mode::Startup };
            }
            Mode::ProbeRtt(_) => {}
            _ if stale => {
                self.mode = Mode::ProbeRtt(None);
                self.least_rtt = Duration::MAX;
            }
            _ => {}
        }
    }
}

impl Control for TcpBbr {
    fn on_sent(&mut self, now: Instant, bytes: u64) {
        self.in_flight += bytes as f64;
        self.deliveries.on_sent(now, bytes, self.least_rtt.min(Duration::from_secs(1)));
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool) {
        let rtt = now.saturating_duration_since(sent);
        if rtt <= self.least_rtt {
            self.least_rtt = rtt;
            if !matches!(self.mode, Mode::ProbeRtt(_)) {
                self.least_at = now;
            }
        }
        self.deliveries.on_ack(now, sent, bytes);
        if sent >= self.round_from {
            self.round_from = now;
            self.round += 1;
            if self.bandwidth.get() >= self.full * 1.25 {
                self.full = self.bandwidth.get();
                self.full_rounds = 0;
            } else {
                self.full_rounds += 1;
            }
        }
        self.in_flight = (self.in_flight - bytes as f64).max(0.0);
        if let Some((from, before)) = self.recovery {
            if sent < from {
                return;
            }
            self.window = self.window.max(before);
            self.recovery = None;
        }
        if self.mode == Mode::Startup || self.window < 2.0 * self.product() {
            self.window += bytes as f64;
        }
        if self.mode != Mode::Startup {
            self.window = self.window.min(2.0 * self.product() + 6.0 * PACKET as f64);
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        if let Some(Sample { rate, app_limited }) = self.deliveries.end_acks(in_flight, app_limited)
            && (!app_limited || rate > self.bandwidth.get())
        {
            self.bandwidth.update(self.round, rate);
        }
        self.in_flight = in_flight as f64;
        self.advance(now, in_flight);
    }

    fn on_loss(&mut self, now: Instant, sent: Instant, _: bool, bytes: u64) {
        self.in_flight = (self.in_flight - bytes as f64).max(0.0);
        if self.recovery.is_none() && sent > self.recovered_from {
            self.recovery = Some((now, self.window));
            self.recovered_from = now;
            self.window = self.window.min(self.in_flight + PACKET as f64);
        }
    }

    fn window(&self) -> u64 {
        let most = if let Mode::ProbeRtt(_) = self.mode { 0.0 } else { self.window };
        most.max(4.0 * PACKET as f64) as u64 + 1
    }

    fn pacing(&self) -> Pacing {
        let gain = match self.mode {
            Mode::Startup => 2.885,
            Mode::Drain => 1.0 / 2.885,
            Mode::ProbeBandwidth => CYCLE[self.cycle],
            Mode::ProbeRtt(_) => 1.0,
        };
        match self.bandwidth.get() {
            rate if rate > 0.0 => Pacing::Rate(gain * rate),
            _ => Pacing::None,
        }
    }
}
