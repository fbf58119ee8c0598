use std::sync::{Arc, Mutex};

use tokio::time::sleep;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

/// What an attempt does, after so many milliseconds.
#[derive(Clone, Copy)]
enum Does {
    Succeeds(u64),
    Fails(u64),
    /// It answers at once, and is through after so many milliseconds.
    Answers(u64),
    Nothing,
}
use Does::{Answers, Fails, Nothing, Succeeds};

struct Track {
    begun: Instant,
    starts: Mutex<Vec<(Transport, u128)>>,
    alive: Arc<()>,
    answered: CancellationToken,
}

impl Track {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            starts: Mutex::default(),
            alive: Arc::default(),
            answered: CancellationToken::new(),
        }
    }
}

fn attempt(track: &Track, transport: Transport, does: Does) -> Attempt<&'static str, Broken> {
    track.starts.lock().unwrap().push((transport, track.begun.elapsed().as_millis()));
    let (alive, answered) = (track.alive.clone(), track.answered.clone());
    Box::pin(async move {
        let _alive = alive;
        match does {
            Succeeds(after) => {
                sleep(Duration::from_millis(after)).await;
                Ok(transport.name())
            }
            Fails(after) => {
                sleep(Duration::from_millis(after)).await;
                Err(Broken(match transport {
                    Transport::Quic => "no quic",
                    Transport::Grpc => "no grpc",
                }))
            }
            Answers(after) => {
                answered.cancel();
                sleep(Duration::from_millis(after)).await;
                Ok(transport.name())
            }
            Nothing => std::future::pending().await,
        }
    })
}

/// How it ended, when, and when attempts began.
async fn run(first: Transport, head_start: u64, quic: Does, grpc: Does) -> (String, u128, Vec<(Transport, u128)>) {
    let track = Track::new();
    let plan = (first, Duration::from_millis(head_start));
    let won = race(
        plan,
        &track.answered,
        || attempt(&track, Transport::Quic, quic),
        || attempt(&track, Transport::Grpc, grpc),
    )
    .await;
    let took = track.begun.elapsed().as_millis();
    let kept = Arc::strong_count(&track.alive) - 1;
    let (text, expected) = match won {
        Ok(Won::Quic(_)) => ("quic".to_owned(), 0),
        Ok(Won::Grpc(_, Quic::NotTried)) => ("grpc alone".to_owned(), 0),
        Ok(Won::Grpc(_, Quic::Silent(_))) => ("grpc, quic under way".to_owned(), 1),
        Ok(Won::Grpc(_, Quic::Failed(error))) => (format!("grpc, {error}"), 0),
        Err(error) => (error.to_string(), 0),
    };
    assert_eq!(kept, expected, "attempts that go on: {text}");
    (text, took, track.starts.into_inner().unwrap())
}

const Q: Transport = Transport::Quic;
const G: Transport = Transport::Grpc;

#[tokio::test(start_paused = true)]
async fn quic_that_answers_has_no_rival() {
    assert_eq!(run(Q, 250, Succeeds(200), Succeeds(5)).await, ("quic".into(), 200, vec![(Q, 0)]));
}

#[tokio::test(start_paused = true)]
async fn grpc_begins_when_quic_is_silent_and_quic_may_still_win() {
    let both = vec![(Q, 0), (G, 250)];
    let grpc = "grpc, quic under way".to_owned();
    assert_eq!(run(Q, 250, Nothing, Succeeds(30)).await, (grpc.clone(), 280, both.clone()));
    assert_eq!(run(Q, 250, Succeeds(300), Succeeds(100)).await, ("quic".into(), 300, both.clone()));
    assert_eq!(run(Q, 250, Succeeds(351), Succeeds(100)).await, (grpc, 350, both));
}

#[tokio::test(start_paused = true)]
async fn grpc_begins_at_once_when_quic_fails() {
    let result = run(Q, 250, Fails(10), Succeeds(30)).await;
    assert_eq!(result, ("grpc, no quic".into(), 40, vec![(Q, 0), (G, 10)]));
    // A failure while both are under way is the reason, too.
    let result = run(Q, 250, Fails(300), Succeeds(100)).await;
    assert_eq!(result, ("grpc, no quic".into(), 350, vec![(Q, 0), (G, 250)]));
}

#[tokio::test(start_paused = true)]
async fn both_causes_are_named() {
    let expected = "over QUIC: no quic; over gRPC: no grpc";
    assert_eq!(run(Q, 250, Fails(10), Fails(30)).await.0, expected);
    assert_eq!(run(Q, 250, Fails(300), Fails(10)).await.0, expected);
    assert_eq!(run(G, 250, Fails(300), Fails(10)).await.0, expected);
}

#[tokio::test(start_paused = true)]
async fn a_closed_tcp_port_does_not_wait_for_quics_own_limit() {
    let (text, took, _) = run(Q, 250, Nothing, Fails(1)).await;
    assert_eq!((text.as_str(), took), ("over QUIC: no answer within 3.3 s; over gRPC: no grpc", 3_251));
    // A long path: what took 2 s to fail over TCP may take QUIC as long.
    assert_eq!(run(Q, 250, Succeeds(10_000), Fails(2_000)).await.1, 10_000);
    assert_eq!(run(Q, 250, Succeeds(3_200), Fails(1)).await.0, "quic");
    // A server that has answered and takes its time has its time.
    assert_eq!(run(Q, 250, Answers(9_000), Fails(1)).await.1, 9_000);
}

#[tokio::test(start_paused = true)]
async fn grpc_that_goes_first_has_no_rival_while_it_works() {
    assert_eq!(run(G, 2_000, Succeeds(1), Succeeds(1_900)).await, ("grpc alone".into(), 1_900, vec![(G, 0)]));
    assert_eq!(run(G, 2_000, Succeeds(50), Fails(5)).await, ("quic".into(), 55, vec![(G, 0), (Q, 5)]));
    assert_eq!(run(G, 2_000, Succeeds(50), Nothing).await, ("quic".into(), 2_050, vec![(G, 0), (Q, 2_000)]));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_race_leaves_nothing() {
    let track = Track::new();
    let plan = (Q, Duration::from_millis(250));
    let race = race(plan, &track.answered, || attempt(&track, Q, Nothing), || attempt(&track, G, Nothing));
    assert!(timeout(Duration::from_secs(5), race).await.is_err());
    assert_eq!((Arc::strong_count(&track.alive), track.starts.lock().unwrap().len()), (1, 2));
}
