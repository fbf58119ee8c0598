use proptest::prelude::*;

use super::*;

const FIRST: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn server(name: &str) -> ServerId {
    ServerId::new(name.to_owned()).unwrap()
}

fn auto() -> Choice {
    Choice::new(Wanted::Auto, FIRST)
}

fn pauses(choice: &mut Choice, server: &ServerId, attempted: Attempted, count: usize) -> Vec<u64> {
    (0..count).map(|_| choice.pause(server, attempted, Instant::now(), 0.0).as_secs()).collect()
}

const QUIC_FIRST: Plan = Plan::Race { first: Transport::Quic, head_start: HEAD_START };
const AT_ONCE: Plan = Plan::Race { first: Transport::Quic, head_start: Duration::ZERO };
const GRPC_FIRST: Plan = Plan::Race { first: Transport::Grpc, head_start: GRPC_HEAD_START };

#[test]
fn one_transport_is_all_there_is_when_it_is_named() {
    for transport in [Transport::Quic, Transport::Grpc] {
        let mut choice = Choice::new(Wanted::Only(transport), FIRST);
        let now = Instant::now();
        for _ in 0..5 {
            choice.on_quic_ended(&server("a"), true, SECOND, now);
        }
        assert_eq!((choice.plan(now), choice.comes_back()), (Plan::Only(transport), false));
    }
    assert!(auto().comes_back());
    assert_eq!(auto().plan(Instant::now()), QUIC_FIRST);
}

#[test]
fn pauses_double_up_to_ten_minutes_and_begin_anew() {
    let (mut choice, a) = (auto(), server("a"));
    assert_eq!(pauses(&mut choice, &a, Attempted::Failed, 8), [30, 60, 120, 240, 480, 600, 600, 600]);
    assert_eq!(choice.pause(&a, Attempted::Failed, Instant::now(), 1.0), Duration::from_secs(720), "jitter on top");
    assert_eq!(pauses(&mut choice, &server("b"), Attempted::Failed, 2), [30, 60], "each server for itself");
    choice.on_quic(&a, Instant::now());
    assert_eq!(pauses(&mut choice, &a, Attempted::Failed, 2), [30, 60]);
    // Hours of failures do not overflow.
    assert_eq!(pauses(&mut choice, &a, Attempted::Failed, 100)[99], 600);
}

#[test]
fn a_first_pause_above_the_longest_stays_as_it_is() {
    let mut choice = Choice::new(Wanted::Auto, Duration::from_secs(3_600));
    assert_eq!(pauses(&mut choice, &server("a"), Attempted::Failed, 3), [3_600; 3]);
}

#[test]
fn another_server_is_no_failure_of_quic() {
    let (mut choice, a) = (auto(), server("a"));
    assert_eq!(pauses(&mut choice, &a, Attempted::OtherServer, 12), [1, 1, 1, 1, 1, 30, 1, 1, 1, 1, 1, 30]);
    assert_eq!(pauses(&mut choice, &a, Attempted::Failed, 1), [30]);
    let mut quick = Choice::new(Wanted::Auto, Duration::from_millis(200));
    assert_eq!(quick.pause(&a, Attempted::OtherServer, Instant::now(), 0.0), Duration::from_millis(200));
}

#[test]
fn a_loss_takes_the_head_start_for_five_seconds() {
    let (mut choice, begin) = (auto(), Instant::now());
    choice.on_quic_ended(&server("a"), false, 30 * SECOND, begin);
    assert_eq!(choice.plan(begin), QUIC_FIRST);
    choice.on_quic_ended(&server("a"), true, 30 * SECOND, begin);
    assert_eq!(choice.plan(begin), AT_ONCE);
    assert_eq!(choice.plan(begin + 5 * SECOND), AT_ONCE);
    assert_eq!(choice.plan(begin + 6 * SECOND), QUIC_FIRST);
}

#[test]
fn two_losses_within_a_minute_put_grpc_first_until_quic_is_back() {
    let (mut choice, a, begin) = (auto(), server("a"), Instant::now());
    choice.on_quic_ended(&a, true, 30 * SECOND, begin);
    assert_eq!(choice.plan(begin + 60 * SECOND), QUIC_FIRST);
    choice.on_quic_ended(&a, true, 30 * SECOND, begin + 60 * SECOND);
    assert_eq!(choice.plan(begin + 60 * SECOND), GRPC_FIRST);
    assert_eq!(choice.plan(begin + 3_600 * SECOND), GRPC_FIRST);
    assert_eq!(choice.on_grpc(&a, &Quic::NotTried, begin + 61 * SECOND).reason, Reason::QuicUnstable);
    choice.on_quic(&a, begin + 90 * SECOND);
    assert_eq!(choice.plan(begin + 90 * SECOND), QUIC_FIRST);
    // One more loss makes it two again.
    choice.on_quic_ended(&a, true, SECOND, begin + 91 * SECOND);
    assert_eq!(choice.plan(begin + 91 * SECOND), GRPC_FIRST);
}

#[test]
fn other_losses_do_not_put_grpc_first() {
    let (mut choice, begin) = (auto(), Instant::now());
    // Apart by more than a minute; of different servers; not by silence.
    choice.on_quic_ended(&server("a"), true, SECOND, begin);
    choice.on_quic_ended(&server("a"), true, SECOND, begin + Duration::from_millis(60_001));
    choice.on_quic_ended(&server("b"), true, SECOND, begin + 61 * SECOND);
    for _ in 0..5 {
        choice.on_quic_ended(&server("c"), false, SECOND, begin + 61 * SECOND);
    }
    assert_eq!(choice.plan(begin + 61 * SECOND), AT_ONCE);
}

#[test]
fn quic_that_never_stays_is_tried_less_and_less_often() {
    let (mut choice, a) = (auto(), server("a"));
    let mut now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..7 {
        choice.on_quic(&a, now);
        now += 60 * SECOND;
        choice.on_quic_ended(&a, true, 60 * SECOND, now);
        let pause = choice.pause(&a, Attempted::Failed, now, 0.0);
        waits.push(pause.as_secs());
        now += pause;
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
    // Ten minutes without a loss are trust.
    choice.on_quic(&a, now);
    choice.on_quic_ended(&a, true, 600 * SECOND, now + 600 * SECOND);
    assert_eq!(choice.pause(&a, Attempted::Failed, now, 0.0), FIRST);
}

#[test]
fn grpc_says_why_it_serves() {
    let (mut choice, a, now) = (auto(), server("a"), Instant::now());
    let silent = Quic::Silent(HEAD_START);
    let why = choice.on_grpc(&a, &silent, now);
    assert_eq!(why, Why::new(Reason::NoQuicAnswer, "no QUIC answer within 250ms"));
    let failed = Quic::Failed("no route to host".to_owned());
    assert_eq!(choice.on_grpc(&a, &failed, now), Why::new(Reason::QuicFailed, "QUIC failed: no route to host"));
    choice.on_quic_ended(&a, true, 600 * SECOND, now);
    let why = choice.on_grpc(&a, &silent, now + SECOND);
    let text = "the QUIC connection fell silent; then no QUIC answer within 250ms";
    assert_eq!(why, Why::new(Reason::QuicLost, text));
    let at_once = Quic::Silent(Duration::ZERO);
    let text = "the QUIC connection fell silent, and TCP was through before a new one";
    assert_eq!(choice.on_grpc(&a, &at_once, now + SECOND), Why::new(Reason::QuicLost, text));
    let text = "the QUIC connection fell silent; then QUIC failed: no route to host";
    assert_eq!(choice.on_grpc(&a, &failed, now + SECOND), Why::new(Reason::QuicLost, text));
    assert_eq!(choice.on_grpc(&server("b"), &silent, now + SECOND).reason, Reason::NoQuicAnswer);
    assert_eq!(choice.on_grpc(&a, &silent, now + 61 * SECOND).reason, Reason::NoQuicAnswer, "long ago");
}

#[test]
fn silence_puts_grpc_first_for_pauses_that_grow() {
    let (mut choice, a, mut now) = (auto(), server("a"), Instant::now());
    for pause in [30, 60, 120, 240, 480, 600, 600] {
        assert_eq!(choice.plan(now), QUIC_FIRST);
        choice.on_grpc(&a, &Quic::Silent(HEAD_START), now);
        assert_eq!(choice.plan(now + (pause - 1) * SECOND), GRPC_FIRST);
        let why = choice.on_grpc(&a, &Quic::NotTried, now + SECOND);
        assert_eq!(why, Why::new(Reason::NoQuicAnswer, "no QUIC answer of late, so TCP went first"));
        now += pause * SECOND;
    }
    choice.on_grpc(&a, &Quic::Silent(HEAD_START), now);
    choice.on_quic(&server("b"), now);
    assert_eq!(choice.plan(now), QUIC_FIRST, "it works");
    choice.on_grpc(&a, &Quic::Failed("refused".to_owned()), now);
    assert_eq!(choice.plan(now), QUIC_FIRST, "a failure costs no time");
}

#[test]
fn servers_that_come_and_go_are_forgotten() {
    let (mut choice, begin) = (auto(), Instant::now());
    for number in 0..3 * MOST_SERVERS {
        let now = begin + SECOND * u32::try_from(number).unwrap();
        choice.pause(&server("stays"), Attempted::Failed, now, 0.0);
        choice.pause(&server(&format!("restart {number}")), Attempted::Failed, now, 0.0);
    }
    assert_eq!(choice.servers.len(), MOST_SERVERS);
    assert_eq!(pauses(&mut choice, &server("stays"), Attempted::Failed, 1), [600], "the one that is used stays");
}

/// Something that happens, to one of three servers, after some seconds.
fn event() -> impl Strategy<Value = (u8, u8, u64, bool)> {
    (0_u8..5, 0_u8..3, 0_u64..200, any::<bool>())
}

proptest! {
    #[test]
    fn whatever_happens(first in 1_u64..2_000, events in proptest::collection::vec(event(), 1..80), random in 0.0..1.0) {
        let first = Duration::from_secs(first);
        let mut choice = Choice::new(Wanted::Auto, first);
        let mut now = Instant::now();
        let longest = jittered(first.max(LONGEST_PAUSE), 1.0);
        let (mut silent_losses, mut silences) = (0, false);
        for (what, which, seconds, silent) in events {
            let id = server(&which.to_string());
            now += Duration::from_secs(seconds);
            let before = choice.plan(now);
            match what {
                0 => {
                    choice.on_quic(&id, now);
                    prop_assert_ne!(choice.plan(now), GRPC_FIRST);
                }
                1 => {
                    silent_losses += u32::from(silent);
                    choice.on_quic_ended(&id, silent, Duration::from_secs(seconds), now);
                    prop_assert!(silences || silent_losses >= 2 || choice.plan(now) != GRPC_FIRST);
                    prop_assert!(silent || choice.plan(now) == before);
                }
                2 => {
                    choice.on_grpc(&id, &Quic::Silent(HEAD_START), now);
                    prop_assert_eq!(choice.plan(now), GRPC_FIRST);
                    silences = true;
                }
                3 => {
                    let pause = choice.pause(&id, Attempted::Failed, now, random);
                    prop_assert!(pause >= first && pause <= longest, "{pause:?}");
                    let next = choice.pause(&id, Attempted::Failed, now, random);
                    prop_assert!(next >= pause, "{pause:?} then {next:?}");
                }
                _ => {
                    let pause = choice.pause(&id, Attempted::OtherServer, now, random);
                    prop_assert!(pause <= jittered(first, 1.0), "{pause:?}");
                }
            }
        }
    }
}
