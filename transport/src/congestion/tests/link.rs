//! One flow on one link: does it use what the link carries, and how long is the queue?

use super::{
    super::simulation::{Cubic, Loss, Policer},
    *,
};

/// A link, and what is asked of a flow there.
struct Case {
    name: &'static str,
    path: Path,
    /// Megabits of data per second, at least.
    goodput: f64,
    /// Milliseconds of queue, at most: median and 99 %.
    queue: [f64; 2],
    /// Packets lost per packet sent, at most.
    loss: f64,
}

fn case(name: &'static str, path: Path, goodput: f64, queue: [f64; 2], loss: f64) -> Case {
    Case { name, path, goodput, queue, loss }
}

/// What is asked: the echo beside bulk of a link of 50.3 ms at 60 ms and 110 ms is a queue of 9 ms and 59 ms.
fn cases() -> Vec<Case> {
    let hundred = |millis| Path::new(100.0, millis, 1.0);
    let behind = Path { loss_behind: true, ..hundred(100).lossy(0.05) };
    let jitter = Path { jitter: millis(5), ..hundred(50) };
    let reorder = Path { reorder: true, ..jitter.clone() };
    let aggregated = Path { ack_every: millis(10), ..hundred(50) };
    let bursts = |worse, better| Path { loss: Loss::Bursts { worse, better, lost: 1.0 }, ..hundred(50) };
    let policed = |burst| Path { policer: Some(Policer { rate: 20e6, burst }), ..hundred(50) };
    vec![
        case("50 ms", hundred(50), 92.0, [9.0, 30.0], 0.001),
        case("50 ms, 1 %", hundred(50).lossy(0.01), 92.0, [9.0, 30.0], 0.015),
        case("100 ms, 3 %", hundred(100).lossy(0.03), 90.0, [9.0, 50.0], 0.04),
        case("100 ms, 5 %", hundred(100).lossy(0.05), 90.0, [9.0, 50.0], 0.06),
        case("100 ms, 5 % behind the bottleneck", behind, 86.0, [12.0, 50.0], 0.06),
        case("100 ms, 10 %", hundred(100).lossy(0.1), 88.0, [12.0, 50.0], 0.12),
        case("10 Mbit/s, 50 ms, 2 %", Path::new(10.0, 50, 1.0).lossy(0.02), 9.0, [20.0, 45.0], 0.03),
        case("20 Mbit/s, 50 ms, 2 MB of queue", Path::new(20.0, 50, 16.0), 18.2, [18.0, 60.0], 0.001),
        case("the same, 1 %", Path::new(20.0, 50, 16.0).lossy(0.01), 18.2, [18.0, 60.0], 0.015),
        case("queue of a tenth", Path::new(100.0, 50, 0.1), 88.0, [6.0, 6.0], 0.025),
        case("5 ms of jitter", jitter, 90.0, [12.0, 35.0], 0.005),
        case("5 ms of jitter with reordering", reorder, 90.0, [15.0, 40.0], 0.005),
        case("acknowledgements every 10 ms", aggregated, 90.0, [20.0, 45.0], 0.005),
        case("1 % in bursts of 10", bursts(0.001, 0.1), 90.0, [9.0, 30.0], 0.02),
        case("2.5 % in bursts of 50", bursts(0.0005, 0.02), 80.0, [9.0, 40.0], 0.04),
        case("policed to 20 Mbit/s, 50 kB", policed(50e3), 18.0, [1.0, 2.0], 0.05),
        case("policed to 20 Mbit/s, 500 kB", policed(500e3), 18.0, [1.0, 2.0], 0.05),
        case("1 Gbit/s, 1 ms", Path::new(1_000.0, 1, 10.0), 930.0, [8.0, 10.0], 0.001),
    ]
}

/// What is wrong with what a flow did.
fn complaint(case: &Case, measured: &Measured) -> Option<String> {
    let (goodput, loss) = (measured.goodput[0], measured.loss[0]);
    let queue = [measured.queue(0.5), measured.queue(0.99)];
    let wrong = goodput < case.goodput || loss > case.loss || queue[0] > case.queue[0] || queue[1] > case.queue[1];
    let line = format!(
        "{:34} {goodput:6.1} Mbit/s  loss {:4.1} %  queue {:5.1} / {:5.1} ms",
        case.name,
        loss * 100.0,
        queue[0],
        queue[1]
    );
    println!("{line}");
    wrong.then_some(line)
}

#[test]
fn a_flow_uses_its_link_and_keeps_the_queue_short() {
    let complaints: Vec<_> =
        cases().iter().filter_map(|case| complaint(case, &steady(&case.path, 1, ours()))).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// That the cases above can fail: the library's CUBIC fails on each link that loses packets or has a long queue.
#[test]
fn cubic_would_not() {
    for case in cases().iter().take(9) {
        let measured = steady(&case.path, 1, Flow::ours(Cubic::library()));
        assert!(complaint(case, &measured).is_some(), "{}", case.name);
    }
}

#[test]
fn start_up_takes_a_second() {
    for (path, goodput) in [(Path::new(100.0, 50, 1.0), 60.0), (Path::new(100.0, 50, 1.0).lossy(0.05), 40.0)] {
        let started = World::new(path, 1, vec![ours()]).run(secs(1));
        assert!(started.goodput[0] > goodput, "{:?}", started.goodput);
        assert!(started.loss[0] < 0.15, "{:?}", started.loss);
    }
}
