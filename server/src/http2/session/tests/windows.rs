//! Flow control, in both directions.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::http2::{code::Gone, out::Out};

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A server with streams that have answered.
fn serving(streams: &[u32], first_window: u32) -> Server {
    let mut server = Server::greeted();
    server.feed(&settings(&[(setting::INITIAL_WINDOW_SIZE, first_window)]));
    for &id in streams {
        server.feed(&call(id));
        server.session.respond(id, vec![0x88], false).unwrap();
    }
    server.take_frames();
    server
}

/// Octets of DATA on each stream, in the order of the frames.
fn sent(server: &mut Server) -> Vec<(u32, usize)> {
    let frames = server.take_frames();
    frames.iter().filter(|(head, _)| head.kind == kind::DATA).map(|(head, data)| (head.stream, data.len())).collect()
}

fn send(server: &mut Server, id: u32, octets: usize) {
    server.session.send(id, Bytes::from(vec![1; octets])).unwrap();
}

#[test]
fn no_more_is_sent_than_the_streams_window() {
    let mut server = serving(&[1], 100);
    send(&mut server, 1, 250);
    assert_eq!(sent(&mut server), [(1, 100)]);
    server.feed(&window(1, 1));
    assert_eq!(sent(&mut server), [(1, 1)]);
    server.feed(&window(1, 1000));
    assert_eq!(sent(&mut server), [(1, 149)]);
    server.session.end(1, vec![0x88]);
    assert_eq!(kinds(&mut server)[0], (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, 1));
}

#[test]
fn no_more_is_sent_than_the_connections_window() {
    let mut server = serving(&[1, 3], 100_000);
    send(&mut server, 1, 60_000);
    send(&mut server, 3, 60_000);
    let total: usize = sent(&mut server).iter().map(|(_, octets)| octets).sum();
    assert_eq!(total, 65_535);
    server.feed(&window(0, 10));
    assert_eq!(sent(&mut server).iter().map(|(_, octets)| octets).sum::<usize>(), 10);
    server.feed(&window(0, 1 << 20));
    assert_eq!(sent(&mut server).iter().map(|(_, octets)| octets).sum::<usize>(), 120_000 - 65_545);
}

#[test]
fn a_window_may_become_negative() {
    let mut server = serving(&[1], 1000);
    send(&mut server, 1, 2000);
    assert_eq!(sent(&mut server), [(1, 1000)]);
    server.feed(&settings(&[(setting::INITIAL_WINDOW_SIZE, 400)]));
    server.feed(&window(1, 600));
    assert_eq!(sent(&mut server), []);
    server.feed(&window(1, 1));
    assert_eq!(sent(&mut server), [(1, 1)]);
    server.feed(&settings(&[(setting::INITIAL_WINDOW_SIZE, 1), (setting::INITIAL_WINDOW_SIZE, 410)]));
    assert_eq!(sent(&mut server), [(1, 10)]);
    // The sum is what must not be too large.
    server.feed(&[window(1, MAX_WINDOW - 500), settings(&[(setting::INITIAL_WINDOW_SIZE, 2000)])].concat());
    assert_eq!(server.session.fault().unwrap().code, Code::FLOW_CONTROL_ERROR);
}

#[test]
fn streams_take_turns() {
    let mut server = serving(&[1, 3, 5], 1 << 20);
    server.feed(&window(0, 1 << 20));
    for id in [1, 3, 5] {
        send(&mut server, id, 40_000);
    }
    let frames = sent(&mut server);
    assert_eq!(frames[..4], [(1, 16_384), (3, 16_384), (5, 16_384), (1, 16_384)]);
    for id in [1, 3, 5] {
        assert_eq!(frames.iter().filter(|(of, _)| *of == id).map(|(_, octets)| octets).sum::<usize>(), 40_000);
    }
    // A small one does not wait for all of a large one.
    send(&mut server, 1, 200_000);
    send(&mut server, 3, 5);
    let frames = sent(&mut server);
    assert!(frames.iter().position(|frame| *frame == (3, 5)).unwrap() <= 1, "{frames:?}");
}

#[test]
fn frames_are_as_large_as_the_client_allows() {
    let mut server = serving(&[1], 1 << 20);
    send(&mut server, 1, 40_000);
    assert_eq!(sent(&mut server), [(1, 16_384), (1, 16_384), (1, 40_000 - 2 * 16_384)]);
    server.feed(&settings(&[(setting::MAX_FRAME_SIZE, 20_000)]));
    send(&mut server, 1, 25_000);
    assert_eq!(sent(&mut server), [(1, 20_000), (1, 5_000)]);
}

#[test]
fn there_is_room_as_long_as_little_waits() {
    let mut server = serving(&[1], 1 << 20);
    let quarter = SETTINGS.send_buffer / 4;
    assert_eq!(server.session.poll_room(1, 1 << 20, &mut cx()), Poll::Ready(Ok(SETTINGS.send_buffer)));
    send(&mut server, 1, 3 * quarter);
    assert_eq!(server.session.poll_room(1, 1 << 20, &mut cx()), Poll::Ready(Ok(quarter)));
    send(&mut server, 1, 1);
    assert!(server.session.poll_room(1, 1, &mut cx()).is_pending());
    // What is taken to be written is counted until it is written.
    let mut out = Out::default();
    server.session.fill(&mut out);
    assert!(server.session.poll_room(1, 1, &mut cx()).is_pending());
    let octets = out.gather(|slices| slices.iter().map(|slice| slice.len()).sum());
    out.advance(octets, |written| server.session.written(written));
    assert!(server.session.poll_room(1, 1, &mut cx()).is_ready());
}

#[test]
fn there_is_no_room_beyond_the_window() {
    let mut server = serving(&[1], 10);
    assert_eq!(server.session.poll_room(1, 100, &mut cx()), Poll::Ready(Ok(10)));
    send(&mut server, 1, 4);
    assert_eq!(server.session.poll_room(1, 100, &mut cx()), Poll::Ready(Ok(6)));
    send(&mut server, 1, 60);
    assert!(server.session.poll_room(1, 1, &mut cx()).is_pending());
    server.feed(&window(1, 60));
    assert_eq!(server.session.poll_room(1, 100, &mut cx()), Poll::Ready(Ok(6)));
    server.feed(&reset(1, Code::CANCEL));
    let gone = Gone::Reset(Code::CANCEL);
    assert!(matches!(server.session.poll_room(1, 1, &mut cx()), Poll::Ready(Err(Gone::Lost))), "it was let go of");
    assert_eq!(server.seen[&1].end, Some(Err(gone)));
}

#[test]
fn a_client_may_send_as_much_as_was_released() {
    let mut session = Server::greeted().session;
    let feed = |session: &mut Session<Bytes>, octets: Vec<u8>| {
        let mut input = Bytes::from(octets);
        let buffer = input.len();
        session.receive(&mut input, buffer);
    };
    feed(&mut session, frame(kind::SETTINGS, flag::ACK, 0, b""));
    feed(&mut session, call(1));
    session.accept().unwrap();
    let most = SETTINGS.stream_window as usize;
    for _ in 0..most / 16_384 {
        feed(&mut session, data(1, 16_384));
    }
    assert!(session.control.is_empty(), "no room was given back");
    session.release(1, 1000);
    assert!(session.control.is_empty(), "too little to tell");
    session.release(1, SETTINGS.stream_window / 2);
    assert_eq!(std::mem::take(&mut session.control), window(1, SETTINGS.stream_window / 2 + 1000));
    for _ in 0..most / 16_384 / 2 {
        feed(&mut session, data(1, 16_384));
    }
    // Nobody can release what has not come.
    session.release(1, u32::MAX);
    assert_eq!(std::mem::take(&mut session.control), window(1, SETTINGS.stream_window - 1000));
    for _ in 0..most / 16_384 {
        feed(&mut session, data(1, 16_384));
    }
    assert!(session.control.is_empty());
    // One octet too many ends the stream, and gives back what was in it as soon as it is let go of.
    feed(&mut session, data(1, 1));
    assert_eq!(std::mem::take(&mut session.control), reset(1, Code::FLOW_CONTROL_ERROR));
    session.drop_handle(1);
    assert_eq!((session.untold, session.held()), (5 * SETTINGS.stream_window / 2 + 1, 16));
}

#[test]
fn padding_counts_and_is_given_back_at_once() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    let padded = frame(kind::DATA, flag::PADDED, 1, &[&[200][..], b"data", &[0; 200]].concat());
    for _ in 0..2000 {
        server.feed(&padded);
    }
    assert_eq!(server.seen[&1].data.len(), 8000);
    assert_eq!((server.session.fault(), server.session.streams.find(1).unwrap().outstanding), (None, 0));
}

#[test]
fn a_client_with_little_room_is_told_of_little() {
    let mut server = Server::greeted();
    server.feed(&call(1));
    server.seen.get_mut(&1).unwrap().end = Some(Ok(()));
    let window = SETTINGS.stream_window as usize;
    // All but 16 KiB is kept back by whoever reads.
    let kept = window - 16 * 1024;
    for _ in 0..kept / 16_384 {
        server.feed(&data(1, 16_384));
    }
    server.take_frames();
    let told = |server: &mut Server| {
        let frames = server.take_frames();
        let of_stream = |head: &Head| head.kind == kind::WINDOW_UPDATE && head.stream == 1;
        frames.iter().filter(|(head, _)| of_stream(head)).count()
    };
    server.feed(&data(1, 8_192));
    server.session.release(1, 4_095);
    assert_eq!(told(&mut server), 0);
    server.session.release(1, 4_096);
    assert_eq!(told(&mut server), 0, "8192 are left");
    server.session.release(1, 1);
    assert_eq!(told(&mut server), 1);
}

#[test]
fn the_connections_window_is_one_for_all() {
    let settings = Settings { connection_window: 65_535, stream_window: 65_535, ..SETTINGS };
    let mut server = Server::with(settings);
    server.feed(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b""), &call(1), &call(3)].concat());
    // Nobody reads these.
    for id in [1, 3] {
        server.seen.get_mut(&id).unwrap().end = Some(Ok(()));
    }
    server.feed(&[data(1, 16_384), data(3, 16_384), data(1, 16_384), data(3, 16_000)].concat());
    assert_eq!(server.session.fault(), None);
    server.feed(&data(3, 400));
    assert_eq!(server.session.fault().unwrap().code, Code::FLOW_CONTROL_ERROR);
}

#[test]
fn what_nobody_reads_is_given_back_to_the_connection() {
    let settings = Settings { connection_window: 65_535, stream_window: 65_535, ..SETTINGS };
    let mut server = Server::with(settings);
    server.feed(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat());
    for n in 0..100 {
        let id = 2 * n + 1;
        server.feed(&call(id));
        server.session.drop_handle(id);
        server.seen.get_mut(&id).unwrap().end = Some(Ok(()));
        // It has not heard of the reset; one frame comes in two reads.
        server.feed(&data(id, 16_384)[..5000]);
        server.feed(&data(id, 16_384)[5000..]);
    }
    assert_eq!(server.session.fault(), None);
    let windows = server.take_frames();
    assert!(windows.iter().filter(|(head, _)| head.kind == kind::WINDOW_UPDATE).count() >= 50);
}
