#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn head(kind: u8, flags: u8, stream: u32, length: u32) -> Head {
    Head { length, kind, flags, stream }
}

fn ping(pace: &mut Pace, at: Duration) -> Option<Fault> {
    ping_with(pace, at, false)
}

fn ping_with(pace: &mut Pace, at: Duration, has_streams: bool) -> Option<Fault> {
    pace.set_now(at);
    pace.received(head(kind::PING, 0, 0, 8), has_streams);
    pace.violation()
}

#[test]
fn the_fourth_ping_in_a_row_is_one_too_many() {
    let mut pace = Pace::default();
    for _ in 0..3 {
        assert_eq!(ping(&mut pace, SECOND), None);
    }
    assert_eq!(ping(&mut pace, SECOND), Some(TOO_MANY_PINGS));
}

#[test]
fn with_a_stream_pings_may_come_every_five_minutes() {
    let mut pace = Pace::default();
    for n in 0..20 {
        assert_eq!(ping_with(&mut pace, PING_INTERVAL * n, true), None);
    }
    let mut pace = Pace::default();
    let seen: Vec<_> = (0..4).map(|n| ping_with(&mut pace, (PING_INTERVAL - SECOND) * n, true)).collect();
    assert_eq!(seen, [None, None, None, Some(TOO_MANY_PINGS)]);
}

#[test]
fn agents_may_ping_every_half_minute_with_or_without_streams() {
    for has_streams in [true, false] {
        let first = |pause: Duration| {
            let mut pace = Pace::new(PingPolicy::AGENT);
            (1..20).find_map(|n| ping_with(&mut pace, pause * n, has_streams))
        };
        assert_eq!(first(30 * SECOND), None);
        assert_eq!(first(29 * SECOND), Some(TOO_MANY_PINGS));
    }
}

#[test]
fn without_a_stream_they_may_not() {
    let mut pace = Pace::default();
    let seen: Vec<_> = (0..4).map(|n| ping(&mut pace, PING_INTERVAL * n)).collect();
    assert_eq!(seen, [None, None, None, Some(TOO_MANY_PINGS)]);
}

#[test]
fn what_the_server_sends_forgives_all_pings_before_it() {
    let mut pace = Pace::default();
    for _ in 0..10_000 {
        assert_eq!(ping(&mut pace, Duration::ZERO), None);
        pace.answered(1);
    }
    for _ in 0..3 {
        assert_eq!(ping(&mut pace, Duration::ZERO), None);
        pace.answered(0);
    }
    assert_eq!(ping(&mut pace, Duration::ZERO), Some(TOO_MANY_PINGS));
}

#[test]
fn answers_to_pings_are_no_pings() {
    let mut pace = Pace::default();
    for _ in 0..100 {
        pace.received(head(kind::PING, flag::ACK, 0, 8), false);
    }
    assert_eq!(pace.violation(), None);
}

#[test]
fn ten_thousand_frames_without_payload_are_a_flood_within_a_second() {
    let kinds = [
        head(kind::DATA, 0, 1, 0),
        head(kind::DATA, flag::PADDED, 1, 256),
        head(kind::HEADERS, 0, 1, 20),
        head(kind::RST_STREAM, 0, 1, 4),
        head(2, 0, 1, 5),
        head(4, 0, 0, 0),
        head(8, 0, 0, 4),
        head(kind::CONTINUATION, 0, 1, 0),
        head(200, 0, 1, 100),
    ];
    for frame in kinds {
        let mut pace = Pace::default();
        for second in 1..4 {
            pace.set_now(SECOND * second);
            (0..MAX_IDLE_COST).for_each(|_| pace.received(frame, true));
            assert_eq!(pace.violation(), None, "{frame:?}");
        }
        pace.received(frame, true);
        assert_eq!(pace.violation(), Some(FLOOD), "{frame:?}");
    }
}

#[test]
fn a_client_that_is_served_may_send_any_number() {
    let mut pace = Pace::default();
    let window = head(8, 0, 1, 4);
    for n in 0..100_000 {
        // A dial: its stream, the window updates and the ping of grpc-go; its end.
        pace.received(head(kind::HEADERS, flag::END_HEADERS, 2 * n + 1, 20), true);
        (0..2).for_each(|_| pace.received(window, true));
        pace.received(head(kind::DATA, 0, 2 * n + 1, 60), true);
        pace.answered(1);
        ping(&mut pace, Duration::ZERO);
        pace.received(head(kind::RST_STREAM, 0, 2 * n + 1, 4), true);
    }
    for _ in 0..100_000 {
        pace.answered(8);
        for _ in 0..8 {
            (0..2).for_each(|_| pace.received(window, true));
            pace.received(head(kind::PING, 0, 0, 8), true);
            pace.answered(1);
        }
    }
    for _ in 0..100_000 {
        pace.received(head(kind::DATA, 0, 1, 70), true);
        pace.received(head(kind::PING, flag::ACK, 0, 8), true);
    }
    assert_eq!(pace.violation(), None);
}

#[test]
fn large_header_blocks_count_by_their_size() {
    let mut pace = Pace::default();
    for _ in 0..MAX_IDLE_COST / 128 {
        pace.worked(64 * 1024);
    }
    assert_eq!(pace.violation(), None);
    pace.worked(64 * 1024);
    assert_eq!(pace.violation(), Some(FLOOD));
}

#[test]
fn a_turn_ends_after_256_small_frames() {
    for frame in [head(kind::DATA, 0, 1, 60), head(8, 0, 1, 4), head(kind::PING, flag::ACK, 0, 8)] {
        let mut pace = Pace::default();
        (0..255).for_each(|_| pace.received(frame, true));
        assert!(!pace.is_tired());
        pace.received(frame, true);
        assert!(pace.is_tired());
        pace.rest();
        assert!(!pace.is_tired());
    }
    let mut pace = Pace::default();
    (0..10_000).for_each(|_| pace.received(head(kind::DATA, 0, 1, 16_384), true));
    assert!(!pace.is_tired());
}
