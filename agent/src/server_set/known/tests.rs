use konnectivity_transport::server_list::{ListedServer, ServerList};
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: usize) -> ServerId {
    ServerId::new(format!("server-{number}")).unwrap()
}

fn known(sync_forever: bool) -> KnownServers {
    KnownServers::new(Backoff::new(SECOND, 10 * SECOND), SECOND, sync_forever, CountSource::Leases)
}

/// A server found by a search, which lists no others.
fn met(server_id: &ServerId, server_count: u32) -> Met<'_> {
    Met { server_id, server_count, lists_servers: false, sought: None }
}

/// An agent that has found server 0, alone, at `now`.
fn with_one(sync_forever: bool, now: Instant) -> KnownServers {
    let mut known = known(sync_forever);
    assert_eq!(known.next(now), Action::Dial(1));
    assert_eq!(known.on_connected(met(&id(0), 1), now, 0.0), Verdict::Keep);
    known
}

#[test]
fn one_server_is_wanted_until_a_server_says_more() {
    let now = Instant::now();
    for (count, desired) in [(0, 1), (1, 1), (3, 3), (u32::MAX, MOST_SERVERS)] {
        let mut known = known(false);
        assert_eq!(known.desired(), 1);
        known.on_connected(met(&id(0), count), now, 0.0);
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
    assert_eq!(known.on_connected(met(&id(0), 1), now, 0.5), Verdict::Duplicate);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND.mul_f64(1.05)));
}

#[test]
fn a_server_beyond_the_count_is_kept() {
    let now = Instant::now();
    let mut known = with_one(true, now);
    known.next(now + SECOND);
    assert_eq!(known.on_connected(met(&id(1), 1), now + SECOND, 0.0), Verdict::Keep);
    assert_eq!(known.connected().count(), 2);
}

#[test]
fn the_count_of_a_duplicate_is_not_believed() {
    let now = Instant::now();
    let mut known = with_one(true, now);
    known.next(now + SECOND);
    known.on_connected(met(&id(0), 7), now + SECOND, 0.0);
    assert_eq!(known.desired(), 1);
}

#[test]
fn several_attempts_run_at_once_while_more_than_one_server_is_missing() {
    let now = Instant::now();
    let mut known = known(false);
    // Nothing is known of others before the first server answers.
    assert_eq!(known.next(now), Action::Dial(1));
    known.on_connected(met(&id(0), 3), now, 0.0);
    assert_eq!(known.next(now), Action::Dial(4));
    assert_eq!(known.next(now), Action::Rest);
    // A duplicate is replaced at once.
    known.on_connected(met(&id(0), 3), now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
    // One is missing now; the attempts under way are enough.
    known.on_connected(met(&id(1), 3), now, 0.0);
    assert_eq!(known.next(now), Action::Rest);
}

#[test]
fn a_search_that_finds_nothing_new_slows_down() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(met(&id(0), 3), now, 0.0);
    let mut at_once = 0;
    while let Action::Dial(attempts) = known.next(now) {
        at_once += attempts;
        for _ in 0..attempts {
            known.on_connected(met(&id(0), 3), now, 0.0);
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
        known.on_failed(None, now, 0.0);
        let Action::WaitUntil(instant) = known.next(now) else { panic!("waits") };
        waits.push((instant - now).as_millis());
        now = instant;
    }
    assert_eq!(waits, [1_000, 1_500, 2_250]);
    known.next(now);
    known.on_connected(met(&id(0), 1), now, 0.0);
    now += SECOND;
    known.next(now);
    known.on_failed(None, now, 0.0);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
}

#[test]
fn attempts_that_fail_side_by_side_are_one_failure() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(met(&id(0), 5), now, 0.0);
    assert_eq!(known.next(now), Action::Dial(4));
    for _ in 0..4 {
        known.on_failed(None, now, 0.0);
    }
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
    known.on_failed(None, now + SECOND, 0.0);
    assert_eq!(known.next(now + SECOND), Action::WaitUntil(now + SECOND.mul_f64(2.5)));
}

#[test]
fn a_lost_server_is_dialled_at_once_and_then_with_back_off() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    let now = now + 60 * SECOND;
    known.on_lost(&id(0), 60 * SECOND, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
    known.on_failed(None, now, 0.0);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
}

#[test]
fn a_lost_server_interrupts_a_wait() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(met(&id(0), 2), now, 0.0);
    known.next(now);
    known.on_failed(None, now, 0.0);
    assert!(matches!(known.next(now), Action::WaitUntil(_)));
    known.on_lost(&id(0), SECOND, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
}

#[test]
fn a_server_that_drains_is_replaced_while_it_is_connected() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    assert_eq!(known.next(now), Action::Rest);
    known.on_draining(&id(0), now);
    assert_eq!(known.next(now), Action::Dial(1));
    // Nobody else is there yet.
    assert_eq!(known.on_connected(met(&id(0), 1), now, 0.0), Verdict::Duplicate);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    // Told once is told.
    known.on_draining(&id(0), now);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND));
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
    assert_eq!(known.on_connected(met(&id(1), 1), now + SECOND, 0.0), Verdict::Keep);
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
    known.on_draining(&id(7), now);
    assert_eq!(known.next(now), Action::Rest);
    known.on_draining(&id(0), now);
    known.on_lost(&id(0), SECOND, now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
    assert_eq!(known.on_connected(met(&id(0), 1), now, 0.0), Verdict::Keep);
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
                    known.on_connected(met(&id(next_id), 100), now, 0.0);
                    known.on_lost(&id(next_id), Duration::ZERO, now, 0.0);
                }
            }
            Action::WaitUntil(instant) => now = instant,
            other => panic!("servers are missing, and it does {other:?}"),
        }
    }
    assert!(attempts <= 60 * PARALLEL_ATTEMPTS, "{attempts} in a minute");
}

/// The servers by number, each at an address of its own.
fn told(count: u32, servers: &[usize]) -> Told {
    let servers = servers.iter().map(|number| ListedServer {
        id: id(*number),
        addresses: [format!("192.0.2.{number}:8091").parse().unwrap()].into(),
    });
    Told { list: ServerList { count, servers: servers.collect() }, via: [192, 0, 2, 99].into() }
}

fn listing(server_id: &ServerId, server_count: u32) -> Met<'_> {
    Met { lists_servers: true, ..met(server_id, server_count) }
}

/// Who is dialled at an address of its own now.
fn directs(known: &mut KnownServers, now: Instant) -> Vec<Direct> {
    let mut directs = Vec::new();
    while let Action::DialListed(direct) = known.next(now) {
        directs.push(direct);
    }
    directs
}

/// An agent that has found server 0, which lists servers 0 to 2.
fn with_list(now: Instant) -> KnownServers {
    let mut known = known(false);
    known.next(now);
    known.on_connected(listing(&id(0), 3), now, 0.0);
    assert_eq!(known.next(now), Action::WaitUntil(now + LIST_WAIT), "no search before the list is there");
    known.on_servers(&id(0), &told(3, &[0, 1, 2]), now, 0.5);
    known
}

/// The same when it has found all three.
fn with_all_listed(now: Instant) -> KnownServers {
    let mut known = with_list(now);
    for direct in directs(&mut known, now) {
        let met = Met { sought: Some(&direct), ..met(&direct.server_id, 3) };
        assert_eq!(known.on_connected(met, now, 0.0), Verdict::Keep);
    }
    assert_eq!(known.next(now), Action::Rest);
    known
}

#[test]
fn listed_servers_are_dialled_at_once_and_no_others() {
    let now = Instant::now();
    let mut known = with_list(now);
    let sought = directs(&mut known, now);
    assert_eq!(sought.iter().map(|direct| direct.server_id.as_str()).collect::<Vec<_>>(), ["server-1", "server-2"]);
    assert!(matches!(known.next(now), Action::WaitUntil(_)), "no search while there is hope");
    known.on_connected(Met { sought: Some(&sought[0]), ..met(&id(1), 3) }, now, 0.0);
    // The other address is dead: it is looked for as if there were no list.
    known.on_failed(Some(&sought[1]), now, 0.0);
    assert_eq!(known.next(now), Action::Dial(1));
}

#[test]
fn a_list_that_does_not_come_holds_nothing_up_for_long() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(listing(&id(0), 3), now, 0.0);
    assert_eq!(known.next(now + LIST_WAIT), Action::Dial(4));
}

#[test]
fn a_list_without_addresses_leaves_the_search() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(listing(&id(0), 1), now, 0.0);
    known.on_servers(&id(0), &told(3, &[]), now, 0.5);
    assert_eq!(known.desired(), 3);
    // All agents are told at the same moment, so that each takes its time.
    assert!(matches!(known.next(now), Action::WaitUntil(instant) if instant <= now + SECOND));
    assert!(matches!(known.next(now + SECOND), Action::Dial(_)));
}

#[test]
fn agents_that_have_all_take_their_time_with_a_new_server() {
    let now = Instant::now();
    let mut known = with_all_listed(now);
    known.on_servers(&id(1), &told(4, &[0, 1, 2, 3]), now, 0.5);
    assert_eq!(known.next(now), Action::WaitUntil(now + SECOND / 2));
    let sought = directs(&mut known, now + SECOND / 2);
    assert_eq!(sought[0].server_id, id(3));
    assert_eq!(known.desired(), 4);
}

#[test]
fn a_listed_server_that_drains_is_not_looked_for() {
    let now = Instant::now();
    let mut known = with_all_listed(now);
    known.on_draining(&id(2), now);
    assert_eq!(known.next(now), Action::WaitUntil(now + LIST_LAG), "the others will say who is there");
    // What it says by now is not believed; the others are.
    known.on_servers(&id(2), &told(9, &[7]), now, 0.5);
    known.on_servers(&id(0), &told(2, &[0, 1]), now, 0.5);
    assert_eq!((known.desired(), known.next(now)), (2, Action::Rest));
    known.on_lost(&id(2), 60 * SECOND, now, 0.5);
    assert_eq!(known.next(now + 60 * SECOND), Action::Rest);
    // It returns under its name.
    known.on_servers(&id(0), &told(3, &[0, 1, 2]), now, 0.0);
    assert_eq!(directs(&mut known, now).len(), 1);
}

#[test]
fn the_last_server_that_drains_is_replaced_by_anyone() {
    let now = Instant::now();
    let mut known = known(false);
    known.next(now);
    known.on_connected(listing(&id(0), 1), now, 0.0);
    known.on_servers(&id(0), &told(1, &[0]), now, 0.0);
    known.on_draining(&id(0), now);
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
}

#[test]
fn a_listed_server_that_is_lost_is_dialled_where_it_was() {
    let now = Instant::now();
    let mut known = with_all_listed(now);
    known.on_lost(&id(1), 60 * SECOND, now, 0.0);
    let sought = directs(&mut known, now);
    assert_eq!(sought[0].server_id, id(1));
    // It stays away, and the lists say so.
    known.on_failed(Some(&sought[0]), now, 0.0);
    known.on_servers(&id(0), &told(2, &[0, 2]), now, 0.0);
    assert_eq!(known.next(now), Action::Rest);
}

#[test]
fn leases_count_more_than_servers_unless_the_most_counts() {
    let now = Instant::now();
    for (source, leases, desired) in [
        (CountSource::Leases, None, 3),
        (CountSource::Leases, Some(0), 1),
        (CountSource::Leases, Some(2), 2),
        (CountSource::Leases, Some(5), 5),
        (CountSource::Max, None, 3),
        (CountSource::Max, Some(2), 3),
        (CountSource::Max, Some(5), 5),
    ] {
        let mut known = KnownServers::new(Backoff::new(SECOND, 10 * SECOND), SECOND, false, source);
        known.on_connected(met(&id(0), 3), now, 0.0);
        known.on_lease_count(leases, now, 0.0);
        assert_eq!(known.desired(), desired, "{source:?} {leases:?}");
    }
}

#[test]
fn a_lease_more_is_a_server_to_look_for() {
    let now = Instant::now();
    let mut known = with_one(false, now);
    known.on_lease_count(Some(1), now, 0.0);
    assert_eq!(known.next(now), Action::Rest);
    known.on_lease_count(Some(2), now, 0.5);
    assert!(matches!(known.next(now), Action::WaitUntil(instant) if instant <= now + SECOND));
    assert_eq!(known.next(now + SECOND), Action::Dial(1));
    known.on_lease_count(Some(1), now + SECOND, 0.5);
    known.on_failed(None, now + SECOND, 0.0);
    assert_eq!(known.next(now + 60 * SECOND), Action::Rest);
}

/// What may happen to an agent.
#[derive(Debug, Clone)]
enum Event {
    Connected { server: usize, count: u32 },
    Failed,
    Lost { server: usize, lasted_ms: u64 },
    Drains { server: usize },
    Lists { from: usize, count: u32, servers: Vec<usize> },
    Leases { count: Option<u32> },
    DirectConnected { server: usize, lists: bool },
    DirectFailed,
    Passed { ms: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0usize..6, 0u32..7).prop_map(|(server, count)| Event::Connected { server, count }),
        2 => Just(Event::Failed),
        2 => (0usize..6, 0u64..3_000).prop_map(|(server, lasted_ms)| Event::Lost { server, lasted_ms }),
        1 => (0usize..6).prop_map(|server| Event::Drains { server }),
        1 => (0usize..6, 0u32..7, proptest::collection::vec(0usize..6, 0..6))
            .prop_map(|(from, count, servers)| Event::Lists { from, count, servers }),
        1 => proptest::option::of(0u32..7).prop_map(|count| Event::Leases { count }),
        2 => (0usize..6, any::<bool>()).prop_map(|(server, lists)| Event::DirectConnected { server, lists }),
        1 => Just(Event::DirectFailed),
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
        let mut sought = Vec::new();
        for event in events {
            match event {
                Event::Connected { server, count } if attempts > 0 => {
                    attempts -= 1;
                    let verdict = known.on_connected(met(&id(server), count), now, random);
                    let new = connected.insert(id(server));
                    prop_assert_eq!(verdict == Verdict::Keep, new);
                }
                Event::Failed if attempts > 0 => {
                    attempts -= 1;
                    known.on_failed(None, now, random);
                }
                Event::Lost { server, lasted_ms } if connected.remove(&id(server)) => {
                    draining.remove(&id(server));
                    known.on_lost(&id(server), Duration::from_millis(lasted_ms), now, random);
                }
                Event::Drains { server } => {
                    if connected.contains(&id(server)) {
                        draining.insert(id(server));
                    }
                    known.on_draining(&id(server), now);
                }
                Event::Lists { from, count, servers } => known.on_servers(&id(from), &told(count, &servers), now, random),
                Event::Leases { count } => known.on_lease_count(count, now, random),
                Event::DirectConnected { server, lists } => if let Some(direct) = sought.pop() {
                    let reached = id(server);
                    let met = Met { sought: Some(&direct), lists_servers: lists, ..met(&reached, 3) };
                    let verdict = known.on_connected(met, now, random);
                    prop_assert_eq!(verdict == Verdict::Keep, connected.insert(id(server)));
                }
                Event::DirectFailed => if let Some(direct) = sought.pop() {
                    known.on_failed(Some(&direct), now, random);
                }
                Event::Passed { ms } => now += Duration::from_millis(ms),
                _ => {}
            }
            prop_assert!(known.connected().eq(&connected));
            prop_assert!(known.desired() >= 1);
            let action = loop {
                match known.next(now) {
                    Action::DialListed(direct) => {
                        prop_assert!(!connected.contains(&direct.server_id), "{} is connected", direct.server_id);
                        sought.push(direct);
                    }
                    other => break other,
                }
            };
            prop_assert!(sought.len() <= super::super::listed::PARALLEL_DIRECT);
            let enough = connected.len() - draining.len() >= known.desired() as usize;
            match action {
                Action::Dial(new) => {
                    prop_assert!(new > 0 && (!enough || sync_forever));
                    attempts += new;
                    prop_assert!(attempts <= PARALLEL_ATTEMPTS);
                }
                Action::WaitUntil(instant) => {
                    prop_assert!(instant > now && instant <= now + LIST_LAG);
                }
                Action::DialListed(_) => prop_assert!(false, "all were started"),
                Action::Rest => prop_assert!(attempts > 0 || !sought.is_empty() || (enough && !sync_forever)),
            }
        }
    }
}
