//! Programs that are killed and started again at once: whoever waited for them hears of it long before the idle timeout, and
//! nobody who lives loses anything.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Agent, Options, Pair, Server, until};
use konnectivity_interop::peer::Entrance;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(10);

/// A question without an answer for three seconds, the clock's second, and a busy machine. The idle timeout is 30 s.
const NOTICED: Duration = Duration::from_secs(12);

const GONE: &str = "the peer does not answer, and has connected anew; it was restarted";

async fn listener() -> TcpListener {
    TcpListener::bind((HERE, 0)).await.unwrap()
}

/// The client's half ends, and not as if all had been said.
async fn cut(mut open: Open) {
    let mut rest = Vec::new();
    let end = timeout(NOTICED, open.client.read_to_end(&mut rest)).await.expect("the dial must end");
    assert!(end.is_err(), "{end:?}");
}

/// An agent is killed while it has a dial. The one that `anew` starts has the dials that come next, and the old one ends.
async fn comes_anew(options: Options, anew: impl AsyncFnOnce(&mut Pair)) {
    let mut pair = Pair::start(options).await.unwrap();
    let target = listener().await;
    let client = pair.client().unwrap();
    let mut doomed = Open::dial(&client, &target).await.unwrap();
    doomed.exchange().await.unwrap();

    pair.agents[0].program.kill();
    anew(&mut pair).await;
    let back = Instant::now();
    // The old connection is there and came first.
    Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
    println!("the first dial after the restart took {:?}", back.elapsed());
    cut(doomed).await;
    println!("the old dial ended after {:?}", back.elapsed());
    pair.server.program.logged(&["agent disconnected", GONE], LIMIT).await.unwrap();
    pair.server.program.logged(&["dial ended", GONE], LIMIT).await.unwrap();
    until("only the new one is there", LIMIT, || async {
        (pair.server.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
    Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
}

async fn agents_that_have_connected(pair: &Pair, count: usize) {
    until("agents have connected", LIMIT, || async {
        (pair.server.program.log().matches("agent connected").count() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_with_the_same_id_takes_the_place_of_the_killed_one() {
    comes_anew(Options::mutual_tls(), async |pair: &mut Pair| {
        pair.agents[0].program.start_again().unwrap();
        agents_that_have_connected(pair, 2).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_of_the_same_host_takes_the_place_of_the_killed_one() {
    // Nobody names agents in the reference's manifests: their ids are new each time, their hosts are not.
    let identifiers = "--agent-identifiers=ipv4=127.0.0.1";
    let options = Options::mutual_tls().server(["--proxy-strategies=destHost"]).agents([&[identifiers]]);
    comes_anew(options, async |pair: &mut Pair| {
        let more = ["--agent-id=another".to_owned(), identifiers.to_owned()];
        let agent = Agent::start(&pair.certificates, pair.server.agents, HERE, &more).await.unwrap();
        pair.agents.push(agent);
        agents_that_have_connected(pair, 2).await;
    })
    .await;
}

#[tokio::test]
async fn agents_that_share_an_id_and_live_lose_nothing() {
    let same = ["--agent-id=same", "--agent-identifiers=host=same"];
    let options = Options::mutual_tls().server(["--proxy-strategies=destHost,default"]);
    // The one with the target's address is idle otherwise.
    let own = ["--agent-id=same", "--agent-identifiers=host=same&ipv4=127.0.0.1"];
    let mut pair = Pair::start(options.agents([&own, &same])).await.unwrap();
    let target = listener().await;
    let client = pair.client().unwrap();
    let mut open = Open::dial(&client, &target).await.unwrap();
    open.exchange().await.unwrap();
    // Each start asks those that are there. The last one asks more than the time that an answer may take.
    let mut guests = Vec::new();
    for _ in 0..3 {
        let more = same.map(str::to_owned);
        guests.push(Agent::start(&pair.certificates, pair.server.agents, HERE, &more).await.unwrap());
    }
    agents_that_have_connected(&pair, 5).await;
    let asked = Instant::now();
    until("longer than an answer may take", NOTICED, || async {
        assert_eq!(pair.server.connections().await.unwrap().len(), 5);
        (asked.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .await;
    open.exchange().await.unwrap();
    assert!(!pair.server.program.log().contains("agent disconnected"));
    pair.ready().await.unwrap();
}

/// Another server at the address of a killed one, with the same certificate, must not end connections that are not its own:
/// behind a balancer, theirs may be alive.
#[tokio::test]
async fn another_server_with_the_same_key_resets_nothing() {
    let options = Options::mutual_tls().agent(["--quic-keep-alive-interval=500ms", "--quic-idle-timeout=4s"]);
    let mut pair = Pair::start(options).await.unwrap();
    pair.server.program.kill();
    let port = format!("--agent-port={}", pair.server.agents.port());
    let more = [port, "--server-id=server-2".to_owned()];
    let folder = pair.folder.path();
    let mut other = Server::spawn(&pair.certificates, folder, Entrance::MutualTls, HERE, &more).unwrap();
    other.serves().await.unwrap();
    let words = ["disconnected from a server", "nothing heard from the peer within the idle timeout"];
    pair.agents[0].program.logged(&words, NOTICED).await.unwrap();
    assert!(!pair.agents[0].program.log().contains("does not know this connection any more"));
    until("it is found all the same", LIMIT, || async {
        (other.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
}
