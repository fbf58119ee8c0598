//! The reference's table of failures of its gRPC frontend (what is answered, what becomes of the stream, what is
//! counted), row by row, with a real server and a real agent.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use konnectivity_interop::{
    ends::{Full, LIMIT, Target, accept, address, has_metric, listen, read_rest, within},
    pair::{
        Options, Pair,
        grpc::{
            connection::Connection,
            door::Door,
            failures,
            frame::code::NO_ERROR,
            framed, no_dials_remain, nothing_remains,
            rpc::Rpc,
            tunnel::{Tunnel, answer, ask, closed, dial},
        },
        until,
    },
};
use konnectivity_transport::packet::{Packet, PacketType};
use nix::sys::signal::Signal;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// Long enough for an answer to come, where none must come.
const A_WHILE: Duration = Duration::from_millis(200);

async fn start(options: Options) -> (Pair, Connection) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let connection = Connection::open(&Door::of(&pair)).await;
    (pair, connection)
}

/// No dial ends by itself while a test waits for something.
fn patient(options: Options) -> Options {
    options.server(["--backend-dial-timeout=5m"]).agent(["--dial-timeout=5m"])
}

/// A target that nobody listens on.
fn refusing() -> String {
    address(&listen(Ipv4Addr::LOCALHOST)).to_string()
}

/// A dial to a target that the test plays itself.
async fn join(connection: &Connection) -> (Tunnel, TcpStream) {
    let listener = listen(Ipv4Addr::LOCALHOST);
    let target = address(&listener);
    let (tunnel, target) = tokio::join!(Tunnel::dial(connection, target), accept(&listener));
    (tunnel.unwrap(), target)
}

async fn counts(pair: &Pair, reason: &str, count: f64) {
    has_metric(pair.server.health, &failures(reason), count).await;
}

/// Another dial on the same stream is served.
async fn serves_another(rpc: &Rpc) {
    let target = Target::echo();
    let id = dial(rpc, target.address).await.unwrap();
    let mut tunnel = Tunnel::over(rpc.clone(), id);
    tunnel.echo(b"the next dial of the stream").await;
    assert_eq!(tunnel.close().await, (Vec::new(), String::new()));
}

/// The client ends its half, and the call ends well. (A server that has ended its half first may reset the stream without
/// an error, RFC 9113, section 8.1.)
async fn ends_well(rpc: &Rpc) {
    rpc.end().await;
    let status = rpc.status().await;
    assert_eq!((status.http.as_deref(), status.code), (Some("200"), Some(0)), "{status:?}");
    assert!(matches!(status.reset, None | Some(NO_ERROR)), "{status:?}");
}

#[tokio::test]
async fn no_backend_for_the_address() {
    for options in BOTH {
        let (pair, connection) = start(options().agents([])).await;
        let rpc = connection.call().await;
        for _ in 0..2 {
            assert_eq!(dial(&rpc, "127.0.0.1:80").await.unwrap_err(), "No agent available");
        }
        counts(&pair, "no_agent", 2.0).await;
        ends_well(&rpc).await;
        drop((rpc, connection));
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn no_backend_for_this_address() {
    let options = Options::unix().server(["--proxy-strategies=destHost"]);
    let (pair, connection) = start(options.agent(["--agent-identifiers=ipv4=127.0.0.1"])).await;
    let rpc = connection.call().await;
    assert_eq!(dial(&rpc, "unknown.example:80").await.unwrap_err(), "No agent available");
    serves_another(&rpc).await;
    counts(&pair, "no_agent", 1.0).await;
    no_dials_remain(&pair).await;
}

#[tokio::test]
async fn the_agent_answers_with_an_error() {
    for options in BOTH {
        let (pair, connection) = start(options().agent(["--dial-timeout=1s"])).await;
        let rpc = connection.call().await;

        let target = refusing();
        let refused = format!("dial tcp {target}: connect: connection refused");
        assert_eq!(dial(&rpc, target).await.unwrap_err(), refused);

        // Which server was asked depends on the machine, and whether there is one at all.
        let unknown = dial(&rpc, "no-such-name.invalid:80").await.unwrap_err();
        assert!(unknown.starts_with("dial tcp: lookup no-such-name.invalid"), "{unknown}");
        assert!(unknown.ends_with(": no such host") || unknown.ends_with(": server misbehaving"), "{unknown}");

        let full = Full::new().await;
        let timeout = format!("dial tcp {}: i/o timeout", full.address);
        assert_eq!(dial(&rpc, full.address).await.unwrap_err(), timeout);

        // A network that no machine has a way to, and the kernel knows it.
        let nowhere = dial(&rpc, "255.255.255.255:80").await.unwrap_err();
        assert_eq!(nowhere, "dial tcp 255.255.255.255:80: connect: network is unreachable");

        let missing = dial(&rpc, "127.0.0.1").await.unwrap_err();
        assert_eq!(missing, "dial tcp: address 127.0.0.1: missing port in address");

        counts(&pair, "error_response", 5.0).await;
        serves_another(&rpc).await;
        ends_well(&rpc).await;
        drop((rpc, connection));
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn the_agent_does_not_answer_in_time() {
    for options in BOTH {
        let options = options().server(["--backend-dial-timeout=1s"]).agent(["--dial-timeout=5m"]);
        let (pair, connection) = start(options).await;
        let rpc = connection.call().await;
        let full = Full::new().await;
        assert_eq!(dial(&rpc, full.address).await.unwrap_err(), "timed out waiting for backend dial");
        // The agent does not go on for nothing.
        full.has_pending(0).await;
        counts(&pair, "backend_dial_timeout", 1.0).await;
        serves_another(&rpc).await;
        no_dials_remain(&pair).await;
    }
}

/// An agent that hangs takes 128 dials (the first limit of streams) and answers none; the next ones cannot be sent.
#[tokio::test]
async fn the_dial_cannot_be_sent_in_time() {
    let (pair, connection) = start(Options::unix().server(["--backend-dial-timeout=1s"])).await;
    pair.agents[0].program.signal(Signal::SIGSTOP).unwrap();
    let mut asked = Vec::new();
    for _ in 0..140 {
        let rpc = connection.call().await;
        let number = ask(&rpc, "127.0.0.1:80").await;
        asked.push((rpc, number));
    }
    for (rpc, number) in &asked {
        assert_eq!(answer(rpc, *number).await.unwrap_err(), "timed out waiting for backend dial");
    }
    counts(&pair, "backend_dial_timeout", 140.0).await;
    pair.agents[0].program.signal(Signal::SIGCONT).unwrap();
    let target = Target::echo();
    let again = async || dial(&asked[139].0, target.address).await.ok();
    let id = until("a dial of the same stream", LIMIT, again).await;
    Tunnel::over(asked[139].0.clone(), id).echo(b"again").await;
}

/// The target must not see a connection that comes after the client has given up.
#[tokio::test]
async fn dial_cls_while_the_dial_is_pending() {
    for options in BOTH {
        let (pair, connection) = start(patient(options())).await;
        let full = Full::new().await;
        let rpc = connection.call().await;
        let number = ask(&rpc, full.address).await;
        full.has_pending(1).await;
        // Of another dial: nothing happens.
        rpc.send(&Packet::close_dial(number + 1)).await;
        rpc.is_silent(A_WHILE).await;
        assert_eq!(full.pending(), 1);
        rpc.send(&Packet::close_dial(number)).await;
        full.has_pending(0).await;
        counts(&pair, "frontend_close", 1.0).await;
        let listener = full.free().await;
        nobody_waits(&listener).await;
        serves_another(&rpc).await;
        ends_well(&rpc).await;
        drop((rpc, connection));
        nothing_remains(&pair).await;
        counts(&pair, "frontend_close", 1.0).await;
    }
}

/// Nothing is connecting any more (the table said so), so the next connection that comes is ours.
async fn nobody_waits(listener: &TcpListener) {
    let ours = within("our own connect", TcpStream::connect(address(listener))).await.unwrap();
    let next = accept(listener).await;
    assert_eq!(next.peer_addr().unwrap(), ours.local_addr().unwrap());
}

/// The reference keeps the connection until the stream ends; whether it is kept or closed, nothing is left of it.
#[tokio::test]
async fn dial_cls_when_the_dial_is_done() {
    let (pair, connection) = start(Options::unix()).await;
    let target = Target::echo();
    let rpc = connection.call().await;
    let number = ask(&rpc, target.address).await;
    answer(&rpc, number).await.unwrap();
    rpc.send(&Packet::close_dial(number)).await;
    rpc.end().await;
    rpc.status().await;
    until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
    drop((rpc, connection));
    nothing_remains(&pair).await;
}

/// The answer and the farewell cross on their way, at every point of the dial.
#[tokio::test]
async fn dial_cls_just_when_the_dial_succeeds() {
    let (pair, connection) = start(Options::unix()).await;
    let target = Target::echo();
    for trial in 0..200_u64 {
        let rpc = connection.call().await;
        let number = ask(&rpc, target.address).await;
        // The moment of leaving is what varies; nothing is waited for.
        tokio::time::sleep(Duration::from_micros(trial * 10)).await;
        rpc.send(&Packet::close_dial(number)).await;
        rpc.cancel().await;
    }
    until("the target has no connection", LIMIT, async || (target.open() == 0).then_some(())).await;
    assert!(target.accepted() > 0, "no dial came as far as the target");
    drop(connection);
    nothing_remains(&pair).await;
}

#[tokio::test]
async fn data_before_any_dial() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let rpc = connection.call().await;
        rpc.send(&Packet::data(7, Bytes::from_static(b"too early"))).await;
        assert_eq!(closed(&rpc.packet().await), (7, "backend not initialized".to_owned()));
        ends_well(&rpc).await;
        drop((rpc, connection));
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn close_req_before_any_dial() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let rpc = connection.call().await;
        rpc.send(&Packet::close_request(7)).await;
        assert_eq!(closed(&rpc.packet().await), (7, "backend uninitialized".to_owned()));
        ends_well(&rpc).await;
        drop((rpc, connection));
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn data_with_a_second_conn_id() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let (tunnel, mut target) = join(&connection).await;
        tunnel.write(b"mine").await;
        target.read_exact(&mut [0; 4]).await.unwrap();
        let foreign = tunnel.id + 1_000;
        tunnel.rpc.send(&Packet::data(foreign, Bytes::from_static(b"another's"))).await;
        let mut both = [closed(&tunnel.rpc.packet().await), closed(&tunnel.rpc.packet().await)];
        both.sort();
        assert_eq!(both, [tunnel.id, foreign].map(|id| (id, "mismatched connection IDs".to_owned())));
        let (rest, _) = read_rest(&mut target).await;
        assert!(rest.is_empty(), "{rest:?}");
        no_dials_remain(&pair).await;
        ends_well(&tunnel.rpc).await;
        drop((tunnel, connection));
        nothing_remains(&pair).await;
    }
}

/// In the reference anybody can write into anybody's connection, and close it.
#[tokio::test]
async fn conn_ids_of_other_clients() {
    for options in BOTH {
        let (pair, victims) = start(options()).await;
        let target = Target::echo();
        let mut victim = Tunnel::dial(&victims, target.address).await.unwrap();
        victim.echo(b"before").await;
        let thieves = Connection::open(&Door::of(&pair)).await;
        let thief = Tunnel::dial(&thieves, target.address).await.unwrap();
        assert_ne!(thief.id, victim.id);
        thief.rpc.send(&Packet::data(victim.id, Bytes::from_static(b"stolen"))).await;
        // Either it is refused, or nothing happens at all; the victim notices neither.
        let closer = Tunnel::dial(&thieves, target.address).await.unwrap();
        closer.rpc.send(&Packet::close_request(victim.id)).await;
        closer.rpc.end().await;
        closer.rpc.status().await;
        victim.echo(b"after").await;
    }
}

#[tokio::test]
async fn data_with_conn_id_0() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let (mut tunnel, mut target) = join(&connection).await;
        tunnel.rpc.send(&Packet::data(0, Bytes::from_static(b"for nobody"))).await;
        tunnel.write(b"for the target").await;
        tunnel.ask_close().await;
        let (bytes, end) = read_rest(&mut target).await;
        assert!(bytes == b"for the target" && end.is_ok(), "{bytes:?} {end:?}");
        drop(target);
        assert_eq!(tunnel.rest().await, (Vec::new(), String::new()));
        no_dials_remain(&pair).await;
    }
}

#[tokio::test]
async fn packets_that_a_server_does_not_know() {
    for options in BOTH {
        let (_pair, connection) = start(options()).await;
        let target = Target::echo();
        let rpc = connection.call().await;
        let strange = [
            Packet { r#type: 99, payload: None },
            Packet { r#type: -1, payload: None },
            Packet { r#type: PacketType::Drain.into(), payload: None },
            Packet { r#type: 99, ..Packet::close_request(7) },
            Packet::connected(5, 6),
            Packet::close_response(7, "no"),
        ];
        for packet in &strange {
            rpc.send(packet).await;
        }
        let id = dial(&rpc, target.address).await.unwrap();
        let mut tunnel = Tunnel::over(rpc.clone(), id);
        tunnel.echo(b"as if nothing had been").await;
        for packet in &strange {
            rpc.send(packet).await;
        }
        // A field of a later version.
        let mut later = Packet::data(id, Bytes::from_static(b"with more")).encode_to_vec();
        later.extend(b"\xfa\x01\x05later");
        rpc.send_bytes(&framed(&later)).await;
        assert_eq!(tunnel.read_exact(9).await, b"with more");
    }
}

/// A payload that is not of the packet's type counts as an empty one.
#[tokio::test]
async fn the_type_decides_and_not_the_payload() {
    let (_pair, connection) = start(Options::unix()).await;
    let target = Target::echo();
    let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
    // DATA for conn id 0, which is dropped.
    tunnel.rpc.send(&Packet { r#type: PacketType::Data.into(), ..Packet::close_request(tunnel.id) }).await;
    tunnel.echo(b"not closed").await;
}

#[tokio::test]
async fn a_second_dial_while_one_is_established() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let target = Target::echo();
        let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
        tunnel.echo(b"before").await;
        let error = dial(&tunnel.rpc, target.address).await.unwrap_err();
        assert!(!error.is_empty());
        tunnel.echo(b"after").await;
        assert_eq!(target.accepted(), 1);
        assert_eq!(tunnel.close().await, (Vec::new(), String::new()));
        no_dials_remain(&pair).await;
    }
}

#[tokio::test]
async fn a_second_dial_while_one_is_pending() {
    for options in BOTH {
        let (_pair, connection) = start(patient(options())).await;
        let full = Full::new().await;
        let other = Target::echo();
        let rpc = connection.call().await;
        let first = ask(&rpc, full.address).await;
        full.has_pending(1).await;
        let error = dial(&rpc, other.address).await.unwrap_err();
        assert!(!error.is_empty());
        let listener = full.free().await;
        let mut target = within("the target's connection", accept(&listener)).await;
        let id = answer(&rpc, first).await.unwrap();
        let tunnel = Tunnel::over(rpc, id);
        tunnel.write(b"of the first").await;
        let mut words = [0; 12];
        target.read_exact(&mut words).await.unwrap();
        assert_eq!((&words, other.accepted()), (b"of the first", 0));
    }
}

#[tokio::test]
async fn a_dial_after_one_that_was_closed_is_either_served_or_not_answered() {
    let (pair, connection) = start(Options::unix()).await;
    let target = Target::echo();
    let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
    tunnel.echo(b"first").await;
    assert_eq!(tunnel.close().await, (Vec::new(), String::new()));
    // The reference reads and discards from here on.
    ask(&tunnel.rpc, target.address).await;
    tunnel.rpc.end().await;
    assert_eq!(tunnel.rpc.status().await.code, Some(0));
    drop((tunnel, connection));
    nothing_remains(&pair).await;
}

#[tokio::test]
async fn a_target_writes_and_ends_before_anything_is_said() {
    let (pair, connection) = start(Options::unix()).await;
    for _ in 0..20 {
        let listener = listen(Ipv4Addr::LOCALHOST);
        let rpc = connection.call().await;
        let number = ask(&rpc, address(&listener)).await;
        let mut target = within("the target's connection", accept(&listener)).await;
        target.write_all(b"Go away.").await.unwrap();
        drop(target);
        let id = answer(&rpc, number).await.unwrap();
        let (bytes, why) = Tunnel::over(rpc, id).rest().await;
        assert!(bytes == b"Go away." && why.is_empty(), "{bytes:?} {why:?}");
    }
    no_dials_remain(&pair).await;
}
