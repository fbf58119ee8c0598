use std::{fs, net::SocketAddr, path::Path};

use konnectivity_process::{log_file::Destination, logging::Format, testing};
use konnectivity_transport::mux::SlowDial;
use tempfile::TempDir;

use super::{transport::GrpcSettings, *};
use crate::server_connection::choice::{Transport, Wanted};

const EXAMPLE: &str = include_str!("../../../docs/examples/proxy-agent.toml");

/// A folder with readable files.
pub(super) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["server-ca.crt", "agent.crt", "agent.key"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        Self { folder }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The one flag that has to be there, and others.
    pub(super) fn with(&self, flags: &[&str]) -> Vec<String> {
        let ca = format!("--ca-cert={}", self.path("server-ca.crt"));
        std::iter::once(ca).chain(flags.iter().map(|flag| (*flag).to_owned())).collect()
    }
}

pub(super) fn load(flags: &[String], environment: &[(&str, &str)]) -> Result<Config, Exit> {
    let arguments = std::iter::once("proxy-agent").chain(flags.iter().map(String::as_str)).map(OsString::from);
    Config::load(arguments, |name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

pub(super) fn valid(flags: &[String]) -> Config {
    load(flags, &[]).unwrap_or_else(|exit| panic!("{exit:?}"))
}

/// The lines of the refusal, one for each problem.
pub(super) fn refused(flags: &[String]) -> Vec<String> {
    testing::problems::<Options, _>(load(flags, &[]))
}

fn addresses(listen: &Listen) -> (&'static str, Vec<SocketAddr>) {
    (listen.setting, listen.addresses.clone())
}

#[test]
fn defaults() {
    let fixture = Fixture::new();
    let config = valid(&fixture.with(&[]));
    assert_eq!(config.agent_id.as_str().len(), 36, "a UUID");
    assert_ne!(config.agent_id, valid(&fixture.with(&[])).agent_id);
    assert_eq!((config.identifiers, config.identifiers_query.as_str()), (Identifiers::default(), ""));
    assert_eq!(config.server, ServerAddress { host: "127.0.0.1".into(), port: 8091 });
    assert_eq!(config.tls, Tls { ca: fixture.folder.path().join("server-ca.crt"), identity: None });
    let (interval, interval_cap) = (Duration::from_secs(1), Duration::from_secs(10));
    assert_eq!(
        config.reconnect,
        Reconnect { interval, interval_cap, forever: false, count_source: CountSource::Leases }
    );
    assert_eq!(config.dial_timeout, Duration::from_secs(5));
    assert_eq!(config.graceful_shutdown_timeout, Duration::from_secs(20));
    assert!(config.exit_after_drain && !config.profiling);
    assert_eq!(config.notices, Vec::<String>::new());
    let all = vec!["[::]:8093".parse().unwrap(), "0.0.0.0:8093".parse().unwrap()];
    assert_eq!(addresses(&config.health), ("health-server-port", all));
    assert_eq!(addresses(&config.admin), ("admin-server-port", vec!["127.0.0.1:8094".parse().unwrap()]));
    assert_eq!(config.quic, QuicSettings::default());
    assert_eq!(
        config.logging,
        Logging { filter: "info".into(), format: Format::Text, destination: Destination::default() }
    );
    assert_eq!(config.effective.value("probe-interval"), Some("1s"));
}

#[test]
fn every_flag_has_its_effect() {
    let fixture = Fixture::new();
    let (certificate, key) = (fixture.path("agent.crt"), fixture.path("agent.key"));
    let config = valid(&fixture.with(&[
        "--agent-id=me",
        "--agent-identifiers=host=a%20b&default-route=true",
        "--proxy-server-host=[::1]",
        "--proxy-server-port=443",
        &format!("--agent-cert={certificate}"),
        &format!("--agent-key={key}"),
        "--sync-interval=5s",
        "--sync-interval-cap=30s",
        "--sync-forever",
        "--probe-interval=5s",
        "--dial-timeout=1500ms",
        "--graceful-shutdown-timeout=0",
        "--exit-after-drain=false",
        "--enable-profiling",
        "--server-count-source=max",
        "--health-server-host=127.0.0.1",
        "--health-server-port=60000",
        "--admin-bind-address=::1",
        "--admin-server-port=1",
        "--log-level=warn,konnectivity_transport=trace",
        "--log-format=json",
        "--quic-segmentation-offload=false",
    ]));
    assert_eq!(config.agent_id.as_str(), "me");
    assert_eq!((config.identifiers.host, config.identifiers.default_route), (vec!["a b".to_owned()], true));
    assert_eq!(config.identifiers_query, "host=a%20b&default-route=true");
    assert_eq!(config.server, ServerAddress { host: "::1".into(), port: 443 });
    assert_eq!(config.tls.identity, Some(Identity { certificate: certificate.into(), key: key.into() }));
    let (interval, interval_cap) = (Duration::from_secs(5), Duration::from_secs(30));
    assert_eq!(config.reconnect, Reconnect { interval, interval_cap, forever: true, count_source: CountSource::Max });
    assert_eq!(config.dial_timeout, Duration::from_millis(1500));
    assert_eq!(config.graceful_shutdown_timeout, Duration::ZERO);
    assert!(!config.exit_after_drain && config.profiling);
    assert_eq!(config.notices, ["taken and without effect here: --probe-interval"]);
    assert_eq!(addresses(&config.health).1, ["127.0.0.1:60000".parse().unwrap()]);
    assert_eq!(addresses(&config.admin).1, ["[::1]:1".parse().unwrap()]);
    let filter = "warn,konnectivity_transport=trace".to_owned();
    assert_eq!(config.logging, Logging { filter, format: Format::Json, destination: Destination::default() });
    assert!(!config.quic.segmentation_offload);
}

#[test]
fn the_id_of_the_environment() {
    let fixture = Fixture::new();
    let environment = [("PROXY_AGENT_ID", "theirs")];
    assert_eq!(load(&fixture.with(&[]), &environment).unwrap().agent_id.as_str(), "theirs");
    assert_eq!(load(&fixture.with(&["--agent-id=mine"]), &environment).unwrap().agent_id.as_str(), "mine");
    let config = load(&fixture.with(&[]), &[("PROXY_AGENT_ID", "")]).unwrap();
    assert_eq!(config.agent_id.as_str().len(), 36);
    assert_eq!(config.effective.value("agent-id"), Some(config.agent_id.as_str()));
}

#[test]
fn each_problem() {
    let fixture = Fixture::new();
    let missing = fixture.path("missing.pem");
    let file = fixture.path("agent.crt");
    for (flag, expected) in [
        (
            "--ca-cert=",
            "ca-cert = \"\" (flag): ca cert must be set so that the agent knows whose servers to trust; set --ca-cert to a file",
        ),
        (
            "--ca-cert={missing}",
            "error checking agent CA cert {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--agent-cert={file}",
            "cannot have agent key empty when agent cert is set to \"{file}\"; set --agent-key as well, or neither",
        ),
        ("--agent-key={file}", "cannot have agent cert empty when agent key is set to \"{file}\""),
        ("--proxy-server-host=", "is not the name or address of a host"),
        ("--proxy-server-port=0", "proxy server port 0 must be greater than 0; choose one from 1 to 65535"),
        ("--health-server-port=-5", "health server port -5 must be greater than 0"),
        ("--admin-server-port=65536", "admin server port 65536 is more than a port can be"),
        ("--health-server-host=x y", "is neither an IP address nor a name"),
        ("--admin-bind-address=x y", "is neither an IP address nor a name"),
        ("--agent-id=a\tb", "only printable ASCII"),
        ("--agent-identifiers=uid=1", "agent address is invalid: unknown address type: uid"),
        ("--agent-identifiers=host=%zz", "agent address is invalid: invalid URL escape \"%zz\""),
        ("--agent-identifiers=host=a;b", "agent address is invalid: invalid semicolon separator in query"),
        ("--sync-interval=0", "sync interval 0s must be greater than 0"),
        (
            "--sync-interval=11s",
            "sync interval 11s must be less than sync interval cap 10s; lower it, or raise --sync-interval-cap",
        ),
        ("--sync-interval-cap=-1s", "sync interval cap -1s must be greater than 0"),
        ("--dial-timeout=0", "dial timeout 0s must be greater than 0"),
        ("--graceful-shutdown-timeout=-1s", "graceful-shutdown-timeout must be >= 0, got -1s"),
        ("--xfr-channel-size=0", "channel size 0 must be greater than 0"),
        (
            "--enable-contention-profiling",
            "if --enable-contention-profiling is set, --enable-profiling must also be set",
        ),
        (
            "--kubeconfig={missing}",
            "error checking KubeconfigPath \"{missing}\", got stat {missing}: no such file or directory",
        ),
        ("--server-count-source=foo", "--server-count-source must be one of '', 'default', 'max', got foo"),
        (
            "--service-account-token-path={missing}",
            "error checking service account token path {missing}, got stat {missing}: no such file",
        ),
        ("--log-level=loud", "\"loud\" is not a level"),
        ("--log-format=xml", "is not a format"),
        ("--quic-max-dials=0", "is out of range"),
    ] {
        let flag = flag.replace("{missing}", &missing).replace("{file}", &file);
        let problems = refused(&fixture.with(&[&flag]));
        assert_eq!(problems.len(), 1, "{flag}: {problems:?}");
        let expected = expected.replace("{missing}", &missing).replace("{file}", &file);
        assert!(problems[0].contains(&expected), "{flag}: {problems:?}");
    }
    let both = [format!("--agent-cert={missing}"), format!("--agent-key={missing}")];
    assert_eq!(refused(&fixture.with(&[&both[0], &both[1]])).len(), 2);
}

#[test]
fn an_agent_behind_an_http_proxy_has_grpc_only() {
    let fixture = Fixture::new();
    let flags = fixture.with(&["--proxy-server-host=servers.example"]);
    let proxy = ("HTTPS_PROXY", "http://user:secret@proxy:3128");
    let Ok(config) = load(&flags, &[proxy]) else { panic!("it does not start") };
    assert_eq!(config.transports.wanted, Wanted::Only(Transport::Grpc));
    let used = config.transports.grpc.proxy.unwrap();
    assert_eq!((used.host.as_str(), used.port), ("proxy", 3128));

    for (flags, environment) in [(&flags, &[proxy, ("NO_PROXY", ".example")][..]), (&fixture.with(&[]), &[proxy])] {
        let Ok(config) = load(flags, environment) else { panic!("it does not start") };
        assert_eq!((config.transports.wanted, config.transports.grpc.proxy), (Wanted::Auto, None));
    }

    let flags = fixture.with(&["--proxy-server-host=servers.example", "--transport=quic"]);
    let Err(Exit::Refused(said)) = load(&flags, &[proxy]) else { panic!("it starts") };
    let expected = "transport = \"quic\" (flag): the environment (HTTPS_PROXY) wants proxy:3128 to be used, and QUIC does \
                    not go through an HTTP proxy; leave it out";
    assert!(said.contains(expected) && !said.contains("secret"), "{said}");
    let Err(Exit::Refused(said)) = load(&flags, &[("HTTPS_PROXY", "socks5://proxy")]) else { panic!("it starts") };
    assert!(said.contains("(HTTPS_PROXY) wants a proxy: \"socks5://proxy\" is not an HTTP proxy"), "{said}");
}

#[test]
fn ways_to_the_servers() {
    let fixture = Fixture::new();
    let config = valid(&fixture.with(&[]));
    assert_eq!(config.transports.wanted, Wanted::Auto);
    assert_eq!(config.transports.quic_retry_interval, Duration::from_secs(30));
    assert_eq!(config.transports.grpc.keep_alive, Duration::from_secs(3_600));
    for (name, wanted) in [("quic", Wanted::Only(Transport::Quic)), ("grpc", Wanted::Only(Transport::Grpc))] {
        let config = valid(&fixture.with(&[&format!("--transport={name}")]));
        assert_eq!(config.transports.wanted, wanted);
    }
    let config = valid(&fixture.with(&[
        "--quic-retry-interval=2s",
        "--keepalive-time=0",
        "--alpn-proto=a,b",
        "--grpc-dial-buffer=1MiB",
        "--grpc-slow-dials=wait",
    ]));
    assert_eq!(config.transports.quic_retry_interval, Duration::from_secs(2));
    let expected = GrpcSettings {
        keep_alive: Duration::from_secs(10),
        alpn: vec!["a".to_owned(), "b".to_owned()],
        dial_buffer: 1 << 20,
        slow_dials: SlowDial::Wait,
        proxy: None,
    };
    assert_eq!(config.transports.grpc, expected);
    let long = format!("--alpn-proto={}", "a".repeat(256));
    for (flag, expected) in [
        ("--transport=tcp", "\"tcp\" is not a transport; known are auto, quic and grpc; set --transport=auto"),
        ("--quic-retry-interval=0", "quic retry interval 0s must be greater than 0"),
        ("--grpc-dial-buffer=1", "is out of range; set it to 64KiB up to 1GiB"),
        ("--grpc-slow-dials=drop", "\"drop\" is not one of close and wait"),
        (&long, "has a name that TLS cannot carry"),
    ] {
        let problems = refused(&fixture.with(&[flag]));
        assert!(problems.len() == 1 && problems[0].contains(expected), "{flag}: {problems:?}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let fixture = Fixture::new();
    let path = fixture.path("settings.toml");
    fs::write(&path, "agent-port = 1\nsync-interval = \"fast\"\ndial-timeout = \"-1s\"\n").unwrap();
    let problems = refused(&[format!("--config={path}"), "--proxy-server-port=0".into()]);
    for expected in [
        &format!("agent-port ({path} line 1): no setting has this name"),
        &format!("sync-interval = \"fast\" ({path} line 2): time: invalid duration \"fast\""),
        &format!("dial-timeout = \"-1s\" ({path} line 3): dial timeout -1s must be greater than 0"),
        "proxy-server-port = \"0\" (flag): ",
        "ca-cert (not set): ca cert must be set",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn the_example_has_every_setting_and_is_valid() {
    testing::check_example::<Options>(EXAMPLE);
    let fixture = Fixture::new();
    let path = fixture.path("example.toml");
    fs::write(&path, EXAMPLE.replace("/etc/konnectivity-quic", &fixture.folder.path().display().to_string())).unwrap();
    valid(&[format!("--config={path}")]);
}

#[test]
fn settings_document_is_current() {
    testing::check_document::<Options>(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/operating/settings.md"
    )));
}
