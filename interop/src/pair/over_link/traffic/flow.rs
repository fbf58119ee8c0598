//! One dial's traffic: what each of its ends does, and what has come.

use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ends::pattern;

/// Bytes written at once.
const CHUNK: usize = 16 * 1024;
/// Bytes of an echo: a key press with what is around it.
const ECHO: usize = 64;

/// What a dial does, without end until it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The target sends as fast as it can.
    ToClient,
    /// The client sends as fast as it can.
    ToTarget,
    /// The client sends some bytes, waits until they are back, and so long besides.
    Echo(Duration),
}

impl Kind {
    /// Both transfers, and echoes all the time.
    pub const ALL: [Self; 3] = [Self::ToClient, Self::ToTarget, Self::Echo(Duration::from_millis(50))];

    /// Steps (bytes or echoes) after which a flow is well under way, whatever was buffered on its way.
    pub(super) fn many(self) -> u64 {
        if let Self::Echo(_) = self { 3 } else { 256 * 1024 }
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Flow {
    pub kind: Kind,
    progress: Mutex<Progress>,
}

/// What has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Bytes or echoes.
    pub steps: u64,
    pub last: Instant,
    /// Between two steps.
    pub longest: Duration,
}

impl Flow {
    /// Nothing has come.
    pub fn new(kind: Kind) -> Self {
        let progress = Progress { steps: 0, last: Instant::now(), longest: Duration::ZERO };
        Self { kind, progress: Mutex::new(progress) }
    }

    /// To look at, or to count anew.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self, steps: u64) {
        let mut progress = self.progress();
        progress.steps += steps;
        progress.longest = progress.longest.max(progress.last.elapsed());
        progress.last = Instant::now();
    }
}

/// Sends until it is told to stop, and then the end.
pub(super) async fn send(mut to: impl AsyncWrite + Unpin, stop: &CancellationToken) -> (usize, io::Result<()>) {
    let mut sent = 0;
    while !stop.is_cancelled() {
        if let Err(error) = to.write_all(&pattern(sent, CHUNK)).await {
            return (sent, Err(error));
        }
        sent += CHUNK;
    }
    (sent, to.shutdown().await)
}

/// Receives until the end, and checks each byte.
pub(super) async fn receive(
    mut from: impl AsyncRead + Unpin,
    flow: &Flow,
    stop: &CancellationToken,
) -> (usize, io::Result<()>) {
    let mut buffer = vec![0; 4 * CHUNK];
    let mut received = 0;
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return (received, expected_end(stop)),
            Ok(bytes) => {
                assert!(buffer[..bytes] == pattern(received, bytes), "a byte after {received} is not what was sent");
                received += bytes;
                flow.moved(bytes as u64);
            }
            Err(error) => return (received, Err(error)),
        }
    }
}

/// Sends bytes and waits for them to come back, again and again.
pub(super) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    pause: Duration,
    flow: &Flow,
    stop: &CancellationToken,
) -> (usize, io::Result<()>) {
    let mut asked = 0;
    let mut round = async || {
        let bytes = pattern(asked, ECHO);
        stream.write_all(&bytes).await?;
        let mut back = [0; ECHO];
        stream.read_exact(&mut back).await?;
        assert!(back == bytes[..], "another echo than what was sent after {asked}");
        asked += ECHO;
        flow.moved(1);
        // The pause need not be waited for to the end.
        let _ = timeout(pause, stop.cancelled()).await;
        io::Result::Ok(())
    };
    let result = async {
        while !stop.is_cancelled() {
            round().await?;
        }
        Ok(())
    };
    if let Err(error) = result.await {
        return (asked, Err(error));
    }
    let end = async {
        stream.shutdown().await?;
        if stream.read(&mut [0]).await? == 0 { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    };
    (asked, end.await)
}

/// Sends back what comes.
pub(super) async fn answer(mut stream: TcpStream, stop: &CancellationToken) -> (usize, io::Result<()>) {
    let (mut read, mut write) = stream.split();
    let mut buffer = [0; ECHO];
    let mut answered = 0;
    let result = loop {
        match read.read(&mut buffer).await {
            Ok(0) => break expected_end(stop),
            Ok(bytes) => {
                if let Err(error) = write.write_all(&buffer[..bytes]).await {
                    break Err(error);
                }
                answered += bytes;
            }
            Err(error) => break Err(error),
        }
    };
    (answered, result)
}

/// A clean end, which is none unless it was told to stop.
fn expected_end(stop: &CancellationToken) -> io::Result<()> {
    if stop.is_cancelled() { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
