#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{future::poll_fn, net::Ipv4Addr, time::Duration};

use bytes::Buf;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::*;
use crate::{
    packet::{
        Payload,
        message::{Decoder, Event},
    },
    relay::{Outcome, Start},
};

const LIMIT: Duration = Duration::from_secs(20);
const BUFFER: usize = 256 * 1024;
const PAUSE: Duration = Duration::from_millis(50);

/// A server's and an agent's mux, joined as their owners would join them over gRPC.
struct Ends {
    server: Mux,
    agent: Mux,
    budget: Arc<MemoryBudget>,
    _loops: JoinSet<()>,
}

impl Ends {
    fn new() -> Self {
        Self::with(1 << 30, BUFFER)
    }

    fn with(budget: u64, dial_buffer: usize) -> Self {
        let budget = MemoryBudget::new(budget);
        let mux = |role| {
            let (slow_dial, close_pause) = (SlowDial::Close, PAUSE);
            Mux::new(MuxSettings { role, dial_buffer, slow_dial, close_pause }, budget.clone())
        };
        let (server, agent) = (mux(Role::Server), mux(Role::Agent));
        let mut loops = JoinSet::new();
        for (from, to) in [(&server, &agent), (&agent, &server)] {
            // A few packets are on the way.
            let (sender, receiver) = mpsc::channel(4);
            loops.spawn(write(from.clone(), sender));
            loops.spawn(read(to.clone(), receiver));
        }
        Self { server, agent, budget, _loops: loops }
    }

    /// A dial at both ends. Each gives a socket to speak to and the relay's task.
    fn dial(&self, connect_id: i64) -> (End, End) {
        let agent = End::new(self.agent.open(connect_id).unwrap());
        (End::new(self.server.open(connect_id).unwrap()), agent)
    }
}

struct End {
    socket: UnixStream,
    relay: JoinHandle<Outcome>,
}

impl End {
    fn new(dial: MuxDial) -> Self {
        let (near, socket) = UnixStream::pair().unwrap();
        Self::of(dial, near, socket, Start::default())
    }

    /// Its peer has an answer to read before anything else may come.
    fn answered(dial: MuxDial) -> Self {
        let (near, socket) = UnixStream::pair().unwrap();
        near.try_write(b"answer").unwrap();
        Self::of(dial, near, socket, Start { hold_until_read: true, ..Start::default() })
    }

    fn of(mut dial: MuxDial, near: UnixStream, socket: UnixStream, start: Start) -> Self {
        let relay = tokio::spawn(async move {
            let outcome = dial.relay(near, start).await;
            dial.delivered().await;
            outcome
        });
        Self { socket, relay }
    }

    async fn outcome(self) -> Outcome {
        timeout(LIMIT, self.relay).await.expect("the relay has not ended").unwrap()
    }

    async fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        timeout(LIMIT, self.socket.read_to_end(&mut bytes)).await.expect("no end came").map(|_| bytes)
    }

    async fn expect(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        timeout(LIMIT, self.socket.read_exact(&mut bytes)).await.expect("no bytes came").unwrap();
        assert_eq!(bytes, expected);
    }
}

async fn write(mux: Mux, to: mpsc::Sender<Bytes>) {
    while let Some((_, mut packet)) = poll_fn(|cx| mux.poll_send(cx, 1 << 20)).await {
        let length = packet.remaining();
        if to.send(packet.copy_to_bytes(length)).await.is_err() {
            break;
        }
    }
}

async fn read(mux: Mux, mut from: mpsc::Receiver<Bytes>) {
    let mut decoder = Decoder::default();
    while let Some(bytes) = from.recv().await {
        decoder.push(bytes);
        while let Some(event) = decoder.next().unwrap() {
            match event {
                Event::Data { connect_id, bytes, .. } => {
                    if mux.receive(connect_id, bytes).is_err() {
                        mux.send(Packet::close_request(connect_id));
                    }
                    mux.relief().await;
                }
                Event::Packet(packet) => match packet.payload {
                    Some(Payload::CloseRequest(close)) => drop(mux.close_received(close.connect_id, "")),
                    Some(Payload::CloseResponse(close)) => drop(mux.close_received(close.connect_id, &close.error)),
                    other => panic!("{other:?}"),
                },
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn a_client_that_sends_and_leaves_reaches_the_target_whole() {
    let ends = Ends::new();
    for (connect_id, length) in [(1, 1), (2, 100), (3, 100_000), (4, 3_000_000)] {
        let (mut client, mut target) = ends.dial(connect_id);
        let bytes = pattern(length);
        let (sent, expected) = (bytes.clone(), bytes);
        let send = async move {
            client.socket.write_all(&sent).await.unwrap();
            let End { socket, relay } = client;
            drop(socket);
            timeout(LIMIT, relay).await.unwrap().unwrap()
        };
        let (outcome, received) = tokio::join!(send, target.read_to_end());
        assert!(received.unwrap() == expected, "{length} bytes");
        assert_eq!(outcome, Outcome::Finished);
        drop(target.socket);
        assert_eq!(timeout(LIMIT, target.relay).await.unwrap().unwrap(), Outcome::Finished);
    }
    assert_eq!((ends.server.open_dials(), ends.agent.open_dials()), (0, 0));
}

#[tokio::test]
async fn a_target_that_sends_and_leaves_reaches_the_client_whole() {
    let ends = Ends::new();
    let (mut client, mut target) = ends.dial(1);
    let bytes = pattern(3_000_000);
    let sent = bytes.clone();
    let send = async {
        target.socket.write_all(&sent).await.unwrap();
        target.socket.shutdown().await.unwrap();
    };
    let ((), received) = tokio::join!(send, client.read_to_end());
    assert!(received.unwrap() == bytes);
    assert_eq!(client.outcome().await, Outcome::Finished);
}

#[tokio::test]
async fn a_client_that_ends_its_half_still_gets_the_answer() {
    let ends = Ends::new();
    let (mut client, mut target) = ends.dial(1);
    client.socket.write_all(b"question").await.unwrap();
    client.socket.shutdown().await.unwrap();
    target.expect(b"question").await;
    target.socket.write_all(b"answer").await.unwrap();
    client.expect(b"answer").await;
    // Nothing follows: the target learns of the end, late.
    assert_eq!(target.read_to_end().await.unwrap(), b"");
    assert_eq!(client.outcome().await, Outcome::Finished);
}

#[tokio::test]
async fn bytes_on_the_way_to_a_target_that_has_ended_its_half_are_written() {
    let ends = Ends::new();
    let (mut client, mut target) = ends.dial(1);
    // More than the target's socket takes: some of it waits at the agent when the target says its last word.
    let bytes = pattern(BUFFER);
    client.socket.write_all(&bytes).await.unwrap();
    until(|| ends.agent.held_bytes() > 0).await;
    target.socket.shutdown().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    let received = target.read_to_end().await.unwrap();
    assert!(bytes.starts_with(&received) && !received.is_empty());
    assert_eq!(ends.agent.held_bytes(), 0);
}

#[tokio::test]
async fn a_target_that_is_reset_is_no_clean_end() {
    let ends = Ends::new();
    let client = End::new(ends.server.open(1).unwrap());
    ends.agent.open(1).unwrap().close("connection reset");
    assert_eq!(client.outcome().await, Outcome::PeerClosed("connection reset".into()));
}

/// Its bytes are stuck because the peer reads nothing.
#[tokio::test]
async fn a_client_that_is_reset_while_its_dial_is_blocked_is_seen() {
    let mux = Mux::new(settings(Role::Server), MemoryBudget::new(1 << 20));
    let mut dial = mux.open(1).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (client, socket) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut client, socket) = (client.unwrap(), socket.unwrap().0);
    let relay = tokio::spawn(async move { dial.relay(socket, Start::default()).await });
    client.write_all(&vec![0; 4 * outbox::DIAL_BYTES]).await.unwrap();
    until(|| mux.lock().dials[&1].up.is_some()).await;
    client.set_zero_linger().unwrap();
    drop(client);
    let outcome = timeout(LIMIT, relay).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::SocketFailed(_)), "{outcome:?}");
}

/// The stream goes on while one dial takes nothing, slower once its buffer is full, and stops when memory is at its
/// bound.
#[tokio::test]
async fn a_dial_that_takes_nothing_does_not_stop_the_others() {
    let ends = Ends::new();
    let (stalled, source) = ends.dial(1);
    let (mut client, mut target) = ends.dial(2);
    let flood = flood(source);
    until(|| ends.server.held_bytes() > BUFFER).await;
    for _ in 0..50 {
        client.socket.write_all(b"ping").await.unwrap();
        target.expect(b"ping").await;
        target.socket.write_all(b"pong").await.unwrap();
        client.expect(b"pong").await;
    }
    let held = ends.server.held_bytes();
    assert!(held < 4 * BUFFER + 64 * 1024, "{held} bytes are held");
    // Whoever takes nothing for ten seconds then is ended.
    assert_eq!(stalled.outcome().await, Outcome::Stalled);
    assert_eq!(ends.budget.used(), 0);
    flood.abort();
}

/// The answer is all that such a client was given, and nothing else may be sent to it.
#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_ended() {
    let ends = Ends::new();
    let client = End::answered(ends.server.open(1).unwrap());
    let flood = flood(End::new(ends.agent.open(1).unwrap()));
    assert_eq!(client.outcome().await, Outcome::Stalled);
    assert_eq!(ends.budget.used(), 0);
    flood.abort();
}

/// Whoever takes a little now and then stops the stream as well as one that takes nothing.
#[tokio::test]
async fn a_client_that_takes_next_to_nothing_is_ended() {
    // Its socket has room for more every eight seconds.
    let ends = Ends::with(1 << 30, 16 * BUFFER);
    let (End { mut socket, relay }, target) = ends.dial(1);
    let flood = flood(target);
    let trickle = tokio::spawn(async move {
        let mut bytes = [0; 2048];
        while socket.read(&mut bytes).await.is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(timeout(LIMIT, relay).await.expect("it goes on").unwrap(), Outcome::Stalled);
    flood.abort();
    trickle.abort();
}

/// One that takes more than that goes on, however slow it is.
#[tokio::test]
async fn a_client_that_is_slow_is_served() {
    let ends = Ends::new();
    let (End { mut socket, relay }, target) = ends.dial(1);
    let flood = flood(target);
    let mut bytes = vec![0; 16 * 1024];
    let end = Instant::now() + STALL_LIMIT + Duration::from_secs(3);
    while Instant::now() < end {
        socket.read_exact(&mut bytes).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!relay.is_finished());
    flood.abort();
}

/// Nobody else is left to end it.
#[tokio::test]
async fn a_target_that_takes_nothing_does_not_outlive_its_client_for_ever() {
    let ends = Ends::new();
    let (End { mut socket, relay: _ }, target) = ends.dial(1);
    // More than its socket takes, and less than what slows the stream.
    socket.write_all(&pattern(BUFFER * 3 / 2)).await.unwrap();
    until(|| ends.agent.held_bytes() > 0).await;
    drop(socket);
    assert_eq!(target.outcome().await, Outcome::Stalled);
}

/// Sends for ever.
fn flood(mut from: End) -> JoinHandle<()> {
    tokio::spawn(async move {
        let bytes = pattern(64 * 1024);
        while from.socket.write_all(&bytes).await.is_ok() {}
    })
}

#[tokio::test]
async fn what_waits_is_paid_for_and_given_back() {
    let ends = Ends::with(64 * 1024, BUFFER);
    let (mut client, mut target) = ends.dial(1);
    let bytes = pattern(2_000_000);
    let sent = bytes.clone();
    let flood = tokio::spawn(async move {
        target.socket.write_all(&sent).await.unwrap();
        target.socket.shutdown().await.unwrap();
        target
    });
    until(|| ends.budget.used() > 0).await;
    // One packet beyond the budget may have come before it was seen to be spent.
    assert!(ends.server.held_bytes() <= 64 * 1024 + outbox::DATA_BYTES);
    assert!(client.read_to_end().await.unwrap() == bytes);
    drop(flood.await.unwrap());
    assert_eq!(client.outcome().await, Outcome::Finished);
    assert_eq!(ends.budget.used(), 0);
}

#[tokio::test]
async fn a_spent_budget_ends_the_stalled_dial_though_nothing_more_is_read() {
    // No dial gets near its own bounds: the budget alone has stopped the stream, before any dial was stalled for long.
    let ends = Ends::with(256 * 1024, 1 << 30);
    let (stalled, mut flooding) = ends.dial(1);
    let (mut reading, mut echoing) = ends.dial(2);
    let flood = tokio::spawn(async move { flooding.socket.write_all(&pattern(4_000_000)).await });
    until(|| ends.budget.used() > 0).await;
    assert_eq!(stalled.outcome().await, Outcome::OverBudget);
    drop(flood.await.unwrap());
    echoing.socket.write_all(b"after it").await.unwrap();
    let mut answer = [0; 8];
    reading.socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"after it");
}

#[tokio::test]
async fn a_lost_stream_ends_its_dials_behind_what_had_come() {
    let ends = Ends::new();
    let (mut client, mut target) = ends.dial(1);
    target.socket.write_all(b"last words").await.unwrap();
    client.expect(b"last words").await;
    ends.server.lose("the agent is gone");
    ends.server.lose("another reason");
    assert_eq!(&*ends.server.lost().await, "the agent is gone");
    let outcome = client.outcome().await;
    assert!(matches!(&outcome, Outcome::ConnectionLost(_)), "{outcome:?}");
    assert_eq!(outcome.error().unwrap(), "the agent is gone");
}

#[test]
fn a_conn_id_is_one_dial() {
    let ends = Mux::new(settings(Role::Server), MemoryBudget::new(1 << 20));
    assert_eq!(ends.open(0).unwrap_err(), Taken);
    let dial = ends.open(5).unwrap();
    assert_eq!(ends.open(5).unwrap_err(), Taken);
    assert_eq!(ends.receive(6, Bytes::from_static(b"a")), Err(Unknown));
    assert_eq!(ends.close_received(6, ""), Err(Unknown));
    // Closed here: what still comes is nobody's, until the agent says that it knows.
    drop(dial);
    assert_eq!(next(&ends), Some((PacketType::CloseReq, 0)));
    assert_eq!(ends.receive(5, Bytes::from_static(b"late")), Ok(()));
    assert_eq!(ends.held_bytes(), 0);
    assert_eq!(ends.open(5).unwrap_err(), Taken, "the agent may still send for the dial that was");
    assert_eq!(ends.close_received(5, ""), Ok(()));
    assert_eq!(ends.receive(5, Bytes::from_static(b"later")), Err(Unknown));
}

#[test]
fn an_agent_that_never_acknowledges_a_close_costs_no_memory_without_bound() {
    let mux = Mux::new(settings(Role::Server), MemoryBudget::new(1 << 20));
    for connect_id in 1..=3 * MAX_CLOSING as i64 {
        drop(mux.open(connect_id).unwrap());
        assert_eq!(next(&mux), Some((PacketType::CloseReq, 0)));
    }
    assert!(mux.lock().dials.len() <= MAX_CLOSING + 1);
    assert_eq!(mux.receive(1, Bytes::from_static(b"late")), Err(Unknown));
}

#[test]
fn dials_take_turns_and_those_that_send_little_go_first() {
    let mux = Mux::new(settings(Role::Server), MemoryBudget::new(1 << 20));
    let dials: Vec<_> = (1..=3).map(|connect_id| mux.open(connect_id).unwrap()).collect();
    let large = Bytes::from(vec![0; outbox::DIAL_BYTES]);
    for _ in 0..2 {
        dials[0].push(large.clone());
        dials[1].push(large.clone());
    }
    mux.send(Packet::close_dial(9));
    dials[2].push(Bytes::from_static(b"key"));
    dials[2].close("");
    let mut order = Vec::new();
    while let Some((kind, length)) = next(&mux) {
        order.push((kind, length));
    }
    let full = outbox::DATA_BYTES;
    assert_eq!(order[0], (PacketType::DialCls, 0));
    let at = |wanted| order.iter().position(|packet| *packet == wanted).unwrap();
    let (key, close) = (at((PacketType::Data, 3)), at((PacketType::CloseReq, 0)));
    // The first bytes of each dial count as little.
    assert!(key <= 4 && close > key && close <= 8, "{order:?}");
    assert_eq!(order.iter().filter(|packet| **packet == (PacketType::Data, full)).count(), 8);
}

/// It was new once, and has never been without something to send since.
#[test]
fn a_dial_that_always_has_more_gets_no_more_than_its_turn() {
    let mux = Mux::new(settings(Role::Server), MemoryBudget::new(1 << 20));
    let (old, new) = (mux.open(1).unwrap(), mux.open(2).unwrap());
    let full = Bytes::from(vec![0; outbox::DATA_BYTES]);
    for _ in 0..4 {
        old.push(full.clone());
    }
    while next(&mux).is_some() {}
    new.push(full.clone());
    new.push(full.clone());
    old.push(full.clone());
    old.push(full.slice(1..));
    let mut of_old = 0;
    for _ in 0..10 {
        let (_, bytes) = next(&mux).unwrap();
        if bytes == outbox::DATA_BYTES - 1 {
            of_old += 1;
        }
        new.push(full.clone());
    }
    assert_eq!(of_old, 1);
}

#[test]
fn an_idle_dial_holds_no_buffers() {
    let mux = Mux::new(settings(Role::Agent), MemoryBudget::new(1 << 20));
    let dial = mux.open(1).unwrap();
    dial.push(Bytes::from(vec![0; 100_000]));
    while next(&mux).is_some() {}
    mux.receive(1, Bytes::from_static(b"abc")).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(dial.poll_batch(&mut cx), Poll::Ready(Ok(_))));
    assert!(dial.poll_batch(&mut cx).is_pending());
    let size = size_of::<(i64, Entry)>() + size_of::<DialFlow>();
    assert!(size <= 512, "{size} bytes");
}

fn settings(role: Role) -> MuxSettings {
    MuxSettings { role, dial_buffer: BUFFER, slow_dial: SlowDial::Close, close_pause: PAUSE }
}

/// The next packet's type, and how many bytes of a dial it has.
fn next(mux: &Mux) -> Option<(PacketType, usize)> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some((kind, mut packet))) = mux.poll_send(&mut cx, 1 << 20) else { return None };
    let mut decoder = Decoder::default();
    let length = packet.remaining();
    decoder.push(packet.copy_to_bytes(length));
    let mut bytes = 0;
    while let Some(event) = decoder.next().unwrap() {
        if let Event::Data { bytes: part, .. } = event {
            bytes += part.len();
        }
    }
    Some((kind, bytes))
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("it has not come about");
}
