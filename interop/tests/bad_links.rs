//! Links that are worse than any named one: a dial makes progress on them or ends with an error, in bounded time; neither
//! program takes much memory or time or panics; and once the link is good again, all is as it was.
//!
//! Skipped without root or `/dev/net/tun`. Each case has a link of its own, and they run side by side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use konnectivity_interop::ends::{pattern, resident};
use konnectivity_interop::link::conditions::{Conditions, Jitter, Loss, Queue};
use konnectivity_interop::pair::over_link::{Case, Options, OverLink, link, side_by_side};
use konnectivity_interop::peer::process::cpu_of;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// How long a link gets for a connection, a dial, an echo and a small transfer. Half of them would do with a quarter of it.
const PATIENCE: Duration = Duration::from_secs(40);
/// On a good link, and on a machine that may be busy.
const LIMIT: Duration = Duration::from_secs(30);
/// A page of text.
const TRANSFER: usize = 4 * 1024;

/// How long the programs are watched with nothing to do, and how much CPU time each may take meanwhile.
const WATCHED: Duration = Duration::from_secs(5);
const MAX_CPU: Duration = Duration::from_millis(500);
/// What each may hold; it starts with about a third of that.
const MAX_RESIDENT: usize = 64 * 1024 * 1024;

const MS: Duration = Duration::from_millis(1);

fn good() -> Conditions {
    Conditions { queue: Queue::Bytes(100_000), ..Conditions::clean(8_000_000, 20 * MS) }
}

fn loses_half() -> Conditions {
    Conditions { loss_after: Loss::Random(0.5), ..good() }
}

/// This much is the round trip.
fn takes(round_trip: Duration) -> Conditions {
    Conditions { delay: round_trip / 2, queue: Queue::Bytes(1_000_000), ..good() }
}

/// A modem of the nineties; the queue is worth ten seconds.
fn is_slow() -> Conditions {
    Conditions { rate: Some(9_600), delay: 100 * MS, queue: Queue::Bytes(12_000), ..good() }
}

/// Packets of 1,200 bytes over UDP and IPv4, and no longer ones.
fn is_narrow() -> Conditions {
    Conditions { mtu: 1228, ..good() }
}

fn duplicates() -> Conditions {
    Conditions { duplicates: 0.3, ..good() }
}

fn corrupts() -> Conditions {
    Conditions { corruption: 0.01, ..good() }
}

fn does_it_all() -> Conditions {
    let jitter = Jitter::Reordering(15 * MS);
    Conditions { duplicates: 0.3, corruption: 0.01, loss_after: Loss::Random(0.1), jitter, ..good() }
}

/// A link, and what is expected of it.
struct Bad {
    name: &'static str,
    conditions: Conditions,
    /// It is bad from the start; or else once the agent is connected.
    from_the_start: bool,
    /// So many certificates more in each chain.
    chain: usize,
    /// A dial must be through with everything within [`PATIENCE`].
    in_time: bool,
}

fn all_links() -> [Bad; 11] {
    let bad = |name, conditions, from_the_start, in_time| Bad { name, conditions, from_the_start, in_time, chain: 0 };
    [
        bad("50 % lost", loses_half(), true, false),
        bad("50 % lost, later", loses_half(), false, false),
        bad("2 s of round trip", takes(Duration::from_secs(2)), true, true),
        bad("4 s of round trip", takes(Duration::from_secs(4)), true, true),
        // What connecting takes is repeated sooner than it can get through, and fills the queue.
        bad("9.6 kbit/s", is_slow(), true, true),
        Bad { chain: 5, ..bad("9.6 kbit/s, long chains", is_slow(), true, true) },
        bad("9.6 kbit/s, later", is_slow(), false, true),
        bad("1,200 bytes", is_narrow(), true, true),
        bad("30 % twice", duplicates(), true, true),
        bad("1 % corrupted", corrupts(), true, true),
        bad("all of it", does_it_all(), true, true),
    ]
}

/// With an agent that is told to use QUIC, and both to send in this way.
fn cases(control: &'static str) -> impl Iterator<Item = Case> {
    all_links().into_iter().map(move |bad| {
        let name = format!("{} ({control})", bad.name);
        let control = format!("--quic-congestion-control={control}");
        let options = Options::default().both(&[&control]).agent(&["--transport=quic"]);
        Box::pin(bad_link(name, bad, options)) as Case
    })
}

/// The slowest, with an agent that is told nothing: over which transport it serves is open.
fn as_it_is() -> impl Iterator<Item = Case> {
    let slow = |bad: &Bad| matches!(bad.name, "50 % lost" | "4 s of round trip" | "9.6 kbit/s");
    let case = |bad: Bad| Box::pin(bad_link(format!("{} (auto)", bad.name), bad, Options::default())) as Case;
    all_links().into_iter().filter(slow).map(case)
}

#[tokio::test]
async fn bad_links_are_used_with_cubic() {
    side_by_side(cases("cubic").chain(as_it_is())).await;
}

#[tokio::test]
async fn bad_links_are_used_with_the_model() {
    side_by_side(cases("model")).await;
}

async fn bad_link(name: String, bad: Bad, options: Options) {
    let Bad { conditions, from_the_start, in_time, chain, .. } = bad;
    let Some(link) = link(if from_the_start { conditions } else { good() }) else { return };
    let pair = OverLink::start(link, &options.longer_chains(chain)).unwrap();
    if !from_the_start {
        pair.has_agent(LIMIT).await;
        pair.set(conditions).unwrap();
    }
    let mut using = pin!(use_it(&pair, &name));
    let used = timeout(PATIENCE, &mut using).await;
    println!("{name}: {}", if used.is_ok() { "used" } else { "not through in time" });
    assert!(used.is_ok() || !in_time, "{name}: agent's log: {}", pair.agent.log());
    costs_little(&pair, &name).await;
    pair.set(good()).unwrap();
    let back = Instant::now();
    if used.is_err() {
        timeout(LIMIT, using).await.expect("a dial of before is through, or one that was made in its place");
    }
    pair.served(LIMIT).await;
    println!("{name}: a dial was served {:?} after the link became good", back.elapsed());
    let story = timeout(LIMIT, use_once(&pair, back)).await.expect("a good link is quick");
    println!("{name}: and another: {}", story.unwrap());
    pair.has_no_dials(LIMIT).await;
    for program in [&pair.server, &pair.agent] {
        let bytes = resident(program);
        println!("{name}: {} holds {} KiB", program.name(), bytes / 1024);
        assert!(bytes < MAX_RESIDENT, "{name}: {} holds {bytes} bytes", program.name());
    }
}

/// A dial, an echo and a transfer each way; all of it again if there was an error.
async fn use_it(pair: &OverLink, name: &str) {
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        match use_once(pair, begun).await {
            Ok(story) => return println!("{name}: {story}"),
            Err(error) => {
                // Nobody could serve it, or who did was lost.
                let text = format!("{error:#}");
                assert!(error.is::<io::Error>() || text.contains("dial"), "{name}: {text}");
                if text != last {
                    println!("{name}: after {:?}: {text}", begun.elapsed());
                    last = text;
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn use_once(pair: &OverLink, begun: Instant) -> anyhow::Result<String> {
    let mut open = pair.dial(PATIENCE).await?;
    let dialled = begun.elapsed();
    carry(&mut open.client, &mut open.target, 64).await?;
    carry(&mut open.target, &mut open.client, 64).await?;
    let echoed = begun.elapsed();
    carry(&mut open.client, &mut open.target, TRANSFER).await?;
    carry(&mut open.target, &mut open.client, TRANSFER).await?;
    Ok(format!("dialled {dialled:?} after the start, echo {echoed:?}, transfers {:?}", begun.elapsed()))
}

async fn carry(
    from: &mut (impl AsyncWrite + Unpin),
    to: &mut (impl AsyncRead + Unpin),
    bytes: usize,
) -> anyhow::Result<()> {
    let sent = pattern(0, bytes);
    let mut came = vec![0; bytes];
    tokio::try_join!(from.write_all(&sent), to.read_exact(&mut came))?;
    assert!(came == sent, "other bytes than were sent");
    Ok(())
}

/// On the link as it is, with next to nothing to do.
async fn costs_little(pair: &OverLink, name: &str) {
    let cpu = || [&pair.server, &pair.agent].map(|program| cpu_of(program.id()).unwrap());
    let before = cpu();
    sleep(WATCHED).await;
    for ((after, before), program) in cpu().into_iter().zip(before).zip([&pair.server, &pair.agent]) {
        let took = after - before;
        println!("{name}: {} took {took:?} of CPU in {WATCHED:?} of rest", program.name());
        assert!(took < MAX_CPU, "{name}: {} took {took:?} of CPU with nothing to do", program.name());
    }
}
