//! Certificates, keys and authorities that change on disk under running programs: they take effect at both ends and at every
//! port, no dial is lost, and what cannot be used changes nothing.
//!
//! `KONNECTIVITY_ROTATION_SECONDS=60` makes the first test take as long.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use konnectivity_interop::{
    certificates::{Authority, Folder, LOCAL_NAMES, Leaf},
    ends::{LIMIT, Target, echo, has_metric, metric, read_pattern, within, write_pattern},
    load::path::{Path, connector},
    pair::{
        Agent, Options, Pair,
        mount::{Rounds, agent_arguments, certificate, server_arguments, shown_over_quic, shown_over_tcp},
        program::Program,
        until,
    },
    peer::Frontend,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "konnectivity_network_proxy_server_certificate_";
const AGENT: &str = "konnectivity_network_proxy_agent_certificate_";

/// The settings of the server that name certificates, and those of the agent.
const SERVER_SETTINGS: [&str; 4] = ["cluster-cert", "cluster-ca-cert", "server-cert", "server-ca-cert"];
const AGENT_SETTINGS: [&str; 2] = ["agent-cert", "ca-cert"];

/// How often everything is replaced in the first test, and for how long.
const PACE: Duration = Duration::from_secs(2);
const SECONDS: u64 = 8;

/// What is carried by each dial of bulk.
const BULK: usize = 1_000_000;

fn reloads(prefix: &str, setting: &str, result: &str) -> String {
    format!("{prefix}reloads_total{{result=\"{result}\",setting=\"{setting}\"}}")
}

fn refused(prefix: &str, setting: &str) -> String {
    format!("{prefix}files_refused{{setting=\"{setting}\"}}")
}

/// Waits until changes were used, or refused, so often.
async fn counted(health: SocketAddr, prefix: &str, settings: &[&str], result: &str, times: usize) {
    for setting in settings {
        has_metric(health, &reloads(prefix, setting, result), times as f64).await;
    }
}

/// How often a program has logged a line with all of these words.
fn lines(program: &Program, words: &[&str]) -> usize {
    program.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn frontend(pair: &Pair) -> SocketAddr {
    match &pair.server.frontend {
        Frontend::MutualTls(address) => *address,
        Frontend::Unix(path) => panic!("{} is not TCP", path.display()),
    }
}

/// All three ports of the server show the certificate of this folder to whoever connects now.
async fn shown_everywhere(pair: &Pair, folder: &Folder) {
    let expected = certificate(folder, "server.crt").unwrap();
    let http = connector(folder, &[]).unwrap();
    assert!(shown_over_tcp(frontend(pair), &http).await.unwrap() == expected, "the frontend shows an old one");
    let http2 = connector(folder, &[b"h2"]).unwrap();
    assert!(shown_over_tcp(pair.server.agents, &http2).await.unwrap() == expected, "TCP for agents shows an old one");
    assert!(shown_over_quic(pair.server.agents, folder).await.unwrap() == expected, "UDP shows an old one");
}

/// Dials of every kind until they are told to end. A dial that fails panics.
struct Load {
    tasks: JoinSet<()>,
    ended: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Load {
    async fn start(pair: &Pair, folder: &Folder, target: &Target) -> Self {
        let mut load = Self { tasks: JoinSet::new(), ended: Arc::default(), stop: CancellationToken::new() };
        let path = || Path::through(&pair.server.frontend, folder).unwrap();
        // Old dials: they were there before anything changed.
        for number in 0..8 {
            let (mut dial, stop) = (path().dial(target.address).await.unwrap(), load.stop.clone());
            load.tasks.spawn(async move {
                while !stop.is_cancelled() {
                    echo(&mut dial, format!("old {number}").as_bytes()).await;
                    sleep(Duration::from_millis(10)).await;
                }
            });
        }
        for bytes in [10, 10, BULK, BULK] {
            let (target, stop, ended) = (target.address, load.stop.clone(), load.ended.clone());
            let (frontend, folder) = (pair.server.frontend.clone(), folder.clone());
            load.tasks.spawn(async move {
                while !stop.is_cancelled() {
                    // With the client's certificate of this moment.
                    let path = client_of(&frontend, &folder);
                    let dial = path.dial(target).await.unwrap();
                    let (mut read, mut write) = tokio::io::split(dial);
                    let both = async { tokio::join!(write_pattern(&mut write, bytes), read_pattern(&mut read, bytes)) };
                    let (written, (came, end)) = within("bytes both ways", both).await;
                    assert_eq!((written, came), (bytes, bytes), "{end:?}");
                    ended.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        load
    }

    /// Ends all, none of which has failed, and returns how many dials there were.
    async fn stop(mut self) -> usize {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.ended.load(Ordering::Relaxed)
    }
}

/// A client with the files of this moment, all of one round.
fn client_of(frontend: &Frontend, folder: &Folder) -> Path {
    // Swapped while they were read.
    (0..10).find_map(|_| Path::through(frontend, folder).ok()).expect("certificates that fit")
}

/// QUIC and gRPC agents that connect anew all the time; everything is replaced every two seconds, as a kubelet replaces it.
#[tokio::test]
async fn no_dial_is_lost_while_everything_is_replaced_again_and_again() {
    let seconds = std::env::var("KONNECTIVITY_ROTATION_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let place = TempDir::new().unwrap();
    let mut rounds = Rounds::new(&place.path().join("mount")).unwrap();
    let folder = rounds.folder();
    let secret = place.path().join("endpoint-key");
    fs::write(&secret, [7; 32]).unwrap();
    let keys = format!("--endpoint-key-file={}", secret.display());
    let anew = ["--sync-forever=true", "--sync-interval=200ms", "--sync-interval-cap=500ms"];
    let anew = anew.into_iter().chain(["--quic-keep-alive-interval=500ms"]);
    let options = Options::mutual_tls().server(server_arguments(&folder)).server([keys]);
    let options = options.agent(agent_arguments(&folder)).agent(anew);
    let mut pair = Pair::start(options.agents([&["--transport=quic"], &["--transport=grpc"]])).await.unwrap();
    let target = Target::echo();
    let load = Load::start(&pair, &folder, &target).await;

    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end || rounds.replaced < 3 {
        let next = Instant::now() + PACE;
        rounds.advance().unwrap();
        counted(pair.server.health, SERVER, &SERVER_SETTINGS, "used", rounds.replaced).await;
        for agent in &pair.agents {
            counted(agent.health, AGENT, &AGENT_SETTINGS, "used", rounds.replaced).await;
        }
        shown_everywhere(&pair, &folder).await;
        sleep_until(next).await;
    }
    let dials = load.stop().await;
    assert!(dials > rounds.replaced, "{dials} dials in {} rounds", rounds.replaced);
    // Nobody trusts what was there at first, and all have connected anew since.
    for agent in &pair.agents {
        let carried = metric(agent.health, "konnectivity_network_proxy_agent_dial_duration_seconds_count").await;
        assert!(carried > 0.0, "an agent has carried nothing");
        assert_eq!(lines(&agent.program, &["cannot connect to a server"]), 0, "{}", agent.program.log());
        counted(agent.health, AGENT, &AGENT_SETTINGS, "refused", 0).await;
    }
    counted(pair.server.health, SERVER, &SERVER_SETTINGS, "refused", 0).await;

    // With a secret that stays, agents notice the end of a server with other keys than at first at once, not after 30 s.
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    pair.agents[0].program.logged(&["disconnected from a server"], LIMIT / 2).await.unwrap();
    pair.ready().await.unwrap();
    let mut dial = client_of(&pair.server.frontend, &folder).dial(target.address).await.unwrap();
    echo(&mut dial, b"hello").await;
}

/// A file that breaks, in one way.
struct Break {
    file: &'static str,
    how: How,
    /// What the log says besides the file's path.
    says: &'static str,
}

enum How {
    Text(String),
    Bytes(Vec<u8>),
    Remove,
    Folder,
    Unreadable,
}

impl Break {
    fn new(file: &'static str, how: How, says: &'static str) -> Self {
        Self { file, how, says }
    }

    /// Breaks the file; the result puts it back as it was.
    fn apply(&self, folder: &Folder) -> impl FnOnce() + use<> {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.file(self.file);
        let good = fs::read(&path).unwrap();
        match &self.how {
            How::Text(text) => fs::write(&path, text).unwrap(),
            How::Bytes(bytes) => fs::write(&path, bytes).unwrap(),
            How::Remove => fs::remove_file(&path).unwrap(),
            How::Folder => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
            How::Unreadable => fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap(),
        }
        move || {
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            }
            replace(&path, &good);
        }
    }
}

/// Puts a whole file in the place of another one.
fn replace(path: &FilePath, bytes: &[u8]) {
    let new = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

fn half(text: &str) -> String {
    text[..text.len() / 2].to_owned()
}

/// Every kind of broken file, one after the other, at the server, whose ports for agents and clients have the same files.
#[tokio::test]
async fn whatever_breaks_the_old_stays_in_use_and_the_file_is_named() {
    let pair = Pair::start(Options::mutual_tls()).await.unwrap();
    let (folder, server) = (&pair.certificates, &pair.server);
    let client = pair.client().unwrap();
    let target = Target::echo();
    let http = connector(folder, &[]).unwrap();
    let before = certificate(folder, "server.crt").unwrap();
    let other = Authority::new("another").unwrap().issue(&Leaf::server(LOCAL_NAMES)).unwrap();
    let expired = Authority::new("another").unwrap().issue(&Leaf::server(LOCAL_NAMES).expired()).unwrap();
    let text = |file| fs::read_to_string(folder.file(file)).unwrap();
    let mut breaks = vec![
        Break::new("server.crt", How::Text(half(&text("server.crt"))), "is not a valid PEM file"),
        Break::new("server.key", How::Text(half(&text("server.key"))), "is not a valid PEM file"),
        Break::new("server.key", How::Text(other.key.clone()), "cannot be used together"),
        Break::new("server.crt", How::Text(other.certificate.clone()), "cannot be used together"),
        Break::new("server.crt", How::Bytes(vec![0xff; 999]), "holds no certificate"),
        Break::new("server.key", How::Text(String::new()), "holds no private key"),
        Break::new("server.crt", How::Remove, "make it a readable file"),
        Break::new("ca.crt", How::Remove, "make it a readable file"),
        Break::new("ca.crt", How::Text(half(&text("ca.crt"))), "is not a valid PEM file"),
        Break::new("ca.crt", How::Folder, "make it a readable file"),
    ];
    // Root reads whatever there is.
    if !nix::unistd::geteuid().is_root() {
        breaks.push(Break::new("server.key", How::Unreadable, "make it readable by the user"));
    }
    let mut times = [0, 0];
    for (number, broken) in breaks.iter().enumerate() {
        let of_ca = usize::from(broken.file == "ca.crt");
        let settings = [["cluster-cert", "server-cert"], ["cluster-ca-cert", "server-ca-cert"]][of_ca];
        let put_back = broken.apply(folder);
        times[of_ca] += 1;
        counted(server.health, SERVER, &settings, "refused", times[of_ca]).await;
        for setting in settings {
            has_metric(server.health, &refused(SERVER, setting), 1.0).await;
            let path = folder.file(broken.file).display().to_string();
            let words = ["ERROR", "stays in use", &format!("--{setting}"), &path, broken.says];
            server.program.logged(&words, LIMIT).await.unwrap();
        }
        let mut dial = within("a dial", client.dial(&target.address.to_string())).await.unwrap();
        echo(&mut dial, b"hello").await;
        assert!(shown_over_tcp(frontend(&pair), &http).await.unwrap() == before, "break {number}");
        put_back();
        for setting in settings {
            has_metric(server.health, &refused(SERVER, setting), 0.0).await;
        }
    }
    // One line for each port and break, and one for each time that all was well again.
    assert_eq!(lines(&server.program, &["stays in use"]), 2 * breaks.len(), "{}", server.program.log());
    assert_eq!(lines(&server.program, &["are again on disk what is in use"]), 2 * breaks.len());
    counted(server.health, SERVER, &SERVER_SETTINGS, "used", 0).await;

    replace(&folder.file("server.crt"), expired.certificate.as_bytes());
    replace(&folder.file("server.key"), expired.key.as_bytes());
    server.program.logged(&["ERROR", "--server-cert", "server.crt has expired at ", "renew it"], LIMIT).await.unwrap();
    assert!(shown_over_tcp(frontend(&pair), &http).await.unwrap() == before);
}

/// The same at the agent, and how it comes back to files that are good.
#[tokio::test]
async fn an_agent_keeps_what_it_has_until_there_is_something_better() {
    let place = TempDir::new().unwrap();
    let (path, authority) = (place.path(), Authority::new("one").unwrap());
    let issue = |name: &str, leaf: &Leaf| authority.issue(leaf).unwrap().write(path, name).unwrap();
    let client = Leaf::client("agent");
    authority.identity().write(path, "ca").unwrap();
    issue("server", &Leaf::server(LOCAL_NAMES));
    issue("agent", &client);
    let folder = Folder::at(path);
    let anew = ["--sync-forever=true", "--sync-interval=100ms", "--sync-interval-cap=200ms"];
    let options = Options::unix().server(server_of(&folder)).agent(agent_arguments(&folder)).agent(anew);
    let pair = Pair::start(options).await.unwrap();
    let agent = &pair.agents[0];
    let other = authority.issue(&client).unwrap();
    let breaks = [
        Break::new("agent.key", How::Text(other.key.clone()), "cannot be used together"),
        Break::new("agent.crt", How::Text(String::new()), "holds no certificate"),
        Break::new("ca.crt", How::Remove, "make it a readable file"),
    ];
    let mut times = [0, 0];
    for broken in &breaks {
        let of_ca = usize::from(broken.file == "ca.crt");
        let setting = AGENT_SETTINGS[of_ca];
        let put_back = broken.apply(&folder);
        times[of_ca] += 1;
        counted(agent.health, AGENT, &[setting], "refused", times[of_ca]).await;
        let path = folder.file(broken.file).display().to_string();
        agent.program.logged(&["ERROR", "stays in use", &path, broken.says], LIMIT).await.unwrap();
        put_back();
        has_metric(agent.health, &refused(AGENT, setting), 0.0).await;
    }
    // A certificate that comes late, when its key has been refused already: both are used.
    fs::write(folder.file("agent.key"), &other.key).unwrap();
    counted(agent.health, AGENT, &["agent-cert"], "refused", 3).await;
    replace(&folder.file("agent.crt"), other.certificate.as_bytes());
    counted(agent.health, AGENT, &["agent-cert"], "used", 1).await;
    has_metric(agent.health, &refused(AGENT, "agent-cert"), 0.0).await;
    assert_eq!(lines(&agent.program, &["cannot connect to a server"]), 0, "{}", agent.program.log());
    let left = metric(agent.health, &format!("{AGENT}expiry_seconds{{setting=\"agent-cert\"}}")).await;
    let year = Duration::from_secs(365 * 24 * 60 * 60).as_secs_f64();
    assert!((year - 600.0..=year).contains(&left), "{left} s left");
}

/// The server's arguments for a frontend without TLS.
fn server_of(folder: &Folder) -> Vec<String> {
    server_arguments(folder).into_iter().filter(|argument| argument.starts_with("--cluster-")).collect()
}

/// Open connections outlive their authority; whoever comes later is refused, with or without an earlier session.
#[tokio::test]
async fn a_new_authority_counts_for_new_connections_only() {
    let anew = ["--sync-forever=true", "--sync-interval=100ms", "--sync-interval-cap=200ms"];
    let pair = Pair::start(Options::unix().agent(anew)).await.unwrap();
    let target = Target::echo();
    let mut old = pair.dial(&target.address.to_string()).await.unwrap();
    let (place, other) = (TempDir::new().unwrap(), Authority::new("another").unwrap());
    let old_ca = place.path().join("ca.crt");
    fs::copy(pair.certificates.file("ca.crt"), &old_ca).unwrap();
    replace(&pair.certificates.file("ca.crt"), other.identity().certificate.as_bytes());
    counted(pair.server.health, SERVER, &["cluster-ca-cert"], "used", 1).await;
    // The agent reads the same file. It tries again all the time, and comes no further with what it has learned before.
    pair.agents[0].program.logged(&["cannot connect to a server", "UnknownIssuer"], LIMIT).await.unwrap();
    echo(&mut old, b"still here").await;
    let mut new = pair.dial(&target.address.to_string()).await.unwrap();
    echo(&mut new, b"over the open connection").await;

    // An agent that knows nothing of all this trusts the server, and the server does not trust it.
    let here = pair.server.agents.ip();
    let own = [format!("--ca-cert={}", old_ca.display())];
    let stranger = Agent::start(&pair.certificates, pair.server.agents, here, &own).await.unwrap();
    let words = ["cannot connect to a server", "the peer does not accept this end's certificate"];
    stranger.program.logged(&words, LIMIT).await.unwrap();

    // A server's certificate and an agent's of the new authority mend it.
    for (name, leaf) in [("server", Leaf::server(LOCAL_NAMES)), ("agent", Leaf::client("agent"))] {
        let identity = other.issue(&leaf).unwrap();
        replace(&pair.certificates.file(&format!("{name}.crt")), identity.certificate.as_bytes());
        replace(&pair.certificates.file(&format!("{name}.key")), identity.key.as_bytes());
    }
    counted(pair.server.health, SERVER, &["cluster-cert"], "used", 1).await;
    counted(pair.agents[0].health, AGENT, &["agent-cert"], "used", 1).await;
    let newcomer = ["--agent-id=agent-2".to_owned()];
    let mut newcomer = Agent::start(&pair.certificates, pair.server.agents, here, &newcomer).await.unwrap();
    newcomer.ready().await.unwrap();
    echo(&mut old, b"still here").await;
}

/// The files are links to another folder, of which no event tells.
#[tokio::test]
async fn sighup_makes_both_programs_look_at_once_and_say_what_they_see() {
    let place = TempDir::new().unwrap();
    let links = place.path().join("links");
    fs::create_dir(&links).unwrap();
    let real = Folder::write(&place.path().join("real"), &[]).unwrap();
    for name in ["ca.crt", "server.crt", "server.key", "agent.crt", "agent.key"] {
        symlink(real.file(name), links.join(name)).unwrap();
    }
    let folder = Folder::at(&links);
    let options = Options::unix().server(server_of(&folder)).agent(agent_arguments(&folder));
    let pair = Pair::start(options).await.unwrap();
    let programs = [
        (&pair.server.program, pair.server.health, SERVER, "cluster-ca-cert"),
        (&pair.agents[0].program, pair.agents[0].health, AGENT, "ca-cert"),
    ];
    let more = Authority::new("one more").unwrap();
    let bundle = fs::read_to_string(real.file("ca.crt")).unwrap() + &more.identity().certificate;
    fs::write(real.file("ca.crt"), bundle).unwrap();
    for (program, health, prefix, setting) in programs {
        program.signal(Signal::SIGHUP).unwrap();
        counted(health, prefix, &[setting], "used", 1).await;
        program.logged(&["SIGHUP"], LIMIT).await.unwrap();
        program.logged(&["in use are those on disk", "expires="], LIMIT).await.unwrap();
    }
    fs::write(real.file("ca.crt"), "broken").unwrap();
    for (program, health, prefix, setting) in programs {
        program.signal(Signal::SIGHUP).unwrap();
        counted(health, prefix, &[setting], "refused", 1).await;
        assert_eq!(lines(program, &["stays in use"]), 1);
        program.signal(Signal::SIGHUP).unwrap();
        until("it says so again", LIMIT, async || (lines(program, &["stays in use"]) == 2).then_some(())).await;
        counted(health, prefix, &[setting], "refused", 1).await;
    }
    let target = Target::echo();
    let mut dial = pair.dial(&target.address.to_string()).await.unwrap();
    echo(&mut dial, b"hello").await;
}
