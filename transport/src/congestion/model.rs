//! The model of the path, and the window that follows from it.

mod phase;
mod rival;
mod round;

use std::time::{Duration, Instant};

use super::{
    compete::Compete,
    delay::Delay,
    filter::Largest,
    loss::{Load, Losses},
    rate::{Deliveries, Sample},
};
use phase::{Bound, Phase};
use rival::Rivals;
use round::Round;

/// Rounds for which the fastest delivery is believed.
const BANDWIDTH_ROUNDS: u64 = 10;

/// Rounds for which it is remembered to see that others take of it.
const PEAK_ROUNDS: u64 = 200;

/// The window never falls below so many packets: two in flight and one that may follow, so that a receiver that
/// acknowledges every second packet does so at once.
const MIN_PACKETS: u64 = 3;

/// Larger than any path needs, and small enough for the library's pacer, which counts in 32 bits.
const MAX_WINDOW: f64 = (1_u64 << 30) as f64;

/// Paths shorter than this are treated as if they were so long: threads and timers take turns in milliseconds.
const SHORTEST: f64 = 0.005;

/// Packets that a flow keeps in the queue: this times the root of the packets per second. The root, because flows that
/// share a queue then come to the same rate, and a fast path still has a short queue: 28 packets, 3 ms, at 100 Mbit/s.
const QUEUED: f64 = 0.3;

/// A queue shorter than this is nobody's trouble.
const SHORT_QUEUE: f64 = 0.008;

/// Packets whose shortest round trip tells of the queue.
const TELLING: u32 = 8;

/// After so long without using its window, a connection knows little of the path.
const STALE: Duration = Duration::from_secs(10);

/// A congestion controller: pure state, time is an argument.
#[derive(Debug, Clone)]
pub(super) struct Model {
    packet: u64,
    initial: u64,
    window: f64,
    /// Bytes that were lost and whose place in flight is not taken yet: it is, with each two that are acknowledged.
    /// Otherwise what is lost in one burst is sent again in one burst, and lost again.
    owed: f64,
    /// Beside a rival, the window until the next acknowledgement: as much as the last one took out of flight.
    /// The library sends in bursts of ten packets if it may, and a full queue takes none of them whole.
    clocked: f64,
    deliveries: Deliveries,
    bandwidth: Largest,
    /// The fastest delivery of a longer time.
    peak: Largest,
    measured_rounds: u64,
    delay: Delay,
    losses: Losses,
    round: Round,
    /// Delivery rate of the last round, on average, and the fastest of the last two.
    last: f64,
    recent: [f64; 2],
    /// Delivery rates of the last rounds, on average.
    rates: [f64; 4],
    /// The round before lost far more than the path does by itself, or a little more.
    lossy: bool,
    noticed: bool,
    /// The shortest round trip of the last round, in seconds.
    before: f64,
    /// The shortest round trips of the last rounds, in seconds, and how many packets each tells of.
    lows: [(f64, u32); 4],
    phase: Phase,
    bound: Option<Bound>,
    /// When the last rival was left alone, and with what window.
    rivals: Rivals,
    used_at: Instant,
    /// What was sent before belongs to what is forgotten.
    forgot_at: Instant,
    batch: u64,
    in_flight: u64,
}

impl Model {
    /// A path of which nothing is known.
    pub(super) fn new(now: Instant, packet: u16, initial: u64) -> Self {
        let mut model = Self {
            packet: u64::from(packet).max(1),
            initial,
            window: 0.0,
            owed: 0.0,
            clocked: f64::INFINITY,
            deliveries: Deliveries::new(now),
            bandwidth: Largest::new(BANDWIDTH_ROUNDS),
            peak: Largest::new(PEAK_ROUNDS),
            measured_rounds: 0,
            delay: Delay::new(now),
            losses: Losses::new(now),
            round: Round::new(now),
            last: 0.0,
            recent: [0.0; 2],
            rates: [0.0; 4],
            lossy: false,
            noticed: false,
            before: 0.0,
            lows: [(f64::INFINITY, 0); 4],
            phase: Phase::startup(),
            bound: None,
            rivals: Rivals::default(),
            used_at: now,
            forgot_at: now,
            batch: 0,
            in_flight: 0,
        };
        model.set_window(initial as f64);
        model
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> u64 {
        (self.window - self.owed).min(self.clocked).max((MIN_PACKETS * self.packet) as f64) as u64 + 1
    }

    /// The window to begin with.
    pub(super) fn initial_window(&self) -> u64 {
        self.initial
    }

    /// Full packets have another size now.
    pub(super) fn on_packet_size(&mut self, packet: u16) {
        self.packet = u64::from(packet).max(1);
        self.set_window(self.window);
    }

    /// Bytes are sent.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        let rtt = Duration::from_secs_f64(self.delay.base());
        self.deliveries.on_sent(now, bytes, rtt);
        if now.saturating_duration_since(self.used_at) > STALE.max(rtt * 8) {
            self.used_at = now;
            self.forget(now);
            self.set_window((self.window / 2.0).max(self.initial as f64).min(self.window));
        }
    }

    /// A packet is acknowledged.
    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let before = self.deliveries.delivered();
        self.deliveries.on_ack(now, sent, bytes);
        let bytes = self.deliveries.delivered() - before;
        self.losses.on_ack(sent, bytes);
        self.owed = (self.owed - bytes as f64 / 2.0).max(0.0);
        self.batch += bytes;
        self.round.acked += bytes;
        let rtt = now.saturating_duration_since(sent).as_secs_f64();
        self.delay.sample(now, rtt);
        self.round.least = self.round.least.min(rtt);
        self.round.sum += rtt;
        self.round.samples += 1;
        if sent >= self.round.from {
            self.end_round(now);
        }
    }

    /// All packets of one acknowledgement were told.
    pub(super) fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        let batch = std::mem::take(&mut self.batch);
        self.in_flight = in_flight;
        // The last packet that fits is not sent before there is room for two.
        let used = in_flight.saturating_add(batch).saturating_add(self.packet);
        let limited = used as f64 >= 0.75 * self.window;
        if limited {
            self.round.limited = true;
            self.used_at = now;
        }
        if let Some(sample) = self.deliveries.end_acks(in_flight, app_limited && !limited) {
            self.on_rate(sample);
        }
        if limited {
            self.grow(now, batch);
        }
        let clocked = limited && matches!(self.phase, Phase::Compete { .. });
        let next = in_flight.saturating_add(batch);
        self.clocked = if clocked { next as f64 } else { f64::INFINITY };
    }

    /// Packets are lost, the last of them sent at `sent`; no bytes mean a mark of congestion (ECN).
    pub(super) fn on_loss(&mut self, now: Instant, sent: Instant, persistent: bool, bytes: u64) {
        self.losses.on_loss(sent, bytes);
        if sent >= self.forgot_at {
            self.owed = (self.owed + bytes as f64).min(self.window / 4.0);
            self.round.lost = self.round.lost.saturating_add(bytes);
        }
        if persistent {
            // RFC 9002, section 7.6: the path may be another one.
            self.forget(now);
            self.set_window(0.0);
            return;
        }
        let rtt = Duration::from_secs_f64(self.delay.base());
        if let Phase::Compete { rival, .. } = &mut self.phase {
            rival.on_loss(now, sent, rtt);
            self.compete_window();
        }
        if bytes == 0 {
            self.on_mark();
        }
    }

    fn on_rate(&mut self, sample: Sample) {
        self.round.fastest = self.round.fastest.max(sample.rate);
        self.round.measured |= !sample.app_limited;
        if !sample.app_limited || sample.rate > self.bandwidth.get() {
            self.bandwidth.update(self.measured_rounds, sample.rate);
        }
    }

    /// Starts anew, as if nothing was known of the path but its delay.
    fn forget(&mut self, now: Instant) {
        self.bandwidth.reset(self.measured_rounds, 0.0);
        self.peak.reset(self.measured_rounds, 0.0);
        self.recent = [0.0; 2];
        self.rates = [0.0; 4];
        self.last = 0.0;
        self.bound = None;
        self.phase = Phase::startup();
        self.forgot_at = now;
        self.round = Round::new(self.round.from);
    }

    fn set_window(&mut self, window: f64) {
        let least = (MIN_PACKETS * self.packet) as f64;
        self.window = if window.is_finite() { window.clamp(least, MAX_WINDOW) } else { least };
        self.owed = self.owed.min(self.window / 4.0);
    }

    /// Seconds that a round trip counts as.
    fn base(&self) -> f64 {
        self.delay.base().max(SHORTEST)
    }

    /// Bytes that a flow keeps in the queue at `rate` bytes per second.
    fn queued(&self, rate: f64) -> f64 {
        QUEUED * (rate * self.packet as f64).sqrt()
    }

    /// Seconds of standing queue above which something is wrong.
    fn queue_limit(&self) -> f64 {
        let own = self.queued(self.bandwidth.get()) / self.bandwidth.get().max(1.0);
        SHORT_QUEUE.max(self.base() / 4.0 + own.min(0.05))
    }

    /// Seconds of standing queue that are none: a few packets, or an eighth of the round trip.
    fn empty_queue(&self) -> f64 {
        let packets = 2.0 * self.packet as f64 / self.bandwidth.get().max(1.0);
        (SHORT_QUEUE / 2.0).max(self.base() / 8.0).max(packets)
    }

    /// Bytes that must be in flight to deliver at `rate`: what is on the way, what is late, and what is lost but not
    /// known to be: that of a round trip and an eighth.
    fn needed(&self, rate: f64) -> f64 {
        let loss = self.losses.base();
        let lost = 1.0 + 1.15 * loss / (1.0 - loss);
        rate * (self.base() + 2.0 * self.delay.jitter()) * lost
    }

    /// The window that uses the path and keeps a short queue.
    fn target(&self) -> f64 {
        let rate = self.bandwidth.get();
        self.needed(rate) + self.queued(rate)
    }

    /// The best of the last rounds' average rates: what the path brings, even if one of them lost much.
    fn lately(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// The shortest round trip of the last [`TELLING`] packets or more: of few packets all can be late by chance.
    fn low(&self) -> f64 {
        let (mut least, mut packets) = (f64::INFINITY, 0);
        for (low, samples) in self.lows {
            if packets >= TELLING {
                break;
            }
            least = least.min(low);
            packets += samples;
        }
        least
    }

    /// The round is over: a packet sent within it was acknowledged.
    fn end_round(&mut self, now: Instant) {
        let mut round = std::mem::replace(&mut self.round, Round::new(now));
        // The packet that ends a round is the first of the next.
        round.acked = round.acked.max(1);
        let took = now.saturating_duration_since(round.from).as_secs_f64();
        self.last = if took > 0.0 { round.acked as f64 / took } else { self.last };
        self.recent = [round.fastest, self.recent[0]];
        self.rates.rotate_right(1);
        self.rates[0] = self.last;
        if round.measured {
            self.measured_rounds += 1;
        }
        self.peak.update(self.measured_rounds, self.last);
        let known = self.losses.settle();
        if let Some(known) = &known {
            self.losses.learn(known, self.packet);
        }
        self.lows.rotate_right(1);
        self.lows[0] = (round.least, round.samples);
        self.next_phase(now, &round, known.as_ref());
        self.losses.begin(now, self.phase.load());
    }
}
