//! Several flows on one link: 20 Mbit/s at 50 ms, with a queue of one and of four bandwidth-delay products.

use super::{
    super::simulation::{Cubic, Measured, TcpBbr},
    *,
};

const SEEDS: [u64; 3] = [1, 2, 3];

/// A link that is not quite the same for each seed.
fn link(products: f64) -> Path {
    Path { jitter: Duration::from_micros(300), ..Path::new(20.0, 50, products) }
}

/// Our part beside another flow in the 60 s after both have started, whichever is first.
fn beside(name: &str, other: impl Fn() -> Flow, part: std::ops::RangeInclusive<f64>) {
    for products in [1.0, 4.0] {
        for ours_first in [true, false] {
            let [start, other_start] = if ours_first { [0, 5] } else { [5, 0] };
            let run = |seed| {
                let flows = vec![ours().from(secs(start)), other().from(secs(other_start))];
                let mut world = World::new(link(products), seed, flows);
                world.run(secs(5));
                world.run(secs(65))
            };
            let runs: Vec<Measured> = SEEDS.into_iter().map(run).collect();
            let share = median(runs.iter().map(Measured::share).collect());
            let loss = median(runs.iter().map(|run| run.loss[0]).collect());
            let queue = median(runs.iter().map(|run| run.queue(0.5)).collect());
            println!(
                "{products} products, beside {name}, {}: {:4.1} %, loss {:4.1} %, queue {queue:5.1} ms",
                if ours_first { "ours first " } else { "ours second" },
                share * 100.0,
                loss * 100.0,
            );
            assert!(part.contains(&share), "{products} products beside {name}, ours first: {ours_first}: {share}");
        }
    }
}

#[test]
fn beside_cubic_neither_gets_less_than_30_percent() {
    beside("CUBIC", || Flow::tcp(Cubic::tcp()), 0.3..=0.7);
}

#[test]
fn beside_bbr_neither_gets_less_than_30_percent() {
    beside("BBR", || Flow::tcp(TcpBbr::new()), 0.3..=0.7);
}

#[test]
fn two_of_ours_share_evenly() {
    beside("another of ours", ours, 0.4..=0.6);
}

/// That the tests above can fail: CUBIC gets next to nothing beside BBR in a short queue.
#[test]
fn cubic_beside_bbr_would_not() {
    let flows = vec![Flow::ours(Cubic::library()), Flow::tcp(TcpBbr::new()).from(secs(5))];
    let mut world = World::new(link(1.0), 1, flows);
    world.run(secs(5));
    let share = world.run(secs(65)).share();
    assert!(share < 0.2, "{share}");
}

/// Who is alone again after CUBIC has left has a short queue again.
#[test]
fn when_the_rival_has_gone_the_queue_is_short_again() {
    let rival = Flow::tcp(Cubic::tcp()).source(super::super::simulation::Source::Pause(secs(20), secs(1_000)));
    let mut world = World::new(link(4.0), 1, vec![ours(), rival.from(secs(2))]);
    world.run(secs(20));
    world.run(secs(32));
    let alone = world.run(secs(45));
    assert!(alone.goodput[0] > 18.0, "{:?}", alone.goodput);
    assert!(alone.queue(0.5) < 18.0, "{}", alone.queue(0.5));
}

/// More than two fill the queue as CUBIC does, and share less evenly; none of them starves, and no more is lost than they
/// bear from each other, 9 %.
#[test]
fn five_of_ours_each_get_something() {
    for seed in SEEDS {
        let flows = (0..5).map(|flow| ours().from(secs(flow))).collect();
        let mut world =
            World::new(Path { jitter: Duration::from_micros(300), ..Path::new(100.0, 50, 2.0) }, seed, flows);
        world.run(secs(15));
        let measured = world.run(secs(75));
        println!("{:.1?} Mbit/s, loss {:.3?}, queue {:.1} ms", measured.goodput, measured.loss, measured.queue(0.5));
        let least = measured.goodput.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(least > 4.0, "{:?}", measured.goodput);
        assert!(measured.goodput.iter().sum::<f64>() > 92.0, "{:?}", measured.goodput);
        assert!(measured.loss.iter().all(|loss| *loss < 0.09), "{:?}", measured.loss);
    }
}
