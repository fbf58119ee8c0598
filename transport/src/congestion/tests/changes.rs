//! Paths and sources that change: rate, delay, outages, applications with little to send, pauses.

use super::{
    super::simulation::{Pacing, Source},
    *,
};

fn stepping(steps: &[(u64, f64)]) -> Path {
    Path { rate: steps.iter().map(|(from, mbit)| (secs(*from), mbit * 1e6)).collect(), ..Path::new(100.0, 50, 2.0) }
}

#[test]
fn a_rate_that_falls_is_followed_within_two_seconds() {
    let mut world = World::new(stepping(&[(0, 100.0), (10, 20.0)]), 1, vec![ours()]);
    world.run(secs(10));
    world.run(secs(12));
    let after = world.run(secs(20));
    assert!(after.goodput[0] > 17.0, "{:?}", after.goodput);
    assert!(after.queue(0.5) < 25.0, "{}", after.queue(0.5));
    assert!(after.loss[0] < 0.01, "{:?}", after.loss);
}

#[test]
fn a_rate_that_rises_is_used_within_three_seconds() {
    let mut world = World::new(stepping(&[(0, 20.0), (10, 100.0)]), 1, vec![ours()]);
    world.run(secs(10));
    world.run(secs(13));
    let after = world.run(secs(20));
    assert!(after.goodput[0] > 88.0, "{:?}", after.goodput);
}

#[test]
fn a_rate_that_changes_every_second_is_used() {
    let steps: Vec<_> = (0..30).map(|second| (second, if second % 2 == 0 { 50.0 } else { 20.0 })).collect();
    let mut world = World::new(stepping(&steps), 1, vec![ours()]);
    world.run(secs(4));
    let measured = world.run(secs(30));
    assert!(measured.goodput[0] > 22.0, "{:?}", measured.goodput);
    assert!(measured.loss[0] < 0.05, "{:?}", measured.loss);
}

#[test]
fn a_path_that_becomes_longer_or_shorter_is_used() {
    for (before, after) in [(50, 120), (120, 40)] {
        let rtt = vec![(Duration::ZERO, millis(before)), (secs(10), millis(after))];
        for loss in [0.0, 0.02] {
            let mut world =
                World::new(Path { rtt: rtt.clone(), ..Path::new(50.0, 120, 1.0).lossy(loss) }, 1, vec![ours()]);
            world.run(secs(10));
            world.run(secs(40));
            let measured = world.run(secs(55));
            assert!(measured.goodput[0] > 42.0, "{before} to {after} ms, {loss}: {:?}", measured.goodput);
            assert!(measured.queue(0.5) < 35.0, "{before} to {after} ms, {loss}: {}", measured.queue(0.5));
        }
    }
}

#[test]
fn after_an_outage_the_path_is_used_again() {
    let path = Path { outage: Some((secs(5), secs(10))), ..Path::new(100.0, 50, 1.0) };
    let mut world = World::new(path, 1, vec![ours()]);
    world.run(secs(18));
    let measured = world.run(secs(25));
    assert!(measured.goodput[0] > 88.0, "{:?}", measured.goodput);
}

#[test]
fn little_to_send_is_sent_at_once_and_opens_the_window_no_further() {
    let source = Source::Every(millis(20), 4);
    let mut world = World::new(Path::new(100.0, 50, 1.0), 1, vec![ours().source(source)]);
    let measured = world.run(secs(60));
    assert!(measured.goodput[0] > 2.2, "{:?}", measured.goodput);
    assert!(measured.queue(0.99) < 1.0, "{}", measured.queue(0.99));
    assert!(measured.window < 64 * PACKET, "{}", measured.window);
}

#[test]
fn after_a_pause_the_path_is_used_again_without_a_burst_of_loss() {
    for pause in [1, 8, 60] {
        let source = Source::Pause(secs(10), secs(10 + pause));
        let mut world = World::new(Path::new(100.0, 50, 0.5).lossy(0.01), 1, vec![ours().source(source)]);
        world.run(secs(10 + pause));
        let first = world.run(secs(12 + pause));
        assert!(first.goodput[0] > 60.0, "{pause}: {:?}", first.goodput);
        assert!(first.loss[0] < 0.08, "{pause}: {:?}", first.loss);
        let then = world.run(secs(20 + pause));
        assert!(then.goodput[0] > 88.0, "{pause}: {:?}", then.goodput);
    }
}

/// Half of the path is taken by who does not give way, and the queue is so short that delay says little: whatever
/// we send above the other half is lost.
#[test]
fn ten_percent_of_overload_does_not_become_more() {
    let path = Path::new(20.0, 50, 0.2);
    let taken = Source::Every(millis(50), 44);
    let mut world = World::new(path, 1, vec![ours(), Flow::tcp(Deaf).source(taken).from(secs(2))]);
    world.run(secs(6));
    let measured = world.run(secs(60));
    assert!(measured.loss[0] < 0.05, "{:?}", measured.loss);
    assert!(measured.goodput[0] > 5.0, "{:?}", measured.goodput);
}

/// A path that carries a tenth less than before, with next to no queue, and the same with a policer.
#[test]
fn ten_percent_less_is_taken_note_of() {
    let rate = vec![(Duration::ZERO, 22e6), (secs(5), 20e6)];
    let mut world = World::new(Path { rate, ..Path::new(20.0, 50, 0.1) }, 1, vec![ours()]);
    world.run(secs(5));
    let measured = world.run(secs(35));
    assert!(measured.loss[0] < 0.05, "{:?}", measured.loss);
    assert!(measured.goodput[0] > 15.0, "{:?}", measured.goodput);
}

/// It sends whatever there is, as fast as a half of the path.
struct Deaf;

impl Control for Deaf {
    fn on_sent(&mut self, _: Instant, _: u64) {}
    fn on_ack(&mut self, _: Instant, _: Instant, _: u64, _: bool) {}
    fn on_end_acks(&mut self, _: Instant, _: u64, _: bool) {}
    fn on_loss(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}
    fn window(&self) -> u64 {
        u64::MAX / 2
    }
    fn pacing(&self) -> Pacing {
        Pacing::Rate(10e6 / 8.0)
    }
}
