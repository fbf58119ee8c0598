//! How fast the path delivers, measured from acknowledgements.
//!
//! The library tells of each acknowledged packet when it was sent, and of each sending when it happened; all packets of
//! one sending share its instant. So what was known at that instant is kept under it, and a packet's acknowledgement
//! closes one sample: the bytes delivered since then, over the longer of the time that sending them and the time that
//! acknowledging them took (draft-cheng-iccrg-delivery-rate-estimation). The longer of the two, because a peer or a
//! path that holds acknowledgements back and lets them go together must not look faster than we sent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Instants kept; each is a sending whose packets may still be acknowledged. Sendings that are closer together than
/// [`RESOLUTION`] of a round trip share one, so that this covers more than any round trip: 72 KiB at most.
const MAX_SENDINGS: usize = 1024;
const RESOLUTION: u32 = 256;

/// What was known when a packet was sent.
#[derive(Debug, Clone, Copy)]
struct Sending {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    app_limited: bool,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Bytes per second.
    pub(super) rate: f64,
    /// The application had nothing to send for a part of the time: the path may be faster.
    pub(super) app_limited: bool,
}

/// Measures the delivery rate.
#[derive(Debug, Clone)]
pub(super) struct Deliveries {
    sendings: VecDeque<Sending>,
    sent: u64,
    delivered: u64,
    delivered_at: Instant,
    /// When the packet was sent that was acknowledged last.
    first_sent: Instant,
    /// Whatever is sent before so many bytes are delivered was sent when the application had too little.
    app_limited_until: u64,
    /// The newest sending of which the present acknowledgement tells.
    newest: Option<Sending>,
}

impl Deliveries {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sendings: VecDeque::new(),
            sent: 0,
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            app_limited_until: 0,
            newest: None,
        }
    }

    /// Bytes acknowledged in all.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes are sent; `rtt` is about a round trip.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64, rtt: Duration) {
        self.sent = self.sent.saturating_add(bytes);
        let close = |last: &Sending| now.saturating_duration_since(last.at) < rtt / RESOLUTION;
        if self.sendings.back().is_some_and(|last| last.at >= now || close(last)) {
            return;
        }
        if self.sendings.is_empty() {
            self.first_sent = now;
            self.delivered_at = now;
        }
        if self.sendings.len() >= MAX_SENDINGS {
            self.sendings.pop_front();
        }
        self.sendings.push_back(Sending {
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            app_limited: self.delivered <= self.app_limited_until,
        });
    }

    /// A packet sent at `sent` is acknowledged. Never counts more than was sent, whatever the peer says.
    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivered = self.delivered.saturating_add(bytes).min(self.sent);
        self.delivered_at = now;
        let behind = self.sendings.partition_point(|sending| sending.at <= sent);
        let Some(&sending) = behind.checked_sub(1).and_then(|index| self.sendings.get(index)) else { return };
        if self.newest.is_none_or(|newest| sending.at >= newest.at) {
            self.newest = Some(sending);
            self.first_sent = self.first_sent.max(sent);
        }
    }

    /// All packets of one acknowledgement were told; `in_flight` bytes are still under way.
    pub(super) fn end_acks(&mut self, in_flight: u64, app_limited: bool) -> Option<Sample> {
        if app_limited {
            self.app_limited_until = self.delivered.saturating_add(in_flight);
        }
        let sending = self.newest.take()?;
        // A packet that is later than all that are acknowledged may still be late; older ones are looked up, not kept
        // for long: at most one more round trip.
        let kept = sending.at.checked_sub(sending.at.saturating_duration_since(sending.first_sent) * 2);
        while self.sendings.len() > 1 && self.sendings.front().is_some_and(|first| Some(first.at) < kept) {
            self.sendings.pop_front();
        }
        let sending_took = sending.at.saturating_duration_since(sending.first_sent);
        let acks_took = self.delivered_at.saturating_duration_since(sending.delivered_at);
        let took = sending_took.max(acks_took).as_secs_f64();
        let bytes = self.delivered.saturating_sub(sending.delivered);
        (took > 0.0 && bytes > 0).then(|| Sample { rate: bytes as f64 / took, app_limited: sending.app_limited })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// Sends 1,000 bytes every millisecond and has them acknowledged a round trip later, `together` at a time.
    fn run(together: u64, millis: u64) -> f64 {
        let start = Instant::now();
        let at = |milli| start + Duration::from_millis(milli);
        let mut deliveries = Deliveries::new(start);
        let mut largest: f64 = 0.0;
        for milli in 0..millis {
            if milli >= 100 && (milli - 100) % together == together - 1 {
                for packet in 0..together {
                    deliveries.on_ack(at(milli), at(milli - 100 - (together - 1) + packet), 1_000);
                }
                let sample = deliveries.end_acks(100_000, false);
                if milli > 300 {
                    largest = largest.max(sample.unwrap().rate);
                }
            }
            deliveries.on_sent(at(milli), 1_000, RTT);
        }
        largest
    }

    #[test]
    fn a_steady_path_is_measured_exactly() {
        let rate = run(1, 1_000);
        assert!((rate - 1_000_000.0).abs() < 20_000.0, "{rate}");
    }

    #[test]
    fn acknowledgements_that_come_together_do_not_look_faster() {
        let rate = run(20, 1_000);
        assert!((rate - 1_000_000.0).abs() < 20_000.0, "{rate}");
    }

    #[test]
    fn a_peer_cannot_acknowledge_more_than_was_sent() {
        let now = Instant::now();
        let mut deliveries = Deliveries::new(now);
        deliveries.on_sent(now, 1_000, RTT);
        for _ in 0..1_000 {
            deliveries.on_ack(now + RTT, now, u64::MAX);
        }
        assert_eq!(deliveries.delivered(), 1_000);
        assert_eq!(deliveries.end_acks(0, false).map(|sample| sample.rate), Some(10_000.0));
    }

    #[test]
    fn what_was_sent_while_the_application_had_nothing_is_marked() {
        let now = Instant::now();
        let mut deliveries = Deliveries::new(now);
        deliveries.on_sent(now, 1_000, RTT);
        deliveries.on_ack(now + RTT, now, 1_000);
        deliveries.end_acks(0, true);
        deliveries.on_sent(now + RTT, 1_000, RTT);
        deliveries.on_ack(now + 2 * RTT, now + RTT, 1_000);
        assert!(deliveries.end_acks(0, false).is_some_and(|sample| sample.app_limited));
        deliveries.on_sent(now + 2 * RTT, 1_000, RTT);
        deliveries.on_ack(now + 3 * RTT, now + 2 * RTT, 1_000);
        assert!(deliveries.end_acks(0, false).is_some_and(|sample| !sample.app_limited));
    }

    #[test]
    fn memory_is_bounded_whatever_is_sent() {
        let now = Instant::now();
        let mut deliveries = Deliveries::new(now);
        for micro in 0..1_000_000 {
            deliveries.on_sent(now + Duration::from_micros(micro), 1_200, Duration::from_micros(1));
        }
        assert!(deliveries.sendings.len() <= MAX_SENDINGS);
    }
}
