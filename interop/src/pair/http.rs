//! Requests to health and admin ports.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Replies are made at once; a busy machine may take a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Asks for `path`.
///
/// # Errors
/// When nobody answers in time, or not in HTTP.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    let asked = async { ask(TcpStream::connect(address).await?, path).await };
    timeout(ANSWER_WITHIN, asked).await.context("no answer in time")?
}

/// Asks for `path` on a connection, which may have been made in another network.
///
/// # Errors
/// As [`get`].
pub async fn get_over(stream: TcpStream, path: &str) -> anyhow::Result<Reply> {
    timeout(ANSWER_WITHIN, ask(stream, path)).await.context("no answer in time")?
}

async fn ask(mut stream: TcpStream, path: &str) -> anyhow::Result<Reply> {
    let address = stream.peer_addr()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").context("not an HTTP reply")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

/// The admin port's `/connections`.
///
/// # Errors
/// When nobody answers, or not with a JSON list.
pub async fn connections(admin: SocketAddr) -> anyhow::Result<Vec<serde_json::Value>> {
    let reply = get(admin, "/connections").await?;
    serde_json::from_str(&reply.body).with_context(|| format!("not a JSON list: {}", reply.body))
}
