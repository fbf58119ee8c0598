//! Both ends of a dial in the hand of an end-to-end test: who stops reading, closes or resets, and when.
//!
//! ```text
//! pair::client --> CONNECT --> server --> agent --> Target (serves every connection by itself)
//!                                               \-> a listener of the test, by join()
//! ```
//!
//! Unlike [`load`](crate::load), which measures, this looks at every byte. Everything here panics when it takes longer
//! than [`LIMIT`], or when what must not fail does: it is for tests only.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    load::path::Dial,
    pair::{Pair, client::Client, http, program::Program, until},
};

/// Nothing in a test takes longer, unless it is broken.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The whole answer to a CONNECT that succeeded.
pub const ESTABLISHED: &[u8; 39] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// Connections that a target's kernel keeps until they are accepted; 2,000 may come at once.
const BACKLOG: u32 = 4096;

/// A target on a port of its own that serves every connection in the same way; it is gone when this is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    ended: AtomicUsize,
}

impl Target {
    /// Reads nothing, writes nothing, and stays.
    pub fn deaf() -> Self {
        Self::new(|stream| async move {
            let _open = stream;
            std::future::pending().await
        })
    }

    /// Serves each connection with `serve`; the connection ends when that does.
    pub fn new<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = listen(Ipv4Addr::LOCALHOST);
        let address = address(&listener);
        let counts = Arc::<Counts>::default();
        let counting = counts.clone();
        #[allow(clippy::disallowed_methods, reason = "the struct owns the task and ends it when it is dropped")]
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    stream = accept(&listener) => {
                        counting.accepted.fetch_add(1, Ordering::Relaxed);
                        let (served, counting) = (serve(stream), counting.clone());
                        connections.spawn(async move {
                            served.await;
                            counting.ended.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    Some(ended) = connections.join_next() => ended.expect("a target must not panic"),
                }
            }
        });
        Self { address, counts, task }
    }

    /// Answers what it gets, until its peer ends.
    pub fn echo() -> Self {
        Self::new(echo_back)
    }

    /// Speaks first, then answers what it gets.
    pub fn banner(banner: &'static [u8]) -> Self {
        Self::new(move |mut stream| async move {
            if stream.write_all(banner).await.is_ok() {
                echo_back(stream).await;
            }
        })
    }

    /// Connections that it has had.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Connections that it has now.
    pub fn open(&self) -> usize {
        // In this order, so that one that comes in between makes the difference larger and never negative.
        let ended = self.counts.ended.load(Ordering::Relaxed);
        self.accepted() - ended
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo_back(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    // An error is the peer's way to end it.
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Listens on a free port of `ip`, with room for many that come at once.
///
/// # Panics
/// When the system gives none.
pub fn listen(ip: impl Into<IpAddr>) -> TcpListener {
    let ip = ip.into();
    let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.bind((ip, 0).into()).expect("a free port");
    socket.listen(BACKLOG).expect("it can listen")
}

/// Where it listens.
///
/// # Panics
/// Never for a bound socket.
pub fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

/// Accepts the next connection.
///
/// # Panics
/// When the system gives none.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.expect("accept");
    stream.set_nodelay(true).expect("the socket is open");
    stream
}

/// Both ends of a new dial: the client's and the target's.
///
/// # Panics
/// When the dial fails.
pub async fn join(client: &Client) -> (Dial, TcpStream) {
    let listener = listen(Ipv4Addr::LOCALHOST);
    let target = address(&listener).to_string();
    let both = async { tokio::join!(client.dial(&target), accept(&listener)) };
    let (dial, target) = within("a dial", both).await;
    (dial.expect("the dial succeeds"), target)
}

/// Sends `bytes` to the frontend and reads its whole answer, to the end of the connection, which must be clean.
///
/// # Panics
/// When the connection fails.
pub async fn ask(client: &Client, bytes: &[u8]) -> String {
    let mut dial = within("connecting", client.connect()).await.expect("the frontend accepts");
    dial.write_all(bytes).await.expect("the frontend takes the request");
    dial.flush().await.expect("the frontend takes the request");
    let (reply, end) = read_rest(&mut dial).await;
    let reply = String::from_utf8(reply).expect("answers are text");
    end.unwrap_or_else(|error| panic!("the answer {reply:?} ended with {error}"));
    reply
}

/// What kube-apiserver sends to reach `target`, byte by byte.
pub fn request(target: impl std::fmt::Display) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

/// Ends a client's connection at once: TCP sends RST. A Unix socket has no such thing and closes as usual.
///
/// # Panics
/// When the socket refuses.
pub fn reset(dial: Dial) {
    match dial {
        Dial::Tcp(stream) => reset_tcp(stream),
        Dial::Tls(stream) => reset_tcp(stream.into_inner().0),
        Dial::Unix(_) | Dial::Grpc(_) | Dial::GrpcTls(_) => {}
    }
}

/// Ends a connection with RST.
///
/// # Panics
/// When the socket refuses.
pub fn reset_tcp(stream: TcpStream) {
    stream.set_zero_linger().expect("the socket is open");
}

/// A target whose queue of connections is full: a connect to it stays pending until [`Full::free`].
#[derive(Debug)]
pub struct Full {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    filler: TcpStream,
}

impl Full {
    /// Listens and fills the queue. (On Linux a queue of length zero has room for one connection, and the next ones'
    /// SYN is dropped.)
    ///
    /// # Panics
    /// When the queue cannot be filled.
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = socket.listen(0).expect("it can listen");
        let address = address(&listener);
        let filler = within("filling the queue", TcpStream::connect(address)).await.expect("a connection");
        Self { address, listener, filler }
    }

    /// Connects that wait for an answer, by the system's table (`SYN_SENT` in `/proc/net/tcp`).
    ///
    /// # Panics
    /// When the table cannot be read.
    pub fn pending(&self) -> usize {
        let [port, ip] = [u32::from(self.address.port()), u32::from_le_bytes([127, 0, 0, 1])];
        let remote = format!(" {ip:08X}:{port:04X} 02 ");
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of TCP sockets");
        table.lines().filter(|line| line.contains(&remote)).count()
    }

    /// Waits until so many connects are pending.
    ///
    /// # Panics
    /// When they do not become so many.
    pub async fn has_pending(&self, count: usize) {
        until(&format!("{count} pending connects"), LIMIT, async || (self.pending() == count).then_some(())).await;
    }

    /// Empties the queue: pending connects succeed at their next try, a second or more after their first.
    ///
    /// # Panics
    /// When the queue was empty.
    pub async fn free(self) -> TcpListener {
        let accepted = within("the queue's connection", accept(&self.listener)).await;
        assert_eq!(accepted.peer_addr().ok(), self.filler.local_addr().ok());
        self.listener
    }
}

/// Waits until the tunnel has read all that a target at `address` has written before it closed, the end included.
///
/// # Panics
/// When it does not, or when the table of sockets cannot be read.
pub async fn until_read(address: SocketAddr) {
    const ESTABLISHED: &str = "01";
    const EMPTY_QUEUES: &str = "00000000:00000000";
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not IPv4") };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port());
    until(&format!("all bytes of {address} are read"), LIMIT, async || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of TCP sockets");
        let unread = table.lines().any(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let is_of_target = fields.len() > 4 && (fields[1] == local || fields[2] == local);
            is_of_target && (fields[3] == ESTABLISHED || fields[4] != EMPTY_QUEUES)
        });
        (!unread).then_some(())
    })
    .await;
}

/// Bytes after which the pattern repeats: a prime, so that no buffer is a multiple of it.
const PERIOD: usize = 65_521;

/// Bytes that tell where they belong, so that none can be lost, doubled or swapped unnoticed.
pub fn pattern(from: usize, bytes: usize) -> Vec<u8> {
    static TWICE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |place: usize| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        (0..2 * PERIOD).map(|place| byte(place % PERIOD)).collect()
    });
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        let start = (from + all.len()) % PERIOD;
        let part = PERIOD.min(bytes - all.len());
        all.extend_from_slice(&TWICE[start..start + part]);
    }
    all
}

/// Writes the pattern from its start up to `bytes`, or as much of it as is taken. How much that was.
pub async fn write_pattern(to: &mut (impl AsyncWrite + Unpin), bytes: usize) -> usize {
    const CHUNK: usize = 64 * 1024;
    let mut written = 0;
    while written < bytes {
        let chunk = pattern(written, CHUNK.min(bytes - written));
        if to.write_all(&chunk).await.is_err() {
            return written;
        }
        written += chunk.len();
    }
    // A failure shows at the reader.
    let _ = to.flush().await;
    written
}

/// Reads to the end, or up to `most` bytes, and checks each byte against the pattern. How many came, and how they
/// ended.
///
/// # Panics
/// When a byte is not the one that was sent, or nothing comes any more.
pub async fn read_pattern(from: &mut (impl AsyncRead + Unpin), most: usize) -> (usize, io::Result<()>) {
    let mut buffer = vec![0; 256 * 1024];
    let mut read = 0;
    while read < most {
        let space = buffer.len().min(most - read);
        match within("the next bytes", from.read(&mut buffer[..space])).await {
            Ok(0) => return (read, Ok(())),
            Ok(bytes) => {
                assert!(buffer[..bytes] == pattern(read, bytes), "a byte after {read} is not what was sent");
                read += bytes;
            }
            Err(error) => return (read, Err(error)),
        }
    }
    (read, Ok(()))
}

/// Reads to the end; what came, and how it ended.
///
/// # Panics
/// When there is no end.
pub async fn read_rest(from: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = within("the end", from.read_to_end(&mut bytes)).await;
    (bytes, end.map(drop))
}

/// Sends `bytes` and reads as many back.
///
/// # Panics
/// When they fail to come back, or others do.
pub async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    carry(&mut write, &mut read, bytes).await;
}

/// Sends `bytes` from one end to the other.
///
/// # Panics
/// When they do not arrive, or others do.
pub async fn carry(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let send = async {
        from.write_all(bytes).await?;
        from.flush().await
    };
    let receive = async {
        let mut arrived = vec![0; bytes.len()];
        to.read_exact(&mut arrived).await.map(|_| arrived)
    };
    let ((), arrived) =
        within("bytes on their way", async { tokio::try_join!(send, receive) }).await.expect("they arrive");
    assert!(arrived == bytes, "other bytes than were sent");
}

/// Waits for the future, but not longer than [`LIMIT`].
///
/// # Panics
/// When it takes longer; with `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} took longer than {LIMIT:?}"))
}

/// Waits until neither the server nor its agents have a dial.
///
/// # Panics
/// When some stay.
pub async fn no_dials(pair: &Pair) {
    until("no open dials at either end", LIMIT, async || {
        let mut connections = pair.server.connections().await.expect("the server's admin port");
        for agent in &pair.agents {
            connections.extend(agent.connections().await.expect("the agent's admin port"));
        }
        connections.iter().all(|connection| connection["open_dials"] == 0).then_some(())
    })
    .await;
}

/// The value of a metric on a health port, by its name and labels as they are printed; 0 if it is not there.
///
/// # Panics
/// When the port does not answer, or not with a number.
pub async fn metric(health: SocketAddr, name: &str) -> f64 {
    let page = http::get(health, "/metrics").await.expect("the health port answers").body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Waits until a metric has a value.
///
/// # Panics
/// When it does not get there.
pub async fn has_metric(health: SocketAddr, name: &str, value: f64) {
    until(&format!("{name} {value}"), LIMIT, async || (metric(health, name).await == value).then_some(())).await;
}

/// Lets this process, and those that it starts from now on, have `wanted` open files.
///
/// # Panics
/// When the hard limit is lower.
pub fn raise_open_files(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit(2)");
    assert!(hard >= wanted, "this test needs a hard limit of {wanted} open files (ulimit -Hn), and it is {hard}");
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be raised to the hard one");
    }
}

/// Open file descriptors of a process.
///
/// # Panics
/// When it is gone.
pub fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.id())).expect("it runs").count()
}

/// Resident memory of a process in bytes, without the kernel's memory for its sockets.
///
/// # Panics
/// When it is gone.
pub fn resident(program: &Program) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_however_it_is_cut() {
        let all = pattern(0, 3 * PERIOD);
        for (from, bytes) in [(0, 10), (PERIOD - 1, 2), (7, 2 * PERIOD), (PERIOD, PERIOD)] {
            assert!(pattern(from, bytes) == all[from..from + bytes], "{from} {bytes}");
        }
        assert_ne!(all[..1000], all[1000..2000]);
    }
}
