use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Some time of day.
const NOON: Duration = Duration::from_secs(1_700_000_000);

fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOON
}

/// A lease of 30 s that was renewed at this time of its holder's day.
fn lease(id: &str, renewed: SystemTime) -> ServerLease {
    ServerLease {
        name: format!("{NAME_PREFIX}{id}"),
        version: "1".into(),
        server_id: id.into(),
        renewed: Some(renewed),
        duration: Some(30 * SECOND),
        addresses: Vec::new(),
    }
}

fn valid(book: &LeaseBook, now: Instant) -> Vec<&str> {
    book.valid(now).map(|lease| lease.server_id.as_str()).collect()
}

#[test]
fn at_first_sight_a_lease_is_what_it_says() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    book.list(
        [
            lease("fresh", wall() - SECOND),
            lease("last second", wall() - 29 * SECOND),
            lease("over", wall() - 30 * SECOND),
            lease("yesterday", wall() - 1_440 * MINUTE),
            lease("ahead", wall() + 5 * MINUTE),
            ServerLease { renewed: None, ..lease("never renewed", wall()) },
            ServerLease { duration: None, ..lease("without duration", wall()) },
            ServerLease { duration: Some(Duration::MAX), ..lease("forever", wall()) },
        ],
        now,
        wall(),
    );
    assert_eq!(valid(&book, now), ["ahead", "fresh", "last second"]);
    assert_eq!(book.next_expiry(now), Some(now + SECOND));
    assert_eq!(valid(&book, now + SECOND), ["ahead", "fresh"]);
    assert_eq!(valid(&book, now + 29 * SECOND), ["ahead"]);
    // A clock that is ahead does not keep a dead server for minutes.
    assert_eq!(valid(&book, now + 30 * SECOND), [""; 0]);
    assert_eq!(book.without_duration().map(|lease| lease.server_id.as_str()).collect::<Vec<_>>(), ["without duration"]);
}

#[test]
fn a_renewal_counts_whatever_the_holders_clock_says() {
    for off in [5 * MINUTE, Duration::ZERO] {
        let now = Instant::now();
        let mut book = LeaseBook::default();
        // Five minutes behind, or right.
        let mut day = wall() - off;
        book.list([lease("a", day)], now, wall());
        assert_eq!(valid(&book, now).len(), usize::from(off.is_zero()));
        for renewals in 1..10 {
            let now = now + renewals * 15 * SECOND;
            day += 15 * SECOND;
            book.change(lease("a", day), now);
            assert_eq!(valid(&book, now + 29 * SECOND), ["a"], "{off:?}");
            assert_eq!(valid(&book, now + 30 * SECOND), [""; 0]);
        }
    }
}

#[test]
fn only_a_renewal_makes_a_lease_count_for_longer() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    book.change(lease("a", wall()), now);
    let labelled = ServerLease { version: "2".into(), addresses: vec!["h:1".into()], ..lease("a", wall()) };
    book.change(labelled.clone(), now + 20 * SECOND);
    book.list([labelled], now + 25 * SECOND, wall() + 25 * SECOND);
    assert_eq!(valid(&book, now + 29 * SECOND), ["a"]);
    assert_eq!(book.valid(now).next().unwrap().addresses, ["h:1"]);
    assert_eq!(valid(&book, now + 30 * SECOND), [""; 0]);
}

#[test]
fn a_deleted_lease_counts_no_more() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    book.list([lease("a", wall()), lease("b", wall())], now, wall());
    book.delete("konnectivity-proxy-server-a");
    assert_eq!(valid(&book, now), ["b"]);
    book.list([], now, wall());
    assert_eq!(valid(&book, now), [""; 0]);
}

#[test]
fn time_stands_still_while_the_api_is_away() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    book.list([lease("a", wall()), lease("b", wall())], now, wall());
    let heard = now + 10 * SECOND;
    book.lost(heard);
    book.lost(heard + 5 * SECOND);
    let later = heard + 60 * MINUTE;
    assert_eq!(valid(&book, later), ["a", "b"]);
    assert_eq!((book.next_expiry(later), book.abandoned(later)), (None, Vec::new()));
    // One of them has been renewed by then, the other one gets what it had left.
    book.list([lease("a", wall()), lease("b", wall() + 60 * MINUTE)], later, wall() + 60 * MINUTE);
    assert_eq!(valid(&book, later + 19 * SECOND), ["a", "b"]);
    assert_eq!(valid(&book, later + 20 * SECOND), ["b"]);
    assert_eq!(valid(&book, later + 30 * SECOND), [""; 0]);
}

#[test]
fn time_has_not_stood_still_where_the_api_was_there() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    book.list([lease("dead", wall())], now, wall());
    for second in 1..30 {
        let now = now + second * SECOND;
        book.lost(now - SECOND);
        book.was_there();
        book.list([lease("dead", wall())], now, wall() + second * SECOND);
        assert_eq!(valid(&book, now), ["dead"]);
    }
    assert_eq!(valid(&book, now + 30 * SECOND), [""; 0]);
    assert_eq!(book.abandoned(now + 30 * SECOND).len(), 1);
}

#[test]
fn leases_are_abandoned_when_they_were_watched_in_vain() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    let foreign = ServerLease { name: "kube-scheduler".into(), ..lease("x", wall()) };
    let endless = ServerLease { duration: None, ..lease("endless", wall()) };
    // Its clock is wrong, or it is dead: nobody knows yet.
    book.list([lease("old", wall() - 1_440 * MINUTE), lease("alive", wall()), foreign, endless], now, wall());
    assert_eq!(book.abandoned(now + 29 * SECOND), []);
    book.change(lease("alive", wall() + 15 * SECOND), now + 15 * SECOND);
    let abandoned = book.abandoned(now + 30 * SECOND);
    assert_eq!(abandoned.iter().map(|lease| lease.server_id.as_str()).collect::<Vec<_>>(), ["endless", "old"]);
    // It was only its clock.
    book.change(lease("old", wall() - 1_439 * MINUTE), now + 31 * SECOND);
    assert_eq!(book.abandoned(now + 32 * SECOND).len(), 1);
}

#[test]
fn the_book_has_an_end() {
    let now = Instant::now();
    let mut book = LeaseBook::default();
    book.list((0..5_000).map(|number| lease(&number.to_string(), wall())), now, wall());
    assert_eq!(valid(&book, now).len(), MOST_LEASES);
    book.change(lease("one more", wall()), now);
    assert_eq!(valid(&book, now).len(), MOST_LEASES);
}
