//! Who is let in to the gRPC frontend, and what those cost who are not, or who say nothing once they are.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{net::SocketAddr, time::Duration};

use konnectivity_interop::{
    certificates::{Authority, Leaf},
    ends::{Target, resident, within},
    load::path::Dial,
    pair::{
        Options, Pair,
        grpc::{
            door::{Door, Papers},
            flood::Flood,
            frame::{Frame, PREFACE, flag, kind},
            header::{Blocks, Form, request},
            honest::Honest,
            nothing_remains,
            wire::Wire,
        },
    },
    peer::Frontend,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const ECHOES: usize = 100;

/// As in the tests of floods: see there.
const TIMES: u32 = 10;
const BESIDES: Duration = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 20 });
const STUCK: Duration = Duration::from_secs(5);

/// For 300 clients that do nothing.
const MOST_GROWTH: usize = 32 * 1024 * 1024;

fn tls_port(pair: &Pair) -> SocketAddr {
    let Frontend::MutualTls(address) = pair.server.frontend else { unreachable!() };
    address
}

/// Whether a client with these papers gets so far that a PING of its is answered.
async fn is_let_in(pair: &Pair, papers: &Papers) -> bool {
    let door = Door::with(&pair.server.frontend, &pair.certificates, papers).unwrap();
    // With TLS 1.3 a client learns behind its handshake that it was refused.
    let Ok(dial) = within("the handshake", door.open()).await else { return false };
    let mut wire = Wire::over(dial);
    let hello = [&PREFACE[..], &Frame::settings(&[]).bytes(), &Frame::ping([1; 8]).bytes()].concat();
    if wire.out.bytes(&hello).await.is_err() {
        return false;
    }
    loop {
        match within("an answer or the end", wire.back.next()).await {
            Ok(frame) if frame.kind == kind::PING && frame.flags & flag::ACK != 0 => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[tokio::test]
async fn tls_clients_without_the_right_papers_are_not_let_in() {
    let pair = Pair::start(Options::mutual_tls().grpc()).await.unwrap();
    let target = Target::echo();
    let mut honest = Honest::new(&Door::of(&pair), target.address).await;
    let stranger = Authority::new("another authority").unwrap();
    let foreign = stranger.issue(&Leaf::client("stranger")).unwrap().write(pair.folder.path(), "stranger").unwrap();
    let good = Papers::good(&pair.certificates);
    assert!(is_let_in(&pair, &good).await);
    for (name, papers) in [
        ("no certificate", Papers { identity: None, ..good.clone() }),
        ("another authority's", Papers { identity: Some([foreign.0, foreign.1]), ..good.clone() }),
        ("no ALPN", Papers { protocols: Vec::new(), ..good.clone() }),
        ("HTTP/1.1", Papers { protocols: vec![b"http/1.1".to_vec()], ..good.clone() }),
        ("HTTP/3", Papers { protocols: vec![b"h3".to_vec()], ..good.clone() }),
    ] {
        assert!(!is_let_in(&pair, &papers).await, "{name} was let in");
        honest.pace(10).await;
    }
    for protocols in [vec![b"h2".to_vec(), b"http/1.1".to_vec()], vec![b"x".to_vec(), b"h2".to_vec()]] {
        assert!(is_let_in(&pair, &Papers { protocols, ..good.clone() }).await);
    }
}

#[tokio::test]
async fn plain_clients_of_the_tls_port_are_hung_up_on() {
    let pair = Pair::start(Options::mutual_tls().grpc()).await.unwrap();
    let target = Target::echo();
    let mut honest = Honest::new(&Door::of(&pair), target.address).await;
    let plain = [&PREFACE[..], &Frame::settings(&[]).bytes()].concat();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &plain, &[0x16; 20_000], &[0xff; 100]] {
        let mut stream = TcpStream::connect(tls_port(&pair)).await.unwrap();
        // The server may hang up in the midst of it.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(answer.len() < 300, "{} bytes", answer.len());
        honest.pace(10).await;
    }
}

/// Handshakes that come to nothing cost the honest ones nothing.
#[tokio::test]
async fn handshakes() {
    let pair = Pair::start(Options::mutual_tls().grpc()).await.unwrap();
    let target = Target::echo();
    let mut honest = Honest::new(&Door::of(&pair), target.address).await;
    honest.pace(ECHOES).await;
    let alone = honest.pace(ECHOES).await;
    let papers = Papers { identity: None, ..Papers::good(&pair.certificates) };
    let door = Door::with(&pair.server.frontend, &pair.certificates, &papers).unwrap();
    let flood = Flood::start(&door, |door, progress| async move {
        if let Ok(mut dial) = door.open().await {
            let _ = dial.read(&mut [0]).await;
        }
        progress.sent(1);
    });
    flood.has_sent(20).await;
    let beside = honest.pace(ECHOES).await;
    flood.has_sent(300).await;
    flood.stop();
    println!("handshakes: alone {alone:?}, beside {beside:?}");
    assert!(beside.median < TIMES * alone.median + BESIDES && beside.slowest < STUCK, "{beside:?}, alone {alone:?}");
}

/// Silent clients, some of them in the middle of something.
#[tokio::test]
async fn silent_clients() {
    for options in [Options::unix, Options::mutual_tls] {
        let pair = Pair::start(options().grpc()).await.unwrap();
        let door = Door::of(&pair);
        let target = Target::echo();
        let before = resident(&pair.server.program);
        let mut silent = Vec::new();
        let greeting = [&PREFACE[..], &Frame::settings(&[]).bytes()].concat();
        let headers = Frame::headers(1, Blocks::default().block(&request("localhost"), Form::GO)).bytes();
        let half = [&greeting[..], &headers[..20]].concat();
        for place in 0..300 {
            let mut dial: Dial = door.open().await.unwrap();
            let words: &[u8] = match place % 4 {
                0 => b"",
                1 => &PREFACE[..10],
                2 => &greeting,
                _ => &half,
            };
            dial.write_all(words).await.unwrap();
            dial.flush().await.unwrap();
            silent.push(dial);
        }
        let pace = Honest::new(&door, target.address).await.pace(ECHOES).await;
        assert!(pace.slowest < STUCK, "{pace:?}");
        let growth = resident(&pair.server.program).saturating_sub(before);
        println!("300 silent clients: {growth} bytes");
        assert!(growth < MOST_GROWTH, "the server has grown by {growth} bytes");
        drop(silent);
        nothing_remains(&pair).await;
    }
}
