#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn head(kind: u8, flags: u8, stream: u32, length: u32) -> Head {
    Head { length, kind, flags, stream }
}

fn ping(pace: &mut Pace, at: Duration) -> Option<Violation> {
    pace.set_now(at);
    pace.received(head(kind::PING, 0, 0, 8));
    pace.violation()
}

fn open(pace: &mut Pace, stream: u32) {
    pace.received(head(kind::HEADERS, flag::END_HEADERS, stream, 20));
}

#[test]
fn the_fourth_ping_in_a_row_is_one_too_many() {
    let mut pace = Pace::default();
    for _ in 0..3 {
        assert_eq!(ping(&mut pace, SECOND), None);
    }
    assert_eq!(ping(&mut pace, SECOND), Some(Violation::TooManyPings));
}

#[test]
fn with_a_stream_pings_may_come_every_five_minutes() {
    let mut pace = Pace::default();
    open(&mut pace, 1);
    for n in 0..20 {
        assert_eq!(ping(&mut pace, PING_INTERVAL * n), None);
    }
    let mut pace = Pace::default();
    open(&mut pace, 1);
    let seen: Vec<_> = (0..4).map(|n| ping(&mut pace, (PING_INTERVAL - SECOND) * n)).collect();
    assert_eq!(seen, [None, None, None, Some(Violation::TooManyPings)]);
}

#[test]
fn without_a_stream_they_may_not() {
    let endings: [fn(&mut Pace); 5] = [
        |_| {},
        |pace| pace.received(head(kind::RST_STREAM, 0, 1, 4)),
        |pace| pace.sent(head(kind::RST_STREAM, 0, 1, 4)),
        |pace| pace.sent(head(kind::HEADERS, flag::END_STREAM, 1, 4)),
        |pace| pace.sent(head(kind::DATA, flag::END_STREAM, 1, 4)),
    ];
    for (place, end) in endings.into_iter().enumerate() {
        let mut pace = Pace::default();
        if place > 0 {
            open(&mut pace, 1);
        }
        // What the end itself sends forgives the first ping.
        end(&mut pace);
        ping(&mut pace, Duration::ZERO);
        let seen: Vec<_> = (1..4).map(|n| ping(&mut pace, PING_INTERVAL * n)).collect();
        assert_eq!(seen, [None, None, Some(Violation::TooManyPings)], "ending {place}");
        assert_eq!(pace.held(), 0);
    }
}

#[test]
fn a_client_that_has_finished_its_half_still_has_its_stream() {
    let mut pace = Pace::default();
    pace.received(head(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, 20));
    pace.received(head(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, 20));
    assert_eq!(pace.streams.open, [1]);
}

#[test]
fn what_the_server_sends_forgives_all_pings_before_it() {
    for kind in [kind::DATA, kind::HEADERS] {
        let mut pace = Pace::default();
        for _ in 0..10_000 {
            assert_eq!(ping(&mut pace, Duration::ZERO), None);
            pace.sent(head(kind, 0, 1, 10));
        }
        for _ in 0..3 {
            assert_eq!(ping(&mut pace, Duration::ZERO), None);
        }
        assert_eq!(ping(&mut pace, Duration::ZERO), Some(Violation::TooManyPings));
    }
}

#[test]
fn answers_to_pings_and_other_frames_of_the_server_change_nothing() {
    let mut pace = Pace::default();
    for _ in 0..100 {
        pace.received(head(kind::PING, flag::ACK, 0, 8));
    }
    assert_eq!(pace.violation(), None);
    for _ in 0..3 {
        ping(&mut pace, SECOND);
        pace.sent(head(kind::PING, flag::ACK, 0, 8));
    }
    assert_eq!(ping(&mut pace, SECOND), Some(Violation::TooManyPings));
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
            (0..MAX_IDLE_COST).for_each(|_| pace.received(frame));
            assert_eq!(pace.violation(), None, "{frame:?}");
        }
        pace.received(frame);
        assert_eq!(pace.violation(), Some(Violation::Flood), "{frame:?}");
    }
}

#[test]
fn a_client_that_is_served_may_send_any_number() {
    let mut pace = Pace::default();
    for n in 0..100_000 {
        // A dial: its stream, the window updates and the ping of grpc-go; its end.
        open(&mut pace, 2 * n + 1);
        pace.received(head(8, 0, 0, 4));
        pace.received(head(8, 0, 2 * n + 1, 4));
        pace.received(head(kind::DATA, 0, 2 * n + 1, 60));
        pace.sent(head(kind::HEADERS, 0, 2 * n + 1, 30));
        ping(&mut pace, Duration::ZERO);
        pace.received(head(kind::RST_STREAM, 0, 2 * n + 1, 4));
    }
    for _ in 0..100_000 {
        pace.sent(head(kind::DATA, 0, 1, 16_384));
        (0..2).for_each(|_| pace.received(head(8, 0, 0, 4)));
        ping(&mut pace, Duration::ZERO);
    }
    for _ in 0..100_000 {
        pace.received(head(kind::DATA, 0, 1, 70));
        pace.received(head(kind::PING, flag::ACK, 0, 8));
    }
    assert_eq!((pace.violation(), pace.held()), (None, 0));
}

#[test]
fn large_header_blocks_count_by_their_size() {
    let mut pace = Pace::default();
    for _ in 0..MAX_IDLE_COST / 128 {
        pace.worked(64 * 1024);
    }
    assert_eq!(pace.violation(), None);
    pace.worked(64 * 1024);
    assert_eq!(pace.violation(), Some(Violation::Flood));
}

#[test]
fn a_turn_ends_after_256_small_frames() {
    for frame in [head(kind::DATA, 0, 1, 60), head(8, 0, 1, 4), head(kind::PING, flag::ACK, 0, 8)] {
        let mut pace = Pace::default();
        (0..255).for_each(|_| pace.received(frame));
        assert!(!pace.is_tired());
        pace.received(frame);
        assert!(pace.is_tired());
        pace.rest();
        assert!(!pace.is_tired());
    }
    let mut pace = Pace::default();
    (0..10_000).for_each(|_| pace.received(head(kind::DATA, 0, 1, 16_384)));
    assert!(!pace.is_tired());
}

#[test]
fn agents_may_ping_every_half_minute_with_or_without_streams() {
    for streams in [true, false] {
        let limits = |pause: Duration| {
            let mut pace = Pace::default();
            pace.set_pings(PingPolicy::AGENT);
            if streams {
                open(&mut pace, 1);
            }
            (1..20).find_map(|n| ping(&mut pace, pause * n))
        };
        assert_eq!(limits(30 * SECOND), None);
        assert_eq!(limits(29 * SECOND), Some(Violation::TooManyPings));
    }
}
