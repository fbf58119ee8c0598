//! Health, readiness, metrics and the admin port of both programs: paths, words and names are the reference's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Agent, Options, Pair, http, until};
use tempfile::TempDir;
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(10);
/// Nobody listens on the port of tcpmux.
const REFUSING: &str = "127.0.0.1:1";
const SERVER: &str = "konnectivity_network_proxy_server_";
const AGENT: &str = "konnectivity_network_proxy_agent_";

/// Status and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let reply = http::get(address, path).await.unwrap();
    assert!(reply.head.to_lowercase().contains("content-type: "), "{}", reply.head);
    (reply.status, reply.body)
}

fn said(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

/// HELP, TYPE and samples of one family, as tests of the reference compare them.
fn family(metrics: &str, name: &str) -> String {
    let of_family = |line: &&str| {
        let rest = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        rest.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    metrics.lines().filter(of_family).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_server_is_ready_once_it_has_an_agent() {
    let mut pair = Pair::start(Options::unix().agents([])).await.unwrap();
    let health = pair.server.health;
    assert_eq!(get(health, "/healthz").await, said(200, "ok"));
    for path in ["/readyz", "/ready", "/readyz?verbose"] {
        assert_eq!(get(health, path).await, said(500, "no connection to any proxy agent"));
    }
    for (address, path) in [(health, "/"), (health, "/connections"), (pair.server.admin, "/healthz")] {
        assert_eq!(get(address, path).await, said(404, "404 page not found\n"), "{path}");
    }

    let here = Ipv4Addr::LOCALHOST.into();
    pair.agents.push(Agent::start(&pair.certificates, pair.server.agents, here, &[]).await.unwrap());
    pair.ready().await.unwrap();
    for path in ["/readyz", "/ready", "/readyz?verbose"] {
        assert_eq!(get(health, path).await, said(200, "ok"));
    }

    // It is not ready any more when the agent has gone.
    pair.agents[0].program.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    until("the server is not ready any more", LIMIT, || async {
        (get(health, "/readyz").await.0 == 500).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_first_strategy_decides_whether_a_server_is_ready() {
    let options = Options::unix().server(["--proxy-strategies=destHost,default"]).agents([]);
    let mut pair = Pair::start(options).await.unwrap();
    let here = Ipv4Addr::LOCALHOST.into();
    let mut agent = Agent::start(&pair.certificates, pair.server.agents, here, &[]).await.unwrap();
    agent.ready().await.unwrap();
    until("the agent is registered", LIMIT, || async {
        (pair.server.connections().await.unwrap().len() == 1).then_some(())
    })
    .await;
    assert_eq!(get(pair.server.health, "/readyz").await, said(500, "no connection to any proxy agent"));
    let host = ["--agent-identifiers=host=a".to_owned()];
    pair.agents.push(Agent::start(&pair.certificates, pair.server.agents, here, &host).await.unwrap());
    pair.ready().await.unwrap();
    assert_eq!(get(pair.server.health, "/readyz").await, said(200, "ok"));
}

#[tokio::test]
async fn an_agent_is_ready_once_it_has_a_server() {
    let folder = TempDir::new().unwrap();
    let certificates = Folder::write(folder.path(), &[]).unwrap();
    // A socket that never answers, as a firewall does.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = socket.local_addr().unwrap();
    let alone = Agent::start(&certificates, silent, silent.ip(), &[]).await.unwrap();
    assert_eq!(get(alone.health, "/healthz").await, said(200, "ok"));
    let lines = "[+]ping ok\n[-]server-connected failed: no servers connected\n";
    for path in ["/readyz", "/ready", "/readyz?verbose"] {
        assert_eq!(get(alone.health, path).await, said(503, lines));
    }
    assert_eq!(alone.connections().await.unwrap().len(), 0);

    let pair = Pair::start(Options::unix()).await.unwrap();
    let health = pair.agents[0].health;
    assert_eq!(get(health, "/healthz").await, said(200, "ok"));
    assert_eq!(get(health, "/readyz").await, said(200, "ok"));
    let (status, verbose) = get(health, "/readyz?verbose").await;
    assert_eq!(status, 200);
    let begin = "[+]ping ok\n[+]server-connected ok\n[+]transport ok: server server-1 over quic since ";
    assert!(verbose.starts_with(begin) && verbose.ends_with("\ncheck passed\n"), "{verbose}");
    assert_eq!(get(health, "/nothing").await.0, 404);
}

#[tokio::test]
async fn the_server_s_metrics_have_the_reference_s_names() {
    let pair = Pair::start(
        Options::unix()
            .server(["--proxy-strategies=destHost,defaultRoute,default"])
            .agents([&["--agent-identifiers=host=a&ipv4=127.0.0.1&default-route=true"], &[]]),
    )
    .await
    .unwrap();
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let before = get(pair.server.health, "/metrics").await.1;
    // No failure of any reason is listed before it happened.
    assert_eq!(family(&before, &format!("{SERVER}dial_failure_count")), "");
    assert!(pair.dial(REFUSING).await.is_err());
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    open.exchange().await.unwrap();

    let metrics = get(pair.server.health, "/metrics").await.1;
    for (name, expected) in [
        (
            "dial_failure_count",
            "# HELP N Number of dial failures observed. Multiple failures can occur for a single dial request.\n\
             # TYPE N counter\nN{reason=\"error_response\"} 1\n",
        ),
        ("pending_backend_dials", "# HELP N Current number of pending backend dial requests\n# TYPE N gauge\nN 0\n"),
        (
            "ready_backend_connections",
            "# HELP N Number of konnectivity agent connected to the proxy server. DEPRECATED, please use \
             ready_backends\n# TYPE N gauge\nN 2\n",
        ),
        (
            "ready_backends",
            "# HELP N Number of konnectivity agent connected to the proxy server\n# TYPE N gauge\n\
             N{proxy_strategy=\"default\"} 2\nN{proxy_strategy=\"defaultRoute\"} 1\nN{proxy_strategy=\"destHost\"} 2\n",
        ),
        (
            "established_connections",
            "# HELP N Current number of established end-to-end connections (post-dial).\n# TYPE N gauge\nN 1\n",
        ),
    ] {
        let name = format!("{SERVER}{name}");
        assert_eq!(
            family(&metrics, &name),
            expected.replace("N ", &format!("{name} ")).replace("N{", &format!("{name}{{"))
        );
    }
    assert!(metrics.contains(&format!("{SERVER}http_connections 1\n")), "{metrics}");
    assert!(metrics.contains(&format!("{SERVER}dial_duration_seconds_count 1\n")), "{metrics}");
    assert!(metrics.contains(&format!("{SERVER}dial_duration_seconds_bucket{{le=\"1e-06\"}} 0\n")), "{metrics}");
    assert!(metrics.contains("\nprocess_open_fds "), "{metrics}");
    // Beside them, ours: of each connection, and what dials have carried.
    for ours in [
        "quic_rtt_seconds",
        "quic_lost_packets_total",
        "quic_congestion_window_bytes",
        "quic_mtu_bytes",
        "quic_open_dials",
        "quic_sent_bytes_total",
        "quic_received_bytes_total",
    ] {
        let labels = format!("{SERVER}{ours}{{agent_id=\"agent-1\",connection=\"1\"}} ");
        assert!(metrics.contains(&labels), "{labels}\n{metrics}");
    }
    let head = http::get(pair.server.health, "/metrics").await.unwrap().head.to_lowercase();
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    // The admin port has the same for old scrapers.
    assert!(get(pair.server.admin, "/metrics").await.1.contains(&format!("{SERVER}established_connections 1\n")));

    drop(open);
    let ended = until("the dial is counted as ended", LIMIT, || async {
        let metrics = get(pair.server.health, "/metrics").await.1;
        metrics.contains(&format!("{SERVER}established_connections 0\n")).then_some(metrics)
    })
    .await;
    assert!(ended.contains(&format!("{SERVER}dial_bytes_total{{direction=\"to_target\"}} 4\n")), "{ended}");
    assert!(ended.contains(&format!("{SERVER}dial_bytes_total{{direction=\"to_client\"}} 4\n")), "{ended}");
    assert!(ended.contains(&format!("{SERVER}connection_duration_seconds_count 1\n")), "{ended}");
}

#[tokio::test]
async fn the_agent_s_metrics_have_the_reference_s_names() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let health = pair.agents[0].health;
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let before = get(health, "/metrics").await.1;
    assert!(before.contains(&format!("\n{AGENT}open_server_connections 1\n")), "{before}");
    assert!(before.contains(&format!("\n{AGENT}known_server_count 1\n")), "{before}");
    assert_eq!(family(&before, &format!("{AGENT}endpoint_dial_failure_total")), "");
    assert!(pair.dial(REFUSING).await.is_err());
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    open.exchange().await.unwrap();
    let metrics = get(health, "/metrics").await.1;
    for (name, expected) in [
        (
            "endpoint_dial_failure_total",
            "# HELP N Number of failures dialing the remote endpoint, by reason (example: timeout).\n\
             # TYPE N counter\nN{reason=\"unknown\"} 1\n",
        ),
        ("open_endpoint_connections", "# HELP N Current number of open endpoint connections.\n# TYPE N gauge\nN 1\n"),
    ] {
        let name = format!("{AGENT}{name}");
        assert_eq!(
            family(&metrics, &name),
            expected.replace("N ", &format!("{name} ")).replace("N{", &format!("{name}{{"))
        );
    }
    assert!(metrics.contains(&format!("{AGENT}dial_duration_seconds_count 1\n")), "{metrics}");
    assert!(metrics.contains(&format!("{AGENT}quic_open_dials{{server_id=\"server-1\"}} 1\n")), "{metrics}");
    // The admin port sends scrapers to the health port, as in the reference.
    let admin = pair.agents[0].admin;
    let reply = http::get(admin, "/metrics?a=b").await.unwrap();
    assert_eq!(reply.status, 301);
    let location = format!("//{}:{}/metrics?a=b", admin.ip(), health.port());
    assert!(reply.head.to_lowercase().contains(&format!("\r\nlocation: {location}\r\n")), "{}", reply.head);
    assert_eq!(reply.body, format!("<a href=\"{location}\">Moved Permanently</a>.\n\n"));
}

#[tokio::test]
async fn the_admin_port_shows_every_connection() {
    let pair = Pair::start(Options::unix().agents([&[], &["--agent-id=b \"c\""]])).await.unwrap();
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    open.exchange().await.unwrap();
    let reply = http::get(pair.server.admin, "/connections").await.unwrap();
    assert!(reply.head.to_lowercase().contains("content-type: application/json"), "{}", reply.head);
    let mut connections = pair.server.connections().await.unwrap();
    connections.sort_by_key(|connection| connection["peer"].to_string());
    let peers: Vec<_> = connections.iter().map(|connection| connection["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, ["agent-1 #1", "b \"c\" #2"]);
    let open_dials = |all: &[serde_json::Value]| all.iter().map(|one| one["open_dials"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(open_dials(&connections), 1);
    for connection in &connections {
        assert_eq!(connection["carrier"], "quic");
        assert_eq!(connection["draining"], false);
        assert!(connection["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
        for number in [
            "age_seconds",
            "rtt_milliseconds",
            "congestion_window_bytes",
            "mtu_bytes",
            "sent_packets",
            "sent_bytes",
            "received_bytes",
        ] {
            assert!(connection[number].as_f64().is_some_and(|number| number > 0.0), "{number}: {connection}");
        }
        for number in ["lost_packets", "unacknowledged_bytes", "stalled_dials"] {
            assert!(connection[number].is_u64(), "{number}: {connection}");
        }
    }
    let mut of_agents = Vec::new();
    for agent in &pair.agents {
        of_agents.extend(agent.connections().await.unwrap());
    }
    assert_eq!(open_dials(&of_agents), 1);
    for connection in &of_agents {
        assert_eq!(connection["peer"], "server-1");
        assert_eq!(connection["remote"], pair.server.agents.to_string());
    }
}

#[tokio::test]
async fn logs_can_be_json() {
    let json = ["--log-format=json", "--log-level=debug"];
    let pair = Pair::start(Options::unix().server(json).agent(json)).await.unwrap();
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut open = Open::dial(&pair.client().unwrap(), &target).await.unwrap();
    open.exchange().await.unwrap();
    drop(open);
    let mut dial_ids = Vec::new();
    for program in [&pair.server.program, &pair.agents[0].program] {
        program.logged(&["dial ended"], LIMIT).await.unwrap();
        for line in program.log().lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for key in ["timestamp", "level", "message"] {
                assert!(event[key].is_string(), "{key}: {line}");
            }
            if event["message"] == "dial ended" {
                dial_ids.push(event["dial_id"].as_u64().unwrap());
                assert_eq!(event["target"], target.local_addr().unwrap().to_string(), "{line}");
                assert_eq!(line.matches("\"target\":").count(), 1, "{line}");
                assert_eq!(event["bytes_sent"], 4, "{line}");
                assert_eq!(event["bytes_received"], 4, "{line}");
                assert!(event["duration"].is_f64() && event["outcome"].is_string(), "{line}");
            }
        }
    }
    // One grep follows one dial through both logs.
    assert_eq!(dial_ids.len(), 2);
    assert_eq!(dial_ids[0], dial_ids[1]);
}
