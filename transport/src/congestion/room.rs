//! Room for a nudge beyond the congestion window, and what else a connection's controller tells of its path.
//!
//! When a path is out with a full window under way, only the library's own probes may be sent, and the pauses between them
//! double: after 20 s the next one may come later than the idle timeout. Who wants to know sooner whether the path is
//! back (`nudge`) makes room for a packet or two, whatever the controller says. What is sent takes the room, an
//! acknowledgement ends it: a packet or two every few seconds are all that a path can get that answers nothing.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use super::batches::Batches;

/// Bytes that one connection may send beyond its congestion window, how often there was no reason for them, and whether
/// its batches arrive.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: AtomicU64,
    acknowledged: AtomicU64,
    batches_vanish: AtomicBool,
}

impl Room {
    /// Makes room for `bytes`. Room of which nothing was taken was too small, as more is in flight than is known here: what
    /// the library sends to probe for the MTU is not told. So it becomes larger each time.
    pub(crate) fn make(&self, bytes: u64) {
        let left = self.bytes();
        self.bytes.store(if left >= bytes { left.saturating_add(bytes) } else { bytes }, Ordering::Relaxed);
    }

    /// The peer has acknowledged something new: there is no reason for room any more.
    fn end(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// How often the peer has acknowledged something new. Acknowledgements that only repeat what was known do not count.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Packets that are sent in one batch do not arrive, and others do.
    pub(crate) fn batches_vanish(&self) -> bool {
        self.batches_vanish.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) {
        // Whoever makes room at the same time has made it for what comes next.
        let left = |room: u64| (room > 0).then(|| room.saturating_sub(bytes));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Makes controllers that let pass what there is room for.
pub(super) struct RoomFactory {
    pub(super) inner: Arc<dyn ControllerFactory + Send + Sync>,
    pub(super) room: Arc<Room>,
}

impl ControllerFactory for RoomFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(WithRoom {
            inner: self.inner.clone().build(now, current_mtu),
            room: self.room.clone(),
            in_flight: 0,
            batches: Batches::new(current_mtu),
        })
    }
}

/// Another controller, with room.
struct WithRoom {
    inner: Box<dyn Controller>,
    room: Arc<Room>,
    /// At least the bytes in flight: packets that need no acknowledgement count too, until the next one comes.
    in_flight: u64,
    batches: Batches,
}

impl Controller for WithRoom {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.in_flight = self.in_flight.saturating_add(bytes);
        self.room.take(bytes);
        self.batches.on_sent(now, bytes);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.batches.on_ack(sent, bytes);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.in_flight = in_flight;
        self.room.end();
        if self.batches.vanish() {
            self.room.batches_vanish.store(true, Ordering::Relaxed);
        }
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.batches.on_loss(sent);
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.batches.on_packet_size(new_mtu);
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.inner.window();
        match self.room.bytes() {
            0 => window,
            room => window.max(self.in_flight.saturating_add(room)),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            room: self.room.clone(),
            in_flight: self.in_flight,
            batches: self.batches.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::CongestionControl, *};

    const PACKET: u64 = 1_200;

    #[test]
    fn room_lets_so_many_bytes_pass_whatever_the_controller_says() {
        for control in CongestionControl::ALL {
            let room = Arc::new(Room::default());
            let now = Instant::now();
            let mut controller = control.factory(32 * PACKET, room.clone()).build(now, 1_200);
            let mut in_flight = 0;
            while in_flight + PACKET < controller.window() {
                controller.on_sent(now, PACKET, 0);
                in_flight += PACKET;
            }
            room.make(2 * PACKET);
            assert!(in_flight + PACKET < controller.window(), "{control}: no room");
            controller.on_sent(now, PACKET, 0);
            assert!(in_flight + 2 * PACKET >= controller.window(), "{control}: room for more than one packet");
            room.make(2 * PACKET);
            controller.on_end_acks(now, 0, false, None);
            assert_eq!((room.bytes(), room.acknowledged()), (0, 1), "{control}: an acknowledgement ends it");
        }
    }

    #[test]
    fn room_that_is_not_taken_grows() {
        let room = Room::default();
        room.make(2 * PACKET);
        room.make(2 * PACKET);
        assert_eq!(room.bytes(), 4 * PACKET);
        room.take(3 * PACKET);
        room.make(2 * PACKET);
        assert_eq!(room.bytes(), 2 * PACKET);
    }

    #[test]
    fn what_is_lost_is_not_in_flight() {
        let room = Arc::new(Room::default());
        let now = Instant::now();
        let mut controller = CongestionControl::NewReno.factory(10 * PACKET, room.clone()).build(now, 1_200);
        controller.on_sent(now, 20 * PACKET, 0);
        controller.on_congestion_event(now, now, false, 5 * PACKET);
        room.make(2 * PACKET);
        assert_eq!(controller.window(), 17 * PACKET);
    }
}
