//! A path in virtual time, and the flows that share it: minutes of traffic in a second.
//!
//! All flows send into one bottleneck (rate, queue in bytes, policer), behind which are delay, jitter, loss, and a
//! receiver that acknowledges every second packet. One seed gives one run. What a flow's sender does around its
//! controller - pacing, loss detection, probes - is as in the library, see [`sender`]; [`rival`] has the other
//! controllers. Not simulated: several bottlenecks, senders that cannot keep up, flow control.

mod path;
mod rival;
mod sender;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

pub(super) use path::{Loss, Path, Policer};
pub(super) use rival::{Cubic, TcpBbr};
pub(super) use sender::{Control, Pacing, Source};

use path::{Bottleneck, Random};
use sender::Sender;

/// Bytes of a packet as the controller counts them, on the wire, and of data in it.
pub(super) const PACKET: u64 = 1_452;
const ON_THE_WIRE: u64 = 1_480;
const DATA: u64 = 1_420;

/// How long a receiver may wait for a second packet to acknowledge (RFC 9000, section 13.2.1).
const ACK_DELAY: Duration = Duration::from_millis(25);

/// Time between two looks at the queue.
const LOOK: Duration = Duration::from_millis(5);

/// What a flow is.
pub(super) struct Flow {
    pub(super) control: Box<dyn Control>,
    pub(super) source: Source,
    pub(super) start: Duration,
    /// A packet that is passed by so many is lost.
    pub(super) packet_threshold: u64,
}

impl Flow {
    /// A flow of ours: it bears reordering.
    pub(super) fn ours(control: impl Control + 'static) -> Self {
        Self { control: Box::new(control), source: Source::Bulk, start: Duration::ZERO, packet_threshold: 128 }
    }

    /// A flow of TCP.
    pub(super) fn tcp(control: impl Control + 'static) -> Self {
        Self { packet_threshold: 3, ..Self::ours(control) }
    }

    pub(super) fn from(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }

    pub(super) fn source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }
}

/// What came of a run, or of a part of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// Megabits of data per second, for each flow.
    pub(super) goodput: Vec<f64>,
    /// Lost packets per packet sent, for each flow.
    pub(super) loss: Vec<f64>,
    /// Queue delays in milliseconds, sorted.
    queue: Vec<f64>,
    /// The congestion window of the first flow at the end.
    pub(super) window: u64,
}

impl Measured {
    /// A quantile of the queue's delay in milliseconds.
    pub(super) fn queue(&self, quantile: f64) -> f64 {
        let last = self.queue.len().saturating_sub(1);
        self.queue.get((last as f64 * quantile) as usize).copied().unwrap_or(0.0)
    }

    /// The first flow's part of what all flows got.
    pub(super) fn share(&self) -> f64 {
        self.goodput[0] / self.goodput.iter().sum::<f64>()
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Packet { flow: usize, number: u64 },
    AckDelay { flow: usize, received: u64 },
    Ack { flow: usize, numbers: Vec<u64> },
    Wake { flow: usize, at: Duration },
    Look,
}

struct Receiver {
    unacked: Vec<u64>,
    received: u64,
    last_ack: Duration,
}

/// The running simulation.
pub(super) struct World {
    epoch: Instant,
    now: Duration,
    order: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    bottleneck: Bottleneck,
    random: Random,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    queue: Vec<f64>,
    marks: Vec<(u64, u64, u64)>,
}

impl World {
    pub(super) fn new(path: Path, seed: u64, flows: Vec<Flow>) -> Self {
        let epoch = Instant::now();
        let mut world = Self {
            epoch,
            now: Duration::ZERO,
            order: 0,
            events: BinaryHeap::new(),
            bottleneck: Bottleneck::new(path),
            random: Random::new(seed),
            receivers: Vec::new(),
            senders: Vec::new(),
            queue: Vec::new(),
            marks: Vec::new(),
        };
        for (flow, settings) in flows.into_iter().enumerate() {
            let start = settings.start;
            world.senders.push(Sender::new(settings, epoch));
            world.receivers.push(Receiver { unacked: Vec::new(), received: 0, last_ack: Duration::ZERO });
            world.marks.push((0, 0, 0));
            world.senders[flow].wake_at = Some(start);
            world.at(start, Event::Wake { flow, at: start });
        }
        world.at(LOOK, Event::Look);
        world
    }

    /// Runs until `until` and tells of the time since the last call.
    pub(super) fn run(&mut self, until: Duration) -> Measured {
        let began = self.now;
        self.queue.clear();
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > until {
                break;
            }
            if let Some(Reverse((at, _, event))) = self.events.pop() {
                self.now = at;
                self.handle(event);
            }
        }
        self.now = until;
        self.measure(until - began)
    }

    fn measure(&mut self, took: Duration) -> Measured {
        let mut measured = Measured { queue: std::mem::take(&mut self.queue), ..Measured::default() };
        measured.queue.sort_by(f64::total_cmp);
        for (sender, mark) in self.senders.iter().zip(&mut self.marks) {
            let (good, sent, lost) = (sender.good, sender.sent, sender.lost);
            let bits = (good - mark.0) * DATA * 8;
            measured.goodput.push(bits as f64 / took.as_secs_f64() / 1e6);
            measured.loss.push((lost - mark.2) as f64 / (sent - mark.1).max(1) as f64);
            *mark = (good, sent, lost);
        }
        measured.window = self.senders[0].control.window();
        measured
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Packet { flow, number } => {
                let receiver = &mut self.receivers[flow];
                receiver.unacked.push(number);
                receiver.received += 1;
                let received = receiver.received;
                if receiver.unacked.len() >= 2 {
                    self.acknowledge(flow);
                } else {
                    self.at(self.now + ACK_DELAY, Event::AckDelay { flow, received });
                }
            }
            Event::AckDelay { flow, received } => {
                if self.receivers[flow].received == received && !self.receivers[flow].unacked.is_empty() {
                    self.acknowledge(flow);
                }
            }
            Event::Ack { flow, numbers } => {
                self.senders[flow].on_ack(self.epoch + self.now, &numbers);
                self.send(flow);
            }
            Event::Wake { flow, at } => {
                if self.senders[flow].wake_at == Some(at) {
                    self.senders[flow].wake_at = None;
                    self.senders[flow].on_timer(self.epoch + self.now);
                    self.send(flow);
                }
            }
            Event::Look => {
                self.queue.push(self.bottleneck.queue_delay(self.now).as_secs_f64() * 1e3);
                self.at(self.now + LOOK, Event::Look);
            }
        }
    }

    /// Sends an acknowledgement. One that is lost is made up for by the next, as their ranges overlap.
    fn acknowledge(&mut self, flow: usize) {
        if self.bottleneck.loses_ack(&mut self.random) || self.bottleneck.is_out(self.now) {
            return;
        }
        let numbers = std::mem::take(&mut self.receivers[flow].unacked);
        let arrives = self.bottleneck.ack_arrives(self.now, &mut self.random).max(self.receivers[flow].last_ack);
        self.receivers[flow].last_ack = arrives;
        self.at(arrives, Event::Ack { flow, numbers });
    }

    fn send(&mut self, flow: usize) {
        let mut numbers = VecDeque::new();
        let wake = self.senders[flow].poll(self.epoch + self.now, &mut numbers);
        for number in numbers {
            if let Some(arrives) = self.bottleneck.carry(self.now, flow, ON_THE_WIRE, &mut self.random) {
                self.at(arrives, Event::Packet { flow, number });
            }
        }
        if let Some(wake) = wake {
            let at = wake.saturating_duration_since(self.epoch).max(self.now + Duration::from_nanos(1));
            if self.senders[flow].wake_at.is_none_or(|earlier| at < earlier || earlier <= self.now) {
                self.senders[flow].wake_at = Some(at);
                self.at(at, Event::Wake { flow, at });
            }
        }
    }
}
