//! CPU profiles of running programs, for `go tool pprof`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::io::Read;
use std::net::SocketAddr;

use flate2::read::GzDecoder;
use konnectivity_interop::pair::{Options, Pair, http};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nobody listens on the port of tcpmux.
const REFUSING: &str = "127.0.0.1:1";

/// What is looked at of pprof's `profile.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
}

/// The head and the bytes behind it.
async fn get(address: SocketAddr, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = reply.split_off(end + 4);
    (String::from_utf8(reply).unwrap().to_lowercase(), body)
}

/// Dials that fail, one after the other, for as long as this is polled.
async fn work(pair: &Pair) {
    while pair.dial(REFUSING).await.is_err() {}
}

/// The texts of a packed profile, which has samples.
fn texts(packed: &[u8]) -> Vec<String> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let profile = Profile::decode(bytes.as_slice()).unwrap();
    let text = |place: i64| profile.string_table[usize::try_from(place).unwrap()].as_str();
    let kinds: Vec<_> = profile.sample_type.iter().map(|kind| (text(kind.r#type), text(kind.unit))).collect();
    assert_eq!(kinds, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert!(profile.sample.iter().any(|sample| !sample.location_id.is_empty()), "no stack");
    profile.string_table
}

#[tokio::test]
async fn a_program_that_works_can_be_profiled() {
    let profiling = ["--enable-profiling"];
    let pair = Pair::start(Options::unix().server(profiling).agent(profiling)).await.unwrap();
    let agent = &pair.agents[0];
    for (admin, health) in [(pair.server.admin, pair.server.health), (agent.admin, agent.health)] {
        let profile = "/debug/pprof/profile?seconds=1";
        let (first, second) = tokio::select! {
            replies = async { tokio::join!(get(admin, profile), get(admin, profile)) } => replies,
            () = work(&pair) => panic!("a dial to a closed port succeeded"),
        };
        // One at a time: the other is told so, whichever came first.
        let (good, refused) = if first.0.starts_with("http/1.1 200 ") { (first, second) } else { (second, first) };
        assert!(good.0.starts_with("http/1.1 200 ok\r\n"), "{}", good.0);
        for line in ["content-type: application/octet-stream", "content-disposition: attachment; filename=\"profile\""]
        {
            assert!(good.0.contains(&format!("\r\n{line}\r\n")), "{}", good.0);
        }
        assert!(refused.0.starts_with("http/1.1 503 "), "{}", refused.0);
        assert!(refused.1.starts_with(b"another CPU profile is being taken"), "{:?}", refused.1);
        let texts = texts(&good.1);
        assert!(texts.iter().any(|text| text.contains("konnectivity_")), "{texts:?}");
        assert_eq!(http::get(health, "/healthz").await.unwrap().body, "ok");
    }
}

#[tokio::test]
async fn profiles_need_their_flag() {
    let pair = Pair::start(Options::unix().server(["--enable-profiling"])).await.unwrap();
    let paths = ["/debug/pprof", "/debug/pprof/", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace"];
    // Neither without the flag, nor on the health port.
    for address in [pair.agents[0].admin, pair.agents[0].health, pair.server.health] {
        for path in paths {
            let reply = http::get(address, path).await.unwrap();
            assert_eq!((reply.status, reply.body.as_str()), (404, "404 page not found\n"), "{path}");
            assert!(reply.head.to_lowercase().contains("\r\nx-content-type-options: nosniff"), "{}", reply.head);
        }
    }
    let admin = pair.server.admin;
    let reply = http::get(admin, "/debug/pprof").await.unwrap();
    assert_eq!(reply.status, 301);
    assert!(reply.head.to_lowercase().contains("\r\nlocation: /debug/pprof/\r\n"), "{}", reply.head);
    let reply = http::get(admin, "/debug/pprof/").await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.head.to_lowercase().contains("\r\ncontent-type: text/html; charset=utf-8\r\n"), "{}", reply.head);
    assert!(reply.body.contains("href='profile?seconds=30'"), "{}", reply.body);
    let reply = http::get(admin, "/debug/pprof/cmdline").await.unwrap();
    assert!(reply.body.split('\0').any(|argument| argument == "--enable-profiling"), "{}", reply.body);
    let reply = http::get(admin, "/debug/pprof/trace").await.unwrap();
    assert_eq!(reply.status, 501);
    assert!(reply.body.starts_with("not available: "), "{}", reply.body);
}
