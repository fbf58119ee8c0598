//! Many dials at once and one after the other: none fails, and nothing of them stays.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{process::Command, sync::Arc};

use konnectivity_interop::{
    ends::{
        ESTABLISHED, LIMIT, Target, descriptors, echo, has_metric, join, metric, no_dials, raise_open_files,
        read_pattern, resident, within, write_pattern,
    },
    load::path::{Dial, DialError},
    pair::{Options, Pair, client::Client, client::reply_head, program::Program, until},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Barrier, Mutex},
    task::JoinSet,
};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// Tests that fill both cores take turns.
static HEAVY: Mutex<()> = Mutex::const_new(());

/// Changes a running program's limit of open files.
fn limit_open_files(program: &Program, limit: usize) {
    let status = Command::new("prlimit")
        .args([format!("--pid={}", program.id()), format!("--nofile={limit}:")])
        .status()
        .expect("prlimit, of util-linux");
    assert!(status.success(), "prlimit: {status}");
}

#[tokio::test]
async fn two_thousand_dials_at_once_all_succeed() {
    const DIALS: usize = 2_000;
    let _turn = HEAVY.lock().await;
    // Two for each dial in this process, and some.
    raise_open_files(2 * DIALS as u64 + 500);
    let target = Target::echo();
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        let all_open = Arc::new(Barrier::new(DIALS));
        let mut dials = JoinSet::new();
        for number in 0..DIALS {
            let (client, target, all_open) = (client.clone(), target.address.to_string(), all_open.clone());
            dials.spawn(async move {
                let mut dial = client.dial(&target).await.unwrap_or_else(|error| panic!("dial {number}: {error}"));
                let words = format!("number {number}");
                echo(&mut dial, words.as_bytes()).await;
                within("all others", all_open.wait()).await;
                echo(&mut dial, words.as_bytes()).await;
            });
        }
        while let Some(ended) = dials.join_next().await {
            ended.unwrap();
        }
        assert_eq!(
            metric(pair.server.health, "konnectivity_network_proxy_server_frontend_accept_errors_total").await,
            0.0
        );
        no_dials(&pair).await;
    }
}

/// A server and an agent that keep 100 bytes of every dial would grow by 1 MB.
#[tokio::test]
async fn ten_thousand_dials_leave_no_descriptor_and_no_memory() {
    const DIALS: usize = 10_000;
    const WARM_UP: usize = 2_000;
    const MOST_GROWTH: usize = 1024 * 1024;
    let _turn = HEAVY.lock().await;
    let target = Target::echo();
    let pair = Pair::start(Options::unix()).await.unwrap();
    let client = pair.client().unwrap();
    let programs = [&pair.server.program, &pair.agents[0].program];
    one_after_the_other(&client, &target, WARM_UP).await;
    no_dials(&pair).await;
    let before = programs.map(|program| (descriptors(program), resident(program)));
    one_after_the_other(&client, &target, DIALS).await;
    no_dials(&pair).await;
    until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
    for (program, (files, memory)) in programs.into_iter().zip(before) {
        let growth = resident(program).saturating_sub(memory);
        println!("{}: {memory} bytes after {WARM_UP} dials, {growth} more after {DIALS} more", program.name());
        assert!(growth < MOST_GROWTH, "{} has grown by {growth} bytes", program.name());
        until("the descriptors of before", LIMIT, async || (descriptors(program) <= files).then_some(())).await;
    }
    for name in ["pending_backend_dials", "established_connections", "http_connections"] {
        has_metric(pair.server.health, &format!("konnectivity_network_proxy_server_{name}"), 0.0).await;
    }
    has_metric(pair.agents[0].health, "konnectivity_network_proxy_agent_open_endpoint_connections", 0.0).await;
    let ended = "konnectivity_network_proxy_server_dials_total{outcome=\"finished\"}";
    has_metric(pair.server.health, ended, (WARM_UP + DIALS) as f64).await;
}

/// Eight clients share the dials among them.
async fn one_after_the_other(client: &Client, target: &Target, dials: usize) {
    const CLIENTS: usize = 8;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, target) = (client.clone(), target.address.to_string());
        clients.spawn(async move {
            for _ in 0..dials / CLIENTS {
                let mut dial = client.ask(&target).await.unwrap();
                let mut answer = [0; ESTABLISHED.len()];
                within("the answer", dial.read_exact(&mut answer)).await.unwrap();
                assert_eq!(&answer, ESTABLISHED);
                echo(&mut dial, b"short").await;
                dial.shutdown().await.unwrap();
                assert_eq!(within("the end", dial.read(&mut [0])).await.unwrap(), 0);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// Failed dials are dials too: nothing of them stays either.
#[tokio::test]
async fn dials_that_fail_or_are_given_up_leave_nothing() {
    let _turn = HEAVY.lock().await;
    let target = Target::echo();
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        let programs = [&pair.server.program, &pair.agents[0].program];
        misused(&client, &target, 10).await;
        no_dials(&pair).await;
        let before = programs.map(descriptors);
        misused(&client, &target, 200).await;
        no_dials(&pair).await;
        for (program, before) in programs.into_iter().zip(before) {
            until("the descriptors of before", LIMIT, async || (descriptors(program) <= before).then_some(())).await;
        }
        until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
    }
}

async fn misused(client: &Client, target: &Target, times: usize) {
    for _ in 0..times {
        let refused = client.dial("127.0.0.1:1").await;
        assert!(matches!(refused, Err(DialError::Refused(_))), "{refused:?}");
        drop(client.ask(&target.address.to_string()).await.unwrap());
        let mut dial = client.connect().await.unwrap();
        dial.write_all(b"CONNECT half a requ").await.unwrap();
        dial.flush().await.unwrap();
        drop(dial);
        drop(client.dial(&target.address.to_string()).await.unwrap());
    }
}

/// The server has no descriptor for the next client: it waits, and is served when another has gone.
#[tokio::test]
async fn a_server_without_descriptors_accepts_again_when_it_has_some() {
    let target = Target::echo();
    let pair = Pair::start(Options::unix()).await.unwrap();
    let client = pair.client().unwrap();
    let program = &pair.server.program;
    let mut beside = client.dial(&target.address.to_string()).await.unwrap();
    limit_open_files(program, descriptors(program) + 8);
    // Connections to the frontend that say nothing take the rest; some of them are not accepted.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(client.connect().await.unwrap());
    }
    program.logged(&["cannot accept a client"], LIMIT).await.unwrap();
    let mut waiting = client.ask(&target.address.to_string()).await.unwrap();
    echo(&mut beside, b"others go on").await;
    drop(idle);
    let head = within("the answer", reply_head(&mut waiting)).await.unwrap();
    assert_eq!(head.as_bytes(), ESTABLISHED);
    echo(&mut waiting, b"late but served").await;
    let mut another = client.dial(&target.address.to_string()).await.unwrap();
    echo(&mut another, b"and others").await;
    let errors = metric(pair.server.health, "konnectivity_network_proxy_server_frontend_accept_errors_total").await;
    assert!(errors >= 1.0, "{errors}");
}

/// The agent has no descriptor for a target: that dial fails with the reference's text and status, later ones succeed.
#[tokio::test]
async fn an_agent_without_descriptors_says_so_and_connects_again_when_it_has_some() {
    let target = Target::echo();
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        let program = &pair.agents[0].program;
        let address = target.address.to_string();
        let mut dials = vec![client.dial(&address).await.unwrap()];
        limit_open_files(program, descriptors(program) + 8);
        let refused = loop {
            match client.dial(&address).await {
                Ok(dial) => dials.push(dial),
                Err(error) => break error,
            }
            assert!(dials.len() < 100, "no limit");
        };
        let DialError::Refused(reply) = refused else { panic!("{refused}") };
        let expected = format!(
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
             dial tcp {address}: socket: too many open files"
        );
        assert_eq!(reply, expected);
        for dial in &mut dials {
            echo(dial, b"the others go on").await;
        }
        drop(dials.pop());
        let mut again = until("a dial that succeeds", LIMIT, async || client.dial(&address).await.ok()).await;
        echo(&mut again, b"again").await;
    }
}

/// Each of eight dials carries its share of 100 MB to the target, and then as much to the client.
#[tokio::test]
async fn a_hundred_megabytes_each_way_arrive_intact_on_eight_dials() {
    const DIALS: usize = 8;
    const EACH: usize = 100_000_000 / DIALS;
    let _turn = HEAVY.lock().await;
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        let mut dials = JoinSet::new();
        for _ in 0..DIALS {
            let client = client.clone();
            dials.spawn(async move {
                let (mut dial, mut target) = join(&client).await;
                for up in [true, false] {
                    let written_and_read = match up {
                        true => tokio::join!(write_pattern(&mut dial, EACH), read_pattern(&mut target, EACH)),
                        false => tokio::join!(write_pattern(&mut target, EACH), read_pattern(&mut dial, EACH)),
                    };
                    let (written, (read, end)) = written_and_read;
                    end.unwrap();
                    assert_eq!((written, read), (EACH, EACH));
                }
            });
        }
        while let Some(ended) = dials.join_next().await {
            ended.unwrap();
        }
        no_dials(&pair).await;
    }
}

/// Somebody types while others download.
#[tokio::test]
async fn echoes_come_back_beside_bulk_downloads() {
    let _turn = HEAVY.lock().await;
    let pair = Pair::start(Options::unix()).await.unwrap();
    let client = pair.client().unwrap();
    let echoing = Target::echo();
    let source = Target::new(|mut stream| async move {
        let chunk = vec![0; 256 * 1024];
        while stream.write_all(&chunk).await.is_ok() {}
    });
    let mut downloads = JoinSet::new();
    for _ in 0..4 {
        let dial = client.dial(&source.address.to_string()).await.unwrap();
        downloads.spawn(download(dial));
    }
    let mut typing = client.dial(&echoing.address.to_string()).await.unwrap();
    for number in 0..200 {
        echo(&mut typing, format!("key {number}").as_bytes()).await;
    }
    assert!(downloads.try_join_next().is_none(), "a download has ended");
    downloads.shutdown().await;
    drop(typing);
    no_dials(&pair).await;
}

async fn download(mut dial: Dial) {
    let mut buffer = vec![0; 256 * 1024];
    while matches!(dial.read(&mut buffer).await, Ok(1..)) {}
    panic!("the download has ended");
}
