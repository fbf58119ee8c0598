use super::*;
use crate::link::conditions::{Loss, Queue};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A packet without memory.
#[derive(Debug, Clone, PartialEq)]
struct Mark {
    id: u64,
    bytes: usize,
    corrupt: bool,
}

impl Load for Mark {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn corrupt(&mut self, _: u64) {
        self.corrupt = true;
    }
}

fn mark(id: u64, bytes: usize) -> Mark {
    Mark { id, bytes, corrupt: false }
}

fn path(conditions: Conditions) -> Path<Mark> {
    conditions.check().unwrap();
    Path::new(Course::constant(conditions), 1, 0)
}

/// A rate without a limit worth mentioning, no delay.
fn open() -> Conditions {
    Conditions { rate: None, queue: Queue::Bytes(usize::MAX), ..Conditions::clean(1, Duration::ZERO) }
}

/// Offers packets at even times and gives back all that came, with their times.
fn train(path: &mut Path<Mark>, count: u64, gap: Duration, bytes: usize) -> Vec<Delivery<Mark>> {
    let mut arrived = Vec::new();
    let start = path.clock;
    for id in 0..count {
        let now = start + gap * u32::try_from(id).unwrap();
        while let Some(delivery) = path.next(now) {
            arrived.push(delivery);
        }
        let _ = path.offer(now, mark(id, bytes));
    }
    while let Some(delivery) = path.next(start + gap * u32::try_from(count).unwrap() + 100 * HOUR) {
        arrived.push(delivery);
    }
    arrived
}

#[test]
fn packets_leave_at_exactly_the_rate() {
    // A rate that does not divide: the rounding of each packet must not add up.
    for rate in [9_600, 384_000, 7_777_777, 100_000_000, 999_999_999] {
        let mut path = path(Conditions { queue: Queue::Bytes(10_000_000), ..Conditions::clean(rate, 10 * MS) });
        let arrived = train(&mut path, 5000, Duration::from_nanos(1), 1500);
        assert_eq!(arrived.len(), 5000);
        let took = (arrived[4999].due - 10 * MS).as_secs_f64();
        let measured = 5000.0 * 12_000.0 / took;
        assert!((measured / rate as f64 - 1.0).abs() < 1e-4, "{rate}: {measured}");
    }
}

#[test]
fn hours_of_overload_pass_in_no_time_and_at_the_rate() {
    let mut path = path(Conditions::clean(1_000_000, 20 * MS));
    // 1.5 Mbit/s offered for two hours.
    let arrived = train(&mut path, 900_000, 8 * MS, 1500);
    let took = (arrived.last().unwrap().due - arrived[0].due).as_secs_f64();
    let measured = (arrived.len() - 1) as f64 * 12_000.0 / took;
    assert!((measured / 1e6 - 1.0).abs() < 1e-6, "{measured}");
    let counters = path.counters();
    assert_eq!(counters.dropped.queue_full + arrived.len() as u64, 900_000);
    assert!(counters.busy + 20 * MS >= 2 * HOUR && counters.busy <= 2 * HOUR + SECOND, "{:?}", counters.busy);
}

#[test]
fn an_empty_path_adds_delay_and_sending_time() {
    let mut path = path(Conditions::clean(12_000_000, 30 * MS));
    for delivery in train(&mut path, 100, 10 * MS, 1500) {
        assert_eq!(delivery.due, 10 * MS * u32::try_from(delivery.packet.id).unwrap() + 31 * MS);
    }
    assert_eq!(path.counters().queue_delay.max(), Duration::ZERO);
}

#[test]
fn it_does_not_matter_how_late_or_how_often_one_looks() {
    let conditions = Conditions {
        jitter: Jitter::Reordering(5 * MS),
        loss_before: Loss::bursts(0.1, 3.0),
        loss_after: Loss::Random(0.1),
        duplicates: 0.1,
        corruption: 0.1,
        ..Conditions::clean(2_000_000, 25 * MS)
    };
    let course = Course::constant(conditions)
        .then(SECOND, Conditions { rate: Some(500_000), ..conditions })
        .repeated_after(2 * SECOND)
        .with_outage(3 * SECOND..4 * SECOND, Gate::Held);
    let run = |looks: &dyn Fn(&Path<Mark>, Duration) -> Duration| {
        let mut path = Path::new(course.clone(), 5, 0);
        let mut arrived = Vec::new();
        let mut look = Duration::ZERO;
        for id in 0..2000 {
            let now = 4 * MS * u32::try_from(id).unwrap();
            while look < now {
                while let Some(delivery) = path.next(look) {
                    arrived.push(delivery);
                }
                look = looks(&path, look);
            }
            let _ = path.offer(now, mark(id, 1000));
        }
        while let Some(delivery) = path.next(HOUR) {
            arrived.push(delivery);
        }
        arrived
    };
    let never = run(&|_, _| HOUR);
    assert_eq!(run(&|_, look| look + Duration::from_micros(10)), never);
    // What `wake` says is early enough: nothing arrives later than at its time.
    let woken = run(&|path, look| path.wake().unwrap_or(HOUR).max(look + Duration::from_nanos(1)));
    assert_eq!(woken, never);
    assert!(never.len() > 500);
}

#[test]
fn waking_when_told_delivers_everything_exactly_in_time() {
    let conditions = Conditions {
        jitter: Jitter::InOrder(10 * MS),
        queue: Queue::Bytes(100_000),
        ..Conditions::clean(1_000_000, 25 * MS)
    };
    let course = Course::constant(conditions).with_outage(SECOND..2 * SECOND, Gate::Held);
    let mut path = Path::new(course, 1, 0);
    let (mut offered, mut arrived, mut woken) = (0, 0, 0);
    loop {
        let offer_at = (offered < 200).then(|| 20 * MS * offered);
        let Some(now) = [offer_at, path.wake()].into_iter().flatten().min() else { break };
        while let Some(delivery) = path.next(now) {
            assert_eq!(delivery.due, now);
            arrived += 1;
        }
        if offer_at == Some(now) {
            path.offer(now, mark(u64::from(offered), 400)).unwrap();
            offered += 1;
        } else {
            woken += 1;
        }
    }
    assert_eq!(arrived, 200);
    assert!(woken <= 2 * arrived, "{woken}");
}

#[test]
fn the_queue_drops_its_tail() {
    let mut path = path(Conditions { queue: Queue::Bytes(15_000), ..Conditions::clean(12_000_000, MS) });
    let fates: Vec<_> = (0..20).map(|id| path.offer(Duration::ZERO, mark(id, 1500)).is_ok()).collect();
    assert_eq!(fates, [[true; 10], [false; 10]].concat());
    // One has left after its millisecond, so one more fits.
    assert!(path.offer(MS, mark(20, 1500)).is_ok());
    assert_eq!(path.offer(MS, mark(21, 1500)), Err((Cause::QueueFull, mark(21, 1500))));
    assert_eq!(path.counters().dropped, Dropped { queue_full: 11, ..Dropped::default() });
    // The last one waited for nine others (it came when the first had left).
    while path.next(SECOND).is_some() {}
    assert_eq!(path.counters().queue_delay.max(), 9 * MS);
}

#[test]
fn a_queue_in_time_follows_the_rate_and_one_packet_always_fits() {
    let conditions = Conditions { queue: Queue::Time(100 * MS), ..Conditions::clean(12_000_000, MS) };
    let mut path = path(conditions);
    let accepted = |path: &mut Path<Mark>, now| (0..200).filter(|id| path.offer(now, mark(*id, 1500)).is_ok()).count();
    assert_eq!(accepted(&mut path, Duration::ZERO), 100);
    path.set(SECOND, Course::constant(Conditions { rate: Some(1_200_000), ..conditions }));
    assert_eq!(accepted(&mut path, SECOND), 10);
    path.set(10 * SECOND, Course::constant(Conditions { queue: Queue::Bytes(0), ..conditions }));
    assert_eq!(accepted(&mut path, 10 * SECOND), 1);
}

#[test]
fn losses_are_as_many_as_asked_for_and_where_asked_for() {
    for (before, after) in [(0.01, 0.0), (0.0, 0.05), (0.3, 0.3)] {
        let conditions = Conditions {
            loss_before: Loss::Random(before),
            loss_after: Loss::Random(after),
            ..Conditions::clean(1_000_000, MS)
        };
        let mut path = path(conditions);
        let arrived = train(&mut path, 200_000, 10 * MS, 100);
        let counters = path.counters();
        let lost = 1.0 - arrived.len() as f64 / 200_000.0;
        assert!((lost / conditions.mean_loss() - 1.0).abs() < 0.05, "{before} {after}: {lost}");
        assert!(counters.expected_before.deviations(counters.dropped.before).abs() < 3.0);
        assert!(counters.expected_after.deviations(counters.dropped.after).abs() < 3.0);
        // What was lost on the air has taken the bottleneck's time, what was lost before has not.
        let sent = 200_000 - counters.dropped.before;
        assert_eq!(counters.busy, Duration::from_micros(800) * u32::try_from(sent).unwrap());
    }
}

#[test]
fn the_variance_of_bursts_is_known() {
    let loss = Loss::bursts(0.05, 6.0);
    let conditions = Conditions { loss_before: loss, ..open() };
    // The spread of the counts of many trains is as large as it should be.
    let squares: f64 = (0..200)
        .map(|seed| {
            let mut path = Path::new(Course::constant(conditions), seed, 0);
            train(&mut path, 2000, MS, 100);
            path.counters().expected_before.deviations(path.counters().dropped.before).powi(2)
        })
        .sum();
    assert!((0.75..1.25).contains(&(squares / 200.0)), "{}", squares / 200.0);
}

#[test]
fn packets_overtake_only_where_that_is_asked_for() {
    let run = |jitter| {
        let mut path = path(Conditions { jitter, ..Conditions::clean(100_000_000, 25 * MS) });
        let arrived = train(&mut path, 20_000, MS / 5, 1500);
        let late = arrived.windows(2).filter(|pair| pair[0].packet.id > pair[1].packet.id).count();
        (late, path.counters().overtaking, arrived.len())
    };
    assert_eq!(run(Jitter::None), (0, 0, 20_000));
    assert_eq!(run(Jitter::InOrder(5 * MS)), (0, 0, 20_000));
    let (late, overtaking, all) = run(Jitter::Reordering(5 * MS));
    // 50 packets fly within the 10 ms of spread: nearly all overtake or are overtaken.
    assert!(late > 8000 && overtaking > 16_000 && all == 20_000, "{late} {overtaking} {all}");
    // Packets further apart than the spread keep their order.
    let mut sparse = path(Conditions { jitter: Jitter::Reordering(5 * MS), ..Conditions::clean(100_000_000, 25 * MS) });
    train(&mut sparse, 1000, 11 * MS, 1500);
    assert_eq!(sparse.counters().overtaking, 0);
}

#[test]
fn a_delay_that_shrinks_does_not_reorder() {
    let far = Conditions::clean(100_000_000, 50 * MS);
    let course = Course::constant(far).then(SECOND, Conditions::clean(100_000_000, 20 * MS));
    let mut path = Path::new(course, 1, 0);
    let arrived = train(&mut path, 2000, MS, 1000);
    assert!(arrived.windows(2).all(|pair| pair[0].packet.id < pair[1].packet.id));
    assert_eq!(arrived[1999].due, 1999 * MS + 20 * MS + Duration::from_micros(80));
}

#[test]
fn copies_and_turned_bits_are_as_many_as_asked_for() {
    let mut path = path(Conditions { duplicates: 0.3, corruption: 0.01, ..open() });
    let arrived = train(&mut path, 100_000, MS, 100);
    assert!((128_500..131_500).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(arrived.len() as u64, 100_000 + path.counters().duplicated);
    assert!((900..1100).contains(&path.counters().corrupted));
    let corrupt: std::collections::BTreeSet<_> =
        arrived.iter().filter(|d| d.packet.corrupt).map(|d| d.packet.id).collect();
    assert_eq!(corrupt.len() as u64, path.counters().corrupted);
}

#[test]
fn longer_packets_than_the_mtu_vanish() {
    let mut path = path(Conditions { mtu: 1200, ..open() });
    assert_eq!(path.offer(Duration::ZERO, mark(1, 1201)), Err((Cause::TooLong, mark(1, 1201))));
    path.offer(Duration::ZERO, mark(2, 1200)).unwrap();
    assert_eq!(path.next(Duration::ZERO).unwrap().packet.id, 2);
}

#[test]
fn an_outage_loses_what_enters_and_nothing_else() {
    let course =
        Course::constant(Conditions::clean(1_000_000, 100 * MS)).with_outage(5 * SECOND..10 * SECOND, Gate::Lost);
    let mut path = Path::new(course, 1, 0);
    let arrived: Vec<_> = train(&mut path, 150, 100 * MS, 1000).into_iter().map(|d| d.packet.id).collect();
    assert_eq!(arrived, (0..50).chain(100..150).collect::<Vec<_>>());
    assert_eq!(path.counters().dropped.outage, 50);
}

#[test]
fn what_is_held_comes_afterwards_at_the_rate() {
    let course =
        Course::constant(Conditions { queue: Queue::Bytes(1_000_000), ..Conditions::clean(8_000_000, 10 * MS) })
            .with_outage(SECOND + MS / 2..2 * SECOND, Gate::Held);
    let mut path = Path::new(course, 1, 0);
    // A millisecond each; the one that enters at 1 s is held with half of its bits sent.
    let arrived = train(&mut path, 30, 100 * MS, 1000);
    assert_eq!(arrived.len(), 30);
    assert_eq!(arrived[9].due, 911 * MS);
    assert_eq!(arrived[10].due, 2 * SECOND + MS / 2 + 10 * MS);
    assert_eq!(arrived[11].due, 2 * SECOND + MS * 3 / 2 + 10 * MS);
    assert_eq!(arrived[19].due, 2 * SECOND + MS * 19 / 2 + 10 * MS);
}

#[test]
fn a_rate_that_changes_counts_for_the_packet_under_way() {
    let slow = Conditions::clean(12_000, 10 * MS);
    let course = Course::constant(slow).then(SECOND / 2, Conditions { rate: Some(120_000), ..slow });
    let mut path = Path::new(course, 1, 0);
    path.offer(Duration::ZERO, mark(0, 1500)).unwrap();
    // Half of it at 12 kbit/s in half a second, the rest ten times as fast.
    assert_eq!(path.next(HOUR).unwrap().due, 560 * MS);
    // The same with a change from outside.
    let mut path = Path::new(Course::constant(slow), 1, 0);
    path.offer(Duration::ZERO, mark(0, 1500)).unwrap();
    path.set(SECOND / 2, Course::constant(Conditions { rate: Some(120_000), ..slow }));
    assert_eq!(path.next(HOUR).unwrap().due, 560 * MS);
}

#[test]
fn a_course_is_followed_for_hours() {
    let base = Conditions { queue: Queue::Bytes(30_000), ..Conditions::clean(1_000_000, 10 * MS) };
    let course =
        Course::constant(base).then(SECOND, Conditions { rate: Some(3_000_000), ..base }).repeated_after(2 * SECOND);
    let mut path = Path::new(course, 1, 0);
    // 4 Mbit/s offered for half an hour; 2 Mbit/s is the mean.
    let arrived = train(&mut path, 600_000, 3 * MS, 1500);
    let measured = arrived.len() as f64 * 12_000.0 / 1800.0;
    assert!((measured / 2e6 - 1.0).abs() < 0.001, "{measured}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let conditions = Conditions {
        loss_before: Loss::Random(0.1),
        loss_after: Loss::bursts(0.1, 3.0),
        jitter: Jitter::Reordering(MS),
        ..Conditions::clean(10_000_000, 10 * MS)
    };
    let run = |seed, direction| train(&mut Path::new(Course::constant(conditions), seed, direction), 1000, MS, 500);
    assert_eq!(run(1, 0), run(1, 0));
    assert_ne!(run(1, 0), run(2, 0));
    assert_ne!(run(1, 0), run(1, 1));
}

#[test]
fn memory_is_bounded_without_a_rate() {
    let mut path = path(Conditions { delay: 60 * SECOND, ..open() });
    let accepted = (0..MAX_PACKETS as u64 + 10).filter(|id| path.offer(MS, mark(*id, 20)).is_ok()).count();
    assert_eq!(accepted, MAX_PACKETS);
    assert_eq!((path.under_way(), path.counters().dropped.crowded), (MAX_PACKETS, 10));
}

#[test]
fn every_packet_is_accounted_for() {
    let conditions = Conditions {
        loss_before: Loss::Random(0.1),
        loss_after: Loss::bursts(0.1, 3.0),
        duplicates: 0.2,
        mtu: 1000,
        ..Conditions::clean(1_000_000, 30 * MS)
    };
    let course = Course::constant(conditions).with_outage(SECOND..2 * SECOND, Gate::Lost);
    let mut path = Path::new(course, 9, 0);
    for id in 0..3000 {
        let _ = path.offer(MS * u32::try_from(id).unwrap(), mark(id, if id % 7 == 0 { 1001 } else { 500 }));
        if id % 3 == 0 {
            path.next(MS * u32::try_from(id).unwrap());
        }
        let counters = path.counters();
        let gone = counters.delivered + counters.dropped.total() + path.under_way() as u64;
        assert_eq!(gone, counters.offered + counters.duplicated, "after {id}");
    }
    assert!([path.counters().dropped.outage, path.counters().dropped.queue_full].iter().all(|count| *count > 0));
}
