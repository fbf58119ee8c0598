//! Clients that ask for as much work as they can without any use of it. Each flood ends as RFC 9113 or the reference has
//! it, costs a bounded amount of memory, and leaves an honest client beside it at its speed.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use konnectivity_interop::{
    ends::{LIMIT, Target, has_metric, resident, within},
    pair::{
        Options, Pair,
        grpc::{
            CALLS,
            connection::{Connection, Habits},
            door::Door,
            flood::{Flood, Progress},
            frame::{Frame, MAX_PAYLOAD, code, kind, setting},
            header::{Blocks, Form, Table, request, with},
            honest::Honest,
            message, nothing_remains,
            tunnel::Tunnel,
            wire::{Out, Wire},
        },
        until,
    },
};
use konnectivity_transport::packet::{DialRequest, Packet, PacketType, Payload};
use tokio::{sync::Mutex, time::timeout};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// Each of these tests fills both cores; they take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// What a flood may cost while it goes on: buffers of a few connections, and what the allocator keeps of those that went.
const MOST_GROWTH: usize = 64 * 1024 * 1024;

const ECHOES: usize = 100;

/// Half of the echoes beside a flood are not slower than this many times those without, and some time besides: the flood's
/// own sender takes a core of two, other tests the other one, and an unoptimised server takes its time for each frame.
const TIMES: u32 = 10;
const BESIDES: Duration = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 20 });

/// One that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// Runs an attack until the server has taken `least` of it, and measures an honest client without it and beside it.
async fn honest_clients_keep_their_speed<F>(
    name: &str,
    least: usize,
    attack: impl Fn(Door, Arc<Progress>) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()>,
{
    let _turn = TURN.lock().await;
    for options in BOTH {
        let pair = Pair::start(options().grpc()).await.unwrap();
        let door = Door::of(&pair);
        let target = Target::echo();
        let mut honest = Honest::new(&door, target.address).await;
        honest.pace(ECHOES).await;
        let alone = honest.pace(ECHOES).await;
        let before = resident(&pair.server.program);

        let flood = Flood::start(&door, attack);
        flood.has_sent(least / 10).await;
        let beside = honest.pace(ECHOES).await;
        // One that comes now is served, too.
        let new = Honest::new(&door, target.address).await.pace(ECHOES / 10).await;
        flood.has_sent(least).await;
        let growth = resident(&pair.server.program).saturating_sub(before);
        let sent = flood.stop();

        let after = honest.pace(ECHOES).await;
        println!(
            "{name}: {sent} sent, {growth} bytes; alone {alone:?}, beside {beside:?}, new {new:?}, after {after:?}"
        );
        let most = TIMES * alone.median + BESIDES;
        for pace in [beside, new, after] {
            assert!(pace.median < most, "{name}: {pace:?}, alone {alone:?}");
            assert!(pace.slowest < STUCK, "{name}: {pace:?}, alone {alone:?}");
        }
        assert!(growth < MOST_GROWTH, "{name}: the server has grown by {growth} bytes");
        drop(honest);
        nothing_remains(&pair).await;
    }
}

/// What is sent again and again once a connection is greeted.
async fn send_until_refused(wire: Wire, progress: &Progress, chunk: &[u8], count: usize) {
    let Wire { mut out, mut back } = wire;
    let sending = async {
        while !progress.is_over() {
            match timeout(Duration::from_secs(1), out.bytes(chunk)).await {
                Ok(Ok(())) => progress.sent(count),
                Ok(Err(_)) => return,
                // It reads no more, which is an answer, too.
                Err(_) => {}
            }
        }
    };
    let reading = async {
        back.rest().await;
    };
    tokio::select! {
        () = sending => {}
        () = reading => {}
    }
}

/// The same, but nobody reads what the server answers.
async fn send_without_reading(mut out: Out, progress: &Progress, chunk: &[u8], count: usize) {
    // A server that cannot get rid of its answers stops reading: the next connection goes on.
    let mut pauses = 0;
    while !progress.is_over() && pauses < 3 {
        match timeout(Duration::from_millis(100), out.bytes(chunk)).await {
            Ok(Ok(())) => progress.sent(count),
            Ok(Err(_)) => return,
            Err(_) => pauses += 1,
        }
    }
    progress.sent(1);
}

fn block() -> Vec<u8> {
    Blocks::default().block(&request("%2Fsocket"), Form { huffman: true, table: Table::Literal })
}

fn repeated(frames: &[Frame], times: usize) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>().repeat(times)
}

/// A greeted connection; an attack that does not even get that far is over.
macro_rules! greeted {
    ($door:expr) => {
        match Wire::try_greeted(&$door).await {
            Ok(wire) => wire,
            Err(_) => return,
        }
    };
}

#[tokio::test]
async fn pings() {
    honest_clients_keep_their_speed("pings", 200_000, |door, progress| async move {
        let chunk = repeated(&[Frame::ping([7; 8])], 1_000);
        send_until_refused(greeted!(door), &progress, &chunk, 1_000).await;
    })
    .await;
}

#[tokio::test]
async fn pings_whose_answers_nobody_reads() {
    honest_clients_keep_their_speed("unread pings", 20_000, |door, progress| async move {
        let wire = greeted!(door);
        let chunk = repeated(&[Frame::ping([7; 8])], 1_000);
        let _back = wire.back;
        send_without_reading(wire.out, &progress, &chunk, 1_000).await;
    })
    .await;
}

#[tokio::test]
async fn settings() {
    honest_clients_keep_their_speed("settings", 100_000, |door, progress| async move {
        let sizes = [1, 100_000].map(|window| Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, window)]));
        let chunk = repeated(&sizes, 500);
        send_until_refused(greeted!(door), &progress, &chunk, 1_000).await;
    })
    .await;
}

#[tokio::test]
async fn settings_whose_answers_nobody_reads() {
    honest_clients_keep_their_speed("unread settings", 20_000, |door, progress| async move {
        let wire = greeted!(door);
        let chunk = repeated(&[Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)])], 1_000);
        let _back = wire.back;
        send_without_reading(wire.out, &progress, &chunk, 1_000).await;
    })
    .await;
}

#[tokio::test]
async fn empty_data() {
    honest_clients_keep_their_speed("empty data", 100_000, |door, progress| async move {
        let mut wire = greeted!(door);
        wire.say([Frame::headers(1, block())]).await;
        let chunk = repeated(&[Frame::data(1, [])], 1_000);
        send_until_refused(wire, &progress, &chunk, 1_000).await;
    })
    .await;
}

/// The same on an established dial, with padding and with empty packets.
#[tokio::test]
async fn empty_packets() {
    static TARGET: LazyLock<SocketAddr> = LazyLock::new(leaked_echo);
    honest_clients_keep_their_speed("empty packets", 50_000, |door, progress| async move {
        let mut wire = greeted!(door);
        let id = wire.dial(1, "localhost", *TARGET).await;
        let empty = message(&Packet::data(id, Bytes::new()));
        let window = Frame::window_update(0, 1);
        let chunk = repeated(&[Frame::data(1, []).padded(0), window, Frame::data(1, [])], 100);
        let unknown = repeated(&[Frame::data(1, empty)], 10);
        // Sparing with the window, which nobody opens for this one faster than the server takes it.
        send_until_refused(wire, &progress, &[chunk, unknown].concat(), 310).await;
    })
    .await;
}

/// A target that outlives the runtimes of this process's tests: a thread that echoes.
fn leaked_echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut read = stream.try_clone().unwrap();
                let mut write = stream;
                // An error is the peer's way to end it.
                let _ = std::io::copy(&mut read, &mut write);
            });
        }
    });
    address
}

#[tokio::test]
async fn windows_byte_by_byte() {
    honest_clients_keep_their_speed("windows", 100_000, |door, progress| async move {
        let mut wire = greeted!(door);
        wire.say([Frame::headers(1, block())]).await;
        let chunk = repeated(&[Frame::window_update(1, 1), Frame::window_update(0, 1)], 500);
        send_until_refused(wire, &progress, &chunk, 1_000).await;
    })
    .await;
}

#[tokio::test]
async fn priorities_and_unknown_frames() {
    honest_clients_keep_their_speed("priorities", 100_000, |door, progress| async move {
        let frames = [Frame::new(kind::PRIORITY, 0, 9, [0, 0, 0, 0, 1]), Frame::new(0xbe, 0xff, 7, [0; 10])];
        send_until_refused(greeted!(door), &progress, &repeated(&frames, 500), 1_000).await;
    })
    .await;
}

/// Streams that are opened and reset as fast as it goes (CVE-2023-44487).
#[tokio::test]
async fn rapid_reset() {
    honest_clients_keep_their_speed("rapid reset", 20_000, |door, progress| async move {
        let Wire { mut out, mut back } = greeted!(door);
        let block = block();
        let sending = async {
            let mut stream = 1;
            while !progress.is_over() && stream < (1 << 30) {
                let mut chunk = Vec::new();
                for _ in 0..100 {
                    chunk.extend(Frame::headers(stream, block.clone()).bytes());
                    chunk.extend(Frame::reset(stream, code::CANCEL).bytes());
                    stream += 2;
                }
                if out.bytes(&chunk).await.is_err() {
                    return;
                }
                progress.sent(100);
            }
        };
        tokio::select! {
            () = sending => {}
            _ = back.rest() => {}
        }
    })
    .await;
}

/// The same with a dial on each, so that the agent has work of it, too.
#[tokio::test]
async fn rapid_reset_of_dials() {
    static TARGET: LazyLock<SocketAddr> = LazyLock::new(leaked_echo);
    honest_clients_keep_their_speed("rapid reset of dials", 2_000, |door, progress| async move {
        let Wire { mut out, mut back } = greeted!(door);
        let block = block();
        let sending = async {
            let mut stream = 1;
            while !progress.is_over() && stream < (1 << 30) {
                let dial = message(&Packet::dial_request(TARGET.to_string(), i64::from(stream)));
                let mut chunk = Vec::new();
                chunk.extend(Frame::headers(stream, block.clone()).bytes());
                chunk.extend(Frame::data(stream, dial).bytes());
                chunk.extend(Frame::reset(stream, code::CANCEL).bytes());
                stream += 2;
                if out.bytes(&chunk).await.is_err() {
                    return;
                }
                progress.sent(1);
            }
        };
        tokio::select! {
            () = sending => {}
            _ = back.rest() => {}
        }
    })
    .await;
}

/// Resets of streams that are long closed.
#[tokio::test]
async fn resets() {
    honest_clients_keep_their_speed("resets", 50_000, |door, progress| async move {
        let mut wire = greeted!(door);
        wire.say([Frame::headers(1, block()), Frame::reset(1, code::CANCEL)]).await;
        let chunk = repeated(&[Frame::reset(1, code::CANCEL)], 1_000);
        send_until_refused(wire, &progress, &chunk, 1_000).await;
    })
    .await;
}

/// A header of 100,000 frames (CVE-2024-27316).
#[tokio::test]
async fn headers_without_an_end() {
    honest_clients_keep_their_speed("continuations", 100_000, |door, progress| async move {
        let mut wire = greeted!(door);
        wire.say([Frame::new(kind::HEADERS, 0, 1, block())]).await;
        let mut header = Vec::new();
        let form = Form { huffman: false, table: Table::Literal };
        Blocks::default().header("x-more", &"v".repeat(80), form, &mut header);
        let chunk = repeated(&[Frame::new(kind::CONTINUATION, 0, 1, header)], 100);
        send_until_refused(wire, &progress, &chunk, 100).await;
        // The connection itself counts: it may be refused with the first frames.
        progress.sent(100);
    })
    .await;
}

#[tokio::test]
async fn empty_continuations() {
    honest_clients_keep_their_speed("empty continuations", 100_000, |door, progress| async move {
        let mut wire = greeted!(door);
        wire.say([Frame::new(kind::HEADERS, 0, 1, block())]).await;
        let chunk = repeated(&[Frame::new(kind::CONTINUATION, 0, 1, [])], 1_000);
        send_until_refused(wire, &progress, &chunk, 1_000).await;
        progress.sent(100);
    })
    .await;
}

/// What a header says of its size is a few bytes, and what it means is megabytes.
#[tokio::test]
async fn headers_that_unpack() {
    honest_clients_keep_their_speed("unpacking headers", 2_000, |door, progress| async move {
        let Wire { mut out, mut back } = greeted!(door);
        let mut blocks = Blocks::default();
        let long = with(request("localhost"), "x-long", &"v".repeat(4_000));
        let first = Frame::headers(1, blocks.block(&long, Form::GO)).bytes();
        let sending = async {
            if out.bytes(&first).await.is_err() {
                return;
            }
            let mut stream = 3;
            while !progress.is_over() && stream < (1 << 30) {
                let mut block = blocks.block(&request("localhost"), Form::GO);
                for _ in 0..10_000 {
                    blocks.header("x-long", &long.last().unwrap().1, Form::GO, &mut block);
                }
                let frames = [Frame::headers(stream, block), Frame::reset(stream, code::CANCEL)];
                stream += 2;
                if out.bytes(&repeated(&frames, 1)).await.is_err() {
                    return;
                }
                progress.sent(100);
            }
        };
        tokio::select! {
            () = sending => {}
            _ = back.rest() => {}
        }
        progress.sent(10);
    })
    .await;
}

/// Calls that are refused, and nobody reads why.
#[tokio::test]
async fn answers_that_nobody_reads() {
    honest_clients_keep_their_speed("unread answers", 5_000, |door, progress| async move {
        let wire = greeted!(door);
        let (mut out, _back) = (wire.out, wire.back);
        let block = Blocks::default()
            .block(&with(request("a"), ":path", "/Nothing/Nothing"), Form { huffman: true, table: Table::Literal });
        let (mut stream, mut pauses) = (1, 0);
        while !progress.is_over() && pauses < 3 && stream < (1 << 30) {
            let mut chunk = Vec::new();
            for _ in 0..100 {
                chunk.extend(Frame::headers(stream, block.clone()).ending().bytes());
                stream += 2;
            }
            match timeout(Duration::from_millis(100), out.bytes(&chunk)).await {
                Ok(Ok(())) => progress.sent(100),
                Ok(Err(_)) => break,
                Err(_) => pauses += 1,
            }
        }
        progress.sent(50);
    })
    .await;
}

/// Streams that are opened and never used.
#[tokio::test]
async fn streams_without_an_end() {
    honest_clients_keep_their_speed("open streams", 100_000, |door, progress| async move {
        let Wire { mut out, mut back } = greeted!(door);
        let block = block();
        let sending = async {
            for first in (0..100_000_u32).step_by(100) {
                let mut chunk = Vec::new();
                for stream in first..first + 100 {
                    chunk.extend(Frame::headers(2 * stream + 1, block.clone()).bytes());
                }
                if progress.is_over() || out.bytes(&chunk).await.is_err() {
                    return;
                }
                progress.sent(100);
            }
        };
        tokio::select! {
            () = sending => {}
            _ = back.rest() => {}
        }
    })
    .await;
}

/// Messages that are announced and do not come, byte by byte.
#[tokio::test]
async fn messages_byte_by_byte() {
    honest_clients_keep_their_speed("bytes", 50_000, |door, progress| async move {
        let mut wire = greeted!(door);
        wire.say([Frame::headers(1, block()), Frame::data(1, [0, 0, 0x3f, 0xff, 0xff])]).await;
        // Less than the window of a connection; then the next one.
        let chunk = repeated(&[Frame::data(1, [7])], 500);
        for _ in 0..100 {
            if progress.is_over() || wire.out.bytes(&chunk).await.is_err() {
                return;
            }
            progress.sent(500);
        }
    })
    .await;
}

/// Connections that come, greet, and go.
#[tokio::test]
async fn connections() {
    honest_clients_keep_their_speed("connections", 300, |door, progress| async move {
        drop(greeted!(door));
        progress.sent(1);
    })
    .await;
}

/// Messages of nearly 4 MiB that never end, on many streams: what is kept of each has a bound.
#[tokio::test]
async fn large_messages_without_an_end() {
    let announced = [0, 0, 0x3f, 0xff, 0xff];
    let garbage = [&announced[..], &vec![0; 4_000_000]].concat();
    never_ending("no packet", false, |_| garbage.clone()).await;
    never_ending("data before a dial", false, cut_off).await;
    never_ending("data of a dial", true, cut_off).await;
}

/// The beginning of a DATA packet of nearly 4 MiB.
fn cut_off(conn_id: i64) -> Vec<u8> {
    let mut message = message(&Packet::data(conn_id, Bytes::from(vec![7; 4_000_000])));
    message.truncate(3_999_000);
    message
}

async fn never_ending(name: &str, dialled: bool, message: impl Fn(i64) -> Vec<u8>) {
    const STREAMS: usize = 100;
    let _turn = TURN.lock().await;
    let pair = Pair::start(Options::unix().grpc()).await.unwrap();
    let door = Door::of(&pair);
    let (target, deaf) = (Target::echo(), Target::deaf());
    let mut honest = Honest::new(&door, target.address).await;
    let before = resident(&pair.server.program);
    let connection = Connection::open(&door).await;
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let (rpc, id) = if dialled {
            let tunnel = Tunnel::dial(&connection, deaf.address).await.unwrap();
            (tunnel.rpc, tunnel.id)
        } else {
            (connection.call().await, 7)
        };
        let large = message(id);
        senders.spawn(async move { rpc.send_slowly(&large).await });
    }
    // Either all of it is taken, or the windows stay closed; the honest one goes on.
    let _ = timeout(Duration::from_secs(5), async { while senders.join_next().await.is_some() {} }).await;
    let pace = honest.pace(ECHOES).await;
    let growth = resident(&pair.server.program).saturating_sub(before);
    println!("{STREAMS} messages, {name}, {} not taken: {growth} bytes, {pace:?}", senders.len());
    assert!(pace.slowest < STUCK, "{name}: {pace:?}");
    assert!(growth < 2 * MOST_GROWTH, "{name}: the server has grown by {growth} bytes");
    senders.abort_all();
    while senders.join_next().await.is_some() {}
    drop((connection, honest, deaf));
    nothing_remains(&pair).await;
}

/// Packets that each have an answer, for which there is no room: the client's window is closed. What waits has a bound.
#[tokio::test]
async fn answers_without_room() {
    no_room("CLOSE_REQ before a dial", false, &Packet::close_request(7)).await;
    no_room("dials that are refused", false, &refused()).await;
    no_room("second dials", true, &Packet::dial_request("127.0.0.1:1", 9)).await;
}

/// A dial that the server refuses by itself.
fn refused() -> Packet {
    let request = DialRequest { protocol: "udp".to_owned(), address: "127.0.0.1:1".to_owned(), random: 9 };
    Packet { r#type: PacketType::DialReq.into(), payload: Some(Payload::DialRequest(request)) }
}

async fn no_room(name: &str, dialled: bool, packet: &Packet) {
    const PACKETS: usize = 500_000;
    const AT_ONCE: usize = 1_000;
    let _turn = TURN.lock().await;
    let pair = Pair::start(Options::unix().grpc()).await.unwrap();
    let door = Door::of(&pair);
    let target = Target::echo();
    let mut honest = Honest::new(&door, target.address).await;
    let connection = Connection::with(&door, Habits { window: 0, ..Habits::default() }).await;
    let rpc = connection.call().await;
    if dialled {
        rpc.send(&Packet::dial_request(target.address.to_string(), 1)).await;
        until("the target's connection", LIMIT, async || (target.accepted() == 2).then_some(())).await;
    }
    let before = resident(&pair.server.program);
    let chunk = message(packet).repeat(AT_ONCE);
    let mut sent = 0;
    // Either the server reads no more of them, or it ends the call, or it keeps what waits in a bounded room.
    let sending = async {
        while sent < PACKETS {
            rpc.send_slowly(&chunk).await;
            sent += AT_ONCE;
        }
    };
    let _ = timeout(Duration::from_secs(5), async {
        tokio::select! { () = sending => {}, _ = rpc.status() => {} }
    })
    .await;
    let pace = honest.pace(ECHOES).await;
    let growth = resident(&pair.server.program).saturating_sub(before);
    println!("{name}: {sent} sent: {growth} bytes, {pace:?}");
    assert!(pace.slowest < STUCK, "{name}: {pace:?}");
    assert!(growth < MOST_GROWTH / 4, "{name}: the server has grown by {growth} bytes after {sent} packets");
    drop((rpc, connection, honest));
    nothing_remains(&pair).await;
}

/// How each flood ends for the one who sends it.
#[tokio::test]
async fn floods_end_as_the_rfc_has_it() {
    let _turn = TURN.lock().await;
    let pair = Pair::start(Options::unix().grpc()).await.unwrap();
    let door = Door::of(&pair);
    let calm = [code::ENHANCE_YOUR_CALM, code::PROTOCOL_ERROR, code::COMPRESSION_ERROR];

    // A header that does not end is refused.
    let piece = Frame::new(kind::CONTINUATION, 0, 1, vec![0; 1]);
    for piece in [piece, Frame::new(kind::CONTINUATION, 0, 1, [])] {
        let mut wire = Wire::greeted(&door).await;
        wire.say([Frame::new(kind::HEADERS, 0, 1, block())]).await;
        let chunk = repeated(&[piece], 1_000);
        let mut taken = 0;
        while taken < 100_000 && wire.out.bytes(&chunk).await.is_ok() {
            taken += 1_000;
        }
        let farewell = wire.farewell().await;
        assert!(farewell.goaway.is_none_or(|code| calm.contains(&code)), "{:?}", farewell.goaway);
    }

    // So is a list of headers of a megabyte, or its connection ends.
    let mut wire = Wire::greeted(&door).await;
    let mut blocks = Blocks::default();
    let mut header = blocks.block(&request("localhost"), Form::GO);
    for place in 0..1_000 {
        let form = Form { huffman: false, table: Table::Literal };
        blocks.header(&format!("x-{place}"), &"v".repeat(1_000), form, &mut header);
    }
    wire.say(Frame::headers(1, header).cut(MAX_PAYLOAD)).await;
    // It must be there to be told if the connection goes on.
    wire.say([Frame::ping([1; 8])]).await;
    let mut told = Vec::new();
    while let Ok(frame) = within("the refusal", wire.back.next()).await {
        told.push(frame);
        if told.iter().any(|frame| frame.kind == kind::PING) {
            break;
        }
    }
    assert!(told.iter().all(|frame| frame.kind != kind::DATA), "{told:?}");

    // Resets are counted.
    let Wire { mut out, mut back } = Wire::greeted(&door).await;
    let block = block();
    let sending = async {
        for stream in (1..200_000_u32).step_by(2) {
            let chunk = repeated(&[Frame::headers(stream, block.clone()), Frame::reset(stream, code::CANCEL)], 1);
            if out.bytes(&chunk).await.is_err() {
                return;
            }
        }
        // What was taken must be dealt with.
        let _ = out.frame(&Frame::ping([9; 8])).await;
    };
    let answered = async {
        loop {
            match back.next().await {
                Ok(frame) if frame.kind == kind::GOAWAY => return Some(frame.number(4)),
                Ok(frame) if frame.kind == kind::PING => return None,
                Ok(_) => {}
                Err(_) => return Some(code::ENHANCE_YOUR_CALM),
            }
        }
    };
    let (goaway, ()) = within("the end of the resets", async { tokio::join!(answered, sending) }).await;
    assert!(goaway.is_none_or(|code| code == code::ENHANCE_YOUR_CALM), "{goaway:?}");

    let target = Target::echo();
    let connection = Connection::open(&door).await;
    let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
    tunnel.echo(b"after all that").await;
    has_metric(pair.server.health, CALLS, 1.0).await;
    drop((tunnel, connection));
    nothing_remains(&pair).await;
}
