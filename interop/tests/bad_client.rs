//! Clients that say nothing, or something else than they should, and many of them: the others are served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use konnectivity_interop::ends::Target;
use konnectivity_interop::load::path::Dial;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::program::Program;
use konnectivity_interop::pair::{Options, Pair, until};
use konnectivity_interop::peer::Frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listener() -> TcpListener {
    TcpListener::bind((HERE, 0)).await.unwrap()
}

fn tls_port(pair: &Pair) -> SocketAddr {
    let Frontend::MutualTls(address) = pair.server.frontend else { unreachable!() };
    address
}

/// File descriptors that a program has open.
fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count()
}

#[tokio::test]
async fn http_without_tls_is_answered_in_words() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    for request in ["CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stream = TcpStream::connect(tls_port(&pair)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert_eq!(reply, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    }
    let words = ["WARN", "TLS handshake with a client failed", "the client sent plain HTTP; it must use https"];
    pair.server.program.logged(&words, LIMIT).await.unwrap();
    Open::dial(&pair.client().unwrap(), &listener().await).await.unwrap().exchange().await.unwrap();
}

#[tokio::test]
async fn garbage_on_the_tls_port_is_hung_up_on() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    for bytes in
        [&[0xff; 64][..], b"SSH-2.0-OpenSSH\r\n", &[0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5], &[0x16; 20_000]]
    {
        let mut stream = TcpStream::connect(tls_port(&pair)).await.unwrap();
        // The server may hang up in the midst of it.
        let _ = stream.write_all(bytes).await;
        let mut rest = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("the server must hang up");
        assert!(rest.len() < 64, "at most an alert: {rest:02x?}");
    }
    Open::dial(&pair.client().unwrap(), &listener().await).await.unwrap().exchange().await.unwrap();
}

#[tokio::test]
async fn silent_clients_keep_nobody_out() {
    for options in [Options::unix(), Options::mutual_tls()] {
        let pair = Pair::start(options).await.unwrap();
        let client = pair.client().unwrap();
        let before = descriptors(&pair.server.program);
        let mut silent: Vec<Dial> = Vec::new();
        for place in 0..300 {
            let mut dial = client.connect().await.unwrap();
            if place % 2 == 0 {
                dial.write_all(b"CONNECT 127.0.0.1:9 HTT").await.unwrap();
                dial.flush().await.unwrap();
            }
            silent.push(dial);
        }
        Open::dial(&client, &listener().await).await.unwrap().exchange().await.unwrap();
        drop(silent);
        until("the server has let go of them", LIMIT, || async {
            (descriptors(&pair.server.program) <= before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn clients_that_do_not_begin_their_handshake_keep_nobody_out() {
    // More than may be in the midst of a handshake at once.
    const SILENT: usize = 1_100;
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(tls_port(&pair)).await.unwrap());
    }
    let start = Instant::now();
    Open::dial(&pair.client().unwrap(), &listener().await).await.unwrap().exchange().await.unwrap();
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let client = pair.client().unwrap();
    let target = Target::echo();
    let address = target.address.to_string();
    client.dial(&address).await.unwrap();
    let programs = [&pair.server.program, &pair.agents[0].program];
    let at_rest = || async {
        let open = pair.server.connections().await.unwrap()[0]["open_dials"].as_u64().unwrap();
        (open == 0).then(|| programs.map(descriptors))
    };
    let before = until("no dial is open", LIMIT, at_rest).await;
    for place in 0..300 {
        match place % 3 {
            // Leaves before it has asked, before it is answered, and with a dial open.
            0 => drop(client.connect().await.unwrap()),
            1 => drop(client.ask(&address).await.unwrap()),
            _ => drop(client.dial(&address).await.unwrap()),
        }
    }
    until("as many descriptors as before", LIMIT, || async {
        let now = at_rest().await?;
        (now[0] <= before[0] && now[1] <= before[1]).then_some(())
    })
    .await;
}
