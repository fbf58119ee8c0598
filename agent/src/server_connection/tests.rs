use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use konnectivity_process::{connections::GrpcFacts, metrics::QuicSnapshot};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};

use super::{
    carrier::QuicEnd,
    choice::{HEAD_START, Wanted},
    served::Handle,
    *,
};
use crate::{
    metrics::Metrics,
    server_set::{Connection as _, Connector as _},
};

const SECOND: Duration = Duration::from_secs(1);
const ROUND_TRIP: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

/// What an attempt meets.
#[derive(Clone, Copy)]
enum Meets {
    /// The server of this name.
    Server(&'static str),
    /// A failure after a round trip.
    Failure(&'static str),
    Silence,
}
use Meets::{Failure, Server as Here, Silence};

/// What there is to see of all connections.
struct World {
    quic: Box<dyn Fn(Duration) -> Meets + Send + Sync>,
    grpc: Box<dyn Fn(Duration) -> Meets + Send + Sync>,
    begun: Instant,
    events: Mutex<Vec<(u128, String)>>,
    /// Ends the QUIC connection that serves, by silence.
    quic_dies: Notify,
    /// Ends the gRPC connection that serves.
    grpc_dies: Notify,
    /// Dials on gRPC.
    grpc_dials: watch::Sender<usize>,
    serving: AtomicUsize,
}

impl World {
    fn note(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push((self.begun.elapsed().as_millis(), event.into()));
    }

    async fn meet(&self, meets: Meets) -> Result<ServerId, Broken> {
        match meets {
            Here(name) => {
                sleep(ROUND_TRIP).await;
                Ok(ServerId::new(name.to_owned()).unwrap())
            }
            Failure(text) => {
                sleep(ROUND_TRIP).await;
                Err(Broken(text))
            }
            Silence => pending().await,
        }
    }
}

struct Fake {
    id: ServerId,
    transport: Transport,
    world: Arc<World>,
}

impl Carrier for Fake {
    fn server_id(&self) -> &ServerId {
        &self.id
    }

    fn server_count(&self) -> u32 {
        1
    }

    fn handle(&self) -> Handle {
        let world = self.world.clone();
        let remote = SocketAddr::from(([127, 0, 0, 1], 8091));
        let facts = move |open_dials| GrpcFacts { remote, age: Duration::ZERO, open_dials, untaken_bytes: 0 };
        Handle::Grpc(Arc::new(move || facts(*world.grpc_dials.borrow())))
    }

    async fn close(self, _: &'static str) {
        self.world.note(format!("close {} {}", self.transport, self.id));
    }
}

impl Fake {
    fn serves(&self) -> Serving {
        self.world.note(format!("serve {}", self.transport));
        self.world.serving.fetch_add(1, SeqCst);
        Serving(self.transport, self.world.clone())
    }
}

/// Notes when a connection serves no more, or is dropped.
struct Serving(Transport, Arc<World>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.1.note(format!("end {}", self.0));
        self.1.serving.fetch_sub(1, SeqCst);
    }
}

struct QuicFake(Fake);
struct GrpcFake(Fake);

macro_rules! carrier {
    ($name:ident) => {
        impl Carrier for $name {
            fn server_id(&self) -> &ServerId {
                self.0.server_id()
            }

            fn server_count(&self) -> u32 {
                self.0.server_count()
            }

            fn handle(&self) -> Handle {
                self.0.handle()
            }

            async fn close(self, reason: &'static str) {
                self.0.close(reason).await;
            }
        }
    };
}
carrier!(QuicFake);
carrier!(GrpcFake);

impl QuicCarrier for QuicFake {
    async fn serve(self, _: CancellationToken) -> QuicEnd {
        let (_serving, since) = (self.0.serves(), Instant::now());
        self.0.world.quic_dies.notified().await;
        QuicEnd { silent: true, lasted: since.elapsed() }
    }
}

impl GrpcCarrier for GrpcFake {
    async fn serve(self, moved: CancellationToken, _: CancellationToken) {
        let _serving = self.0.serves();
        let world = self.0.world.clone();
        let dials = world.grpc_dials.subscribe();
        tokio::select! {
            () = world.grpc_dies.notified() => {}
            () = async {
                moved.cancelled().await;
                world.note("drain grpc");
                let mut dials = dials;
                dials.wait_for(|&dials| dials == 0).await.unwrap();
            } => {}
        }
    }
}

struct Fakes(Arc<World>);

impl Carriers for Fakes {
    type Quic = QuicFake;
    type QuicError = Broken;
    type Grpc = GrpcFake;
    type GrpcError = Broken;

    fn is_silence(error: &Broken) -> bool {
        error.0 == "silence"
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], 8091))])
    }

    async fn quic(self: Arc<Self>, _: Vec<SocketAddr>, _: CancellationToken) -> Result<QuicFake, Broken> {
        let world = self.0.clone();
        world.note("try quic");
        let id = world.meet((world.quic)(world.begun.elapsed())).await?;
        Ok(QuicFake(Fake { id, transport: Transport::Quic, world }))
    }

    async fn grpc(self: Arc<Self>, _: Vec<SocketAddr>) -> Result<GrpcFake, Broken> {
        let world = self.0.clone();
        world.note("try grpc");
        let id = world.meet((world.grpc)(world.begun.elapsed())).await?;
        Ok(GrpcFake(Fake { id, transport: Transport::Grpc, world }))
    }
}

/// An agent with one server.
struct Agent {
    world: Arc<World>,
    connector: Connector<Fakes>,
    metrics: Arc<Metrics>,
    running: JoinSet<()>,
}

impl Agent {
    fn new(
        wanted: Wanted,
        quic: impl Fn(Duration) -> Meets + Send + Sync + 'static,
        grpc: impl Fn(Duration) -> Meets + Send + Sync + 'static,
    ) -> Self {
        let world = Arc::new(World {
            quic: Box::new(quic),
            grpc: Box::new(grpc),
            begun: Instant::now(),
            events: Mutex::default(),
            quic_dies: Notify::new(),
            grpc_dies: Notify::new(),
            grpc_dials: watch::Sender::new(0),
            serving: AtomicUsize::new(0),
        });
        let metrics = Arc::new(Metrics::new());
        let connector = Connector::new(Shared {
            carriers: Arc::new(Fakes(world.clone())),
            host: "server.example".to_owned(),
            configured: format!(
                "--transport={}",
                if wanted == Wanted::Only(Transport::Quic) { "quic" } else { "grpc" }
            ),
            choice: Mutex::new(Choice::new(wanted, 30 * SECOND)),
            attempt_limit: 10 * SECOND,
            drain: CancellationToken::new(),
            tasks: TaskTracker::new(),
            served: Arc::new(Served::new(metrics.clone())),
        });
        Self { world, connector, metrics, running: JoinSet::new() }
    }

    /// Connects, and serves in a task.
    async fn up(&mut self) {
        let connection = self.connector.connect().await.unwrap();
        assert_eq!(connection.server_id().as_str(), "a");
        self.running.spawn(connection.serve());
        tokio::task::yield_now().await;
    }

    async fn error(&self) -> String {
        let error = self.connector.connect().await.err().unwrap();
        with_sources(&error)
    }

    fn lines(&self) -> Vec<String> {
        // The time of day is not this clock's.
        let lines = self.connector.shared.served.lines().into_iter();
        lines
            .map(|line| {
                line.split_once(" since ").map_or(line.clone(), |(head, rest)| format!("{head} {}", &rest[21..]))
            })
            .collect()
    }

    fn metric(&self, name: &str) -> Vec<String> {
        let text = self.metrics.render(0, 0, &QuicSnapshot::default()).unwrap();
        let name = format!("konnectivity_network_proxy_agent_{name}{{");
        text.lines().filter_map(|line| Some(line.strip_prefix(&name)?.to_owned())).collect()
    }

    /// What happened since the last call: milliseconds since the beginning, and what.
    fn events(&self) -> Vec<(u128, String)> {
        std::mem::take(&mut self.world.events.lock().unwrap())
    }

    fn what(&self) -> Vec<String> {
        self.events().into_iter().map(|(_, what)| what).collect()
    }
}

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
    let connection = agent.connector.won(won, Transport::Quic, HEAD_START);
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
async fn both_failures_are_told() {
    let agent = Agent::new(Wanted::Auto, |_| Failure("no quic"), |_| Failure("no grpc"));
    assert_eq!(agent.error().await, "over QUIC: no quic; over gRPC: no grpc");
    assert_eq!(agent.what(), ["try quic", "try grpc"]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_closed_with_what_is_under_way() {
    let agent = Agent::new(Wanted::Auto, |_| Silence, |_| Here("a"));
    agent.connector.connect().await.unwrap().close_duplicate().await;
    sleep(3_600 * SECOND).await;
    assert_eq!(agent.what(), ["try quic", "try grpc", "close grpc a"]);
}
