//! Copies between a dial of a mux and a socket. The table is at [`MuxDial::relay`].

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{MuxDial, Role, STALL_LIMIT, SlowDial, dial::End};
use crate::{
    batch::Batch,
    buffer::{ReadBuffer, Size},
    connection::ConnectionLost,
    relay::{
        Outcome, Start,
        edge::{Edge, LINGER},
    },
    socket::Socket,
};

/// How often a socket that nobody reads is looked at.
const CHECK: Duration = Duration::from_millis(250);

/// A client that has ended its half may still want the answer. Its dial is closed when the target has said nothing for
/// so long: no packet can tell the target of the end alone.
const HALF_CLOSE_SILENCE: Duration = Duration::from_secs(2);

/// What an agent says of a target that was reset.
const RESET: &str = "connection reset";

/// How the direction from the socket ended.
enum Up {
    Finished,
    SocketFailed(io::Error),
    /// The dial is closed or its stream gone; the other direction tells how.
    Over,
}

/// How the direction to the socket ended.
enum Down {
    Closed(String),
    SocketClosed(io::Error),
    /// The socket's peer is gone for both directions, after a clean end of its bytes.
    PeerLeft,
    /// It has ended its half, and the other end has said nothing since.
    Quiet,
    Stalled,
    OverBudget,
    Lost(Arc<str>),
}

pub(super) async fn relay<S: Socket>(dial: &MuxDial, socket: S, start: Start) -> Outcome {
    let mut edge = Edge::new(socket);
    let (up, down) = {
        let up = pin!(copy_up(&edge, dial, start.early));
        let down = pin!(copy_down(&edge, dial, start.hold_until_read));
        join(&edge, dial, up, down).await
    };
    conclude(&mut edge, dial, up, down).await
}

async fn join<S: Socket>(
    edge: &Edge<S>,
    dial: &MuxDial,
    mut up: Pin<&mut impl Future<Output = Up>>,
    mut down: Pin<&mut impl Future<Output = Down>>,
) -> (Option<Up>, Option<Down>) {
    let (mut up_end, mut down_end) = (None, None);
    let look_every = dial.close_pause().clamp(CHECK / 10, CHECK);
    let mut quiet = Quiet::default();
    loop {
        let watched = matches!(up_end, Some(Up::Finished)) && down_end.is_none() && dial.role() == Role::Server;
        tokio::select! {
            biased;
            end = &mut up, if up_end.is_none() => up_end = Some(end),
            end = &mut down, if down_end.is_none() => down_end = Some(end),
            () = tokio::time::sleep(look_every), if watched => {
                down_end = quiet.look(edge, dial);
            }
        }
        match (&up_end, &down_end) {
            // The client learns of the target's end only by the close of the dial.
            (Some(Up::Finished), None) if dial.role() == Role::Agent => dial.close(""),
            (Some(Up::Finished | Up::Over), None) | (None, None) => {}
            // A target that takes no more may still have something to say.
            (None, Some(Down::SocketClosed(_))) if dial.role() == Role::Agent => dial.ignore(),
            _ => return (up_end, down_end),
        }
    }
}

/// What is known of a client that has ended its half.
#[derive(Default)]
struct Quiet {
    received: u64,
    since: Option<Instant>,
    left_at: Option<Instant>,
}

impl Quiet {
    /// Whether it is time to close the dial.
    fn look<S: Socket>(&mut self, edge: &Edge<S>, dial: &MuxDial) -> Option<Down> {
        let now = Instant::now();
        let (is_closed, is_aborted) = {
            let mut socket = edge.lock();
            (socket.is_closed(), socket.is_aborted())
        };
        if is_aborted {
            return Some(Down::SocketClosed(io::ErrorKind::ConnectionReset.into()));
        }
        if !dial.is_flushed() {
            (self.since, self.left_at) = (None, None);
            return None;
        }
        if is_closed && now.duration_since(*self.left_at.get_or_insert(now)) >= dial.close_pause() {
            return Some(Down::PeerLeft);
        }
        let received = dial.flow().bytes_received();
        if received != self.received {
            (self.received, self.since) = (received, None);
        }
        (now.duration_since(*self.since.get_or_insert(now)) >= HALF_CLOSE_SILENCE).then_some(Down::Quiet)
    }
}

/// Ends what is still open, and says how the dial ended.
async fn conclude<S: Socket>(edge: &mut Edge<S>, dial: &MuxDial, up: Option<Up>, down: Option<Down>) -> Outcome {
    match (up, down) {
        (_, Some(Down::Lost(reason))) => Outcome::ConnectionLost(ConnectionLost::Transport(reason.to_string())),
        (_, Some(Down::Stalled)) => {
            dial.close("the target takes no bytes");
            Outcome::Stalled
        }
        (_, Some(Down::OverBudget)) => {
            dial.close("the memory budget is spent");
            Outcome::OverBudget
        }
        (Some(Up::SocketFailed(error)), _) => {
            dial.close(RESET);
            Outcome::SocketFailed(error.to_string())
        }
        (_, Some(Down::Closed(error))) if !error.is_empty() => Outcome::PeerClosed(error),
        (_, Some(Down::Closed(_))) => {
            dial.close("");
            edge.clean = true;
            // What was written last must not be destroyed by a reset for bytes that nobody reads.
            edge.linger().await;
            Outcome::Finished
        }
        (_, Some(Down::PeerLeft | Down::Quiet)) => {
            dial.close("");
            edge.clean = true;
            Outcome::Finished
        }
        (Some(Up::Finished), Some(Down::SocketClosed(_))) => {
            dial.close("");
            edge.clean = true;
            Outcome::HalfStopped
        }
        (_, Some(Down::SocketClosed(error))) => {
            dial.close(RESET);
            Outcome::SocketFailed(error.to_string())
        }
        (_, None) => Outcome::HalfStopped,
    }
}

async fn copy_up<S: Socket>(edge: &Edge<S>, dial: &MuxDial, early: Bytes) -> Up {
    dial.push(early);
    let mut size = Size::SMALLEST;
    loop {
        // An idle dial waits here, without a buffer.
        if let Err(error) = edge.read_ready().await {
            return Up::SocketFailed(error);
        }
        match room(edge, dial).await {
            Ok(true) => {}
            Ok(false) => return Up::Over,
            Err(error) => return Up::SocketFailed(error),
        }
        let held = edge.lock().held_bytes();
        if let Some(held) = held {
            edge.heard.store(true, Ordering::Relaxed);
            let taken = edge.lock().take_bytes(held.min(Size::LARGEST.bytes()));
            dial.push(taken);
            continue;
        }
        let mut buffer = ReadBuffer::take(size);
        match edge.read_now(&mut buffer).await {
            None => continue,
            Some(Ok(0)) if edge.reset_seen() => return Up::SocketFailed(io::ErrorKind::ConnectionReset.into()),
            Some(Ok(0)) => return Up::Finished,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Up::SocketFailed(error),
        }
        edge.heard.store(true, Ordering::Relaxed);
        size = size.after_read(buffer.filled().len());
        dial.push(buffer.into_bytes());
    }
}

/// Waits until bytes may be sent, unless the dial is over. Meanwhile a reset of the socket is looked for, which no read
/// would show.
async fn room<S: Socket>(edge: &Edge<S>, dial: &MuxDial) -> io::Result<bool> {
    loop {
        tokio::select! {
            biased;
            room = dial.room() => return Ok(room.is_ok()),
            () = tokio::time::sleep(CHECK) => {}
        }
        if edge.lock().is_aborted() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
}

async fn copy_down<S: Socket>(edge: &Edge<S>, dial: &MuxDial, hold_until_read: bool) -> Down {
    let mut hold = hold_until_read;
    let mut patience = Patience::default();
    loop {
        let next = poll_fn(|cx| dial.poll_batch(cx)).await;
        let hold = std::mem::take(&mut hold);
        match next {
            Ok(batch) => {
                let bytes = batch.len();
                if let Err(end) = write(edge, dial, batch, hold, &mut patience).await {
                    return end;
                }
                dial.flow().count_received(bytes);
            }
            Err(End::Lost(reason)) => return Down::Lost(reason),
            Err(End::Closed(error)) if error.is_empty() => {
                let shutdown = pin!(async {
                    if hold {
                        edge.peer_has_read().await;
                    }
                    edge.shutdown().await
                });
                match guarded(dial, shutdown, &mut patience).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => edge.write_failed.store(true, Ordering::Relaxed),
                    Err(end) => return end,
                }
                return Down::Closed(error);
            }
            Err(End::Closed(error)) => return Down::Closed(error),
        }
    }
}

/// What a dial has taken since its buffer is full: one that takes next to nothing would hold up all others of its stream.
#[derive(Default)]
struct Patience {
    since: Option<Instant>,
    taken: u64,
}

impl Patience {
    /// Whether the dial has had its time, and has not taken an eighth of its buffer in it.
    fn is_over(&mut self, dial: &MuxDial, now: Instant) -> bool {
        if !dial.is_over_buffer() {
            self.since = None;
            return false;
        }
        let taken = dial.flow().bytes_received();
        let begin = *self.since.get_or_insert_with(|| {
            self.taken = taken;
            now
        });
        if now.duration_since(begin) < STALL_LIMIT {
            return false;
        }
        if taken - self.taken < dial.buffer() as u64 / 8 {
            return true;
        }
        (self.since, self.taken) = (Some(now), taken);
        false
    }
}

/// Writes a batch.
async fn write<S: Socket>(
    edge: &Edge<S>,
    dial: &MuxDial,
    batch: Batch,
    hold: bool,
    patience: &mut Patience,
) -> Result<(), Down> {
    let write = pin!(edge.write_batch(batch, hold, dial.flow()));
    guarded(dial, write, patience).await?.map_err(|error| {
        edge.write_failed.store(true, Ordering::Relaxed);
        Down::SocketClosed(error)
    })
}

/// Waits for an operation on the socket. While it takes nothing the dial counts as stalled, and can be ended.
async fn guarded<O: Future<Output = io::Result<()>>>(
    dial: &MuxDial,
    mut operation: Pin<&mut O>,
    patience: &mut Patience,
) -> Result<io::Result<()>, Down> {
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(operation.as_mut().poll(cx))).await {
        return Ok(done);
    }
    let _stalled = Stalled::begin(dial);
    loop {
        tokio::select! {
            biased;
            done = &mut operation => return Ok(done),
            () = dial.flow().evicted() => return Err(Down::OverBudget),
            () = tokio::time::sleep(CHECK) => {}
        }
        let now = Instant::now();
        if patience.is_over(dial, now) && dial.slow_dial() == SlowDial::Close {
            return Err(Down::Stalled);
        }
        let stalled = dial.flow().stalled_for(now).unwrap_or_default();
        // Nobody else ends a target that takes nothing when its client is gone.
        if stalled >= STALL_LIMIT && dial.role() == Role::Agent && dial.is_closing() {
            return Err(Down::Stalled);
        }
        if stalled >= LINGER
            && let Some(reason) = dial.lost_reason()
        {
            return Err(Down::Lost(reason));
        }
    }
}

/// Marks a dial as stalled until it goes.
struct Stalled<'a>(&'a MuxDial);

impl<'a> Stalled<'a> {
    fn begin(dial: &'a MuxDial) -> Self {
        dial.flow().set_stalled(Some(Instant::now()));
        Self(dial)
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.flow().set_stalled(None);
    }
}
