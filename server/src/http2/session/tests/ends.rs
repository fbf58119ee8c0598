//! How streams and connections end.

use super::*;
use crate::http2::code::Gone;

const ENDING: (u8, u8, u32, usize) = (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, 1);

#[test]
fn trailers_come_behind_what_waits_for_room() {
    let mut server = Server::greeted();
    server.feed(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]), call(1)].concat());
    server.session.respond(1, vec![0x88], false).unwrap();
    server.session.send(1, Bytes::from(vec![1; 250])).unwrap();
    server.session.end(1, vec![0x88]);
    server.session.drop_handle(1);
    let frames = kinds(&mut server);
    assert_eq!(frames.last(), Some(&(kind::DATA, 0, 1, 100)));
    server.feed(&window(1, 1000));
    let expected = [(kind::DATA, 0, 1, 150), ENDING, (kind::RST_STREAM, 0, 1, 4)];
    assert_eq!(kinds(&mut server), expected);
    assert_eq!(server.session.streams.open, 0);
}

#[test]
fn a_client_that_leaves_a_stream_without_room_is_forgotten() {
    let mut server = Server::greeted();
    server.feed(&[settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]), call(1)].concat());
    server.session.respond(1, vec![0x88], false).unwrap();
    server.session.send(1, Bytes::from(vec![1; 250])).unwrap();
    server.session.end(1, vec![0x88]);
    server.session.drop_handle(1);
    server.take_frames();
    assert_eq!(server.session.streams.open, 1);
    server.feed(&reset(1, Code::CANCEL));
    assert_eq!((server.session.streams.open, server.session.held()), (0, 0));
    // Neither a window nor what was being written brings it back.
    server.feed(&window(1, 1000));
    assert_eq!(server.take_frames(), []);
}

#[test]
fn a_client_that_has_ended_its_half_is_not_reset() {
    let mut server = Server::greeted();
    server.feed(&[call(1), frame(kind::DATA, flag::END_STREAM, 1, b"")].concat());
    server.session.respond(1, vec![0x88], true).unwrap();
    assert_eq!(kinds(&mut server), [ENDING]);
}

#[test]
fn a_handle_that_is_dropped_without_an_end_resets_its_stream() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.session.send(1, Bytes::from(vec![1; 250])).unwrap();
    server.session.drop_handle(1);
    assert_eq!(kinds(&mut server), [(kind::RST_STREAM, 0, 1, 4)]);
    assert_eq!(server.session.streams.open, 0);
}

#[test]
fn nothing_is_sent_behind_a_reset() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.session.respond(1, vec![0x88], false).unwrap();
    server.take_frames();
    // A part of it is being written when the stream ends.
    server.session.send(1, Bytes::from(vec![1; 200_000])).unwrap();
    let mut out = crate::http2::out::Out::default();
    server.session.fill(&mut out);
    server.session.give_up(1, Code::CANCEL);
    assert_eq!(server.session.send(1, Bytes::from_static(b"x")), Err(Gone::Reset(Code::CANCEL)));
    while !out.is_empty() {
        let octets = out.gather(|slices| slices.iter().map(|slice| slice.len()).sum());
        out.advance(octets, |written| server.session.written(written));
    }
    assert_eq!(kinds(&mut server), [(kind::RST_STREAM, 0, 1, 4)]);
}

#[test]
fn a_connection_that_is_left_ends_with_its_last_stream() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.take_frames();
    server.session.leave();
    let frames = server.take_frames();
    assert_eq!(frames[0].1, [&MAX_WINDOW.to_be_bytes()[..], &[0; 4]].concat());
    let ping = frames[1].clone();
    assert_eq!(ping.0.kind, kind::PING);
    // One more that was on its way is served; then the client has heard.
    server.feed(&[call(3), frame(kind::PING, flag::ACK, 0, &ping.1), call(5), data(5, 10)].concat());
    let frames = server.take_frames();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].0.kind, &frames[0].1[..]), (kind::GOAWAY, &[0, 0, 0, 3, 0, 0, 0, 0][..]));
    assert_eq!(server.seen.keys().collect::<Vec<_>>(), [&1, &3]);
    assert!(!server.session.is_over());
    server.session.respond(1, vec![0x88], true).unwrap();
    server.session.respond(3, vec![0x88], true).unwrap();
    server.write();
    assert!(server.session.is_over());
}

#[test]
fn a_connection_without_streams_ends_when_the_client_has_heard() {
    let mut server = Server::greeted();
    server.session.leave();
    server.write();
    assert!(!server.session.is_over());
    server.feed(&frame(kind::PING, flag::ACK, 0, &LEAVING_PING));
    assert!(server.session.is_over());
    // A client that has not even said what it speaks is not waited for.
    let mut server = Server::default();
    server.session.leave();
    server.write();
    assert!(server.session.is_over());
}

#[test]
fn a_ping_goes_behind_what_is_queued() {
    let mut server = Server::greeted();
    server.feed(&[call(1), call(3)].concat());
    for id in [1, 3] {
        server.session.respond(id, vec![0x88], false).unwrap();
        server.session.send(id, Bytes::from_static(b"x")).unwrap();
    }
    server.session.send_ping();
    let frames = server.take_frames();
    let kinds: Vec<_> = frames.iter().map(|(head, _)| head.kind).collect();
    assert_eq!(kinds, [kind::HEADERS, kind::HEADERS, kind::DATA, kind::DATA, kind::PING]);
    assert!(!server.session.take_pong());
    server.feed(&frame(kind::PING, flag::ACK, 0, b"another."));
    assert!(!server.session.take_pong());
    server.feed(&frame(kind::PING, flag::ACK, 0, &frames[4].1));
    assert!(server.session.take_pong());
    assert!(!server.session.take_pong(), "it is told of once");
}

#[test]
fn a_ping_does_not_wait_for_a_dial_that_always_has_more() {
    let mut server = Server::greeted();
    server.feed(&[call(1), window(0, 1 << 30), settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 30)])].concat());
    server.session.respond(1, vec![0x88], false).unwrap();
    server.session.send(1, Bytes::from(vec![1; 10_000_000])).unwrap();
    server.session.send_ping();
    let mut out = crate::http2::out::Out::default();
    let mut turns = 0;
    while server.session.ping != PingState::Sent {
        server.session.fill(&mut out);
        let octets = out.gather(|slices| slices.iter().map(|slice| slice.len()).sum());
        out.advance(octets, |written| server.session.written(written));
        turns += 1;
        assert!(turns < 5);
    }
}

#[test]
fn an_answer_is_cut_into_frames() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.session.respond(1, vec![0x88; 40_000], true).unwrap();
    let expected = [
        (kind::HEADERS, flag::END_STREAM, 1, 16_384),
        (kind::CONTINUATION, 0, 1, 16_384),
        (kind::CONTINUATION, flag::END_HEADERS, 1, 40_000 - 2 * 16_384),
        (kind::RST_STREAM, 0, 1, 4),
    ];
    assert_eq!(kinds(&mut server), expected);
}

/// RFC 7541, section 4.2.
#[test]
fn a_client_that_allows_a_smaller_table_is_told_that_there_is_none() {
    let mut server = Server::greeted();
    server.feed(&[settings(&[(setting::HEADER_TABLE_SIZE, 100)]), call(1), call(3)].concat());
    server.take_frames();
    for (id, block) in [(1, &[0x20, 0x88][..]), (3, &[0x88])] {
        server.session.respond(id, vec![0x88], false).unwrap();
        assert_eq!(server.take_frames()[0].1, block);
    }
}

#[test]
fn a_connection_that_is_lost_ends_its_streams() {
    let mut server = Server::greeted();
    server.feed(&[call(1), data(1, 10)].concat());
    server.session.lose();
    server.look();
    assert_eq!((server.seen[&1].data.len(), server.seen[&1].end), (10, Some(Err(Gone::Lost))));
    assert_eq!((server.session.held(), server.session.streams.open), (0, 0));
}
