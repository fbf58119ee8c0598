//! The first SIGTERM to a program with dials: they go on.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::cell::Cell;
use super::column::Make;
use super::open::{Open, SOON};

/// A program that was told to stop is used for so long, which is longer than any of them takes to think about it.
const USED_FOR: Duration = Duration::from_millis(1500);

/// Dials at once: with two agents to choose from, both are certain to have some.
const DIALS: usize = 12;

/// Of two agents, one drains: its dials go on, new ones go to the other, and it ends when it has none.
pub async fn agent(cell: &mut Cell) -> anyhow::Result<()> {
    cell.start_pair(&[], &[]).await?;
    cell.fleet.start_agent(cell.fleet.servers[0].agents, &[])?;
    cell.fleet.ready().await?;
    let mut before = cell.open_many(DIALS).await?;
    cell.fleet.agents[0].process.signal(Signal::SIGTERM)?;
    use_for_a_while(&mut before).await.context("while the agent drains")?;
    let mut since = cell.open_many(DIALS).await.context("new, while the agent drains")?;
    for open in before {
        open.close().await.context("while the agent drains")?;
    }
    let mut agent = cell.fleet.agents.remove(0);
    if agent.make == Make::Go {
        // The reference's ends at the second signal only.
        agent.process.signal(Signal::SIGTERM)?;
    }
    let status = agent.process.end(SOON).await;
    cell.fleet.gone.push(agent.process);
    let status = status?;
    ensure!(status.success(), "expected the drained agent to end with success, but it was {status}");
    for open in &mut since {
        open.exchange().await.context("a dial that was made while the agent drained, after its end")?;
    }
    cell.open().await.context("a dial after the agent's end")?.exchange().await
}

/// The server drains: its dials go on, and it ends when it has none.
pub async fn server(cell: &mut Cell) -> anyhow::Result<()> {
    cell.start_pair(&["--graceful-shutdown-timeout=15s"], &[]).await?;
    let mut dials = cell.open_many(4).await?;
    cell.fleet.servers[0].process.signal(Signal::SIGTERM)?;
    use_for_a_while(&mut dials).await.context("while the server drains")?;
    for open in dials {
        open.close().await.context("while the server drains")?;
    }
    let start = Instant::now();
    let mut server = cell.fleet.servers.remove(0);
    let status = server.process.end(SOON).await;
    cell.fleet.gone.push(server.process);
    let status = status?;
    ensure!(status.success(), "expected the drained server to end with success, but it was {status}");
    cell.note(format!("the server ended {} ms after its last dial", start.elapsed().as_millis()));
    Ok(())
}

async fn use_for_a_while(dials: &mut [Open]) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < USED_FOR {
        for (number, open) in dials.iter_mut().enumerate() {
            let used = open.exchange().await;
            used.with_context(|| format!("dial {number}, {} ms after the signal", start.elapsed().as_millis()))?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
