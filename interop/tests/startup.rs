//! Both programs refuse what cannot work: with exit code 1, with words that say what failed, on what and what to do,
//! and without leaving anything behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::pair::program::{Program, beside_this};
use konnectivity_interop::pair::{Agent, Options, Pair, Server};
use konnectivity_interop::peer::{Entrance, Frontend, ports};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Certificates in a folder, for programs that are started by hand.
struct Stage {
    folder: TempDir,
    certificates: Folder,
}

impl Stage {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        Self { folder, certificates }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> String {
        self.certificates.file(name).display().to_string()
    }

    fn server(&self, entrance: Entrance, arguments: &[&str]) -> Server {
        let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
        Server::spawn(&self.certificates, self.path(), entrance, HERE.into(), &arguments).unwrap()
    }

    fn agent(&self, arguments: &[&str]) -> Agent {
        let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
        Agent::spawn(&self.certificates, (HERE, 8091).into(), HERE.into(), &arguments).unwrap()
    }

    /// What a server says that refuses these arguments. It leaves no socket behind.
    async fn server_refuses(&self, arguments: &[&str]) -> String {
        let Server { program, frontend, .. } = self.server(Entrance::Unix, arguments);
        let said = program.refused(LIMIT).await.unwrap();
        let Frontend::Unix(socket) = frontend else { unreachable!() };
        assert!(!socket.exists(), "{} is left behind", socket.display());
        said
    }

    /// What an agent says that refuses these arguments.
    async fn agent_refuses(&self, arguments: &[&str]) -> String {
        self.agent(arguments).program.refused(LIMIT).await.unwrap()
    }
}

/// The one problem that the settings have, without what the reference would say and the count.
#[track_caller]
fn one_problem(said: &str) -> &str {
    let (head, problem) = said.split_once("\n1 problem:\n").unwrap_or_else(|| panic!("{said}"));
    assert!(head.starts_with("Error: failed to validate ") && head.contains(" options with "), "{said}");
    problem.trim()
}

/// The last line, behind `Error: `; log lines may come before it.
#[track_caller]
fn error(said: &str) -> &str {
    let last = said.trim_end().lines().last().unwrap_or_default();
    last.strip_prefix("Error: ").unwrap_or_else(|| panic!("{said}"))
}

#[tokio::test]
async fn the_version_names_commit_and_protocol() {
    for program in ["proxy-server", "proxy-agent"] {
        let mut started = Program::start(program, &beside_this(program).unwrap(), vec!["--version".into()]).unwrap();
        assert!(started.ended(LIMIT).await.unwrap().success());
        let said = started.log();
        let rest = said.strip_prefix(&format!("{program} {} (commit ", env!("CARGO_PKG_VERSION"))).unwrap();
        let (commit, rest) = rest.split_once(", ").unwrap();
        assert!(!commit.is_empty());
        assert_eq!(rest, "protocol konnectivity-quic/1)\n");
    }
}

#[tokio::test]
async fn an_unknown_mode_is_refused() {
    let stage = Stage::new();
    let said = stage.server_refuses(&["--mode=socks"]).await;
    let expected =
        "mode = \"socks\" (flag): mode must be set to either 'grpc' or 'http-connect' not \"socks\"; set --mode=grpc";
    assert_eq!(one_problem(&said), expected);
}

#[tokio::test]
async fn leases_need_a_kubernetes_api_that_is_known() {
    let stage = Stage::new();
    let words = "--kubeconfig is not set and this is not a pod";
    let said = stage.server_refuses(&["--enable-lease-controller"]).await;
    assert!(said.contains(words), "{said}");
    let said = stage.agent_refuses(&["--count-server-leases"]).await;
    assert!(said.contains(words), "{said}");
    let said = stage.server_refuses(&["--lease-label="]).await;
    assert!(one_problem(&said).contains("lease-label = \"\" (flag): empty string provided"), "{said}");
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    let server = Program::start("proxy-server", &beside_this("proxy-server").unwrap(), Vec::new()).unwrap();
    let said = server.refused(LIMIT).await.unwrap();
    for problem in ["4 problems:", "server-cert", "server-ca-cert", "cluster-cert", "cluster-ca-cert"] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    let agent = Program::start("proxy-agent", &beside_this("proxy-agent").unwrap(), Vec::new()).unwrap();
    let said = agent.refused(LIMIT).await.unwrap();
    let expected = "ca-cert (not set): ca cert must be set so that the agent knows whose servers to trust; set --ca-cert to a file";
    assert_eq!(one_problem(&said), expected);
}

#[tokio::test]
async fn unknown_keys_of_the_file_are_named_with_their_lines() {
    let stage = Stage::new();
    let path = stage.path().join("bad.toml");
    std::fs::write(&path, "sync-intervall = \"1s\"\nlog_level = \"info\"\n[quic]\nidle-timout = \"1s\"\n").unwrap();
    let config = format!("--config={}", path.display());
    let path = path.display();
    for (said, program) in [
        (stage.server_refuses(&[&config]).await, "proxy-server"),
        (stage.agent_refuses(&[&config]).await, "proxy-agent"),
    ] {
        assert!(said.contains("\n3 problems:\n"), "{said}");
        for expected in [
            format!(
                "sync-intervall ({path} line 1): no setting has this name; remove it, or correct its name; {program} --help lists the settings"
            ),
            format!("log_level ({path} line 2): no setting has this name; write log-level"),
            format!(
                "quic.idle-timout ({path} line 4): no setting has this name; remove it, or correct its name; {program} --help lists the settings"
            ),
        ] {
            assert!(said.contains(&expected), "{expected}\n{said}");
        }
    }
}

#[tokio::test]
async fn a_file_of_settings_works_and_flags_go_over_it() {
    let stage = Stage::new();
    let path = stage.path().join("good.toml");
    std::fs::write(&path, "agent-id = \"from-file\"\nagent-identifiers = \"host=from-file\"\n").unwrap();
    let pair = Pair::start(Options::unix().agent([format!("--config={}", path.display())])).await.unwrap();
    // The pair names its agents by a flag.
    assert_eq!(pair.server.connections().await.unwrap()[0]["peer"], "agent-1 #1");
    let settings = pair.agents[0].program.logged(&["settings in effect"], LIMIT).await.unwrap();
    assert!(
        settings.contains("agent-identifiers=host=from-file") && settings.contains("agent-id=agent-1 "),
        "{settings}"
    );
    assert!(!settings.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn missing_and_unreadable_files_are_named() {
    let stage = Stage::new();
    let missing = stage.file("missing.crt");
    let folder = stage.path().display().to_string();
    let problem = |setting: &str, value: &str, called: &str| {
        let reason = if value == folder {
            "cannot read the file: is a directory; name the file in it".to_owned()
        } else {
            format!(
                "error checking {called} {value}, got stat {value}: no such file or directory; \
                 correct the path, or put the file there"
            )
        };
        format!("{setting} = {value:?} (flag): {reason}")
    };
    for value in [&missing, &folder] {
        for (setting, called) in [
            ("cluster-cert", "cluster cert"),
            ("cluster-key", "cluster key"),
            ("cluster-ca-cert", "cluster CA cert"),
            ("endpoint-key-file", "endpoint key file"),
        ] {
            let said = stage.server_refuses(&[&format!("--{setting}={value}")]).await;
            assert_eq!(one_problem(&said), problem(setting, value, called));
        }
        for (setting, called) in
            [("ca-cert", "agent CA cert"), ("agent-cert", "agent cert"), ("agent-key", "agent key")]
        {
            let said = stage.agent_refuses(&[&format!("--{setting}={value}")]).await;
            assert_eq!(one_problem(&said), problem(setting, value, called));
        }
        for (setting, called) in
            [("server-cert", "server cert"), ("server-key", "server key"), ("server-ca-cert", "server CA cert")]
        {
            let server = stage.server(Entrance::MutualTls, &[&format!("--{setting}={value}")]);
            let said = server.program.refused(LIMIT).await.unwrap();
            assert_eq!(one_problem(&said), problem(setting, value, called));
        }
    }
}

#[tokio::test]
async fn a_file_of_another_user_is_named() {
    /// The user that owns nothing.
    const NOBODY: u32 = 65_534;
    let stage = Stage::new();
    let key = stage.certificates.file("agent.key");
    let arguments = [
        format!("--ca-cert={}", stage.file("ca.crt")),
        format!("--agent-cert={}", stage.file("agent.crt")),
        format!("--agent-key={}", key.display()),
    ];
    let program = beside_this("proxy-agent").unwrap();
    let agent = if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Root may read everything, so the agent is somebody else; its program must be where he can reach it.
        let copy = copy_for_all(&program, stage.path());
        Program::start_as("proxy-agent", NOBODY, &copy, arguments.to_vec()).unwrap()
    } else {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o000)).unwrap();
        Program::start("proxy-agent", &program, arguments.to_vec()).unwrap()
    };
    let said = agent.refused(LIMIT).await.unwrap();
    let expected = format!(
        "agent-key = \"{}\" (flag): cannot read the file: Permission denied (os error 13); \
         make it readable by the user that this program runs as",
        key.display()
    );
    assert_eq!(one_problem(&said), expected);
}

/// A link would do, were it not for the folders above the program.
fn copy_for_all(program: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("program");
    std::fs::copy(program, &copy).unwrap();
    for path in [folder, &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    copy
}

#[tokio::test]
async fn ports_in_use_are_named_with_their_setting() {
    let stage = Stage::new();
    let [number] = ports::free();
    let _taken = TcpListener::bind((HERE, number)).unwrap();
    let expected = |setting: &str| {
        format!(
            "cannot listen on 127.0.0.1:{number} for --{setting}; stop the program that has port {number} \
             (`ss -lntup` shows it), or set --{setting} to a free port: Address already in use (os error 98)"
        )
    };
    for setting in ["health-port", "admin-port"] {
        let said = stage.server_refuses(&[&format!("--{setting}={number}")]).await;
        assert_eq!(error(&said), expected(setting));
    }
    for setting in ["health-server-port", "admin-server-port"] {
        let said = stage.agent_refuses(&[&format!("--{setting}={number}")]).await;
        assert_eq!(error(&said), expected(setting));
    }
    let server = stage.server(Entrance::MutualTls, &[&format!("--server-port={number}")]);
    let said = server.program.refused(LIMIT).await.unwrap();
    assert_eq!(error(&said), expected("server-port"));
}

#[tokio::test]
async fn the_udp_port_in_use_is_named() {
    let stage = Stage::new();
    let [number] = ports::free();
    let _taken = UdpSocket::bind((HERE, number)).unwrap();
    let said = stage.server_refuses(&[&format!("--agent-port={number}")]).await;
    let expected = format!(
        "--agent-port: cannot bind UDP 127.0.0.1:{number}; another process uses the port: stop it or choose another \
         port: Address already in use (os error 98)"
    );
    assert_eq!(error(&said), expected);
}

#[tokio::test]
async fn paths_where_no_socket_can_be_are_refused() {
    let stage = Stage::new();
    let folder = stage.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let file = stage.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let not_a_socket = "something that is not a socket has this path; choose another path, or remove it yourself";
    let missing = stage.path().join("missing");
    let long = stage.path().join("x".repeat(120));
    let too_long =
        format!("the path has {} bytes; a socket's has 107 at most; choose a shorter one", long.as_os_str().len());
    let no_folder = format!("the folder {} is not there; make it, or choose another path", missing.display());
    for (path, problem) in
        [(&folder, not_a_socket), (&file, not_a_socket), (&missing.join("socket"), &no_folder), (&long, &too_long)]
    {
        let said = stage.server_refuses(&[&format!("--uds-name={}", path.display())]).await;
        assert_eq!(one_problem(&said), format!("uds-name = \"{}\" (flag): {problem}", path.display()));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(folder.is_dir());
}

#[tokio::test]
async fn the_socket_of_a_killed_server_is_replaced_if_asked_for() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    let Frontend::Unix(socket) = pair.server.frontend.clone() else { unreachable!() };
    pair.server.program.kill();
    assert!(socket.exists(), "kill -9 leaves the socket behind");

    let uds = format!("--uds-name={}", socket.display());
    let stage = Stage::new();
    let said = stage.server_refuses(&[&uds, "--delete-existing-uds-file=false"]).await;
    let expected = format!(
        "uds-name = \"{}\" (flag): a socket is there already; stop the server that has it and remove it, \
         or set --delete-existing-uds-file=true",
        socket.display()
    );
    assert_eq!(one_problem(&said), expected);

    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o770);
    pair.client().unwrap().connect().await.unwrap();

    pair.server.program.signal(Signal::SIGTERM).unwrap();
    assert!(pair.server.program.ended(LIMIT).await.unwrap().success());
    assert!(!socket.exists(), "a stopped server takes its socket with it");
}

#[tokio::test]
async fn a_refusing_server_leaves_the_socket_of_another_alone() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let Frontend::Unix(socket) = pair.server.frontend.clone() else { unreachable!() };
    let stage = Stage::new();
    let taken = pair.server.health.port();
    // Refused for the port, which is bound after the frontend.
    let server = stage.server(
        Entrance::Unix,
        &[&format!("--health-port={taken}"), &format!("--uds-name={}", stage.path().join("own.sock").display())],
    );
    server.program.refused(LIMIT).await.unwrap();
    assert!(!stage.path().join("own.sock").exists());
    // And the other way round: the other's socket is in use, and must survive a server that may not delete it.
    let uds = format!("--uds-name={}", socket.display());
    stage.server_refuses(&[&uds, "--delete-existing-uds-file=false"]).await;
    pair.client().unwrap().connect().await.unwrap();
}

#[tokio::test]
async fn agent_ids_and_identifiers_with_odd_characters() {
    let stage = Stage::new();
    let said = stage.agent_refuses(&["--agent-id=n\u{fc}rnberg"]).await;
    let expected = "agent-id = \"nürnberg\" (flag): id has 'ü' at byte 1; only printable ASCII (0x20 to 0x7E) is allowed; \
                    set it to the node's name, for instance";
    assert_eq!(one_problem(&said), expected);
    let said = stage.agent_refuses(&["--agent-id=a\tb"]).await;
    assert!(one_problem(&said).contains("id has '\\t' at byte 1;"), "{said}");
    let said = stage.agent_refuses(&[&format!("--agent-id={}", "x".repeat(257))]).await;
    assert!(one_problem(&said).contains("id has 257 bytes; the limit is 256"), "{said}");
    for (query, words) in [
        (
            "host=%",
            "agent address is invalid: invalid URL escape \"%\"; set it to host, ipv4, ipv6, cidr and default-route",
        ),
        ("hots=a", "agent address is invalid: unknown address type: hots"),
        ("host=a;b", "agent address is invalid: invalid semicolon separator in query"),
    ] {
        let said = stage.agent_refuses(&[&format!("--agent-identifiers={query}")]).await;
        assert!(one_problem(&said).contains(words), "{said}");
    }
    // What is printable goes through as it is.
    let pair = Pair::start(Options::unix().agents([&["--agent-id= a%20 &=\"\\ "], &[]])).await.unwrap();
    let peers = pair.server.connections().await.unwrap();
    assert!(peers.iter().any(|connection| connection["peer"] == " a%20 &=\"\\  #1"), "{peers:?}");
}

#[tokio::test]
async fn an_agent_port_without_authentication_must_be_asked_for() {
    let stage = Stage::new();
    let said = stage.server_refuses(&["--cluster-ca-cert="]).await;
    let expected = "cluster-ca-cert = \"\" (flag): nothing says which agents may connect, and an agent can answer dials for \
                    any target; set --cluster-ca-cert to the certificate authorities of the agents, or --agent-namespace for \
                    their tokens, or, for tests, --allow-unauthenticated-agents";
    assert_eq!(one_problem(&said), expected);
    let said = stage.server_refuses(&["--allow-unauthenticated-agents"]).await;
    let expected = "allow-unauthenticated-agents = \"true\" (flag): contradicts cluster-ca-cert, by which only agents with a \
                    certificate may connect; leave one of them out";
    assert_eq!(one_problem(&said), expected);
    // Asked for, it lets an agent in that has no certificate.
    let options = Options::unix().server(["--cluster-ca-cert=", "--allow-unauthenticated-agents"]);
    let pair = Pair::start(options.agent(["--agent-cert=", "--agent-key="])).await.unwrap();
    assert_eq!(pair.server.connections().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_outlives_a_pair() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let ids = [pair.server.program.id(), pair.agents[0].program.id()];
    assert!(ids.iter().all(|id| Path::new(&format!("/proc/{id}")).exists()));
    drop(pair);
    assert!(ids.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()));
    // No child of this test is left as a zombie either.
    let children = Command::new("ps").args(["-o", "pid=", "-p", &format!("{},{}", ids[0], ids[1])]).output().unwrap();
    assert!(children.stdout.is_empty());
}
