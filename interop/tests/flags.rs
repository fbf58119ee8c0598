//! Flags as the reference's programs take them: what is wrong with them is told in the same words, and klog's flags send
//! logs where klog would. The reference's programs are asked too, where `scripts/go-peers.sh` has built them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use konnectivity_interop::{
    certificates::Folder,
    ends::Target,
    pair::{Options, Pair, Server, program::beside_this},
    peer::Entrance,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);
const SERVER: &str = "proxy-server";
const AGENT: &str = "proxy-agent";

/// Program, arguments, and what the reference says of them on a line of its own behind `Error: `.
const REFUSED: &[(&str, &[&str], &str)] = &[
    (SERVER, &["--no-such"], "unknown flag: --no-such"),
    (SERVER, &["--agent_port=3"], "unknown flag: --agent_port"),
    (SERVER, &["--agent-port=1", "--no-such=1", "--agent-port=x"], "unknown flag: --no-such"),
    (SERVER, &["--help", "--no-such"], "unknown flag: --no-such"),
    (AGENT, &["-x"], "unknown shorthand flag: 'x' in -x"),
    (AGENT, &["-xyz=1"], "unknown shorthand flag: 'x' in -xyz=1"),
    (AGENT, &["-agent-id=a"], "unknown shorthand flag: 'a' in -agent-id=a"),
    (SERVER, &["-hx"], "unknown shorthand flag: 'x' in -x"),
    (SERVER, &["-\u{e9}"], "unknown shorthand flag: '\u{c3}' in -\u{e9}"),
    (SERVER, &["--=x"], "bad flag syntax: --=x"),
    (SERVER, &["---x"], "bad flag syntax: ---x"),
    (SERVER, &["--agent-port"], "flag needs an argument: --agent-port"),
    (AGENT, &["-v"], "flag needs an argument: 'v' in -v"),
    (
        SERVER,
        &["--agent-port", "x"],
        "invalid argument \"x\" for \"--agent-port\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
    ),
    (
        AGENT,
        &["--xfr-channel-size=9223372036854775808"],
        "invalid argument \"9223372036854775808\" for \"--xfr-channel-size\" flag: strconv.ParseInt: parsing \
         \"9223372036854775808\": value out of range",
    ),
    (
        SERVER,
        &["--enable-profiling=maybe"],
        "invalid argument \"maybe\" for \"--enable-profiling\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
    ),
    (
        AGENT,
        &["--sync-forever="],
        "invalid argument \"\" for \"--sync-forever\" flag: strconv.ParseBool: parsing \"\": invalid syntax",
    ),
    (
        SERVER,
        &["-h=x"],
        "invalid argument \"x\" for \"-h, --help\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
    ),
    (
        AGENT,
        &["--sync-interval=5"],
        "invalid argument \"5\" for \"--sync-interval\" flag: time: missing unit in duration \"5\"",
    ),
    (
        AGENT,
        &["--probe-interval=1d"],
        "invalid argument \"1d\" for \"--probe-interval\" flag: time: unknown unit \"d\" in duration \"1d\"",
    ),
    (
        SERVER,
        &["--keepalive-time="],
        "invalid argument \"\" for \"--keepalive-time\" flag: time: invalid duration \"\"",
    ),
    (
        SERVER,
        &["--graceful-shutdown-timeout=3000000h"],
        "invalid argument \"3000000h\" for \"--graceful-shutdown-timeout\" flag: time: invalid duration \"3000000h\"",
    ),
    (
        SERVER,
        &["--kubeconfig-qps=fast"],
        "invalid argument \"fast\" for \"--kubeconfig-qps\" flag: strconv.ParseFloat: parsing \"fast\": invalid syntax",
    ),
    (
        SERVER,
        &["--kubeconfig-qps=1e39"],
        "invalid argument \"1e39\" for \"--kubeconfig-qps\" flag: strconv.ParseFloat: parsing \"1e39\": value out of range",
    ),
    (
        SERVER,
        &["--cipher-suites=\"a"],
        "invalid argument \"\\\"a\" for \"--cipher-suites\" flag: parse error on line 1, column 3: extraneous or missing \" in \
         quoted-field",
    ),
    (
        AGENT,
        &["--alpn-proto=a\"b"],
        "invalid argument \"a\\\"b\" for \"--alpn-proto\" flag: parse error on line 1, column 2: bare \" in non-quoted-field",
    ),
    (AGENT, &["--v=x"], "invalid argument \"x\" for \"-v, --v\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
    (
        SERVER,
        &["-v0x5"],
        "invalid argument \"0x5\" for \"-v, --v\" flag: strconv.ParseInt: parsing \"0x5\": invalid syntax",
    ),
    (SERVER, &["--logtostderr=x"], "invalid argument \"x\" for \"--logtostderr\" flag: parse error"),
    (SERVER, &["--log-file-max-size=-1"], "invalid argument \"-1\" for \"--log-file-max-size\" flag: parse error"),
    (
        SERVER,
        &["--stderrthreshold=LOUD"],
        "invalid argument \"LOUD\" for \"--stderrthreshold\" flag: strconv.ParseInt: parsing \"LOUD\": invalid syntax",
    ),
    (
        SERVER,
        &["--vmodule=x"],
        "invalid argument \"x\" for \"--vmodule\" flag: syntax error: expect comma-separated list of filename=N",
    ),
    (
        AGENT,
        &["--log-backtrace-at=x"],
        "invalid argument \"x\" for \"--log-backtrace-at\" flag: syntax error: expect file.go:234",
    ),
    // What the values' own checks find; words in between and words behind two hyphens mean nothing.
    (
        SERVER,
        &["word", "-", "--mode=socks", "--", "--no-such"],
        "failed to validate server options with mode must be set to either 'grpc' or 'http-connect' not \"socks\"",
    ),
    (
        AGENT,
        &["--proxy-server-port=1", "--proxy-server-port", "0"],
        "failed to validate agent options with proxy server port 0 must be greater than 0",
    ),
];

/// Runs a program until its end.
fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    for variable in ["PROXY_SERVER_ID", "PROXY_AGENT_ID", "HTTPS_PROXY", "https_proxy"] {
        command.env_remove(variable);
    }
    command.args(arguments).output().unwrap()
}

/// What was said behind `Error: `, on the first line that has it.
fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "errors are for standard error");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines().find_map(|line| line.strip_prefix("Error: ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// The reference's program, if it was built.
fn of_reference(name: &str) -> Option<PathBuf> {
    let target = beside_this(name).unwrap().parent()?.parent()?.to_owned();
    Some(target.join("go").join(name)).filter(|program| program.is_file())
}

#[test]
fn what_is_wrong_is_told_in_the_words_of_the_reference() {
    for (name, arguments, message) in REFUSED {
        assert_eq!(error(&run(&beside_this(name).unwrap(), arguments)), *message, "{name} {arguments:?}");
        if let Some(reference) = of_reference(name) {
            assert_eq!(error(&run(&reference, arguments)), *message, "the reference's {name} {arguments:?}");
        }
    }
}

#[test]
fn the_usage_follows_a_wrong_flag_and_is_the_help() {
    for name in [SERVER, AGENT] {
        let program = beside_this(name).unwrap();
        let refused = String::from_utf8(run(&program, &["--no-such"]).stderr).unwrap();
        let lines: Vec<_> = refused.lines().collect();
        assert_eq!(lines[0], "Error: unknown flag: --no-such");
        assert_eq!(lines[1], format!("Usage: {name} [flags]"));
        assert_eq!(lines.last(), lines.first(), "the reason is told behind the long usage too");
        for flag in ["-h", "--help"] {
            let help = run(&program, &[flag]);
            assert!(help.status.success());
            assert!(help.stderr.is_empty(), "the help is for standard output");
            let help = String::from_utf8(help.stdout).unwrap();
            let usage = &help[help.find("Usage: ").unwrap()..];
            assert!(refused.contains(usage.trim_end()), "{help}");
            for flag in ["-h, --help", "-v, --v <LEVEL>", "--log-file-max-size", "--config", "--quic-idle-timeout"] {
                assert!(help.contains(flag), "{flag} is not in {help}");
            }
            assert!(!help.contains("--lease-label ") || name == SERVER, "hidden: {help}");
        }
    }
}

#[test]
fn a_deprecated_flag_warns_as_in_the_reference() {
    let programs = [beside_this(SERVER).ok(), of_reference(SERVER)];
    for program in programs.into_iter().flatten() {
        let output = run(&program, &["--warn-on-channel-limit", "-h"]);
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "Flag --warn-on-channel-limit has been deprecated, This behavior is now thread safe and always on. This flag will \
             be removed in a future release.\n",
            "{}",
            program.display()
        );
    }
}

/// Starts a pair whose server has these flags, dials once, ends it, and gives what the server has said and what is
/// in the file.
async fn logs(folder: &TempDir, flags: &[&str]) -> (String, String) {
    let path = folder.path().join("server.log");
    let file = format!("--log-file={}", path.display());
    let mut pair = Pair::start(Options::unix().server([&file]).server(flags.to_vec())).await.unwrap();
    let target = Target::echo();
    drop(pair.dial(&target.address.to_string()).await.unwrap());
    pair.server.program.signal(Signal::SIGTERM).unwrap();
    assert!(pair.server.program.ended(LIMIT).await.unwrap().success());
    (pair.server.program.log(), fs::read_to_string(&path).unwrap_or_default())
}

#[tokio::test]
async fn logs_go_where_klog_would_write_them() {
    let folder = TempDir::new().unwrap();
    let effective = "settings in effect";
    // As the reference's manifests have it: standard error wins, and that is told.
    let (said, written) = logs(&folder, &["--logtostderr=true", "--log-file-max-size=0"]).await;
    assert!(said.contains(effective) && written.is_empty(), "{said}");
    let notice =
        "logs go to standard error, as --logtostderr says; without effect then: --log-file, --log-file-max-size";
    assert_eq!(said.matches(notice).count(), 1, "{said}");
    // The file alone; the next process goes on with it.
    let (said, written) = logs(&folder, &["--logtostderr=false"]).await;
    assert!(written.contains(effective) && said.is_empty(), "{said}");
    let (said, more) = logs(&folder, &["--logtostderr=false", "--alsologtostderr"]).await;
    assert!(more.starts_with(&written) && said.contains(effective), "{said}");
    assert_eq!(more.matches(effective).count(), 2);
}

#[tokio::test]
async fn a_log_file_that_cannot_be_written_is_refused() {
    let folder = TempDir::new().unwrap();
    let certificates = Folder::write(folder.path(), &[]).unwrap();
    let missing = folder.path().join("missing").join("server.log").display().to_string();
    let flags = ["--logtostderr=false".to_owned(), format!("--log-file={missing}")];
    let server =
        Server::spawn(&certificates, folder.path(), Entrance::Unix, Ipv4Addr::LOCALHOST.into(), &flags).unwrap();
    let said = server.program.refused(LIMIT).await.unwrap();
    assert!(said.starts_with(&format!("Error: cannot open the log file {missing}; set --log-file")), "{said}");
}

#[tokio::test]
async fn verbosity_is_the_one_of_klog() {
    let folder = TempDir::new().unwrap();
    let has_debug = |text: &str| text.contains(" DEBUG ") && text.contains("dial ended");
    for (flags, expected) in [
        (&["--logtostderr=false"][..], false),
        (&["--logtostderr=false", "-v", "5"], true),
        (&["--logtostderr=false", "--v=5", "--log-level=info"], false),
    ] {
        let _ = fs::remove_file(folder.path().join("server.log"));
        let (_, written) = logs(&folder, flags).await;
        assert_eq!(has_debug(&written), expected, "{flags:?}: {written}");
    }
}
