//! More than one server, more than one agent.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::balancer::Balancer;
use super::cell::Cell;
use super::client::refused;
use super::column::{Carrier, Make};
use super::open::{Open, SOON};
use super::scenario::impatient;
use crate::peer::process::Process;

/// Both servers are found by then: the reference looks once a second, its load balancer gives it one of them each time.
const BOTH_WITHIN: Duration = Duration::from_secs(30);

/// A dead program is not asked for dials any more by then.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(15);

/// Two servers behind one address, told to be two; an agent serves both, and one goes on when the other dies.
pub async fn two_servers(cell: &mut Cell) -> anyhow::Result<()> {
    let pairing = cell.column().pairing;
    let two = [&["--server-count=2"], impatient(pairing.server)].concat();
    cell.fleet.start_server(&two).await?;
    cell.fleet.start_server(&two).await?;
    let servers = cell.fleet.servers.iter().map(|server| server.agents).collect();
    let balancer = Balancer::start(servers).await?;
    cell.fleet.start_agent(balancer.address, impatient(pairing.agent))?;
    for server in [0, 1] {
        cell.served(server, BOTH_WITHIN).await.with_context(|| format!("server {}", server + 1))?;
    }
    let mut open = cell.open().await?;
    open.exchange().await?;
    cell.fleet.servers[1].process.kill();
    open.exchange().await.context("a dial through the server that lives")?;
    cell.served(0, SOON).await.context("through the server that lives")?;
    cell.fleet.servers[1].process.start_again()?;
    let served = cell.served(1, BOTH_WITHIN).await.context("through the server that has returned")?;
    cell.note(format!("served {} ms after the second server's return", served.as_millis()));
    open.exchange().await.context("the dial from before")?;
    cell.fleet.ready().await
}

/// Two agents of one id, which nobody should have; no dial may hear the bytes of another, and one agent is enough.
pub async fn duplicate_id(cell: &mut Cell) -> anyhow::Result<()> {
    const DIALS: usize = 8;
    let pairing = cell.column().pairing;
    let twin = [&["--agent-id=twin"], impatient(pairing.agent)].concat();
    cell.start_pair(impatient(pairing.server), &twin).await?;
    let mut dials = cell.open_many(DIALS).await.context("with one agent")?;
    cell.fleet.start_agent(cell.fleet.servers[0].agents, &twin)?;
    cell.fleet.ready().await?;
    dials.extend(cell.open_many(DIALS).await.context("with two agents of one id")?);
    for open in &mut dials {
        open.exchange().await.context("a dial beside a second agent of the same id")?;
    }
    kill(&mut cell.fleet.agents[0].process);
    let served = cell.served(0, FORGOTTEN_WITHIN).await.context("after the first agent's death")?;
    let mut survivors = 0;
    for open in &mut dials {
        survivors += usize::from(open.exchange().await.is_ok());
    }
    cell.note(format!(
        "after the first agent's death, {survivors} of {} dials went on, and new ones were served after {} ms",
        dials.len(),
        served.as_millis()
    ));
    cell.open_many(DIALS).await.context("with the second agent only")?;
    cell.fleet.agents[0].process.start_again()?;
    cell.fleet.ready().await
}

fn kill(process: &mut Process) {
    process.kill();
}

/// An agent of each make on one server; each serves what is its own, and does so when the other is dead.
pub async fn mixed_agents(cell: &mut Cell) -> anyhow::Result<()> {
    const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
    const DIALS: usize = 10;
    let pairing = cell.column().pairing;
    // A server for both kinds of agents, whatever the column's agent speaks.
    let strategy = [&["--proxy-strategies=destHost"], impatient(pairing.server)].concat();
    cell.fleet.start_server_for(Carrier::Auto, &strategy).await?;
    let servers = cell.fleet.servers[0].agents;
    let makes = [(pairing.agent, pairing.carrier, FIRST), (pairing.agent.other(), Carrier::Auto, SECOND)];
    for (make, carrier, ip) in makes {
        let identifier = format!("--agent-identifiers=ipv4={ip}");
        let arguments = [&[identifier.as_str()], impatient(make)].concat();
        cell.fleet.start_agent_of(make, carrier, servers, &arguments)?;
    }
    cell.fleet.ready().await?;
    let client = cell.client()?;
    let mut dials = Vec::new();
    for number in 0..2 * DIALS {
        let ip = if number % 2 == 0 { FIRST } else { SECOND };
        let mut open = Open::dial(&client, ip).await.with_context(|| format!("dial {number}, to {ip}"))?;
        open.exchange().await.with_context(|| format!("dial {number}, to {ip}"))?;
        dials.push((ip, open));
    }
    cell.fleet.agents[0].process.kill();
    for (_, open) in dials.iter_mut().filter(|(ip, _)| *ip == SECOND) {
        open.exchange().await.context("a dial of the agent that lives")?;
    }
    forgotten(cell, FIRST).await?;
    Open::dial(&client, SECOND).await.context("a new dial of the agent that lives")?.exchange().await?;
    cell.fleet.agents[0].process.start_again()?;
    cell.fleet.ready().await?;
    Open::dial(&client, FIRST).await.context("a dial of the agent that has returned")?.exchange().await?;
    ensure!(makes.iter().any(|(make, ..)| *make == Make::Go), "expected an agent of each make");
    Ok(())
}

/// Waits until the server has noticed that nobody serves this address any more, which it then says.
async fn forgotten(cell: &Cell, ip: Ipv4Addr) -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    loop {
        let dialled = tokio::time::timeout(Duration::from_secs(2), cell.dial(&format!("{ip}:80"))).await;
        match dialled.map(|result| refused(result, cell.mode(), 500, "No agent available")) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if start.elapsed() > FORGOTTEN_WITHIN => return Err(error),
            Err(_) if start.elapsed() > FORGOTTEN_WITHIN => anyhow::bail!("no answer to a dial for a dead agent"),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
