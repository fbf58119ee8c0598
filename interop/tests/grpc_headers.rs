//! Headers of calls in every representation, above all an `:authority` that is a percent-encoded path, as
//! kube-apiserver sends it: every call is served, and the header tables of both ends stay in step.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use konnectivity_interop::{
    ends::{Target, within},
    load::path::Dial,
    pair::{
        Options, Pair,
        grpc::{
            connection::{Connection, Habits},
            door::Door,
            frame::{Frame, PREFACE, flag, kind},
            header::{Blocks, Form, Table, request, with},
            message, nothing_remains,
            rpc::Rpc,
            tunnel::{Tunnel, dial},
            wire::Wire,
        },
    },
};
use konnectivity_transport::packet::Packet;
use tokio::io::AsyncWriteExt;

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

/// What Go clients send: a path, a bare IPv6 address, and others that `http::uri::Authority` takes or not.
const AUTHORITIES: [&str; 10] = [
    "%2Fetc%2Fkubernetes%2Fkonnectivity-server%2Fkonnectivity-server.socket",
    "%2Ftmp%2Fa",
    "%2ftmp%2Fwith%20space%25",
    "fd00::1",
    "::1",
    "[::1]:8090",
    "localhost",
    "127.0.0.1:8090",
    "konnectivity-server.kube-system.svc.cluster.local",
    "a..b",
];

async fn start(options: Options) -> (Pair, Door, Target) {
    let pair = Pair::start(options.grpc()).await.unwrap();
    let door = Door::of(&pair);
    (pair, door, Target::echo())
}

async fn is_served(rpc: Rpc, target: &Target) {
    let id = dial(&rpc, target.address).await.unwrap();
    Tunnel::over(rpc, id).echo(b"served").await;
}

#[tokio::test]
async fn every_authority_in_every_form_is_served() {
    for options in BOTH {
        let (pair, door, target) = start(options()).await;
        for form in Form::ALL {
            let connection = Connection::open(&door).await;
            // Twice, so that what was added to the table is used.
            for authority in AUTHORITIES.iter().chain(&AUTHORITIES) {
                is_served(connection.call_with(&request(authority), form).await, &target).await;
            }
        }
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn hundreds_of_streams_keep_the_tables_in_step() {
    for options in BOTH {
        let (pair, door, target) = start(options()).await;
        let connection = Connection::open(&door).await;
        let mut open = Vec::new();
        for place in 0..300_usize {
            let authority = AUTHORITIES[place * 7 % AUTHORITIES.len()];
            // More of them than the table has room for, so that old ones are dropped.
            let headers = with(request(authority), "user-agent", &format!("grpc-go/1.83.{}", place % 90));
            let headers = with(headers, "x-something", &"%2F".repeat(place % 50));
            let rpc = connection.call_with(&headers, Form::ALL[place * 5 % Form::ALL.len()]).await;
            if place % 3 == 0 {
                is_served(rpc, &target).await;
            } else {
                let id = dial(&rpc, target.address).await.unwrap();
                open.push(Tunnel::over(rpc, id));
            }
            if place % 50 == 49 {
                // Some go, some stay.
                for tunnel in open.drain(..open.len() / 2) {
                    tunnel.rpc.cancel().await;
                }
            }
        }
        for tunnel in &mut open {
            tunnel.echo(b"still in step").await;
        }
        drop((open, connection));
        nothing_remains(&pair).await;
    }
}

#[tokio::test]
async fn a_header_may_come_in_any_number_of_frames() {
    for options in BOTH {
        let (_pair, door, target) = start(options()).await;
        let connection = Connection::open(&door).await;
        let authority = AUTHORITIES[0];
        for piece in [3, 7, 50, 16_384] {
            for form in Form::ALL {
                let rpc = connection
                    .call_by(|blocks, id| Frame::headers(id, blocks.block(&request(authority), form)).cut(piece))
                    .await;
                is_served(rpc, &target).await;
            }
        }
        // By now all of it is in the table, a byte for each header.
        let rpc = connection
            .call_by(|blocks, id| Frame::headers(id, blocks.block(&request(authority), Form::GO)).cut(1))
            .await;
        is_served(rpc, &target).await;
        // The first frame, and the last one, may be empty.
        let rpc = connection
            .call_by(|blocks, id| {
                let block = blocks.block(&request(authority), Form::GO);
                vec![
                    Frame::new(kind::HEADERS, 0, id, []),
                    Frame::new(kind::CONTINUATION, 0, id, block),
                    Frame::new(kind::CONTINUATION, flag::END_HEADERS, id, []),
                ]
            })
            .await;
        is_served(rpc, &target).await;
    }
}

#[tokio::test]
async fn headers_may_be_padded_and_have_a_priority() {
    for options in BOTH {
        let (_pair, door, target) = start(options()).await;
        let connection = Connection::open(&door).await;
        let padded = |padding: u8| move |frame: Frame| vec![frame.padded(padding)];
        let shapes: [Box<dyn Fn(Frame) -> Vec<Frame>>; 6] = [
            Box::new(padded(0)),
            Box::new(padded(255)),
            Box::new(|frame| vec![frame.prioritized()]),
            Box::new(|frame| vec![frame.prioritized().padded(9)]),
            Box::new(|frame| {
                let mut pieces = frame.cut(20);
                pieces[0] = pieces[0].clone().prioritized().padded(30);
                pieces
            }),
            Box::new(|frame| {
                let stream = frame.stream;
                vec![Frame::new(kind::PRIORITY, 0, stream, [0, 0, 0, 0, 1]), frame]
            }),
        ];
        for shape in shapes.iter().chain(&shapes) {
            let rpc = connection
                .call_by(|blocks, id| shape(Frame::headers(id, blocks.block(&request(AUTHORITIES[0]), Form::GO))))
                .await;
            is_served(rpc, &target).await;
        }
        // Data too, in any pieces.
        let rpc = connection.call().await;
        for byte in message(&Packet::dial_request(target.address.to_string(), 5)) {
            rpc.frame(Frame::data(rpc.id, [byte]).padded(3)).await;
            rpc.frame(Frame::data(rpc.id, [])).await;
        }
        let packet = rpc.packet().await;
        assert!(
            matches!(&packet.payload, Some(konnectivity_transport::packet::Payload::DialResponse(response))
            if response.error.is_empty() && response.random == 5),
            "{packet:?}"
        );
    }
}

#[tokio::test]
async fn the_table_may_change_its_size() {
    for options in BOTH {
        let (_pair, door, target) = start(options()).await;
        let connection = Connection::open(&door).await;
        for sizes in [&[4096][..], &[0], &[0, 4096], &[100], &[0, 150], &[1000], &[0, 4096]] {
            for (place, authority) in AUTHORITIES.iter().take(3).enumerate() {
                let rpc = connection
                    .call_by(|blocks, id| {
                        let update = if place == 0 { sizes } else { &[] };
                        let mut block: Vec<_> = update.iter().flat_map(|&size| blocks.resize(size)).collect();
                        block.extend(blocks.block(&request(authority), Form::GO));
                        vec![Frame::headers(id, block)]
                    })
                    .await;
                is_served(rpc, &target).await;
            }
        }
    }
}

/// The preface, the settings, the headers and the first packet in one segment; and each byte of them alone.
#[tokio::test]
async fn everything_may_come_at_once_or_byte_by_byte() {
    for options in BOTH {
        let (_pair, door, target) = start(options()).await;
        let mut blocks = Blocks::default();
        let bytes = [
            &PREFACE[..],
            &Frame::settings(&[]).bytes(),
            &Frame::headers(1, blocks.block(&request(AUTHORITIES[0]), Form::GO)).bytes(),
            &Frame::data(1, message(&Packet::dial_request(target.address.to_string(), 5))).bytes(),
            &Frame::headers(3, blocks.block(&request(AUTHORITIES[0]), Form::GO)).bytes(),
            &Frame::data(3, message(&Packet::dial_request(target.address.to_string(), 6))).bytes(),
        ]
        .concat();
        for piece in [bytes.len(), 1, 10] {
            let mut dial: Dial = door.open().await.unwrap();
            for piece in bytes.chunks(piece) {
                dial.write_all(piece).await.unwrap();
                dial.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut wire = Wire::over(dial);
            let mut answered = Vec::new();
            while answered.len() < 2 {
                let frame = within("both answers", wire.back.next()).await.unwrap();
                if frame.kind == kind::DATA {
                    answered.push(frame.stream);
                }
                assert_ne!(frame.kind, kind::RST_STREAM, "{frame:?}");
            }
            answered.sort_unstable();
            assert_eq!(answered, [1, 3]);
        }
    }
}

#[tokio::test]
async fn a_call_without_authority_is_served() {
    let (_pair, door, target) = start(Options::unix()).await;
    let connection = Connection::open(&door).await;
    for extra in [None, Some(("host", "%2Ftmp%2Fa")), Some(("host", "localhost"))] {
        let mut headers = request("");
        headers.retain(|(name, _)| name != ":authority");
        headers.extend(extra.map(|(name, value)| (name.to_owned(), value.to_owned())));
        is_served(connection.call_with(&headers, Form::GO).await, &target).await;
    }
}

/// Metadata that some client's user may have added.
#[tokio::test]
async fn strange_headers_besides_are_nobodys_business() {
    let (_pair, door, target) = start(Options::unix()).await;
    let habits = Habits { form: Form { huffman: false, table: Table::Indexed }, ..Habits::default() };
    let connection = Connection::with(&door, habits).await;
    for (name, value) in
        [("x-percent", "%2F%00"), ("x-long", &*"v".repeat(4_000)), ("x-empty", ""), ("grpc-timeout", "1H")]
    {
        let headers = with(request(AUTHORITIES[0]), name, value);
        for _ in 0..2 {
            is_served(connection.call_with(&headers, Form::GO).await, &target).await;
        }
    }
}
