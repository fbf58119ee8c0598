//! Dials as they should be: bytes both ways, many at once, a target that speaks first, a half-close.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::cell::{Cell, Size};
use super::client::ANSWER_WITHIN;
use super::open::{Echo, SOON, ask, listen, read, read_all, within, write};
use crate::ends::pattern;

/// Bytes of the largest message that is echoed.
const LARGE: usize = 40_000;

/// How many dials are open at once.
const PARALLEL: u64 = 200;

/// A few messages of several sizes on one dial, then its end.
pub async fn echo(cell: &mut Cell) -> anyhow::Result<()> {
    for size in [1, 64, 4096, LARGE] {
        let mut open = cell.open().await?;
        for _ in 0..3 {
            open.carry(size).await?;
        }
        open.close().await?;
    }
    Ok(())
}

/// Many bytes both ways at once on one dial; each is compared.
pub async fn bulk(cell: &mut Cell) -> anyhow::Result<()> {
    let bytes = match cell.size {
        Size::Quick => 10_000_000,
        Size::Full => 100_000_000,
    };
    let mut open = cell.open().await?;
    let (mut from_server, mut to_server) = tokio::io::split(&mut open.client);
    let (mut from_agent, mut to_agent) = open.target.split();
    // All in one task, as the client of gRPC wants it.
    tokio::try_join!(
        async { write(&mut to_server, bytes).await.context("the client sends") },
        async { read(&mut from_agent, bytes).await.context("the target reads") },
        async { write(&mut to_agent, bytes).await.context("the target sends") },
        async { read(&mut from_server, bytes).await.context("the client reads") },
    )?;
    open.close().await
}

/// Many dials at once; all stay open until the last one has been used.
pub async fn parallel_dials(cell: &mut Cell) -> anyhow::Result<()> {
    let echo = Echo::start(cell.target_ip())?;
    let (client, target) = (cell.client()?, echo.address.to_string());
    let mut tasks = JoinSet::new();
    for number in 0..PARALLEL {
        let (client, target) = (client.clone(), target.clone());
        tasks.spawn(async move {
            let mut dial = client.dial(&target).await.with_context(|| format!("dial {number}"))?;
            ask(&mut dial, number, ANSWER_WITHIN).await.with_context(|| format!("dial {number}"))?;
            anyhow::Ok((number, dial))
        });
    }
    let mut dials = Vec::new();
    while let Some(dial) = tasks.join_next().await {
        dials.push(dial??);
    }
    for (number, dial) in &mut dials {
        ask(dial, PARALLEL + *number, SOON).await.with_context(|| format!("dial {number} beside all others"))?;
    }
    Ok(())
}

/// Targets that speak before the client does.
pub async fn banner_first(cell: &mut Cell) -> anyhow::Result<()> {
    const DIALS: usize = 20;
    const BANNER: usize = 64;
    let listener = listen(cell.target_ip())?;
    let target = listener.local_addr()?.to_string();
    for number in 1..=DIALS {
        let speak = async {
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(&pattern(0, BANNER)).await?;
            anyhow::Ok(stream)
        };
        let tried = async {
            let dialled = async { cell.dial(&target).await.map_err(anyhow::Error::from) };
            let (mut target, mut client) = tokio::try_join!(speak, dialled)?;
            within("the banner", SOON, read(&mut client, BANNER)).await??;
            client.write_all(b"thanks").await?;
            client.flush().await?;
            let mut thanks = [0; 6];
            within("the client's answer", SOON, target.read_exact(&mut thanks)).await??;
            ensure!(thanks == *b"thanks", "expected the client's answer, but {thanks:?} came");
            anyhow::Ok(())
        };
        within("a banner and its answer", ANSWER_WITHIN + SOON, tried)
            .await
            .and_then(|tried| tried)
            .with_context(|| format!("dial {number} of {DIALS}"))?;
    }
    Ok(())
}

/// A client that ends its half gets the whole answer, and a target that ends its half the whole rest.
pub async fn half_close(cell: &mut Cell) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut open = cell.open().await?;
    within("a request, its end, and the whole answer", LIMIT, async {
        write(&mut open.client, LARGE).await.context("the client sends its request")?;
        open.client.shutdown().await.context("the client ends its half")?;
        read_all(&mut open.target, LARGE).await.context("the target reads the request to its end")?;
        write(&mut open.target, LARGE).await.context("the target answers")?;
        open.target.shutdown().await.context("the target ends its half")?;
        read_all(&mut open.client, LARGE).await.context("the client reads the answer to its end")
    })
    .await??;
    let mut open = cell.open().await?;
    within("a target's end, and the whole rest", LIMIT, async {
        write(&mut open.target, LARGE).await.context("the target sends")?;
        open.target.shutdown().await.context("the target ends its half")?;
        read_all(&mut open.client, LARGE).await.context("the client reads to the end")?;
        write(&mut open.client, LARGE).await.context("the client goes on")?;
        open.client.shutdown().await.context("the client ends its half")?;
        read_all(&mut open.target, LARGE).await.context("the target reads to the end")
    })
    .await?
}
