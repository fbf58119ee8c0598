//! A client of the gRPC frontend that costs little: one dial on a connection of its own, as kube-apiserver has it.
//!
//! ```text
//! bytes of the dial --> Outgoing: packets --> messages --> DATA frames, as far as the server's windows go --> socket
//! bytes of the dial <-- Incoming: packets <-- messages <-- DATA frames <-- socket,  Windows: what the server may send
//! ```
//!
//! It does to a server what Go's library does: the same headers, sizes of packets and frames, windows that grow with
//! what is under way, and the pings that measure that. It has no task of its own: whoever reads or writes moves all.
//!
//! - [`incoming`], [`outgoing`]: from frames to bytes and back.
//! - [`window`]: the windows.

pub mod incoming;
pub mod outgoing;
pub mod window;

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use konnectivity_transport::packet::{Packet, Payload};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::path::DialError;
use crate::pair::grpc::frame::{Frame, PREFACE, kind};
use crate::pair::grpc::header::{self, Blocks, Form};
use incoming::{Event, Incoming};
use outgoing::Outgoing;
use window::{STREAM, Windows};

/// Go's library lets a write of less than this wait for more to come, which it may send together.
const SMALL_BYTES: usize = 1000;

/// How long an answer to the wish to close is awaited, as the reference's client does.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// What a call begins with: the block of its headers. It is the same on every connection, which has one call.
#[derive(Debug, Clone)]
pub struct Call(Arc<[u8]>);

impl Call {
    /// A call over a Unix socket; its path is the authority, which Go encodes like this.
    pub fn over_unix(path: &std::path::Path) -> Self {
        let mut authority = String::new();
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    authority.push(char::from(*byte))
                }
                _ => {
                    let _ = write!(authority, "%{byte:02X}");
                }
            }
        }
        Self::new(header::request(&authority))
    }

    /// A call over TLS to this `host:port`.
    pub fn over_tls(authority: &str) -> Self {
        Self::new(header::with(header::request(authority), ":scheme", "https"))
    }

    fn new(headers: header::Headers) -> Self {
        Self(Blocks::default().block(&headers, Form::GO).into())
    }
}

/// The client's side of a dial.
///
/// Its two directions must be polled by one task: each of them reads and writes the socket.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    incoming: Incoming,
    outgoing: Outgoing,
    windows: Windows,
    /// The server's SETTINGS have come.
    settled: bool,
    /// The dial has been answered well.
    connected: bool,
    /// CLOSE_REQ was sent.
    closing: bool,
    /// Why nothing more comes.
    end: Option<End>,
    /// Somebody waits for credit, and nothing but a read can bring it.
    starved: bool,
}

#[derive(Debug, Clone)]
enum End {
    Clean,
    Error(String),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Makes the connection, the call and the dial.
    ///
    /// # Errors
    /// [`DialError::Refused`] with what the server has answered, or the connection's end.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn dial(stream: S, call: &Call, target: &str) -> Result<Self, DialError> {
        let mut client = Self {
            stream,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            windows: Windows::default(),
            settled: false,
            connected: false,
            closing: false,
            end: None,
            starved: false,
        };
        client.outgoing.frames().extend_from_slice(PREFACE);
        client.outgoing.frames().extend(Frame::settings(&[]).bytes());
        // Go's connection is not ready before that.
        client.until(|client| client.settled).await?;
        client.outgoing.frames().extend(Frame::headers(STREAM, &*call.0).bytes());
        client.outgoing.packet(&Packet::dial_request(target, dial_id()));
        client.until(|client| client.connected).await?;
        match client.end {
            _ if client.connected => Ok(client),
            Some(End::Error(text)) => Err(DialError::Refused(text)),
            _ => Err(DialError::Refused("closed".to_owned())),
        }
    }

    /// Says that it closes, waits until the server says so too, and ends the connection.
    ///
    /// # Errors
    /// When the connection ends first, or after ten seconds.
    pub async fn close(mut self) -> io::Result<()> {
        let closed = async {
            self.shutdown().await?;
            self.until(|_| false).await?;
            self.outgoing.frames().extend(Frame::new(kind::GOAWAY, 0, 0, [0; 8]).bytes());
            // The server may be quicker to end the connection.
            let _ = poll_fn(|cx| self.outgoing.poll_write(&mut self.stream, cx)).await;
            Ok(())
        };
        timeout(CLOSED_WITHIN, closed).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and writes until something has happened, or nothing more comes. Bytes of the dial are thrown away until
    /// then; what comes right behind it stays to be read.
    async fn until(&mut self, happened: impl Fn(&Self) -> bool) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                while let Some(bytes) = self.take_in()? {
                    if happened(self) {
                        self.incoming.rest();
                        return Poll::Ready(Ok(()));
                    }
                    self.incoming.consume(bytes);
                }
                if happened(self) || self.end.is_some() {
                    self.incoming.rest();
                    return Poll::Ready(Ok(()));
                }
                self.send(cx)?;
                ready!(self.fill(cx))?;
            }
        })
        .await
    }

    /// Sees to everything that has come up to the next bytes of the dial; says how many of those are there.
    fn take_in(&mut self) -> io::Result<Option<usize>> {
        loop {
            let event = self.incoming.event()?;
            let received = self.incoming.received();
            if received > 0 {
                self.windows.received(received, Instant::now(), self.outgoing.frames())?;
            }
            match event {
                None => return Ok(None),
                Some(Event::Data(bytes)) => return Ok(Some(bytes)),
                Some(Event::Packet(packet)) => self.packet(packet)?,
                Some(Event::Settings(initial)) => {
                    self.settled = true;
                    self.outgoing.frames().extend(Frame::settings_ack().bytes());
                    initial.into_iter().for_each(|bytes| self.outgoing.credit().initial(bytes));
                }
                Some(Event::Ping(bytes)) => self.outgoing.frames().extend(Frame::ping_ack(bytes).bytes()),
                Some(Event::Pong(bytes)) => self.windows.answered(bytes, Instant::now(), self.outgoing.frames()),
                Some(Event::WindowUpdate(stream, bytes)) => self.outgoing.credit().more(stream, bytes),
                Some(Event::Ended) => self.ended("the call has ended"),
                Some(Event::Reset(code)) => self.ended(format!("the call was reset with {code}")),
                Some(Event::Nothing) => {}
            }
        }
    }

    fn packet(&mut self, packet: Packet) -> io::Result<()> {
        match packet.payload {
            Some(Payload::DialResponse(answer)) if answer.error.is_empty() => {
                self.incoming.connect_id = answer.connect_id;
                self.connected = true;
            }
            Some(Payload::DialResponse(answer)) => self.ended(answer.error),
            Some(Payload::CloseResponse(closed)) if closed.error.is_empty() => {
                self.end.get_or_insert(End::Clean);
            }
            Some(Payload::CloseResponse(closed)) => self.ended(closed.error),
            other => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an unexpected packet: {other:?}")));
            }
        }
        Ok(())
    }

    /// The first reason counts.
    fn ended(&mut self, why: impl Into<String>) {
        self.end.get_or_insert_with(|| End::Error(why.into()));
    }

    /// Writes what can be written now; it is no matter if the socket takes no more.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.outgoing.proceed();
        match self.outgoing.poll_write(&mut self.stream, cx) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let filled = self.incoming.poll_fill(&mut self.stream, cx);
        self.incoming.rest();
        filled
    }

    /// Waits until all that was taken is with the socket. It reads too: what brings credit, what asks for an answer.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = self.take_in()?;
        while bytes.is_none() && self.end.is_none() {
            let Poll::Ready(filled) = self.fill(cx) else { break };
            filled?;
            bytes = self.take_in()?;
        }
        self.send(cx)?;
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.starved = bytes.is_some();
        Poll::Pending
    }
}

/// Numbers of dials must differ in the whole server, so they look random, as those of the reference's client.
fn dial_id() -> i64 {
    static DIALS: AtomicU64 = AtomicU64::new(1);
    /// Odd, so that the products of no two dials are the same.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let id = DIALS.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP);
    (id & i64::MAX.unsigned_abs()).cast_signed()
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Client<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            while let Some(bytes) = this.take_in()? {
                let bytes = bytes.min(buf.remaining());
                buf.put_slice(this.incoming.front(bytes));
                this.incoming.consume(bytes);
                if buf.remaining() == 0 {
                    break;
                }
            }
            if std::mem::take(&mut this.starved) {
                cx.waker().wake_by_ref();
            }
            let bytes = buf.filled().len() - before;
            // What is sent after a few bytes, if anything, takes windows and pings along.
            if bytes >= SMALL_BYTES {
                // Bytes that have come are not lost by an error in sending.
                let _ = this.send(cx);
            }
            if bytes > 0 || buf.remaining() == 0 {
                this.incoming.rest();
                return Poll::Ready(Ok(()));
            }
            match &this.end {
                Some(End::Clean) => return Poll::Ready(Ok(())),
                Some(End::Error(text)) => return Poll::Ready(Err(io::Error::other(text.clone()))),
                None => {}
            }
            match this.fill(cx) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => {
                    this.send(cx)?;
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Client<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_written(cx))?;
        if this.end.is_some() || this.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = this.outgoing.data(this.incoming.connect_id, buf);
        this.send(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_written(cx)
    }

    /// Packets cannot end one direction alone: this closes both.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closing, true) {
            this.outgoing.packet(&Packet::close_request(this.incoming.connect_id));
        }
        this.poll_written(cx)
    }
}

#[cfg(test)]
mod tests;
