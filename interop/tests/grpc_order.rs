//! What a Go client needs of the order and the size of packets: no empty DATA, none right behind DIAL_RSP (it may not
//! know the connection yet), and a small answer in one packet.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use konnectivity_interop::{
    ends::{LIMIT, Target, accept, address, listen, pattern, within, write_pattern},
    pair::{
        Options, Pair,
        grpc::{
            connection::{Connection, Habits},
            door::Door,
            no_dials_remain,
            state::Event,
            tunnel::{MAX_DATA, Tunnel},
        },
        until,
    },
};
use konnectivity_transport::packet::PacketType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

const BANNER: &[u8] = b"SSH-2.0-a target that speaks first\r\n";

/// How long a target's first bytes are kept back after the client has shown that it lives.
const SETTLING: Duration = Duration::from_millis(20);

/// Long enough for bytes to come that must not come.
const A_WHILE: Duration = Duration::from_millis(300);

async fn start(options: Options, habits: Habits) -> (Pair, Connection) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let connection = Connection::with(&Door::of(&pair), habits).await;
    (pair, connection)
}

fn rude() -> Habits {
    Habits { acks_pings: false, ..Habits::default() }
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard_after_the_ping_behind_dial_rsp() {
    let target = Target::banner(BANNER);
    for options in BOTH {
        let (_pair, connection) = start(options(), Habits::default()).await;
        for trial in 0..100 {
            let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
            assert_eq!(tunnel.read_exact(BANNER.len()).await, BANNER);
            let log = connection.log();
            let of = |kind| move |event: &Event| matches!(event, Event::Packet(id, Some(of), _) if *id == tunnel.rpc.id && *of == kind);
            let at = |is: &dyn Fn(&Event) -> bool, from: usize| {
                let place = log[from..].iter().position(|(_, event)| is(event));
                from + place.unwrap_or_else(|| panic!("trial {trial}: {:?}", &log[from..]))
            };
            let answered = at(&of(PacketType::DialRsp), 0);
            let asked = at(&|event| *event == Event::Ping, answered);
            let acked = at(&|event| *event == Event::PingAcked, asked);
            let came = at(&of(PacketType::Data), answered);
            assert!(came > acked, "trial {trial}: {:?}", &log[answered..]);
            let between = log[came].0 - log[acked].0;
            assert!(between >= SETTLING - Duration::from_millis(1), "trial {trial}: {between:?}");
            tunnel.rpc.cancel().await;
        }
    }
}

/// Many at once, on one connection: none is forgotten, and none comes too early.
#[tokio::test]
async fn a_thousand_targets_that_speak_first_are_all_heard() {
    const DIALS: usize = 50;
    let target = Target::banner(BANNER);
    let (pair, connection) = start(Options::unix(), Habits::default()).await;
    for _ in 0..20 {
        let mut tunnels = Vec::new();
        for _ in 0..DIALS {
            tunnels.push(Tunnel::dial(&connection, target.address).await.unwrap());
        }
        for tunnel in &mut tunnels {
            assert_eq!(tunnel.read_exact(BANNER.len()).await, BANNER);
            tunnel.rpc.cancel().await;
        }
        let log = connection.log();
        for tunnel in &tunnels {
            let position = |kind| {
                let is = |(_, event): &(Instant, Event)| matches!(event, Event::Packet(id, Some(of), _) if *id == tunnel.rpc.id && *of == kind);
                log.iter().position(is).unwrap()
            };
            let (answered, came) = (position(PacketType::DialRsp), position(PacketType::Data));
            let events: Vec<_> = log[answered..came].iter().map(|(_, event)| event).collect();
            let asked = events.iter().position(|event| **event == Event::Ping).expect("a PING behind DIAL_RSP");
            assert!(events[asked..].contains(&&Event::PingAcked), "{events:?}");
        }
    }
    no_dials_remain(&pair).await;
}

#[tokio::test]
async fn a_client_that_acknowledges_nothing_hears_nothing_until_it_does() {
    let target = Target::banner(BANNER);
    for options in BOTH {
        let (_pair, connection) = start(options(), rude()).await;
        let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
        connection.until("a PING", |state| state.log.iter().any(|(_, event)| *event == Event::Ping)).await;
        tunnel.rpc.is_silent(A_WHILE).await;
        let start = Instant::now();
        connection.acknowledge().await;
        assert_eq!(tunnel.read_exact(BANNER.len()).await, BANNER);
        assert!(start.elapsed() >= SETTLING - Duration::from_millis(1), "{:?}", start.elapsed());
        tunnel.echo(b"and from then on as usual").await;
    }
}

/// The acknowledgement of an older PING says nothing about a later DIAL_RSP.
#[tokio::test]
async fn each_answer_has_a_ping_of_its_own() {
    let target = Target::banner(BANNER);
    let (_pair, connection) = start(Options::unix(), rude()).await;
    let mut first = Tunnel::dial(&connection, target.address).await.unwrap();
    connection.until("a PING", |state| state.log.iter().any(|(_, event)| *event == Event::Ping)).await;
    let mut second = Tunnel::dial(&connection, target.address).await.unwrap();
    let pings = connection.pings();
    assert!(pings >= 1);
    connection.acknowledge_one().await;
    assert_eq!(first.read_exact(BANNER.len()).await, BANNER);
    second.rpc.is_silent(A_WHILE).await;
    until("a PING for the second", LIMIT, async || (connection.pings() > 0).then_some(())).await;
    connection.acknowledge().await;
    assert_eq!(second.read_exact(BANNER.len()).await, BANNER);
}

/// It has shown that it knows the connection. (Its PINGs stay without an answer, so nothing else can be the reason.)
#[tokio::test]
async fn a_client_that_speaks_first_waits_for_nothing() {
    let (echo, banner) = (Target::echo(), Target::banner(BANNER));
    for options in BOTH {
        let (_pair, connection) = start(options(), rude()).await;
        let mut fastest = Duration::MAX;
        for _ in 0..30 {
            let mut tunnel = Tunnel::dial(&connection, echo.address).await.unwrap();
            let start = Instant::now();
            tunnel.echo(b"hello").await;
            fastest = fastest.min(start.elapsed());
        }
        // The others may have been slowed down by the machine.
        assert!(fastest < SETTLING, "{fastest:?}");
        for _ in 0..10 {
            let mut tunnel = Tunnel::dial(&connection, banner.address).await.unwrap();
            tunnel.write(b"hello").await;
            assert_eq!(tunnel.read_exact(BANNER.len() + 5).await, [BANNER, b"hello"].concat());
        }
    }
}

/// What is kept back is not more than the others'.
#[tokio::test]
async fn a_target_that_speaks_much_first_loses_nothing() {
    const BYTES: usize = 1_000_000;
    let target = Target::new(|mut stream| async move {
        write_pattern(&mut stream, BYTES).await;
    });
    for options in BOTH {
        let (pair, connection) = start(options(), Habits::default()).await;
        for _ in 0..10 {
            let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
            let (bytes, why) = tunnel.rest().await;
            assert!(bytes == pattern(0, BYTES) && why.is_empty(), "{} bytes, {why:?}", bytes.len());
        }
        no_dials_remain(&pair).await;
    }
}

/// A target that ends at once has nothing to say, and what is said of it must not come too early either.
#[tokio::test]
async fn a_target_that_ends_at_once_is_closed_after_the_answer() {
    let target = Target::new(|_stream| async {});
    for options in BOTH {
        let (pair, connection) = start(options(), Habits::default()).await;
        for _ in 0..30 {
            match Tunnel::dial(&connection, target.address).await {
                Ok(mut tunnel) => {
                    let (bytes, _why) = tunnel.rest().await;
                    assert!(bytes.is_empty());
                }
                Err(error) => panic!("{error}"),
            }
        }
        no_dials_remain(&pair).await;
    }
}

/// A Go client reads one packet at a time, and one of the reference's tests counts on it.
#[tokio::test]
async fn a_small_answer_is_one_packet() {
    let target = Target::echo();
    for options in BOTH {
        let (_pair, connection) = start(options(), Habits::default()).await;
        let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
        for _ in 0..100 {
            tunnel.write(&[b'x'; 25]).await;
            assert_eq!(tunnel.read().await, [b'x'; 25]);
        }
        for bytes in [1, 4096, 8192] {
            let mut alone = 0;
            for _ in 0..20 {
                tunnel.write(&pattern(0, bytes)).await;
                let first = tunnel.read().await;
                alone += usize::from(first.len() == bytes);
                let rest = tunnel.read_exact(bytes - first.len()).await;
                assert!([first, rest].concat() == pattern(0, bytes));
            }
            // The kernel may cut it now and then.
            assert!(alone >= 10, "{alone} of 20 echoes of {bytes} bytes came in one packet");
        }
    }
}

/// No packet to the client is empty or longer than the limit, whatever the target does (each read checks that).
#[tokio::test]
async fn packets_to_the_client_have_a_size() {
    const BYTES: usize = 4_000_000;
    let target = Target::new(|mut stream| async move {
        write_pattern(&mut stream, BYTES).await;
    });
    for options in BOTH {
        let (_pair, connection) = start(options(), Habits { window: 1 << 20, ..Habits::default() }).await;
        let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
        let (bytes, why) = tunnel.rest().await;
        assert!(bytes == pattern(0, BYTES) && why.is_empty());
        let sizes: Vec<_> = connection
            .log()
            .into_iter()
            .filter_map(|(_, event)| match event {
                Event::Packet(_, Some(PacketType::Data), bytes) => Some(bytes),
                _ => None,
            })
            .collect();
        assert!(sizes.iter().all(|size| (1..=MAX_DATA).contains(size)));
        let mean = BYTES / sizes.len();
        println!("{} packets, {mean} bytes each", sizes.len());
        assert!(mean > 4096, "packets of {mean} bytes: the reference's have 4096");
    }
}

/// Empty DATA of a client is none of the target's business.
#[tokio::test]
async fn empty_data_from_the_client_changes_nothing() {
    let (_pair, connection) = start(Options::unix(), Habits::default()).await;
    let listener = listen(std::net::Ipv4Addr::LOCALHOST);
    let target = address(&listener);
    let (tunnel, mut target) = tokio::join!(Tunnel::dial(&connection, target), accept(&listener));
    let mut tunnel = tunnel.unwrap();
    for _ in 0..3 {
        tunnel.write(b"").await;
        tunnel.write(b"word").await;
        let mut word = [0; 4];
        within("the word", target.read_exact(&mut word)).await.unwrap();
        target.write_all(&word).await.unwrap();
        assert_eq!(tunnel.read_exact(4).await, b"word");
    }
    tunnel.rpc.is_silent(Duration::from_millis(50)).await;
}
