use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: usize) -> ServerId {
    ServerId::new(format!("server-{number}")).unwrap()
}

fn known(sync_forever: bool) -> KnownServers {
    KnownServers::new(Backoff::new(SECOND, 10 * SECOND), SECOND, sync_forever)
}

/// An agent that has found server 0, alone, at `now`.
fn with_one(sync_forever: bool, now: Instant) -> KnownServers {
    let mut known = known(sync_forever);
    assert_eq!(known.next(now), Action::Dial(1));
    assert_eq!(known.on_connected(&id(0), 1, now, 0.0), Verdict::Keep);
    known
}

#[test]
fn one_server_is_wanted_until_a_server_says_more() {
    let now = Instant::now();
    for (count, desired) in [(0, 1), (1, 1), (3, 3), (u32::MAX, MOST_SERVERS)] {
        let mut known = known(false);
        assert_eq!(known.desired(), 1);
        known.on_connected(&id(0), count, now, 0.0);
        assert_eq!(known.desired(), desired);
    }
}

#[test]
fn enough_servers_are_a_reason_to_rest() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    assert_eq!(known.next(now + 1_000 * SECOND), Action::Rest);
}

#[test]
fn sync_forever_goes_on_at_the_sync_interval() {
    let now = Instant::now();
    let mut known = with_one(true, now);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    let now = now + SECOND;
    assert_eq!(known.next(now), Action::Dial(1));
    assert_eq!(known.next(now), Action::Rest);
    assert_eq!(known.on_connected(&id(0), 1, now, 0.5), Verdict::Duplicate);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND.mul_f64(1.05)));
}

#[test]
fn a_server_beyond_the_count_is_kept() {
    let now = Instant::now();
    let mut known = with_one(true, now);
    known.next(now + SECOND);
    assert_eq!(known.on_connected(&id(1), 1, now + SECOND, 0.0), Verdict::Keep);
    assert_eq!(known.connected().count(), 2);
}

#[test]
fn the_count_of_a_duplicate_is_not_believed() {
    let now = Instant::now();
    let mut known = with_one(true, now);
    known.next(now + SECOND);
    known.on_connected(&id(0), 7, now + SECOND, 0.0);
    assert_eq!(known.desired(), 1);
}

#[test]
fn several_attempts_run_at_once_while_more_than_one_server_is_missing() {
    let now = Instant::now();
    let mut known = known(false);
    // Nothing is known of others before the first server answers.
    assert_eq!(known.next(now), Action::Dial(1));
    known.on_connected(&id(0), 3, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(4));
    assert_eq!(known.next(now), Action::Rest);
    // A duplicate is replaced at once.
    known.on_connected(&id(0), 3, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
    // One is missing now; the attempts under way are enough.
    known.on_connected(&id(1), 3, now, 0.0);
    assert_eq!(known.next(now), Action::Rest);
}

#[test]
fn a_search_that_finds_nothing_new_slows_down() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(&id(0), 3, now, 0.0);
    let mut at_once = 0;
    while let Action::Dial(attempts) = known.next(now) {
        at_once += attempts;
        for _ in 0..attempts {
            known.on_connected(&id(0), 3, now, 0.0);
        }
    }
    assert_eq!(at_once, BURST);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
}

#[test]
fn failures_back_off_and_any_success_begins_anew() {
    let mut now = Instant::now();
    let mut known = with_one(true, now);
    now += SECOND;
    let mut waits = Vec::new();
    for _ in 0..3 {
        assert_eq!(known.next(now), Action::Dial(1));
        known.on_failed(now, 0.0);
        let Action::WaitUntil(instant) = known.next(now) else { panic!("waits") };
        waits.push((instant - now).as_millis());
        now = instant;
    }
    assert_eq!(waits, [1_000, 1_500, 2_250]);
    known.next(now);
    known.on_connected(&id(0), 1, now, 0.0);
    now += SECOND;
    known.next(now);
    known.on_failed(now, 0.0);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
}

#[test]
fn attempts_that_fail_side_by_side_are_one_failure() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(&id(0), 5, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(4));
    for _ in 0..4 {
        known.on_failed(now, 0.0);
    }
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
    known.on_failed(now + SECOND, 0.0);
    assert_eq!(known.next(now + SECOND), Action::WaitUntil(now + SECOND.mul_f64(2.5)));
}

#[test]
fn a_lost_server_is_dialled_at_once_and_then_with_back_off() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    let now = now + 60 * SECOND;
    known.on_lost(&id(0), 60 * SECOND, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
    known.on_failed(now, 0.0);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
}

#[test]
fn a_lost_server_interrupts_a_wait() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(&id(0), 2, now, 0.0);
    known.next(now);
    known.on_failed(now, 0.0);
    assert!(matches!(known.next(now), Action::WaitUntil(_)));
    known.on_lost(&id(0), SECOND, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
}

#[test]
fn a_server_that_drains_is_replaced_while_it_is_connected() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    assert_eq!(known.next(now), Action::Rest);
    known.on_draining(&id(0));
    assert_eq!(known.next(now), Action::Dial(1));
    // Nobody else is there yet.
    assert_eq!(known.on_connected(&id(0), 1, now, 0.0), Verdict::Duplicate);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    // Told once is told.
    known.on_draining(&id(0));
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
    assert_eq!(known.on_connected(&id(1), 1, now + SECOND, 0.0), Verdict::Keep);
    assert_eq!(known.next(now + SECOND), Action::Rest);
    assert_eq!(known.connected().count(), 2);
    // Its end is no loss, and the end of its successor is one.
    known.on_lost(&id(0), 60 * SECOND, now + 60 * SECOND, 0.0);
    assert_eq!(known.next(now + 60 * SECOND), Action::Rest);
    known.on_lost(&id(1), 60 * SECOND, now + 60 * SECOND, 0.0);
    assert_eq!(known.next(now + 60 * SECOND), Action::Dial(1));
}

#[test]
fn a_server_that_is_gone_does_not_drain() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    known.on_draining(&id(7));
    assert_eq!(known.next(now), Action::Rest);
    known.on_draining(&id(0));
    known.on_lost(&id(0), SECOND, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
    assert_eq!(known.on_connected(&id(0), 1, now, 0.0), Verdict::Keep);
    assert_eq!(known.next(now), Action::Rest, "it has returned");
}

#[test]
fn servers_that_hang_up_are_not_dialled_in_a_circle() {
    let begin = Instant::now();
    let mut now = begin;
    let mut known = known(false);
    let mut attempts = 0;
    let mut next_id = 0;
    while now < begin + 60 * SECOND {
        match known.next(now) {
            Action::Dial(new) => {
                attempts += new;
                for _ in 0..new {
                    next_id += 1;
                    known.on_connected(&id(next_id), 100, now, 0.0);
                    known.on_lost(&id(next_id), Duration::ZERO, now, 0.0);
                }
            }
            Action::WaitUntil(instant) => now = instant,
            Action::Rest => panic!("servers are missing"),
        }
    }
    assert!(attempts <= 60 * PARALLEL_ATTEMPTS, "{attempts} in a minute");
}

/// What may happen to an agent.
#[derive(Debug, Clone)]
enum Event {
    Connected { server: usize, count: u32 },
    Failed,
    Lost { server: usize, lasted_ms: u64 },
    Drains { server: usize },
    Passed { ms: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0usize..6, 0u32..7).prop_map(|(server, count)| Event::Connected { server, count }),
        2 => Just(Event::Failed),
        2 => (0usize..6, 0u64..3_000).prop_map(|(server, lasted_ms)| Event::Lost { server, lasted_ms }),
        1 => (0usize..6).prop_map(|server| Event::Drains { server }),
        2 => (0u64..5_000).prop_map(|ms| Event::Passed { ms }),
    ]
}

proptest! {
    /// Whatever happens: never two connections to one server, never none desired, never more attempts than allowed,
    /// never an attempt without need, and with a server missing there is always an attempt, now or at an instant.
    #[test]
    fn rules_hold_whatever_happens(
        sync_forever in any::<bool>(), random in 0.0f64..1.0, events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut known = known(sync_forever);
        let mut now = Instant::now();
        let mut connected = BTreeSet::new();
        let mut draining = BTreeSet::new();
        let mut attempts = 0u32;
        for event in events {
            match event {
                Event::Connected { server, count } if attempts > 0 => {
                    attempts -= 1;
                    let verdict = known.on_connected(&id(server), count, now, random);
                    let new = connected.insert(id(server));
                    prop_assert_eq!(verdict == Verdict::Keep, new);
                }
                Event::Failed if attempts > 0 => {
                    attempts -= 1;
                    known.on_failed(now, random);
                }
                Event::Lost { server, lasted_ms } if connected.remove(&id(server)) => {
                    draining.remove(&id(server));
                    known.on_lost(&id(server), Duration::from_millis(lasted_ms), now, random);
                }
                Event::Drains { server } => {
                    if connected.contains(&id(server)) {
                        draining.insert(id(server));
                    }
                    known.on_draining(&id(server));
                }
                Event::Passed { ms } => now += Duration::from_millis(ms),
                _ => {}
            }
            prop_assert!(known.connected().eq(&connected));
            prop_assert!(known.desired() >= 1);
            let enough = connected.len() - draining.len() >= known.desired() as usize;
            match known.next(now) {
                Action::Dial(new) => {
                    prop_assert!(new > 0 && (!enough || sync_forever));
                    attempts += new;
                    prop_assert!(attempts <= PARALLEL_ATTEMPTS);
                }
                Action::WaitUntil(instant) => {
                    prop_assert!(instant > now && instant <= now + SECOND.mul_f64(11.0));
                    prop_assert!(!enough || sync_forever);
                }
                Action::Rest => prop_assert!(attempts > 0 || (enough && !sync_forever)),
            }
        }
    }
}
