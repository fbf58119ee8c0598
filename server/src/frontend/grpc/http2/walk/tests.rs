#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod properties;

use std::time::Duration;

use super::*;
use crate::frontend::grpc::http2::{
    block::{MAX_CONTINUATIONS, MAX_LIST_BYTES},
    field::TOO_LARGE_PATH,
    testing::{Encoder, Event, Form, MOST_HELD, OwnField, events, field, frame, put_integer, walk_all},
};

const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0xbe;

fn request(authority: &str) -> Vec<OwnField> {
    vec![
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/ProxyService/Proxy"),
        field(":authority", authority),
        field("content-type", "application/grpc"),
        field("user-agent", "grpc-go/1.80.0"),
        field("te", "trailers"),
    ]
}

fn plain_block(fields: &[OwnField]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|field| Encoder::default().put(field, Form::default(), &mut block));
    block
}

fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, block)
}

/// What the library sees of these frames, and the walker afterwards.
fn seen(frames: &[Vec<u8>]) -> (Vec<Event>, Walker) {
    let (out, walker) = raw(frames);
    (events(&out), walker)
}

fn raw(frames: &[Vec<u8>]) -> (Vec<u8>, Walker) {
    let mut walker = Walker::default();
    let octets = [&PREFACE[..], &frames.concat()].concat();
    let (out, most) = walk_all(&mut walker, &octets, &[]);
    assert!(most <= MOST_HELD, "{most} octets held");
    assert_eq!(&out[..PREFACE.len()], PREFACE);
    (out[PREFACE.len()..].to_vec(), walker)
}

#[test]
fn the_path_of_a_socket_becomes_localhost() {
    let (events, _) = seen(&[headers(1, &plain_block(&request("%2Frun%2Fx.socket")))]);
    assert_eq!(events, [Event::Headers { stream: 1, end_stream: false, fields: request("localhost") }]);
}

#[test]
fn a_large_block_leaves_in_as_many_frames_as_it_needs() {
    for value in [16_000, 16_384, 40_000, 60_000] {
        let fields = [request("localhost"), vec![field("x", &"v".repeat(value))]].concat();
        let block = plain_block(&fields);
        let mut frames = Vec::new();
        let mut pieces = block.chunks(16_384).enumerate().peekable();
        while let Some((place, piece)) = pieces.next() {
            let kind = if place == 0 { kind::HEADERS } else { kind::CONTINUATION };
            let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            frames.push(frame(kind, flags, 7, piece));
        }
        let (events, _) = seen(&frames);
        assert_eq!(events, [Event::Headers { stream: 7, end_stream: false, fields }]);
    }
}

#[test]
fn a_list_that_is_too_large_becomes_a_request_that_says_so() {
    let name = "n".repeat(2000);
    let mut block = plain_block(&request("localhost"));
    block.push(0x40);
    put_integer(&mut block, 0, 7, name.len());
    block.extend_from_slice(name.as_bytes());
    block.extend_from_slice(b"\x01v");
    // A few octets that stand for megabytes: a bomb.
    block.resize(block.len() + 5000, 0xbe);
    let frames = [
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block),
        headers(3, b"\xbe"),
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 3, &vec![0xbe; 5000]),
    ];
    let (events, mut walker) = seen(&frames);
    let Event::Headers { stream: 1, end_stream: true, fields } = &events[0] else { panic!("{events:?}") };
    assert!(fields.contains(&field(":path", TOO_LARGE_PATH)) && fields.contains(&field(":method", "POST")));
    // The table is still in step; and trailers cannot have a path.
    let expected = [
        Event::Headers { stream: 3, end_stream: false, fields: vec![field(&name, "v")] },
        Event::Headers { stream: 3, end_stream: true, fields: vec![field("connection", "close")] },
    ];
    assert_eq!(events[1..], expected);
    assert_eq!(walker.pace().violation(), None);
}

#[test]
fn the_list_is_measured_as_settings_do() {
    let value = |octets: usize| vec![field("x", &"v".repeat(octets))];
    let fits = MAX_LIST_BYTES - 32 - 1;
    for (octets, kept) in [(fits, true), (fits + 1, false)] {
        let mut block = Vec::new();
        // A Huffman string, or the block itself would be too large.
        let form = Form { huffman_value: true, ..Form::default() };
        Encoder::default().put(&value(octets)[0], form, &mut block);
        let frames: Vec<_> = block
            .chunks(16_000)
            .enumerate()
            .map(|(place, piece)| frame(if place == 0 { kind::HEADERS } else { kind::CONTINUATION }, 0, 1, piece))
            .chain([frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"")])
            .collect();
        let (events, _) = seen(&frames);
        let Event::Headers { fields, .. } = &events[0] else { panic!() };
        assert_eq!(*fields == value(octets), kept, "{octets}");
    }
}

#[test]
fn an_authority_that_grows_counts_as_what_it_becomes() {
    // 42 octets of the list each as they come, 51 as they are passed on.
    for (count, kept) in [(MAX_LIST_BYTES / 51, true), (MAX_LIST_BYTES / 51 + 1, false)] {
        assert!(count * 42 < MAX_LIST_BYTES);
        let (events, _) = seen(&[headers(1, &b"\x01\x00".repeat(count))]);
        let Event::Headers { fields, .. } = &events[0] else { panic!() };
        assert_eq!(*fields == vec![field(":authority", "localhost"); count], kept, "{count}");
    }
}

#[test]
fn a_bad_field_spoils_its_stream_and_not_the_table() {
    let mut block = plain_block(&request("localhost"));
    block.extend_from_slice(b"\x40\x03BAD\x01v");
    let (events, mut walker) = seen(&[headers(1, &block), headers(3, b"\x40\x01a\x01b"), headers(5, b"\xbe")]);
    let only = |stream, name, value| Event::Headers { stream, end_stream: false, fields: vec![field(name, value)] };
    assert_eq!(events, [only(1, "connection", "close"), only(3, "a", "b"), only(5, "a", "b")]);
    assert_eq!(walker.pace().violation(), None);
}

#[test]
fn a_block_without_end_is_a_violation() {
    let full = vec![0; 16_384];
    let begin = frame(kind::HEADERS, 0, 1, &full);
    let more = frame(kind::CONTINUATION, 0, 1, &full);
    let frames = [begin, more.clone(), more.clone(), more.clone(), frame(kind::CONTINUATION, 0, 1, b"\0"), more];
    let (events, mut walker) = seen(&frames[..4]);
    assert_eq!((events.len(), walker.pace().violation()), (0, None));
    let (events, mut walker) = seen(&frames);
    assert_eq!((events.len(), walker.pace().violation()), (0, Some(Violation::HeadersTooLarge)));
    assert!(walker.held() < 100, "{}", walker.held());
}

#[test]
fn a_block_in_too_many_pieces_is_a_violation() {
    for (pieces, violation) in [(MAX_CONTINUATIONS, None), (MAX_CONTINUATIONS + 1, Some(Violation::HeadersTooLarge))] {
        let mut frames = vec![frame(kind::HEADERS, 0, 1, &plain_block(&request("localhost")))];
        frames.extend((1..pieces).map(|_| frame(kind::CONTINUATION, 0, 1, b"")));
        frames.push(frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""));
        let (events, mut walker) = seen(&frames);
        assert_eq!((walker.pace().violation(), events.len()), (violation, usize::from(violation.is_none())));
    }
}

#[test]
fn a_block_that_cannot_be_decoded_is_a_violation() {
    let (events, mut walker) = seen(&[headers(1, b"\x82\x80"), headers(3, b"\x82")]);
    assert_eq!((events, walker.pace().violation()), (vec![], Some(Violation::BadCompression)));
}

#[test]
fn frames_in_the_wrong_place_become_one_that_the_library_refuses() {
    let open = frame(kind::HEADERS, 0, 1, b"\x82");
    let refused = frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"");
    for (what, frames) in [
        ("CONTINUATION without HEADERS", vec![frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x82")]),
        ("PUSH_PROMISE of a client", vec![frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, b"\0\0\0\x02\x82")]),
        ("DATA within a block", vec![open.clone(), frame(kind::DATA, 0, 1, b"x")]),
        ("HEADERS within a block", vec![open.clone(), headers(1, b"\x82")]),
        ("CONTINUATION of another stream", vec![open.clone(), frame(kind::CONTINUATION, 0, 3, b"\x82")]),
        ("unknown frame within a block", vec![open, frame(UNKNOWN, 0, 1, b"")]),
        ("padding without its length", vec![frame(kind::HEADERS, flag::PADDED, 1, b"")]),
        ("padding longer than its frame", vec![frame(kind::HEADERS, flag::PADDED, 1, b"\x02\0")]),
        ("priority cut off", vec![frame(kind::HEADERS, flag::PRIORITY, 1, b"\0\0\0\0")]),
        ("padding over priority", vec![frame(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, b"\x01\0\0\0\0\0")]),
    ] {
        let (out, mut walker) = raw(&[frames, vec![frame(SETTINGS, 0, 0, b"")]].concat());
        assert_eq!(out, refused, "{what}");
        assert!(walker.is_stopped() && walker.pace().violation().is_none(), "{what}");
    }
}

#[test]
fn frames_that_are_too_long_show_the_library_their_length() {
    for kind in [kind::HEADERS, kind::DATA, SETTINGS] {
        let (out, _) = raw(&[frame(kind, flag::END_HEADERS, 1, &[0; 16_385])]);
        assert_eq!(Head::parse(out.first_chunk().unwrap()).length, 16_385);
    }
    let (events, _) = seen(&[frame(kind::HEADERS, 0, 1, b"\x82")]);
    assert_eq!(events, []);
}

#[test]
fn what_is_no_http2_passes() {
    for octets in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX\0\0\0\x01", b"\x16\x03\x01"]
    {
        for pieces in [1, 5, 100] {
            let (out, _) = walk_all(&mut Walker::default(), octets, &[pieces]);
            assert_eq!(out, octets);
        }
    }
}

#[test]
fn payload_passes_where_it_is() {
    let data = frame(kind::DATA, 0, 1, &[7; 1000]);
    let octets = [&PREFACE[..], &data, &frame(SETTINGS, 0, 0, &[0; 6]), &data].concat();
    assert_eq!(Walker::default().pass(&octets), octets.len());
}

#[test]
fn a_connection_without_anything_to_do_holds_nothing() {
    let (_, mut walker) = raw(&[headers(1, &plain_block(&request("a"))), frame(kind::RST_STREAM, 0, 1, &[0; 4])]);
    assert_eq!(walker.held(), 0);
    assert!(size_of_val(&walker) <= 256, "{}", size_of_val(&walker));
    assert!(!walker.is_within_frame());
    walker.rewrite(&[0, 0], &mut Vec::new());
    assert!(walker.is_within_frame());
}

#[test]
fn a_few_octets_that_become_many_wait_for_their_turn() {
    let mut walker = Walker::default();
    let mut fill = b"\x40\x01n".to_vec();
    put_integer(&mut fill, 0, 7, 2000);
    fill.resize(fill.len() + 2000, b'v');
    let bomb = headers(3, &[0xbe; 30]);
    let octets = [&PREFACE[..], &headers(1, &fill), &bomb.repeat(300)].concat();
    let mut out = Vec::new();
    let first = walker.rewrite(&octets, &mut out);
    assert!(first < octets.len() && out.len() <= 80 * 1024);
    // Bombs count by what they become, so that a turn and a second have their end as well.
    let (mut at, mut turns) = (first, 0);
    while at < octets.len() && walker.pace().violation().is_none() {
        at += walker.rewrite(&octets[at..], &mut Vec::new());
        if walker.pace().is_tired() {
            turns += 1;
            walker.pace().rest();
            walker.pace().set_now(Duration::from_secs(turns));
        }
    }
    assert!(at == octets.len() && turns >= 100, "{at} in {turns} turns");
    walk_all(&mut walker, &bomb.repeat(300), &[]);
    assert_eq!(walker.pace().violation(), Some(Violation::Flood));
}
