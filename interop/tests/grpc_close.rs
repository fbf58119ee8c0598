//! How a dial over gRPC ends: what was accepted before a close arrives, and each end learns how the other one ended.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::Ipv4Addr;

use konnectivity_interop::{
    ends::{Target, accept, address, has_metric, listen, pattern, read_rest, reset_tcp, within, write_pattern},
    pair::{
        Options, Pair,
        grpc::{CALLS, connection::Connection, door::Door, no_dials_remain, nothing_remains, tunnel::Tunnel},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// Less than a packet, a packet of the reference, several, and more than any window.
const SIZES: [usize; 4] = [1, 100, 10_000, 2_000_000];

const TRIALS: usize = 20;

async fn start(options: Options) -> (Pair, Connection) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let connection = Connection::open(&Door::of(&pair)).await;
    (pair, connection)
}

/// A dial to a target that the test plays itself.
async fn join(connection: &Connection) -> (Tunnel, TcpStream) {
    let listener = listen(Ipv4Addr::LOCALHOST);
    let target = address(&listener);
    let (tunnel, target) = tokio::join!(Tunnel::dial(connection, target), accept(&listener));
    (tunnel.unwrap(), target)
}

/// Sends the pattern in packets of 32 KiB.
async fn send(tunnel: &Tunnel, bytes: usize) {
    for chunk in pattern(0, bytes).chunks(32 * 1024) {
        tunnel.write(chunk).await;
    }
}

/// The reference loses them: 0 of 100 bytes arrive in 10 of 10 trials.
#[tokio::test]
async fn bytes_before_close_req_arrive() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        for bytes in SIZES {
            for trial in 0..TRIALS {
                let (mut tunnel, mut target) = join(&connection).await;
                let client = async {
                    send(&tunnel, bytes).await;
                    tunnel.close().await
                };
                let target = async move { read_rest(&mut target).await };
                let ((rest, why), (arrived, end)) = tokio::join!(client, target);
                assert!(rest.is_empty() && why.is_empty(), "{bytes} bytes, trial {trial}: {rest:?} {why:?}");
                assert!(end.is_ok(), "{bytes} bytes, trial {trial}: {end:?}");
                assert!(arrived == pattern(0, bytes), "{} of {bytes} bytes, trial {trial}", arrived.len());
            }
        }
        no_dials_remain(&pair).await;
        drop(connection);
        nothing_remains(&pair).await;
    }
}

/// The same when the call, and the connection, end right behind CLOSE_REQ: a Go client that waits for nothing.
#[tokio::test]
async fn bytes_before_close_req_arrive_when_the_call_ends_with_it() {
    let (pair, connection) = start(Options::unix()).await;
    for bytes in SIZES {
        for trial in 0..TRIALS {
            let (tunnel, mut target) = join(&connection).await;
            let client = async {
                send(&tunnel, bytes).await;
                tunnel.ask_close().await;
                tunnel.rpc.end().await;
                assert_eq!(tunnel.rpc.status().await.code, Some(0));
            };
            let ((), (arrived, end)) = tokio::join!(client, async move { read_rest(&mut target).await });
            assert!(end.is_ok(), "{bytes} bytes, trial {trial}: {end:?}");
            assert!(arrived == pattern(0, bytes), "{} of {bytes} bytes, trial {trial}", arrived.len());
        }
    }
    nothing_remains(&pair).await;
    drop(connection);
}

/// A Go client waits 10 s for CLOSE_RSP; the target need not have anything to do with it.
#[tokio::test]
async fn close_rsp_does_not_wait_for_the_target_to_close() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let (mut tunnel, mut target) = join(&connection).await;
        tunnel.write(b"last words").await;
        let start = tokio::time::Instant::now();
        assert_eq!(tunnel.close().await, (Vec::new(), String::new()));
        assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
        let (arrived, end) = read_rest(&mut target).await;
        assert!(arrived == b"last words" && end.is_ok(), "{arrived:?} {end:?}");
        // Nor does the dial stay open for a target that does not know when to go.
        no_dials_remain(&pair).await;
    }
}

/// A client that closes takes nothing more; a target that goes on is told.
#[tokio::test]
async fn close_req_stops_a_target_that_goes_on_sending() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let (mut tunnel, mut target) = join(&connection).await;
        let endless = tokio::spawn(async move { write_pattern(&mut target, usize::MAX).await });
        tunnel.read_exact(100_000).await;
        let (_rest, why) = tunnel.close().await;
        assert_eq!(why, "");
        assert!(within("the target's end", endless).await.unwrap() > 100_000);
        no_dials_remain(&pair).await;
    }
}

#[tokio::test]
async fn a_target_that_ends_is_closed_after_its_last_byte() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        for bytes in SIZES {
            for trial in 0..TRIALS {
                let (mut tunnel, mut target) = join(&connection).await;
                let target = async move { write_pattern(&mut target, bytes).await };
                let ((arrived, why), written) = tokio::join!(tunnel.rest(), target);
                assert_eq!((written, why.as_str()), (bytes, ""), "trial {trial}");
                assert!(arrived == pattern(0, bytes), "{} of {bytes} bytes, trial {trial}", arrived.len());
                // As the Go client does behind CLOSE_RSP.
                tunnel.rpc.end().await;
                assert_eq!(tunnel.rpc.status().await.code, Some(0));
            }
        }
        no_dials_remain(&pair).await;
        has_metric(pair.server.health, CALLS, 0.0).await;
    }
}

/// The reference reports it as a clean end.
#[tokio::test]
async fn a_target_that_resets_is_closed_with_an_error() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        for _ in 0..TRIALS {
            let (mut tunnel, mut target) = join(&connection).await;
            target.write_all(b"some").await.unwrap();
            assert_eq!(tunnel.read_exact(4).await, b"some");
            reset_tcp(target);
            let (rest, why) = tunnel.rest().await;
            assert!(rest.is_empty() && !why.is_empty(), "{rest:?} {why:?}");
        }
        no_dials_remain(&pair).await;
    }
}

/// A call that is cancelled is no clean end.
#[tokio::test]
async fn a_call_that_is_cancelled_resets_the_target() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        for _ in 0..TRIALS {
            let (tunnel, mut target) = join(&connection).await;
            tunnel.write(b"some").await;
            target.read_exact(&mut [0; 4]).await.unwrap();
            tunnel.rpc.cancel().await;
            let told = within("the reset", target.ready(Interest::ERROR)).await.unwrap();
            assert!(told.is_error(), "{told:?}");
        }
        no_dials_remain(&pair).await;
    }
}

/// A connection that dies takes all of its dials along, and none of another's.
#[tokio::test]
async fn a_connection_that_dies_takes_its_dials_along() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let target = Target::echo();
        let others = Connection::open(&Door::of(&pair)).await;
        let mut beside = Tunnel::dial(&others, target.address).await.unwrap();
        for _ in 0..50 {
            Tunnel::dial(&connection, target.address).await.unwrap().echo(b"alive").await;
        }
        has_metric(pair.server.health, CALLS, 51.0).await;
        connection.cut().await;
        has_metric(pair.server.health, CALLS, 1.0).await;
        konnectivity_interop::pair::until(
            "one connection of the target",
            konnectivity_interop::ends::LIMIT,
            async || (target.open() == 1).then_some(()),
        )
        .await;
        beside.echo(b"as before").await;
        drop((beside, others));
        nothing_remains(&pair).await;
    }
}

/// The target sends until the last moment, and the client until the last moment.
#[tokio::test]
async fn both_directions_at_once_to_the_last_byte() {
    const BYTES: usize = 3_000_000;
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let (mut tunnel, target) = join(&connection).await;
        let (mut read, mut write) = target.into_split();
        let writer = Tunnel::over(tunnel.rpc.clone(), tunnel.id);
        let up = async {
            send(&writer, BYTES).await;
        };
        let sink = async {
            let mut arrived = vec![0; BYTES];
            read.read_exact(&mut arrived).await.unwrap();
            assert!(arrived == pattern(0, BYTES));
        };
        let source = async { assert_eq!(write_pattern(&mut write, BYTES).await, BYTES) };
        let (down, (), (), ()) =
            within("all of it", async { tokio::join!(tunnel.read_exact(BYTES), up, sink, source) }).await;
        assert!(down == pattern(0, BYTES));
        drop((read, write));
        assert_eq!(tunnel.rest().await, (Vec::new(), String::new()));
        no_dials_remain(&pair).await;
    }
}
