//! Full windows of 5 MiB on links that lose much: behind each lost packet all that is sent waits at the receiver, in as many
//! pieces as there are gaps, and a QUIC library gives a connection up that has too many of them
//! (`docs/decisions/0004-credit-and-windows.md`). No connection ends, and each byte is right.
//!
//! Skipped without root or `/dev/net/tun`. Each case has a link of its own, and they run side by side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use konnectivity_interop::link::conditions::{Conditions, Jitter, Loss, Queue};
use konnectivity_interop::link::profile::{Direction, Profile};
use konnectivity_interop::pair::over_link::traffic::{Kind, Traffic};
use konnectivity_interop::pair::over_link::{Options, OverLink, link, side_by_side};
use tokio::time::sleep;

/// Nothing takes longer, unless it is broken; the machine may be busy, and what is under way is much.
const LIMIT: Duration = Duration::from_secs(60);

/// On each kind of link.
const EACH: Duration = Duration::from_secs(6);

const DIALS: [Kind; 4] = [Kind::ToClient, Kind::ToTarget, Kind::ToClient, Kind::ToTarget];

fn long() -> Conditions {
    let clean = Conditions::clean(100_000_000, Duration::from_millis(100));
    Conditions { queue: Queue::Time(Duration::from_millis(100)), ..clean }
}

fn edge() -> Conditions {
    Profile::named("edge-100ms-5").unwrap().course(Direction::Up).first()
}

fn loses(part: f64) -> Conditions {
    Conditions { loss_after: Loss::Random(part), jitter: Jitter::Reordering(Duration::from_millis(10)), ..long() }
}

#[tokio::test]
async fn lossy_links_with_full_windows_end_no_connection() {
    side_by_side(["model", "cubic", "bbr"].map(|control| Box::pin(lossy_links(control)) as _)).await;
}

async fn lossy_links(control: &'static str) {
    let Some(link) = link(long()) else { return };
    let options = Options::default().both(&[&format!("--quic-congestion-control={control}")]);
    let pair = OverLink::connected(link, &options.agent(&["--transport=quic"]), LIMIT).await.unwrap();
    let mut traffic = Traffic::start(&pair, &DIALS, LIMIT).await.unwrap();
    for (name, conditions) in [("5 %", edge()), ("20 %, reordering", loses(0.2)), ("half, reordering", loses(0.5))] {
        // What was sent at full speed meets the loss.
        pair.set(long()).unwrap();
        traffic.carries(LIMIT).await;
        sleep(EACH / 2).await;
        pair.set(conditions).unwrap();
        sleep(EACH).await;
        let most = largest(&pair, "unacknowledged_bytes").await;
        println!("{control}, {name}: {} KiB unacknowledged at an end", most / 1024);
    }
    pair.set(long()).unwrap();
    traffic.carries(LIMIT).await;
    traffic.finish(LIMIT).await;
    pair.has_no_dials(LIMIT).await;
    for program in [&pair.agent, &pair.server] {
        assert!(!program.log().contains("disconnected"), "{control}: {}", program.log());
    }
}

/// The largest value of a number that the connections of both ends have.
async fn largest(pair: &OverLink, name: &str) -> u64 {
    let ends = [pair.link.cloud(), pair.link.site()];
    let mut most = 0;
    for end in ends {
        let connections = pair.connections(end).await.unwrap();
        most = connections.iter().filter_map(|connection| connection[name].as_u64()).fold(most, u64::max);
    }
    most
}
