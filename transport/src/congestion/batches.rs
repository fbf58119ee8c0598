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

/// What was sent at one time: the library may send batches and single packets then, and an acknowledgement does not tell
/// whose it is.
#[derive(Debug, Clone)]
struct Sent {
    at: Instant,
    /// Bytes in batches, and in packets sent alone.
    batches: u64,
    alone: u64,
    acknowledged: u64,
}

impl Sent {
    /// More is acknowledged than was sent alone.
    fn batches_arrive(&self) -> bool {
        self.batches > 0 && self.acknowledged > self.alone
    }
}

/// What has become of the batches of a connection.
#[derive(Debug, Clone)]
pub(super) struct Batches {
    packet: u64,
    sent: VecDeque<Sent>,
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
        if self.sent.back().is_none_or(|last| last.at != now) {
            if self.sent.len() == REMEMBERED {
                self.sent.pop_front();
            }
            self.sent.push_back(Sent { at: now, batches: 0, alone: 0, acknowledged: 0 });
        }
        if let Some(last) = self.sent.back_mut() {
            *if bytes > self.packet { &mut last.batches } else { &mut last.alone } += bytes;
        }
    }

    /// A packet of so many bytes is acknowledged that was sent at `sent`.
    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        let Ok(place) = self.sent.binary_search_by_key(&sent, |sent| sent.at) else { return };
        let first = self.sent[place].acknowledged == 0;
        self.sent[place].acknowledged += bytes;
        if self.sent[place].batches_arrive() {
            (self.lost, self.alone) = (0, 0);
        } else if first && self.lost > 0 {
            self.alone = self.alone.saturating_add(1);
        }
    }

    /// Packets are lost, the last of them sent at `sent`.
    pub(super) fn on_loss(&mut self, sent: Instant) {
        while let Some(first) = self.sent.front()
            && first.at <= sent
        {
            self.lost = self.lost.saturating_add(u32::from(first.batches > 0 && !first.batches_arrive()));
            self.sent.pop_front();
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
            self.batches.on_ack(probe, 30);
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
            path.batches.on_ack(batch, u64::from(PACKET));
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

    /// A batch and a packet alone at the same time, of which `bytes` arrive.
    fn mixed(path: &mut Path, bytes: &[u64]) {
        let batch = path.send(7);
        path.batches.on_sent(batch, 100);
        for bytes in bytes {
            path.batches.on_ack(batch, *bytes);
        }
        path.batches.on_loss(batch);
    }

    #[test]
    fn what_is_sent_alone_at_the_same_time_does_not_speak_for_the_batch() {
        let mut path = Path::new();
        for _ in 0..PROOF {
            mixed(&mut path, &[100]);
        }
        assert!(path.batches.vanish());
        mixed(&mut path, &[100, u64::from(PACKET)]);
        assert!(!path.batches.vanish(), "the batch has arrived, too");
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
