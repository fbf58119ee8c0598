//! Echoes beside dials that nobody reads.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::cell::{Cell, Size};
use super::open::{Echo, Open, ask};
use crate::ends::pattern;
use crate::load::path::Dial;

/// Dials that echo.
const ECHOES: u64 = 4;

/// An echo that takes longer has been held up by what stalls. A busy machine takes its time, too.
const ECHO_WITHIN: Duration = Duration::from_secs(2);

/// A client that does not read what its target sends without end.
pub async fn reader(cell: &mut Cell) -> anyhow::Result<()> {
    cell.start_pair(&[], &[]).await?;
    let echoes = Echoes::open(cell).await?;
    let Open { client, mut target } = cell.open().await?;
    let mut stalled = JoinSet::new();
    stalled.spawn(async move { while target.write_all(&pattern(0, 64 * 1024)).await.is_ok() {} });
    let result = echoes.go_on(cell).await.context("beside a client that does not read");
    drop(client);
    result
}

/// A target that does not read what its client sends without end.
pub async fn target(cell: &mut Cell) -> anyhow::Result<()> {
    cell.start_pair(&[], &[]).await?;
    let echoes = Echoes::open(cell).await?;
    let Open { mut client, target } = cell.open().await?;
    let mut stalled = JoinSet::new();
    stalled.spawn(async move { while client.write_all(&pattern(0, 64 * 1024)).await.is_ok() {} });
    let result = echoes.go_on(cell).await.context("beside a target that does not read");
    drop(target);
    result
}

/// Dials that were there before anything stalled.
struct Echoes {
    target: Echo,
    dials: Vec<Dial>,
}

impl Echoes {
    async fn open(cell: &Cell) -> anyhow::Result<Self> {
        let target = Echo::start(cell.target_ip())?;
        let mut dials = Vec::new();
        for number in 0..ECHOES {
            let mut dial = cell.dial(&target.address.to_string()).await?;
            ask(&mut dial, number, ECHO_WITHIN).await?;
            dials.push(dial);
        }
        Ok(Self { target, dials })
    }

    /// Each echoes for a while, and a new dial can be made at the end.
    async fn go_on(mut self, cell: &mut Cell) -> anyhow::Result<()> {
        let length = match cell.size {
            Size::Quick => Duration::from_secs(2),
            // Longer than a server may wait before it ends what stalls.
            Size::Full => Duration::from_secs(12),
        };
        let (start, mut slowest, mut question) = (Instant::now(), Duration::ZERO, ECHOES);
        while start.elapsed() < length {
            for dial in &mut self.dials {
                let asked = Instant::now();
                question += 1;
                let number = question - ECHOES;
                ask(dial, question, ECHO_WITHIN).await.with_context(|| format!("echo {number}"))?;
                slowest = slowest.max(asked.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cell.note(format!("{} echoes, the slowest took {} ms", question - ECHOES, slowest.as_millis()));
        let mut dial = cell.dial(&self.target.address.to_string()).await.context("a new dial")?;
        ask(&mut dial, 0, ECHO_WITHIN).await.context("a new dial")
    }
}
