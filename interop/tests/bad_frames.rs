//! QUIC peers with a valid certificate that send frames no QUIC library would: what breaks QUIC's rules ends their own
//! connection with QUIC's code, in the log with the name of the peer, and what is only much of it makes progress. Neither
//! program panics or takes memory without bound, and everybody else is served meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::ends::resident;
use konnectivity_interop::pair::bare::frame::{ack, crypto, new_connection_id, numbers, path_challenge, stream};
use konnectivity_interop::pair::bare::packet::MAX_FRAMES;
use konnectivity_interop::pair::bare::{Bare, CONTROL, Heard, MANY};
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::program::Program;
use konnectivity_interop::pair::{Agent, Options, Pair, http, raw};
use konnectivity_interop::peer::process::cpu_of;
use konnectivity_transport::wire::code::ConnectionCode;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(20);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Packets of a flood, and how many may be ahead of their acknowledgements.
const PACKETS: u64 = 10_000;
const WINDOW: u64 = 200;

/// The longest that an echo of somebody else may take beside a flood, on a machine that has other things to do.
const MAX_ECHO: Duration = Duration::from_secs(8);
/// By how much a program may grow.
const MAX_GROWTH: usize = 32 * 1024 * 1024;
/// How long a program is watched with nothing to do, and how much CPU time it may take meanwhile.
const WATCHED: Duration = Duration::from_secs(2);
const MAX_CPU: Duration = Duration::from_millis(200);

/// Beyond all that is there.
const FAR: u64 = 1 << 40;
/// Frames of one kind in a packet.
const FRAMES: u64 = 100;

// QUIC's codes (RFC 9000, section 20.1).
const INTERNAL: u64 = 0x01;
const FLOW_CONTROL: u64 = 0x03;
const STREAM_LIMIT: u64 = 0x04;
const STREAM_STATE: u64 = 0x05;
const FRAME_ENCODING: u64 = 0x07;
const CONNECTION_ID_LIMIT: u64 = 0x09;
const PROTOCOL_VIOLATION: u64 = 0x0a;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0x0d;

/// Frames, the code with which they end the connection, and what is said about it.
type Broken = (Vec<u8>, u64, &'static str);

/// What neither a server nor an agent may send.
fn broken_by_both() -> Vec<Broken> {
    vec![
        (ack(FAR, 0, 0, &[]), PROTOCOL_VIOLATION, "unsent packet acked"),
        (ack(0, 0, 5, &[]), FRAME_ENCODING, "malformed"),
        (numbers(&[0x02, FAR, 0, 1 << 30, 0]), FRAME_ENCODING, "unexpected end"),
        (crypto(FAR, b"x"), CRYPTO_BUFFER_EXCEEDED, ""),
        (numbers(&[0x3f]), FRAME_ENCODING, "invalid frame ID"),
        (numbers(&[0x12, (1 << 60) + 1]), FRAME_ENCODING, "unrepresentable stream limit"),
        (new_connection_id(1000, 0), CONNECTION_ID_LIMIT, ""),
        (new_connection_id(1, 2), FRAME_ENCODING, "malformed"),
        (numbers(&[0x19, FAR]), PROTOCOL_VIOLATION, "RETIRE_CONNECTION_ID for unissued sequence number"),
        (stream(CONTROL, FAR, b"x"), FLOW_CONTROL, ""),
    ]
}

fn broken_by_agents() -> Vec<Broken> {
    vec![
        (numbers(&[0x1e]), PROTOCOL_VIOLATION, "client sent HANDSHAKE_DONE"),
        (numbers(&[0x07, 1, 1]), PROTOCOL_VIOLATION, "client sent NEW_TOKEN"),
        (stream(4 * 1000, 0, b"x"), STREAM_LIMIT, ""),
        (stream(1, 0, b"x"), STREAM_STATE, ""),
    ]
}

fn broken_by_servers() -> Vec<Broken> {
    vec![(stream(4 * 100_000 + 1, 0, b"x"), STREAM_LIMIT, ""), (stream(4, 0, b"x"), STREAM_STATE, "")]
}

/// A kind of flood: its name, and the frames of a packet from its place and from what was heard.
type Flood = (&'static str, fn(u64, &Heard) -> Vec<u8>);

/// The end of what was said on the control stream, and then a gap.
const BEYOND: u64 = 10_000;

const FLOODS: [Flood; 11] = [
    ("nothing", |_, _| Vec::new()),
    ("ACK of every second packet", |_, heard| {
        let (first, last) = heard.came;
        let one = ack(last, 0, 0, &vec![(0, 0); ((last - first) / 2).min(500) as usize]);
        one.repeat(MAX_FRAMES / (one.len() + 1))
    }),
    ("ACK with a long delay", |_, heard| ack(heard.came.1, (1 << 62) - 1, 0, &[])),
    ("MAX_DATA", |place, _| each(|one| numbers(&[0x10, FAR + place * FRAMES + one]))),
    ("MAX_STREAM_DATA", |place, _| each(|one| numbers(&[0x11, CONTROL, FAR + place * FRAMES + one]))),
    ("DATA_BLOCKED", |place, _| each(|one| numbers(&[0x14, place * FRAMES + one]))),
    ("PATH_CHALLENGE", |place, _| each(|one| path_challenge(place * FRAMES + one))),
    ("NEW_CONNECTION_ID", |place, _| new_connection_id(place + 1, place + 1)),
    (
        "RETIRE_CONNECTION_ID",
        |place, heard| {
            if place < heard.issued { numbers(&[0x19, place + 1]) } else { Vec::new() }
        },
    ),
    ("STREAM with gaps", |_, _| each(|one| stream(CONTROL, BEYOND + 2 * one, b"x"))),
    ("CRYPTO with gaps", |_, _| each(|one| crypto(1 + 2 * one, b"x"))),
];

fn each(frame: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    (0..FRAMES).flat_map(frame).collect()
}

/// A good pair with an open dial.
struct Good {
    pair: Pair,
    listener: TcpListener,
    open: Open,
}

impl Good {
    async fn new() -> Self {
        // The bad one gets no dials, and is served by the same thread.
        let options = Options::unix().server(["--proxy-strategies=destHost", "--worker-threads=1"]);
        let options = options.agent(["--agent-identifiers=ipv4=127.0.0.1"]);
        let pair = Pair::start(options).await.unwrap();
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let open = Open::dial(&pair.client().unwrap(), &listener).await.unwrap();
        Self { pair, listener, open }
    }

    /// Another agent.
    async fn bad(&self) -> Bare {
        let mut bad = Bare::agent(self.pair.server.agents, &self.pair.certificates).await.unwrap();
        bad.say(raw::hello("bad", "host=nobody")).await.unwrap();
        bad.is_spoken_to().await.unwrap();
        bad
    }

    /// The open dial goes on, and new ones work.
    async fn serves(&mut self) {
        self.open.exchange().await.unwrap();
        Open::dial(&self.pair.client().unwrap(), &self.listener).await.unwrap().exchange().await.unwrap();
    }
}

/// Echoes for ever, and notes the longest.
async fn echoes(open: &mut Open, longest: &mut Duration) {
    loop {
        let begun = Instant::now();
        open.exchange().await.unwrap();
        *longest = (*longest).max(begun.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_agent_that_breaks_quic_is_closed_and_named() {
    let mut good = Good::new().await;
    for (frames, code, words) in broken_by_both().into_iter().chain(broken_by_agents()) {
        let mut bad = good.bad().await;
        bad.send(&frames).await.unwrap();
        let close = bad.closed().await.unwrap();
        println!("{close:?}");
        assert!(!close.application && close.code == code && close.reason.contains(words), "{words}: {close:?}");
        let log = &good.pair.server.program;
        let named = ["agent disconnected", "agent_id=bad", "remote_addr=127.0.0.1:", "closed by this end with ", words];
        log.logged(&named, LIMIT).await.unwrap();
    }
    good.serves().await;
}

#[tokio::test]
async fn a_stream_with_too_many_gaps_ends_its_connection() {
    let mut good = Good::new().await;
    let mut bad = good.bad().await;
    let sent =
        bad.flood(PACKETS, WINDOW, |place, _| each(|one| stream(CONTROL, BEYOND + 2 * (place * FRAMES + one), b"x")));
    println!("closed after {} packets", sent.await.unwrap());
    let close = bad.closed().await.unwrap();
    assert_eq!((close.code, close.reason.as_str()), (INTERNAL, "too many gaps in stream buffer"));
    good.serves().await;
}

/// Of so many packets of a stream, each part may be lost before what is behind has come, and the gaps are not too many. The
/// transport keeps to that (`PACKETS_WITH_FEW_GAPS`), as the whole of a window can be more where packets are short.
#[tokio::test]
async fn half_of_so_many_packets_may_be_lost() {
    const FEW: u64 = 3_800;
    const PAYLOAD: u64 = 1_160;
    let good = Good::new().await;
    let bytes = [7; PAYLOAD as usize];
    for (lost, packets) in [(40, FEW), (45, FEW), (50, FEW), (50, FEW), (55, FEW), (50, 5 * 1024 * 1024 / PAYLOAD - 10)]
    {
        let mut bad = good.bad().await;
        let mut dice = Dice::new(bad.heard.came.1 + lost);
        let packet = |place, _: &Heard| match dice.chance(lost) {
            true => Vec::new(),
            false => stream(CONTROL, BEYOND + place * PAYLOAD, &bytes),
        };
        bad.flood(packets, WINDOW, packet).await.unwrap();
        println!("{lost} % of {packets} packets: {:?}", bad.heard.close);
        assert_eq!(bad.heard.close.is_some(), packets > FEW, "{lost} % of {packets} packets");
    }
}

/// Chances that are the same each time.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn chance(&mut self, percent: u64) -> bool {
        u64::from(self.0.next_u32()) * 100 < percent << 32
    }
}

#[tokio::test]
async fn a_handshake_that_is_left_is_told() {
    let good = Good::new().await;
    let bad = Bare::knock(good.pair.server.agents, &good.pair.certificates, MANY).await.unwrap();
    let words =
        ["an agent could not connect", "has not ended within 20 s after its first packet", "remote_addr=127.0.0.1:"];
    println!("{}", good.pair.server.program.logged(&words, 2 * LIMIT).await.unwrap());
    drop(bad);
}

/// A server that waited for it would see neither the end of its token nor a drain.
#[tokio::test]
async fn an_agent_that_takes_no_control_message_is_given_up() {
    let mut good = Good::new().await;
    let room = 1;
    let mut bad = Bare::agent_with_room(good.pair.server.agents, &good.pair.certificates, room).await.unwrap();
    bad.say(raw::hello("bad", "host=nobody")).await.unwrap();
    let close = bad.closed().await.unwrap();
    let reason = "control stream: the peer takes no control message for 10 s";
    assert_eq!((close.code, close.reason.as_str()), (u32::from(ConnectionCode::Protocol).into(), reason));
    let words = ["an agent was not accepted", reason, "remote_addr=127.0.0.1:"];
    good.pair.server.program.logged(&words, LIMIT).await.unwrap();
    good.serves().await;
}

#[tokio::test]
async fn control_messages_without_end_leave_the_others_alone() {
    /// A stream has room for so many of these packets, with 900 bytes each.
    const ROOM: u64 = 5_000;
    /// What was taken in is looked at for some time yet.
    const AFTER: Duration = Duration::from_secs(3);
    // A Nudge, and a Drain without a reason.
    for (name, message) in [("nudges", &[0][..]), ("drains", &[2, 0x1a, 0])] {
        let mut good = Good::new().await;
        let mut bad = good.bad().await;
        let messages = message.repeat(900 / message.len());
        let begin = bad.said;
        let mut longest = Duration::ZERO;
        let meter = Meter::start(&good.pair.server.program);
        let length = messages.len() as u64;
        let flood = bad.flood(ROOM, ROOM, |place, _| stream(CONTROL, begin + place * length, &messages));
        tokio::select! {
            sent = flood => sent.unwrap(),
            () = echoes(&mut good.open, &mut longest) => panic!("it echoes for ever"),
        };
        // It echoes for ever.
        let _ = timeout(AFTER, echoes(&mut good.open, &mut longest)).await;
        meter.has_not_grown(name);
        println!("{name}: longest echo beside them {longest:?}");
        assert!(bad.heard.close.is_none() && longest < MAX_ECHO, "{name}: {longest:?}, {:?}", bad.heard.close);
        assert!(good.pair.server.program.log().matches("agent drains").count() <= 1);
        good.serves().await;
    }
}

#[tokio::test]
async fn floods_of_an_agent_leave_the_others_alone() {
    for (name, frames) in FLOODS {
        let mut good = Good::new().await;
        let mut bad = good.bad().await;
        let mut longest = Duration::ZERO;
        let meter = Meter::start(&good.pair.server.program);
        let sent = tokio::select! {
            sent = bad.flood(PACKETS, WINDOW, frames) => sent.unwrap(),
            () = echoes(&mut good.open, &mut longest) => panic!("it echoes for ever"),
        };
        println!("{name}: {sent} packets, longest echo beside them {longest:?}, answers {:?}", bad.heard.frames);
        meter.has_not_grown(name);
        assert!(longest < MAX_ECHO, "{name}: {longest:?}");
        match &bad.heard.close {
            None => bad.is_alive().await.unwrap(),
            close => println!("{name}: {close:?}"),
        }
        rests(&good.pair.server.program, name).await;
        good.serves().await;
    }
}

/// A real agent, and a place for its server.
struct Alone {
    certificates: Folder,
    server: SocketAddr,
    socket: Option<UdpSocket>,
    agent: Agent,
    _folder: TempDir,
}

impl Alone {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
        let server = socket.local_addr().unwrap();
        let quick = ["--sync-interval=100ms", "--sync-interval-cap=200ms"].map(str::to_owned);
        let agent = Agent::start(&certificates, server, HERE, &quick).await.unwrap();
        Self { certificates, server, socket: Some(socket), agent, _folder: folder }
    }

    /// The agent's server, which has welcomed it.
    async fn server(&mut self) -> Bare {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => UdpSocket::bind(self.server).await.unwrap(),
        };
        let mut server = Bare::server(socket, &self.certificates).await.unwrap();
        server.is_spoken_to().await.unwrap();
        server.say(raw::welcome("server-1")).await.unwrap();
        server.is_alive().await.unwrap();
        self.agent.ready().await.unwrap();
        server
    }
}

#[tokio::test]
async fn a_server_that_breaks_quic_is_closed_and_named() {
    let mut alone = Alone::new().await;
    for (frames, code, words) in broken_by_both().into_iter().chain(broken_by_servers()) {
        let mut bad = alone.server().await;
        bad.send(&frames).await.unwrap();
        let close = bad.closed().await.unwrap();
        println!("{close:?}");
        assert!(!close.application && close.code == code && close.reason.contains(words), "{words}: {close:?}");
        let server = format!("remote_addr={}", alone.server);
        alone.agent.program.logged(&["disconnected", "server_id=server-1", &server, words], LIMIT).await.unwrap();
    }
    alone.server().await;
}

#[tokio::test]
async fn floods_of_a_server_leave_its_agent_sound() {
    for (name, frames) in FLOODS {
        let mut alone = Alone::new().await;
        let mut bad = alone.server().await;
        let mut longest = Duration::ZERO;
        let meter = Meter::start(&alone.agent.program);
        let sent = tokio::select! {
            sent = bad.flood(PACKETS, WINDOW, frames) => sent.unwrap(),
            () = asks(alone.agent.health, &mut longest) => panic!("it asks for ever"),
        };
        println!("{name}: {sent} packets, longest answer beside them {longest:?}, answers {:?}", bad.heard.frames);
        meter.has_not_grown(name);
        assert!(longest < MAX_ECHO, "{name}: {longest:?}");
        match &bad.heard.close {
            None => bad.is_alive().await.unwrap(),
            close => println!("{name}: {close:?}"),
        }
        // CONNECTION_CLOSE of an application, with code and reason of none.
        bad.send(&numbers(&[0x1d, 0, 0])).await.unwrap();
        drop(bad);
        alone.server().await.is_alive().await.unwrap();
        rests(&alone.agent.program, name).await;
    }
}

/// Asks a health port for ever, and notes the longest answer.
async fn asks(health: SocketAddr, longest: &mut Duration) {
    loop {
        let begun = Instant::now();
        http::get(health, "/healthz").await.unwrap();
        *longest = (*longest).max(begun.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
}

/// A program before something happens to it.
struct Meter<'a> {
    program: &'a Program,
    began: Instant,
    resident: usize,
    cpu: Duration,
}

impl<'a> Meter<'a> {
    fn start(program: &'a Program) -> Self {
        let cpu = cpu_of(program.id()).unwrap();
        Self { program, began: Instant::now(), resident: resident(program), cpu }
    }

    fn has_not_grown(&self, name: &str) {
        let (resident, cpu) = (resident(self.program), cpu_of(self.program.id()).unwrap() - self.cpu);
        let kib = resident / 1024;
        println!(
            "{name}: {} holds {kib} KiB, and took {cpu:?} of CPU in {:?}",
            self.program.name(),
            self.began.elapsed()
        );
        assert!(resident < self.resident + MAX_GROWTH, "{name}: {} grew to {kib} KiB", self.program.name());
    }
}

async fn rests(program: &Program, name: &str) {
    let before = cpu_of(program.id()).unwrap();
    sleep(WATCHED).await;
    let took = cpu_of(program.id()).unwrap() - before;
    assert!(took < MAX_CPU, "{name}: {} took {took:?} of CPU with nothing to do", program.name());
}
