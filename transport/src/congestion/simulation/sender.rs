//! A sender around a controller, as in the library: pacer (quinn-proto `connection/pacing.rs`), loss detection and
//! probes (RFC 9002, sections 6.1 and 6.2), and the order in which the controller is told.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Flow, PACKET};

/// What the simulation asks of a controller: the library's interface without its round-trip estimate, which nobody
/// outside the library can make.
pub(in super::super) trait Control {
    fn on_sent(&mut self, now: Instant, bytes: u64);
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool);
    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool);
    fn on_loss(&mut self, now: Instant, sent: Instant, persistent: bool, bytes: u64);
    fn window(&self) -> u64;
    fn pacing(&self) -> Pacing {
        Pacing::Library
    }
}

/// How sending is spread over time.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Pacing {
    /// As the library does: 1.25 windows per round trip, in bursts of at least ten packets.
    Library,
    /// Whatever the window allows, at once.
    None,
    /// Bytes per second.
    Rate(f64),
}

/// What there is to send.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Source {
    /// Always more.
    Bulk,
    /// So many packets each time.
    Every(Duration, u64),
    /// Bulk, but nothing between these two instants.
    Pause(Duration, Duration),
}

struct Packet {
    sent: Instant,
    /// It was neither acknowledged nor lost so far.
    open: bool,
}

pub(super) struct Sender {
    pub(super) control: Box<dyn Control>,
    pub(super) good: u64,
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) wake_at: Option<Duration>,
    source: Source,
    threshold: u64,
    epoch: Instant,
    start: Instant,
    packets: VecDeque<Packet>,
    first: u64,
    in_flight: u64,
    largest_acked: Option<u64>,
    smoothed: Option<Duration>,
    variance: Duration,
    latest: Duration,
    pto_count: u32,
    probes: u64,
    last_sent: Instant,
    tokens: f64,
    tokens_at: Instant,
    app_limited: bool,
    written: u64,
}

impl Sender {
    pub(super) fn new(flow: Flow, epoch: Instant) -> Self {
        let start = epoch + flow.start;
        Self {
            control: flow.control,
            good: 0,
            sent: 0,
            lost: 0,
            wake_at: None,
            source: flow.source,
            threshold: flow.packet_threshold,
            epoch,
            start,
            packets: VecDeque::new(),
            first: 0,
            in_flight: 0,
            largest_acked: None,
            smoothed: None,
            variance: Duration::from_millis(50),
            latest: Duration::from_millis(100),
            pto_count: 0,
            probes: 0,
            last_sent: start,
            tokens: 10.0 * PACKET as f64,
            tokens_at: start,
            app_limited: false,
            written: 0,
        }
    }

    fn rtt(&self) -> Duration {
        self.smoothed.unwrap_or(self.latest)
    }

    fn loss_delay(&self) -> Duration {
        self.rtt().max(self.latest) * 9 / 8
    }

    fn pto(&self) -> Duration {
        self.rtt() + (4 * self.variance).max(Duration::from_millis(1)) + Duration::from_millis(25)
    }

    pub(super) fn on_ack(&mut self, now: Instant, numbers: &[u64]) {
        let mut any = false;
        let mut newest: Option<(u64, Instant)> = None;
        for &number in numbers {
            let Some(packet) = number.checked_sub(self.first).and_then(|at| self.packets.get_mut(at as usize)) else {
                continue;
            };
            if !std::mem::take(&mut packet.open) {
                continue;
            }
            any = true;
            let sent = packet.sent;
            self.in_flight -= PACKET;
            self.good += 1;
            if self.largest_acked.is_none_or(|largest| number > largest) {
                self.largest_acked = Some(number);
                newest = Some((number, sent));
            }
            self.control.on_ack(now, sent, PACKET, self.app_limited);
        }
        if !any {
            return;
        }
        self.control.on_end_acks(now, self.in_flight, self.app_limited);
        if let Some((_, sent)) = newest {
            self.sample_rtt(now.saturating_duration_since(sent));
        }
        self.pto_count = 0;
        self.detect(now);
    }

    fn sample_rtt(&mut self, rtt: Duration) {
        self.latest = rtt;
        match self.smoothed {
            Some(smoothed) => {
                self.variance = (3 * self.variance + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((7 * smoothed + rtt) / 8);
            }
            None => {
                self.variance = rtt / 2;
                self.smoothed = Some(rtt);
            }
        }
    }

    /// Takes lost packets out; in order of sending, so that it stops at the first that is not lost yet.
    fn detect(&mut self, now: Instant) {
        let Some(largest) = self.largest_acked else { return };
        let delay = self.loss_delay();
        let (mut lost, mut last, mut run_from, mut persistent) = (0, None, None, false);
        for (number, packet) in (self.first..largest).zip(&mut self.packets) {
            if !packet.open {
                run_from = None;
                continue;
            }
            let old = now.saturating_duration_since(packet.sent) >= delay;
            if !old && largest < number + self.threshold {
                break;
            }
            packet.open = false;
            lost += 1;
            last = Some(packet.sent);
            let began = *run_from.get_or_insert(packet.sent);
            let period = self.smoothed.map(|rtt| (rtt + 4 * self.variance + Duration::from_millis(25)) * 3);
            persistent |= period.is_some_and(|period| packet.sent.saturating_duration_since(began) > period);
        }
        while self.packets.front().is_some_and(|packet| !packet.open) {
            self.packets.pop_front();
            self.first += 1;
        }
        if let Some(sent) = last {
            self.in_flight -= lost * PACKET;
            self.lost += lost;
            self.control.on_loss(now, sent, persistent, lost * PACKET);
        }
    }

    fn loss_time(&self) -> Option<Instant> {
        let oldest = self.packets.front()?;
        let overtaken = self.largest_acked.is_some_and(|largest| largest > self.first);
        overtaken.then(|| oldest.sent + self.loss_delay())
    }

    fn pto_time(&self) -> Option<Instant> {
        (self.in_flight > 0).then(|| self.last_sent + self.pto() * 2_u32.pow(self.pto_count.min(10)))
    }

    pub(super) fn on_timer(&mut self, now: Instant) {
        if self.loss_time().is_some_and(|at| at <= now) {
            self.detect(now);
        } else if self.loss_time().is_none() && self.pto_time().is_some_and(|at| at <= now) {
            self.probes = 2;
            self.pto_count += 1;
        }
    }

    /// Sends what may be sent now; returns when to come again.
    pub(super) fn poll(&mut self, now: Instant, numbers: &mut VecDeque<u64>) -> Option<Instant> {
        let mut wake = None;
        let mut batch = 0;
        self.app_limited = false;
        loop {
            if !self.has_data(now) && self.probes == 0 {
                self.app_limited = batch == 0;
                wake = self.next_data(now);
                break;
            }
            if self.probes > 0 {
                self.probes -= 1;
            } else if self.in_flight + PACKET >= self.control.window() {
                break;
            } else if let Some(later) = self.paced(now) {
                wake = Some(later);
                break;
            }
            numbers.push_back(self.first + self.packets.len() as u64);
            self.packets.push_back(Packet { sent: now, open: true });
            self.in_flight += PACKET;
            self.sent += 1;
            self.tokens -= PACKET as f64;
            self.last_sent = now;
            self.written += 1;
            batch += 1;
            if batch % 10 == 0 {
                self.control.on_sent(now, 10 * PACKET);
            }
        }
        if batch % 10 > 0 {
            self.control.on_sent(now, batch % 10 * PACKET);
        }
        let alarm = self.loss_time().or_else(|| self.pto_time()).map(|at| at.max(now + Duration::from_micros(1)));
        [wake, alarm].into_iter().flatten().min()
    }

    /// When the pacer allows the next packet, if not now.
    fn paced(&mut self, now: Instant) -> Option<Instant> {
        let window = self.control.window() as f64;
        let rtt = self.rtt().as_secs_f64();
        let (rate, capacity) = match self.control.pacing() {
            Pacing::None => return None,
            Pacing::Library => {
                (1.25 * window / rtt, (window * 0.002 / rtt).clamp(10.0 * PACKET as f64, 256.0 * PACKET as f64))
            }
            Pacing::Rate(rate) => (rate.max(1.0), (rate * 0.001).max(2.0 * PACKET as f64)),
        };
        self.tokens += now.saturating_duration_since(self.tokens_at).as_secs_f64() * rate;
        self.tokens = self.tokens.min(capacity);
        self.tokens_at = now;
        if self.tokens >= PACKET as f64 {
            return None;
        }
        // The library waits until its bucket is full.
        Some(now + Duration::from_secs_f64(((capacity - self.tokens) / rate).clamp(1e-6, 60.0)))
    }

    fn has_data(&self, now: Instant) -> bool {
        match self.source {
            Source::Bulk => true,
            Source::Every(period, packets) => {
                let periods = now.saturating_duration_since(self.start).as_nanos() / period.as_nanos() + 1;
                u128::from(self.written) < periods * u128::from(packets)
            }
            Source::Pause(from, to) => !(self.epoch + from..self.epoch + to).contains(&now),
        }
    }

    fn next_data(&self, now: Instant) -> Option<Instant> {
        match self.source {
            Source::Bulk => None,
            Source::Every(period, packets) => {
                Some(self.start + period * u32::try_from(self.written / packets).unwrap_or(u32::MAX))
            }
            Source::Pause(_, to) => Some(self.epoch + to),
        }
        .filter(|at| *at > now)
    }
}
