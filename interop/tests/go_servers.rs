//! This agent over gRPC, with the reference's server and with this one: what clients see, through both frontends.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use konnectivity_interop::{
    certificates::Folder,
    ends::{
        Full, LIMIT, Target, address, carry, echo, has_metric, listen, metric, read_pattern, read_rest, reset_tcp,
        within, write_pattern,
    },
    load::{
        grpc,
        path::{Dial, DialError, Path},
    },
    pair::{Agent, Server, client::Client, until},
    peer::{Entrance, Frontend},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

/// The reference's frontends on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    Connect,
    Grpc,
}

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Reference,
    Ours,
}

type Case = (Make, Front);

const ALL: [Case; 4] = [
    (Make::Reference, Front::Connect),
    (Make::Reference, Front::Grpc),
    (Make::Ours, Front::Connect),
    (Make::Ours, Front::Grpc),
];

struct Mixed {
    server: Server,
    agent: Agent,
    front: Front,
    certificates: Folder,
    _folder: TempDir,
}

async fn mixed(case: Case, agent: &[&str]) -> Mixed {
    mixed_with(case, &[], agent).await
}

async fn mixed_with((make, front): Case, server: &[&str], agent: &[&str]) -> Mixed {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Folder::write(folder.path(), &[]).unwrap();
    let mode = match front {
        Front::Connect => "--mode=http-connect",
        Front::Grpc => "--mode=grpc",
    };
    let more: Vec<_> = [mode, "--v=3"].iter().chain(server).map(|&text| text.to_owned()).collect();
    let (entrance, host) = (Entrance::Unix, Ipv4Addr::LOCALHOST.into());
    let server = match make {
        Make::Reference => Server::start_reference(&certificates, folder.path(), entrance, &more).await,
        Make::Ours => Server::start(&certificates, folder.path(), entrance, host, &more).await,
    };
    let server = server.unwrap();
    let agent = another_agent(&certificates, &server, "agent-1", agent).await;
    Mixed { server, agent, front, certificates, _folder: folder }
}

async fn another_agent(certificates: &Folder, server: &Server, id: &str, more: &[&str]) -> Agent {
    let mut arguments = vec![
        format!("--agent-id={id}"),
        "--transport=grpc".to_owned(),
        "--log-level=info,konnectivity_process=debug,proxy_agent=debug".to_owned(),
    ];
    arguments.extend(more.iter().map(|&text| text.to_owned()));
    let mut agent = Agent::start(certificates, server.agents, Ipv4Addr::LOCALHOST.into(), &arguments).await.unwrap();
    agent.ready().await.unwrap();
    agent
}

impl Mixed {
    async fn dial(&self, target: &str) -> Result<Dial, DialError> {
        match (self.front, &self.server.frontend) {
            (Front::Connect, frontend) => Client::of(frontend, &self.certificates).unwrap().dial(target).await,
            (Front::Grpc, frontend @ Frontend::Unix(path)) => {
                let Path::Grpc(_, call) = Path::through_grpc(frontend, &self.certificates).unwrap() else {
                    unreachable!("a Unix socket")
                };
                let stream = UnixStream::connect(path).await?;
                Ok(Dial::Grpc(Box::new(grpc::Client::dial(stream, &call, target).await?)))
            }
            (Front::Grpc, Frontend::MutualTls(_)) => unreachable!("a Unix socket"),
        }
    }

    /// Both ends of a new dial.
    async fn join(&self) -> (Dial, TcpStream) {
        let listener = listen(Ipv4Addr::LOCALHOST);
        let target = address(&listener).to_string();
        let both = async { tokio::join!(self.dial(&target), listener.accept()) };
        let (dial, target) = within("a dial", both).await;
        (dial.unwrap(), target.unwrap().0)
    }

    async fn refused(&self, target: &str) -> String {
        match within("an answer", self.dial(target)).await {
            Err(DialError::Refused(text)) => text,
            other => panic!("{:?}: {other:?}", self.front),
        }
    }

    async fn no_dials(&self) {
        has_metric(self.agent.health, "konnectivity_network_proxy_agent_open_endpoint_connections", 0.0).await;
    }
}

async fn packets(agent: &Agent, segment: &str, kind: &str) -> f64 {
    let name = "konnectivity_network_proxy_agent_stream_packets_total";
    metric(agent.health, &format!("{name}{{packet_type=\"{kind}\",segment=\"{segment}\"}}")).await
}

#[tokio::test]
async fn echoes_come_back() {
    for case in ALL {
        // Servers pick h2 from whatever is offered.
        let mixed = mixed(case, &["--alpn-proto=of-our-own,another"]).await;
        let target = Target::echo();
        let mut dial = mixed.dial(&target.address.to_string()).await.unwrap();
        for size in [1, 25, 1000, 4096, 4097, 32 * 1024, 100_000] {
            echo(&mut dial, &vec![7; size]).await;
        }
        drop(dial);
        mixed.no_dials().await;
        assert_eq!(packets(&mixed.agent, "to_agent", "DIAL_REQ").await, 1.0);
        assert_eq!(packets(&mixed.agent, "from_agent", "DIAL_RSP").await, 1.0);
        assert!(packets(&mixed.agent, "from_agent", "DATA").await >= 7.0);
    }
}

#[tokio::test]
async fn many_dials_at_once_are_served() {
    for case in ALL {
        let mixed = Arc::new(mixed(case, &[]).await);
        let target = Target::echo();
        let mut dials = JoinSet::new();
        for number in 0..200_u32 {
            let (mixed, address) = (mixed.clone(), target.address.to_string());
            dials.spawn(async move {
                let mut dial = mixed.dial(&address).await.unwrap();
                for _ in 0..3 {
                    echo(&mut dial, &number.to_be_bytes()).await;
                }
                dial
            });
        }
        let dials = within("all of them", dials.join_all()).await;
        assert_eq!(target.accepted(), 200);
        drop(dials);
        mixed.no_dials().await;
    }
}

#[tokio::test]
async fn many_bytes_go_both_ways_unharmed() {
    const BYTES: usize = 20_000_000;
    for case in ALL {
        let mixed = mixed(case, &[]).await;
        let (mut client, mut target) = mixed.join().await;
        let (sent, (came, end)) = tokio::join!(write_pattern(&mut client, BYTES), read_pattern(&mut target, BYTES));
        assert!(sent == BYTES && came == BYTES && end.is_ok(), "{case:?} {sent} {came} {end:?}");
        let (sent, (came, end)) = tokio::join!(write_pattern(&mut target, BYTES), read_pattern(&mut client, BYTES));
        assert!(sent == BYTES && came == BYTES && end.is_ok(), "{case:?} {sent} {came} {end:?}");
        drop(target);
        let (rest, _) = read_rest(&mut client).await;
        assert!(rest.is_empty());
        mixed.no_dials().await;
    }
}

#[tokio::test]
async fn failures_are_told_in_the_words_of_the_reference() {
    for case @ (_, front) in ALL {
        let mixed = mixed(case, &["--dial-timeout=1s"]).await;
        let listener = listen(Ipv4Addr::LOCALHOST);
        let nobody = address(&listener);
        drop(listener);
        let full = Full::new().await;
        for (target, status, text) in [
            (nobody.to_string(), "502", format!("dial tcp {nobody}: connect: connection refused")),
            ("no-such-host.invalid:80".to_owned(), "502", "no such host".to_owned()),
            (full.address.to_string(), "504", format!("dial tcp {}: i/o timeout", full.address)),
        ] {
            let answer = mixed.refused(&target).await;
            assert!(answer.contains(&text), "{case:?} {target}: {answer}");
            if front == Front::Connect {
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            }
        }
        let failures = "konnectivity_network_proxy_agent_endpoint_dial_failure_total";
        assert_eq!(metric(mixed.agent.health, &format!("{failures}{{reason=\"timeout\"}}")).await, 1.0);
        assert_eq!(metric(mixed.agent.health, &format!("{failures}{{reason=\"unknown\"}}")).await, 2.0);
    }
}

/// The reference's server writes bytes that come at once before its own answer.
#[tokio::test]
async fn a_target_that_speaks_first_is_understood() {
    for case in ALL {
        let mixed = mixed(case, &[]).await;
        let target = Target::banner(b"220 ready");
        for _ in 0..50 {
            let mut dial = mixed.dial(&target.address.to_string()).await.unwrap();
            let mut banner = [0; 9];
            within("the banner", dial.read_exact(&mut banner)).await.unwrap();
            assert_eq!(&banner, b"220 ready");
            echo(&mut dial, b"more").await;
        }
    }
}

/// The reference's agent drops what it has not written when the client closes.
#[tokio::test]
async fn what_a_client_sends_before_it_closes_arrives() {
    for case in ALL {
        let mixed = mixed(case, &[]).await;
        for bytes in [100, 2_000_000] {
            // This server waits a moment before each close: an agent of the reference would lose bytes.
            let rounds = if case.0 == Make::Ours { 3 } else { 20 };
            for round in 0..rounds {
                let (mut client, mut target) = mixed.join().await;
                let send = async {
                    let sent = write_pattern(&mut client, bytes).await;
                    client.shutdown().await.unwrap();
                    client.close().await.unwrap();
                    sent
                };
                let (sent, (came, end)) = tokio::join!(send, read_pattern(&mut target, usize::MAX));
                assert!(sent == bytes && came == bytes, "{case:?} round {round}: {came} of {bytes} {end:?}");
                end.unwrap();
            }
        }
        mixed.no_dials().await;
    }
}

#[tokio::test]
async fn what_a_target_sends_before_it_closes_arrives() {
    for case in ALL {
        let mixed = mixed(case, &[]).await;
        for bytes in [100, 2_000_000] {
            for round in 0..20 {
                let (mut client, mut target) = mixed.join().await;
                let send = async {
                    let sent = write_pattern(&mut target, bytes).await;
                    drop(target);
                    sent
                };
                let (sent, (came, end)) = tokio::join!(send, read_pattern(&mut client, usize::MAX));
                assert!(sent == bytes && came == bytes, "{case:?} round {round}: {came} of {bytes} {end:?}");
            }
        }
        mixed.no_dials().await;
    }
}

#[tokio::test]
async fn a_target_that_resets_ends_the_dial() {
    for case @ (_, front) in ALL {
        let mixed = mixed(case, &[]).await;
        let (mut client, mut target) = mixed.join().await;
        carry(&mut client, &mut target, b"request").await;
        reset_tcp(target);
        let (rest, end) = read_rest(&mut client).await;
        assert!(rest.is_empty(), "{case:?} {rest:?}");
        if front == Front::Grpc {
            // Packets can tell what a Unix socket cannot.
            assert!(end.unwrap_err().to_string().contains("reset"));
        }
        mixed.no_dials().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_the_target_connects_leaves_nothing_behind() {
    for case @ (_, front) in ALL {
        let mixed = mixed(case, &["--dial-timeout=60s"]).await;
        let full = Full::new().await;
        let target = full.address.to_string();
        let _ = tokio::time::timeout(Duration::from_millis(500), mixed.dial(&target)).await;
        if front == Front::Grpc {
            // DIAL_CLS comes when the call of the client ends. Over CONNECT the server does not notice.
            mixed.agent.program.logged(&["dial ended", "cancelled"], LIMIT).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_target_that_takes_nothing_stops_nobody_else() {
    for case in ALL {
        let mixed = mixed(case, &["--grpc-dial-buffer=1MiB"]).await;
        let echo_target = Target::echo();
        let mut beside = mixed.dial(&echo_target.address.to_string()).await.unwrap();
        let (mut client, target) = mixed.join().await;
        // It is more than all buffers hold, so it goes on until the dial is ended.
        let mut stalled = JoinSet::new();
        stalled.spawn(async move {
            let sent = write_pattern(&mut client, 1 << 30).await;
            (client, sent)
        });
        let begun = std::time::Instant::now();
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(5) {
            let asked = std::time::Instant::now();
            echo(&mut beside, b"are you there").await;
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(longest < Duration::from_secs(3), "{case:?}: an echo took {longest:?}");
        mixed.agent.program.logged(&["dial ended", "stalled"], LIMIT).await.unwrap();
        within("the stalled dial's end", stalled.join_next()).await;
        echo(&mut beside, b"still").await;
        drop(target);
    }
}

#[tokio::test]
async fn a_server_that_is_killed_is_found_again() {
    for case in ALL {
        let mut mixed = mixed(case, &["--sync-interval=100ms", "--sync-interval-cap=200ms"]).await;
        let (mut client, mut target) = mixed.join().await;
        carry(&mut client, &mut target, b"request").await;
        mixed.server.program.kill();
        let (_, end) = read_rest(&mut target).await;
        assert!(end.is_err(), "an end would look like one of the client's");
        let failures = "konnectivity_network_proxy_agent_server_connection_failure_count{direction=\"from_server\"}";
        has_metric(mixed.agent.health, failures, 1.0).await;
        mixed.server.program.start_again().unwrap();
        mixed.server.serves().await.unwrap();
        mixed.agent.ready().await.unwrap();
        let target = Target::echo();
        until("a dial", LIMIT, async || {
            let mut dial = mixed.dial(&target.address.to_string()).await.ok()?;
            echo(&mut dial, b"hello").await;
            Some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_that_drains_says_so_and_ends_with_its_last_dial() {
    for case in ALL {
        let mut mixed = mixed(case, &[]).await;
        let (mut client, mut target) = mixed.join().await;
        let other = another_agent(&mixed.certificates, &mixed.server, "agent-2", &[]).await;
        mixed.agent.program.signal(Signal::SIGTERM).unwrap();
        match case.0 {
            Make::Reference => drop(mixed.server.program.logged(&["marked backend as draining"], LIMIT).await.unwrap()),
            Make::Ours => {
                let drains = async || {
                    let agents = mixed.server.connections().await.unwrap();
                    agents.iter().any(|agent| agent["draining"] == true).then_some(())
                };
                until("an agent that drains", LIMIT, drains).await;
            }
        }
        let (echo_target, before) = (Target::echo(), packets(&other, "to_agent", "DIAL_REQ").await);
        for _ in 0..10 {
            let mut dial = mixed.dial(&echo_target.address.to_string()).await.unwrap();
            echo(&mut dial, b"for the other one").await;
        }
        assert_eq!(packets(&other, "to_agent", "DIAL_REQ").await, before + 10.0);
        carry(&mut client, &mut target, b"the old one goes on").await;
        assert!(mixed.agent.program.status().unwrap().is_none());
        drop(target);
        read_rest(&mut client).await.1.unwrap();
        assert!(mixed.agent.program.ended(LIMIT).await.unwrap().success());
    }
}

/// The reference's agent cuts all of its dials when a server says that it goes.
#[tokio::test]
async fn dials_live_on_when_a_server_of_the_reference_goes() {
    let case = (Make::Reference, Front::Connect);
    let mut mixed = mixed_with(case, &["--graceful-shutdown-timeout=60s"], &[]).await;
    let (mut client, mut target) = mixed.join().await;
    mixed.server.program.signal(Signal::SIGTERM).unwrap();
    mixed.agent.program.logged(&["the server drains"], LIMIT).await.unwrap();
    for _ in 0..20 {
        carry(&mut client, &mut target, b"still here").await;
        carry(&mut target, &mut client, b"so am I").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(client);
    read_rest(&mut target).await.1.unwrap();
    // It waits for the stream of its agent, which is of no use any more.
    assert!(mixed.server.program.ended(LIMIT).await.unwrap().success());
}
