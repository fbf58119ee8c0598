//! Builds the parts, joins them, drains them.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use konnectivity_kubernetes::{Kubernetes, Rate, lease::LeaseScope};
use konnectivity_process::{
    admin,
    certificates::{self, AuthoritiesFile, IdentityFiles, TlsFiles},
    metrics::CertificateMetrics,
    proxy_environment::HttpProxy,
    reload::{Current, Reloader},
    signals::{Signals, Stopping},
    version,
};
use konnectivity_transport::{
    budget::MemoryBudget,
    control::MAX_WELCOME_LIMIT,
    endpoint::{HANDSHAKE_LIMIT, HANDSHAKE_REST_LIMIT},
    mux::{MuxSettings, Role},
    tls::{ClientTls, TUNNEL_ALPN},
    wire::code::ConnectionCode,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::Routes,
    config::{Config, Tls, transport::Transports},
    dial::Dials,
    lease_count,
    metrics::Metrics,
    server_connection::{
        Connector, Shared,
        carriers::AgentCarriers,
        choice::{Choice, GRPC_HEAD_START, Wanted},
        direct::DirectPolicy,
        grpc::{GrpcConnector, first_connect_id},
        quic::QuicConnector,
        served::Served,
    },
    server_set::{self, ServerSetSettings, ServerSetStatus},
};

/// How long connections may take to say good-bye after they were told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How long one attempt may take, whichever way it goes.
const ATTEMPT_LIMIT: Duration = GRPC_HEAD_START
    .saturating_add(HANDSHAKE_LIMIT)
    .saturating_add(HANDSHAKE_REST_LIMIT)
    .saturating_add(MAX_WELCOME_LIMIT);

/// HTTP/2 in a TLS handshake (RFC 9113, section 3.2).
const HTTP2_ALPN: &[u8] = b"h2";

/// How long the last packets of a closed connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What could not be loaded or bound, with the setting and what to do; nothing is connected then.
pub async fn run(config: Config) -> Result<()> {
    config.effective.log();
    let stopping = Stopping::default();
    let signals = Signals::catch().context("cannot catch SIGTERM and SIGINT")?;
    let metrics = Arc::new(Metrics::new());
    let mut reloader = Reloader::new().context("cannot catch SIGHUP")?;
    let client_tls = client_tls(&config.tls, &mut reloader, &metrics.certificates)?;
    let health = config.health.bind_tcp()?;
    let admin = config.admin.bind_tcp()?;

    let counter = counter(&config).await?;

    let lease_metrics = metrics.clone();
    let budget = MemoryBudget::new(config.quic.memory_budget);
    let served = Arc::new(Served::new(metrics.clone()));
    let (status, watched) = watch::channel(ServerSetStatus::default());
    // The reference's agent never ends by itself: a drain only tells the servers to prefer others.
    let leave = if config.exit_after_drain { stopping.drain.clone() } else { stopping.stop.clone() };
    let tasks = TaskTracker::new();
    let routes = Routes {
        served: served.clone(),
        status: watched,
        metrics: metrics.clone(),
        budget: budget.clone(),
        health_port: config.health.addresses.first().map_or(0, |address| address.port()),
        profiling: config.profiling,
    };
    let dials = Dials {
        server: Arc::default(),
        limit: config.dial_timeout,
        socket_bytes: config.socket_bytes,
        metrics,
        stop: CancellationToken::new(),
        tasks: tasks.clone(),
    };
    let dials_stop = dials.stop.clone();
    let connector = connector(&config, client_tls, budget, dials, served.clone(), &stopping.drain, &leave);
    let (counts, leases) = watch::channel(None);
    let counting = count_leases(counter, lease_metrics, counts, stopping.drain.clone());
    let settings = server_set_settings(&config);
    tracing::info!(agent_id = %config.agent_id, server = %config.server.host, port = config.server.port, "proxy-agent is up");

    let ended = CancellationToken::new();
    let health_routes = routes.clone();
    let health = admin::serve(health, move |request| health_routes.health(request), ended.clone());
    let admin = admin::serve(admin, move |request| routes.admin(request), ended.clone());
    let ports = async { tokio::try_join!(health, admin).context("health and admin ports") };
    let connections =
        server_set::run(settings, Arc::new(connector), leases, stopping.drain.clone(), stopping.stop.clone(), status);
    let work = async {
        let connections = async {
            connections.await;
            // Without a connection left, it still waits to be told.
            leave.cancelled().await;
            tasks.close();
            tasks.wait().await;
        };
        tokio::select! {
            () = connections => {}
            never = counting => match never {},
            () = deadline(&leave, &stopping.stop, config.graceful_shutdown_timeout, &dials_stop) => {
                tracing::warn!("stopped with connections still open");
                close(&served).await;
            }
        }
        ended.cancel();
    };
    let signals = async {
        tokio::select! {
            () = signals.forward(stopping.clone()) => ended.cancelled().await,
            () = ended.cancelled() => {}
        }
    };
    tokio::select! {
        never = reloader.run() => match never {},
        (ports, (), ()) = async { tokio::join!(ports, work, signals) } => drop(ports?),
    }
    tracing::info!("stopped");
    Ok(())
}

/// What makes connections to servers, over whichever way there is.
fn connector(
    config: &Config,
    tls: Current<ClientTls>,
    budget: Arc<MemoryBudget>,
    dials: Dials,
    served: Arc<Served>,
    drain: &CancellationToken,
    leave: &CancellationToken,
) -> Connector<AgentCarriers> {
    let grpc = grpc_connector(config, &tls, budget.clone());
    let quic = quic_connector(config, tls, budget, &dials, drain, leave);
    // Through a proxy, there is one way to all servers.
    let direct = if grpc.proxy.is_some() { DirectPolicy::Nowhere } else { config.direct_servers.clone() };
    let tasks = dials.tasks.clone();
    let carriers = AgentCarriers { quic, grpc, direct, dials, drain: drain.clone(), leave: leave.clone() };
    Connector::new(Shared {
        carriers: Arc::new(carriers),
        host: config.server.host.clone(),
        configured: configured(&config.transports),
        choice: Mutex::new(Choice::new(config.transports.wanted, config.transports.quic_retry_interval)),
        attempt_limit: ATTEMPT_LIMIT,
        drain: drain.clone(),
        tasks,
        served,
    })
}

fn server_set_settings(config: &Config) -> ServerSetSettings {
    ServerSetSettings {
        sync_interval: config.reconnect.interval,
        sync_interval_cap: config.reconnect.interval_cap,
        sync_forever: config.reconnect.forever,
        count_source: config.reconnect.count_source,
        attempt_limit: ATTEMPT_LIMIT,
    }
}

/// Counts leases, if any are to be counted, until a drain begins: a draining agent looks for no servers.
async fn count_leases(
    counter: Option<(Kubernetes, LeaseScope)>,
    metrics: Arc<Metrics>,
    counts: watch::Sender<Option<u32>>,
    drain: CancellationToken,
) -> Infallible {
    if let Some((kubernetes, scope)) = counter {
        tokio::select! {
            never = lease_count::count(kubernetes, scope, metrics, counts) => match never {},
            () = drain.cancelled() => {}
        }
    } else {
        // Whoever waits for a count learns that there is none.
        drop(counts);
    }
    std::future::pending().await
}

/// The API whose leases are counted, and which of them, if any are.
async fn counter(config: &Config) -> Result<Option<(Kubernetes, LeaseScope)>> {
    let Some(leases) = &config.leases else { return Ok(None) };
    let kubernetes = Kubernetes::new(konnectivity_kubernetes::Settings {
        kubeconfig: leases.kubeconfig.clone(),
        rate: Rate::default(),
        user_agent: format!("konnectivity-quic-proxy-agent/{}", version::VERSION),
    });
    Ok(Some((kubernetes.await.context("--count-server-leases")?, leases.scope.clone())))
}

/// Returns when connections have had their time: from `leave` on the time to drain unless `stop` cuts it short, then a
/// little for the last bytes of the dials that are cut.
async fn deadline(
    leave: &CancellationToken,
    stop: &CancellationToken,
    drain_limit: Duration,
    dials_stop: &CancellationToken,
) {
    leave.cancelled().await;
    tokio::select! {
        () = tokio::time::sleep(drain_limit) => {}
        () = stop.cancelled() => {}
    }
    dials_stop.cancel();
    tokio::time::sleep(STOP_LIMIT).await;
}

/// Tells the servers of connections that had no end of their own.
async fn close(served: &Served) {
    let connections = served.quic();
    for (_, connection) in &connections {
        connection.close(ConnectionCode::DrainDeadline, "the agent has stopped; its time to drain has passed");
    }
    for (_, connection) in &connections {
        connection.wait_closed(CLOSE_LIMIT).await;
    }
}

/// Who has decided that there is one way only, if there is.
fn configured(transports: &Transports) -> String {
    match (&transports.grpc.proxy, transports.wanted) {
        (Some(HttpProxy { host, port, .. }), _) => format!("the HTTP proxy {host}:{port} of HTTPS_PROXY"),
        (None, Wanted::Only(transport)) => format!("--transport={transport}"),
        (None, Wanted::Auto) => String::new(),
    }
}

fn quic_connector(
    config: &Config,
    tls: Current<ClientTls>,
    budget: Arc<MemoryBudget>,
    dials: &Dials,
    drain: &CancellationToken,
    leave: &CancellationToken,
) -> QuicConnector {
    QuicConnector {
        host: config.server.host.clone(),
        agent_id: config.agent_id.clone(),
        identifiers: config.identifiers_query.clone(),
        token: config.token.clone(),
        tls,
        settings: config.quic.clone(),
        budget,
        dials: dials.clone(),
        drain: drain.clone(),
        leave: leave.clone(),
    }
}

fn grpc_connector(config: &Config, tls: &Current<ClientTls>, budget: Arc<MemoryBudget>) -> GrpcConnector {
    let settings = &config.transports.grpc;
    let names = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).filter(|name| name != HTTP2_ALPN);
    let names: Vec<_> = names.chain([HTTP2_ALPN.to_vec()]).collect();
    let tls = tls.map(move |tls| tls.over_tcp(&names));
    GrpcConnector {
        tls,
        host: config.server.host.clone(),
        port: config.server.port,
        proxy: settings.proxy.clone(),
        agent_id: config.agent_id.clone(),
        identifiers: config.identifiers_query.clone(),
        token: config.token.clone(),
        keep_alive: settings.keep_alive,
        mux: MuxSettings {
            role: Role::Agent,
            dial_buffer: settings.dial_buffer,
            slow_dial: settings.slow_dials,
            close_pause: Duration::ZERO,
        },
        budget,
        next_connect_id: first_connect_id(),
    }
}

/// Reads the agent's certificates, now and when they change.
fn client_tls(files: &Tls, reloader: &mut Reloader, metrics: &Arc<CertificateMetrics>) -> Result<Current<ClientTls>> {
    let identity = files.identity.clone().map(|identity| IdentityFiles {
        settings: ["agent-cert", "agent-key"],
        certificate: identity.certificate,
        key: identity.key,
    });
    let authorities = Some(AuthoritiesFile { setting: "ca-cert", path: files.ca.clone() });
    certificates::load(reloader, metrics, TlsFiles { identity, authorities }, |identity, authorities| {
        ClientTls::new(authorities.expect("the files have some"), identity, TUNNEL_ALPN)
    })
}
