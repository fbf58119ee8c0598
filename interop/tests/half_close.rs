//! Each direction of a dial ends by itself, and an abort is not taken for an end, through a real server and agent.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io;

use konnectivity_interop::{
    ends::{carry, join, no_dials, pattern, read_pattern, read_rest, reset, reset_tcp, within, write_pattern},
    load::path::Dial,
    pair::{Options, Pair},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

#[tokio::test]
async fn the_client_ends_its_half_first() {
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let (mut client, mut target) = join(&pair.client().unwrap()).await;
        carry(&mut client, &mut target, b"request").await;
        client.shutdown().await.unwrap();
        let (rest, end) = read_rest(&mut target).await;
        assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
        for _ in 0..3 {
            carry(&mut target, &mut client, b"a late answer").await;
        }
        drop(target);
        let (rest, end) = read_rest(&mut client).await;
        assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
        no_dials(&pair).await;
    }
}

#[tokio::test]
async fn the_target_ends_its_half_first() {
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let (mut client, mut target) = join(&pair.client().unwrap()).await;
        carry(&mut target, &mut client, b"greeting").await;
        target.shutdown().await.unwrap();
        let (rest, end) = read_rest(&mut client).await;
        assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
        for _ in 0..3 {
            carry(&mut client, &mut target, b"late words").await;
        }
        client.shutdown().await.unwrap();
        let (rest, end) = read_rest(&mut target).await;
        assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
        no_dials(&pair).await;
    }
}

/// As `cat request | nc | ...`: everything one way, the end, then everything the other way.
#[tokio::test]
async fn a_whole_request_is_answered_after_its_end() {
    const BYTES: usize = 1_000_000;
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let (mut client, mut target) = join(&pair.client().unwrap()).await;
        let ask = async {
            assert_eq!(write_pattern(&mut client, BYTES).await, BYTES);
            client.shutdown().await.unwrap();
            read_pattern(&mut client, usize::MAX).await
        };
        let answer = async {
            let (bytes, end) = read_pattern(&mut target, usize::MAX).await;
            end.unwrap();
            assert_eq!(bytes, BYTES);
            assert_eq!(write_pattern(&mut target, BYTES).await, BYTES);
            drop(target);
        };
        let ((bytes, end), ()) = tokio::join!(ask, answer);
        end.unwrap();
        assert_eq!(bytes, BYTES);
        no_dials(&pair).await;
    }
}

/// Go's `CloseWrite` on TLS sends close_notify and leaves TCP open.
#[tokio::test]
async fn close_notify_without_fin_is_an_end() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let (client, mut target) = join(&pair.client().unwrap()).await;
    let Dial::Tls(mut client) = client else { panic!("not TLS") };
    carry(&mut client, &mut target, b"request").await;
    client.get_mut().1.send_close_notify();
    client.flush().await.unwrap();
    let (rest, end) = read_rest(&mut target).await;
    assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
    carry(&mut target, &mut client, b"answer").await;
    drop(target);
    let (rest, end) = read_rest(&mut client).await;
    assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");
    no_dials(&pair).await;
}

/// Whoever cuts the client's TCP connection must not make the target believe that it has got all.
#[tokio::test]
async fn fin_without_close_notify_is_an_abort() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let (client, mut target) = join(&pair.client().unwrap()).await;
    let Dial::Tls(mut client) = client else { panic!("not TLS") };
    carry(&mut client, &mut target, b"half a request").await;
    client.get_mut().0.shutdown().await.unwrap();
    is_reset(&mut target).await;
    no_dials(&pair).await;
}

/// Over TLS the client can tell an end (close_notify) from an abort.
#[tokio::test]
async fn an_end_of_the_target_is_close_notify_and_a_reset_is_not() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let client = pair.client().unwrap();
    for _ in 0..10 {
        let (mut dial, mut target) = join(&client).await;
        carry(&mut target, &mut dial, b"all of it").await;
        drop(target);
        let (rest, end) = read_rest(&mut dial).await;
        assert!(rest.is_empty() && end.is_ok(), "{rest:?} {end:?}");

        let (mut dial, mut target) = join(&client).await;
        carry(&mut target, &mut dial, b"half of it").await;
        reset_tcp(target);
        let (rest, end) = read_rest(&mut dial).await;
        assert!(rest.is_empty() && end.is_err(), "{rest:?} {end:?}");
    }
    no_dials(&pair).await;
}

/// A Unix socket has nothing but an end; that it comes is what counts.
#[tokio::test]
async fn a_reset_of_the_target_ends_a_unix_client() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let (mut dial, mut target) = join(&pair.client().unwrap()).await;
    carry(&mut target, &mut dial, b"half of it").await;
    reset_tcp(target);
    let (rest, _) = read_rest(&mut dial).await;
    assert!(rest.is_empty(), "{rest:?}");
    no_dials(&pair).await;
}

#[tokio::test]
async fn a_reset_of_the_client_is_a_reset_at_the_target() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let client = pair.client().unwrap();
    for _ in 0..10 {
        let (mut dial, mut target) = join(&client).await;
        carry(&mut dial, &mut target, b"half a request").await;
        reset(dial);
        is_reset(&mut target).await;
    }
    no_dials(&pair).await;
}

/// The same without a TCP reset: a client that closes with bytes of the target unread does not want them.
#[tokio::test]
async fn a_client_that_closes_with_bytes_unread_stops_the_target() {
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let (mut dial, mut target) = join(&pair.client().unwrap()).await;
        carry(&mut target, &mut dial, &pattern(0, 1000)).await;
        let endless = async {
            let chunk = pattern(0, 64 * 1024);
            while target.write_all(&chunk).await.is_ok() {}
        };
        let leave = async {
            let mut some = vec![0; 100_000];
            dial.read_exact(&mut some).await.unwrap();
            drop(dial);
        };
        within("the end of the download", async { tokio::join!(endless, leave) }).await;
        no_dials(&pair).await;
    }
}

async fn is_reset(target: &mut tokio::net::TcpStream) {
    let (rest, end) = read_rest(target).await;
    assert_eq!(end.expect_err("a reset, not an end").kind(), io::ErrorKind::ConnectionReset);
    assert!(rest.is_empty(), "{rest:?}");
}
