//! A world of connections that are not there, written down as functions of time.

use std::{
    future::pending,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use konnectivity_process::{connections::GrpcFacts, metrics::QuicSnapshot};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};

use super::super::{
    carrier::{GrpcCarrier, QuicCarrier, QuicEnd, ServerSays},
    choice::Wanted,
    served::Handle,
    *,
};
use crate::{
    metrics::Metrics,
    server_set::{Connection as _, Connector as _, Towards},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) &'static str);

/// What an attempt meets.
#[derive(Clone, Copy)]
pub(super) enum Meets {
    /// The server of this name.
    Server(&'static str),
    /// A failure after a round trip.
    Failure(&'static str),
    Silence,
}
pub(super) use Meets::{Failure, Server as Here, Silence};

/// What there is to see of all connections.
pub(super) struct World {
    pub(super) quic: Box<dyn Fn(Duration) -> Meets + Send + Sync>,
    pub(super) grpc: Box<dyn Fn(Duration) -> Meets + Send + Sync>,
    pub(super) begun: Instant,
    pub(super) events: Mutex<Vec<(u128, String)>>,
    /// Ends the QUIC connection that serves, by silence.
    pub(super) quic_dies: Notify,
    /// Ends the gRPC connection that serves.
    pub(super) grpc_dies: Notify,
    /// Dials on gRPC.
    pub(super) grpc_dials: watch::Sender<usize>,
    pub(super) serving: AtomicUsize,
}

impl World {
    pub(super) fn note(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push((self.begun.elapsed().as_millis(), event.into()));
    }

    pub(super) async fn meet(&self, meets: Meets) -> Result<ServerId, Broken> {
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

pub(super) struct Fake {
    pub(super) id: ServerId,
    pub(super) transport: Transport,
    pub(super) world: Arc<World>,
}

impl Carrier for Fake {
    fn server_id(&self) -> &ServerId {
        &self.id
    }

    fn server_count(&self) -> u32 {
        1
    }

    fn lists_servers(&self) -> bool {
        false
    }

    fn remote(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8091))
    }

    fn handle(&self) -> Handle {
        let world = self.world.clone();
        let remote = self.remote();
        let facts = move |open_dials| GrpcFacts { remote, age: Duration::ZERO, open_dials, untaken_bytes: 0 };
        Handle::Grpc(Arc::new(move || facts(*world.grpc_dials.borrow())))
    }

    async fn close(self, _: &'static str) {
        self.world.note(format!("close {} {}", self.transport, self.id));
    }
}

impl Fake {
    pub(super) fn serves(&self) -> Serving {
        self.world.note(format!("serve {}", self.transport));
        self.world.serving.fetch_add(1, SeqCst);
        Serving(self.transport, self.world.clone())
    }
}

/// Notes when a connection serves no more, or is dropped.
pub(super) struct Serving(pub(super) Transport, pub(super) Arc<World>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.1.note(format!("end {}", self.0));
        self.1.serving.fetch_sub(1, SeqCst);
    }
}

pub(super) struct QuicFake(pub(super) Fake);
pub(super) struct GrpcFake(pub(super) Fake);

macro_rules! carrier {
    ($name:ident) => {
        impl Carrier for $name {
            fn server_id(&self) -> &ServerId {
                self.0.server_id()
            }

            fn server_count(&self) -> u32 {
                self.0.server_count()
            }

            fn lists_servers(&self) -> bool {
                self.0.lists_servers()
            }

            fn remote(&self) -> SocketAddr {
                self.0.remote()
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
    async fn serve(self, _: ServerSays) -> QuicEnd {
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

pub(super) struct Fakes(pub(super) Arc<World>);

impl Carriers for Fakes {
    type Quic = QuicFake;
    type QuicError = Broken;
    type Grpc = GrpcFake;
    type GrpcError = Broken;

    fn is_silence(error: &Broken) -> bool {
        error.0 == "silence"
    }

    async fn resolve(&self, _: &Towards) -> io::Result<Vec<SocketAddr>> {
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
pub(super) struct Agent {
    pub(super) world: Arc<World>,
    pub(super) connector: Connector<Fakes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) running: JoinSet<()>,
}

impl Agent {
    pub(super) fn new(
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
    pub(super) async fn up(&mut self) {
        let connection = self.connector.connect(&Towards::Any).await.unwrap();
        assert_eq!(connection.server_id().as_str(), "a");
        self.running.spawn(connection.serve());
        tokio::task::yield_now().await;
    }

    pub(super) async fn error(&self) -> String {
        let error = self.connector.connect(&Towards::Any).await.err().unwrap();
        with_sources(&error)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        // The time of day is not this clock's.
        let lines = self.connector.shared.served.lines().into_iter();
        lines
            .map(|line| {
                line.split_once(" since ").map_or(line.clone(), |(head, rest)| format!("{head} {}", &rest[21..]))
            })
            .collect()
    }

    pub(super) fn metric(&self, name: &str) -> Vec<String> {
        let text = self.metrics.render(0, 0, &QuicSnapshot::default()).unwrap();
        let name = format!("konnectivity_network_proxy_agent_{name}{{");
        text.lines().filter_map(|line| Some(line.strip_prefix(&name)?.to_owned())).collect()
    }

    /// What happened since the last call: milliseconds since the beginning, and what.
    pub(super) fn events(&self) -> Vec<(u128, String)> {
        std::mem::take(&mut self.world.events.lock().unwrap())
    }

    pub(super) fn what(&self) -> Vec<String> {
        self.events().into_iter().map(|(_, what)| what).collect()
    }
}
