mod fakes;

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::time::{sleep, timeout};

use self::fakes::*;
use super::{
    choice::{HEAD_START, Wanted},
    *,
};
use crate::server_set::{Connection as _, Connector as _, Towards};

/// QUIC works from this moment on.
fn from(moment: Duration) -> impl Fn(Duration) -> Meets + Send + Sync {
    move |now| if now >= moment { Here("a") } else { Silence }
}

#[tokio::test(start_paused = true)]
async fn quic_serves_where_it_answers() {
    let mut agent = Agent::new(Wanted::Auto, |_| Here("a"), |_| Here("a"));
    agent.up().await;
    assert_eq!(agent.lines(), ["server a over quic (QUIC has answered)"]);
    assert_eq!(agent.metric("server_transport"), ["transport=\"quic\"} 1"]);
    let choices = agent.metric("server_transport_choices_total");
    assert_eq!(choices, ["reason=\"quic_answered\",transport=\"quic\"} 1"]);
    sleep(3_600 * SECOND).await;
    assert_eq!(agent.what(), ["try quic", "serve quic"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_of_the_references_is_served_over_grpc_and_not_bothered() {
    let mut agent = Agent::new(Wanted::Auto, |_| Silence, |_| Here("a"));
    agent.up().await;
    assert!(agent.world.begun.elapsed() < Duration::from_millis(300), "{:?}", agent.world.begun.elapsed());
    assert_eq!(agent.lines(), ["server a over grpc (no QUIC answer within 250ms; trying QUIC now)"]);
    sleep(11 * SECOND).await;
    assert!(agent.lines()[0].starts_with("server a over grpc (no QUIC answer within 250ms; next try in 3"));
    sleep(6 * 3_600 * SECOND).await;
    let tries: Vec<_> = agent.events().into_iter().filter(|(_, what)| what == "try quic").map(|(at, _)| at).collect();
    // Five pauses that grow, then six attempts an hour at most.
    assert!((30..=41).contains(&tries.len()), "{tries:?}");
    let gaps: Vec<_> = tries.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).collect();
    for (gap, pause) in gaps.iter().zip([30, 60, 120, 240, 480, 600, 600]) {
        // The attempt itself takes ten seconds, and up to a fifth is by lot.
        assert!((pause + 10..=pause + 11 + pause / 5).contains(gap), "{gap} for {pause}");
    }
    assert_eq!(agent.world.serving.load(SeqCst), 1, "and gRPC serves all the time");
    assert_eq!(agent.metric("server_transport"), ["transport=\"grpc\"} 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_only_late_takes_over_at_once() {
    // The answer comes 400 ms after the attempt: the race is over, the attempt is not.
    let mut agent = Agent::new(Wanted::Auto, |_| Here("a"), |_| Here("a"));
    let slow: Attempt<_, Broken> = {
        let world = agent.world.clone();
        Box::pin(async move {
            sleep(Duration::from_millis(400)).await;
            let id = ServerId::new("a".to_owned()).unwrap();
            Ok(QuicFake(Fake { id, transport: Transport::Quic, world }))
        })
    };
    let id = ServerId::new("a".to_owned()).unwrap();
    let grpc = GrpcFake(Fake { id, transport: Transport::Grpc, world: agent.world.clone() });
    let won = Won::Grpc(grpc, race::Quic::Silent(slow));
    let connection = agent.connector.won(won, (Transport::Quic, HEAD_START), || Box::pin(pending()));
    agent.running.spawn(connection.serve());
    sleep(SECOND).await;
    let expected = [(0, "serve grpc"), (400, "serve quic"), (400, "drain grpc"), (400, "end grpc")]
        .map(|(at, what)| (at, what.to_owned()));
    assert_eq!(agent.events(), expected);
}

#[tokio::test(start_paused = true)]
async fn dials_on_grpc_survive_the_move_to_quic() {
    let mut agent = Agent::new(Wanted::Auto, from(20 * SECOND), |_| Here("a"));
    agent.up().await;
    agent.world.grpc_dials.send_replace(2);
    sleep(60 * SECOND).await;
    assert_eq!(agent.what(), ["try quic", "try grpc", "serve grpc", "try quic", "serve quic", "drain grpc"]);
    // Both carry dials; one is what serves.
    assert_eq!(agent.world.serving.load(SeqCst), 2);
    assert_eq!(agent.lines().len(), 1);
    assert!(agent.lines()[0].starts_with("server a over quic (QUIC works again after 4"), "{:?}", agent.lines());
    let facts = serde_json::to_value(agent.connector.shared.served.facts()).unwrap();
    assert_eq!((facts[0]["draining"].clone(), facts[0]["open_dials"].clone()), (true.into(), 2.into()));
    assert_eq!(facts[1]["draining"], false);
    assert_eq!(agent.metric("server_transport"), ["transport=\"grpc\"} 1", "transport=\"quic\"} 1"]);

    sleep(3_600 * SECOND).await;
    assert_eq!(agent.what(), [""; 0], "for as long as it takes");
    agent.world.grpc_dials.send_replace(1);
    sleep(SECOND).await;
    assert_eq!(agent.what(), [""; 0]);
    agent.world.grpc_dials.send_replace(0);
    sleep(SECOND).await;
    assert_eq!(agent.what(), ["end grpc"]);
    assert_eq!(agent.metric("server_transport"), ["transport=\"grpc\"} 0", "transport=\"quic\"} 1"]);
    let choices = agent.metric("server_transport_choices_total");
    let expected = ["reason=\"no_quic_answer\",transport=\"grpc\"} 1", "reason=\"quic_back\",transport=\"quic\"} 1"];
    assert_eq!(choices, expected);
}

#[tokio::test(start_paused = true)]
async fn last_dials_on_grpc_do_not_keep_a_server_whose_quic_is_lost() {
    let mut agent = Agent::new(Wanted::Auto, from(20 * SECOND), |_| Here("a"));
    agent.up().await;
    agent.world.grpc_dials.send_replace(1);
    sleep(60 * SECOND).await;
    agent.world.quic_dies.notify_one();
    timeout(SECOND, agent.running.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(agent.world.serving.load(SeqCst), 1, "the dials run on");
    agent.connector.shared.tasks.close();
    assert!(timeout(SECOND, agent.connector.shared.tasks.wait()).await.is_err(), "and the agent waits for them");
    agent.world.grpc_dials.send_replace(0);
    timeout(SECOND, agent.connector.shared.tasks.wait()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn grpc_that_dies_first_ends_the_relation_and_the_attempts() {
    let mut agent = Agent::new(Wanted::Auto, |_| Silence, |_| Here("a"));
    agent.up().await;
    sleep(100 * SECOND).await;
    agent.world.grpc_dies.notify_one();
    timeout(SECOND, agent.running.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(agent.lines(), [""; 0]);
    agent.events();
    sleep(3_600 * SECOND).await;
    assert_eq!(agent.what(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn quic_that_dies_is_replaced_at_once_and_the_reason_is_told() {
    let works = Arc::new(Mutex::new(true));
    let quic = works.clone();
    let mut agent =
        Agent::new(Wanted::Auto, move |_| if *quic.lock().unwrap() { Here("a") } else { Silence }, |_| Here("a"));
    agent.up().await;
    sleep(100 * SECOND).await;
    *works.lock().unwrap() = false;
    agent.world.quic_dies.notify_one();
    agent.running.join_next().await.unwrap().unwrap();
    let lost = Instant::now();
    agent.up().await;
    assert_eq!(lost.elapsed(), ROUND_TRIP, "at once");
    let text =
        "server a over grpc (the QUIC connection fell silent, and TCP was through before a new one; trying QUIC now)";
    assert_eq!(agent.lines(), [text]);

    *works.lock().unwrap() = true;
    sleep(60 * SECOND).await;
    assert!(agent.lines()[0].starts_with("server a over quic (QUIC works again after"), "{:?}", agent.lines());
    let choices = agent.metric("server_transport_choices_total");
    assert_eq!(choices.len(), 3, "{choices:?}");
    assert!(choices.iter().any(|line| line == "reason=\"quic_lost\",transport=\"grpc\"} 1"), "{choices:?}");
}

#[tokio::test(start_paused = true)]
async fn quic_that_comes_and_goes_makes_grpc_first() {
    // Handshakes pass, and nothing after them.
    let mut agent = Agent::new(Wanted::Auto, |_| Here("a"), |_| Here("a"));
    for _ in 0..2 {
        agent.up().await;
        sleep(30 * SECOND).await;
        agent.world.quic_dies.notify_one();
        agent.running.join_next().await.unwrap().unwrap();
    }
    agent.events();
    let lost = Instant::now();
    agent.up().await;
    assert_eq!(lost.elapsed(), ROUND_TRIP, "no head start for QUIC");
    assert_eq!(agent.what(), ["try grpc", "serve grpc"]);
    let line = &agent.lines()[0];
    assert!(
        line.starts_with("server a over grpc (QUIC was lost twice within a minute, so TCP went first; next try in "),
        "{line}"
    );
    // Each time it comes back for less, it waits for longer.
    let mut waits = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        while !agent.what().contains(&"serve quic".to_owned()) {
            sleep(SECOND).await;
        }
        waits.push(begun.elapsed().as_secs());
        sleep(70 * SECOND).await;
        agent.world.quic_dies.notify_one();
        agent.running.join_next().await.unwrap().unwrap();
        // QUIC would answer at once, which is what it always did.
        agent.connector.shared.choice().on_quic_ended(
            &ServerId::new("a".to_owned()).unwrap(),
            true,
            SECOND,
            Instant::now(),
        );
        agent.up().await;
        assert_eq!(agent.metric("server_transport"), ["transport=\"grpc\"} 1", "transport=\"quic\"} 0"]);
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn another_server_behind_the_balancer_is_closed_and_tried_again_soon() {
    let count = AtomicUsize::new(0);
    let quic = move |_| match count.fetch_add(1, SeqCst) {
        0 => Failure("refused"),
        1..4 => Here("b"),
        _ => Here("a"),
    };
    let mut agent = Agent::new(Wanted::Auto, quic, |_| Here("a"));
    agent.up().await;
    assert!(
        agent.lines()[0].starts_with("server a over grpc (QUIC failed: refused; next try in 3"),
        "{:?}",
        agent.lines()
    );
    sleep(50 * SECOND).await;
    let events = agent.events();
    let what: Vec<_> = events.iter().map(|(_, what)| what.as_str()).collect();
    let expected = [
        "try quic",
        "try grpc",
        "serve grpc",
        "try quic",
        "close quic b",
        "try quic",
        "close quic b",
        "try quic",
        "close quic b",
        "try quic",
        "serve quic",
        "drain grpc",
        "end grpc",
    ];
    assert_eq!(what, expected);
    let (first, last) = (events[3].0, events[9].0);
    assert!((3_000..=3_800).contains(&(last - first)), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_drains_tries_quic_no_more() {
    let mut agent = Agent::new(Wanted::Auto, from(20 * SECOND), |_| Here("a"));
    agent.up().await;
    agent.connector.shared.drain.cancel();
    sleep(3_600 * SECOND).await;
    assert_eq!(agent.what(), ["try quic", "try grpc", "serve grpc"]);
    assert_eq!(agent.lines(), ["server a over grpc (no QUIC answer within 250ms)"]);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_is_named_is_the_only_one() {
    let mut grpc = Agent::new(Wanted::Only(Transport::Grpc), |_| Here("a"), |_| Here("a"));
    grpc.up().await;
    sleep(3_600 * SECOND).await;
    assert_eq!(grpc.what(), ["try grpc", "serve grpc"]);
    assert_eq!(grpc.lines(), ["server a over grpc (--transport=grpc)"]);

    let mut quic = Agent::new(Wanted::Only(Transport::Quic), |_| Here("a"), |_| Here("a"));
    quic.up().await;
    assert_eq!(quic.what(), ["try quic", "serve quic"]);
    for (failure, expected) in [
        (
            "silence",
            "silence (--transport=quic is set: servers that speak gRPC only, such as the reference's, need auto or grpc)",
        ),
        ("bad certificate", "bad certificate"),
    ] {
        let quic = Agent::new(Wanted::Only(Transport::Quic), move |_| Failure(failure), |_| Here("a"));
        assert_eq!(quic.error().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_among_servers_of_the_reference_sends_no_quic() {
    let mut agent = Agent::new(Wanted::Auto, |_| Silence, |_| Here("a"));
    agent.up().await;
    agent.events();
    let begun = Instant::now();
    for _ in 0..20 {
        // Another server is missing, and the balancer leads to the same.
        agent.connector.connect(&Towards::Any).await.unwrap().close_duplicate().await;
        sleep(SECOND).await;
    }
    assert_eq!(agent.what(), [["try grpc", "close grpc a"]; 20].concat());
    assert_eq!(begun.elapsed(), 20 * (SECOND + ROUND_TRIP));
    // One that is lost and comes back is tried once, while it serves.
    agent.world.grpc_dies.notify_one();
    agent.running.join_next().await.unwrap().unwrap();
    agent.events();
    agent.up().await;
    assert_eq!(agent.what(), ["try grpc", "serve grpc", "try quic"]);
    assert_eq!(agent.lines(), ["server a over grpc (no QUIC answer of late, so TCP went first; trying QUIC now)"]);
    // Once in a while, there is a race again.
    sleep(20 * SECOND).await;
    agent.events();
    agent.connector.connect(&Towards::Any).await.unwrap().close_duplicate().await;
    assert_eq!(agent.what(), ["try quic", "try grpc", "close grpc a"]);
}

#[tokio::test(start_paused = true)]
async fn both_failures_are_told() {
    let agent = Agent::new(Wanted::Auto, |_| Failure("no quic"), |_| Failure("no grpc"));
    assert_eq!(agent.error().await, "over QUIC: no quic; over gRPC: no grpc");
    assert_eq!(agent.what(), ["try quic", "try grpc"]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_closed_with_what_is_under_way() {
    let agent = Agent::new(Wanted::Auto, |_| Silence, |_| Here("a"));
    agent.connector.connect(&Towards::Any).await.unwrap().close_duplicate().await;
    sleep(3_600 * SECOND).await;
    assert_eq!(agent.what(), ["try quic", "try grpc", "close grpc a"]);
}
