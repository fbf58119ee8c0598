//! A dial that takes no bytes harms nobody else: targets that close, reset or stall at every stage, and many at once.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use konnectivity_interop::{
    ends::{
        LIMIT, Target, echo, join, no_dials, pattern, raise_open_files, read_pattern, reset, reset_tcp, resident,
        within, write_pattern,
    },
    load::path::{Dial, DialError},
    pair::{Options, Pair, http, until},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::TcpStream,
    sync::Mutex,
    task::JoinSet,
    time::timeout,
};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// Tests that fill both cores take turns.
static HEAVY: Mutex<()> = Mutex::const_new(());

/// When the target does it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Right after it has accepted.
    Accept,
    /// When it has read the request.
    Request,
    /// In the middle of its answer.
    Answer,
}

/// What the target does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Close,
    Reset,
    Stall,
}

const REQUEST: &[u8] = b"ten megabytes, please";
const ANSWER: usize = 10_000_000;

async fn misbehave(mut stream: TcpStream, stage: Stage, deed: Deed) {
    if stage != Stage::Accept {
        stream.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
    }
    if stage == Stage::Answer && write_pattern(&mut stream, ANSWER / 2).await < ANSWER / 2 {
        return;
    }
    match deed {
        Deed::Close => {}
        Deed::Reset => reset_tcp(stream),
        Deed::Stall => {
            // It ends when the client does, and not before.
            while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
        }
    }
}

#[tokio::test]
async fn a_target_that_closes_resets_or_stalls_at_any_stage_affects_its_own_dial_only() {
    let good = Target::echo();
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        let mut beside = client.dial(&good.address.to_string()).await.unwrap();
        for stage in [Stage::Accept, Stage::Request, Stage::Answer] {
            for deed in [Deed::Close, Deed::Reset, Deed::Stall] {
                let target = Target::new(move |stream| misbehave(stream, stage, deed));
                let mut dial = match client.dial(&target.address.to_string()).await {
                    Ok(dial) => dial,
                    // The agent's kernel may learn of the reset before the agent learns that it is connected.
                    Err(DialError::Refused(reply)) if (stage, deed) == (Stage::Accept, Deed::Reset) => {
                        assert!(reply.ends_with("connect: connection reset by peer"), "{reply}");
                        continue;
                    }
                    Err(error) => panic!("{stage:?} {deed:?}: {error}"),
                };
                // A target that has gone already may have taken the client's socket along.
                let _ = dial.write_all(REQUEST).await;
                let _ = dial.flush().await;
                sees(&mut dial, stage, deed).await;
                echo(&mut beside, b"beside it").await;
                drop(dial);
                until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
            }
        }
        drop(beside);
        no_dials(&pair).await;
    }
}

/// What the client gets of it.
async fn sees(dial: &mut Dial, stage: Stage, deed: Deed) {
    let written = if stage == Stage::Answer { ANSWER / 2 } else { 0 };
    if deed == Deed::Stall {
        let (bytes, end) = read_pattern(dial, written).await;
        assert_eq!((bytes, end.is_ok()), (written, true), "{stage:?} {deed:?}");
        // It must not look like an end. (A sharp test of "nothing" needs a time; a short one can only miss a fault.)
        let more = timeout(Duration::from_millis(50), dial.read(&mut [0])).await;
        assert!(more.is_err(), "{stage:?} {deed:?}: {more:?}");
        return;
    }
    let (bytes, end) = read_pattern(dial, usize::MAX).await;
    match deed {
        // The request that it has not read makes the target's kernel send RST instead of FIN.
        Deed::Close if stage == Stage::Accept => assert_eq!(bytes, 0),
        Deed::Close => assert!(bytes == written && end.is_ok(), "{stage:?} {deed:?}: {bytes} {end:?}"),
        _ => {
            assert!(bytes <= written, "{stage:?} {deed:?}: {bytes}");
            let told = matches!(dial, Dial::Unix(_)) || is_abort(&end);
            assert!(told, "{stage:?} {deed:?}: {end:?}");
        }
    }
}

/// Over TLS an abort must not look like an end.
fn is_abort(end: &io::Result<()>) -> bool {
    end.as_ref().is_err_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
        )
    })
}

/// The dial ends although its client reads nothing, and the client is told when it does.
#[tokio::test]
async fn a_target_that_resets_while_its_reader_stalls_ends_the_dial() {
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let (mut dial, mut target) = join(&pair.client().unwrap()).await;
        tokio::select! {
            _ = write_pattern(&mut target, usize::MAX) => panic!("the target could write everything"),
            () = has_stalled(pair.server.admin, 1) => {}
        }
        reset_tcp(target);
        no_dials(&pair).await;
        let (bytes, end) = read_pattern(&mut dial, usize::MAX).await;
        assert!(bytes > 0, "nothing of what was sent before");
        assert!(matches!(dial, Dial::Unix(_)) || is_abort(&end), "{end:?}");
    }
}

/// The target is told although it reads nothing.
#[tokio::test]
async fn a_client_that_resets_while_its_target_stalls_takes_the_connection_along() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let (mut dial, target) = join(&pair.client().unwrap()).await;
    tokio::select! {
        _ = write_pattern(&mut dial, usize::MAX) => panic!("the client could write everything"),
        () = has_stalled(pair.agents[0].admin, 1) => {}
    }
    reset(dial);
    let told = within("the reset", target.ready(Interest::ERROR)).await.unwrap();
    assert!(told.is_error(), "{told:?}");
    no_dials(&pair).await;
}

/// Waits until so many dials are stalled at an end.
async fn has_stalled(admin: SocketAddr, dials: usize) {
    until("stalled dials", LIMIT, async || {
        let connections = http::connections(admin).await.unwrap();
        (connections[0]["stalled_dials"] == dials).then_some(())
    })
    .await;
}

const STALLED: usize = 64;
const STREAM_WINDOW: usize = 256 * 1024;
const CONNECTION_WINDOW: usize = 416 * 1024;

/// What one stalled dial may carry before it comes to a halt is far less than this: the rest must still be there when
/// it goes on.
const EACH: usize = 16_000_000;

/// Windows in the proportion of the defaults, small enough for 64 stalled dials to spend them many times over.
fn small_windows(options: Options) -> Options {
    let windows = [
        format!("--quic-stream-receive-window={STREAM_WINDOW}"),
        format!("--quic-connection-receive-window={CONNECTION_WINDOW}"),
    ];
    options.server(windows.clone()).agent(windows)
}

/// What the relay has read from a stream and not yet written: up to 64 packets of 6,500 bytes on loopback.
const BATCH: usize = 64 * 6_500;

/// What one end may hold more than before. Every unread byte may keep two more: packets that the kernel has handed over
/// together share a buffer, which stays as long as one of them is unread. The sending end holds less: a buffer of 64 KiB
/// for each dial, and what is not acknowledged. Some more is for the allocator. Without a bound it would be what the
/// writers have to give, [`EACH`] for each dial.
const MOST_GROWTH: usize = 3 * (CONNECTION_WINDOW + STALLED * (STREAM_WINDOW + BATCH)) + 16 * 1024 * 1024;
const _: () = assert!(MOST_GROWTH < STALLED * EACH / 5);

#[tokio::test]
async fn stalled_readers_do_not_stop_other_dials() {
    let _turn = HEAVY.lock().await;
    for options in BOTH {
        let pair = Pair::start(small_windows(options())).await.unwrap();
        let client = pair.client().unwrap();
        let before = [resident(&pair.server.program), resident(&pair.agents[0].program)];
        let written = Arc::new(AtomicUsize::new(0));
        let source = source(EACH, &written);
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            stalled.push(client.dial(&source.address.to_string()).await.unwrap());
        }
        at_a_halt(pair.server.admin, STALLED, &written).await;
        others_go_on(&pair).await;
        memory_is_bounded(&pair, before);

        // One of them wakes up.
        let mut awake = stalled.swap_remove(17);
        let (bytes, end) = read_pattern(&mut awake, usize::MAX).await;
        end.unwrap();
        assert_eq!(bytes, EACH);
        drop((awake, stalled));
        no_dials(&pair).await;
    }
}

/// Writes the pattern up to `bytes` and counts what was taken.
async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: usize, written: &AtomicUsize) -> io::Result<()> {
    const CHUNK: usize = 64 * 1024;
    let mut place = 0;
    while place < bytes {
        let chunk = pattern(place, CHUNK.min(bytes - place));
        to.write_all(&chunk).await?;
        place += chunk.len();
        written.fetch_add(chunk.len(), Ordering::Relaxed);
    }
    to.flush().await
}

/// A target that sends `bytes` of the pattern and ends.
fn source(bytes: usize, written: &Arc<AtomicUsize>) -> Target {
    let written = written.clone();
    Target::new(move |mut stream| {
        let written = written.clone();
        async move {
            // A client that leaves is none of its business.
            let _ = send(&mut stream, bytes, &written).await;
        }
    })
}

/// More dials than the credit of a connection is large: if each kept the credit of what it cannot send, there would be
/// none for others. (The windows are the smallest that can be set, so that all this fits into the kernel's memory.)
#[tokio::test]
async fn stalled_dials_hold_no_credit_that_others_need() {
    const DIALS: usize = 600;
    const EACH: usize = 1_200_000;
    let _turn = HEAVY.lock().await;
    raise_open_files(2 * DIALS as u64 + 500);
    let windows = ["--quic-stream-receive-window=64KiB", "--quic-connection-receive-window=128KiB"];
    let pair = Pair::start(Options::unix().server(windows).agent(windows)).await.unwrap();
    let client = pair.client().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let source = source(EACH, &written);
    let mut stalled = Vec::new();
    for _ in 0..DIALS {
        stalled.push(client.dial(&source.address.to_string()).await.unwrap());
    }
    at_a_halt(pair.server.admin, DIALS, &written).await;
    others_go_on(&pair).await;
    let (bytes, end) = read_pattern(&mut stalled[300], usize::MAX).await;
    assert!(bytes == EACH && end.is_ok(), "{bytes} {end:?}");
    drop(stalled);
    no_dials(&pair).await;
}

#[tokio::test]
async fn stalled_targets_do_not_stop_other_dials() {
    let _turn = HEAVY.lock().await;
    for options in BOTH {
        let pair = Pair::start(small_windows(options())).await.unwrap();
        let client = pair.client().unwrap();
        let before = [resident(&pair.server.program), resident(&pair.agents[0].program)];
        let (woken, mut results) = tokio::sync::mpsc::unbounded_channel();
        let wake = Arc::new(tokio::sync::Semaphore::new(0));
        let waiting = wake.clone();
        let sleeper = Target::new(move |mut stream| {
            let (waiting, woken) = (waiting.clone(), woken.clone());
            async move {
                waiting.acquire().await.unwrap().forget();
                // The test may be over by then.
                let _ = woken.send(read_pattern(&mut stream, usize::MAX).await);
            }
        });
        let written = Arc::new(AtomicUsize::new(0));
        let mut uploads = JoinSet::new();
        for _ in 0..STALLED {
            let dial = client.dial(&sleeper.address.to_string()).await.unwrap();
            uploads.spawn(upload(dial, written.clone()));
        }
        at_a_halt(pair.agents[0].admin, STALLED, &written).await;
        others_go_on(&pair).await;
        memory_is_bounded(&pair, before);

        // One of them wakes up.
        wake.add_permits(1);
        let (bytes, end) = within("the upload", results.recv()).await.unwrap();
        end.unwrap();
        assert_eq!(bytes, EACH);
        drop((uploads, sleeper));
        no_dials(&pair).await;
    }
}

async fn upload(mut dial: Dial, written: Arc<AtomicUsize>) {
    send(&mut dial, EACH, &written).await.unwrap();
    dial.shutdown().await.unwrap();
}

/// Waits until so many dials are stalled at the receiving end and no byte is taken any more, which is so when none was in
/// a few looks.
async fn at_a_halt(admin: SocketAddr, dials: usize, written: &AtomicUsize) {
    const LOOKS: usize = 10;
    let (last, same) = (Cell::new(0), Cell::new(0));
    until("all dials are at a halt", LIMIT, async || {
        let connections = http::connections(admin).await.unwrap();
        let now = written.load(Ordering::Relaxed);
        let halted = connections[0]["stalled_dials"] == dials && now == last.replace(now);
        same.set(if halted { same.get() + 1 } else { 0 });
        (same.get() >= LOOKS).then_some(())
    })
    .await;
}

/// New dials, echoes and bulk both ways, beside what is stalled.
async fn others_go_on(pair: &Pair) {
    let target = Target::echo();
    let mut dial = pair.dial(&target.address.to_string()).await.unwrap();
    for _ in 0..200 {
        echo(&mut dial, b"as if there were no others").await;
    }
    echo(&mut dial, &pattern(0, 2_000_000)).await;
}

fn memory_is_bounded(pair: &Pair, before: [usize; 2]) {
    let now = [resident(&pair.server.program), resident(&pair.agents[0].program)];
    for (name, before, now) in [("server", before[0], now[0]), ("agent", before[1], now[1])] {
        let growth = now.saturating_sub(before);
        println!("{name}: {before} bytes before, {growth} more with {STALLED} stalled dials, limit {MOST_GROWTH}");
        assert!(growth < MOST_GROWTH, "the {name} has grown by {growth} bytes, more than {MOST_GROWTH}");
    }
}
