//! What a client of HTTP CONNECT is answered, to the byte, by a real server with a real agent.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpStream as StdTcpStream},
    sync::Arc,
    time::Duration,
};

use konnectivity_interop::{
    ends::{
        ESTABLISHED, Full, LIMIT, Target, accept, address, ask, carry, echo, has_metric, listen, no_dials, read_rest,
        request, within,
    },
    load::path::Dial,
    pair::{Options, Pair, client::Client, client::reply_head, until},
    peer::Frontend,
};
use nix::sys::signal::Signal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

/// A target that nobody listens on.
fn refusing() -> String {
    address(&listen(Ipv4Addr::LOCALHOST)).to_string()
}

fn fronts() -> [Options; 2] {
    [Options::unix(), Options::mutual_tls()]
}

/// The answer to a dial that the agent could not carry out.
fn failed(status: &str, text: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}")
}

async fn dial(client: &Client, target: &str) -> String {
    ask(client, request(target).as_bytes()).await
}

#[tokio::test]
async fn every_failure_has_the_references_bytes() {
    for options in fronts() {
        let pair = Pair::start(options.agent(["--dial-timeout=1s"])).await.unwrap();
        let client = pair.client().unwrap();

        let target = refusing();
        let text = format!("dial tcp {target}: connect: connection refused");
        assert_eq!(dial(&client, &target).await, failed("502 Bad Gateway", &text));

        // Which server was asked depends on the machine, and whether there is one at all.
        let unknown = dial(&client, "no-such-name.invalid:80").await;
        let start = failed("502 Bad Gateway", "dial tcp: lookup no-such-name.invalid");
        assert!(unknown.starts_with(&start), "{unknown}");
        let end = unknown.ends_with(": no such host") || unknown.ends_with(": server misbehaving");
        assert!(end, "{unknown}");

        let full = Full::new().await;
        let text = format!("dial tcp {}: i/o timeout", full.address);
        assert_eq!(dial(&client, &full.address.to_string()).await, failed("504 Gateway Timeout", &text));

        let malformed = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
            400 Bad Request";
        for request in
            ["CONNECT\r\n\r\n", "CONNECT a:1 HTTP/9\r\n\r\n", "\0\x01\x02\r\n\r\n", "CONNECT [::1:80 HTTP/1.1\r\n\r\n"]
        {
            assert_eq!(ask(&client, request.as_bytes()).await, malformed, "{request:?}");
        }
        for (reason, count) in [("error_response", 3.0), ("no_agent", 0.0)] {
            let name = format!("konnectivity_network_proxy_server_dial_failure_count{{reason=\"{reason}\"}}");
            has_metric(pair.server.health, &name, count).await;
        }
    }
}

#[tokio::test]
async fn another_method_is_refused_and_the_connection_goes_on() {
    let target = Target::echo();
    for options in fronts() {
        let pair = Pair::start(options).await.unwrap();
        let mut client = pair.client().unwrap().connect().await.unwrap();
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            client.flush().await.unwrap();
            let head = within("the refusal", reply_head(&mut client)).await.unwrap();
            let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date");
            let expected = format!(
                "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 X-Content-Type-Options: nosniff\r\nDate: {date}\r\nContent-Length: 45\r\n\r\n"
            );
            assert_eq!(head, expected);
            assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
            let mut body = vec![0; 45];
            within("the body", client.read_exact(&mut body)).await.unwrap();
            assert_eq!(body, b"this proxy only supports CONNECT passthrough\n");
        }
        client.write_all(request(target.address).as_bytes()).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(within("the answer", reply_head(&mut client)).await.unwrap().as_bytes(), ESTABLISHED);
        echo(&mut client, b"after three refusals").await;
    }
}

#[tokio::test]
async fn without_an_agent_for_the_target_the_answer_is_500() {
    let expected = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n\
        currently no tunnels available: No agent available";
    for options in fronts() {
        let options = options.server(["--proxy-strategies=destHost"]).agent(["--agent-identifiers=host=known.example"]);
        let mut pair = Pair::start(options).await.unwrap();
        let client = pair.client().unwrap();
        assert_eq!(dial(&client, "127.0.0.1:80").await, expected);
        pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
        pair.agents[0].program.ended(LIMIT).await.unwrap();
        until("the agent is gone", LIMIT, async || pair.server.connections().await.unwrap().is_empty().then_some(()))
            .await;
        assert_eq!(dial(&client, "known.example:80").await, expected);
        let name = "konnectivity_network_proxy_server_dial_failure_count{reason=\"no_agent\"}";
        has_metric(pair.server.health, name, 2.0).await;
    }
}

/// An agent that hangs takes 128 dials (the first limit of streams) and answers none; the next ones cannot be sent.
#[tokio::test]
async fn an_agent_that_does_not_answer_is_504() {
    for options in fronts() {
        let pair = Pair::start(options.server(["--backend-dial-timeout=1s"])).await.unwrap();
        let client = pair.client().unwrap();
        pair.agents[0].program.signal(Signal::SIGSTOP).unwrap();
        let mut dials = JoinSet::new();
        for _ in 0..140 {
            let client = client.clone();
            dials.spawn(async move { dial(&client, "127.0.0.1:80").await });
        }
        let mut answers = dials.join_all().await;
        answers.sort();
        let reply = |text: &str| {
            format!("HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n")
        };
        let unanswered = answers
            .iter()
            .filter(|answer| **answer == reply("Backend dial timeout: timed out waiting for backend dial"));
        assert_eq!(unanswered.count(), 128);
        let unsent = answers
            .iter()
            .filter(|answer| **answer == reply("Failed to tunnel dial request: timed out waiting for backend dial"));
        assert_eq!(unsent.count(), 12, "{:?}", answers.last());
        // It goes on when the agent does.
        pair.agents[0].program.signal(Signal::SIGCONT).unwrap();
        let target = Target::echo();
        let mut joined = until("a dial", LIMIT, async || client.dial(&target.address.to_string()).await.ok()).await;
        echo(&mut joined, b"again").await;
    }
}

#[tokio::test]
async fn an_agent_that_stops_while_a_dial_is_pending_is_502() {
    for options in fronts() {
        let pair = Pair::start(options.agent(["--graceful-shutdown-timeout=0s"])).await.unwrap();
        let client = pair.client().unwrap();
        let full = Full::new().await;
        let target = full.address.to_string();
        let stop = async {
            full.has_pending(1).await;
            pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
        };
        let (answer, ()) = tokio::join!(dial(&client, &target), stop);
        let expected = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
            Backend context error: context canceled\r\n";
        assert_eq!(answer, expected);
    }
}

#[tokio::test]
async fn bytes_behind_the_request_reach_the_target_first() {
    for options in fronts() {
        let pair = Pair::start(options).await.unwrap();
        let client = pair.client().unwrap();
        // The second part comes while the dial is pending, the third after the answer.
        for pipelined in ["first ", "", &"x".repeat(100_000)] {
            let listener = listen(Ipv4Addr::LOCALHOST);
            let mut dial = client.connect().await.unwrap();
            dial.write_all(format!("{}{pipelined}", request(address(&listener))).as_bytes()).await.unwrap();
            dial.write_all(b"second ").await.unwrap();
            dial.flush().await.unwrap();
            let mut target = within("the target's connection", accept(&listener)).await;
            assert_eq!(within("the answer", reply_head(&mut dial)).await.unwrap().as_bytes(), ESTABLISHED);
            dial.write_all(b"third").await.unwrap();
            dial.shutdown().await.unwrap();
            let (bytes, end) = read_rest(&mut target).await;
            end.unwrap();
            assert!(bytes == format!("{pipelined}second third").as_bytes(), "{} bytes", bytes.len());
        }
    }
}

#[tokio::test]
async fn targets_have_ipv6_addresses_and_names_too() {
    let (v4, v6) = (listen(Ipv4Addr::LOCALHOST), listen(Ipv6Addr::LOCALHOST));
    for options in fronts() {
        let pair = Pair::start(options).await.unwrap();
        let client = pair.client().unwrap();
        for (host, listener) in [("[::1]", &v6), ("[0:0::1]", &v6), ("localhost", &v4), ("[::ffff:127.0.0.1]", &v4)] {
            let target = format!("{host}:{}", address(listener).port());
            let both = async { tokio::join!(client.dial(&target), accept(listener)) };
            let (dial, mut accepted) = within("a dial", both).await;
            let mut dial = dial.unwrap();
            carry(&mut dial, &mut accepted, b"to the target").await;
            carry(&mut accepted, &mut dial, b"to the client").await;
        }
        let refused = { address(&listen(Ipv6Addr::LOCALHOST)) };
        let text = format!("dial tcp {refused}: connect: connection refused");
        assert_eq!(dial(&client, &refused.to_string()).await, failed("502 Bad Gateway", &text));
    }
}

#[tokio::test]
async fn every_address_in_ipv6() {
    let target = Target::echo();
    for options in fronts() {
        let pair = Pair::start(options.host(Ipv6Addr::LOCALHOST)).await.unwrap();
        let mut dial = pair.dial(&target.address.to_string()).await.unwrap();
        echo(&mut dial, b"over IPv6").await;
    }
}

#[tokio::test]
async fn bad_addresses_get_a_clear_error_and_break_nothing() {
    for options in fronts() {
        let pair = Pair::start(options).await.unwrap();
        let client = pair.client().unwrap();
        let target = Target::echo();
        let mut beside = client.dial(&target.address.to_string()).await.unwrap();
        for (address, text) in [
            ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
            ("[::1]", "dial tcp: address [::1]: missing port in address"),
            ("127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
            ("127.0.0.1:0", "dial tcp 127.0.0.1:0: connect: connection refused"),
            (":1", "dial tcp :1: connect: connection refused"),
            (&format!("{}:80", "a".repeat(300)), &format!("dial tcp: lookup {}: no such host", "a".repeat(300))),
        ] {
            assert_eq!(dial(&client, address).await, failed("502 Bad Gateway", text), "{address}");
        }
        // Longer than a request to the agent may be.
        let answer = dial(&client, &format!("{}:80", "a".repeat(5000))).await;
        let start = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nFailed to tunnel dial request: ";
        assert!(answer.starts_with(start) && answer.contains("4096"), "{answer}");
        // Longer than a head may be.
        let answer = ask(&client, format!("CONNECT {}", "a".repeat((1 << 20) + 100_000)).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer}");
        echo(&mut beside, b"still here").await;
        drop(beside);
        no_dials(&pair).await;
    }
}

const BANNER: &[u8] = b"SSH-2.0-a target that speaks first\r\n";

/// kube-apiserver takes any byte that it reads together with the answer for an error.
#[tokio::test]
async fn the_answer_leaves_alone_before_any_byte_of_the_target() {
    let target = Target::banner(BANNER);
    let pair = Pair::start(Options::unix()).await.unwrap();
    let client = pair.client().unwrap();
    for trial in 0..300 {
        first_read_is_the_answer(&client, target.address.to_string(), trial).await;
    }
    let mut parallel = JoinSet::new();
    for client_number in 0..8 {
        let (client, address) = (client.clone(), target.address.to_string());
        parallel.spawn(async move {
            for trial in 0..50 {
                first_read_is_the_answer(&client, address.clone(), 50 * client_number + trial).await;
            }
        });
    }
    for ended in parallel.join_all().await {
        ended
    }
}

async fn first_read_is_the_answer(client: &Client, target: String, trial: u64) {
    let mut dial = client.ask(&target).await.unwrap();
    // The client is slow now and then: what has come until it reads is what it must not see at once. The delay is the
    // behaviour under test, not a wait for something.
    match trial % 4 {
        0 => {}
        1 => tokio::task::yield_now().await,
        _ => tokio::time::sleep(Duration::from_micros(trial * 7919 % 5000)).await,
    }
    let mut buffer = vec![0; 64 * 1024];
    let bytes = within("the answer", dial.read(&mut buffer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..bytes]), String::from_utf8_lossy(ESTABLISHED), "trial {trial}");
    let mut banner = [0; BANNER.len()];
    within("the banner", dial.read_exact(&mut banner)).await.unwrap();
    assert_eq!(banner, BANNER);
}

/// Go's TLS gives its reader one record at a time, so the answer must be a record of its own.
#[tokio::test]
async fn over_tls_the_answer_is_a_record_of_its_own() {
    let target = Target::banner(BANNER);
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let Frontend::MutualTls(frontend) = pair.server.frontend else { panic!("not TLS") };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pair.certificates.file("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(pair.certificates.file("client.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(pair.certificates.file("client.key")).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    for _ in 0..30 {
        let (config, request) = (config.clone(), request(target.address));
        let records = tokio::task::spawn_blocking(move || {
            let mut stream = StdTcpStream::connect(frontend).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut session = rustls::ClientConnection::new(config, ServerName::from(frontend.ip())).unwrap();
            while session.is_handshaking() {
                session.complete_io(&mut stream).unwrap();
            }
            session.writer().write_all(request.as_bytes()).unwrap();
            while session.wants_write() {
                session.write_tls(&mut stream).unwrap();
            }
            let mut records = Vec::new();
            while records.len() < 2 {
                records.push(read_record(&mut session, &mut stream));
            }
            records
        });
        let records = records.await.unwrap();
        assert_eq!(records[0], ESTABLISHED, "{:?}", String::from_utf8_lossy(&records[0]));
        assert!(BANNER.starts_with(&records[1]), "{:?}", String::from_utf8_lossy(&records[1]));
    }
}

/// Reads one record and returns what it holds.
fn read_record(session: &mut rustls::ClientConnection, stream: &mut StdTcpStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).unwrap();
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).unwrap();
    let mut unread = &record[..];
    while !unread.is_empty() {
        session.read_tls(&mut unread).unwrap();
        session.process_new_packets().unwrap();
    }
    let mut plain = vec![0; 64 * 1024];
    let bytes = session.reader().read(&mut plain).unwrap();
    plain.truncate(bytes);
    plain
}

/// What the target sends at once does not wait for a client that has spoken first.
#[tokio::test]
async fn a_client_that_speaks_before_it_reads_the_answer_is_served() {
    let target = Target::banner(BANNER);
    for options in fronts() {
        let pair = Pair::start(options).await.unwrap();
        let mut dial: Dial = pair.client().unwrap().connect().await.unwrap();
        dial.write_all(format!("{}early", request(target.address)).as_bytes()).await.unwrap();
        dial.flush().await.unwrap();
        let mut got = vec![0; ESTABLISHED.len() + BANNER.len() + "early".len()];
        within("everything", dial.read_exact(&mut got)).await.unwrap();
        assert_eq!(got, [ESTABLISHED, BANNER, b"early"].concat());
    }
}
