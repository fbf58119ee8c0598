//! What the model does on a simulated path, against the library's CUBIC, and beside others.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod changes;
mod link;
mod sharing;

use std::time::{Duration, Instant};

use super::{
    model::Model,
    simulation::{Control, Flow, Measured, PACKET, Path, World},
};

impl Control for Model {
    fn on_sent(&mut self, now: Instant, bytes: u64) {
        Model::on_sent(self, now, bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool) {
        Model::on_ack(self, now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        Model::on_end_acks(self, now, in_flight, app_limited);
    }

    fn on_loss(&mut self, now: Instant, sent: Instant, persistent: bool, bytes: u64) {
        Model::on_loss(self, now, sent, persistent, bytes);
    }

    fn window(&self) -> u64 {
        Model::window(self)
    }
}

fn model() -> Model {
    Model::new(Instant::now(), u16::try_from(PACKET).unwrap(), 32 * PACKET)
}

fn ours() -> Flow {
    Flow::ours(model())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One flow on a path: what it does from the third to the fifteenth second.
fn steady(path: &Path, seed: u64, flow: Flow) -> Measured {
    let mut world = World::new(path.clone(), seed, vec![flow]);
    world.run(secs(3));
    world.run(secs(15))
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
