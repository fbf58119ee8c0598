#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use bytes::Bytes;

use super::*;
use crate::pair::grpc::frame::Frame;
use crate::pair::grpc::{framed, message};

const ID: i64 = 300;

/// Everything that comes of `bytes` when they arrive in pieces; bytes of the dial are put together.
fn events(bytes: &[u8], piece: usize) -> io::Result<(Vec<Event>, Vec<u8>, u32)> {
    let mut incoming = Incoming { connect_id: ID, ..Incoming::default() };
    let (mut events, mut data, mut received) = (Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        incoming.input.extend_from_slice(piece);
        while let Some(event) = incoming.event()? {
            received += incoming.received();
            match event {
                Event::Data(bytes) => {
                    // Not all at once, as a reader with a small buffer.
                    let bytes = bytes.div_ceil(2);
                    data.extend_from_slice(incoming.front(bytes));
                    incoming.consume(bytes);
                }
                event => events.push(event),
            }
        }
        received += incoming.received();
    }
    assert!(incoming.input.is_empty() && incoming.frame == 0 && incoming.head.is_empty());
    Ok((events, data, received))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn bytes_of_the_dial_survive_every_cut_of_frames_and_reads() {
    let bytes = pattern(5000);
    let sizes = [1, 63, 64, 127, 128, 4096, 521];
    let mut messages = Vec::new();
    let mut rest = bytes.as_slice();
    for size in sizes {
        messages.extend(message(&Packet::data(ID, Bytes::copy_from_slice(&rest[..size]))));
        rest = &rest[size..];
    }
    assert!(rest.is_empty());
    for frame in [1, 2, 5, 7, 13, 14, 100, 4000, MAX_PAYLOAD] {
        let wire: Vec<u8> = messages.chunks(frame).flat_map(|payload| Frame::data(1, payload).bytes()).collect();
        for piece in [1, 3, 8, 9, 10, 17, 1000, wire.len()] {
            let (events, data, received) = events(&wire, piece).unwrap();
            assert!(data == bytes && events.is_empty(), "frames of {frame}, reads of {piece}: {events:?}");
            assert_eq!(received as usize, messages.len());
        }
    }
}

#[test]
fn packets_without_bytes_come_whole() {
    let packets = [
        Packet::connected(i64::MAX, ID),
        Packet::dial_failed(7, "dial tcp 127.0.0.1:1: connect: connection refused"),
        Packet::close_response(ID, ""),
        Packet::close_response(ID, "x".repeat(300)),
        Packet::close_dial(7),
    ];
    let messages: Vec<u8> = packets.iter().flat_map(message).collect();
    let expected: Vec<_> = packets.into_iter().map(Event::Packet).collect();
    for frame in [1, 6, 40, MAX_PAYLOAD] {
        let wire: Vec<u8> = messages.chunks(frame).flat_map(|payload| Frame::data(1, payload).bytes()).collect();
        for piece in [1, 10, wire.len()] {
            let (events, data, _) = events(&wire, piece).unwrap();
            assert!(events == expected && data.is_empty(), "frames of {frame}, reads of {piece}: {events:?}");
        }
    }
}

#[test]
fn an_empty_message_is_a_packet() {
    assert_eq!(events(&Frame::data(1, framed(b"")).bytes(), 3).unwrap().0, [Event::Packet(Packet::default())]);
}

#[test]
fn bytes_without_a_length_or_of_none_are_no_bytes_of_the_dial() {
    // The reference's client takes them for the end; here they are seen as packets, which the client refuses.
    let empty = Packet::data(ID, Bytes::new());
    let (events, data, _) = events(&Frame::data(1, message(&empty)).bytes(), 100).unwrap();
    assert_eq!((events, data), (vec![Event::Packet(empty)], vec![]));
}

#[test]
fn frames_of_control_are_understood() {
    let wire: Vec<u8> = [
        Frame::settings(&[(setting::MAX_FRAME_SIZE, 16_384), (setting::INITIAL_WINDOW_SIZE, 99)]),
        Frame::settings(&[]),
        Frame::settings_ack(),
        Frame::ping(*b"12345678"),
        Frame::ping_ack(*b"87654321"),
        Frame::window_update(0, 5),
        Frame::window_update(1, 6),
        Frame::headers(1, b"\x88".as_slice()),
        Frame::new(kind::GOAWAY, 0, 0, [0; 8]),
        Frame::new(kind::GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 11]),
        Frame::reset(1, 8),
        Frame::new(200, 0, 7, b"unknown".as_slice()),
        Frame::headers(1, b"\x88".as_slice()).ending(),
        Frame::data(1, b"".as_slice()).ending(),
    ]
    .iter()
    .flat_map(Frame::bytes)
    .collect();
    use Event::*;
    let expected = [
        Settings(Some(99)),
        Settings(None),
        Nothing,
        Ping(*b"12345678"),
        Pong(*b"87654321"),
        WindowUpdate(0, 5),
        WindowUpdate(1, 6),
        Nothing,
        Nothing,
        Reset(11),
        Reset(8),
        Nothing,
        Ended,
        Ended,
    ];
    for piece in [1, 9, 11, wire.len()] {
        assert_eq!(events(&wire, piece).unwrap().0, expected);
    }
}

#[test]
fn what_no_server_should_send_is_an_error() {
    for (what, wire) in [
        ("too long", Frame::data(1, vec![0; MAX_PAYLOAD + 1]).bytes()),
        ("padded", Frame::data(1, b"x".as_slice()).padded(1).bytes()),
        ("compressed", Frame::data(1, b"\x01\0\0\0\x01".as_slice()).bytes()),
        ("4 MiB + 1", Frame::data(1, b"\0\x00\x40\0\x01".as_slice()).bytes()),
        ("another's bytes", Frame::data(1, message(&Packet::data(ID + 1, Bytes::from_static(b"x")))).bytes()),
        ("no packet", Frame::data(1, framed(b"\x08\x04\x22\x05\x08")).bytes()),
        ("a short ping", Frame::new(kind::PING, 0, 0, b"1234567".as_slice()).bytes()),
        ("a short window update", Frame::new(kind::WINDOW_UPDATE, 0, 0, b"123".as_slice()).bytes()),
    ] {
        let error = events(&wire, wire.len()).expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
    }
}
