//! Which of several agents serves a dial.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use konnectivity_interop::load::path::DialError;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Options, Pair, http, until};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Open dials of each agent, in the order of the agents.
async fn open_dials(pair: &Pair) -> Vec<u64> {
    let mut open = Vec::new();
    for agent in &pair.agents {
        let connections = agent.connections().await.unwrap();
        open.push(connections.iter().map(|one| one["open_dials"].as_u64().unwrap()).sum());
    }
    open
}

/// Keeps dials to one target open.
struct Dials<'a> {
    pair: &'a Pair,
    listener: TcpListener,
    open: Vec<Open>,
}

impl<'a> Dials<'a> {
    async fn to(pair: &'a Pair, ip: impl Into<IpAddr>) -> Self {
        let listener = TcpListener::bind((ip.into(), 0)).await.unwrap();
        Self { pair, listener, open: Vec::new() }
    }

    /// Dials the target under this host name, or address in brackets.
    async fn dial(&mut self, host: &str) {
        let target = format!("{host}:{}", self.listener.local_addr().unwrap().port());
        let client = self.pair.client().unwrap();
        let (dial, accepted) = tokio::join!(client.dial(&target), self.listener.accept());
        let mut open = Open { client: dial.unwrap(), target: accepted.unwrap().0 };
        open.exchange().await.unwrap();
        self.open.push(open);
    }
}

#[tokio::test]
async fn default_spreads_dials_over_all_agents() {
    let pair = Pair::start(Options::unix().agents([&[], &[], &[]])).await.unwrap();
    let mut dials = Dials::to(&pair, HERE).await;
    for _ in 0..60 {
        dials.dial("127.0.0.1").await;
    }
    let open = open_dials(&pair).await;
    assert_eq!(open.iter().sum::<u64>(), 60);
    // One of three gets none of 60 once in 10^10 times.
    assert!(open.iter().all(|&dials| dials > 0), "{open:?}");
}

#[tokio::test]
async fn dest_host_goes_by_the_identifiers_of_the_agents() {
    let pair = Pair::start(Options::unix().server(["--proxy-strategies=destHost"]).agents([
        &["--agent-identifiers=host=localhost"],
        &["--agent-identifiers=ipv4=127.0.0.1&ipv4=127.0.0.2"],
        &["--agent-identifiers=ipv6=::1&host=a%20b"],
    ]))
    .await
    .unwrap();
    let mut dials = Dials::to(&pair, HERE).await;
    dials.dial("127.0.0.1").await;
    assert_eq!(open_dials(&pair).await, [0, 1, 0]);
    dials.dial("localhost").await;
    dials.dial("localhost").await;
    assert_eq!(open_dials(&pair).await, [2, 1, 0]);
    let mut six = Dials::to(&pair, std::net::Ipv6Addr::LOCALHOST).await;
    six.dial("[::1]").await;
    assert_eq!(open_dials(&pair).await, [2, 1, 1]);
    // As written: no look-up, no change of case.
    for target in ["LOCALHOST:1", "127.0.0.3:1", "127.0.0.01:1", "example.com:80", "[0:0:0:0:0:0:0:1]:1"] {
        match pair.dial(target).await {
            Err(DialError::Refused(reply)) => assert!(reply.ends_with("No agent available"), "{target}: {reply}"),
            other => panic!("{target}: {other:?}"),
        }
    }
    let metrics = http::get(pair.server.health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("dial_failure_count{reason=\"no_agent\"} 5\n"), "{metrics}");
}

#[tokio::test]
async fn the_first_strategy_that_knows_an_agent_wins() {
    let pair = Pair::start(Options::unix().server(["--proxy-strategies=destHost,defaultRoute,default"]).agents([
        &["--agent-identifiers=host=localhost"],
        &["--agent-identifiers=default-route=true"],
        &[],
    ]))
    .await
    .unwrap();
    let mut dials = Dials::to(&pair, HERE).await;
    for _ in 0..5 {
        dials.dial("localhost").await;
        dials.dial("127.0.0.1").await;
    }
    assert_eq!(open_dials(&pair).await, [5, 5, 0]);
}

#[tokio::test]
async fn default_route_takes_only_agents_that_say_so() {
    let options = Options::unix().server(["--proxy-strategies=defaultRoute"]);
    let mut pair = Pair::start(options.agents([
        &["--agent-identifiers=default-route=true"],
        &["--agent-identifiers=default-route=false&ipv4=127.0.0.1"],
        &["--agent-identifiers=host=a"],
    ]))
    .await
    .unwrap();
    let mut dials = Dials::to(&pair, HERE).await;
    for _ in 0..8 {
        dials.dial("127.0.0.1").await;
    }
    assert_eq!(open_dials(&pair).await, [8, 0, 0]);
    drop(dials);
    pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
    assert!(pair.agents[0].program.ended(LIMIT).await.unwrap().success());
    until("the server has noticed", LIMIT, || async {
        (pair.server.connections().await.unwrap().len() == 2).then_some(())
    })
    .await;
    assert!(
        matches!(pair.dial("127.0.0.1:1").await, Err(DialError::Refused(reply)) if reply.contains("No agent available"))
    );
}

#[tokio::test]
async fn least_loaded_evens_out_open_dials() {
    let options = Options::unix().server(["--proxy-strategies=leastLoaded"]);
    let pair = Pair::start(options.agents([&[], &[], &[]])).await.unwrap();
    let mut dials = Dials::to(&pair, HERE).await;
    for _ in 0..9 {
        dials.dial("127.0.0.1").await;
    }
    assert_eq!(open_dials(&pair).await, [3, 3, 3]);
    // What ends makes room.
    dials.open.clear();
    until("all dials have ended", LIMIT, || async { (open_dials(&pair).await == [0, 0, 0]).then_some(()) }).await;
    until("the server knows", LIMIT, || async {
        let connections = pair.server.connections().await.unwrap();
        connections.iter().all(|one| one["open_dials"] == 0).then_some(())
    })
    .await;
    for _ in 0..3 {
        dials.dial("127.0.0.1").await;
    }
    assert_eq!(open_dials(&pair).await, [1, 1, 1]);
}

#[tokio::test]
async fn two_agents_of_one_id_are_two_connections() {
    let options = Options::unix().server(["--proxy-strategies=leastLoaded"]);
    let mut pair = Pair::start(options.agents([&["--agent-id=twin"], &["--agent-id=twin"]])).await.unwrap();
    let peers: BTreeMap<_, _> = pair
        .server
        .connections()
        .await
        .unwrap()
        .into_iter()
        .map(|one| (one["peer"].as_str().unwrap().to_owned(), one["open_dials"].as_u64().unwrap()))
        .collect();
    assert_eq!(peers.keys().collect::<Vec<_>>(), ["twin #1", "twin #2"]);
    // One agent in the metric that counts agents, as in the reference.
    let metrics = http::get(pair.server.health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("_ready_backend_connections 1\n"), "{metrics}");

    let mut dials = Dials::to(&pair, HERE).await;
    for _ in 0..4 {
        dials.dial("127.0.0.1").await;
    }
    assert_eq!(open_dials(&pair).await, [2, 2]);
    let Dials { listener, mut open, .. } = dials;
    // One of them goes: its dials end, those of its namesake don't, and the id stays known.
    pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
    pair.agents[0].program.logged(&["signal received"], LIMIT).await.unwrap();
    pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
    pair.agents[0].program.ended(LIMIT).await.unwrap();
    until("the server has noticed", LIMIT, || async {
        (pair.server.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
    let mut alive = 0;
    for open in &mut open {
        alive += usize::from(open.exchange().await.is_ok());
    }
    assert_eq!(alive, 2);
    Open::dial(&pair.client().unwrap(), &listener).await.unwrap().exchange().await.unwrap();
    assert_eq!(http::get(pair.server.health, "/readyz").await.unwrap().status, 200);
}
