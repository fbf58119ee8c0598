//! Dials that fail, and dials that are cut.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::cell::Cell;
use super::client::refused as refused_with;
use super::open::{End, SOON, ended, listen, within};
use crate::ends::pattern;

/// A target that refuses.
pub async fn refused(cell: &mut Cell) -> anyhow::Result<()> {
    let address = listen(cell.target_ip())?.local_addr()?.to_string();
    for _ in 0..3 {
        refused_with(cell.dial(&address).await, cell.mode(), 502, "connection refused")?;
    }
    cell.open().await.context("a dial after those that were refused")?.exchange().await
}

/// A target whose name nobody knows.
pub async fn unknown_host(cell: &mut Cell) -> anyhow::Result<()> {
    refused_with(cell.dial("no-such-name.invalid:80").await, cell.mode(), 502, "no such host")
}

/// A target that never answers: its queue of connections is full. Others are dialled meanwhile.
pub async fn timeout(cell: &mut Cell) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    // On Linux, a queue of length zero has room for one connection, and further SYNs are dropped.
    let listener = socket.listen(0)?;
    let address = listener.local_addr()?;
    let _filler = within("a connection that fills the queue", SOON, TcpStream::connect(address)).await??;
    let target = address.to_string();
    let (pending, beside) = tokio::join!(cell.dial(&target), async { cell.open().await?.exchange().await });
    refused_with(pending, cell.mode(), 504, "i/o timeout")?;
    beside.context("a dial beside one that is pending")
}

/// Clients that go, one from an idle dial, one from a download; their targets must hear of it.
pub async fn client_leaves(cell: &mut Cell) -> anyhow::Result<()> {
    let mut open = cell.open().await?;
    open.exchange().await?;
    drop(open.client);
    ended(&mut open.target, "the target's end of an idle dial that its client has left", SOON).await?;
    let mut open = cell.open().await?;
    let download = async {
        let chunk = pattern(0, 64 * 1024);
        while open.target.write_all(&chunk).await.is_ok() {}
    };
    let leave = async {
        let mut first = vec![0; 100_000];
        open.client.read_exact(&mut first).await.context("the client reads the download's first bytes")?;
        drop(open.client);
        anyhow::Ok(())
    };
    let (_, left) = within("the end of a download that its client has left", SOON + Duration::from_secs(5), async {
        tokio::join!(download, leave)
    })
    .await?;
    left?;
    cell.open().await.context("a dial after those that were left")?.exchange().await
}

/// A target that ends its dial with RST; the client must hear of it, and the report says how.
pub async fn target_resets(cell: &mut Cell) -> anyhow::Result<()> {
    let mut open = cell.open().await?;
    open.exchange().await?;
    open.target.set_zero_linger()?;
    drop(open.target);
    let end = ended(&mut open.client, "the client's end of a dial that its target has reset", SOON).await?;
    cell.note(match end {
        End::Clean => "a target's reset looked to the client like a clean end".to_owned(),
        End::Error(error) => format!("a target's reset reached the client as an error: {error}"),
    });
    cell.open().await.context("a dial after the one that was reset")?.exchange().await
}
