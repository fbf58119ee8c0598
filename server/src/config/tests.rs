use std::{fs, net::SocketAddr, path::Path};

use konnectivity_process::{float::Float32, log_file::Destination, logging::Format, testing};
use konnectivity_transport::mux::SlowDial;
use tempfile::TempDir;

use super::{frontend::UnixFrontend, *};
use crate::{
    accept::listener::tls::{Protocol, Terms},
    auth::{DrainExpired, Exceptions, Expected, IdentifierPolicy},
};

const EXAMPLE: &str = include_str!("../../../docs/examples/proxy-server.toml");

/// A folder with readable files, and flags that name them.
pub(super) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["frontend.crt", "frontend.key", "frontend-ca.crt", "server.crt", "server.key", "agents-ca.crt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        Self { folder }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.path(file))
    }

    /// What a server for agents with certificates needs, but for its frontend.
    fn agents(&self) -> Vec<String> {
        vec![
            self.flag("cluster-cert", "server.crt"),
            self.flag("cluster-key", "server.key"),
            self.flag("cluster-ca-cert", "agents-ca.crt"),
        ]
    }

    pub(super) fn tcp(&self) -> Vec<String> {
        let mut flags = self.agents();
        flags.push(self.flag("server-cert", "frontend.crt"));
        flags.push(self.flag("server-key", "frontend.key"));
        flags.push(self.flag("server-ca-cert", "frontend-ca.crt"));
        flags
    }

    fn unix(&self, path: &str) -> Vec<String> {
        let mut flags = self.agents();
        flags.push(format!("--uds-name={path}"));
        flags
    }
}

pub(super) fn load(flags: &[String], environment: &[(&str, &str)]) -> Result<Config, Exit> {
    let arguments = std::iter::once("proxy-server").chain(flags.iter().map(String::as_str)).map(OsString::from);
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

fn all_interfaces(port: u16) -> Vec<SocketAddr> {
    vec![format!("[::]:{port}").parse().unwrap(), format!("0.0.0.0:{port}").parse().unwrap()]
}

#[test]
fn defaults() {
    let fixture = Fixture::new();
    let config = valid(&fixture.tcp());
    assert_eq!(config.server_id.as_str().len(), 36, "a UUID");
    assert_ne!(config.server_id, valid(&fixture.tcp()).server_id);
    assert_eq!(config.server_count, 1);
    assert_eq!(config.strategies, [Strategy::Default]);
    assert_eq!(config.mode, Mode::Grpc);
    assert_eq!(config.frontend_keepalive_time, Duration::from_hours(1));
    let Frontend::Tcp(frontend) = &config.frontend else { panic!("{:?}", config.frontend) };
    let protocol = Protocol::Http2 { demand_alpn: true };
    assert_eq!(frontend.terms, Terms { protocol, only_tls13: false, cipher_suites: None });
    assert_eq!(addresses(&frontend.listen), ("server-port", all_interfaces(8090)));
    assert_eq!(frontend.certificate, fixture.folder.path().join("frontend.crt"));
    assert_eq!(frontend.key, fixture.folder.path().join("frontend.key"));
    assert_eq!(frontend.client_ca, fixture.folder.path().join("frontend-ca.crt"));
    assert_eq!(addresses(&config.agents.listen), ("agent-port", all_interfaces(8091)));
    assert_eq!(config.agents.certificate, fixture.folder.path().join("server.crt"));
    assert_eq!(config.agents.key, fixture.folder.path().join("server.key"));
    assert_eq!(config.agents.client_ca, Some(fixture.folder.path().join("agents-ca.crt")));
    assert_eq!(config.agents.endpoint_key_file, None);
    assert_eq!(addresses(&config.health), ("health-port", all_interfaces(8092)));
    assert_eq!(addresses(&config.admin), ("admin-port", vec!["127.0.0.1:8095".parse().unwrap()]));
    assert_eq!(config.graceful_shutdown_timeout, Duration::from_secs(20));
    assert_eq!(config.backend_dial_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.worker_threads, cores());
    assert_eq!(config.quic, QuicSettings::default());
    assert_eq!(
        config.logging,
        Logging { filter: "info".into(), format: Format::Text, destination: Destination::default() }
    );
    assert!(!config.profiling);
    assert_eq!(config.notices, Vec::<String>::new());
}

#[test]
fn every_flag_has_its_effect() {
    let fixture = Fixture::new();
    let mut flags = fixture.unix(&fixture.path("a.socket"));
    flags.retain(|flag| !flag.starts_with("--cluster-ca-cert"));
    flags.extend(
        [
            "--mode=http-connect",
            "--server-port=0",
            "--delete-existing-uds-file=false",
            "--frontend-keepalive-time=1m",
            "--enable-profiling",
            "--allow-unauthenticated-agents",
            "--agent-port=2001",
            "--agent-bind-address=127.0.0.1",
            "--health-port=2002",
            "--health-bind-address=::1",
            "--admin-port=2003",
            "--admin-bind-address=",
            "--server-id=me",
            "--server-count=3",
            "--proxy-strategies=destHost,leastLoaded,defaultRoute,default",
            "--graceful-shutdown-timeout=0",
            "--backend-dial-timeout=0s",
            "--worker-threads=2",
            "--log-level=debug",
            "--log-format=json",
            "--quic-max-dials=5",
        ]
        .map(str::to_owned),
    );
    flags.push(fixture.flag("endpoint-key-file", "server.key"));
    let config = valid(&flags);
    let socket = UnixFrontend { path: fixture.folder.path().join("a.socket"), delete_existing: false };
    assert_eq!(config.frontend, Frontend::Unix(socket));
    assert_eq!(addresses(&config.agents.listen).1, ["127.0.0.1:2001".parse().unwrap()]);
    assert_eq!(config.mode, Mode::HttpConnect);
    assert_eq!(config.frontend_keepalive_time, Duration::from_mins(1));
    assert!(config.profiling);
    assert_eq!(config.agents.client_ca, None);
    assert_eq!(config.agents.endpoint_key_file, Some(fixture.folder.path().join("server.key")));
    assert_eq!(addresses(&config.health).1, ["[::1]:2002".parse().unwrap()]);
    assert_eq!(addresses(&config.admin).1, all_interfaces(2003));
    assert_eq!(config.server_id.as_str(), "me");
    assert_eq!(config.server_count, 3);
    assert_eq!(config.strategies.len(), 4);
    assert_eq!(config.strategies[0], Strategy::DestHost);
    assert_eq!(config.graceful_shutdown_timeout, Duration::ZERO);
    assert_eq!(config.backend_dial_timeout, None);
    assert_eq!(config.worker_threads.get(), 2);
    assert_eq!(
        config.logging,
        Logging { filter: "debug".into(), format: Format::Json, destination: Destination::default() }
    );
    assert_eq!(config.quic.max_dials, 5);
}

#[test]
fn the_id_of_the_environment() {
    let fixture = Fixture::new();
    let mut flags = fixture.tcp();
    let from_environment = load(&flags, &[("PROXY_SERVER_ID", "theirs")]).unwrap();
    assert_eq!(from_environment.server_id.as_str(), "theirs");
    flags.push("--server-id=mine".into());
    let config = load(&flags, &[("PROXY_SERVER_ID", "theirs")]).unwrap();
    assert_eq!(config.server_id.as_str(), "mine");
}

#[test]
fn the_settings_in_effect_name_the_chosen_id_and_every_setting() {
    let fixture = Fixture::new();
    let config = valid(&fixture.tcp());
    let line = config.effective.to_string();
    assert!(line.contains(&format!("server-id={}", config.server_id)), "{line}");
    assert!(line.contains(" quic-idle-timeout=30s ") && line.contains(" mode=grpc "), "{line}");
}

#[test]
fn each_problem() {
    let fixture = Fixture::new();
    let missing = fixture.path("missing.pem");
    let folder = fixture.path("");
    let folder = folder.trim_end_matches('/');
    for (flag, expected) in [
        (
            "--mode=foo",
            "mode = \"foo\" (flag): mode must be set to either 'grpc' or 'http-connect' not \"foo\"; set --mode=grpc",
        ),
        (
            "--server-cert=",
            "cannot have server cert empty when server key is set to \"{folder}/frontend.key\"; set --server-cert as well",
        ),
        ("--server-key=", "cannot have server key empty when server cert is set to \"{folder}/frontend.crt\""),
        (
            "--server-ca-cert=",
            "server ca cert must be set when in TCP mode (uds-name is empty); set --server-ca-cert to a file",
        ),
        ("--cluster-cert=", "cannot have cluster cert empty when cluster key is set to \"{folder}/server.key\""),
        ("--cluster-key=", "cannot have cluster key empty when cluster cert is set to \"{folder}/server.crt\""),
        ("--cluster-ca-cert=", "nothing says which agents may connect"),
        (
            "--cluster-ca-cert=",
            "set --cluster-ca-cert to the certificate authorities of the agents, or --agent-namespace for their tokens, or, for \
             tests, --allow-unauthenticated-agents",
        ),
        ("--allow-unauthenticated-agents", "contradicts cluster-ca-cert"),
        (
            "--server-cert={missing}",
            "server-cert = \"{missing}\" (flag): error checking server cert {missing}, got stat {missing}: no such file or directory; correct the path",
        ),
        (
            "--server-key={missing}",
            "error checking server key {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--server-ca-cert={missing}",
            "error checking server CA cert {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--cluster-cert={missing}",
            "error checking cluster cert {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--cluster-key={missing}",
            "error checking cluster key {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--cluster-ca-cert={missing}",
            "error checking cluster CA cert {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--endpoint-key-file={missing}",
            "error checking endpoint key file {missing}, got stat {missing}: no such file or directory",
        ),
        (
            "--server-port=49152",
            "please do not try to use ephemeral port 49152 for the server port; choose one from 1024 to 49151",
        ),
        ("--server-port=0", "please do not try to use reserved port 0 for the server port"),
        ("--agent-port=80", "please do not try to use reserved port 80 for the agent port"),
        ("--admin-port=49152", "please do not try to use ephemeral port 49152 for the admin port"),
        ("--health-port=-1", "please do not try to use reserved port -1 for the health port"),
        ("--admin-port=1023", "please do not try to use reserved port 1023 for the admin port"),
        ("--agent-port=49152", "please do not try to use ephemeral port 49152 for the agent port"),
        ("--health-port=49152", "please do not try to use ephemeral port 49152 for the health port"),
        ("--server-bind-address=x y", "server-bind-address = \"x y\" (flag): is neither an IP address nor a name"),
        ("--agent-bind-address=x y", "is neither an IP address nor a name"),
        ("--admin-bind-address=x y", "is neither an IP address nor a name"),
        ("--health-bind-address=x y", "is neither an IP address nor a name"),
        ("--server-id=\u{e9}", "only printable ASCII"),
        ("--server-count=0", "is out of range; set it to 1 up to 1000"),
        ("--proxy-strategies=", "ProxyStrategies cannot be empty"),
        ("--proxy-strategies=,", "invalid proxy strategies: proxy strategies cannot be empty"),
        ("--proxy-strategies=default,other", "invalid proxy strategies: unknown proxy strategy: other"),
        ("--graceful-shutdown-timeout=-1s", "graceful-shutdown-timeout must be >= 0, got -1s"),
        ("--backend-dial-timeout=-1m", "backend-dial-timeout must be >= 0, got -1m0s"),
        ("--frontend-keepalive-time=-1s", "frontend-keepalive-time must be >= 0, got -1s"),
        ("--xfr-channel-size=0", "channel size 0 must be greater than 0"),
        ("--xfr-channel-size=-1", "channel size -1 must be greater than 0"),
        (
            "--enable-contention-profiling",
            "if --enable-contention-profiling is set, --enable-profiling must also be set",
        ),
        (
            "--tls-min-version=TLS12",
            "unsupported TLS version \"TLS12\", supported values are: VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13",
        ),
        ("--cipher-suites=foo", "cipher suite foo not supported, doesn't exist or considered as insecure"),
        ("--cipher-suites=[]", "cipher suite [] not supported, doesn't exist or considered as insecure"),
        (
            "--cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256",
            "cipher suite TLS_RSA_WITH_AES_128_GCM_SHA256 not supported, doesn't exist or considered as insecure",
        ),
        ("--lease-label=", "empty string provided"),
        ("--lease-label=x", "invalid label format: x"),
        ("--lease-label=a=b,c=d=e", "invalid label format: c=d=e"),
        (
            "--kubeconfig={missing}",
            "checking KubeconfigPath \"{missing}\", got stat {missing}: no such file or directory",
        ),
        ("--worker-threads=-1", "is out of range; set it to 0 up to 1024"),
        ("--log-level=verbose", "\"verbose\" is not a level"),
        ("--log-format=xml", "is not a format; set it to text or json"),
        ("--quic-idle-timeout=1s", "is not below quic-idle-timeout, 1s"),
    ] {
        let mut flags = fixture.tcp();
        flags.push(flag.replace("{missing}", &missing));
        let problems = refused(&flags);
        assert_eq!(problems.len(), 1, "{flag}: {problems:?}");
        let expected = expected.replace("{missing}", &missing).replace("{folder}", folder);
        assert!(problems[0].contains(&expected), "{flag}: {problems:?}");
    }
}

#[test]
fn what_is_wrong_with_tokens_is_told() {
    let fixture = Fixture::new();
    let [namespace, account, audience] = ["agent-namespace", "agent-service-account", "authentication-audience"]
        .map(|setting| format!("--{setting} cannot be empty when agent authentication is enabled"));
    let open = "contradicts agent-namespace";
    for (more, expected) in [
        (&["--agent-namespace=a"][..], &[account.as_str(), &audience][..]),
        (&["--agent-service-account=a", "--cluster-ca-cert="], &[&namespace, &audience]),
        (&["--authentication-audience=a", "--cluster-ca-cert="], &[&namespace, &account]),
        (
            &[
                "--agent-namespace=a",
                "--agent-service-account=a",
                "--authentication-audience=a",
                "--cluster-ca-cert=",
                "--allow-unauthenticated-agents",
            ],
            &[open],
        ),
    ] {
        let mut flags = fixture.tcp();
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let problems = refused(&flags);
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{expected} is not in {problem}");
        }
    }
}

#[test]
fn tokens_go_with_certificates_and_without() {
    let fixture = Fixture::new();
    for (authority, is_some) in [(None, true), (Some("--cluster-ca-cert="), false)] {
        let mut flags = fixture.tcp();
        flags.extend(
            ["--agent-namespace=a", "--agent-service-account=b", "--authentication-audience=c"].map(str::to_owned),
        );
        flags.extend(authority.map(str::to_owned));
        flags.extend(["--kubeconfig-qps=2.5", "--kubeconfig-burst=7"].map(str::to_owned));
        let config = valid(&flags);
        assert_eq!(config.agents.client_ca.is_some(), is_some);
        let AgentRules { tokens, drain_expired, review_interval, identifiers, kubernetes } = config.agent_rules;
        let expected = Expected { namespace: "a".into(), service_account: "b".into(), audience: "c".into() };
        assert_eq!((tokens, drain_expired), (Some(expected), DrainExpired::Quic));
        assert_eq!(review_interval, Some(Duration::from_secs(60)));
        assert_eq!(identifiers, IdentifierPolicy::Any);
        assert_eq!(kubernetes, Some(Kubernetes { kubeconfig: None, qps: Float32(2.5), burst: 7 }));
    }
    let mut flags = fixture.tcp();
    flags.push("--token-review-interval=0".into());
    assert_eq!(valid(&flags).agent_rules.review_interval, None);
    // Nothing is asked of the API that nobody needs.
    let mut flags = fixture.tcp();
    flags.push(format!("--kubeconfig={}", fixture.path("server.crt")));
    assert_eq!(valid(&flags).agent_rules.kubernetes, None);
}

#[test]
fn the_rule_for_identifiers_and_its_exceptions() {
    let fixture = Fixture::new();
    let with = |more: &[&str]| {
        let mut flags = fixture.tcp();
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        flags
    };
    let own_node = "--agent-identifier-policy=own-node";
    for (exceptions, default_route, cidr) in
        [("", false, false), ("default-route", true, false), ("cidr,default-route,", true, true)]
    {
        let rules = valid(&with(&[own_node, &format!("--agent-identifier-exceptions={exceptions}")])).agent_rules;
        assert_eq!(rules.identifiers, IdentifierPolicy::OwnNode(Exceptions { default_route, cidr }));
        assert!(rules.kubernetes.is_some());
    }
    for (more, expected) in [
        (&["--agent-identifier-policy=node"][..], "\"node\" is not one of any and own-node"),
        (&["--agent-identifier-exceptions=cidr"], "there is no rule that they are exceptions from"),
        (&[own_node, "--agent-identifier-exceptions=host"], "\"host\" is not one of default-route and cidr"),
        (
            &[own_node, "--cluster-ca-cert=", "--allow-unauthenticated-agents"],
            "contradicts allow-unauthenticated-agents",
        ),
        (&["--drain-expired-tokens=yes"], "\"yes\" is not one of quic, all and none"),
        (&["--token-review-interval=999ms"], "999ms is less than 1s"),
        (&["--token-review-interval=-1s"], "token-review-interval"),
        (&["--kubeconfig-burst=-1"], "is out of range"),
    ] {
        let problems = refused(&with(more));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains(expected), "{problems:?}");
    }
}

#[test]
fn strategies_may_be_repeated_and_empty() {
    let fixture = Fixture::new();
    let mut flags = fixture.tcp();
    flags.push("--proxy-strategies=destHost,,default,destHost,".into());
    assert_eq!(valid(&flags).strategies, [Strategy::DestHost, Strategy::Default]);
}

#[test]
fn keep_alive_times_are_those_of_the_reference() {
    let fixture = Fixture::new();
    for (typed, seconds) in [("0", 7200), ("1ms", 1), ("1s", 1), ("90s", 90)] {
        let mut flags = fixture.tcp();
        flags.push(format!("--frontend-keepalive-time={typed}"));
        assert_eq!(valid(&flags).frontend_keepalive_time.as_secs(), seconds, "{typed}");
    }
}

#[test]
fn agents_are_served_over_what_the_transport_says() {
    let fixture = Fixture::new();
    let agents = |flags: &[&str]| {
        let mut all = fixture.tcp();
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        valid(&all).agents
    };
    for (flags, quic, grpc) in [
        (&[][..], true, true),
        (&["--transport=auto"], true, true),
        (&["--transport=quic"], true, false),
        (&["--transport=grpc"], false, true),
    ] {
        let agents = agents(flags);
        assert_eq!((agents.quic, agents.grpc.is_some()), (quic, grpc), "{flags:?}");
    }
    let default = agents(&[]).grpc.unwrap();
    assert_eq!(default.terms.protocol, Protocol::Http2 { demand_alpn: true });
    assert_eq!((default.dial_buffer, default.slow_dials), (8 << 20, SlowDial::Close));
    assert_eq!(default.keep_alive, Duration::from_hours(1));
    let set = agents(&[
        "--mode=http-connect",
        "--keepalive-time=0",
        "--grpc-dial-buffer=64KiB",
        "--grpc-slow-dials=wait",
        "--tls-min-version=VersionTLS13",
    ]);
    let set = set.grpc.unwrap();
    assert_eq!((set.dial_buffer, set.slow_dials), (64 << 10, SlowDial::Wait));
    assert_eq!(set.keep_alive, KEEP_ALIVE_OF_ZERO);
    assert_eq!(set.terms.protocol, Protocol::Http2 { demand_alpn: true }, "whatever clients speak");
    assert!(set.terms.only_tls13);
}

#[test]
fn what_agents_over_grpc_may_not_have_is_refused() {
    let fixture = Fixture::new();
    let mut flags = fixture.tcp();
    flags.extend(
        ["--transport=tcp", "--grpc-dial-buffer=1KiB", "--grpc-slow-dials=drop", "--keepalive-time=-1s"]
            .map(str::to_owned),
    );
    let problems = refused(&flags);
    assert_eq!(problems.len(), 4, "{problems:#?}");
    for words in ["known are auto, quic and grpc", "64KiB up to 1GiB", "one of close and wait", "keepalive-time"] {
        assert!(problems.iter().any(|problem| problem.contains(words)), "{words}: {problems:#?}");
    }
}

#[test]
fn what_is_set_and_has_no_effect_is_told_once() {
    let fixture = Fixture::new();
    let mut flags = fixture.tcp();
    flags.extend(
        ["--xfr-channel-size=10", "--warn-on-channel-limit", "--skip-headers", "--log-file=x"].map(str::to_owned),
    );
    assert_eq!(
        valid(&flags).notices,
        [
            "taken and without effect here: --warn-on-channel-limit, --xfr-channel-size, --skip-headers",
            "logs go to standard error, as --logtostderr says; without effect then: --log-file",
        ]
    );
}

#[test]
fn problems_of_unix_sockets() {
    let fixture = Fixture::new();
    let socket = fixture.path("a.socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let plain = fixture.path("server.crt");
    let long = fixture.path(&"x".repeat(108));
    for (path, flag, expected) in [
        (socket.as_str(), "--server-port=8090", "server port should be set to 0 not 8090 for UDS"),
        (&socket, "--server-ca-cert={file}", "server ca cert should not be set for UDS"),
        (&socket, "--delete-existing-uds-file=false", "a socket is there already; stop the server that has it"),
        (&plain, "--server-port=0", "something that is not a socket has this path; choose another path"),
        (&fixture.path("missing/a.socket"), "--server-port=0", "/missing is not there; make it"),
        (&long, "--server-port=0", "bytes; a socket's has 107 at most; choose a shorter one"),
    ] {
        let mut flags = fixture.unix(path);
        flags.push(flag.replace("{file}", &plain));
        let problems = refused(&flags);
        assert_eq!(problems.len(), 1, "{path} {flag}: {problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
    }
    let mut flags = fixture.unix(&socket);
    flags.push(fixture.flag("server-cert", "frontend.crt"));
    flags.push(fixture.flag("server-key", "frontend.key"));
    let problems = refused(&flags);
    assert_eq!(problems.len(), 2, "{problems:?}");
    for expected in ["server cert should not be set for UDS", "server key should not be set for UDS"] {
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{problems:?}");
    }
    valid(&fixture.unix(&socket));
    valid(&fixture.unix("a-path-without-a-folder.socket"));
}

#[test]
fn all_problems_are_told_at_once() {
    let fixture = Fixture::new();
    let path = fixture.path("settings.toml");
    fs::write(&path, "modus = 1\nagent-port = 80\nserver-count = \"two\"\n[quic]\nmax-dials = 0\n").unwrap();
    let flags = [format!("--config={path}"), "--health-port=99999".into(), "--proxy-strategies=x".into()];
    let problems = refused(&flags);
    for expected in [
        &format!("modus ({path} line 1): no setting has this name"),
        &format!("agent-port = \"80\" ({path} line 2): please do not try to use reserved port 80"),
        &format!("server-count = \"two\" ({path} line 3): invalid type"),
        &format!("quic-max-dials = \"0\" ({path} line 5): is out of range"),
        "health-port = \"99999\" (flag): please do not try to use ephemeral port 99999",
        "proxy-strategies = \"x\" (flag): invalid proxy strategies: unknown proxy strategy: x",
        "server-cert (not set): server-cert and server-key must be set",
        "server-ca-cert (not set): server ca cert must be set",
        "cluster-cert (not set): cluster-cert and cluster-key must be set",
        "cluster-ca-cert (not set): nothing says which agents may connect",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 10, "{problems:#?}");
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
