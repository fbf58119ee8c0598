//! An established dial with both its ends in the scenario's hand, and what is done with them. Unlike
//! [`ends`](crate::ends), nothing here panics: every failure is a text about what was expected and what was seen.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::Client;
use crate::ends::pattern;
use crate::load::path::Dial;

/// What is not there by then does not come; a dial that is refused may take longer, see the clients.
pub const SOON: Duration = Duration::from_secs(10);

/// Bytes written or read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Connections that a listener keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Waits, but not for ever.
///
/// # Errors
/// When it takes longer; with `what`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> anyhow::Result<T> {
    match timeout(limit, future).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("expected {what} within {limit:?}, but it did not come"),
    }
}

/// Listens on a free port.
///
/// # Errors
/// When there is none.
pub fn listen(ip: Ipv4Addr) -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ip, 0).into()).with_context(|| format!("no port of {ip}"))?;
    Ok(socket.listen(BACKLOG)?)
}

/// A dial from a client to a target, both played by the scenario.
#[derive(Debug)]
pub struct Open {
    /// The client's end.
    pub client: Dial,
    /// The target's end.
    pub target: TcpStream,
}

impl Open {
    /// Dials a new target on `ip`, and accepts there.
    ///
    /// # Errors
    /// When the dial fails, or does not reach the target.
    ///
    /// # Cancel safety
    /// Dropping the future closes both ends.
    pub async fn dial(client: &Client, ip: Ipv4Addr) -> anyhow::Result<Self> {
        let listener = listen(ip)?;
        let address = listener.local_addr()?.to_string();
        let both = async {
            tokio::try_join!(async { client.dial(&address).await.map_err(anyhow::Error::from) }, async {
                Ok(listener.accept().await?.0)
            })
        };
        let (client, target) = within("a dial and its target", super::client::ANSWER_WITHIN, both).await??;
        target.set_nodelay(true)?;
        Ok(Self { client, target })
    }

    /// Sends some bytes one way, then others the other way; no dial ever has the same as another.
    ///
    /// # Errors
    /// When they do not arrive, or not as they were.
    pub async fn exchange(&mut self) -> anyhow::Result<()> {
        let carried = async {
            hand_over(&mut self.client, &mut self.target).await.context("from client to target")?;
            hand_over(&mut self.target, &mut self.client).await.context("from target to client")
        };
        within("some bytes one way and back", SOON, carried).await?
    }

    /// Sends so many bytes one way, then the other.
    ///
    /// # Errors
    /// When they do not arrive, or not as they were.
    pub async fn carry(&mut self, bytes: usize) -> anyhow::Result<()> {
        let carried = async {
            let (client, target) = (&mut self.client, &mut self.target);
            tokio::try_join!(async { write(client, bytes).await.context("the client sends") }, async {
                read(target, bytes).await.context("the target reads")
            })?;
            tokio::try_join!(async { write(target, bytes).await.context("the target sends") }, async {
                read(client, bytes).await.context("the client reads")
            })?;
            Ok(())
        };
        within(&format!("{bytes} bytes one way and back"), SOON, carried).await?
    }

    /// Closes the client's end as its kind does, and waits until the target has seen it.
    ///
    /// # Errors
    /// When the target does not.
    pub async fn close(mut self) -> anyhow::Result<()> {
        // Go servers answer the wish to close, but a client has nothing to lose if they do not.
        let _ = within("the server's word", SOON, self.client.close()).await;
        ended(&mut self.target, "the target's end of a dial that its client has closed", SOON).await?;
        Ok(())
    }
}

/// Sends bytes that no other dial has from one end to the other.
async fn hand_over(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let message = [number, !number].map(u64::to_be_bytes).concat();
    from.write_all(&message).await.context("cannot send")?;
    from.flush().await.context("cannot send")?;
    let mut come = vec![0; message.len()];
    to.read_exact(&mut come).await.context("cannot read")?;
    ensure!(come == message, "expected {message:?}, but {come:?} came");
    Ok(())
}

/// How bytes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As if nothing more was to be said.
    Clean,
    /// With an error.
    Error(String),
}

/// Waits for the end of what comes.
///
/// # Errors
/// When it does not come in time; with `what`.
pub async fn ended(from: &mut (impl AsyncRead + Unpin), what: &str, limit: Duration) -> anyhow::Result<End> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let read = async {
        loop {
            match from.read(&mut chunk).await {
                Ok(0) => return End::Clean,
                Ok(_) => {}
                Err(error) => return End::Error(error.to_string()),
            }
        }
    };
    within(what, limit, read).await
}

/// Writes the pattern, so many bytes of it.
///
/// # Errors
/// When they are not taken.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: usize) -> anyhow::Result<()> {
    let mut written = 0;
    while written < bytes {
        let chunk = pattern(written, CHUNK_BYTES.min(bytes - written));
        to.write_all(&chunk).await.with_context(|| format!("after {written} of {bytes} bytes"))?;
        written += chunk.len();
    }
    to.flush().await.with_context(|| format!("after all of {bytes} bytes"))
}

/// Reads so many bytes and compares each with the pattern.
///
/// # Errors
/// When others come, or fewer.
pub async fn read(from: &mut (impl AsyncRead + Unpin), bytes: usize) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut read = 0;
    while read < bytes {
        let space = CHUNK_BYTES.min(bytes - read);
        let come = from.read(&mut chunk[..space]).await.with_context(|| format!("after {read} of {bytes} bytes"))?;
        ensure!(come > 0, "the end came after {read} of {bytes} bytes");
        ensure!(chunk[..come] == pattern(read, come), "a byte between {read} and {} is another", read + come);
        read += come;
    }
    Ok(())
}

/// Reads so many bytes as above, and then the end, which must be clean.
///
/// # Errors
/// When others come, fewer or more, or the end is an error.
pub async fn read_all(from: &mut (impl AsyncRead + Unpin), bytes: usize) -> anyhow::Result<()> {
    read(from, bytes).await?;
    match from.read(&mut [0; 64]).await.with_context(|| format!("after all of {bytes} bytes"))? {
        0 => Ok(()),
        more => bail!("{more} bytes and more came after all of {bytes}"),
    }
}

/// A target that answers what it gets; it is gone when this is dropped.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Echo {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(ip: Ipv4Addr) -> anyhow::Result<Self> {
        let listener = listen(ip)?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut dials = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        dials.spawn(answer(stream));
                    },
                    Some(_) = dials.join_next() => {}
                }
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.split();
    // An error is the client's way to end it.
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Sends a question that no other has, and waits for the same as the answer.
///
/// # Errors
/// When another comes, or none within `limit`.
pub async fn ask(dial: &mut Dial, question: u64, limit: Duration) -> anyhow::Result<()> {
    let question = [question.to_be_bytes(), (!question).to_be_bytes()].concat();
    let answered = async {
        dial.write_all(&question).await.context("cannot send")?;
        dial.flush().await.context("cannot send")?;
        let mut answer = vec![0; question.len()];
        dial.read_exact(&mut answer).await.context("the dial ended")?;
        ensure!(answer == question, "expected {question:?} back, but {answer:?} came");
        Ok(())
    };
    within("an echo", limit, answered).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_compared_one_by_one() {
        let whole = pattern(0, 200_000);
        read(&mut &whole[..], 200_000).await.unwrap();
        read_all(&mut &whole[..], 200_000).await.unwrap();
        let mut broken = whole.clone();
        broken[150_000] ^= 1;
        assert!(read(&mut &broken[..], 200_000).await.unwrap_err().to_string().contains("is another"));
        let error = read(&mut &whole[..100], 200).await.unwrap_err().to_string();
        assert_eq!(error, "the end came after 100 of 200 bytes");
        assert!(read_all(&mut &whole[..], 199_990).await.unwrap_err().to_string().starts_with("10 bytes and more"));
    }

    #[tokio::test]
    async fn what_does_not_come_is_told_with_its_name() {
        let error = within("a sign", Duration::from_millis(10), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "expected a sign within 10ms, but it did not come");
    }
}
