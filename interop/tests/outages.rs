//! Times in which nothing passes between agent and server, or one of them stands still: shorter than the idle timeout they
//! cost time and no byte; longer ones end the dials at both ends, and new ones are served soon after.
//!
//! Skipped without root or `/dev/net/tun`. Each case has a link of its own, and they run side by side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use konnectivity_interop::link::conditions::{Conditions, Gate, Queue};
use konnectivity_interop::link::course::Course;
use konnectivity_interop::link::profile::Direction;
use konnectivity_interop::pair::over_link::traffic::{Kind, Traffic};
use konnectivity_interop::pair::over_link::{Options, OverLink, link, side_by_side};
use konnectivity_interop::pair::program::Program;
use konnectivity_interop::pair::until;
use nix::sys::signal::Signal;
use tokio::time::sleep;

/// Nothing takes longer, unless it is broken.
const LIMIT: Duration = Duration::from_secs(40);

/// From the path's return to the first byte on each dial: transfers go on with the first question that gets through, and an
/// echo that was lost waits until the path's speed has been found anew beside them.
const TRANSFERS_RETURN: Duration = Duration::from_secs(7);
const RETURN: Duration = Duration::from_secs(10);

/// CUBIC takes the outage for congestion: what was sent before, and is sent again now, may hold an echo up for longer.
const CUBIC_RETURN: Duration = Duration::from_secs(30);

/// For outages that are to be longer.
const IDLE: Duration = Duration::from_secs(4);
const SHORT_IDLE: [&str; 2] = ["--quic-idle-timeout=4s", "--quic-keep-alive-interval=1s"];
/// The time begins with what was heard last, and once more with what is sent then; and a machine may be busy.
const IDLE_ENDS: Duration = Duration::from_secs(4 + 1 + 4);
/// An end that still hears the other one waits for it from its last word on, and from its own next question.
const ONE_WAY_ENDS: Duration = Duration::from_secs(4 + 4 + 4 + 3);
/// A program that reads acknowledgements of before when it runs again takes the path for one with such round trips. It must
/// not wait for three of them: the idle timeout, a keep-alive interval, and what its clock and a busy machine take.
const STOP_ENDS: Duration = Duration::from_secs(4 + 1 + 2 + 4);
/// From the path's return to a new dial: an attempt that is under way repeats itself after some seconds only.
const SERVED: Duration = Duration::from_secs(10);

fn good() -> Conditions {
    Conditions { queue: Queue::Bytes(100_000), ..Conditions::clean(8_000_000, Duration::from_millis(20)) }
}

fn quic() -> Options {
    Options::default().agent(&["--transport=quic"])
}

/// In these directions nothing passes, or all does again.
fn set_gate(pair: &OverLink, directions: &[Direction], gate: Gate) {
    for direction in directions {
        pair.link.set(*direction, Course::constant(Conditions { gate, ..good() })).unwrap();
    }
}

#[tokio::test]
async fn short_outages_lose_no_byte() {
    let cases: [(u64, &'static [Direction], &'static str); 8] = [
        (5, &Direction::BOTH, "model"),
        (5, &Direction::BOTH, "cubic"),
        (20, &Direction::BOTH, "cubic"),
        (20, &Direction::BOTH, "model"),
        (5, &[Direction::Up], "cubic"),
        (20, &[Direction::Up], "cubic"),
        (5, &[Direction::Down], "cubic"),
        (20, &[Direction::Down], "cubic"),
    ];
    let run = |(seconds, directions, control)| Box::pin(short_outage(seconds, directions, control)) as _;
    side_by_side(cases.map(run)).await;
}

async fn short_outage(seconds: u64, directions: &'static [Direction], control: &str) {
    let Some(link) = link(good()) else { return };
    let options = quic().both(&[&format!("--quic-congestion-control={control}")]);
    let pair = OverLink::connected(link, &options, LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, &Kind::ALL, LIMIT).await.unwrap();
    set_gate(&pair, directions, Gate::Lost);
    sleep(Duration::from_secs(seconds)).await;
    set_gate(&pair, directions, Gate::Open);
    let first = traffic.moves(LIMIT).await;
    println!("{control}, {seconds} s without {directions:?}: the first bytes came {first:?} after its return");
    let limits = if control == "model" { [TRANSFERS_RETURN, RETURN] } else { [CUBIC_RETURN; 2] };
    assert!(first[..2].iter().all(|took| *took < limits[0]) && first[2] < limits[1], "{control}: {first:?}");
    let carried = traffic.carries(LIMIT).await;
    println!("{control}, {seconds} s without {directions:?}: all went on as before within another {carried:?}");
    traffic.finish(LIMIT).await;
    pair.has_no_dials(LIMIT).await;
    assert!(!pair.agent.log().contains("disconnected"), "{}", pair.agent.log());
}

#[tokio::test]
async fn a_long_outage_ends_dials_at_both_ends_and_new_ones_are_served_after_it() {
    let cases: [(&str, &'static [Direction]); 3] =
        [("quic", &Direction::BOTH), ("auto", &Direction::BOTH), ("quic", &[Direction::Down])];
    side_by_side(cases.map(|(transport, directions)| Box::pin(long_outage(transport, directions)) as _)).await;
}

async fn long_outage(transport: &str, directions: &'static [Direction]) {
    let Some(link) = link(good()) else { return };
    let options = Options::default().both(&SHORT_IDLE).agent(&[&format!("--transport={transport}")]);
    let pair = OverLink::connected(link, &options, LIMIT).await.unwrap();
    let traffic = Traffic::start(&pair, &Kind::ALL, LIMIT).await.unwrap();
    set_gate(&pair, directions, Gate::Lost);
    let begun = Instant::now();
    let limit = if directions.len() == 2 { IDLE_ENDS } else { ONE_WAY_ENDS };
    let late = async {
        let refused = pair.dial(limit).await.expect_err("nobody can serve it").to_string();
        assert!(refused.contains("answered"), "{refused}");
        println!("{transport} without {directions:?}: a dial then: {refused}");
    };
    let ((client, target), ()) = tokio::join!(traffic.breaks(limit), late);
    let [client, target] = [client, target].map(|end| end - begun);
    println!("{transport} without {directions:?}: clients heard of the end after {client:?}, targets after {target:?}");
    pair.has_no_dials(SERVED).await;
    // And some time besides, in which the agent tries to connect.
    sleep(IDLE).await;
    comes_back(&pair, directions, begun, transport).await;
}

async fn comes_back(pair: &OverLink, directions: &'static [Direction], begun: Instant, transport: &str) {
    let log = pair.agent.log();
    assert!(log.contains("disconnected from a server"), "{log}");
    set_gate(pair, directions, Gate::Open);
    let (outage, back) = (begun.elapsed(), Instant::now());
    let open = pair.served(LIMIT).await;
    println!("{transport}, {outage:?} without {directions:?}: a dial was served {:?} after its return", back.elapsed());
    assert!(back.elapsed() < SERVED);
    drop(open);
    let traffic = Traffic::start(pair, &Kind::ALL, LIMIT).await.unwrap();
    traffic.finish(LIMIT).await;
    pair.has_no_dials(LIMIT).await;
}

#[tokio::test]
async fn a_program_that_stands_still_is_as_if_the_path_did() {
    side_by_side([
        Box::pin(short_stop(|pair| &pair.agent)) as _,
        Box::pin(short_stop(|pair| &pair.server)) as _,
        Box::pin(long_stop(|pair| &pair.agent)) as _,
        Box::pin(long_stop(|pair| &pair.server)) as _,
    ])
    .await;
}

async fn short_stop(which: fn(&OverLink) -> &Program) {
    let Some(link) = link(good()) else { return };
    let pair = OverLink::connected(link, &quic(), LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, &Kind::ALL, LIMIT).await.unwrap();
    which(&pair).signal(Signal::SIGSTOP).unwrap();
    sleep(Duration::from_secs(5)).await;
    which(&pair).signal(Signal::SIGCONT).unwrap();
    let name = which(&pair).name();
    println!("{name} was stopped for 5 s: the first bytes came {:?} after", traffic.moves(RETURN).await);
    traffic.carries(LIMIT).await;
    traffic.finish(LIMIT).await;
    pair.has_no_dials(LIMIT).await;
    assert!(!pair.agent.log().contains("disconnected"), "{}", pair.agent.log());
}

async fn long_stop(which: fn(&OverLink) -> &Program) {
    let Some(link) = link(good()) else { return };
    let pair = OverLink::connected(link, &quic().both(&SHORT_IDLE), LIMIT).await.unwrap();
    let traffic = Traffic::start(&pair, &Kind::ALL, LIMIT).await.unwrap();
    which(&pair).signal(Signal::SIGSTOP).unwrap();
    sleep(2 * IDLE).await;
    which(&pair).signal(Signal::SIGCONT).unwrap();
    let resumed = Instant::now();
    let (client, target) = traffic.breaks(STOP_ENDS).await;
    let [client, target] = [client, target].map(|end| end.saturating_duration_since(resumed));
    let name = which(&pair).name();
    println!("{name} was stopped for {:?}: clients heard of it {client:?} after, targets {target:?}", 2 * IDLE);
    let open = pair.served(LIMIT).await;
    println!("{name} was stopped for {:?}: a dial was served {:?} after", 2 * IDLE, resumed.elapsed());
    drop(open);
    until("the agent has a server", LIMIT, async || {
        let ready = pair.health(pair.link.site(), "/readyz").await;
        ready.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
    pair.has_no_dials(LIMIT).await;
}
