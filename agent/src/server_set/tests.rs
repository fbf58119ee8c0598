use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use konnectivity_transport::server_list::{ListedServer, ServerList};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Notify,
    time::{self, sleep},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error("no route to the server")]
struct NoServer {
    source: std::io::Error,
}

/// What one attempt meets, after `took`.
enum Meeting {
    Server { number: usize, count: u32 },
    Nobody,
    Silence,
}

/// A balancer with servers behind it, written down as a function of the number of the attempt.
struct Fake {
    meet: Box<dyn Fn(usize) -> Meeting + Send + Sync>,
    begun: Instant,
    attempts: Mutex<Vec<Duration>>,
    duplicates: AtomicUsize,
    /// Ends the connection to a server.
    lose: Vec<Arc<Notify>>,
    /// What each server says of itself.
    drains: Vec<CancellationToken>,
    /// What each server says of all.
    told: Vec<watch::Sender<Option<Arc<Told>>>>,
    /// Whether they do.
    lists: bool,
    /// Attempts at servers' own addresses, which lead to them.
    direct: Mutex<Vec<(Duration, String)>>,
    /// Attempts and connections that exist.
    alive: Arc<()>,
}

const ROUND_TRIP: Duration = Duration::from_millis(100);

impl Fake {
    fn new(meet: impl Fn(usize) -> Meeting + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self::silent(meet))
    }

    /// Its servers say which servers there are.
    fn listing(meet: impl Fn(usize) -> Meeting + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { lists: true, ..Self::silent(meet) })
    }

    fn silent(meet: impl Fn(usize) -> Meeting + Send + Sync + 'static) -> Self {
        Self {
            meet: Box::new(meet),
            begun: Instant::now(),
            attempts: Mutex::default(),
            duplicates: AtomicUsize::new(0),
            lose: (0..5).map(|_| Arc::default()).collect(),
            drains: (0..5).map(|_| CancellationToken::new()).collect(),
            told: (0..5).map(|_| watch::Sender::new(None)).collect(),
            lists: false,
            direct: Mutex::default(),
            alive: Arc::default(),
        }
    }

    /// Server `from` says that these are the servers.
    fn tell(&self, from: usize, servers: &[usize]) {
        let servers = servers.iter().map(|number| ListedServer {
            id: ServerId::new(format!("server-{number}")).unwrap(),
            addresses: [format!("192.0.2.{number}:8091").parse().unwrap()].into(),
        });
        let servers: Vec<_> = servers.collect();
        let list = ServerList { count: u32::try_from(servers.len()).unwrap(), servers };
        self.told[from].send_replace(Some(Arc::new(Told { list, via: [192, 0, 2, 99].into() })));
    }

    fn direct(&self) -> Vec<(Duration, String)> {
        self.direct.lock().unwrap().clone()
    }

    fn attempts(&self) -> Vec<Duration> {
        self.attempts.lock().unwrap().clone()
    }

    fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }
}

/// The connector is a handle, so that connections can count their closes in it.
struct Handle(Arc<Fake>);

struct FakeConnection {
    id: ServerId,
    count: u32,
    lose: Arc<Notify>,
    drains: CancellationToken,
    told: watch::Sender<Option<Arc<Told>>>,
    fake: Arc<Fake>,
    _alive: Arc<()>,
}

impl Handle {
    fn met(&self, number: usize, count: u32, alive: Arc<()>) -> FakeConnection {
        FakeConnection {
            id: ServerId::new(format!("server-{number}")).unwrap(),
            count,
            lose: self.0.lose[number].clone(),
            drains: self.0.drains[number].clone(),
            told: self.0.told[number].clone(),
            fake: self.0.clone(),
            _alive: alive,
        }
    }
}

impl Connector for Handle {
    type Connection = FakeConnection;
    type Error = NoServer;

    async fn connect(&self, towards: &Towards) -> Result<FakeConnection, NoServer> {
        let alive = self.0.alive.clone();
        if let Towards::Listed(direct) = towards {
            self.0.direct.lock().unwrap().push((self.0.begun.elapsed(), direct.server_id.to_string()));
            sleep(ROUND_TRIP).await;
            let number: usize = direct.server_id.as_str()["server-".len()..].parse().unwrap();
            return Ok(self.met(number, 1, alive));
        }
        let number = {
            let mut attempts = self.0.attempts.lock().unwrap();
            attempts.push(self.0.begun.elapsed());
            attempts.len() - 1
        };
        sleep(ROUND_TRIP).await;
        match (self.0.meet)(number) {
            Meeting::Server { number, count } => Ok(self.met(number, count, alive)),
            Meeting::Nobody => Err(NoServer { source: std::io::Error::other("network is down") }),
            Meeting::Silence => std::future::pending().await,
        }
    }
}

impl Connection for FakeConnection {
    fn server_id(&self) -> &ServerId {
        &self.id
    }

    fn server_count(&self) -> u32 {
        self.count
    }

    fn lists_servers(&self) -> bool {
        self.fake.lists
    }

    fn servers(&self) -> watch::Receiver<Option<Arc<Told>>> {
        self.told.subscribe()
    }

    fn server_drains(&self) -> CancellationToken {
        self.drains.clone()
    }

    async fn serve(self) {
        self.lose.notified().await;
    }

    async fn close_duplicate(self) {
        self.fake.duplicates.fetch_add(1, SeqCst);
    }
}

struct Running {
    fake: Arc<Fake>,
    status: watch::Receiver<ServerSetStatus>,
    leases: watch::Sender<Option<u32>>,
    drain: CancellationToken,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Running {
    fn start(fake: &Arc<Fake>, sync_forever: bool) -> Self {
        let settings = ServerSetSettings {
            sync_interval: SECOND,
            sync_interval_cap: 10 * SECOND,
            sync_forever,
            attempt_limit: 5 * SECOND,
            count_source: CountSource::default(),
        };
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let (sender, status) = watch::channel(ServerSetStatus::default());
        let (leases, counted) = watch::channel(None);
        let connector = Arc::new(Handle(fake.clone()));
        let mut task = JoinSet::new();
        task.spawn(run(settings, connector, counted, drain.clone(), stop.clone(), sender));
        Self { fake: fake.clone(), status, leases, drain, stop, task }
    }

    /// Waits for a status; the paused clock moves to whatever happens next.
    async fn until(&mut self, condition: impl FnMut(&ServerSetStatus) -> bool) -> ServerSetStatus {
        time::timeout(3_600 * SECOND, self.status.wait_for(condition))
            .await
            .expect("within an hour")
            .expect("the loop runs")
            .clone()
    }

    async fn until_connected(&mut self, servers: usize) -> ServerSetStatus {
        self.until(|status| status.connected.len() == servers).await
    }

    fn lose(&self, server: usize) {
        self.fake.lose[server].notify_one();
    }

    /// Stops the loop and reports how long that took.
    async fn stop(mut self, servers: &[usize]) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        servers.iter().for_each(|server| self.lose(*server));
        self.task.join_next().await.unwrap().unwrap();
        assert_eq!(self.fake.alive(), 0, "nothing is left");
        begun.elapsed()
    }
}

/// The gaps between attempts, in milliseconds.
fn gaps(attempts: &[Duration]) -> Vec<u128> {
    attempts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_server_behind_a_random_balancer_is_reached_in_round_trips() {
    let mut slow = 0;
    for seed in 0..200 {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let fake = Fake::new(move |_| Meeting::Server { number: random.lock().unwrap().random_range(0..3), count: 3 });
        let mut running = Running::start(&fake, false);
        let status = running.until_connected(3).await;
        assert_eq!(status.desired, 3);
        slow += usize::from(fake.begun.elapsed() > 20 * ROUND_TRIP);

        // Attempts under way meet servers that are connected by now.
        while fake.alive() > 3 {
            sleep(ROUND_TRIP).await;
        }
        let attempts = fake.attempts().len();
        assert_eq!(fake.duplicates.load(SeqCst), attempts - 3, "all others are closed");
        sleep(100 * SECOND).await;
        assert_eq!(fake.attempts().len(), attempts, "no attempt without need");
        running.stop(&[0, 1, 2]).await;
    }
    // (2/3)^8: the burst meets known servers only, and the search goes on once a second.
    assert!(slow <= 20, "{slow} of 200");
}

#[tokio::test(start_paused = true)]
async fn waits_grow_to_the_cap_and_begin_anew_after_a_success() {
    let fake = Fake::new(|attempt| match attempt {
        10 => Meeting::Server { number: 0, count: 1 },
        _ => Meeting::Nobody,
    });
    let mut running = Running::start(&fake, false);
    let status = running.until(|status| status.last_failure.is_some()).await;
    assert_eq!(status.last_failure.as_deref(), Some("no route to the server: network is down"));

    let status = running.until_connected(1).await;
    assert_eq!(status.last_failure, None);
    let first = [1_000u128, 1_500, 2_250, 3_375, 5_062, 7_593, 10_000, 10_000, 10_000, 10_000];
    let waited = gaps(&fake.attempts());
    assert_eq!(waited.len(), first.len());
    for (waited, step) in waited.iter().zip(first) {
        let waited = waited - ROUND_TRIP.as_millis();
        assert!((step..=step + step / 10 + 2).contains(&waited), "{waited} for a step of {step}");
    }

    // Lost after a minute: at once, then after the first step.
    sleep(60 * SECOND).await;
    running.lose(0);
    let lost = fake.begun.elapsed();
    running.until(|status| status.last_failure.is_some()).await;
    while fake.attempts().len() < 13 {
        sleep(ROUND_TRIP).await;
    }
    let attempts = fake.attempts();
    assert_eq!(attempts[11], lost);
    let second = (attempts[12] - attempts[11] - ROUND_TRIP).as_millis();
    assert!((1_000..=1_102).contains(&second), "{second}");
    running.stop(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_interrupts_the_wait_of_a_search() {
    // Two servers, of which one cannot be found.
    let fake = Fake::new(|attempt| match attempt {
        0 => Meeting::Server { number: 0, count: 2 },
        1..8 => Meeting::Nobody,
        _ => Meeting::Server { number: 0, count: 2 },
    });
    let mut running = Running::start(&fake, false);
    running.until_connected(1).await;
    while fake.attempts().len() < 8 {
        sleep(ROUND_TRIP).await;
    }
    sleep(2 * ROUND_TRIP).await;
    let waiting = fake.attempts().len();
    running.lose(0);
    running.until_connected(0).await;
    running.until_connected(1).await;
    let attempts = fake.attempts();
    assert!(attempts[waiting] - attempts[waiting - 1] < SECOND, "not after the wait: {attempts:?}");
    running.stop(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn stop_interrupts_a_wait_at_once() {
    let fake = Fake::new(|_| Meeting::Nobody);
    let running = Running::start(&fake, false);
    sleep(60 * SECOND).await;
    while fake.alive() > 0 {
        sleep(ROUND_TRIP).await;
    }
    assert_eq!(running.stop(&[]).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn stop_interrupts_an_attempt_at_once() {
    let fake = Fake::new(|_| Meeting::Silence);
    let running = Running::start(&fake, false);
    sleep(2 * SECOND).await;
    assert_eq!(fake.alive(), 1);
    assert_eq!(running.stop(&[]).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_does_not_hold_up_the_search() {
    let fake = Fake::new(|attempt| match attempt {
        0 => Meeting::Silence,
        _ => Meeting::Server { number: 0, count: 1 },
    });
    let mut running = Running::start(&fake, false);
    let status = running.until(|status| status.last_failure.is_some()).await;
    assert_eq!(status.last_failure.as_deref(), Some("no answer from the server within 5s"));
    running.until_connected(1).await;
    running.stop(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn drain_keeps_connections_and_dials_no_more() {
    let fake = Fake::new(|attempt| Meeting::Server { number: attempt.min(1), count: 2 });
    let mut running = Running::start(&fake, true);
    running.until_connected(2).await;
    running.drain.cancel();
    sleep(60 * SECOND).await;
    let attempts = fake.attempts().len();
    assert_eq!(fake.alive(), 2, "connections go on, attempts do not");

    running.lose(0);
    running.until_connected(1).await;
    sleep(60 * SECOND).await;
    assert_eq!(fake.attempts().len(), attempts);
    running.lose(1);
    running.task.join_next().await.unwrap().unwrap();
    assert_eq!(fake.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_drops_the_attempts_under_way() {
    let fake = Fake::new(|attempt| match attempt {
        0 => Meeting::Server { number: 0, count: 2 },
        _ => Meeting::Silence,
    });
    let mut running = Running::start(&fake, false);
    running.until_connected(1).await;
    sleep(2 * ROUND_TRIP).await;
    assert_eq!(fake.alive(), 2);
    running.drain.cancel();
    sleep(ROUND_TRIP).await;
    assert_eq!(fake.alive(), 1);
    running.stop(&[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_is_replaced_while_its_connection_lives() {
    let fake = Fake::new(|attempt| Meeting::Server { number: usize::from(attempt >= 3), count: 1 });
    let mut running = Running::start(&fake, false);
    running.until_connected(1).await;
    sleep(60 * SECOND).await;
    assert_eq!(fake.attempts().len(), 1);
    fake.drains[0].cancel();
    let told = fake.begun.elapsed();
    running.until_connected(2).await;
    let attempts = fake.attempts();
    assert_eq!((attempts.len(), attempts[1]), (4, told), "at once, and again until another answers");
    sleep(60 * SECOND).await;
    assert_eq!((fake.attempts().len(), fake.alive()), (4, 2), "the draining one is kept, and nothing more is sought");
    running.lose(0);
    running.until_connected(1).await;
    sleep(60 * SECOND).await;
    assert_eq!(fake.attempts().len(), 4);
    running.stop(&[1]).await;
}

#[tokio::test(start_paused = true)]
async fn sync_forever_finds_a_server_that_comes_later() {
    let fake = Fake::new(|attempt| Meeting::Server {
        number: usize::from(attempt >= 5),
        count: if attempt >= 5 { 2 } else { 1 },
    });
    let mut running = Running::start(&fake, true);
    let status = running.until_connected(2).await;
    assert_eq!(status.desired, 2);
    for gap in gaps(&fake.attempts()) {
        assert!((1_100..=1_202).contains(&gap), "{gap}");
    }
    running.stop(&[0, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_loop_leaves_nothing() {
    let fake = Fake::new(|_| Meeting::Server { number: 0, count: 3 });
    let mut running = Running::start(&fake, true);
    running.until_connected(1).await;
    running.task.shutdown().await;
    // Aborted tasks are dropped when the runtime comes to them.
    while fake.alive() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn listed_servers_are_connected_in_three_round_trips_without_a_search() {
    for seed in 0..20 {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let fake =
            Fake::listing(move |_| Meeting::Server { number: random.lock().unwrap().random_range(0..3), count: 3 });
        let mut running = Running::start(&fake, false);
        let first = running.until_connected(1).await.connected;
        let first: usize = first[0].as_str()["server-".len()..].parse().unwrap();
        fake.tell(first, &[0, 1, 2]);
        running.until_connected(3).await;
        assert!(fake.begun.elapsed() <= 3 * ROUND_TRIP, "{:?}", fake.begun.elapsed());
        sleep(100 * SECOND).await;
        assert_eq!((fake.attempts().len(), fake.direct().len()), (1, 2));
        assert_eq!(fake.duplicates.load(SeqCst), 0);
        running.stop(&[0, 1, 2]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn lists_are_heard_one_after_the_other() {
    let fake = Fake::listing(|_| Meeting::Server { number: 0, count: 1 });
    let mut running = Running::start(&fake, false);
    running.until_connected(1).await;
    for number in 1..4 {
        fake.tell(0, &[0, number]);
        running.until_connected(number + 1).await;
    }
    // One that leaves is not dialled again, and one that joins is.
    fake.tell(0, &[0, 3]);
    fake.drains[1].cancel();
    running.lose(1);
    running.lose(2);
    let status = running.until_connected(2).await;
    sleep(100 * SECOND).await;
    assert_eq!((status.desired, fake.direct().len()), (2, 3), "{:?}", fake.direct());
    running.stop(&[0, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn the_count_of_leases_starts_and_ends_a_search() {
    let fake = Fake::new(|attempt| Meeting::Server { number: attempt.min(2), count: 1 });
    let mut running = Running::start(&fake, false);
    running.until_connected(1).await;
    sleep(10 * SECOND).await;
    assert_eq!(fake.attempts().len(), 1);
    running.leases.send_replace(Some(2));
    running.until_connected(2).await;
    sleep(10 * SECOND).await;
    assert_eq!(fake.attempts().len(), 2);
    // Whoever counts may end before.
    running.leases = watch::channel(None).0;
    sleep(10 * SECOND).await;
    running.lose(1);
    running.until_connected(1).await;
    running.until_connected(2).await;
    running.stop(&[0, 2]).await;
}
