//! The targets: a process of its own (this program once more, with [`COMMAND`]), on one thread, so that it takes neither
//! the clients' time nor their file descriptors.
//!
//! It prints where it listens as one line of JSON. Its standard input is a socket, on which the counters are asked for; it
//! ends when that does, so it never outlives the benchmark. No network is in between: the targets may be in another one.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::link::netns;

/// The benchmark's subcommand that calls [`serve`].
pub const COMMAND: &str = "targets";

/// What tells the process to listen on another address than loopback's.
const ADDRESS: &str = "KONNECTIVITY_TARGETS_ADDRESS";

/// What sources and sinks move at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// On loopback, echo targets listen on so many addresses, so that the agent's ports for outgoing connections do not run out.
const ECHO_ADDRESSES: u8 = 8;

/// Where the targets of a process listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Addresses {
    echo: Vec<SocketAddr>,
    source: SocketAddr,
    sink: SocketAddr,
    stalled: SocketAddr,
    object: SocketAddr,
}

/// What the targets have carried, and when that was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// By the clock of the targets' process.
    pub time: Duration,
    /// Bytes read by sinks.
    pub received: u64,
    /// Bytes written by sources.
    pub sent: u64,
}

/// A running process with targets; it ends when this is dropped.
#[derive(Debug)]
pub struct Targets {
    child: Child,
    addresses: Addresses,
    counters: UnixStream,
}

impl Targets {
    /// Starts the process, on loopback.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        Self::spawn(Command::new(program))
    }

    /// Starts the process in a network namespace, on this address there.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub fn start_in(namespace: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = netns::command(namespace, program);
        command.env(ADDRESS, address.to_string());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let (counters, theirs) = StdUnixStream::pair().context("cannot make a pair of sockets")?;
        let mut child = command
            .arg(COMMAND)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the targets")?;
        let stdout = child.stdout.take().context("the targets have no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("cannot read from the targets")?;
        let addresses: Addresses = serde_json::from_str(&line).context("the targets do not say where they listen")?;
        counters.set_nonblocking(true).context("cannot use the pair of sockets")?;
        let counters = UnixStream::from_std(counters).context("cannot use the pair of sockets")?;
        Ok(Self { child, addresses, counters })
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Answers what it gets; dial number `n` of many has its own of several addresses.
    pub fn echo(&self, n: usize) -> SocketAddr {
        self.addresses.echo[n % self.addresses.echo.len()]
    }

    /// Sends as fast as it can once it has got one byte.
    pub fn source(&self) -> SocketAddr {
        self.addresses.source
    }

    /// Reads as fast as it can.
    pub fn sink(&self) -> SocketAddr {
        self.addresses.sink
    }

    /// Reads eight bytes, a number in network byte order, and answers with so many bytes and the end.
    pub fn object(&self) -> SocketAddr {
        self.addresses.object
    }

    /// Accepts and never reads.
    pub fn stalled(&self) -> SocketAddr {
        self.addresses.stalled
    }

    /// Asks for the counters.
    ///
    /// # Errors
    /// When the process is gone.
    ///
    /// # Cancel safety
    /// Not cancel safe: a second call could read the first one's answer.
    pub async fn counters(&mut self) -> anyhow::Result<Counters> {
        self.ask(Question::Counters).await?;
        let nanos = self.counters.read_u64().await.context("the targets are gone")?;
        let received = self.counters.read_u64().await.context("the targets are gone")?;
        let sent = self.counters.read_u64().await.context("the targets are gone")?;
        Ok(Counters { time: Duration::from_nanos(nanos), received, sent })
    }

    /// Closes every connection to a source and to a target that does not read.
    ///
    /// # Errors
    /// When the process is gone.
    ///
    /// # Cancel safety
    /// As for [`Self::counters`].
    pub async fn release(&mut self) -> anyhow::Result<()> {
        self.ask(Question::Release).await?;
        self.counters.read_u8().await.context("the targets are gone")?;
        Ok(())
    }

    async fn ask(&mut self, question: Question) -> anyhow::Result<()> {
        self.counters.write_all(&[question as u8]).await.context("the targets are gone")
    }
}

/// What is asked on the connection for counters.
#[derive(Debug, Clone, Copy)]
enum Question {
    Counters,
    Release,
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Echo,
    Source,
    Sink,
    Object,
    Stalled,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    /// Ends the connections of sources and of those that do not read.
    release: Notify,
}

/// Runs the targets until standard input ends.
///
/// # Errors
/// When a port cannot be had.
pub async fn serve() -> anyhow::Result<()> {
    let shared = Arc::new(Shared {
        start: Instant::now(),
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        release: Notify::new(),
    });
    let mut tasks = JoinSet::new();
    let mut echo = Vec::new();
    let elsewhere = std::env::var(ADDRESS).ok().map(|address| address.parse()).transpose()?;
    let address = elsewhere.unwrap_or(Ipv4Addr::LOCALHOST);
    for host in 1..=elsewhere.map_or(ECHO_ADDRESSES, |_| 1) {
        let address = elsewhere.unwrap_or(Ipv4Addr::new(127, 0, 0, host));
        echo.push(listen(&mut tasks, &shared, Kind::Echo, address).await?);
    }
    let addresses = Addresses {
        echo,
        source: listen(&mut tasks, &shared, Kind::Source, address).await?,
        sink: listen(&mut tasks, &shared, Kind::Sink, address).await?,
        stalled: listen(&mut tasks, &shared, Kind::Stalled, address).await?,
        object: listen(&mut tasks, &shared, Kind::Object, address).await?,
    };
    println!("{}", serde_json::to_string(&addresses)?);
    std::io::stdout().flush()?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?;
    let stdin = StdUnixStream::from(stdin);
    stdin.set_nonblocking(true).context("the standard input is not the benchmark's socket")?;
    let mut stdin = UnixStream::from_std(stdin).context("the standard input is not the benchmark's socket")?;
    // Its end is the benchmark's.
    let _ = counters(&mut stdin, &shared).await;
    Ok(())
}

async fn listen(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    kind: Kind,
    address: Ipv4Addr,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).await.with_context(|| format!("cannot listen on {address}"))?;
    let local = listener.local_addr()?;
    let shared = shared.clone();
    tasks.spawn(async move {
        let mut dials = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    dials.spawn(answer(stream, kind, shared.clone()));
                },
                Some(_) = dials.join_next() => {}
            }
        }
    });
    Ok(local)
}

/// One connection, to its end; an error is the client's way to end it.
async fn answer(mut stream: TcpStream, kind: Kind, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let _ = match kind {
        Kind::Echo => echo(&mut stream).await,
        Kind::Source => tokio::select! {
            result = source(&mut stream, &shared) => result,
            () = shared.release.notified() => Ok(()),
        },
        Kind::Sink => sink(&mut stream, &shared).await,
        Kind::Stalled => {
            shared.release.notified().await;
            Ok(())
        }
        Kind::Object => object(&mut stream, &shared).await,
    };
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

async fn source(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.read_u8().await?;
    let chunk = vec![0x5a; CHUNK_BYTES];
    loop {
        let length = stream.write(&chunk).await?;
        shared.sent.fetch_add(length as u64, Ordering::Relaxed);
    }
}

async fn object(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut left = stream.read_u64().await?;
    let chunk = vec![0x6b; CHUNK_BYTES];
    while left > 0 {
        let length = stream.write(&chunk[..CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))]).await?;
        shared.sent.fetch_add(length as u64, Ordering::Relaxed);
        left -= length as u64;
    }
    stream.shutdown().await
}

async fn sink(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            length => shared.received.fetch_add(length as u64, Ordering::Relaxed),
        };
    }
}

async fn counters(stream: &mut UnixStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        if stream.read_u8().await? == Question::Release as u8 {
            shared.release.notify_waiters();
            stream.write_u8(0).await?;
            continue;
        }
        let nanos = u64::try_from(shared.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let values = [nanos, shared.received.load(Ordering::Relaxed), shared.sent.load(Ordering::Relaxed)];
        stream.write_all(&values.map(u64::to_be_bytes).concat()).await?;
    }
}
