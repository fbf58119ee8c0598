//! How calls end that are not what the frontend serves, in the words of the reference's gRPC library.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::Ipv4Addr;

use bytes::Bytes;
use konnectivity_interop::{
    ends::{Target, accept, address, listen, pattern, within},
    pair::{
        Options, Pair,
        grpc::{
            connection::Connection,
            door::Door,
            framed,
            header::{Form, Headers, call, request, with},
            message, nothing_remains,
            rpc::Status,
            tunnel::Tunnel,
        },
    },
};
use konnectivity_transport::packet::{MAX_PACKET_BYTES, Packet};
use prost::Message;
use tokio::io::AsyncReadExt;

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

const INTERNAL: u32 = 13;
const UNIMPLEMENTED: u32 = 12;
const RESOURCE_EXHAUSTED: u32 = 8;

async fn start(options: Options) -> (Pair, Connection) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let connection = Connection::open(&Door::of(&pair)).await;
    (pair, connection)
}

/// How a call with these headers and these bytes behind them ends.
async fn ended(connection: &Connection, headers: &Headers, bytes: &[u8]) -> Status {
    let rpc = connection.call_with(headers, Form::GO).await;
    rpc.send_bytes(bytes).await;
    rpc.status().await
}

fn expected(code: u32, message: &str) -> (Option<&str>, Option<u32>, &str) {
    (Some("200"), Some(code), message)
}

fn told(status: &Status) -> (Option<&str>, Option<u32>, &str) {
    (status.http.as_deref(), status.code, status.message.as_str())
}

#[tokio::test]
async fn methods_that_are_not_served() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let target = Target::echo();
        let mut beside = Tunnel::dial(&connection, target.address).await.unwrap();
        for (path, text) in [
            ("/Nothing/Proxy", "unknown service Nothing"),
            ("/AgentService/Connect", "unknown service AgentService"),
            ("/ProxyService/Nothing", "unknown method Nothing for service ProxyService"),
            ("/a/b/c", "unknown service a/b"),
            ("/ProxyService", "malformed method name: \"/ProxyService\""),
        ] {
            let status = ended(&connection, &call(path, "localhost"), &[]).await;
            assert_eq!(told(&status), expected(UNIMPLEMENTED, text), "{path}");
        }
        beside.echo(b"none of its business").await;
        drop((beside, connection));
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn content_types_that_are_not_grpc() {
    let (_pair, connection) = start(Options::unix()).await;
    let target = Target::echo();
    for wrong in ["application/json", "application/grpcx", "", "text/html", "application/grpc-web"] {
        let status = ended(&connection, &with(request("localhost"), "content-type", wrong), &[]).await;
        assert_eq!(status.http.as_deref(), Some("415"), "{wrong}: {status:?}");
    }
    let mut none = request("localhost");
    none.retain(|(name, _)| name != "content-type");
    assert_eq!(ended(&connection, &none, &[]).await.http.as_deref(), Some("415"));
    for right in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
        let rpc = connection.call_with(&with(request("localhost"), "content-type", right), Form::GO).await;
        let id = konnectivity_interop::pair::grpc::tunnel::dial(&rpc, target.address).await.unwrap();
        Tunnel::over(rpc, id).echo(right.as_bytes()).await;
    }
}

#[tokio::test]
async fn methods_of_http_other_than_post() {
    let (_pair, connection) = start(Options::unix()).await;
    for method in ["GET", "PUT", "OPTIONS"] {
        let status = ended(&connection, &with(request("localhost"), ":method", method), &[]).await;
        assert_eq!(status.http.as_deref(), Some("405"), "{method}: {status:?}");
    }
}

#[tokio::test]
async fn what_a_served_call_is_answered_with() {
    for options in BOTH {
        let (_pair, connection) = start(options()).await;
        let target = Target::echo();
        let mut tunnel = Tunnel::dial(&connection, target.address).await.unwrap();
        assert_eq!(tunnel.rpc.header(":status").as_deref(), Some("200"));
        assert_eq!(tunnel.rpc.header("content-type").as_deref(), Some("application/grpc"));
        assert_eq!(tunnel.close().await, (Vec::new(), String::new()));
        tunnel.rpc.end().await;
        assert_eq!(told(&tunnel.rpc.status().await), expected(0, ""));
    }
}

#[tokio::test]
async fn compressed_messages() {
    let (_pair, connection) = start(Options::unix()).await;
    let compressed = [&[1], &message(&Packet::dial_request("127.0.0.1:80", 1))[1..]].concat();
    let status = ended(&connection, &request("localhost"), &compressed).await;
    let text = "grpc: compressed flag set with identity or empty encoding";
    assert_eq!(told(&status), expected(INTERNAL, text));
    let gzip = with(request("localhost"), "grpc-encoding", "gzip");
    let status = ended(&connection, &gzip, &[]).await;
    let text = "grpc: Decompressor is not installed for grpc-encoding \"gzip\"";
    assert_eq!(told(&status), expected(UNIMPLEMENTED, text));
    let flag = [&[2], &message(&Packet::dial_request("127.0.0.1:80", 1))[1..]].concat();
    let status = ended(&connection, &request("localhost"), &flag).await;
    assert_eq!(told(&status), expected(INTERNAL, "grpc: received unexpected payload format 2"));
}

/// A DATA packet of exactly so many bytes, and how many it carries.
fn packet_of(bytes: usize, conn_id: i64) -> (Vec<u8>, usize) {
    let mut data = bytes;
    loop {
        let packet = Packet::data(conn_id, Bytes::from(pattern(0, data)));
        match packet.encoded_len().checked_sub(bytes) {
            Some(0) => return (packet.encode_to_vec(), data),
            Some(more) => data -= more,
            None => unreachable!("headers grow in steps of one"),
        }
    }
}

#[tokio::test]
async fn a_message_of_4_mib_is_served_and_one_of_a_byte_more_is_not() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let listener = listen(Ipv4Addr::LOCALHOST);
        let place = address(&listener);
        let (tunnel, mut target) = tokio::join!(Tunnel::dial(&connection, place), accept(&listener));
        let tunnel = tunnel.unwrap();
        let (largest, carried) = packet_of(MAX_PACKET_BYTES, tunnel.id);
        assert_eq!(largest.len(), 4 * 1024 * 1024);
        let send = async {
            tunnel.rpc.send_bytes(&framed(&largest)).await;
        };
        let receive = async {
            let mut arrived = vec![0; carried];
            target.read_exact(&mut arrived).await.unwrap();
            assert!(arrived == pattern(0, carried));
        };
        within("4 MiB", async { tokio::join!(send, receive) }).await;

        // The head is enough: nobody takes what follows.
        let head = u32::try_from(MAX_PACKET_BYTES + 1).unwrap().to_be_bytes();
        tunnel.rpc.send_bytes(&[&[0], &head[..], &[0; 100]].concat()).await;
        let text = "grpc: received message larger than max (4194305 vs. 4194304)";
        assert_eq!(told(&tunnel.rpc.status().await), expected(RESOURCE_EXHAUSTED, text));
        drop((tunnel, connection));
        let (rest, _) = konnectivity_interop::ends::read_rest(&mut target).await;
        assert!(rest.is_empty());
        drop(target);
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn lengths_that_lie() {
    for options in BOTH {
        let (pair, connection) = start(options()).await;
        let status = ended(&connection, &request("localhost"), &[0, 255, 255, 255, 255, 1, 2, 3]).await;
        let text = "grpc: received message larger than max (4294967295 vs. 4194304)";
        assert_eq!(told(&status), expected(RESOURCE_EXHAUSTED, text));

        // Less than was promised. (The reference takes an end within a message's head for an end of the call.)
        for (cut, text) in [(&[0, 0, 0, 0, 100, 1, 2, 3][..], "unexpected EOF"), (&[0, 0, 0], "")] {
            let rpc = connection.call().await;
            rpc.send_bytes(cut).await;
            rpc.end().await;
            let status = rpc.status().await;
            let as_a_lie = told(&status) == expected(INTERNAL, "unexpected EOF");
            assert!(as_a_lie || (text.is_empty() && told(&status) == expected(0, text)), "{cut:?}: {status:?}");
        }

        // Bytes that are no packet: a length beyond the end, an endless number, a wire type that there is not.
        for garbage in [&b"\x12\x7f\x0a"[..], &[0x18; 1], &[0xff; 30], b"\x0f", b"\x12\x05\x0a\xff\xff\xff\xff"] {
            let status = ended(&connection, &request("localhost"), &framed(garbage)).await;
            assert_eq!((status.http.as_deref(), status.code), (Some("200"), Some(INTERNAL)), "{garbage:?} {status:?}");
            let start = "grpc: failed to unmarshal the received message";
            assert!(status.message.starts_with(start), "{garbage:?}: {}", status.message);
        }

        // No bytes at all are a packet: a dial to nowhere, which the agent refuses.
        let rpc = connection.call().await;
        rpc.send_bytes(&[0; 5]).await;
        let error = konnectivity_interop::pair::grpc::tunnel::answer(&rpc, 0).await.unwrap_err();
        assert!(!error.is_empty());
        drop((rpc, connection));
        nothing_remains(&pair).await;
    }
}

/// Text that is no text (an address of bytes that are not UTF-8) is no packet either.
#[tokio::test]
async fn addresses_that_are_not_utf_8() {
    let (_pair, connection) = start(Options::unix()).await;
    let status = ended(&connection, &request("localhost"), &framed(b"\x12\x04\x12\x02\xff\xfe")).await;
    assert_eq!((status.http.as_deref(), status.code), (Some("200"), Some(INTERNAL)), "{status:?}");
}
