//! A path between agent and server that becomes another one under open dials: another address and port of the agent, as a
//! box on the way or the agent's own machine has it, and shorter packets. No dial ends, and no byte is lost or altered.
//!
//! Skipped without root or `/dev/net/tun`. Each case has a link of its own, and they run side by side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;
use std::time::Duration;

use konnectivity_interop::link::Link;
use konnectivity_interop::link::conditions::{Conditions, Queue};
use konnectivity_interop::pair::over_link::traffic::{Kind, Traffic};
use konnectivity_interop::pair::over_link::{Options, OverLink, link, side_by_side};
use konnectivity_interop::pair::until;
use tokio::time::{sleep, timeout};

/// Nothing takes longer, unless it is broken.
const LIMIT: Duration = Duration::from_secs(40);

/// Where nothing is sent, an agent that has another address without knowing it asks after so long, looking once a second.
const ASKS: Duration = Duration::from_secs(2 + 1);

/// A path that is found anew by itself costs this at most: some round trips and a repetition, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(3);
/// Another address is another path: its speed has to be found anew beside all that is waiting.
const ANEW: Duration = Duration::from_secs(4);

/// A path that takes shorter packets from now on shows that by losses only, of which QUIC wants to see several.
const NARROWED: Duration = Duration::from_secs(15);

fn good() -> Conditions {
    Conditions { queue: Queue::Bytes(100_000), ..Conditions::clean(8_000_000, Duration::from_millis(20)) }
}

fn quic() -> Options {
    Options::default().agent(&["--transport=quic"])
}

/// The dials under way end in order, nothing of them stays, and the connection was the same all the time.
async fn all_is_well(pair: OverLink, traffic: Traffic) {
    traffic.finish(LIMIT).await;
    pair.has_no_dials(LIMIT).await;
    assert!(!pair.agent.log().contains("disconnected"), "{}", pair.agent.log());
    assert!(!pair.server.log().contains("disconnected"), "{}", pair.server.log());
}

/// The agent's address as the server sees it.
async fn remote(pair: &OverLink) -> String {
    let connections = pair.connections(pair.link.cloud()).await.unwrap();
    connections[0]["remote"].as_str().unwrap().to_owned()
}

async fn has_another_remote(pair: &OverLink, than: &str) {
    until("the server sees another address", LIMIT, async || (remote(pair).await != than).then_some(())).await;
}

#[tokio::test]
async fn a_nat_that_forgets_is_survived() {
    // Between two echoes nothing is on its way.
    let idle = Kind::Echo(Duration::from_secs(1));
    let cases = [(Kind::ToClient, SOON), (Kind::ToTarget, SOON), (idle, ASKS + SOON)];
    side_by_side(cases.map(|(kind, bound)| Box::pin(nat_forgets(kind, bound)) as _)).await;
}

async fn nat_forgets(kind: Kind, bound: Duration) {
    let Some(link) = link(good()) else { return };
    let pair = OverLink::connected(link, &quic(), LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, &[kind], LIMIT).await.unwrap();
    for _ in 0..2 {
        let before = remote(&pair).await;
        traffic.moves(LIMIT).await;
        if let Kind::Echo(pause) = kind {
            // The acknowledgement of the last echo is on its way no more.
            sleep(pause / 2).await;
        }
        pair.link.rebind_nat();
        traffic.mark();
        traffic.carries(LIMIT).await;
        println!("NAT forgets beside {kind:?}: nothing for {:?}", traffic.longest_pauses());
        assert!(traffic.longest_pause() < bound);
        has_another_remote(&pair, &before).await;
    }
    all_is_well(pair, traffic).await;
}

#[tokio::test]
async fn another_address_of_the_agent_is_survived() {
    let pauses = [None, Some(Duration::from_secs(1))];
    side_by_side(pauses.map(|pause| Box::pin(address_changes(pause)) as _)).await;
}

async fn address_changes(pause: Option<Duration>) {
    let Some(link) = link(good()) else { return };
    let pair = OverLink::connected(link, &quic(), LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, &Kind::ALL, LIMIT).await.unwrap();
    let before = remote(&pair).await;
    traffic.mark();
    let addresses = (pair.link.site().ipv4, Ipv4Addr::new(10, 99, 0, 7));
    pair.readdress(addresses.0, addresses.1, pause).await.unwrap();
    traffic.carries(LIMIT).await;
    println!("another address, device down for {pause:?}: nothing for {:?}", traffic.longest_pauses());
    assert!(traffic.longest_pause() < pause.unwrap_or_default() + ANEW);
    has_another_remote(&pair, &before).await;
    assert!(remote(&pair).await.starts_with("10.99.0.7:"), "{}", remote(&pair).await);
    all_is_well(pair, traffic).await;
}

#[tokio::test]
async fn narrow_paths_are_survived_or_told_of() {
    side_by_side([
        Box::pin(packets_become_shorter(&[Kind::ALL[0], Kind::ALL[2]])) as _,
        Box::pin(packets_become_shorter(&[Kind::ALL[1], Kind::ALL[2]])) as _,
        Box::pin(packets_become_shorter(&Kind::ALL)) as _,
        Box::pin(too_narrow_for_quic_is_served_over_grpc()) as _,
        Box::pin(too_narrow_for_quic_alone_is_told()) as _,
    ])
    .await;
}

/// What is too long vanishes without a word.
async fn packets_become_shorter(kinds: &[Kind]) {
    let Some(link) = link(good()) else { return };
    let pair = OverLink::connected(link, &quic(), LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, kinds, LIMIT).await.unwrap();
    for mtu in [1300, 1228] {
        traffic.mark();
        pair.set(Conditions { mtu, ..good() }).unwrap();
        traffic.carries(LIMIT).await;
        println!("packets of {mtu} bytes at most: nothing for {:?}", traffic.longest_pauses());
        assert!(traffic.longest_pause() < NARROWED);
    }
    all_is_well(pair, traffic).await;
}

/// QUIC needs packets of 1,228 bytes over IPv4. TCP does with less, if a router on the way says so when it connects.
fn too_narrow() -> Option<Link> {
    let link = link(Conditions { mtu: 1200, ..good() })?;
    for end in [link.site(), link.cloud()] {
        end.clamp_segments(1160).unwrap();
    }
    Some(link)
}

async fn too_narrow_for_quic_is_served_over_grpc() {
    let Some(link) = too_narrow() else { return };
    let pair = OverLink::connected(link, &Options::default(), LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, &Kind::ALL, LIMIT).await.unwrap();
    traffic.carries(LIMIT).await;
    let ready = pair.health(pair.link.site(), "/readyz?verbose").await.unwrap().body;
    assert!(ready.contains("over grpc"), "{ready}");
    traffic.finish(LIMIT).await;
    pair.has_no_dials(LIMIT).await;
}

async fn too_narrow_for_quic_alone_is_told() {
    let Some(link) = too_narrow() else { return };
    let pair = OverLink::start(link, &quic()).unwrap();
    let words = ["no QUIC answer from 10.99.0.2:", "is UDP allowed on the way", "--transport=quic is set"];
    let line = pair.agent.logged(&words, LIMIT).await.unwrap();
    println!("too narrow for QUIC: {line}");
    let ready = pair.health(pair.link.site(), "/readyz?verbose").await.unwrap();
    assert!(ready.status == 503 && ready.body.contains("no QUIC answer"), "{ready:?}");
    let dialled = timeout(LIMIT, pair.dial(LIMIT)).await.expect("it is answered");
    let refused = dialled.expect_err("nobody can serve it").to_string();
    println!("a dial then: {refused}");
    assert!(refused.contains("No agent available"), "{refused}");
}
