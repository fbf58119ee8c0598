//! A client that leaves before its dial is answered leaves nothing behind: no connect, no target's connection, no dial.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Duration;

use konnectivity_interop::{
    ends::{ESTABLISHED, Full, LIMIT, Target, accept, has_metric, metric, no_dials, read_rest, request, reset, within},
    load::path::Dial,
    pair::{Options, Pair, client::reply_head, until},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// No dial ends by itself while a test waits for something.
fn patient(options: Options) -> Options {
    options.server(["--backend-dial-timeout=5m"]).agent(["--dial-timeout=5m"])
}

const LEFT: &str = "konnectivity_network_proxy_server_dial_failure_count{reason=\"frontend_close\"}";

/// The target must not see a connection that comes after the client has left.
#[tokio::test]
async fn a_client_that_leaves_while_its_dial_is_pending_takes_the_connect_with_it() {
    for options in BOTH {
        for leave in [drop, reset] {
            let pair = Pair::start(patient(options())).await.unwrap();
            let client = pair.client().unwrap();
            let full = Full::new().await;
            let mut dials = Vec::new();
            for count in 1..=3 {
                dials.push(client.ask(&full.address.to_string()).await.unwrap());
                full.has_pending(count).await;
            }
            dials.drain(..).for_each(leave);
            full.has_pending(0).await;
            has_metric(pair.server.health, LEFT, 3.0).await;
            no_dials(&pair).await;
            let listener = full.free().await;
            nobody_waits(&listener).await;
        }
    }
}

/// Nothing is connecting any more (the table said so), so the next connection that comes is ours.
async fn nobody_waits(listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    let ours = within("our own connect", TcpStream::connect(address)).await.unwrap();
    let next = accept(listener).await;
    assert_eq!(next.peer_addr().unwrap(), ours.local_addr().unwrap());
}

/// The answer and the client's farewell cross on their way, at every point of the dial: whatever the target has accepted
/// is ended at once.
#[tokio::test]
async fn a_client_that_leaves_just_when_its_dial_succeeds_leaves_no_connection() {
    let target = Target::new(|mut stream| async move {
        // It would hold the connection for ever.
        let _ = stream.read(&mut [0]).await;
    });
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        for trial in 0..200_u64 {
            let dial = client.ask(&target.address.to_string()).await.unwrap();
            // The moment of leaving is what varies; nothing is waited for.
            tokio::time::sleep(Duration::from_micros(trial * 10)).await;
            if trial % 2 == 0 { drop(dial) } else { reset(dial) }
        }
        until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
        no_dials(&pair).await;
        let pending = metric(pair.server.health, "konnectivity_network_proxy_server_pending_backend_dials").await;
        assert_eq!(pending, 0.0);
        has_metric(pair.agents[0].health, "konnectivity_network_proxy_agent_open_endpoint_connections", 0.0).await;
    }
    assert!(target.accepted() > 0, "no dial came as far as the target");
}

/// A client that has said all that it has to say, and waits for the answer to it, has not left.
#[tokio::test]
async fn a_client_that_ends_its_half_after_its_words_is_served() {
    for options in BOTH {
        let pair = Pair::start(patient(options())).await.unwrap();
        let mut dial = pair.client().unwrap().connect().await.unwrap();
        let full = Full::new().await;
        dial.write_all(format!("{}all I have to say", request(full.address)).as_bytes()).await.unwrap();
        dial.shutdown().await.unwrap();
        full.has_pending(1).await;
        let listener = full.free().await;
        let mut target = within("the target's connection", accept(&listener)).await;
        assert_eq!(within("the answer", reply_head(&mut dial)).await.unwrap().as_bytes(), ESTABLISHED);
        let (words, end) = read_rest(&mut target).await;
        assert!(words == b"all I have to say" && end.is_ok(), "{words:?} {end:?}");
        target.write_all(b"the answer").await.unwrap();
        drop(target);
        let (answer, end) = read_rest(&mut dial).await;
        assert!(answer == b"the answer" && end.is_ok(), "{answer:?} {end:?}");
    }
}

/// Whether such a client has left cannot be seen before there is an answer to send to it, but then it is.
#[tokio::test]
async fn a_client_that_leaves_after_its_words_is_noticed_with_the_answer() {
    for options in BOTH {
        let pair = Pair::start(patient(options())).await.unwrap();
        let mut dial = pair.client().unwrap().connect().await.unwrap();
        let full = Full::new().await;
        dial.write_all(format!("{}my last words", request(full.address)).as_bytes()).await.unwrap();
        dial.shutdown().await.unwrap();
        full.has_pending(1).await;
        drop(dial);
        let listener = full.free().await;
        let mut target = within("the target's connection", accept(&listener)).await;
        let (words, _) = read_rest(&mut target).await;
        assert!(b"my last words".starts_with(words.as_slice()), "{words:?}");
        drop(target);
        no_dials(&pair).await;
    }
}

/// A client that is cut off in the middle of its words (TCP ends, TLS does not) has left.
#[tokio::test]
async fn a_client_that_is_cut_off_has_left_whatever_it_has_said() {
    let pair = Pair::start(patient(Options::mutual_tls())).await.unwrap();
    let client = pair.client().unwrap();
    let full = Full::new().await;
    for cut in [drop, reset] {
        let mut dial: Dial = client.connect().await.unwrap();
        dial.write_all(format!("{}half a wo", request(full.address)).as_bytes()).await.unwrap();
        dial.flush().await.unwrap();
        full.has_pending(1).await;
        cut(dial);
        full.has_pending(0).await;
    }
    has_metric(pair.server.health, LEFT, 2.0).await;
    no_dials(&pair).await;
    nobody_waits(&full.free().await).await;
}
