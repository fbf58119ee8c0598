//! Builds the parts, binds every listener before anything is served, joins the parts, and drains them.

mod bind;
mod kubernetes;
mod leases;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context, Result};
use konnectivity_process::{
    admin,
    reload::Reloader,
    signals::{Signals, Stopping},
};
use konnectivity_transport::{
    budget::MemoryBudget,
    endpoint::ServerEndpoint,
    mux::{MuxSettings, Role},
    wire::code::ConnectionCode,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept::{
        listener::{Listener, ListenerCounts, Peers},
        stream::PeerStream,
    },
    admin::Routes,
    backend::{Backend, acceptor::Acceptor, grpc as grpc_agents, placement::Placement, registry::Registry},
    config::{Config, Mode},
    dial::Dials,
    frontend::{
        grpc::{self, settle::Settle},
        http_connect,
    },
    lease::Leases,
    membership::Membership,
    metrics::Metrics,
    worker::{Worker, Workers},
};

/// How long what was told to stop may take for its last bytes.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Agents' own connections close a little after the last dial; what was on its way still arrives.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How long a dial over gRPC stays open after its client has gone: an agent of the reference drops what it has not
/// written to the target when it is told of the end.
const CLOSE_PAUSE: Duration = Duration::from_millis(100);

/// Runs the server until it is told to stop.
///
/// # Errors
/// What could not be loaded or bound, with the setting and what to do; nothing is served then.
pub async fn run(config: Config) -> Result<()> {
    config.effective.log();
    let stopping = Stopping::default();
    let signals = Signals::catch().context("cannot catch SIGTERM and SIGINT")?;
    let mut reloader = Reloader::new().context("cannot catch SIGHUP")?;
    let workers = Workers::start(config.worker_threads).context("cannot start the worker threads")?;
    let parts = Parts::build(&config, &workers, &stopping, &mut reloader).await;
    let parts = match parts {
        Ok(parts) => parts,
        Err(error) => {
            workers.finish(STOP_LIMIT).await;
            return Err(error);
        }
    };
    let signals = async {
        signals.forward(stopping.clone()).await;
        // `serve` does what the second one asks for.
        std::future::pending().await
    };
    tokio::select! {
        () = signals => {}
        never = reloader.run() => match never {},
        result = parts.serve(&config, &workers, &stopping) => result?,
    }
    workers.finish(STOP_LIMIT).await;
    tracing::info!("stopped");
    anyhow::ensure!(!stopping.stop.is_cancelled(), "a second signal has ended it before it had drained");
    Ok(())
}

/// Everything that is bound, before it is served.
struct Parts {
    endpoints: Vec<Arc<ServerEndpoint>>,
    agent_listeners: Vec<Listener>,
    agent_port: Option<Arc<grpc_agents::Port>>,
    agent_counts: Arc<ListenerCounts>,
    frontends: Vec<Listener>,
    health: Vec<std::net::TcpListener>,
    admin: Vec<std::net::TcpListener>,
    acceptor: Arc<Acceptor>,
    leases: Option<Leases>,
    dials: Arc<Dials>,
    routes: Routes,
    counts: Arc<ListenerCounts>,
}

impl Parts {
    async fn build(config: &Config, workers: &Workers, stopping: &Stopping, reloader: &mut Reloader) -> Result<Self> {
        let registry: Arc<Registry<Backend>> = Arc::default();
        let metrics = Arc::new(Metrics::new());
        let budget = MemoryBudget::new(config.quic.memory_budget);
        let authentication = kubernetes::authentication(&config.agent_rules, metrics.clone()).await?;
        let [counts, agent_counts] = [Peers::Clients, Peers::Agents]
            .map(|peers| Arc::new(ListenerCounts { peers, ..ListenerCounts::default() }));
        let membership = Membership::new(config.server_count);
        membership.set(config.peers.listed.clone());
        let leases = leases::build(config, membership.clone(), metrics.clone()).await?;
        let acceptor = Arc::new(Acceptor {
            server_id: config.server_id.clone(),
            membership: membership.clone(),
            registry: registry.clone(),
            placement: Placement::new(workers.all()),
            drain: stopping.drain.clone(),
            authentication,
            metrics: metrics.clone(),
        });
        let agent_port = grpc_port(config, &acceptor, &budget);
        let dials = dials(config, registry.clone(), metrics.clone());
        let agents = &config.agents;
        let agent_tls = bind::agent_tls(agents, reloader, &metrics.certificates)?;
        let endpoints = bind::quic_agents(config, &agent_tls, workers.first(), &budget)?;
        let agent_listeners = bind::grpc_agents(agents, &agent_tls)?;
        let frontends = bind::frontend(&config.frontend, reloader, &metrics.certificates)?;
        let routes = Routes {
            registry,
            membership,
            strategies: config.strategies.clone().into(),
            metrics: metrics.clone(),
            budget,
            counts: counts.clone(),
            agent_counts: agent_counts.clone(),
            draining: stopping.drain.clone(),
            profiling: config.profiling,
        };
        let health = config.health.bind_tcp()?;
        let admin = config.admin.bind_tcp()?;
        Ok(Self {
            endpoints,
            agent_listeners,
            agent_port,
            agent_counts,
            frontends,
            health,
            admin,
            acceptor,
            leases,
            dials,
            routes,
            counts,
        })
    }

    async fn serve(self, config: &Config, workers: &Workers, stopping: &Stopping) -> Result<()> {
        let first = workers.first();
        for endpoint in &self.endpoints {
            tracing::info!(address = ?endpoint.local_address().ok(), "serving agents over QUIC");
            first.spawn(self.acceptor.clone().run(endpoint.clone()));
        }
        for (listener, port) in self.agent_listeners.into_iter().zip(std::iter::repeat(&self.agent_port)) {
            let Some(port) = port.clone() else { break };
            tracing::info!(address = ?listener.local_address(), "serving agents over gRPC");
            let counts = self.agent_counts.clone();
            first.spawn(async move { port.run(listener, &counts).await });
        }
        let speaks = Speaks::from_config(config);
        for listener in self.frontends {
            let clients = Clients {
                dials: self.dials.clone(),
                counts: self.counts.clone(),
                worker: first.clone(),
                speaks: speaks.clone(),
                drain: stopping.drain.clone(),
            };
            first.spawn(clients.accept(listener));
        }
        let ended = CancellationToken::new();
        let health_routes = self.routes.clone();
        let health = admin::serve(self.health, move |request| health_routes.health(request), ended.clone());
        let admin_routes = self.routes.clone();
        let admin = admin::serve(self.admin, move |request| admin_routes.admin(request), ended.clone());
        tracing::info!(server_id = %config.server_id, "proxy-server is up");

        let limit = config.graceful_shutdown_timeout;
        let stop = async {
            stopping.drain.cancelled().await;
            let clean = drain(&self.dials, limit, stopping).await;
            self.dials.stop.cancel();
            idle(&self.dials, last_words(stopping)).await;
            if let Some(port) = &self.agent_port {
                port.close.cancel();
            }
            close(&self.endpoints, clean).await;
            ended.cancel();
        };
        // The lease goes when the drain begins; a process that is through with it does not wait long for the API.
        let leases = async {
            let Some(leases) = self.leases else { return };
            tokio::select! {
                () = leases.run(stopping.drain.clone()) => {}
                () = async { ended.cancelled().await; tokio::time::sleep(last_words(stopping)).await } => {}
            }
        };
        let (served, (), ()) = tokio::join!(async { tokio::try_join!(health, admin) }, stop, leases);
        served.context("health and admin ports")?;
        Ok(())
    }
}

/// What agents over gRPC come to, beside those over QUIC and by the same rules; `None`: they are not served.
fn grpc_port(config: &Config, acceptor: &Acceptor, budget: &Arc<MemoryBudget>) -> Option<Arc<grpc_agents::Port>> {
    let grpc = config.agents.grpc.as_ref()?;
    Some(Arc::new(grpc_agents::Port {
        server_id: acceptor.server_id.clone(),
        membership: acceptor.membership.clone(),
        registry: acceptor.registry.clone(),
        placement: acceptor.placement.clone(),
        mux: MuxSettings {
            role: Role::Server,
            dial_buffer: grpc.dial_buffer,
            slow_dial: grpc.slow_dials,
            close_pause: CLOSE_PAUSE,
        },
        budget: budget.clone(),
        keep_alive: grpc.keep_alive,
        authentication: acceptor.authentication.clone(),
        metrics: acceptor.metrics.clone(),
        drain: acceptor.drain.clone(),
        close: CancellationToken::new(),
    }))
}

fn dials(config: &Config, registry: Arc<Registry<Backend>>, metrics: Arc<Metrics>) -> Arc<Dials> {
    Arc::new(Dials {
        registry,
        strategies: config.strategies.clone(),
        limit: config.backend_dial_timeout,
        metrics,
        stop: CancellationToken::new(),
        // Several servers' dials meet in one agent's log: each counts from a place of its own.
        next_id: AtomicU64::new(u64::from(rand::random::<u32>()) << 20),
        open: TaskTracker::new(),
    })
}

/// How long what was told to stop may take. A second signal does not wait.
fn last_words(stopping: &Stopping) -> Duration {
    if stopping.stop.is_cancelled() { Duration::ZERO } else { STOP_LIMIT }
}

async fn close(endpoints: &[Arc<ServerEndpoint>], clean: bool) {
    let (code, reason) = if clean {
        (ConnectionCode::Drained, "the server has stopped; its last dial has ended")
    } else {
        (ConnectionCode::DrainDeadline, "the server has stopped; its time to drain has passed")
    };
    for endpoint in endpoints {
        endpoint.close(code, reason, CLOSE_LIMIT).await;
    }
}

/// Serves the clients of a listener.
struct Clients {
    dials: Arc<Dials>,
    counts: Arc<ListenerCounts>,
    worker: Worker,
    speaks: Speaks,
    drain: CancellationToken,
}

/// What clients speak, and what their connections share.
#[derive(Clone)]
enum Speaks {
    HttpConnect,
    Grpc { next_connect_id: Arc<AtomicU64>, keep_alive: Duration },
}

impl Speaks {
    fn from_config(config: &Config) -> Self {
        match config.mode {
            Mode::HttpConnect => Self::HttpConnect,
            Mode::Grpc => {
                // 0 means none to clients.
                let next_connect_id = Arc::new(AtomicU64::new(1));
                Self::Grpc { next_connect_id, keep_alive: config.frontend_keepalive_time }
            }
        }
    }
}

impl Clients {
    /// Accepts until the server drains.
    async fn accept(self, listener: Listener) {
        let counts = self.counts.clone();
        let on_client = |client: PeerStream| match &self.speaks {
            Speaks::HttpConnect => self.serve_connect(client),
            Speaks::Grpc { next_connect_id, keep_alive } => {
                self.serve_grpc(client, next_connect_id.clone(), *keep_alive);
            }
        };
        if let Err(error) = listener.run(self.drain.clone(), &counts, on_client).await {
            tracing::error!(%error, "the frontend's socket cannot be served");
        }
    }

    fn serve_connect(&self, client: PeerStream) {
        let dials = self.dials.clone();
        self.worker.spawn(async move {
            tokio::select! {
                () = http_connect::serve(client, &dials) => {}
                // Whoever has not asked for anything by now is not waited for.
                () = dials.stop.cancelled() => {}
            }
        });
    }

    /// An HTTP/2 connection stays on one worker: best on that of the backend which its dials will be carried by.
    fn serve_grpc(&self, client: PeerStream, next_connect_id: Arc<AtomicU64>, keep_alive: Duration) {
        let worker = self.dials.likely_worker().unwrap_or_else(|| self.worker.clone());
        let (dials, drain) = (self.dials.clone(), self.drain.clone());
        let serve = move |client, worker| {
            let context = grpc::context::Context { dials, worker, settle: Settle::default(), next_connect_id };
            grpc::connection::serve(client, Arc::new(context), keep_alive, drain)
        };
        if worker.is_current() {
            return worker.clone().spawn(serve(client, worker));
        }
        let client = match client.detach() {
            Ok(client) => client,
            Err(error) => return tracing::warn!(%error, "a client cannot be handed over"),
        };
        worker.clone().spawn(async move {
            match client.attach() {
                Ok(client) => serve(client, worker).await,
                Err(error) => tracing::warn!(%error, "a client cannot be handed over"),
            }
        });
    }
}

/// Lets dials end by themselves for `limit`, or until a second signal. Whether they did.
async fn drain(dials: &Dials, limit: Duration, stopping: &Stopping) -> bool {
    tokio::select! {
        clean = idle(dials, limit) => clean,
        () = stopping.stop.cancelled() => false,
    }
}

/// Waits until no dial is open, at most `limit`.
async fn idle(dials: &Dials, limit: Duration) -> bool {
    // Closed only means that the wait may end; late clients may still be counted.
    dials.open.close();
    tokio::time::timeout(limit, dials.open.wait()).await.is_ok()
}
