use konnectivity_transport::server_list::ListedServer;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: usize) -> ServerId {
    ServerId::new(format!("server-{number}")).unwrap()
}

fn told(servers: &[(usize, &str)]) -> Told {
    let servers = servers.iter().map(|(number, address)| ListedServer {
        id: id(*number),
        addresses: Some(*address)
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().unwrap())
            .into_iter()
            .collect(),
    });
    Told { list: ServerList { count: 9, servers: servers.collect() }, via: [192, 0, 2, 99].into() }
}

fn listed(servers: &[(usize, &str)]) -> Listed {
    let mut listed = Listed::new(Backoff::new(SECOND, 10 * SECOND));
    listed.hear(&told(servers), None);
    listed
}

/// Who is dialled now, and where.
fn dialled(listed: &mut Listed, now: Instant, connected: &BTreeSet<ServerId>) -> Vec<Direct> {
    std::iter::from_fn(|| match listed.next(now, connected) {
        Next::Dial(direct) => Some(direct),
        Next::Wait(_) => None,
    })
    .collect()
}

fn shown(directs: &[Direct]) -> Vec<String> {
    directs.iter().map(|direct| format!("{} at {}", direct.server_id, direct.addresses[0])).collect()
}

#[test]
fn servers_with_addresses_that_are_not_connected_are_dialled_once() {
    let now = Instant::now();
    let mut listed = listed(&[(0, "a:1"), (1, "b:1"), (2, ""), (3, "c:1")]);
    let connected = [id(1)].into();
    let directs = dialled(&mut listed, now, &connected);
    assert_eq!(shown(&directs), ["server-0 at a:1", "server-3 at c:1"]);
    assert_eq!(listed.hopes(now, &connected), 2);
    listed.on_attempted(&directs[0], Some(&id(0)), now, 0.0);
    listed.on_connected(&id(0));
    let connected = [id(0), id(1)].into();
    assert_eq!(listed.hopes(now, &connected), 1);
    assert_eq!(listed.next(now, &connected), Next::Wait(Some(now + HOPE)));
    // Silence is no hope.
    assert_eq!(listed.hopes(now + HOPE, &connected), 0);
    assert_eq!(listed.next(now + HOPE, &connected), Next::Wait(None));
}

#[test]
fn not_all_are_dialled_at_once() {
    let now = Instant::now();
    let addresses: Vec<_> = (0..9).map(|number| (number, "a:1")).collect();
    let mut listed = listed(&addresses);
    let connected = BTreeSet::new();
    let first = dialled(&mut listed, now, &connected);
    assert_eq!(first.len(), PARALLEL_DIRECT);
    assert_eq!(listed.hopes(now, &connected), 9, "the others have their turn yet");
    listed.on_attempted(&first[0], None, now, 0.0);
    assert_eq!(dialled(&mut listed, now, &connected).len(), 1);
    // Forgotten attempts count until they end.
    listed.hear(&told(&[(20, "a:1")]), None);
    assert_eq!(dialled(&mut listed, now, &connected), []);
    listed.on_attempted(&first[1], None, now, 0.0);
    assert_eq!(shown(&dialled(&mut listed, now, &connected)), ["server-20 at a:1"]);
}

#[test]
fn an_address_that_nobody_answers_is_tried_with_growing_waits_while_it_is_listed() {
    let mut now = Instant::now();
    let mut listed = listed(&[(0, "a:1")]);
    let connected = BTreeSet::new();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let directs = dialled(&mut listed, now, &connected);
        assert_eq!(directs.len(), 1);
        listed.on_attempted(&directs[0], None, now, 0.0);
        assert_eq!(listed.hopes(now, &connected), 0);
        let Next::Wait(Some(instant)) = listed.next(now, &connected) else { panic!("waits") };
        waits.push((instant - now).as_millis());
        now = instant;
        // The same list again changes nothing.
        listed.hear(&told(&[(0, "a:1")]), None);
    }
    assert_eq!(waits, [1_000, 1_500, 2_250, 3_375, 5_062, 7_593, 10_000, 10_000]);
    listed.hear(&told(&[(1, "")]), None);
    assert_eq!(listed.next(now, &connected), Next::Wait(None), "forgotten");
    listed.hear(&told(&[(0, "a:1")]), None);
    assert_eq!(listed.hopes(now, &connected), 1, "and new again");
}

#[test]
fn another_server_at_the_address_is_a_failure_of_the_address() {
    let now = Instant::now();
    let mut listed = listed(&[(0, "a:1")]);
    let directs = dialled(&mut listed, now, &BTreeSet::new());
    listed.on_attempted(&directs[0], Some(&id(1)), now, 0.0);
    assert_eq!(listed.next(now, &BTreeSet::new()), Next::Wait(Some(now + SECOND)));
}

#[test]
fn a_new_address_is_tried_at_once_and_the_end_of_an_old_attempt_means_nothing() {
    let now = Instant::now();
    let mut listed = listed(&[(0, "a:1")]);
    let old = dialled(&mut listed, now, &BTreeSet::new());
    listed.hear(&told(&[(0, "b:1")]), None);
    let new = dialled(&mut listed, now, &BTreeSet::new());
    assert_eq!(shown(&new), ["server-0 at b:1"]);
    listed.on_attempted(&old[0], None, now, 0.0);
    assert_eq!(listed.hopes(now, &BTreeSet::new()), 1);
    assert_eq!(listed.next(now, &BTreeSet::new()), Next::Wait(Some(now + HOPE)), "one is under way");
}

#[test]
fn new_servers_wait_for_their_moment_and_known_ones_do_not() {
    let now = Instant::now();
    let mut listed = listed(&[(0, "a:1")]);
    listed.hear(&told(&[(0, "a:1"), (1, "b:1")]), Some(now + SECOND));
    assert_eq!(shown(&dialled(&mut listed, now, &BTreeSet::new())), ["server-0 at a:1"]);
    assert_eq!(listed.next(now, &BTreeSet::new()), Next::Wait(Some(now + SECOND)));
    assert_eq!(shown(&dialled(&mut listed, now + SECOND, &BTreeSet::new())), ["server-1 at b:1"]);
}

#[test]
fn a_lost_server_is_dialled_at_once_unless_it_hung_up_soon() {
    let now = Instant::now();
    let mut listed = listed(&[(0, "a:1")]);
    let directs = dialled(&mut listed, now, &BTreeSet::new());
    listed.on_attempted(&directs[0], Some(&id(0)), now, 0.0);
    listed.on_connected(&id(0));
    listed.on_lost(&id(0), false, now, 0.0);
    assert_eq!(listed.next(now, &BTreeSet::new()), Next::Wait(Some(now + SECOND)));
    listed.on_lost(&id(0), true, now, 0.0);
    assert_eq!(dialled(&mut listed, now, &BTreeSet::new()).len(), 1);
}

#[test]
fn a_server_that_leaves_is_not_dialled_until_it_may_have_returned() {
    let now = Instant::now();
    let mut listed = listed(&[(0, "a:1")]);
    listed.leaves(&id(0), now + 20 * SECOND);
    listed.hear(&told(&[(0, "a:1")]), None);
    assert_eq!(
        (listed.hopes(now, &BTreeSet::new()), listed.next(now, &BTreeSet::new())),
        (0, Next::Wait(Some(now + 20 * SECOND)))
    );
    assert_eq!(dialled(&mut listed, now + 20 * SECOND, &BTreeSet::new()).len(), 1);
    // Off the list and on it again is new.
    listed.leaves(&id(0), now + 60 * SECOND);
    listed.hear(&told(&[]), None);
    listed.hear(&told(&[(0, "b:1")]), None);
    assert_eq!(dialled(&mut listed, now + 20 * SECOND, &BTreeSet::new()).len(), 1);
}
