//! What a client may not do, and what it is told.

use super::*;
use crate::http2::{
    block::MAX_CONTINUATIONS,
    code::Gone,
    pace::{FLOOD, TOO_MANY_PINGS},
    request::MAX_LIST_BYTES,
    testing::put_integer,
};

/// The fault that these octets of a greeted client are.
fn fault_of(octets: &[u8]) -> Option<Code> {
    let mut server = Server::greeted();
    server.feed(octets);
    let fault = server.session.fault();
    let goaway = server.take_frames().into_iter().rfind(|(head, _)| head.kind == kind::GOAWAY);
    match (fault, goaway) {
        (None, None) => None,
        (Some(fault), Some((_, payload))) => {
            assert_eq!(payload[4..8], fault.code.0.to_be_bytes());
            assert_eq!(payload[8..], *fault.reason.as_bytes());
            assert!(!server.session.wants_input());
            assert_eq!(server.session.held(), 0);
            Some(fault.code)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_that_end_the_connection() {
    let open = frame(kind::HEADERS, 0, 1, b"\x82");
    let protocol = Code::PROTOCOL_ERROR;
    let size = Code::FRAME_SIZE_ERROR;
    let table = [
        ("DATA on stream 0", data(0, 1), protocol),
        ("HEADERS on stream 0", call(0), protocol),
        ("HEADERS on an even stream", call(2), protocol),
        ("DATA on an idle stream", data(1, 1), protocol),
        ("DATA on a stream of this side", [call(3), data(2, 1)].concat(), protocol),
        ("RST_STREAM on an idle stream", reset(1, Code::CANCEL), protocol),
        ("RST_STREAM on stream 0", reset(0, Code::CANCEL), protocol),
        ("WINDOW_UPDATE on an idle stream", window(1, 1), protocol),
        ("streams that go back", [call(5), call(3)].concat(), Code::STREAM_CLOSED),
        (
            "headers of a stream that has ended",
            [call(1), reset(1, Code::CANCEL), call(1)].concat(),
            Code::STREAM_CLOSED,
        ),
        ("CONTINUATION without HEADERS", frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x82"), protocol),
        ("PUSH_PROMISE", [call(1), frame(kind::PUSH_PROMISE, 4, 1, b"\0\0\0\x02\x82")].concat(), protocol),
        ("DATA within a block", [open.clone(), data(1, 1)].concat(), protocol),
        ("HEADERS within a block", [open.clone(), call(1)].concat(), protocol),
        ("CONTINUATION of another", [open.clone(), frame(kind::CONTINUATION, 4, 3, b"")].concat(), protocol),
        ("an unknown frame within a block", [open, frame(0xbe, 0, 1, b"")].concat(), protocol),
        ("HEADERS: padding without its length", frame(kind::HEADERS, flag::PADDED, 1, b""), protocol),
        ("HEADERS: padding too long", frame(kind::HEADERS, flag::PADDED, 1, b"\x02\0"), protocol),
        ("HEADERS: priority cut off", frame(kind::HEADERS, flag::PRIORITY, 1, b"\0\0\0\0"), protocol),
        (
            "HEADERS: padding over priority",
            frame(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, b"\x01\0\0\0\0\0"),
            protocol,
        ),
        ("DATA: padding without its length", [call(1), frame(0, flag::PADDED, 1, b"")].concat(), protocol),
        ("DATA: padding too long", [call(1), frame(0, flag::PADDED, 1, b"\x05abcd")].concat(), protocol),
        ("SETTINGS of 5 octets", frame(kind::SETTINGS, 0, 0, &[0; 5]), size),
        ("SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, b""), protocol),
        ("SETTINGS with ACK and payload", frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), size),
        ("ENABLE_PUSH of 2", settings(&[(2, 2)]), protocol),
        ("a first window of 2^31", settings(&[(4, 1 << 31)]), Code::FLOW_CONTROL_ERROR),
        ("frames of 16,383 octets", settings(&[(5, 16_383)]), protocol),
        ("frames of 2^24 octets", settings(&[(5, 1 << 24)]), protocol),
        ("PING of 7 octets", frame(kind::PING, 0, 0, &[0; 7]), size),
        ("PING of 9 octets", frame(kind::PING, 0, 0, &[0; 9]), size),
        ("PING on a stream", frame(kind::PING, 0, 1, &[0; 8]), protocol),
        ("RST_STREAM of 3 octets", [call(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(), size),
        ("WINDOW_UPDATE of 3 octets", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), size),
        ("PRIORITY of 4 octets", frame(kind::PRIORITY, 0, 1, &[0; 4]), size),
        ("PRIORITY on stream 0", frame(kind::PRIORITY, 0, 0, &[0; 5]), protocol),
        ("GOAWAY of 7 octets", frame(kind::GOAWAY, 0, 0, &[0; 7]), size),
        ("GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), protocol),
        ("a window of nothing", window(0, 0), protocol),
        ("too large a window", window(0, MAX_WINDOW), Code::FLOW_CONTROL_ERROR),
        ("too large a frame", data(1, 16_385)[..9].to_vec(), size),
        ("too large an unknown frame", frame(0xbe, 0, 1, &[0; 16_385])[..9].to_vec(), size),
        ("no such index", frame(kind::HEADERS, flag::END_HEADERS, 1, b"\xff\x7f"), Code::COMPRESSION_ERROR),
    ];
    for (what, octets, code) in table {
        assert_eq!(fault_of(&octets), Some(code), "{what}");
    }
}

#[test]
fn frames_that_are_nobodys_business() {
    let table = [
        ("an unknown frame", frame(0xbe, 0xff, 7, &[0; 100])),
        ("PRIORITY of an idle stream", frame(kind::PRIORITY, 0, 9, &[0; 5])),
        ("GOAWAY", frame(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0bye")),
        ("an acknowledged PING of nobody", frame(kind::PING, flag::ACK, 0, &[0; 8])),
        ("an acknowledgement of settings", frame(kind::SETTINGS, flag::ACK, 0, b"")),
        ("an unknown setting", settings(&[(0xbeef, u32::MAX), (6, 0), (3, 0), (2, 0), (2, 1)])),
        ("RST_STREAM twice", [call(1), reset(1, Code::CANCEL), reset(1, Code::CANCEL)].concat()),
        ("WINDOW_UPDATE behind RST_STREAM", [call(1), reset(1, Code::CANCEL), window(1, 1)].concat()),
        ("the reserved bit", [&call(1)[..5], &[0x80, 0, 0, 1], &call(1)[9..]].concat()),
        ("streams with gaps", [call(1), call(101), call(103)].concat()),
    ];
    for (what, octets) in table {
        assert_eq!(fault_of(&octets), None, "{what}");
    }
}

#[test]
fn what_ends_a_stream_only() {
    let end = flag::END_HEADERS | flag::END_STREAM;
    let bad = frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&[request("a"), vec![field("Bad", "v")]].concat()));
    let trailers = |flags, fields: &[OwnField]| frame(kind::HEADERS, flags, 1, &block(fields));
    let ended = frame(kind::HEADERS, end, 1, &block(&request("a")));
    let table = [
        ("a bad field", bad, Code::PROTOCOL_ERROR),
        ("trailers without an end", [call(1), trailers(flag::END_HEADERS, &[])].concat(), Code::PROTOCOL_ERROR),
        ("trailers with a path", [call(1), trailers(end, &[field(":path", "/")])].concat(), Code::PROTOCOL_ERROR),
        ("DATA behind the end", [ended.clone(), data(1, 1)].concat(), Code::STREAM_CLOSED),
        ("trailers behind the end", [ended, trailers(end, &[])].concat(), Code::STREAM_CLOSED),
        ("DATA behind RST_STREAM", [call(1), reset(1, Code::CANCEL), data(1, 1)].concat(), Code::STREAM_CLOSED),
        ("a window of nothing", [call(1), window(1, 0)].concat(), Code::PROTOCOL_ERROR),
        ("too large a window", [call(1), window(1, MAX_WINDOW)].concat(), Code::FLOW_CONTROL_ERROR),
    ];
    for (what, octets, code) in table {
        let mut server = Server::greeted();
        server.feed(&octets);
        // The others do not notice.
        server.feed(&[call(3), data(3, 10)].concat());
        assert_eq!(resets(&mut server), [(1, code)], "{what}");
        assert_eq!((server.session.fault(), server.seen[&3].data.len()), (None, 10), "{what}");
        if let Some(seen) = server.seen.get(&1) {
            assert!(seen.end.is_some(), "{what}");
        }
    }
}

#[test]
fn frames_on_a_stream_that_this_side_has_reset_are_no_error() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.session.give_up(1, Code::CANCEL);
    assert_eq!(resets(&mut server), [(1, Code::CANCEL)]);
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\x40\x01x\x01y");
    server.feed(&[data(1, 1000), window(1, 5), trailers].concat());
    assert_eq!((server.session.fault(), server.take_frames()), (None, vec![]));
    // The tables are in step still.
    let fields = [block(&request("a")), vec![0xbe]].concat();
    server.feed(&frame(kind::HEADERS, flag::END_HEADERS, 3, &fields));
    assert_eq!(server.seen[&3].fields.last(), Some(&(b"x".to_vec(), b"y".to_vec())));
}

#[test]
fn trailers_end_the_clients_half() {
    let mut server = Server::greeted();
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block(&[field("x", "y")]));
    server.feed(&[call(1), data(1, 3), trailers].concat());
    assert_eq!((server.seen[&1].data.len(), server.seen[&1].end), (3, Some(Ok(()))));
}

#[test]
fn one_stream_too_many_is_refused() {
    let mut server = Server::with(Settings { max_streams: 2, ..SETTINGS });
    server.feed(&[&PREFACE[..], &settings(&[]), &call(1), &call(3), &call(5)].concat());
    assert_eq!(resets(&mut server), [(5, Code::REFUSED_STREAM)]);
    // One that is ended by both sides makes room; one that is ended by one does not.
    server.session.respond(1, vec![0x88], true).unwrap();
    server.session.respond(3, vec![0x88], false).unwrap();
    server.take_frames();
    server.feed(&[frame(kind::DATA, flag::END_STREAM, 3, b""), call(7), call(9)].concat());
    assert_eq!(resets(&mut server), [(9, Code::REFUSED_STREAM)]);
    assert!(server.seen.contains_key(&7));
}

#[test]
fn a_request_that_was_reset_is_not_accepted() {
    let mut server = Server::greeted();
    server.feed(&[call(1), reset(1, Code::CANCEL), call(3)].concat());
    assert_eq!(server.seen.keys().collect::<Vec<_>>(), [&3]);
}

#[test]
fn what_came_before_a_reset_can_be_read() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.feed(&[data(1, 5), reset(1, Code::CANCEL)].concat());
    let seen = &server.seen[&1];
    assert_eq!((seen.data.len(), seen.end), (5, Some(Err(Gone::Reset(Code::CANCEL)))));
}

#[test]
fn the_preface_and_settings_come_first() {
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"\x16\x03\x01", &[0; 24]] {
        let mut server = Server::default();
        server.feed(octets);
        assert_eq!(server.session.fault().unwrap().code, Code::PROTOCOL_ERROR);
    }
    for first in [call(1), frame(kind::PING, 0, 0, &[0; 8]), frame(kind::SETTINGS, flag::ACK, 0, b"")] {
        let mut server = Server::default();
        server.feed(&[&PREFACE[..], &first].concat());
        assert_eq!(server.session.fault().unwrap().code, Code::PROTOCOL_ERROR);
        assert!(server.seen.is_empty());
    }
}

#[test]
fn a_block_has_a_bound() {
    let full = vec![0; 16_384];
    let more = frame(kind::CONTINUATION, 0, 1, &full);
    let endless = [frame(kind::HEADERS, 0, 1, &full), more.repeat(3)].concat();
    assert_eq!(fault_of(&endless), None);
    let calm = Some(Code::ENHANCE_YOUR_CALM);
    assert_eq!(fault_of(&[endless, frame(kind::CONTINUATION, 0, 1, b"\0")].concat()), calm);
    for (pieces, code) in [(MAX_CONTINUATIONS, None), (MAX_CONTINUATIONS + 1, calm)] {
        let mut frames = frame(kind::HEADERS, 0, 1, &block(&request("localhost")));
        frames.extend((1..pieces).flat_map(|_| frame(kind::CONTINUATION, 0, 1, b"")));
        frames.extend(frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""));
        assert_eq!(fault_of(&frames), code, "{pieces}");
    }
}

#[test]
fn a_list_that_is_too_large_is_a_request_that_says_so() {
    let name = "n".repeat(2000);
    let mut bomb = block(&request("localhost"));
    bomb.push(0x40);
    put_integer(&mut bomb, 0, 7, name.len());
    bomb.extend_from_slice(name.as_bytes());
    bomb.extend_from_slice(b"\x01v");
    // A few octets that stand for megabytes.
    bomb.resize(bomb.len() + 5000, 0xbe);
    let mut server = Server::greeted();
    let end = flag::END_HEADERS | flag::END_STREAM;
    server.feed(&frame(kind::HEADERS, end, 1, &bomb));
    assert!(server.seen[&1].is_too_large && server.seen[&1].fields.is_empty());
    assert!(server.most_held < 2 * MAX_LIST_BYTES, "{}", server.most_held);
    // The table is still in step; and there are no trailers as large.
    let fields = [block(&request("localhost")), vec![0xbe]].concat();
    server.feed(&frame(kind::HEADERS, flag::END_HEADERS, 3, &fields));
    assert_eq!(server.seen[&3].fields.last(), Some(&(name.into_bytes(), b"v".to_vec())));
    server.feed(&frame(kind::HEADERS, end, 3, &[0xbe; 5000]));
    assert_eq!(resets(&mut server), [(3, Code::PROTOCOL_ERROR)]);
    assert_eq!(server.session.fault(), None);
}

#[test]
fn floods_are_faults() {
    let ping = frame(kind::PING, 0, 0, &[1; 8]);
    let priority = frame(kind::PRIORITY, 0, 1, &[0; 5]);
    let rapid: Vec<u8> = (0..6000).flat_map(|n| [call(2 * n + 1), reset(2 * n + 1, Code::CANCEL)].concat()).collect();
    for (what, octets, fault) in [
        ("pings", ping.repeat(5), TOO_MANY_PINGS),
        ("pings among others", [settings(&[]), ping.repeat(5), settings(&[])].concat(), TOO_MANY_PINGS),
        ("settings", settings(&[(4, 1)]).repeat(20_000), FLOOD),
        ("priorities", priority.repeat(20_000), FLOOD),
        ("windows", window(0, 1).repeat(20_000), FLOOD),
        ("rapid reset", rapid, FLOOD),
    ] {
        let mut server = Server::greeted();
        server.feed(&octets);
        assert_eq!(server.session.fault(), Some(fault), "{what}");
        assert!(server.most_held < 128 * 1024, "{what}: {}", server.most_held);
    }
}

#[test]
fn a_client_that_reads_no_answers_is_not_listened_to() {
    for (what, octets) in [("PING", frame(kind::PING, 0, 0, &[0; 8])), ("SETTINGS", settings(&[]))] {
        let mut session = Server::greeted().session;
        let mut taken = 0;
        for _ in 0..MAX_CONTROL {
            let mut input = Bytes::from(octets.clone());
            session.pace.answered(1);
            session.pace.rest();
            session.receive(&mut input, octets.len());
            taken += octets.len() - input.len();
        }
        assert!(taken < 2 * MAX_CONTROL, "{what}: {taken}");
        assert_eq!((session.fault(), session.wants_input()), (None, false), "{what}");
    }
}

#[test]
fn a_window_full_of_single_octets_costs_little_more() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    let mut input = Bytes::from(data(1, 1).repeat(200_000));
    let buffer = input.len();
    while !input.is_empty() {
        server.session.receive(&mut input, buffer);
        server.session.rest();
    }
    let held = server.session.held();
    assert!(held < 300_000, "{held}");
    server.look();
    assert_eq!(server.seen[&1].data, vec![7; 200_000]);
}
