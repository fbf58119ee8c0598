//! Whether packets arrive that were sent in one batch.
//!
//! The kernel cuts a batch into packets (UDP segmentation offload), late on their way out. Some paths spoil what it makes:
//! where a NAT has changed a batch's port and no hardware computes checksums, Linux 6.18 gives every packet of it a wrong
//! one. Packets that are sent alone arrive; so the connection is open, its probes are answered, and nothing of length ever
//! comes through. Nobody but the sender can see it.

use std::{collections::VecDeque, time::Instant};

/// Batches lost whole, one after the other, that are proof. The library finds out after fewer that the path has come to
/// lose what is long, and begins anew with packets that every path carries.
const PROOF: u32 = 5;

/// Packets sent alone that must have arrived meanwhile: a path that is out loses everything.
const ALONE: u32 = 3;

/// Sends that are remembered. With more under way, batches are seen to arrive by the later ones.
const REMEMBERED: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alone,
    Batch,
    /// Both at the same time: an acknowledgement does not tell which of them arrived.
    Mixed,
}

/// What has become of the batches of a connection.
#[derive(Debug, Clone)]
pub(super) struct Batches {
    packet: u64,
    sent: VecDeque<(Instant, Kind)>,
    lost: u32,
    alone: u32,
}

impl Batches {
    pub(super) fn new(packet: u16) -> Self {
        Self { packet: u64::from(packet), sent: VecDeque::with_capacity(REMEMBERED), lost: 0, alone: 0 }
    }

    /// Full packets have another size now. What was lost may have been too long.
    pub(super) fn on_packet_size(&mut self, packet: u16) {
        *self = Self::new(packet);
    }

    /// So many bytes were sent at once.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        let kind = if bytes > self.packet { Kind::Batch } else { Kind::Alone };
        match self.sent.back_mut() {
            Some((at, known)) if *at == now => *known = if *known == kind { kind } else { Kind::Mixed },
            _ => {
                if self.sent.len() == REMEMBERED {
                    self.sent.pop_front();
                }
                self.sent.push_back((now, kind));
            }
        }
    }

    /// A packet is acknowledged that was sent at `sent`.
    pub(super) fn on_ack(&mut self, sent: Instant) {
        let Some(at) = self.find(sent) else { return };
        match at {
            Kind::Batch => (self.lost, self.alone) = (0, 0),
            Kind::Alone if self.lost > 0 => self.alone = self.alone.saturating_add(1),
            Kind::Alone | Kind::Mixed => {}
        }
        // What is left of it is not missed.
        self.sent.retain(|(time, _)| *time != sent);
    }

    fn find(&self, sent: Instant) -> Option<Kind> {
        self.sent.iter().find(|(time, _)| *time == sent).map(|(_, kind)| *kind)
    }

    /// Packets are lost, the last of them sent at `sent`.
    pub(super) fn on_loss(&mut self, sent: Instant) {
        while let Some((time, kind)) = self.sent.front().copied()
            && time <= sent
        {
            self.sent.pop_front();
            self.lost = self.lost.saturating_add(u32::from(kind == Kind::Batch));
        }
    }

    /// Batches do not arrive, and other packets do.
    pub(super) fn vanish(&self) -> bool {
        self.lost >= PROOF && self.alone >= ALONE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PACKET: u16 = 1_200;

    struct Path {
        batches: Batches,
        now: Instant,
    }

    impl Path {
        fn new() -> Self {
            Self { batches: Batches::new(PACKET), now: Instant::now() }
        }

        fn send(&mut self, packets: u64) -> Instant {
            self.now += Duration::from_millis(10);
            self.batches.on_sent(self.now, packets * u64::from(PACKET));
            self.now
        }

        /// A batch that is lost, and a probe that is answered and tells of it.
        fn lose_batch(&mut self) {
            let batch = self.send(7);
            let probe = self.send(1);
            self.batches.on_ack(probe);
            self.batches.on_loss(batch);
        }
    }

    #[test]
    fn batches_that_are_lost_while_probes_arrive_vanish() {
        let mut path = Path::new();
        for _ in 1..PROOF {
            path.lose_batch();
            assert!(!path.batches.vanish());
        }
        path.lose_batch();
        assert!(path.batches.vanish());
    }

    #[test]
    fn one_packet_of_a_batch_that_arrives_shows_that_batches_do() {
        let mut path = Path::new();
        for _ in 0..100 {
            path.lose_batch();
            path.lose_batch();
            let batch = path.send(2);
            path.batches.on_ack(batch);
            path.batches.on_loss(batch);
            assert!(!path.batches.vanish());
        }
    }

    #[test]
    fn a_path_that_is_out_proves_nothing() {
        let mut path = Path::new();
        for _ in 0..100 {
            path.send(7);
            let last = path.send(1);
            path.batches.on_loss(last);
        }
        assert!(!path.batches.vanish());
    }

    #[test]
    fn packets_that_became_too_long_prove_nothing() {
        let mut path = Path::new();
        for _ in 1..PROOF {
            path.lose_batch();
        }
        path.batches.on_packet_size(PACKET);
        path.lose_batch();
        assert!(!path.batches.vanish());
    }

    #[test]
    fn what_is_sent_at_the_same_time_proves_nothing() {
        let mut path = Path::new();
        for _ in 0..PROOF {
            path.lose_batch();
            let batch = path.send(7);
            path.batches.on_sent(batch, 100);
            path.batches.on_ack(batch);
        }
        assert!(path.batches.vanish(), "neither that batches arrive");
        let mut path = Path::new();
        for _ in 0..100 {
            let batch = path.send(7);
            path.batches.on_sent(batch, 100);
            let probe = path.send(1);
            path.batches.on_ack(probe);
            path.batches.on_loss(batch);
        }
        assert!(!path.batches.vanish(), "nor that they do not");
    }

    #[test]
    fn no_more_is_remembered_than_needed() {
        let mut path = Path::new();
        for _ in 0..10 * REMEMBERED {
            path.send(7);
        }
        assert_eq!(path.batches.sent.len(), REMEMBERED);
    }
}
