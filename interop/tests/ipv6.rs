//! IPv6 everywhere IPv4 works: agent port, frontend, health and admin ports, targets; and both families at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use konnectivity_interop::load::path::DialError;
use konnectivity_interop::pair::client::Client;
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::{Options, Pair, http};
use konnectivity_interop::peer::Frontend;
use tokio::net::TcpListener;

const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const FOUR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn everything_on_ipv6() {
    for options in [Options::mutual_tls(), Options::unix()] {
        let pair = Pair::start(options.host(SIX)).await.unwrap();
        for address in [pair.server.agents, pair.server.health, pair.server.admin, pair.agents[0].health] {
            assert!(address.is_ipv6());
        }
        if let Frontend::MutualTls(address) = pair.server.frontend {
            assert!(address.is_ipv6());
        }
        assert_eq!(http::get(pair.server.health, "/readyz").await.unwrap().body, "ok");
        assert_eq!(http::get(pair.agents[0].health, "/readyz").await.unwrap().body, "ok");
        assert!(http::get(pair.server.admin, "/metrics").await.unwrap().body.contains("ready_backends"));
        let redirect = http::get(pair.agents[0].admin, "/metrics").await.unwrap().head.to_lowercase();
        assert!(
            redirect.contains(&format!("location: //[::1]:{}/metrics", pair.agents[0].health.port())),
            "{redirect}"
        );
        let remote = pair.server.connections().await.unwrap()[0]["remote"].as_str().unwrap().to_owned();
        assert!(remote.starts_with("[::1]:"), "{remote}");

        let target = TcpListener::bind((SIX, 0)).await.unwrap();
        let client = pair.client().unwrap();
        Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
        // The families of tunnel and target have nothing to do with each other.
        let target = TcpListener::bind((FOUR, 0)).await.unwrap();
        Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
        match pair.dial("[::1]:1").await {
            Err(DialError::Refused(reply)) => {
                assert!(reply.ends_with("dial tcp [::1]:1: connect: connection refused"), "{reply}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_agent_may_write_the_server_in_brackets() {
    let pair = Pair::start(Options::unix().host(SIX).agent(["--proxy-server-host=[::1]"])).await.unwrap();
    assert_eq!(pair.server.connections().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_ipv6_target_over_an_ipv4_tunnel() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let target = TcpListener::bind((SIX, 0)).await.unwrap();
    Open::dial(&pair.client().unwrap(), &target).await.unwrap().exchange().await.unwrap();
}

#[tokio::test]
async fn empty_addresses_are_all_interfaces_of_both_families() {
    let all = ["--agent-bind-address=", "--health-bind-address=", "--admin-bind-address=", "--server-bind-address="];
    let options = Options::mutual_tls().server(all);
    let options = options.agents([
        &["--proxy-server-host=127.0.0.1", "--health-server-host="],
        &["--proxy-server-host=::1", "--health-server-host="],
        // Both families, of which either will do.
        &["--proxy-server-host=localhost"],
    ]);
    let pair = Pair::start(options).await.unwrap();
    let connections = pair.server.connections().await.unwrap();
    let remotes: Vec<_> = connections.iter().map(|one| one["remote"].as_str().unwrap()).collect();
    assert!(remotes.iter().any(|remote| remote.starts_with("127.0.0.1:")), "{remotes:?}");
    assert!(remotes.iter().any(|remote| remote.starts_with("[::1]:")), "{remotes:?}");
    let Frontend::MutualTls(frontend) = pair.server.frontend else { unreachable!() };
    let target = TcpListener::bind((FOUR, 0)).await.unwrap();
    for ip in [FOUR, SIX] {
        for port in [pair.server.health.port(), pair.agents[0].health.port(), pair.agents[1].health.port()] {
            assert_eq!(http::get(SocketAddr::new(ip, port), "/readyz").await.unwrap().body, "ok");
        }
        let metrics = http::get(SocketAddr::new(ip, pair.server.admin.port()), "/metrics").await.unwrap();
        assert_eq!(metrics.status, 200);
        let frontend = Frontend::MutualTls(SocketAddr::new(ip, frontend.port()));
        let client = Client::of(&frontend, &pair.certificates).unwrap();
        Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
    }
}

#[tokio::test]
async fn an_ipv6_server_that_is_restarted_is_noticed() {
    let mut pair = Pair::start(Options::unix().host(SIX).agent(["--quic-keep-alive-interval=1s"])).await.unwrap();
    pair.server.program.kill();
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    let limit = std::time::Duration::from_secs(10);
    pair.agents[0].program.logged(&["it was restarted"], limit).await.unwrap();
    pair.ready().await.unwrap();
}
