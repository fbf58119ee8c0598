//! Frames and headers that no client should send: each ends its connection, or its stream, with the error that RFC 9113
//! has for it, and other clients are served as before.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use konnectivity_interop::{
    ends::{Target, within},
    pair::{
        Options, Pair,
        grpc::{
            connection::Connection,
            door::Door,
            frame::{
                Frame, PREFACE,
                code::{
                    COMPRESSION_ERROR, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR,
                    STREAM_CLOSED,
                },
                flag, kind, setting,
            },
            header::{Blocks, Form, Headers, request, with},
            message, nothing_remains,
            tunnel::Tunnel,
            wire::Wire,
        },
    },
};
use konnectivity_transport::packet::Packet;

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

fn call(stream: u32) -> Frame {
    Frame::headers(stream, Blocks::default().block(&request("localhost"), Form::GO))
}

/// What is sent behind the preface and the settings, and the codes that may be the answer: of GOAWAY, or of RST_STREAM
/// where the RFC leaves the choice.
fn wrong_frames() -> Vec<(&'static str, Vec<u8>, &'static [u32])> {
    let many = |frames: Vec<Frame>| frames.iter().flat_map(Frame::bytes).collect::<Vec<u8>>();
    let one = |frame: Frame| frame.bytes();
    let protocol = &[PROTOCOL_ERROR][..];
    // The RFC has FRAME_SIZE_ERROR for these; a library that says less exactly what was wrong is nobody's harm.
    let size = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR][..];
    vec![
        ("data on stream 0", one(Frame::data(0, [1])), protocol),
        ("headers on stream 0", one(call(0)), protocol),
        ("headers on an even stream", one(call(2)), protocol),
        ("data on an idle stream", one(Frame::data(1, [1])), protocol),
        ("a reset of an idle stream", one(Frame::reset(1, 8)), protocol),
        ("a window of an idle stream", one(Frame::window_update(1, 1)), protocol),
        ("streams that go back", many(vec![call(5), call(3)]), &[PROTOCOL_ERROR, STREAM_CLOSED]),
        ("the same stream again", many(vec![call(1), call(1)]), &[PROTOCOL_ERROR, STREAM_CLOSED]),
        ("a continuation of nothing", one(Frame::new(kind::CONTINUATION, 4, 1, [])), protocol),
        ("a ping within a header", many(vec![call(1).cut(9).swap_remove(0), Frame::ping([0; 8])]), protocol),
        ("data within a header", many(vec![call(1).cut(9).swap_remove(0), Frame::data(1, [0])]), protocol),
        (
            "a continuation of another stream",
            many(vec![call(1).cut(9).swap_remove(0), Frame::new(kind::CONTINUATION, 4, 3, [])]),
            protocol,
        ),
        ("settings of 5 bytes", one(Frame::new(kind::SETTINGS, 0, 0, [0; 5])), size),
        ("settings on a stream", one(Frame::new(kind::SETTINGS, 0, 1, [])), protocol),
        ("an acknowledgement with settings", one(Frame::new(kind::SETTINGS, flag::ACK, 0, [0; 6])), size),
        (
            "a window of 2 GiB",
            one(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])),
            &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR],
        ),
        ("frames of a byte", one(Frame::settings(&[(setting::MAX_FRAME_SIZE, 1)])), protocol),
        ("frames of 2 GiB", one(Frame::settings(&[(setting::MAX_FRAME_SIZE, u32::MAX)])), protocol),
        ("push, perhaps", one(Frame::settings(&[(2, 2)])), protocol),
        ("a ping of 7 bytes", one(Frame::new(kind::PING, 0, 0, [0; 7])), size),
        ("a ping on a stream", one(Frame::new(kind::PING, 0, 1, [0; 8])), protocol),
        ("a reset of 3 bytes", many(vec![call(1), Frame::new(kind::RST_STREAM, 0, 1, [0; 3])]), size),
        ("a reset of stream 0", one(Frame::reset(0, 8)), protocol),
        ("a window of 3 bytes", one(Frame::new(kind::WINDOW_UPDATE, 0, 0, [0; 3])), size),
        ("a window of nothing", one(Frame::window_update(0, 0)), protocol),
        ("too large a window", one(Frame::window_update(0, (1 << 31) - 1)), &[FLOW_CONTROL_ERROR]),
        (
            "too large a window of a stream",
            many(vec![call(1), Frame::window_update(1, (1 << 31) - 1)]),
            &[FLOW_CONTROL_ERROR],
        ),
        ("padding beyond the data", many(vec![call(1), Frame::new(kind::DATA, flag::PADDED, 1, [9, 0])]), protocol),
        (
            "padding without a length",
            many(vec![call(1), Frame::new(kind::DATA, flag::PADDED, 1, [])]),
            &[PROTOCOL_ERROR, FRAME_SIZE_ERROR],
        ),
        ("padding beyond the header", one(Frame::new(kind::HEADERS, 4 | flag::PADDED, 1, [200, 0, 0])), protocol),
        (
            "a priority without bytes",
            one(Frame::new(kind::HEADERS, 4 | flag::PRIORITY, 1, [0, 0])),
            &[PROTOCOL_ERROR, FRAME_SIZE_ERROR],
        ),
        ("too long a frame of data", many(vec![call(1), Frame::data(1, vec![0; 16_385])]), size),
        ("too long a header", one(Frame::headers(1, vec![0x82; 16_385])), &[FRAME_SIZE_ERROR, COMPRESSION_ERROR]),
        ("a frame that says 16 MiB", Frame::data(1, [0; 20]).bytes_saying(0xff_ffff), size),
        ("an unknown frame of 16 MiB", Frame::new(0xbe, 0, 0, [0; 20]).bytes_saying(0xff_ffff), size),
        ("a promise", one(Frame::new(kind::PUSH_PROMISE, 4, 1, [0, 0, 0, 2])), protocol),
    ]
}

/// Blocks that are no HPACK.
fn wrong_blocks() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an index beyond the tables", vec![0x80 | 100]),
        ("an index far beyond", vec![0xff, 0xff, 0xff, 0x7f]),
        ("index 0", vec![0x80]),
        ("an endless number", [&[0xff][..], &[0xff; 20]].concat()),
        ("a table of 1 MiB", vec![0x3f, 0xe1, 0xff, 0x3f]),
        ("a size behind a header", vec![0x82, 0x20]),
        ("a string beyond the block", vec![0x40, 0x7f, b'a']),
        ("a string of 4 GiB", vec![0x40, 0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f]),
        ("Huffman's end of string", vec![0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'a']),
        ("too much padding", vec![0x00, 0x82, 0xff, 0xff, 0x01, b'a']),
        ("padding of zeros", vec![0x00, 0x81, 0x00, 0x01, b'a']),
        ("a block that ends in a number", vec![0x82, 0xff]),
    ]
}

async fn start(options: Options) -> (Pair, Door, Connection, Tunnel, Target) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let door = Door::of(&pair);
    let connection = Connection::open(&door).await;
    let target = Target::echo();
    let honest = Tunnel::dial(&connection, target.address).await.unwrap();
    (pair, door, connection, honest, target)
}

#[tokio::test]
async fn wrong_frames_end_the_connection_with_the_error_of_the_rfc() {
    for options in BOTH {
        let (pair, door, connection, mut honest, _target) = start(options()).await;
        for (name, bytes, codes) in wrong_frames() {
            let mut wire = Wire::greeted(&door).await;
            wire.out.bytes(&bytes).await.unwrap();
            is_refused(name, wire, codes).await;
            honest.echo(name.as_bytes()).await;
        }
        for (name, block) in wrong_blocks() {
            for frames in [vec![Frame::headers(1, block.clone())], Frame::headers(1, block.clone()).cut(1)] {
                let mut wire = Wire::greeted(&door).await;
                wire.say(frames).await;
                is_refused(name, wire, &[COMPRESSION_ERROR, PROTOCOL_ERROR]).await;
            }
            honest.echo(name.as_bytes()).await;
        }
        drop((honest, connection));
        nothing_remains(&pair).await;
    }
}

/// The connection ends with one of the codes; or the stream does, and we end the connection.
async fn is_refused(name: &str, mut wire: Wire, codes: &[u32]) {
    loop {
        let frame = match within(name, wire.back.next()).await {
            Ok(frame) => frame,
            Err(error) => panic!("{name}: the connection ended without a word: {error}"),
        };
        let code = match frame.kind {
            kind::GOAWAY => frame.number(4),
            kind::RST_STREAM => frame.number(0),
            _ => continue,
        };
        assert!(codes.contains(&code), "{name}: code {code}, expected one of {codes:?}; {frame:?}");
        if frame.kind == kind::GOAWAY {
            let rest = wire.farewell().await;
            assert!(rest.frames.iter().all(|frame| frame.kind != kind::DATA), "{name}: {rest:?}");
        }
        return;
    }
}

#[tokio::test]
async fn what_is_not_http_2_is_hung_up_on() {
    for options in BOTH {
        let (pair, door, connection, mut honest, _target) = start(options()).await;
        for (name, bytes) in [
            ("a wrong preface", &b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n"[..]),
            ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("CONNECT", b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            ("zeros", &[0; 24]),
            ("ones", &[0xff; 100_000]),
            ("ones behind the preface", &[&PREFACE[..], &[0xff; 1000]].concat()),
        ] {
            let mut wire = Wire::open(&door).await;
            // The server may hang up in the midst of it.
            let _ = wire.out.bytes(bytes).await;
            let (answer, _) = within(name, wire.back.raw()).await;
            assert!(answer.len() < 1000, "{name}: {} bytes", answer.len());
            honest.echo(b"beside it").await;
        }
        drop((honest, connection));
        nothing_remains(&pair).await;
    }
}

/// Frames that promise more than comes before the client goes.
#[tokio::test]
async fn clients_that_go_in_the_middle_of_a_frame_leave_nothing() {
    for options in BOTH {
        let (pair, door, connection, honest, target) = start(options()).await;
        let dial = message(&Packet::dial_request(target.address.to_string(), 1));
        for bytes in [
            PREFACE[..10].to_vec(),
            [&PREFACE[..], &Frame::settings(&[]).bytes()[..4]].concat(),
            [&PREFACE[..], &Frame::settings(&[]).bytes(), &call(1).bytes()[..30]].concat(),
            [&PREFACE[..], &Frame::settings(&[]).bytes(), &call(1).bytes(), &Frame::data(1, dial).bytes()[..20]]
                .concat(),
            [&PREFACE[..], &Frame::settings(&[]).bytes(), &call(1).bytes(), &Frame::data(1, [0]).bytes_saying(9000)]
                .concat(),
        ] {
            let mut wire = Wire::open(&door).await;
            wire.out.bytes(&bytes).await.unwrap();
        }
        drop((honest, connection));
        nothing_remains(&pair).await;
    }
}

/// Malformed requests (RFC 9113, section 8.1.1) end their own stream at most.
#[tokio::test]
async fn malformed_requests_end_their_own_streams() {
    let without =
        |name: &str| -> Headers { request("localhost").into_iter().filter(|(known, _)| known != name).collect() };
    let also = |name: &str, value: &str| -> Headers {
        request("localhost").into_iter().chain([(name.to_owned(), value.to_owned())]).collect()
    };
    for options in BOTH {
        let (pair, _door, connection, mut honest, _target) = start(options()).await;
        for headers in [
            without(":path"),
            without(":method"),
            without(":scheme"),
            with(request("localhost"), ":path", ""),
            also(":path", "/again"),
            also(":method", "POST"),
            also(":status", "200"),
            also(":unknown", "1"),
            also("connection", "close"),
            also("transfer-encoding", "chunked"),
            also("Upper-Case", "1"),
            also("a header", "1"),
            also("te", "gzip"),
            also("x-control", "a\0b"),
            also("x-line", "a\r\nb"),
        ] {
            let rpc = connection.call_with(&headers, Form::GO).await;
            rpc.send_bytes(&message(&Packet::dial_request("127.0.0.1:1", 1))).await;
            // Some of these a lenient server serves; whatever it does, the others do not notice.
            match rpc.next().await {
                Some(packet) => println!("served in spite of {:?}: {packet:?}", headers.last()),
                None => {
                    let status = rpc.status().await;
                    let refused =
                        status.reset.is_some() || status.http.as_deref() != Some("200") || status.code != Some(0);
                    assert!(refused, "{headers:?}: {status:?}");
                }
            }
            rpc.cancel().await;
            honest.echo(b"beside it").await;
        }
        drop((honest, connection));
        nothing_remains(&pair).await;
    }
}

/// Windows are no advice.
#[tokio::test]
async fn a_client_that_sends_beyond_its_window_is_cut_off() {
    for options in BOTH {
        let (pair, door, connection, mut honest, _target) = start(options()).await;
        let stuck = Target::deaf();
        let mut wire = Wire::greeted(&door).await;
        let id = wire.dial(1, "localhost", stuck.address).await;
        let packet = message(&Packet::data(id, bytes::Bytes::from(vec![7; 16_000])));
        let Wire { mut out, mut back } = wire;
        // 128 MiB; the answer is there long before.
        let sending = async {
            for _ in 0..8_000 {
                if out.frame(&Frame::data(1, packet.clone())).await.is_err() {
                    return;
                }
            }
            let _ = out.frame(&Frame::ping([9; 8])).await;
        };
        let told = async {
            loop {
                match back.next().await {
                    Ok(frame) if frame.kind == kind::GOAWAY => return Some(frame.number(4)),
                    Ok(frame) if frame.kind == kind::RST_STREAM => return Some(frame.number(0)),
                    Ok(frame) if frame.kind == kind::PING && frame.flags & flag::ACK != 0 => return None,
                    Ok(_) => {}
                    // A socket that is closed with bytes in it may swallow the last words.
                    Err(_) => return Some(FLOW_CONTROL_ERROR),
                }
            }
        };
        let code = within("the answer", async {
            tokio::select! { biased; code = told => code, () = async { sending.await; std::future::pending().await } => None }
        })
        .await;
        let refused = code.is_some_and(|code| [FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM].contains(&code));
        assert!(refused, "{code:?}");
        honest.echo(b"beside it").await;
        drop((honest, connection));
        nothing_remains(&pair).await;
    }
}
