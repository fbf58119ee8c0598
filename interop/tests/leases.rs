//! Leases of servers: kept, counted, collected and deleted, with an API that is there, refuses, breaks or is away.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use konnectivity_interop::api_server::{ApiServer, CREDENTIAL, Fault};
use konnectivity_interop::certificates::Folder;
use konnectivity_interop::pair::balancer::Balancer;
use konnectivity_interop::pair::client::Client;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Agent, Server, http, until};
use konnectivity_interop::peer::Entrance;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(20);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An API, and servers that keep leases there. Leases are short, so that tests are.
struct Cluster {
    api: ApiServer,
    servers: Vec<Server>,
    certificates: Folder,
    folder: TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let mut cluster = Self::away();
        cluster.api.start_again().await.unwrap();
        cluster
    }

    /// Its API is not there yet.
    fn away() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let api = ApiServer::away(&certificates, folder.path()).unwrap();
        Self { api, servers: Vec::new(), certificates, folder }
    }

    fn kubeconfig(&self) -> String {
        format!("--kubeconfig={}", self.api.kubeconfig().display())
    }

    async fn server(&mut self, id: &str, more: &[&str]) {
        let arguments = [
            "--enable-lease-controller",
            "--lease-duration=4s",
            "--lease-renew-interval=1s",
            "--lease-gc-interval=1s",
            "--kubeconfig-qps=-1",
            "--advertise-agent-addresses=127.0.0.1",
        ];
        let arguments = arguments.iter().chain(more).map(|&text| text.to_owned());
        let arguments: Vec<_> = arguments.chain([format!("--server-id={id}"), self.kubeconfig()]).collect();
        let folder = self.folder.path();
        let server = Server::start(&self.certificates, folder, Entrance::Unix, HERE, &arguments).await.unwrap();
        self.servers.push(server);
    }

    async fn agent(&self, servers: SocketAddr, more: &[String]) -> Agent {
        let arguments = ["--agent-id=agent", "--log-level=debug", "--sync-interval=500ms", "--sync-interval-cap=1s"];
        let arguments: Vec<_> = arguments.map(str::to_owned).iter().chain(more).cloned().collect();
        Agent::start(&self.certificates, servers, HERE, &arguments).await.unwrap()
    }

    /// Names of the leases that there are.
    fn leases(&self) -> Vec<String> {
        let name =
            |lease: Value| lease["metadata"]["name"].as_str().unwrap()["konnectivity-proxy-server-".len()..].to_owned();
        self.api.objects("leases").into_iter().map(name).collect()
    }

    async fn has_leases(&self, expected: &[&str]) {
        until(&format!("leases are {expected:?}"), LIMIT, || async { (self.leases() == expected).then_some(()) }).await;
    }
}

async fn has_servers(agent: &Agent, expected: &[&str]) {
    until(&format!("the agent has {expected:?}"), LIMIT, || async {
        let connections = agent.connections().await.unwrap();
        let mut servers: Vec<_> = connections.iter().map(|one| one["peer"].as_str().unwrap().to_owned()).collect();
        servers.sort();
        (servers == expected).then_some(())
    })
    .await;
}

/// Waits until `/metrics` has a line that begins so.
async fn shows(health: SocketAddr, line: &str) {
    until(&format!("metrics have {line:?}"), LIMIT, || async {
        let metrics = http::get(health, "/metrics").await.unwrap().body;
        metrics.lines().any(|one| one.starts_with("konnectivity_") && one.contains(line)).then_some(())
    })
    .await;
}

async fn dials(server: &Server, certificates: &Folder) -> Open {
    let target = TcpListener::bind((HERE, 0)).await.unwrap();
    let client = Client::of(&server.frontend, certificates).unwrap();
    let mut open = Open::dial(&client, &target).await.unwrap();
    open.exchange().await.unwrap();
    open
}

#[tokio::test]
async fn a_server_keeps_a_lease_and_deletes_it_when_its_drain_begins() {
    let mut cluster = Cluster::new().await;
    cluster.server("server-1", &[]).await;
    cluster.has_leases(&["server-1"]).await;
    let lease = &cluster.api.objects("leases")[0];
    let port = cluster.servers[0].agents.port();
    assert_eq!(lease["metadata"]["namespace"], "kube-system");
    assert_eq!(lease["metadata"]["labels"], json!({"k8s-app": "konnectivity-server"}));
    assert_eq!(
        lease["metadata"]["annotations"],
        json!({"konnectivity-quic/agent-addresses": format!("127.0.0.1:{port}")})
    );
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseDurationSeconds"]),
        (&json!("server-1"), &json!(4))
    );
    let renewed = lease["spec"]["renewTime"].clone();
    until("it is renewed", LIMIT, || async {
        (cluster.api.objects("leases")[0]["spec"]["renewTime"] != renewed).then_some(())
    })
    .await;
    // It is written again when somebody has deleted it, and over what somebody else has written.
    cluster.api.remove("leases", "kube-system", "konnectivity-proxy-server-server-1");
    cluster.has_leases(&["server-1"]).await;
    let mut meddled = cluster.api.objects("leases")[0].clone();
    meddled["metadata"]["labels"]["other"] = "x".into();
    cluster.api.put("leases", meddled);
    until("the labels are the server's", LIMIT, || async {
        cluster.api.objects("leases")[0]["metadata"]["labels"]["other"].is_null().then_some(())
    })
    .await;
    shows(cluster.servers[0].health, "lease_list_total{http_status_code=\"200\",reason=\"\"}").await;
    shows(cluster.servers[0].health, "lease_renewals_total{http_status_code=\"200\",reason=\"\"}").await;
    let asked = cluster.api.asked();
    assert!(asked.iter().all(|asked| asked.bearer == CREDENTIAL && asked.namespace == "kube-system"), "{asked:?}");
    let list = asked.iter().find(|asked| asked.verb == "list").unwrap();
    assert_eq!(list.query["labelSelector"], "k8s-app=konnectivity-server");

    let agent = cluster.agent(cluster.servers[0].agents, &[]).await;
    has_servers(&agent, &["server-1"]).await;
    let mut open = dials(&cluster.servers[0], &cluster.certificates).await;
    cluster.servers[0].program.signal(Signal::SIGTERM).unwrap();
    cluster.has_leases(&[]).await;
    // The drain has just begun.
    assert!(cluster.servers[0].program.status().unwrap().is_none());
    open.exchange().await.unwrap();
    drop(open);
    assert!(cluster.servers[0].program.ended(LIMIT).await.unwrap().success());
    cluster.has_leases(&[]).await;
}

#[tokio::test]
async fn a_successors_lease_is_left_alone() {
    let mut cluster = Cluster::new().await;
    cluster.server("server-1", &["--lease-duration=60s", "--lease-renew-interval=50s"]).await;
    cluster.has_leases(&["server-1"]).await;
    let mut lease = cluster.api.objects("leases")[0].clone();
    lease["spec"]["renewTime"] = "2126-01-01T00:00:00.000000Z".into();
    cluster.api.put("leases", lease);
    cluster.servers[0].program.signal(Signal::SIGTERM).unwrap();
    let words = ["this server's lease is left to another process with the same id"];
    cluster.servers[0].program.logged(&words, LIMIT).await.unwrap();
    assert_eq!(cluster.leases(), ["server-1"]);
}

#[tokio::test]
async fn three_servers_find_each_other_and_agents_find_them() {
    let mut cluster = Cluster::new().await;
    for id in ["server-1", "server-2", "server-3"] {
        cluster.server(id, &[]).await;
    }
    cluster.has_leases(&["server-1", "server-2", "server-3"]).await;
    // The balancer leads to the first one only, and the agent has no rights in the API.
    let balancer = Balancer::start(vec![cluster.servers[0].agents]).await.unwrap();
    let quick = ["--quic-idle-timeout=2s", "--quic-keep-alive-interval=500ms"].map(str::to_owned);
    let agent = cluster.agent(balancer.address(), &quick).await;
    has_servers(&agent, &["server-1", "server-2", "server-3"]).await;
    shows(agent.health, "known_server_count 3").await;
    shows(cluster.servers[0].health, "listed_servers 3").await;
    assert_eq!(balancer.given().len(), 1);

    // One is drained: its lease goes at once, and nobody looks for it.
    let mut open = dials(&cluster.servers[2], &cluster.certificates).await;
    cluster.servers[2].program.signal(Signal::SIGTERM).unwrap();
    cluster.has_leases(&["server-1", "server-2"]).await;
    shows(agent.health, "known_server_count 2").await;
    shows(cluster.servers[0].health, "listed_servers 2").await;
    open.exchange().await.unwrap();
    drop(open);
    has_servers(&agent, &["server-1", "server-2"]).await;
    assert_eq!(balancer.given().len(), 1);
    assert!(!agent.program.log().contains("cannot connect to a server"), "{}", agent.program.log());

    // One is killed: its lease expires, and the other server deletes it.
    cluster.servers[1].program.kill();
    has_servers(&agent, &["server-1"]).await;
    shows(agent.health, "known_server_count 1").await;
    cluster.has_leases(&["server-1"]).await;
    shows(cluster.servers[0].health, "culled_leases_count 1").await;
    shows(cluster.servers[0].health, "lease_delete_total{http_status_code=\"200\",reason=\"\"} 1").await;

    // And it returns.
    cluster.servers[1].program.start_again().unwrap();
    has_servers(&agent, &["server-1", "server-2"]).await;
    shows(agent.health, "known_server_count 2").await;
}

#[tokio::test]
async fn servers_that_may_not_watch_list() {
    let mut cluster = Cluster::new().await;
    cluster.api.fail("watch", "leases", Some(Fault::Status(403, "Forbidden")));
    cluster.server("server-1", &[]).await;
    let agent = cluster.agent(cluster.servers[0].agents, &[]).await;
    has_servers(&agent, &["server-1"]).await;
    cluster.server("server-2", &[]).await;
    has_servers(&agent, &["server-1", "server-2"]).await;
    let words =
        ["leases are listed instead of watched", "watch leases.coordination.k8s.io in namespace \"kube-system\""];
    cluster.servers[0].program.logged(&words, LIMIT).await.unwrap();
}

/// Lists are granted: nothing stands still, and no list is asked for without a pause.
#[tokio::test]
async fn a_dead_server_is_noticed_although_watches_fail() {
    for fault in [Fault::Status(500, "InternalError"), Fault::Status(410, "Expired"), Fault::Garbage] {
        let mut cluster = Cluster::new().await;
        cluster.api.fail("watch", "leases", Some(fault.clone()));
        for id in ["server-1", "server-2"] {
            cluster.server(id, &["--lease-gc-interval=3s"]).await;
        }
        let agent = cluster.agent(cluster.servers[0].agents, &[]).await;
        has_servers(&agent, &["server-1", "server-2"]).await;
        cluster.api.forget_asked();
        let begun = Instant::now();
        cluster.servers[1].program.kill();
        cluster.has_leases(&["server-1"]).await;
        shows(agent.health, "known_server_count 1").await;
        let lists = cluster.api.asked().iter().filter(|asked| asked.verb == "list").count();
        // One second, two, and then three each, for up to two servers.
        let most = begun.elapsed().as_secs() + 4;
        assert!(lists as u64 <= most, "{fault:?}: {lists} in {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_server_serves_whatever_the_api_does() {
    for (fault, words) in [
        (Fault::Status(403, "Forbidden"), "create leases.coordination.k8s.io in namespace \"kube-system\""),
        (Fault::Status(500, "InternalError"), "HTTP 500 InternalError"),
        (Fault::Garbage, "cannot be understood"),
        (Fault::Silence, "no answer in time"),
    ] {
        let mut cluster = Cluster::new().await;
        for verb in ["create", "list"] {
            cluster.api.fail(verb, "leases", Some(fault.clone()));
        }
        cluster.server("server-1", &[]).await;
        let agent = cluster.agent(cluster.servers[0].agents, &[]).await;
        has_servers(&agent, &["server-1"]).await;
        dials(&cluster.servers[0], &cluster.certificates).await;
        let program = &cluster.servers[0].program;
        program.logged(&["ERROR", "this server's lease cannot be written", words], LIMIT).await.unwrap();
        program.logged(&["ERROR", "leases cannot be listed"], LIMIT).await.unwrap();
        let ready = http::get(cluster.servers[0].health, "/readyz").await.unwrap();
        assert_eq!(ready.status, 200, "{fault:?}");
        let (code, reason) = if let Fault::Status(code, reason) = fault { (code, reason) } else { (0, "") };
        for name in ["lease_list_total", "lease_renewals_total"] {
            let line = format!("{name}{{http_status_code=\"{code}\",reason=\"{reason}\"}}");
            shows(cluster.servers[0].health, &line).await;
        }
        for verb in ["create", "list"] {
            cluster.api.fail(verb, "leases", None);
        }
        cluster.has_leases(&["server-1"]).await;
        program.logged(&["this server's lease is written"], LIMIT).await.unwrap();
    }
}

#[tokio::test]
async fn an_api_that_is_away_at_the_start_and_later_holds_nobody_up() {
    let mut cluster = Cluster::away();
    let counting = ["--count-server-leases".to_owned(), cluster.kubeconfig()];
    cluster.server("server-1", &["--server-count=1"]).await;
    let agent = cluster.agent(cluster.servers[0].agents, &counting).await;
    has_servers(&agent, &["server-1"]).await;
    agent.program.logged(&["ERROR", "leases of servers cannot be counted", "list leases"], LIMIT).await.unwrap();
    shows(agent.health, "lease_lists_total{http_response_code=\"0\",reason=\"\"}").await;
    dials(&cluster.servers[0], &cluster.certificates).await;

    cluster.api.start_again().await.unwrap();
    cluster.has_leases(&["server-1"]).await;
    agent.program.logged(&["leases of servers were counted", "count=1"], LIMIT).await.unwrap();
    cluster.server("server-2", &[]).await;
    shows(agent.health, "known_server_count 2").await;
    has_servers(&agent, &["server-1", "server-2"]).await;

    // Away for longer than a lease lasts: nothing changes.
    cluster.api.stop().await;
    let stopped = Instant::now();
    agent.program.logged(&["ERROR", "leases of servers cannot be counted"], LIMIT).await.unwrap();
    while stopped.elapsed() < Duration::from_secs(6) {
        shows(agent.health, "known_server_count 2").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    has_servers(&agent, &["server-1", "server-2"]).await;
    // A server that is told to stop does not wait for it.
    cluster.servers[0].program.signal(Signal::SIGTERM).unwrap();
    assert!(cluster.servers[0].program.ended(LIMIT).await.unwrap().success());
}

fn lease(id: &str, renewed: Duration, duration: Value) -> Value {
    // Seconds since 1970 as the API writes them: on one day, which is enough here.
    let of_day = renewed.as_secs() % 86_400;
    let time = format!("2020-01-01T{:02}:{:02}:{:02}.000000Z", of_day / 3_600, of_day / 60 % 60, of_day % 60);
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": format!("konnectivity-proxy-server-{id}"), "namespace": "kube-system",
            "labels": {"k8s-app": "konnectivity-server"},
        },
        "spec": {"holderIdentity": id, "leaseDurationSeconds": duration, "renewTime": time},
    })
}

#[tokio::test]
async fn agents_count_leases_that_are_seen_to_be_renewed() {
    let cluster = Cluster::new().await;
    let unused = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    // All of these are long over, by their own word, and one can never count.
    for id in ["a", "b", "c"] {
        cluster.api.put("leases", lease(id, Duration::from_secs(100), 3.into()));
    }
    cluster.api.put("leases", lease("endless", Duration::from_secs(100), Value::Null));
    let mut foreign = lease("foreign", Duration::from_secs(100), 3.into());
    foreign["metadata"]["labels"] = json!({"k8s-app": "other"});
    cluster.api.put("leases", foreign.clone());
    let counting = ["--count-server-leases".to_owned(), cluster.kubeconfig()];
    let agent = cluster.agent(unused, &counting).await;
    agent.program.logged(&["leases of servers were counted", "count=0"], LIMIT).await.unwrap();
    agent
        .program
        .logged(&["WARN", "leases without a duration", "konnectivity-proxy-server-endless"], LIMIT)
        .await
        .unwrap();
    shows(agent.health, "known_server_count 1").await;
    // Clocks of holders are months behind, and yet they are alive.
    cluster.api.put("leases", lease("a", Duration::from_secs(115), 60.into()));
    cluster.api.put("leases", lease("b", Duration::from_secs(115), 60.into()));
    cluster.api.put("leases", lease("endless", Duration::from_secs(115), Value::Null));
    foreign["spec"]["renewTime"] = "2020-01-02T00:00:00.000000Z".into();
    cluster.api.put("leases", foreign);
    shows(agent.health, "known_server_count 2").await;
    cluster.api.put("leases", lease("c", Duration::from_secs(115), 6.into()));
    shows(agent.health, "known_server_count 3").await;
    // It is not renewed.
    shows(agent.health, "known_server_count 2").await;
    cluster.api.remove("leases", "kube-system", "konnectivity-proxy-server-a");
    shows(agent.health, "known_server_count 1").await;
    shows(agent.health, "lease_lists_total{http_response_code=\"200\",reason=\"\"}").await;
    shows(agent.health, "lease_watches_total{http_response_code=\"200\",reason=\"\"}").await;
    let asked = cluster.api.asked();
    assert!(asked.iter().all(|asked| asked.query["labelSelector"] == "k8s-app=konnectivity-server"), "{asked:?}");
}

#[tokio::test]
async fn the_higher_count_is_believed_where_that_is_wanted() {
    let mut cluster = Cluster::new().await;
    cluster.server("server-1", &[]).await;
    cluster.has_leases(&["server-1"]).await;
    let plain = ["--server-count=3".to_owned(), "--server-id=plain".to_owned()];
    let folder = cluster.folder.path();
    let server = Server::start(&cluster.certificates, folder, Entrance::Unix, HERE, &plain).await.unwrap();
    for (source, count) in [("default", 1), ("max", 3)] {
        let more =
            ["--count-server-leases".to_owned(), cluster.kubeconfig(), format!("--server-count-source={source}")];
        let agent = cluster.agent(server.agents, &more).await;
        has_servers(&agent, &["plain"]).await;
        agent.program.logged(&["leases of servers were counted", "count=1"], LIMIT).await.unwrap();
        shows(agent.health, &format!("known_server_count {count}")).await;
    }
}

#[tokio::test]
async fn an_agent_that_may_not_says_which_right_is_missing_and_works() {
    let mut cluster = Cluster::new().await;
    cluster.server("server-1", &[]).await;
    cluster.api.fail("list", "leases", Some(Fault::Status(403, "Forbidden")));
    let counting = ["--count-server-leases".to_owned(), cluster.kubeconfig()];
    let agent = cluster.agent(cluster.servers[0].agents, &counting).await;
    has_servers(&agent, &["server-1"]).await;
    dials(&cluster.servers[0], &cluster.certificates).await;
    let file = cluster.api.kubeconfig().display().to_string();
    let words = ["ERROR", "list leases.coordination.k8s.io in namespace \"kube-system\"", &file];
    agent.program.logged(&words, LIMIT).await.unwrap();
    shows(agent.health, "lease_lists_total{http_response_code=\"403\",reason=\"Forbidden\"}").await;
    assert_eq!(http::get(agent.health, "/readyz").await.unwrap().status, 200);
}
