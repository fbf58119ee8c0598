//! SIGTERM with dials open: they run on to their end, nobody waits for ever, and what is cut does not look finished.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use konnectivity_interop::ends::{Full, Target, read_pattern, write_pattern};
use konnectivity_interop::load::path::DialError;
use konnectivity_interop::pair::balancer::Balancer;
use konnectivity_interop::pair::client::{Client, reply_head};
use konnectivity_interop::pair::grpc::connection::Connection;
use konnectivity_interop::pair::grpc::door::Door;
use konnectivity_interop::pair::grpc::frame::code::NO_ERROR;
use konnectivity_interop::pair::grpc::tunnel::{Tunnel, answer, ask};
use konnectivity_interop::pair::open::Open;
use konnectivity_interop::pair::program::Program;
use konnectivity_interop::pair::{Agent, Options, Pair, Server, http, until};
use konnectivity_interop::peer::{Entrance, Frontend};
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// More than all the windows and buffers on the way can hold.
const BYTES: usize = 24 * 1024 * 1024;

async fn listener() -> TcpListener {
    TcpListener::bind((HERE, 0)).await.unwrap()
}

/// An open dial that has carried something.
async fn open(pair: &Pair) -> Open {
    let mut open = Open::dial(&pair.client().unwrap(), &listener().await).await.unwrap();
    open.exchange().await.unwrap();
    open
}

/// Longer than a draining program waits for dials that were under way: half a second.
const WHILE: Duration = Duration::from_millis(1500);

/// Uses a dial for a while.
async fn use_for_a_while(open: &mut Open) {
    let start = Instant::now();
    while start.elapsed() < WHILE {
        open.exchange().await.unwrap();
    }
}

/// Sends SIGTERM and waits until the program has taken it in.
async fn terminate(program: &Program) {
    program.signal(Signal::SIGTERM).unwrap();
    program.logged(&["signal received: draining"], LIMIT).await.unwrap();
}

/// Waits for an end with code 0.
async fn exits(program: &mut Program) {
    let status = program.ended(LIMIT).await.unwrap();
    assert_eq!(status, ExitStatus::from_raw(0), "{}", program.log());
    assert!(program.log().trim_end().ends_with("stopped"), "{}", program.log());
}

/// Reads to the end, which must be an error and not a clean one.
async fn cut(stream: &mut (impl AsyncRead + Unpin), who: &str) {
    let mut rest = Vec::new();
    let end = timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    assert!(matches!(end, Ok(Err(_))), "{who}: {end:?} after {} bytes", rest.len());
}

/// Carries `BYTES` each way through an open dial, half-closes both, and checks every byte. The client is slow to start:
/// the last bytes are on their way when the target has ended.
async fn carry_to_the_end(open: Open) {
    let (mut from_client, mut to_client) = tokio::io::split(open.client);
    let (mut from_target, mut to_target) = open.target.into_split();
    let upload = async {
        assert_eq!(write_pattern(&mut to_client, BYTES).await, BYTES);
        to_client.shutdown().await.unwrap();
    };
    let uploaded = async {
        let (read, end) = read_pattern(&mut from_target, usize::MAX).await;
        end.unwrap();
        assert_eq!(read, BYTES);
    };
    let download = async {
        assert_eq!(write_pattern(&mut to_target, BYTES).await, BYTES);
        to_target.shutdown().await.unwrap();
    };
    tokio::join!(upload, uploaded);
    let downloaded = async {
        let (read, end) = read_pattern(&mut from_client, usize::MAX).await;
        end.unwrap();
        assert_eq!(read, BYTES);
    };
    tokio::join!(download, downloaded);
}

#[tokio::test]
async fn a_draining_agent_gets_no_new_dials_and_its_open_ones_run_to_their_end() {
    let mut pair = Pair::start(Options::mutual_tls().agents([&[], &[]])).await.unwrap();
    let mut open = open(&pair).await;
    // Which one has it was decided by lot.
    if pair.agents[0].connections().await.unwrap()[0]["open_dials"] == 0 {
        pair.agents.swap(0, 1);
    }
    assert_eq!(pair.agents[0].connections().await.unwrap()[0]["open_dials"], 1);
    terminate(&pair.agents[0].program).await;
    until("the server knows that the agent drains", LIMIT, || async {
        pair.server.connections().await.unwrap().iter().any(|one| one["draining"] == true).then_some(())
    })
    .await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(self::open(&pair).await);
    }
    assert_eq!(pair.agents[0].connections().await.unwrap()[0]["open_dials"], 1);
    assert_eq!(pair.agents[1].connections().await.unwrap()[0]["open_dials"], 8);

    use_for_a_while(&mut open).await;
    carry_to_the_end(open).await;
    exits(&mut pair.agents[0].program).await;
    for other in &mut others {
        other.exchange().await.unwrap();
    }
    let words = ["agent disconnected", "the agent has stopped; its last dial has ended"];
    pair.server.program.logged(&words, LIMIT).await.unwrap();
}

#[tokio::test]
async fn bytes_of_a_target_that_has_ended_arrive_after_the_agent_was_told_to_stop() {
    for options in [Options::unix(), Options::mutual_tls()] {
        let mut pair = Pair::start(options.agent(["--log-level=debug"])).await.unwrap();
        let Open { mut client, target } = open(&pair).await;
        let (mut from_client, mut to_client) = target.into_split();
        // All that the way can hold; the client does not read.
        let written = timeout(Duration::from_secs(1), write_pattern(&mut to_client, BYTES)).await;
        assert!(written.is_err(), "the way must be full");
        terminate(&pair.agents[0].program).await;
        // How much it was is for the agent's record to tell: the writer was given up in the middle.
        to_client.shutdown().await.unwrap();
        // A slow client.
        tokio::time::sleep(WHILE).await;
        let (read, end) = read_pattern(&mut client, usize::MAX).await;
        end.unwrap();
        // The client's half is still open.
        client.write_all(b"thanks").await.unwrap();
        client.shutdown().await.unwrap();
        let mut thanks = Vec::new();
        from_client.read_to_end(&mut thanks).await.unwrap();
        assert_eq!(thanks, b"thanks");
        exits(&mut pair.agents[0].program).await;
        let ended = pair.agents[0].program.logged(&["dial ended"], LIMIT).await.unwrap();
        let bytes = format!("outcome=\"finished\" bytes_sent={} bytes_received=10 ", read + 4);
        assert!(ended.contains(&bytes), "expected {bytes}, got {ended}");
    }
}

#[tokio::test]
async fn an_idle_agent_stops_soon_and_says_good_bye() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    let told = Instant::now();
    pair.agents[0].program.signal(Signal::SIGINT).unwrap();
    exits(&mut pair.agents[0].program).await;
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    let words = ["agent disconnected", "a drain is complete, the last dial has ended"];
    pair.server.program.logged(&words, LIMIT).await.unwrap();
    assert!(
        matches!(pair.dial("127.0.0.1:9").await, Err(DialError::Refused(reply)) if reply.contains("No agent available"))
    );
}

/// As the reference's agent, which leaves its end to the second signal or to whoever kills it.
#[tokio::test]
async fn an_agent_that_is_not_to_exit_serves_on_until_the_second_signal() {
    // The time to drain is for agents that exit.
    let staying = ["--exit-after-drain=false", "--graceful-shutdown-timeout=0"];
    let mut pair = Pair::start(Options::mutual_tls().agent(staying)).await.unwrap();
    let mut early = open(&pair).await;
    let health = pair.agents[0].health;
    let ready = http::get(health, "/readyz").await.unwrap();
    terminate(&pair.agents[0].program).await;
    until("the server knows that the agent drains", LIMIT, || async {
        (pair.server.connections().await.unwrap()[0]["draining"] == true).then_some(())
    })
    .await;
    use_for_a_while(&mut early).await;
    open(&pair).await.exchange().await.unwrap();
    carry_to_the_end(early).await;
    // Longer than an agent that exits would stay without a dial.
    tokio::time::sleep(WHILE).await;
    let mut late = open(&pair).await;
    let still = http::get(health, "/readyz").await.unwrap();
    assert_eq!((still.status, still.body), (ready.status, ready.body));
    assert_eq!(http::get(health, "/healthz").await.unwrap().status, 200);

    let told = Instant::now();
    pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
    let status = pair.agents[0].program.ended(LIMIT).await.unwrap();
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert_eq!(status.code(), Some(0));
    cut(&mut late.client, "client").await;
    cut(&mut late.target, "target").await;
}

#[tokio::test]
async fn an_agent_that_is_not_to_exit_stays_without_a_server_and_looks_for_none() {
    let mut pair =
        Pair::start(Options::unix().agent(["--exit-after-drain=false", "--sync-interval=100ms"])).await.unwrap();
    terminate(&pair.agents[0].program).await;
    pair.server.program.signal(Signal::SIGTERM).unwrap();
    exits(&mut pair.server.program).await;
    pair.agents[0].program.logged(&["disconnected from a server"], LIMIT).await.unwrap();
    pair.server.program.start_again().unwrap();
    pair.server.serves().await.unwrap();
    // An agent that looks for servers would have found it ten times.
    tokio::time::sleep(WHILE).await;
    assert!(pair.server.connections().await.unwrap().is_empty());
    assert!(pair.agents[0].program.status().unwrap().is_none());
    pair.agents[0].program.signal(Signal::SIGINT).unwrap();
    exits(&mut pair.agents[0].program).await;
}

#[tokio::test]
async fn an_agent_without_a_server_stops_at_once() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    pair.server.program.kill();
    let mut agent = Agent::start(&pair.certificates, pair.server.agents, HERE, &[]).await.unwrap();
    agent.program.signal(Signal::SIGTERM).unwrap();
    exits(&mut agent.program).await;
}

#[tokio::test]
async fn a_draining_agent_still_serves_what_nobody_else_can() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    let keeps_it = open(&pair).await;
    terminate(&pair.agents[0].program).await;
    until("the server knows that the agent drains", LIMIT, || async {
        (pair.server.connections().await.unwrap()[0]["draining"] == true).then_some(())
    })
    .await;
    let late = open(&pair).await;
    drop(keeps_it);
    carry_to_the_end(late).await;
    exits(&mut pair.agents[0].program).await;
}

#[tokio::test]
async fn a_dial_that_was_under_way_when_the_agent_was_told_to_stop_is_served() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    let target = listener().await;
    let client = pair.client().unwrap();
    // Request and signal are both there when it wakes up.
    pair.agents[0].program.signal(Signal::SIGSTOP).unwrap();
    let dial = Open::dial(&client, &target);
    let wake = async {
        pending(&pair.server, 1).await;
        pair.agents[0].program.signal(Signal::SIGTERM).unwrap();
        pair.agents[0].program.signal(Signal::SIGCONT).unwrap();
    };
    let (open, ()) = tokio::join!(dial, wake);
    let mut open = open.unwrap();
    use_for_a_while(&mut open).await;
    carry_to_the_end(open).await;
    exits(&mut pair.agents[0].program).await;
}

/// Waits until so many dials are not answered.
async fn pending(server: &Server, dials: usize) {
    until("pending dials", LIMIT, || async {
        let metrics = http::get(server.health, "/metrics").await.unwrap().body;
        metrics.contains(&format!("pending_backend_dials {dials}\n")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_draining_server_takes_no_clients_and_its_open_dials_run_to_their_end() {
    for options in [Options::unix(), Options::mutual_tls()] {
        let mut pair = Pair::start(options).await.unwrap();
        let mut open = open(&pair).await;
        terminate(&pair.server.program).await;
        let client = pair.client().unwrap();
        until("the frontend is closed", LIMIT, || async { client.connect().await.err() }).await;
        if let Frontend::Unix(socket) = &pair.server.frontend {
            assert!(!socket.exists());
        }
        let ready = http::get(pair.server.health, "/readyz").await.unwrap();
        assert_eq!((ready.status, ready.body.as_str()), (500, "the server is draining"));
        assert_eq!(http::get(pair.server.health, "/healthz").await.unwrap().status, 200);
        pair.agents[0].program.logged(&["the server drains", "the server is stopping"], LIMIT).await.unwrap();
        use_for_a_while(&mut open).await;
        carry_to_the_end(open).await;
        exits(&mut pair.server.program).await;
        let words = ["disconnected from a server", "the server has stopped; its last dial has ended"];
        pair.agents[0].program.logged(&words, LIMIT).await.unwrap();
        // The agent waits for its return.
        pair.server.program.start_again().unwrap();
        pair.server.serves().await.unwrap();
        pair.ready().await.unwrap();
        self::open(&pair).await;
    }
}

/// As in a rolling update: the successor is there before the old one is gone.
#[tokio::test]
async fn the_agent_of_a_draining_server_finds_its_successor_while_its_dials_run() {
    let mut first = Pair::start(Options::unix().agents([])).await.unwrap();
    let more = ["--server-id=server-2".to_owned()];
    let second = Server::start(&first.certificates, first.folder.path(), Entrance::Unix, HERE, &more).await.unwrap();
    let balancer = Balancer::start(vec![first.server.agents, second.agents]).await.unwrap();
    let agent = Agent::start(&first.certificates, balancer.address(), HERE, &[]).await.unwrap();
    until("the agent is connected", LIMIT, || async { (agent.connections().await.unwrap().len() == 1).then_some(()) })
        .await;
    let target = listener().await;
    let mut open = Open::dial(&first.client().unwrap(), &target).await.unwrap();
    terminate(&first.server.program).await;
    until("the agent has both", LIMIT, || async { (agent.connections().await.unwrap().len() == 2).then_some(()) })
        .await;
    let client = Client::of(&second.frontend, &first.certificates).unwrap();
    let mut late = Open::dial(&client, &target).await.unwrap();
    late.exchange().await.unwrap();
    use_for_a_while(&mut open).await;
    carry_to_the_end(open).await;
    exits(&mut first.server.program).await;
    late.exchange().await.unwrap();
    let left = until("the old one is gone", LIMIT, || async {
        let left = agent.connections().await.unwrap();
        (left.len() == 1).then_some(left)
    })
    .await;
    assert_eq!(left[0]["peer"], "server-2");
    assert_eq!(balancer.given().len(), 2, "one server is enough");
}

#[tokio::test]
async fn a_draining_server_takes_no_new_agents() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let mut open = open(&pair).await;
    terminate(&pair.server.program).await;
    until("it drains", LIMIT, || async {
        (http::get(pair.server.health, "/readyz").await.unwrap().status == 500).then_some(())
    })
    .await;
    let late = Agent::spawn(&pair.certificates, pair.server.agents, HERE, &[]).unwrap();
    late.program.logged(&["cannot connect to a server", "refused by the peer"], LIMIT).await.unwrap();
    assert_eq!(pair.server.connections().await.unwrap().len(), 1);
    open.exchange().await.unwrap();
}

#[tokio::test]
async fn an_idle_server_stops_soon() {
    let mut pair = Pair::start(Options::mutual_tls()).await.unwrap();
    // A client that has not asked for anything is not waited for.
    let mut silent = pair.client().unwrap().connect().await.unwrap();
    let told = Instant::now();
    pair.server.program.signal(Signal::SIGINT).unwrap();
    exits(&mut pair.server.program).await;
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_pending_dial_is_waited_for() {
    let mut pair = Pair::start(Options::unix()).await.unwrap();
    let full = Full::new().await;
    let client = pair.client().unwrap();
    let mut dial = client.ask(&full.address.to_string()).await.unwrap();
    full.has_pending(1).await;
    terminate(&pair.server.program).await;
    let target = full.free().await;
    let (target, _) = timeout(LIMIT, target.accept()).await.unwrap().unwrap();
    assert!(reply_head(&mut dial).await.unwrap().starts_with("HTTP/1.1 200 "));
    carry_to_the_end(Open { client: dial, target }).await;
    exits(&mut pair.server.program).await;
}

#[tokio::test]
async fn the_server_s_deadline_cuts_dials_with_an_error() {
    let mut pair = Pair::start(Options::mutual_tls().server(["--graceful-shutdown-timeout=1s"])).await.unwrap();
    let full = Full::new().await;
    let client = pair.client().unwrap();
    let mut unanswered = client.ask(&full.address.to_string()).await.unwrap();
    let mut open = open(&pair).await;
    open.target.write_all(b"last words").await.unwrap();
    let told = Instant::now();
    terminate(&pair.server.program).await;
    let mut words = [0; 10];
    open.client.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words");
    cut(&mut open.client, "client").await;
    assert!(told.elapsed() >= Duration::from_secs(1), "{:?}", told.elapsed());
    cut(&mut open.target, "target").await;
    let mut reply = String::new();
    unanswered.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
    exits(&mut pair.server.program).await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    pair.server.program.logged(&["dial ended", "outcome=\"drain_deadline\""], LIMIT).await.unwrap();
    let words = ["disconnected from a server", "the server has stopped; its time to drain has passed"];
    pair.agents[0].program.logged(&words, LIMIT).await.unwrap();
    pair.agents[0].program.logged(&["dial ended", "the time limit of a drain has passed"], LIMIT).await.unwrap();
    // The agent lives on.
    assert!(pair.agents[0].program.status().unwrap().is_none());
}

#[tokio::test]
async fn the_agent_s_deadline_cuts_dials_with_an_error() {
    let mut pair = Pair::start(Options::mutual_tls().agent(["--graceful-shutdown-timeout=1s"])).await.unwrap();
    let mut open = open(&pair).await;
    open.client.write_all(b"last words").await.unwrap();
    open.client.flush().await.unwrap();
    let told = Instant::now();
    terminate(&pair.agents[0].program).await;
    let mut words = [0; 10];
    open.target.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words");
    cut(&mut open.target, "target").await;
    assert!(told.elapsed() >= Duration::from_secs(1), "{:?}", told.elapsed());
    cut(&mut open.client, "client").await;
    exits(&mut pair.agents[0].program).await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    pair.agents[0].program.logged(&["dial ended", "outcome=\"drain_deadline\""], LIMIT).await.unwrap();
    pair.server.program.logged(&["dial ended", "the time limit of a drain has passed"], LIMIT).await.unwrap();
    assert!(pair.server.program.status().unwrap().is_none());
}

#[tokio::test]
async fn a_draining_server_sends_its_grpc_clients_away_and_their_dials_run_to_their_end() {
    for options in [Options::unix(), Options::mutual_tls()] {
        let mut pair = Pair::start(options.grpc()).await.unwrap();
        let door = Door::of(&pair);
        let (busy, idle) = tokio::join!(Connection::open(&door), Connection::open(&door));
        let target = Target::echo();
        let mut tunnel = Tunnel::dial(&busy, target.address).await.unwrap();
        // A stream without a dial is not waited for.
        let undecided = busy.call().await;
        tunnel.echo(b"before").await;
        terminate(&pair.server.program).await;
        busy.until("it is told", |state| state.goaway.as_ref().is_some_and(|(code, _)| *code == NO_ERROR)).await;
        assert_eq!(idle.ended().await.map(|(code, _)| code), Some(NO_ERROR));
        assert!(door.open().await.is_err(), "nobody listens");
        let start = Instant::now();
        while start.elapsed() < WHILE {
            tunnel.echo(b"while it drains").await;
        }
        tunnel.echo(&vec![7; BYTES]).await;
        assert_eq!(tunnel.close().await, (Vec::new(), String::new()));
        exits(&mut pair.server.program).await;
        assert!(undecided.next().await.is_none());
    }
}

#[tokio::test]
async fn the_server_s_deadline_cuts_the_dials_of_grpc_clients_with_an_error() {
    let options = Options::unix().grpc().server(["--graceful-shutdown-timeout=1s", "--backend-dial-timeout=5m"]);
    let mut pair = Pair::start(options.agent(["--dial-timeout=5m"])).await.unwrap();
    let connection = Connection::open(&Door::of(&pair)).await;
    let full = Full::new().await;
    let unanswered = connection.call().await;
    let number = ask(&unanswered, full.address).await;
    full.has_pending(1).await;
    let listener = listener().await;
    let target = listener.local_addr().unwrap();
    let (tunnel, accepted) = tokio::join!(Tunnel::dial(&connection, target), listener.accept());
    let (mut tunnel, mut target) = (tunnel.unwrap(), accepted.unwrap().0);
    let told = Instant::now();
    terminate(&pair.server.program).await;
    target.write_all(b"last words").await.unwrap();
    let (words, error) = tunnel.rest().await;
    assert_eq!(words, b"last words");
    assert!(!error.is_empty(), "it must not look finished");
    assert!(told.elapsed() >= Duration::from_secs(1), "{:?}", told.elapsed());
    assert!(!answer(&unanswered, number).await.unwrap_err().is_empty());
    full.has_pending(0).await;
    cut(&mut target, "target").await;
    exits(&mut pair.server.program).await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
}

#[tokio::test]
async fn stalled_dials_do_not_hold_up_a_deadline() {
    let options = Options::mutual_tls().server(["--graceful-shutdown-timeout=1s"]);
    let mut pair = Pair::start(options.agent(["--graceful-shutdown-timeout=1s"])).await.unwrap();
    let mut open = open(&pair).await;
    // Both directions are full, and nobody reads.
    let fill = async { tokio::join!(write_pattern(&mut open.client, BYTES), write_pattern(&mut open.target, BYTES)) };
    assert!(timeout(Duration::from_secs(1), fill).await.is_err(), "the way must be full");
    let told = Instant::now();
    terminate(&pair.agents[0].program).await;
    exits(&mut pair.agents[0].program).await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    cut(&mut open.client, "client").await;
    cut(&mut open.target, "target").await;
    let told = Instant::now();
    terminate(&pair.server.program).await;
    exits(&mut pair.server.program).await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    for of_server in [true, false] {
        let mut pair = Pair::start(Options::mutual_tls()).await.unwrap();
        let mut open = open(&pair).await;
        let program = if of_server { &mut pair.server.program } else { &mut pair.agents[0].program };
        terminate(program).await;
        let told = Instant::now();
        program.signal(Signal::SIGTERM).unwrap();
        let status = program.ended(LIMIT).await.unwrap();
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        // The reference's codes.
        assert_eq!(status.code(), Some(i32::from(of_server)), "it ends by itself");
        program.logged(&["WARN", "second signal received: stopping at once"], LIMIT).await.unwrap();
        cut(&mut open.client, "client").await;
        cut(&mut open.target, "target").await;
    }
}

#[tokio::test]
async fn no_time_to_drain_means_now() {
    for of_server in [true, false] {
        let now = ["--graceful-shutdown-timeout=0"];
        let mut pair = Pair::start(Options::mutual_tls().server(now).agent(now)).await.unwrap();
        let mut open = open(&pair).await;
        let program = if of_server { &mut pair.server.program } else { &mut pair.agents[0].program };
        let told = Instant::now();
        terminate(program).await;
        exits(program).await;
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        cut(&mut open.client, "client").await;
        cut(&mut open.target, "target").await;
    }
}

#[tokio::test]
async fn one_of_two_servers_drains_and_the_other_is_not_touched() {
    let mut first = Pair::start(Options::unix().server(["--server-count=2"]).agents([])).await.unwrap();
    let more = ["--server-count=2", "--server-id=server-2"].map(str::to_owned);
    let second = Server::start(&first.certificates, first.folder.path(), Entrance::Unix, HERE, &more).await.unwrap();
    let balancer = Balancer::start(vec![first.server.agents, second.agents]).await.unwrap();
    let agent =
        Agent::start(&first.certificates, balancer.address(), HERE, &["--sync-interval=200ms".into()]).await.unwrap();
    until("the agent has both", LIMIT, || async { (agent.connections().await.unwrap().len() == 2).then_some(()) })
        .await;
    let target = listener().await;
    let mut of_first = Open::dial(&first.client().unwrap(), &target).await.unwrap();
    let client = Client::of(&second.frontend, &first.certificates).unwrap();
    let mut of_second = Open::dial(&client, &target).await.unwrap();
    terminate(&first.server.program).await;
    of_second.exchange().await.unwrap();
    of_first.exchange().await.unwrap();
    drop(of_first);
    exits(&mut first.server.program).await;
    of_second.exchange().await.unwrap();
    Open::dial(&client, &target).await.unwrap().exchange().await.unwrap();
    assert_eq!(second.connections().await.unwrap().len(), 1);
}
