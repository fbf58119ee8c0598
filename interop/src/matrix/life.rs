//! How programs begin, and how others take their sudden end.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::UdpSocket;

use super::cell::Cell;
use super::column::{Carrier, Make};
use super::open::{End, Open, SOON, ended};
use super::scenario::impatient;
use crate::peer::Entrance;

/// From the start of an agent to its first dial, on a machine that does other things too.
const FIRST_DIAL_WITHIN: Duration = Duration::from_secs(3);

/// A server or an agent that has started again serves by then: the reference waits up to 11 s between its tries.
const AGAIN_WITHIN: Duration = Duration::from_secs(20);

/// Whoever is left hears by then that the other program is dead.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// What an agent that has found out what the server speaks may still send it by UDP while that is watched: a try of
/// QUIC or two, with their repetitions.
const DATAGRAMS: usize = 40;

/// From an agent's start to its first dial, and over what. To a server without QUIC, `auto` settles and is quiet.
pub async fn first_dial(cell: &mut Cell) -> anyhow::Result<()> {
    cell.fleet.start_server(&[]).await?;
    let agents = cell.fleet.servers[0].agents;
    let settles = cell.column().pairing.carrier == Carrier::Auto && !cell.column().pairing.has_quic();
    // One kind of network says that nobody listens, the other says nothing; each front has one of them.
    let silent = settles && cell.column().front.entrance() == Entrance::MutualTls;
    let heard = if silent { Some(UdpSocket::bind(agents).await?) } else { None };
    let start = Instant::now();
    cell.fleet.start_agent(agents, &[])?;
    cell.served(0, FIRST_DIAL_WITHIN).await?;
    cell.note(format!("first dial {} ms after the agent's start", start.elapsed().as_millis()));
    carried_as_told(cell).await?;
    if settles { stays_quiet(cell, heard).await } else { Ok(()) }
}

/// Watches an agent for a while that has found a server without QUIC.
async fn stays_quiet(cell: &mut Cell, udp: Option<UdpSocket>) -> anyhow::Result<()> {
    const WATCHED: Duration = Duration::from_secs(4);
    let mut datagrams = 0;
    let count = async {
        let Some(udp) = &udp else { return std::future::pending().await };
        while udp.recv(&mut [0; 2048]).await.is_ok() {
            datagrams += 1;
        }
    };
    // It goes on for as long as it is watched.
    let _: Result<(), _> = tokio::time::timeout(WATCHED, count).await;
    carried_as_told(cell).await?;
    let log = std::fs::read_to_string(cell.fleet.servers[0].process.log())?;
    let connects = log.matches("Connect request from agent").count();
    cell.note(format!("within {WATCHED:?}: {connects} connection over gRPC, {datagrams} datagrams"));
    ensure!(connects == 1, "expected one connection over gRPC, but the server has had {connects}");
    ensure!(datagrams <= DATAGRAMS, "expected at most {DATAGRAMS} datagrams within {WATCHED:?}, but {datagrams} came");
    Ok(())
}

/// Our agents say over what they serve.
async fn carried_as_told(cell: &Cell) -> anyhow::Result<()> {
    let pairing = cell.column().pairing;
    // What knows only QUIC has no metric of its carriers.
    if pairing.agent == Make::Go || pairing.carrier == Carrier::Quic {
        return Ok(());
    }
    let (wanted, other) = if pairing.has_quic() { ("quic", "grpc") } else { ("grpc", "quic") };
    let seen = (cell.connections(0, wanted).await?, cell.connections(0, other).await?);
    ensure!(
        seen == (1, 0),
        "expected one connection over {wanted}, but there are {} and {} over {other}",
        seen.0,
        seen.1
    );
    Ok(())
}

/// An agent dies without a word and starts again.
pub async fn agent_killed(cell: &mut Cell) -> anyhow::Result<()> {
    let pairing = cell.column().pairing;
    cell.start_pair(impatient(pairing.server), impatient(pairing.agent)).await?;
    let mut open = cell.open().await?;
    open.exchange().await?;
    cell.fleet.agents[0].process.kill();
    let start = Instant::now();
    let how = both_ended(&mut open, "whose agent has died").await?;
    cell.note(format!(
        "the client of a dial whose agent had died heard of it after {} ms: {how}",
        start.elapsed().as_millis()
    ));
    cell.fleet.agents[0].process.start_again()?;
    let served = cell.served(0, AGAIN_WITHIN).await.context("after the agent's return")?;
    cell.note(format!("served {} ms after the agent's return", served.as_millis()));
    cell.fleet.ready().await
}

/// A server dies without a word and starts again.
pub async fn server_killed(cell: &mut Cell) -> anyhow::Result<()> {
    let pairing = cell.column().pairing;
    cell.start_pair(impatient(pairing.server), impatient(pairing.agent)).await?;
    let mut open = cell.open().await?;
    open.exchange().await?;
    cell.fleet.servers[0].process.kill();
    both_ended(&mut open, "whose server has died").await?;
    cell.fleet.servers[0].process.start_again()?;
    let served = cell.served(0, AGAIN_WITHIN).await.context("after the server's return")?;
    cell.note(format!("served {} ms after the server's return", served.as_millis()));
    cell.fleet.ready().await
}

/// Both ends of a dial hear that it has ended; how the client heard it.
pub async fn both_ended(open: &mut Open, which: &str) -> anyhow::Result<String> {
    let (client, target) =
        (format!("the client's end of a dial {which}"), format!("the target's end of a dial {which}"));
    let (client, target) = tokio::join!(
        ended(&mut open.client, &client, NOTICED_WITHIN),
        ended(&mut open.target, &target, NOTICED_WITHIN + SOON)
    );
    target?;
    Ok(match client? {
        End::Clean => "a clean end".to_owned(),
        End::Error(error) => error,
    })
}
