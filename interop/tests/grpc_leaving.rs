//! Clients and agents that leave with a dial pending or established: the other side is told, and nothing stays.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::Ipv4Addr;

use konnectivity_interop::{
    ends::{Full, LIMIT, Target, accept, address, has_metric, listen, metric, read_rest, within},
    pair::{
        Options, Pair,
        grpc::{
            connection::Connection,
            door::Door,
            failures,
            frame::code::NO_ERROR,
            no_dials_remain, nothing_remains,
            rpc::Rpc,
            tunnel::{Tunnel, answer, ask, dial},
        },
        until,
    },
};
use nix::sys::signal::Signal;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

async fn start(options: Options) -> (Pair, Connection) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let connection = Connection::open(&Door::of(&pair)).await;
    (pair, connection)
}

/// No dial ends by itself while a test waits for something.
fn patient(options: Options) -> Options {
    options.server(["--backend-dial-timeout=5m"]).agent(["--dial-timeout=5m"])
}

/// A dial to a target that the test plays itself.
async fn join(connection: &Connection) -> (Tunnel, TcpStream) {
    let listener = listen(Ipv4Addr::LOCALHOST);
    let target = address(&listener);
    let (tunnel, target) = tokio::join!(Tunnel::dial(connection, target), accept(&listener));
    (tunnel.unwrap(), target)
}

/// The client ends its half, and the call ends well. (A server that has ended its half first may reset the stream without
/// an error, RFC 9113, section 8.1.)
async fn ends_well(rpc: &Rpc) {
    rpc.end().await;
    let status = rpc.status().await;
    assert_eq!((status.http.as_deref(), status.code), (Some("200"), Some(0)), "{status:?}");
    assert!(matches!(status.reset, None | Some(NO_ERROR)), "{status:?}");
}

/// Nothing is connecting any more (the table said so), so the next connection that comes is ours.
async fn nobody_waits(listener: &TcpListener) {
    let ours = within("our own connect", TcpStream::connect(address(listener))).await.unwrap();
    let next = accept(listener).await;
    assert_eq!(next.peer_addr().unwrap(), ours.local_addr().unwrap());
}

/// The reference leaves the client waiting for its own limit of 30 s.
#[tokio::test]
async fn the_agent_stops_while_the_dial_is_pending() {
    for options in BOTH {
        let (pair, connection) = start(patient(options()).agent(["--graceful-shutdown-timeout=0s"])).await;
        let full = Full::new().await;
        let rpc = connection.call().await;
        let number = ask(&rpc, full.address).await;
        full.has_pending(1).await;
        pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
        let error = answer(&rpc, number).await.unwrap_err();
        assert!(!error.is_empty());
        has_metric(pair.server.health, &failures("backend_close"), 1.0).await;
        until("the agent is gone", LIMIT, async || pair.server.connections().await.unwrap().is_empty().then_some(()))
            .await;
        assert_eq!(dial(&rpc, full.address).await.unwrap_err(), "No agent available");
        ends_well(&rpc).await;
    }
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaving {
    HalfClose,
    Cancel,
    Dies,
}

const LEAVING: [Leaving; 3] = [Leaving::HalfClose, Leaving::Cancel, Leaving::Dies];

async fn leave(how: Leaving, rpc: &Rpc, connection: Connection) -> Option<Connection> {
    match how {
        Leaving::HalfClose => rpc.end().await,
        Leaving::Cancel => rpc.cancel().await,
        Leaving::Dies => {
            connection.cut().await;
            return None;
        }
    }
    Some(connection)
}

#[tokio::test]
async fn the_client_leaves_with_a_dial_pending() {
    for options in BOTH {
        for how in LEAVING {
            let (pair, connection) = start(patient(options())).await;
            let full = Full::new().await;
            let rpc = connection.call().await;
            ask(&rpc, full.address).await;
            full.has_pending(1).await;
            let connection = leave(how, &rpc, connection).await;
            full.has_pending(0).await;
            if how == Leaving::HalfClose {
                assert_eq!(rpc.status().await.code, Some(0));
            }
            nobody_waits(&full.free().await).await;
            no_dials_remain(&pair).await;
            drop((rpc, connection));
            nothing_remains(&pair).await;
            // The reference counts nothing here over gRPC; with CONNECT it does.
            let counted = metric(pair.server.health, &failures("frontend_close")).await;
            assert!(counted <= 1.0, "{how:?}: {counted}");
        }
    }
}

#[tokio::test]
async fn the_client_leaves_with_a_dial_established() {
    for options in BOTH {
        for how in LEAVING {
            let (pair, connection) = start(options()).await;
            let (tunnel, mut target) = join(&connection).await;
            let (beside, mut other) = join(&connection).await;
            tunnel.write(b"last words").await;
            let connection = leave(how, &tunnel.rpc, connection).await;
            let (bytes, end) = read_rest(&mut target).await;
            assert!(b"last words".starts_with(&bytes[..]), "{how:?}: {bytes:?}");
            if how == Leaving::HalfClose {
                assert!(bytes == b"last words" && end.is_ok(), "{bytes:?} {end:?}");
                assert_eq!(tunnel.rpc.status().await.code, Some(0));
            }
            drop(target);
            if how != Leaving::Dies {
                // Only this one was meant.
                beside.write(b"here").await;
                other.read_exact(&mut [0; 4]).await.unwrap();
            }
            drop((tunnel, beside, connection));
            let _ = read_rest(&mut other).await;
            drop(other);
            nothing_remains(&pair).await;
        }
    }
}

#[tokio::test]
async fn the_agent_stops_with_dials_established() {
    for options in BOTH {
        let (pair, connection) = start(options().agent(["--graceful-shutdown-timeout=0s"])).await;
        let target = Target::echo();
        let mut tunnels = Vec::new();
        for _ in 0..20 {
            let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
            tunnel.echo(b"alive").await;
            tunnels.push(tunnel);
        }
        pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
        for tunnel in &mut tunnels {
            let (bytes, _why) = tunnel.rest().await;
            assert!(bytes.is_empty(), "{bytes:?}");
            ends_well(&tunnel.rpc).await;
        }
        for gauge in ["pending_backend_dials", "established_connections"] {
            has_metric(pair.server.health, &format!("konnectivity_network_proxy_server_{gauge}"), 0.0).await;
        }
    }
}

/// Without a good-bye only the time tells.
#[tokio::test]
async fn the_agent_is_killed_with_dials_established() {
    let idle = ["--quic-idle-timeout=2s", "--quic-keep-alive-interval=500ms"];
    let (mut pair, connection) = start(Options::unix().server(idle).agent(idle)).await;
    let target = Target::echo();
    let mut tunnels = Vec::new();
    for _ in 0..5 {
        tunnels.push(Tunnel::dial(&connection, target.address).await.unwrap());
    }
    pair.agents[0].program.kill();
    for tunnel in &mut tunnels {
        let (bytes, _why) = tunnel.rest().await;
        assert!(bytes.is_empty(), "{bytes:?}");
    }
    let established = "konnectivity_network_proxy_server_established_connections";
    has_metric(pair.server.health, established, 0.0).await;
}
