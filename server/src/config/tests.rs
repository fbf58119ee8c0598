use std::{fs, net::SocketAddr, path::Path};

use konnectivity_process::{logging::Format, testing};
use tempfile::TempDir;

use super::{frontend::UnixFrontend, *};

const EXAMPLE: &str = include_str!("../../../docs/examples/proxy-server.toml");

/// A folder with readable files, and flags that name them.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["frontend.crt", "frontend.key", "frontend-ca.crt", "server.crt", "server.key", "agents-ca.crt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.path(file))
    }

    /// What a server for agents with certificates needs, but for its frontend.
    fn agents(&self) -> Vec<String> {
        vec![
            "--mode=http-connect".into(),
            self.flag("cluster-cert", "server.crt"),
            self.flag("cluster-key", "server.key"),
            self.flag("cluster-ca-cert", "agents-ca.crt"),
        ]
    }

    fn tcp(&self) -> Vec<String> {
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

fn load(flags: &[String], environment: &[(&str, &str)]) -> Result<Config, Exit> {
    let arguments = std::iter::once("proxy-server").chain(flags.iter().map(String::as_str)).map(OsString::from);
    Config::load(arguments, |name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn valid(flags: &[String]) -> Config {
    load(flags, &[]).unwrap_or_else(|exit| panic!("{exit:?}"))
}

/// The lines of the refusal, one for each problem.
fn refused(flags: &[String]) -> Vec<String> {
    match load(flags, &[]) {
        Err(Exit::Refused(text)) => {
            assert!(text.starts_with("failed to validate server options with "), "{text}");
            text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
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
    let Frontend::Tcp(frontend) = &config.frontend else { panic!("{:?}", config.frontend) };
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
    assert_eq!(config.logging, Logging { filter: "info".into(), format: Format::Text });
}

#[test]
fn every_flag_has_its_effect() {
    let fixture = Fixture::new();
    let mut flags = fixture.unix(&fixture.path("a.socket"));
    flags.retain(|flag| !flag.starts_with("--cluster-ca-cert"));
    flags.extend(
        [
            "--server-port=0",
            "--delete-existing-uds-file=false",
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
    assert_eq!(config.logging, Logging { filter: "debug".into(), format: Format::Json });
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
    assert!(line.contains(" quic-idle-timeout=30s ") && line.contains(" mode=http-connect "), "{line}");
}

#[test]
fn each_problem() {
    let fixture = Fixture::new();
    let missing = fixture.path("missing.pem");
    for (flag, expected) in [
        (
            "--mode=foo",
            "mode = \"foo\" (flag): mode must be set to either 'grpc' or 'http-connect' not \"foo\"; set --mode=http-connect",
        ),
        (
            "--mode=grpc",
            "mode = \"grpc\" (flag): --mode=grpc is not yet supported by this version; set --mode=http-connect",
        ),
        ("--server-cert=", "cannot have server cert empty when server key is set; set --server-cert as well"),
        ("--server-key=", "cannot have server key empty when server cert is set; set --server-key as well"),
        (
            "--server-ca-cert=",
            "server ca cert must be set: clients' certificates must be checked when in TCP mode (uds-name is empty)",
        ),
        ("--cluster-cert=", "cannot have cluster cert empty when cluster key is set"),
        ("--cluster-key=", "cannot have cluster key empty when cluster cert is set"),
        ("--cluster-ca-cert=", "nothing says which agents may connect"),
        (
            "--cluster-ca-cert=",
            "set --cluster-ca-cert to the certificate authorities of the agents, or, for tests, --allow-unauthenticated-agents",
        ),
        ("--allow-unauthenticated-agents", "contradicts cluster-ca-cert"),
        (
            "--server-cert={missing}",
            "server-cert = \"{missing}\" (flag): cannot read the file: No such file or directory (os error 2); correct the path",
        ),
        ("--server-key={missing}", "cannot read the file"),
        ("--server-ca-cert={missing}", "cannot read the file"),
        ("--cluster-cert={missing}", "cannot read the file"),
        ("--cluster-key={missing}", "cannot read the file"),
        ("--cluster-ca-cert={missing}", "cannot read the file"),
        ("--endpoint-key-file={missing}", "cannot read the file"),
        (
            "--server-port=49152",
            "please do not try to use ephemeral port 49152 for the server port; choose one from 1024 to 49151",
        ),
        ("--server-port=0", "please do not try to use reserved port 0 for the server port"),
        ("--agent-port=80", "please do not try to use reserved port 80 for the agent port"),
        ("--admin-port=49152", "please do not try to use ephemeral port 49152 for the admin port"),
        ("--health-port=-1", "please do not try to use reserved port -1 for the health port"),
        ("--server-bind-address=x y", "server-bind-address = \"x y\" (flag): is neither an IP address nor a name"),
        ("--agent-bind-address=x y", "is neither an IP address nor a name"),
        ("--admin-bind-address=x y", "is neither an IP address nor a name"),
        ("--health-bind-address=x y", "is neither an IP address nor a name"),
        ("--server-id=\u{e9}", "only printable ASCII"),
        ("--server-count=0", "is out of range; set it to 1 up to 1000"),
        ("--proxy-strategies=", "proxy strategies cannot be empty"),
        ("--proxy-strategies=default,other", "unknown proxy strategy \"other\""),
        ("--proxy-strategies=default,default", "has default twice; remove one"),
        ("--graceful-shutdown-timeout=-1s", "graceful shutdown timeout -1s must not be negative"),
        ("--backend-dial-timeout=-1s", "backend dial timeout -1s must not be negative"),
        ("--worker-threads=-1", "is out of range; set it to 0 up to 1024"),
        ("--log-level=verbose", "\"verbose\" is not a level"),
        ("--log-format=xml", "is not a format; set it to text or json"),
        ("--quic-idle-timeout=1s", "is not below quic-idle-timeout, 1s"),
    ] {
        let mut flags = fixture.tcp();
        flags.push(flag.replace("{missing}", &missing));
        let problems = refused(&flags);
        assert_eq!(problems.len(), 1, "{flag}: {problems:?}");
        assert!(problems[0].contains(&expected.replace("{missing}", &missing)), "{flag}: {problems:?}");
    }
}

#[test]
fn the_mode_of_the_reference_is_refused_until_it_is_there() {
    let fixture = Fixture::new();
    let flags: Vec<String> = fixture.tcp().into_iter().filter(|flag| !flag.starts_with("--mode")).collect();
    let expected =
        "mode = \"grpc\" (default): --mode=grpc is not yet supported by this version; set --mode=http-connect";
    assert_eq!(refused(&flags), [expected]);
}

#[test]
fn problems_of_unix_sockets() {
    let fixture = Fixture::new();
    let socket = fixture.path("a.socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let plain = fixture.path("server.crt");
    let long = fixture.path(&"x".repeat(108));
    for (path, flag, expected) in [
        (socket.as_str(), "--server-port=8090", "server port should be 0 and not 8090 when uds-name is set"),
        (&socket, "--server-ca-cert={file}", "server-ca-cert must be empty when uds-name is set"),
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
    assert_eq!(refused(&flags).len(), 2);
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
        "mode = \"grpc\" (default): --mode=grpc is not yet supported",
        "health-port = \"99999\" (flag): please do not try to use ephemeral port 99999",
        "proxy-strategies = \"x\" (flag): unknown proxy strategy \"x\"",
        "server-cert (not set): server-cert and server-key must be set",
        "server-ca-cert (not set): server ca cert must be set",
        "cluster-cert (not set): cluster-cert and cluster-key must be set",
        "cluster-ca-cert (not set): nothing says which agents may connect",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
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
