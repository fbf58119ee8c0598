//! A gRPC client or a target that takes no bytes stops its own dial, and no other one: not on the same HTTP/2
//! connection, not on others, and whatever is kept for it has a bound.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use konnectivity_interop::{
    ends::{LIMIT, Target, pattern, read_pattern, resident, within},
    pair::{
        Options, Pair,
        grpc::{
            connection::{Connection, Habits},
            door::Door,
            frame::{Frame, PREFACE, setting},
            message, nothing_remains,
            tunnel::Tunnel,
            wire::Wire,
        },
        until,
    },
};
use konnectivity_transport::packet::Packet;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex, task::JoinSet};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// Tests that fill both cores take turns.
static HEAVY: Mutex<()> = Mutex::const_new(());

const STALLED: usize = 64;

/// What one stalled dial may carry before it comes to a halt is far less than this.
const EACH: usize = 16_000_000;

/// What the server may hold more than before for all that is stalled: without a bound it would be `STALLED * EACH`.
/// Each dial may have its windows (the agent's stream, 256 KiB here, and what the relay and HTTP/2 have taken out of it),
/// doubled by packet buffers that are freed together.
const MOST_GROWTH: usize = STALLED * 2 * 1024 * 1024 + 16 * 1024 * 1024;
const _: () = assert!(MOST_GROWTH < STALLED * EACH / 5);

fn small_windows(options: Options) -> Options {
    let windows = ["--quic-stream-receive-window=256KiB", "--quic-connection-receive-window=416KiB"];
    options.server(windows).agent(windows).grpc()
}

/// A target that sends the pattern up to `bytes`, and how much was taken of it.
fn source(bytes: usize) -> (Target, Arc<AtomicUsize>) {
    const CHUNK: usize = 64 * 1024;
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let target = Target::new(move |mut stream: TcpStream| {
        let taken = counter.clone();
        async move {
            let mut place = 0;
            while place < bytes {
                let chunk = pattern(place, CHUNK.min(bytes - place));
                // A client that leaves is none of its business.
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
                place += chunk.len();
                taken.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    });
    (target, taken)
}

/// A target that reads the pattern when it is told to, and how much came.
fn sleeper() -> (Target, Arc<tokio::sync::Semaphore>, Arc<AtomicUsize>) {
    let wake = Arc::new(tokio::sync::Semaphore::new(0));
    let read = Arc::new(AtomicUsize::new(0));
    let (waiting, counter) = (wake.clone(), read.clone());
    let target = Target::new(move |mut stream: TcpStream| {
        let (waiting, counter) = (waiting.clone(), counter.clone());
        async move {
            waiting.acquire().await.unwrap().forget();
            let (bytes, end) = read_pattern(&mut stream, usize::MAX).await;
            assert!(end.is_ok(), "{bytes} {end:?}");
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    });
    (target, wake, read)
}

/// Waits until nothing more is taken, which is so when nothing was in a few looks.
async fn at_a_halt(what: &str, taken: impl Fn() -> usize) {
    const LOOKS: usize = 20;
    let (last, same) = (Cell::new(0), Cell::new(0));
    until(what, LIMIT, async || {
        let now = taken();
        same.set(if now > 0 && now == last.replace(now) { same.get() + 1 } else { 0 });
        (same.get() >= LOOKS).then_some(())
    })
    .await;
}

/// New dials, echoes and bulk, on this connection and on a new one.
async fn others_go_on(door: &Door, connection: &Connection) {
    let target = Target::echo();
    let new = Connection::open(door).await;
    for connection in [connection, &new] {
        let mut tunnel = Tunnel::dial(connection, target.address).await.unwrap();
        for _ in 0..200 {
            tunnel.echo(b"as if there were no others").await;
        }
        tunnel.echo(&pattern(0, 1_000_000)).await;
        tunnel.rpc.cancel().await;
    }
}

fn memory_is_bounded(pair: &Pair, before: usize) {
    let growth = resident(&pair.server.program).saturating_sub(before);
    println!("server: {before} bytes before, {growth} more with {STALLED} stalled dials, limit {MOST_GROWTH}");
    assert!(growth < MOST_GROWTH, "the server has grown by {growth} bytes, more than {MOST_GROWTH}");
}

#[tokio::test]
async fn streams_whose_window_stays_closed_stop_only_themselves() {
    let _turn = HEAVY.lock().await;
    for options in BOTH {
        let pair = Pair::start(small_windows(options())).await.unwrap();
        let door = Door::of(&pair);
        let connection = Connection::open(&door).await;
        let before = resident(&pair.server.program);
        let (target, taken) = source(EACH);
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            let tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
            tunnel.rpc.hold();
            stalled.push(tunnel);
        }
        for tunnel in &stalled {
            until("a full window", LIMIT, async || (tunnel.rpc.held_bytes() > 40_000).then_some(())).await;
        }
        at_a_halt("all dials are at a halt", || taken.load(Ordering::Relaxed)).await;
        others_go_on(&door, &connection).await;
        memory_is_bounded(&pair, before);
        assert!(taken.load(Ordering::Relaxed) < STALLED * EACH / 2);

        // One of them wakes up.
        let mut awake = stalled.swap_remove(17);
        awake.rpc.release().await;
        let (bytes, why) = awake.rest().await;
        assert!(bytes == pattern(0, EACH) && why.is_empty(), "{} bytes, {why:?}", bytes.len());
        drop((awake, stalled, connection));
        nothing_remains(&pair).await;
    }
}

/// A window of nothing at all: not even the answer fits.
#[tokio::test]
async fn streams_without_any_window_stop_only_themselves() {
    for options in BOTH {
        let pair = Pair::start(options().grpc()).await.unwrap();
        let door = Door::of(&pair);
        let connection = Connection::with(&door, Habits { window: 0, ..Habits::default() }).await;
        let echo = Target::echo();
        let mut closed = Vec::new();
        for number in 0..50 {
            let rpc = connection.call().await;
            rpc.send(&Packet::dial_request(echo.address.to_string(), number)).await;
            closed.push(rpc);
        }
        until("all targets are connected", LIMIT, async || (echo.accepted() == 50).then_some(())).await;
        // One that has a window is served beside them.
        let rpc = connection.call().await;
        rpc.frame(Frame::window_update(rpc.id, 1_000_000)).await;
        let id = konnectivity_interop::pair::grpc::tunnel::dial(&rpc, echo.address).await.unwrap();
        let mut tunnel = Tunnel::over(rpc, id);
        for _ in 0..100 {
            tunnel.echo(b"with a window").await;
        }
        closed[30].is_silent(Duration::from_millis(50)).await;
        closed[30].frame(Frame::window_update(closed[30].id, 100)).await;
        konnectivity_interop::pair::grpc::tunnel::answer(&closed[30], 30).await.unwrap();
        drop((tunnel, closed, connection));
        nothing_remains(&pair).await;
    }
}

/// With windows as large as they can be, only the socket tells the server to stop.
#[tokio::test]
async fn a_client_that_never_reads_its_socket_stops_only_itself() {
    let _turn = HEAVY.lock().await;
    for options in BOTH {
        let pair = Pair::start(small_windows(options())).await.unwrap();
        let door = Door::of(&pair);
        let before = resident(&pair.server.program);
        // The kernel's buffers of a dial over TCP take more than EACH.
        let (target, taken) = source(usize::MAX);
        let mut deaf = Vec::new();
        for _ in 0..STALLED {
            let mut wire = Wire::open(&door).await;
            let largest = [(setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1)];
            let greeting =
                [&PREFACE[..], &Frame::settings(&largest).bytes(), &Frame::window_update(0, 1 << 30).bytes()].concat();
            wire.out.bytes(&greeting).await.unwrap();
            let id = wire.dial(1, &door.authority(), target.address).await;
            // It has spoken, so nothing is kept back.
            wire.say([Frame::data(1, message(&Packet::data(id, Bytes::from_static(b"go"))))]).await;
            deaf.push(wire);
        }
        at_a_halt("all dials are at a halt", || taken.load(Ordering::Relaxed)).await;
        let connection = Connection::open(&door).await;
        others_go_on(&door, &connection).await;
        memory_is_bounded(&pair, before);
        drop((deaf, connection));
        nothing_remains(&pair).await;
    }
}

/// More stalled uploads than any window of the whole connection has room for.
#[tokio::test]
async fn targets_that_do_not_read_stop_only_their_own_streams() {
    let _turn = HEAVY.lock().await;
    for options in BOTH {
        let pair = Pair::start(small_windows(options())).await.unwrap();
        let door = Door::of(&pair);
        let connection = Connection::open(&door).await;
        let before = resident(&pair.server.program);
        let (target, wake, read) = sleeper();
        let written = Arc::new(AtomicUsize::new(0));
        let mut uploads = JoinSet::new();
        for _ in 0..STALLED {
            let tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
            let written = written.clone();
            uploads.spawn(async move {
                for place in (0..EACH).step_by(32_000) {
                    let packet = Packet::data(tunnel.id, Bytes::from(pattern(place, 32_000.min(EACH - place))));
                    tunnel.rpc.send_slowly(&message(&packet)).await;
                    written.fetch_add(32_000, Ordering::Relaxed);
                }
                let mut tunnel = tunnel;
                tunnel.close().await
            });
        }
        at_a_halt("all uploads are at a halt", || written.load(Ordering::Relaxed)).await;
        assert!(written.load(Ordering::Relaxed) < STALLED * EACH / 2);
        others_go_on(&door, &connection).await;
        memory_is_bounded(&pair, before);

        // One of them wakes up.
        wake.add_permits(1);
        let closed = within("the upload", uploads.join_next()).await.unwrap().unwrap();
        assert_eq!(closed, (Vec::new(), String::new()));
        until("all of it was read", LIMIT, async || (read.load(Ordering::Relaxed) == EACH).then_some(())).await;
        uploads.abort_all();
        while uploads.join_next().await.is_some() {}
        drop((target, connection));
        nothing_remains(&pair).await;
    }
}

/// A client that leaves while its dial is stalled leaves nothing behind.
#[tokio::test]
async fn stalled_dials_end_with_their_calls() {
    for options in BOTH {
        let pair = Pair::start(options().grpc()).await.unwrap();
        let connection = Connection::open(&Door::of(&pair)).await;
        let (target, taken) = source(usize::MAX);
        for half_close in [false, true] {
            let mut stalled = Vec::new();
            for _ in 0..20 {
                let tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
                tunnel.rpc.hold();
                stalled.push(tunnel);
            }
            taken.store(0, Ordering::Relaxed);
            for tunnel in &stalled {
                until("a full window", LIMIT, async || (tunnel.rpc.held_bytes() > 40_000).then_some(())).await;
            }
            for tunnel in &stalled {
                if half_close {
                    tunnel.rpc.end().await;
                } else {
                    tunnel.rpc.cancel().await;
                }
            }
            until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
        }
        drop(connection);
        nothing_remains(&pair).await;
    }
}
