//! Agents with tokens: who is let in and who is told why not, over QUIC and gRPC, of both makes; what a server that is
//! away, slow or odd does to them; and what becomes of tokens that are renewed, or are not.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use konnectivity_interop::{
    api_server::{ApiServer, CREDENTIAL, Fault, User, failure},
    certificates::{Authority, Folder, Leaf},
    ends::{LIMIT, Target, echo, has_metric, metric, within},
    pair::{Agent, Options, Pair, Server, program::Program, raw, reference::ReferenceAgent, until},
    peer::Entrance,
};
use konnectivity_transport::wire::message::{self as wire, ControlBody};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const AUDIENCE: &str = "system:konnectivity-server";
const ACCOUNT: &str = "system:serviceaccount:kube-system:konnectivity-agent";
const CARRIERS: [&str; 2] = ["quic", "grpc"];

/// Long enough for a file to be read again, twice.
const RENEWED_WITHIN: Duration = Duration::from_secs(25);

/// An API server, and a token in a file.
struct Stage {
    api: ApiServer,
    folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let api = ApiServer::start(&certificates, folder.path()).await.unwrap();
        let stage = Self { api, folder };
        stage.api.knows("good", agent());
        stage.write("good");
        stage
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// As Kubernetes does it: nobody sees half a file.
    fn write(&self, token: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, self.token_file()).unwrap();
    }

    /// What a server needs to ask for tokens, and for nothing else.
    fn of_server(&self) -> Vec<String> {
        let kubeconfig = format!("--kubeconfig={}", self.api.kubeconfig().display());
        [
            "--cluster-ca-cert=",
            "--agent-namespace=kube-system",
            "--agent-service-account=konnectivity-agent",
            &kubeconfig,
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("--authentication-audience={AUDIENCE}")])
        .collect()
    }

    /// What an agent needs to show a token, and nothing else.
    fn of_agent(&self, carrier: &str) -> Vec<String> {
        vec![
            "--agent-cert=".to_owned(),
            "--agent-key=".to_owned(),
            format!("--service-account-token-path={}", self.token_file().display()),
            format!("--transport={carrier}"),
            "--sync-interval-cap=1s".to_owned(),
        ]
    }

    /// A server that asks for tokens, without an agent.
    async fn alone<S: Into<String>>(&self, more: impl IntoIterator<Item = S>) -> Pair {
        Pair::start(Options::unix().server(self.of_server()).server(more).agents([])).await.unwrap()
    }

    /// The same with an agent.
    async fn pair(&self, carrier: &str, more: &[&str]) -> Pair {
        let options = Options::unix().server(self.of_server()).server(more.iter().copied());
        Pair::start(options.agent(self.of_agent(carrier))).await.unwrap()
    }

    /// An agent that need not succeed.
    async fn agent(&self, pair: &Pair, carrier: &str, more: &[&str]) -> Agent {
        let more = self.of_agent(carrier).into_iter().chain(more.iter().map(|&text| text.to_owned()));
        let server = pair.server.agents;
        Agent::start(&pair.certificates, server, server.ip(), &more.collect::<Vec<_>>()).await.unwrap()
    }
}

fn agent() -> User {
    User { username: ACCOUNT.to_owned(), audience: AUDIENCE.to_owned(), node: None }
}

fn bound_to(node: &str) -> User {
    User { node: Some(node.to_owned()), ..agent() }
}

/// A JWT that ends in so many seconds, as far as anybody can tell without its key.
fn jwt(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let payload = format!("{{\"exp\":{}}}", i64::try_from(now).unwrap() + seconds);
    format!("e30.{}.c2ln", base64_url(payload.as_bytes()))
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let count = chunk.len() + 1;
        (0..count).map(move |place| char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63])).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

async fn logged(program: &Program, words: &[&str]) -> String {
    program.logged(words, LIMIT).await.unwrap()
}

async fn reaches(pair: &Pair, target: &Target) {
    let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
    echo(&mut dial, b"hello").await;
}

/// The reply to a dial that finds no agent.
async fn no_agent(pair: &Pair, target: &Target) {
    until("no agent serves", LIMIT, async || pair.dial(&target.address.to_string()).await.err().map(drop)).await;
}

async fn agents(pair: &Pair, count: usize) {
    until("so many agents", LIMIT, async || (pair.server.connections().await.unwrap().len() == count).then_some(()))
        .await;
}

/// It says good-bye, so that the server need not find out.
async fn leaves(mut agent: Agent) {
    agent.program.signal(Signal::SIGTERM).unwrap();
    agent.program.ended(LIMIT).await.unwrap();
}

async fn authentications(pair: &Pair, carrier: &str, result: &str) -> f64 {
    let name = "konnectivity_network_proxy_server_agent_authentications_total";
    metric(pair.server.health, &format!("{name}{{carrier=\"{carrier}\",result=\"{result}\"}}")).await
}

#[tokio::test]
async fn a_good_token_lets_an_agent_in_without_the_white_space_around_it() {
    let target = Target::echo();
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        stage.api.knows("s3cret", agent());
        stage.write(" \ts3cret\r\n\n");
        let pair = stage.pair(carrier, &[]).await;
        reaches(&pair, &target).await;
        assert_eq!(authentications(&pair, carrier, "accepted").await, 1.0);
        logged(&pair.server.program, &["agent connected", ACCOUNT]).await;
        let asked = &stage.api.asked()[0];
        assert_eq!((asked.verb, asked.path.as_str()), ("create", "/apis/authentication.k8s.io/v1/tokenreviews"));
        assert_eq!(asked.body["spec"]["token"], "s3cret");
        assert_eq!(asked.body["spec"]["audiences"], serde_json::json!([AUDIENCE]));
        assert!(asked.user_agent.starts_with("konnectivity-quic-proxy-server/"), "{asked:?}");
        for program in [&pair.server.program, &pair.agents[0].program] {
            assert!(!program.log().contains("s3cret"), "no log shows a token");
        }
    }
}

/// An agent learns why, goes on trying, and is let in when its token has become a good one.
#[tokio::test]
async fn every_other_token_is_refused_in_words_that_the_agent_logs() {
    let target = Target::echo();
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        let pair = stage.alone(["--backend-dial-timeout=5s"]).await;
        let user = |username: &str| User { username: username.to_owned(), ..agent() };
        stage.api.knows("of-default", user("system:serviceaccount:default:konnectivity-agent"));
        stage.api.knows("of-another", user("system:serviceaccount:kube-system:default"));
        stage.api.knows("of-a-person", user("jane"));
        stage.api.knows("of-a-node", user("system:node:a:b"));
        stage.api.knows("for-the-api", User { audience: "api".to_owned(), ..agent() });
        stage.write("unknown");
        let agent = stage.agent(&pair, carrier, &[]).await;
        for (token, words) in [
            ("unknown".to_owned(), "lookup failed: invalid bearer token"),
            (jwt(-100), "lookup failed: invalid bearer token"),
            ("of-default".to_owned(), "incoming request from \"default\" namespace. Expected \"kube-system\""),
            (
                "of-another".to_owned(),
                "incoming request from \"default\" service account. Expected \"konnectivity-agent\"",
            ),
            ("of-a-person".to_owned(), "lookup failed: unexpected username format"),
            ("of-a-node".to_owned(), "lookup failed: username returned is not a service account"),
            ("for-the-api".to_owned(), "is invalid for the target audiences"),
        ] {
            stage.write(&token);
            let reviews = stage.api.reviews_of(&token);
            until("the token is shown", LIMIT, async || (stage.api.reviews_of(&token) > reviews).then_some(())).await;
            for program in [&agent.program, &pair.server.program] {
                let escaped = words.replace('"', "\\\"");
                until("both ends log why", LIMIT, async || {
                    let log = program.log();
                    (log.contains(words) || log.contains(&escaped)).then_some(())
                })
                .await;
            }
            assert!(stage.api.reviews_of(&token) > 0);
        }
        logged(&agent.program, &["did not accept this agent", "Failed to validate authentication token, err:"]).await;
        assert!(authentications(&pair, carrier, "bad_token").await >= 7.0);
        no_agent(&pair, &target).await;
        stage.write("good");
        agents(&pair, 1).await;
        reaches(&pair, &target).await;
    }
}

#[tokio::test]
async fn an_agent_without_a_token_is_told_so() {
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        let pair = stage.alone([] as [&str; 0]).await;
        let agent = stage.agent(&pair, carrier, &["--service-account-token-path="]).await;
        logged(&agent.program, &["Authentication context was not found in metadata"]).await;
        assert!(authentications(&pair, carrier, "no_token").await >= 1.0);
        assert!(stage.api.asked().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_holds_no_token_is_named_and_waited_for() {
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        let pair = stage.alone([] as [&str; 0]).await;
        stage.write("");
        let agent = stage.agent(&pair, carrier, &[]).await;
        let path = stage.token_file().display().to_string();
        logged(&agent.program, &[&path, "--service-account-token-path", "is empty"]).await;
        stage.write(vec![b'a'; 1_000_000]);
        logged(&agent.program, &[&path, "more than 16384 bytes"]).await;
        stage.write(b"a\xff\x00");
        logged(&agent.program, &[&path, "holds no token"]).await;
        std::fs::remove_file(stage.token_file()).unwrap();
        logged(&agent.program, &[&path, "No such file"]).await;
        assert!(stage.api.asked().is_empty(), "nothing of that was shown to anybody");
        stage.write("good");
        agents(&pair, 1).await;
    }
}

/// Whatever the API does: those that are in stay, those that come are told that it is not their fault, and get in later.
#[tokio::test]
async fn an_api_that_is_away_or_odd_costs_no_agent_that_is_in() {
    let target = Target::echo();
    let forbidden = failure(403, "Forbidden", "tokenreviews.authentication.k8s.io is forbidden");
    let broken = failure(500, "InternalError", "etcd is away");
    for (carrier, fault, words) in [
        ("quic", Fault::HangsUp, &["cannot be reached"][..]),
        ("grpc", Fault::HangsUp, &["cannot be reached"]),
        ("quic", Fault::Says(403, forbidden), &["create tokenreviews.authentication.k8s.io", "grant it"]),
        ("grpc", Fault::Says(500, broken), &["HTTP 500 InternalError", "etcd is away"]),
        ("quic", Fault::Says(502, "<html>oops".to_owned()), &["HTTP 502", "<html>oops"]),
        ("grpc", Fault::Says(201, "garbage with a token".to_owned()), &["cannot be understood"]),
        ("quic", Fault::Says(201, "{}".to_owned()), &["cannot be understood"]),
    ] {
        let stage = Stage::new().await;
        let pair = stage.pair(carrier, &[]).await;
        let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
        stage.api.fail_all(Some(fault.clone()));
        stage.api.knows("another", agent());
        stage.write("another");
        let newcomer = stage.agent(&pair, carrier, &["--agent-id=newcomer"]).await;
        let all = [&["cannot review tokens now"], words].concat();
        logged(&newcomer.program, &all).await;
        logged(&pair.server.program, &all[1..]).await;
        assert!(authentications(&pair, carrier, "unavailable").await >= 1.0);
        assert!(!pair.server.program.log().contains("garbage with a token"), "what may hold a token is not logged");
        echo(&mut dial, b"still here").await;
        reaches(&pair, &target).await;
        agents(&pair, 1).await;
        stage.api.fail_all(None);
        agents(&pair, 2).await;
        echo(&mut dial, b"still here").await;
    }
}

#[tokio::test]
async fn an_api_that_takes_ten_seconds_is_waited_for() {
    let stage = Stage::new().await;
    let pair = stage.alone([] as [&str; 0]).await;
    stage.api.fail_all(Some(Fault::Slow(Duration::from_secs(10))));
    let agent = stage.agent(&pair, "quic", &[]).await;
    logged(&agent.program, &["cannot review tokens now", "no answer yet after 7s"]).await;
    agents(&pair, 1).await;
    assert_eq!(stage.api.reviews_of("good"), 1, "who asks again gets the answer to the question of before");
}

/// Its token and its node take the API longer than an agent waits, each of them.
#[tokio::test]
async fn a_slow_api_keeps_no_agent_out_that_claims_its_node() {
    let stage = Stage::new().await;
    stage.api.knows("good", bound_to("node-1"));
    stage.api.has_node("node-1", &["127.0.0.1"]);
    let pair = stage.alone(["--agent-identifier-policy=own-node"]).await;
    stage.api.fail_all(Some(Fault::Slow(Duration::from_secs(10))));
    let agent = stage.agent(&pair, "quic", &["--agent-identifiers=ipv4=127.0.0.1"]).await;
    logged(&agent.program, &["cannot look at the agent's node now", "no answer yet after 7s"]).await;
    agents(&pair, 1).await;
    let nodes = stage.api.asked().iter().filter(|asked| asked.resource == "nodes").count();
    assert_eq!((nodes, stage.api.reviews_of("good")), (1, 1));
}

#[tokio::test]
async fn an_api_that_is_away_at_the_start_is_no_reason_not_to_start() {
    let stage = Stage::new().await;
    stage.api.fail_all(Some(Fault::HangsUp));
    let pair = stage.alone([] as [&str; 0]).await;
    let agent = stage.agent(&pair, "quic", &[]).await;
    logged(&agent.program, &["cannot review tokens now"]).await;
    stage.api.fail_all(None);
    agents(&pair, 1).await;
}

#[tokio::test]
async fn a_renewed_token_is_sent_on_the_open_connection_and_no_dial_is_lost() {
    let target = Target::echo();
    let stage = Stage::new().await;
    let first = jwt(16);
    stage.api.knows(&first, agent());
    stage.write(&first);
    let pair = stage.pair("quic", &[]).await;
    let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
    let second = jwt(3600);
    stage.api.knows(&second, agent());
    stage.write(format!("{second}\n"));
    // Dials go on all the while, well beyond the end of the first token.
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut renewed = false;
    while tokio::time::Instant::now() < end {
        reaches(&pair, &target).await;
        echo(&mut dial, b"still here").await;
        if !renewed && stage.api.reviews_of(&second) > 0 {
            renewed = true;
            stage.api.forgets(&first);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(stage.api.reviews_of(&second), 1);
    assert_eq!(stage.api.reviews_of(&first), 1, "an old token is not looked at again");
    logged(&pair.server.program, &["the agent has sent a new token"]).await;
    let connections = pair.server.connections().await.unwrap();
    assert!(connections[0]["peer"].as_str().unwrap().ends_with("#1"), "it is the same connection: {connections:?}");
}

/// A token of another account on the connection of this one changes nothing, nor does one that cannot be reviewed yet.
#[tokio::test]
async fn a_bad_new_token_keeps_the_old_one() {
    let target = Target::echo();
    let stage = Stage::new().await;
    let first = jwt(3600);
    stage.api.knows(&first, bound_to("node-1"));
    stage.write(&first);
    let pair = stage.pair("quic", &[]).await;
    stage.api.knows("of-another-node", bound_to("node-2"));
    stage.write("of-another-node");
    let words = ["new token is not accepted", "on node", "node-2"];
    pair.server.program.logged(&words, RENEWED_WITHIN).await.unwrap();
    reaches(&pair, &target).await;
    stage.api.fail_all(Some(Fault::HangsUp));
    let second = jwt(7200);
    stage.api.knows(&second, bound_to("node-1"));
    stage.write(&second);
    pair.server.program.logged(&["stays until its new token can be reviewed"], RENEWED_WITHIN).await.unwrap();
    reaches(&pair, &target).await;
    stage.api.fail_all(None);
    pair.server.program.logged(&["the agent has sent a new token"], RENEWED_WITHIN).await.unwrap();
    agents(&pair, 1).await;
}

#[tokio::test]
async fn an_agent_whose_token_has_expired_is_drained_and_told_why() {
    let target = Target::echo();
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        let token = jwt(4);
        stage.api.knows(&token, agent());
        stage.write(&token);
        let pair = stage.pair(carrier, &["--drain-expired-tokens=all"]).await;
        let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
        stage.api.forgets(&token);
        logged(&pair.server.program, &["draining an agent"]).await;
        let expired = "konnectivity_network_proxy_server_agent_tokens_expired_total";
        has_metric(pair.server.health, &format!("{expired}{{carrier=\"{carrier}\"}}"), 1.0).await;
        // What runs goes on, and nothing new begins.
        no_agent(&pair, &target).await;
        echo(&mut dial, b"still here").await;
        agents(&pair, 0).await;
        drop(dial);
        logged(&pair.agents[0].program, &["token has expired", "invalid bearer token"]).await;
        stage.write("good");
        agents(&pair, 1).await;
        reaches(&pair, &target).await;
    }
}

#[tokio::test]
async fn a_token_that_is_withdrawn_drains_an_agent_over_quic() {
    a_withdrawn_token_drains_its_agent("quic").await;
}

/// The reference's way is not to look: but whoever has stolen a token would only have to come over gRPC.
#[tokio::test]
async fn a_token_that_is_withdrawn_drains_an_agent_over_grpc() {
    a_withdrawn_token_drains_its_agent("grpc").await;
}

async fn a_withdrawn_token_drains_its_agent(carrier: &str) {
    let target = Target::echo();
    let stage = Stage::new().await;
    let token = jwt(3600);
    stage.api.knows(&token, agent());
    stage.write(&token);
    let pair = stage.pair(carrier, &["--token-review-interval=1s"]).await;
    let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
    let asked_again = async |more: usize| {
        let wanted = stage.api.reviews_of(&token) + more;
        until("it is reviewed again", LIMIT, async || (stage.api.reviews_of(&token) >= wanted).then_some(())).await;
    };
    // An API that is away says nothing, however often; one that does not know the token for a moment is asked again.
    stage.api.fail_all(Some(Fault::Says(500, failure(500, "InternalError", "etcd is away"))));
    asked_again(4).await;
    stage.api.forgets(&token);
    stage.api.fail_all(None);
    asked_again(1).await;
    stage.api.knows(&token, agent());
    asked_again(1).await;
    agents(&pair, 1).await;
    reaches(&pair, &target).await;
    assert!(!pair.server.program.log().contains("draining an agent"));

    stage.api.forgets(&token);
    logged(&pair.server.program, &["draining an agent", "was withdrawn before its end"]).await;
    let withdrawn = "konnectivity_network_proxy_server_agent_tokens_withdrawn_total";
    has_metric(pair.server.health, &format!("{withdrawn}{{carrier=\"{carrier}\"}}"), 1.0).await;
    no_agent(&pair, &target).await;
    echo(&mut dial, b"still here").await;
    drop(dial);
    logged(&pair.agents[0].program, &["was withdrawn before its end", "invalid bearer token"]).await;
    // It is let in with another one.
    stage.write("good");
    agents(&pair, 1).await;
}

/// Each would be a question to the API, which has others to answer, and nothing of it holds up a look at the one of before.
#[tokio::test]
async fn a_flood_of_new_tokens_is_looked_at_now_and_then() {
    let stage = Stage::new().await;
    let pair = stage.alone(["--token-review-interval=1s"]).await;
    let mut peer = raw::agent(pair.server.agents, &pair.certificates).await.unwrap();
    let hello = wire::Hello { agent_id: "a".to_owned(), token: "good".to_owned(), ..wire::Hello::default() };
    peer.say(ControlBody::Hello(hello)).await.unwrap();
    agents(&pair, 1).await;
    stage.api.forgets("good");
    let begun = tokio::time::Instant::now();
    for number in 0_u64.. {
        // One of them is no token at all.
        let token = if number % 2 == 0 { String::new() } else { format!("token-{number}") };
        if peer.say(ControlBody::Token(wire::Token { token })).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "it is drained all the same");
    }
    let log = pair.server.program.log();
    assert!(log.contains("was withdrawn before its end"), "{log}");
    let seconds = begun.elapsed().as_secs();
    let (warned, asked) = (log.matches("new token is not accepted").count() as u64, stage.api.asked().len() as u64);
    assert!(warned <= seconds / 5 + 2, "{warned} in {seconds}s");
    assert!(asked <= seconds / 5 + 6, "{asked} in {seconds}s");
}

#[tokio::test]
async fn an_expired_token_is_minded_only_where_that_was_asked_for() {
    let target = Target::echo();
    for (carrier, more) in [("grpc", &[][..]), ("quic", &["--drain-expired-tokens=none"])] {
        let stage = Stage::new().await;
        let token = jwt(2);
        stage.api.knows(&token, agent());
        stage.write(&token);
        let pair = stage.pair(carrier, more).await;
        stage.api.forgets(&token);
        tokio::time::sleep(Duration::from_secs(5)).await;
        reaches(&pair, &target).await;
        assert_eq!(stage.api.reviews_of(&token), 1, "{carrier}");
    }
}

/// The end that a token names only says when to ask: the API decides, and while it is away nobody is drained.
#[tokio::test]
async fn the_api_decides_when_a_token_has_expired() {
    let target = Target::echo();
    let stage = Stage::new().await;
    let token = jwt(3);
    stage.api.knows(&token, agent());
    stage.write(&token);
    let pair = stage.pair("quic", &[]).await;
    stage.api.fail_all(Some(Fault::HangsUp));
    logged(&pair.server.program, &["cannot review agents' tokens", "those that are here stay"]).await;
    reaches(&pair, &target).await;
    stage.api.fail_all(None);
    // Its clock is behind ours.
    until("it is asked again", LIMIT, async || (stage.api.reviews_of(&token) >= 2).then_some(())).await;
    reaches(&pair, &target).await;
    stage.api.forgets(&token);
    logged(&pair.server.program, &["draining an agent"]).await;
}

#[tokio::test]
async fn with_an_authority_and_tokens_agents_need_both() {
    let stage = Stage::new().await;
    let mut arguments = stage.of_server();
    arguments.retain(|argument| argument != "--cluster-ca-cert=");
    let pair = Pair::start(Options::unix().server(arguments).agents([])).await.unwrap();
    let [cert, key] = ["crt", "key"].map(|end| pair.certificates.file(&format!("agent.{end}")).display().to_string());
    let certificate = [format!("--agent-cert={cert}"), format!("--agent-key={key}")];
    let [cert, key] = [certificate[0].as_str(), certificate[1].as_str()];
    for carrier in CARRIERS {
        let only_token = stage.agent(&pair, carrier, &[]).await;
        logged(&only_token.program, &["cannot connect to a server", "ertificate"]).await;
        let only_certificate = stage.agent(&pair, carrier, &[cert, key, "--service-account-token-path="]).await;
        logged(&only_certificate.program, &["Authentication context was not found in metadata"]).await;
        assert!(pair.server.connections().await.unwrap().is_empty());
        let both = stage.agent(&pair, carrier, &[cert, key]).await;
        agents(&pair, 1).await;
        leaves(both).await;
        agents(&pair, 0).await;
    }
}

#[tokio::test]
async fn agents_of_the_reference_show_their_tokens() {
    let target = Target::echo();
    let stage = Stage::new().await;
    let pair = stage.alone([] as [&str; 0]).await;
    let path = format!("--service-account-token-path={}", stage.token_file().display());
    let agent = ReferenceAgent::join(&pair, "agent-1", &[&path, "--agent-cert=", "--agent-key="]).await.unwrap();
    reaches(&pair, &target).await;
    assert_eq!(stage.api.reviews_of("good"), 1);
    assert_eq!(authentications(&pair, "grpc", "accepted").await, 1.0);
    // It takes its token along when it connects anew.
    stage.api.forgets("good");
    drop(agent);
    agents(&pair, 0).await;
    stage.write("unknown");
    let more = [path.as_str(), "--agent-cert=", "--agent-key="];
    let refused = ReferenceAgent::join(&pair, "agent-2", &more);
    assert!(tokio::time::timeout(Duration::from_secs(3), refused).await.is_err(), "it is not let in");
    logged(&pair.server.program, &["an agent was not accepted", "invalid bearer token"]).await;
}

/// Two attempts within seconds, over both ways, are one question.
#[tokio::test]
async fn reviews_are_remembered_for_seconds() {
    let stage = Stage::new().await;
    let pair = stage.pair("quic", &[]).await;
    let another = stage.agent(&pair, "grpc", &["--agent-id=agent-2"]).await;
    agents(&pair, 2).await;
    assert_eq!(stage.api.reviews_of("good"), 1);
    has_metric(pair.server.health, "konnectivity_network_proxy_server_token_reviews_total{result=\"cached\"}", 1.0)
        .await;
    drop(another);
}

#[tokio::test]
async fn under_the_rule_an_agent_claims_its_own_node_only() {
    let target = Target::echo();
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        stage.api.knows("good", bound_to("node-1"));
        stage.api.has_node("node-1", &["127.0.0.1", "node-1.example"]);
        let pair = stage.alone(["--agent-identifier-policy=own-node", "--proxy-strategies=destHost"]).await;
        for (claim, words) in [
            ("host=node-2", &["must not claim host", "node-2", "127.0.0.1, node-1.example"][..]),
            ("ipv4=127.0.0.1&ipv4=10.0.0.8", &["must not claim ipv4", "10.0.0.8"]),
            ("default-route=true", &["must not claim default-route", "--agent-identifier-exceptions=default-route"]),
            ("cidr=10.0.0.0/8", &["must not claim cidr", "--agent-identifier-exceptions=cidr"]),
        ] {
            let agent = stage.agent(&pair, carrier, &[&format!("--agent-identifiers={claim}")]).await;
            logged(&agent.program, words).await;
            logged(&pair.server.program, words).await;
        }
        assert!(authentications(&pair, carrier, "bad_claim").await >= 4.0);
        assert!(pair.server.connections().await.unwrap().is_empty());
        let own = "--agent-identifiers=ipv4=127.0.0.1&host=node-1";
        let _agent = stage.agent(&pair, carrier, &[own]).await;
        agents(&pair, 1).await;
        reaches(&pair, &target).await;
    }
}

/// Without tokens, a certificate says which node it is; the API is asked for nothing but that node.
#[tokio::test]
async fn a_certificate_may_say_the_node() {
    for carrier in CARRIERS {
        let stage = Stage::new().await;
        stage.api.has_node("node-1", &["10.0.0.7"]);
        let authority = Authority::new("agents").unwrap();
        let folder = stage.folder.path();
        let (ca, _) = authority.identity().write(folder, "agents").unwrap();
        let (cert, key) = authority.issue(&Leaf::client("system:node:node-1")).unwrap().write(folder, "node").unwrap();
        let server = [
            format!("--cluster-ca-cert={}", ca.display()),
            format!("--kubeconfig={}", stage.api.kubeconfig().display()),
            "--agent-identifier-policy=own-node".to_owned(),
        ];
        let pair = Pair::start(Options::unix().server(server).agents([])).await.unwrap();
        let certificate = [format!("--agent-cert={}", cert.display()), format!("--agent-key={}", key.display())];
        let with = async |claim: &str| {
            let claim = format!("--agent-identifiers={claim}");
            let more = [certificate[0].as_str(), &certificate[1], "--service-account-token-path=", &claim];
            stage.agent(&pair, carrier, &more).await
        };
        let comes_and_goes = async |agent: Agent| {
            agents(&pair, 1).await;
            leaves(agent).await;
            agents(&pair, 0).await;
        };
        // Its own name needs no API, so that an API that is away keeps nobody out.
        stage.api.fail_all(Some(Fault::HangsUp));
        comes_and_goes(with("host=node-1").await).await;
        let later = with("ipv4=10.0.0.7").await;
        logged(&later.program, &["cannot look at the agent's node now"]).await;
        stage.api.fail_all(None);
        comes_and_goes(later).await;
        let refused = with("host=node-2").await;
        logged(&refused.program, &["must not claim host", "node-2", "10.0.0.7"]).await;
        drop(refused);
        comes_and_goes(with("ipv4=10.0.0.7").await).await;
        let nodes = stage.api.asked().iter().filter(|asked| asked.resource == "nodes").count();
        assert!(nodes > 0 && nodes == stage.api.asked().len());
    }
}

#[tokio::test]
async fn credentials_may_come_from_a_plug_in_and_are_had_anew_when_they_are_refused() {
    let stage = Stage::new().await;
    let answer = stage.folder.path().join("credential.json");
    let give = |token: &str| {
        let credential = serde_json::json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token},
        });
        std::fs::write(&answer, credential.to_string()).unwrap();
    };
    give("old");
    let plug_in = format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, args: [\"{}\"]}}}}",
        answer.display()
    );
    let kubeconfig = std::fs::read_to_string(stage.api.kubeconfig()).unwrap();
    let kubeconfig = kubeconfig.replace(&format!("{{token: {CREDENTIAL}}}"), &plug_in);
    assert!(kubeconfig.contains("exec"));
    std::fs::write(stage.api.kubeconfig(), kubeconfig).unwrap();
    let pair = stage.alone([] as [&str; 0]).await;
    let agent = stage.agent(&pair, "quic", &[]).await;
    let file = stage.api.kubeconfig().to_str().unwrap();
    logged(&agent.program, &["does not accept the credentials of kubeconfig", file, "renew them"]).await;
    give(CREDENTIAL);
    agents(&pair, 1).await;
}

#[tokio::test]
async fn a_server_that_cannot_know_the_api_does_not_start() {
    let stage = Stage::new().await;
    let refused = async |arguments: Vec<String>| {
        let folder = TempDir::new().unwrap();
        let certificates = Folder::write(folder.path(), &[]).unwrap();
        let host = std::net::Ipv4Addr::LOCALHOST.into();
        let server = Server::spawn(&certificates, folder.path(), Entrance::Unix, host, &arguments).unwrap();
        server.program.refused(LIMIT).await.unwrap()
    };
    let broken = stage.folder.path().join("broken");
    std::fs::write(&broken, "{").unwrap();
    let with = |kubeconfig: &str| [stage.of_server(), vec![format!("--kubeconfig={kubeconfig}")]].concat();
    let said = refused(with(broken.to_str().unwrap())).await;
    assert!(said.contains(broken.to_str().unwrap()) && said.contains("--kubeconfig"), "{said}");
    let said = refused(with("/nowhere/kubeconfig")).await;
    assert!(said.contains("/nowhere/kubeconfig: no such file"), "{said}");
    let said = refused(with("")).await;
    assert!(said.contains("this is not a pod") && said.contains("set --kubeconfig"), "{said}");
}
