use std::{
    cell::{Cell, RefCell},
    future::pending,
};

use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout};

use super::*;

fn v4(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 443))
}

fn v6(host: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host], 443))
}

#[test]
fn families_alternate_beginning_with_the_resolvers_choice() {
    assert_eq!(order(vec![]), vec![]);
    assert_eq!(order(vec![v4(1), v4(2)]), vec![v4(1), v4(2)]);
    assert_eq!(order(vec![v6(1), v6(2), v6(3), v4(1)]), vec![v6(1), v4(1), v6(2), v6(3)]);
    assert_eq!(order(vec![v4(1), v6(1), v6(2), v6(3)]), vec![v4(1), v6(1), v6(2), v6(3)]);
}

proptest! {
    #[test]
    fn order_keeps_every_address_and_the_order_within_a_family(families in proptest::collection::vec(any::<bool>(), 0..12)) {
        let given: Vec<_> = families.iter().zip(0u8..).map(|(six, host)| if *six { v6(host.into()) } else { v4(host) }).collect();
        let ordered = order(given.clone());
        for six in [false, true] {
            let family = |all: &[SocketAddr]| all.iter().copied().filter(|a| a.is_ipv6() == six).collect::<Vec<_>>();
            prop_assert_eq!(family(&given), family(&ordered));
        }
        prop_assert_eq!(given.first(), ordered.first());
        let both = given.iter().filter(|a| a.is_ipv6()).count().min(given.iter().filter(|a| a.is_ipv4()).count());
        for pair in ordered[..2 * both].chunks(2) {
            prop_assert_ne!(pair[0].is_ipv6(), pair[1].is_ipv6());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_address_is_no_failure() {
    let result = race(vec![], STAGGER, |_| async { Ok::<(), ()>(()) }).await;
    assert_eq!(result, Err(vec![]));
}

#[tokio::test(start_paused = true)]
async fn attempts_start_at_the_stagger_and_the_first_success_wins() {
    let begun = Instant::now();
    let starts = RefCell::new(Vec::new());
    let winner = race(vec![v6(1), v4(1), v6(2), v4(2)], STAGGER, |address| {
        starts.borrow_mut().push((address, begun.elapsed()));
        async move {
            if address == v4(1) {
                sleep(Duration::from_millis(400)).await;
                return Ok::<_, ()>(address);
            }
            pending().await
        }
    })
    .await;
    assert_eq!(winner, Ok(v4(1)));
    assert_eq!(begun.elapsed(), Duration::from_millis(650));
    let millis = |n| Duration::from_millis(n);
    assert_eq!(*starts.borrow(), vec![(v6(1), millis(0)), (v4(1), millis(250)), (v6(2), millis(500))]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_starts_the_next_attempt_at_once() {
    let begun = Instant::now();
    let winner = race(vec![v6(1), v4(1)], STAGGER, |address| async move {
        if address.is_ipv6() { Err("refused") } else { Ok(address) }
    })
    .await;
    assert_eq!(winner, Ok(v4(1)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_an_early_attempt_does_not_end_a_later_one() {
    let winner = race(vec![v6(1), v4(1)], STAGGER, |address| async move {
        sleep(Duration::from_millis(300)).await;
        if address.is_ipv6() { Err("refused") } else { Ok(address) }
    })
    .await;
    assert_eq!(winner, Ok(v4(1)));
}

#[tokio::test(start_paused = true)]
async fn all_failures_come_in_the_order_of_the_addresses() {
    let result = race(vec![v6(1), v4(1), v6(2)], STAGGER, |address| async move {
        // The first to start is the last to fail.
        sleep(if address == v6(1) { STAGGER * 8 } else { STAGGER * 2 }).await;
        Err::<(), _>(address.to_string())
    })
    .await;
    assert_eq!(result, Err(vec![(v6(1), v6(1).to_string()), (v4(1), v4(1).to_string()), (v6(2), v6(2).to_string())]));
}

/// Counts itself in `open` while it lives, as a socket would.
struct Held<'a>(&'a Cell<i32>);

impl<'a> Held<'a> {
    fn new(open: &'a Cell<i32>) -> Self {
        open.set(open.get() + 1);
        Self(open)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn losers_are_dropped_when_one_wins_and_all_when_the_race_is_dropped() {
    let open = Cell::new(0);
    let most = Cell::new(0);
    let run = |winner: Option<SocketAddr>| {
        race(vec![v6(1), v4(1), v6(2)], STAGGER, {
            let (open, most) = (&open, &most);
            move |address| async move {
                let held = Held::new(open);
                most.set(most.get().max(open.get()));
                if Some(address) == winner {
                    return Ok::<_, ()>(held);
                }
                pending().await
            }
        })
    };
    let won = run(Some(v6(2))).await;
    assert_eq!((open.get(), most.get()), (1, 3));
    drop(won);
    assert_eq!(open.get(), 0);

    assert!(timeout(STAGGER * 10, run(None)).await.is_err());
    assert_eq!(open.get(), 0);
}
