//! A network that loses all UDP, from the start or at some time, between server and agent.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::time::{sleep, timeout};

use super::cell::Cell;
use super::column::{Carrier, Make};
use super::open::SOON;
use super::scenario::impatient;
use crate::peer::namespace::Cable;

/// From the start of an agent to its first dial over TCP: optimized builds are held to a second.
const FIRST_DIAL_WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });

/// Without UDP, dials are served again over TCP by then: `impatient` lets QUIC die within 3 s.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);

/// With UDP, an agent is back on QUIC by then.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// How often is looked.
const POLL: Duration = Duration::from_millis(20);

fn cable(cell: &Cell) -> anyhow::Result<&Cable> {
    cell.cable.as_ref().context("the scenario has no cable")
}

/// UDP never works; the agent serves over TCP, and soon.
pub async fn blocked_from_the_start(cell: &mut Cell) -> anyhow::Result<()> {
    cell.fleet.start_server(&[]).await?;
    let agents = cell.fleet.servers[0].agents;
    cable(cell)?.block_udp(agents.port())?;
    let start = Instant::now();
    cell.fleet.start_agent(agents, &[])?;
    cell.served(0, SOON).await?;
    let first = start.elapsed();
    cell.note(format!("first dial {} ms after the agent's start, without UDP", first.as_millis()));
    ensure!(first < FIRST_DIAL_WITHIN, "expected the first dial within {FIRST_DIAL_WITHIN:?}, but it took {first:?}");
    if cell.column().pairing.agent == Make::Ours {
        let over = (cell.connections(0, "grpc").await?, cell.connections(0, "quic").await?);
        ensure!(over == (1, 0), "expected one connection over gRPC, none over QUIC, but there are {over:?}");
    }
    // It goes on without UDP.
    for _ in 0..10 {
        cell.open().await?.exchange().await?;
    }
    Ok(())
}

/// UDP works, then it does not, then it works again.
pub async fn lost_and_found(cell: &mut Cell) -> anyhow::Result<()> {
    let pairing = cell.column().pairing;
    let retry: &[&str] = match (pairing.agent, pairing.carrier) {
        (Make::Ours, Carrier::Auto) => &["--quic-retry-interval=2s"],
        _ => &[],
    };
    cell.start_pair(impatient(pairing.server), &[impatient(pairing.agent), retry].concat()).await?;
    if !pairing.has_quic() {
        return unmoved(cell).await;
    }
    if pairing.carrier == Carrier::Auto {
        over(cell, "quic", SOON).await.context("before anything is blocked")?;
    }
    let mut line = Line::begin(cell)?;
    let result = match pairing.carrier {
        Carrier::Auto => to_tcp_and_back(cell, &mut line).await,
        Carrier::Quic | Carrier::Grpc => dead_and_back(cell, &mut line).await,
    };
    // As far as it came.
    cell.note(line.text());
    result
}

/// Nothing here needs UDP.
async fn unmoved(cell: &mut Cell) -> anyhow::Result<()> {
    let mut open = cell.open().await?;
    open.exchange().await?;
    let port = cell.fleet.servers[0].agents.port();
    cable(cell)?.block_udp(port)?;
    sleep(Duration::from_secs(4)).await;
    open.exchange().await.context("a dial from before, without UDP")?;
    cell.open().await.context("a new dial, without UDP")?.exchange().await?;
    cable(cell)?.unblock_udp()?;
    open.exchange().await.context("a dial from before, with UDP again")
}

/// Over QUIC alone: nothing is served while UDP is lost, and it is again soon after.
async fn dead_and_back(cell: &Cell, line: &mut Line) -> anyhow::Result<()> {
    unready(cell).await?;
    line.note("noticed");
    cable(cell)?.unblock_udp()?;
    line.note("UDP unblocked");
    cell.served(0, BACK_WITHIN).await?;
    line.note("served again over QUIC");
    Ok(())
}

/// The agent's own readiness tells when it has noticed.
async fn unready(cell: &Cell) -> anyhow::Result<()> {
    let start = Instant::now();
    while crate::pair::http::get(cell.fleet.agents[0].health, "/readyz").await?.status == 200 {
        if start.elapsed() > AGAIN_WITHIN {
            bail!("expected the agent to notice within {AGAIN_WITHIN:?} that UDP is lost");
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Over QUIC, then over TCP, then over QUIC again, with a dial that outlives the last move.
async fn to_tcp_and_back(cell: &Cell, line: &mut Line) -> anyhow::Result<()> {
    let (noticed, on_tcp, served) = tokio::try_join!(
        async { noticed(cell).await.map(|()| line.since()) },
        async { over(cell, "grpc", AGAIN_WITHIN).await.map(|()| line.since()) },
        async { served_again(cell).await.map(|()| line.since()) }
    )
    .context("without UDP")?;
    for (when, what) in [(noticed, "noticed"), (on_tcp, "on TCP alone"), (served, "served again over TCP")] {
        line.at(when, what);
    }
    let mut open = cell.open().await?;
    open.exchange().await?;
    cable(cell)?.unblock_udp()?;
    line.note("UDP unblocked");
    let start = Instant::now();
    while cell.connections(0, "quic").await? == 0 {
        ensure!(start.elapsed() < BACK_WITHIN, "expected the agent back on QUIC within {BACK_WITHIN:?}");
        // No dial fails on the way.
        cell.open().await.context("with UDP again")?.exchange().await.context("with UDP again")?;
        sleep(POLL).await;
    }
    line.note("back on QUIC");
    open.exchange().await.context("a dial over TCP, after the return to QUIC")?;
    cell.open().await.context("a new dial, after the return to QUIC")?.exchange().await?;
    open.close().await.context("a dial over TCP, after the return to QUIC")?;
    over(cell, "quic", BACK_WITHIN).await.context("after the last dial over TCP")?;
    line.note("on QUIC alone");
    Ok(())
}

/// Waits until the agent does not say any more that QUIC is all it has and needs.
async fn noticed(cell: &Cell) -> anyhow::Result<()> {
    let start = Instant::now();
    while (cell.connections(0, "quic").await?, cell.connections(0, "grpc").await?) == (1, 0) {
        ensure!(start.elapsed() < AGAIN_WITHIN, "expected the agent to notice within {AGAIN_WITHIN:?}");
        sleep(POLL).await;
    }
    Ok(())
}

/// A dial that began after the block was served.
async fn served_again(cell: &Cell) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        // QUIC that is dead and does not know it swallows dials, so none is given much time.
        let tried = timeout(Duration::from_millis(300), async { cell.open().await?.exchange().await }).await;
        match tried {
            Ok(Ok(())) => return Ok(()),
            _ if start.elapsed() > AGAIN_WITHIN => bail!("expected a dial to be served within {AGAIN_WITHIN:?}"),
            _ => sleep(POLL).await,
        }
    }
}

/// Waits until the agent has a connection over this, and none over anything else.
async fn over(cell: &Cell, transport: &str, limit: Duration) -> anyhow::Result<()> {
    let other = if transport == "quic" { "grpc" } else { "quic" };
    let start = Instant::now();
    loop {
        let seen = (cell.connections(0, transport).await?, cell.connections(0, other).await?);
        if seen == (1, 0) {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!(
                "expected one connection over {transport} within {limit:?}, but there are {} and {} over {other}",
                seen.0,
                seen.1
            );
        }
        sleep(POLL).await;
    }
}

/// What happened when, since UDP was blocked.
struct Line {
    start: Instant,
    events: Vec<(Duration, String)>,
}

impl Line {
    /// Blocks UDP.
    fn begin(cell: &Cell) -> anyhow::Result<Self> {
        cable(cell)?.block_udp(cell.fleet.servers[0].agents.port())?;
        Ok(Self { start: Instant::now(), events: vec![(Duration::ZERO, "UDP blocked".to_owned())] })
    }

    fn since(&self) -> Duration {
        self.start.elapsed()
    }

    fn note(&mut self, what: &str) {
        self.at(self.since(), what);
    }

    fn at(&mut self, when: Duration, what: &str) {
        self.events.push((when, what.to_owned()));
    }

    fn text(mut self) -> String {
        self.events.sort();
        let shown = |(when, what): &(Duration, String)| format!("{:.2} s {what}", when.as_secs_f64());
        self.events.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}
