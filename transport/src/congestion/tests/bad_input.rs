//! Paths at the edge, and peers that lie.

use super::{super::simulation::Policer, *};

#[test]
fn the_worst_paths_carry_something_and_never_close_the_window() {
    let jittery = Path { jitter: millis(300), reorder: true, ..Path::new(5.0, 100, 1.0).lossy(0.05) };
    let trickle = Path { policer: Some(Policer { rate: 64e3, burst: 3_000.0 }), ..Path::new(100.0, 20, 1.0) };
    for (name, path, seconds, least) in [
        ("9.6 kbit/s", Path::new(0.0096, 100, 1_000.0), 600, 0.008),
        ("9.6 kbit/s, 20 %", Path::new(0.0096, 100, 1_000.0).lossy(0.2), 600, 0.003),
        ("2 s", Path::new(20.0, 2_000, 1.0), 120, 8.0),
        ("2 s, 5 %", Path::new(20.0, 2_000, 1.0).lossy(0.05), 120, 4.0),
        ("50 %", Path::new(20.0, 50, 1.0).lossy(0.5), 60, 0.5),
        ("90 %", Path::new(20.0, 50, 1.0).lossy(0.9), 600, 0.000_01),
        ("no queue", Path::new(20.0, 50, 0.01), 60, 0.1),
        ("300 ms of jitter", jittery, 60, 0.02),
        ("64 kbit/s policed", trickle, 120, 0.03),
        ("1 us", Path { rtt: vec![(Duration::ZERO, Duration::from_micros(1))], ..Path::new(100.0, 1, 10.0) }, 5, 90.0),
    ] {
        let measured = World::new(path, 1, vec![ours()]).run(secs(seconds));
        println!("{name}: {:.4} Mbit/s, {:.3} lost, window {}", measured.goodput[0], measured.loss[0], measured.window);
        assert!(measured.goodput[0] > least, "{name}: {:?}", measured.goodput);
        assert!(measured.window > 2 * PACKET, "{name}: {}", measured.window);
    }
}

/// A peer says that packets arrived long before they can have, again and again, and more than there were.
#[test]
fn a_peer_that_acknowledges_what_was_never_sent_opens_no_window() {
    let start = Instant::now();
    let mut model = model();
    for milli in 0..10_000 {
        let now = start + millis(milli);
        model.on_sent(now, 1_200);
        for _ in 0..50 {
            Control::on_ack(&mut model, now, now, u64::MAX / 4, false);
            Control::on_end_acks(&mut model, now, 0, false);
        }
    }
    // What was sent, 1.2 MB a second, and 5 ms that each path counts for at least, several times over.
    assert!(model.window() < 64 * PACKET, "{}", model.window());
}

/// Acknowledgements in any order, at any time, of anything: no panic, no overflow, always a window.
#[test]
fn nonsense_is_harmless() {
    let start = Instant::now();
    let mut seed = 1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for run in 0..200 {
        let mut model =
            Model::new(start + secs(1), u16::try_from(random() % 65_536).unwrap(), random() >> (random() % 64));
        for _ in 0..2_000 {
            let now = start + Duration::from_nanos(random() >> (24 + random() % 40));
            let sent = start + Duration::from_nanos(random() >> (24 + random() % 40));
            let bytes = random() >> (random() % 64);
            match random() % 6 {
                0 => model.on_sent(now, bytes),
                1 => Control::on_ack(&mut model, now, sent, bytes, false),
                2 => Control::on_end_acks(&mut model, now, bytes, random() % 2 == 0),
                3 => Control::on_loss(&mut model, now, sent, random() % 50 == 0, bytes),
                4 => model.on_packet_size(u16::try_from(random() % 65_536).unwrap()),
                _ => model.on_sent(now, 1_200),
            }
            assert!((1..=1 << 31).contains(&model.window()), "{run}: {}", model.window());
        }
    }
}

/// Marks of congestion (ECN) count as losses do for others.
#[test]
fn a_marking_router_is_heard() {
    let start = Instant::now();
    let mut model = model();
    let before = model.window();
    Control::on_loss(&mut model, start, start, false, 0);
    assert!(model.window() < before);
}

#[test]
fn all_lost_for_long_closes_the_window_to_a_few_packets() {
    let start = Instant::now();
    let mut model = model();
    Control::on_loss(&mut model, start, start, true, 32 * PACKET);
    assert!((2 * PACKET..5 * PACKET).contains(&model.window()), "{}", model.window());
}
