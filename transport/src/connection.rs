//! One QUIC connection between an agent and a server: hello, opening and accepting dials, statistics, close.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::VarInt;

use crate::{
    control::{ControlReceiver, ControlSender},
    credit::{self, Credit},
    flow::DialFlow,
    settings::QuicSettings,
    stream::{DialStream, MessageError, ReceiveHalf, SendHalf, SendMessageError},
    window::{Change, MemoryBudget, Windows},
    wire::{
        code::{ConnectionCode, StreamCode},
        codec::{MAX_DIAL_REPLY_BYTES, MAX_DIAL_REQUEST_BYTES},
        message::{DialReply, DialRequest},
    },
};

/// Dials that the server may open before the limit is raised for the first time. QUIC stacks pay memory for each.
pub(crate) const FIRST_STREAM_LIMIT: u32 = 128;

/// The congestion window is looked at this often while credit is asked for.
const CREDIT_SAMPLE: Duration = Duration::from_millis(20);

/// Receive windows are adapted this often.
const WINDOW_SAMPLE: Duration = Duration::from_secs(1);

/// A dial is ended for the sake of others only after it has taken nothing for this long.
const EVICT_AFTER: Duration = Duration::from_secs(1);

/// How long the head of a dial stream may take: the peer opens the stream with it, so only loss delays it.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Why a connection is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionLost {
    /// The peer closed it and said why.
    #[error("closed by the peer: {} ({})", .reason, .code.map_or("unknown code", ConnectionCode::meaning))]
    Closed {
        /// What the code means; `None` for one of a later version.
        code: Option<ConnectionCode>,
        /// The reason in words.
        reason: String,
    },
    /// Closed by this end.
    #[error("closed by this end")]
    ClosedHere,
    /// Nothing was heard for the idle timeout: the peer or the path is gone.
    #[error("nothing heard from the peer within the idle timeout")]
    TimedOut,
    /// The peer has restarted and knows nothing of this connection (RFC 9000, section 10.3).
    #[error("the peer does not know this connection any more; it was restarted")]
    Reset,
    /// This end does not accept the peer's certificate, or misses one.
    #[error(
        "the peer's certificate is not accepted: {reason}; check it, and the certificate authorities given to this end"
    )]
    PeerCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The peer does not accept this end's certificate, or misses one.
    #[error(
        "the peer does not accept this end's certificate: {reason}; check it, and the certificate authorities given to the peer"
    )]
    OwnCertificate {
        /// What the peer says is wrong with it.
        reason: String,
    },
    /// QUIC or TLS failed; the text says which check.
    #[error("{0}")]
    Transport(String),
}

impl From<quinn::ConnectionError> for ConnectionLost {
    fn from(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: ConnectionCode::from_u64(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            quinn::ConnectionError::LocallyClosed => Self::ClosedHere,
            quinn::ConnectionError::TimedOut => Self::TimedOut,
            quinn::ConnectionError::Reset => Self::Reset,
            quinn::ConnectionError::TransportError(error) if is_about_certificate(error.code) => {
                Self::PeerCertificate { reason: error.reason }
            }
            quinn::ConnectionError::ConnectionClosed(close) if is_about_certificate(close.error_code) => {
                Self::OwnCertificate { reason: String::from_utf8_lossy(&close.reason).into_owned() }
            }
            quinn::ConnectionError::ConnectionClosed(close) => Self::Transport(format!("refused by the peer: {close}")),
            other => Self::Transport(other.to_string()),
        }
    }
}

/// Whether a code is a TLS alert about a certificate (RFC 9001, section 4.8; RFC 8446, section 6.2): bad, unsupported,
/// revoked, expired, unknown, of an unknown authority, badly signed, missing.
fn is_about_certificate(code: quinn::TransportErrorCode) -> bool {
    const ALERTS: [u8; 8] = [42, 43, 44, 45, 46, 48, 51, 116];
    ALERTS.into_iter().any(|alert| code == quinn::TransportErrorCode::crypto(alert))
}

/// What both halves of all streams of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) quinn: quinn::Connection,
    pub(crate) credit: Arc<Credit>,
    windows: Windows,
    started: Instant,
    credit_sampled_at: AtomicU64,
    flows: Mutex<HashMap<u64, Arc<DialFlow>>>,
    open_dials: AtomicUsize,
    bytes_received: AtomicU64,
    stream_limit: AtomicU32,
    max_dials: u32,
}

impl Shared {
    /// Follows the congestion window with the send credit, at most every 20 ms.
    pub(crate) fn refresh_credit(&self) {
        let now = self.started.elapsed().as_micros() as u64;
        let last = self.credit_sampled_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= CREDIT_SAMPLE.as_micros() as u64 {
            self.credit_sampled_at.store(now, Ordering::Relaxed);
            self.credit.set_limit(credit::limit_for(self.quinn.stats().path.cwnd));
        }
    }

    fn apply(&self, change: &Change) {
        if let Some(window) = change.window {
            self.quinn.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
        if change.evict > 0 {
            self.evict_longest_stalled(usize::try_from(change.evict).unwrap_or(usize::MAX));
        }
    }

    fn evict_longest_stalled(&self, dials: usize) {
        let now = Instant::now();
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = flows.values().filter(|flow| !flow.is_evicted()).filter_map(|flow| {
            let time = flow.stalled_for(now).filter(|time| *time >= EVICT_AFTER)?;
            Some((time, flow))
        });
        let mut stalled: Vec<_> = stalled.collect();
        stalled.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (time, flow) in stalled.into_iter().take(dials) {
            tracing::warn!(
                stalled_seconds = time.as_secs_f64(),
                "the memory budget is spent: ending the dial whose receiver has been stalled longest; raise \
                 quic-memory-budget to allow more"
            );
            flow.evict();
        }
    }

    /// Marks the receiver of a dial as stalled until the guard goes.
    pub(crate) fn stall<'a>(&'a self, flow: &'a DialFlow) -> Stalled<'a> {
        let now = Instant::now();
        flow.set_stalled(Some(now));
        let change = self.windows.stall(now);
        self.apply(&change);
        Stalled { connection: self, flow }
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A dial whose receiver takes no bytes just now.
pub(crate) struct Stalled<'a> {
    connection: &'a Shared,
    flow: &'a DialFlow,
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.flow.set_stalled(None);
        self.connection.windows.resume(Instant::now());
    }
}

/// Facts about a connection, for metrics and the admin page.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionStats {
    /// The peer's address now.
    pub remote: SocketAddr,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Congestion window in bytes.
    pub congestion_window_bytes: u64,
    /// Largest UDP payload in bytes that the path carries now.
    pub mtu_bytes: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// UDP payload bytes sent, retransmissions and overhead included.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Dials that are open.
    pub open_dials: usize,
    /// Dials whose receiver takes no bytes just now.
    pub stalled_dials: u64,
    /// Bytes sent or to be sent that the peer has not acknowledged.
    pub unacknowledged_bytes: usize,
    /// Age of the connection.
    pub age: Duration,
}

/// A connection; clones are handles to the same one. It stays open until [`Self::close`] or until the last handle and
/// stream have gone.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    /// The agent's own endpoint, kept as long as the connection.
    endpoint: Option<quinn::Endpoint>,
}

impl Connection {
    pub(crate) fn new(
        quinn: quinn::Connection,
        endpoint: Option<quinn::Endpoint>,
        settings: &QuicSettings,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        let now = Instant::now();
        let windows = Windows::new(budget, settings.stream_receive_window, settings.connection_receive_window, now);
        let shared = Shared {
            quinn,
            credit: Arc::new(Credit::new()),
            windows,
            started: now,
            credit_sampled_at: AtomicU64::new(0),
            flows: Mutex::new(HashMap::new()),
            open_dials: AtomicUsize::new(0),
            bytes_received: AtomicU64::new(0),
            stream_limit: AtomicU32::new(FIRST_STREAM_LIMIT),
            max_dials: settings.max_dials,
        };
        Self { shared: Arc::new(shared), endpoint }
    }

    /// Opens the control stream (agent).
    ///
    /// # Errors
    /// [`ConnectionLost`].
    pub(crate) async fn open_control(&self) -> Result<(ControlSender, ControlReceiver), ConnectionLost> {
        let (send, receive) = self.shared.quinn.open_bi().await?;
        Ok(self.control(send, receive))
    }

    /// Accepts the control stream (server).
    ///
    /// # Errors
    /// [`ConnectionLost`].
    pub(crate) async fn accept_control(&self) -> Result<(ControlSender, ControlReceiver), ConnectionLost> {
        let (send, receive) = self.shared.quinn.accept_bi().await?;
        Ok(self.control(send, receive))
    }

    fn control(&self, send: quinn::SendStream, receive: quinn::RecvStream) -> (ControlSender, ControlReceiver) {
        let flow = Arc::new(DialFlow::new(Instant::now()));
        (ControlSender::new(send), ControlReceiver::new(ReceiveHalf::new(receive, flow)))
    }

    /// Opens a stream and sends the request for a dial (server). The answer is [`OpenedDial::reply`].
    ///
    /// # Errors
    /// [`SendMessageError`] when the connection is gone or the request is too large.
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up.
    pub async fn open_dial(&self, request: &DialRequest) -> Result<OpenedDial, SendMessageError> {
        let (send, receive) =
            self.shared.quinn.open_bi().await.map_err(|error| crate::stream::SendError::Lost(error.into()))?;
        let mut dial = OpenedDial { dial: Some(self.dial_stream(send, receive)) };
        if let Some(open) = &mut dial.dial {
            open.stream.send.send_message(request, MAX_DIAL_REQUEST_BYTES).await?;
        }
        Ok(dial)
    }

    /// Waits for the next dial (agent). The caller must not wait for its request in the same task.
    ///
    /// # Errors
    /// [`ConnectionLost`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn accept_dial(&self) -> Result<IncomingDial, ConnectionLost> {
        let (send, receive) = self.shared.quinn.accept_bi().await?;
        let dial = IncomingDial(self.dial_stream(send, receive));
        self.raise_stream_limit();
        Ok(dial)
    }

    fn dial_stream(&self, send: quinn::SendStream, receive: quinn::RecvStream) -> OpenDial {
        let id = send.id().index();
        let flow = Arc::new(DialFlow::new(Instant::now()));
        self.shared.flows.lock().unwrap_or_else(PoisonError::into_inner).insert(id, flow.clone());
        self.shared.open_dials.fetch_add(1, Ordering::Relaxed);
        let stream = DialStream {
            send: SendHalf::new(send, self.shared.clone(), flow.clone()),
            receive: ReceiveHalf::new(receive, flow),
        };
        OpenDial { stream, entry: Entry { id, connection: self.shared.clone() } }
    }

    /// Doubles the number of dials that the server may open when three quarters of it are in use.
    fn raise_stream_limit(&self) {
        let open = self.open_dials() as u64;
        let limit = self.shared.stream_limit.load(Ordering::Relaxed);
        if open * 4 >= u64::from(limit) * 3 && limit < self.shared.max_dials {
            let raised = limit.saturating_mul(2).min(self.shared.max_dials);
            self.shared.stream_limit.store(raised, Ordering::Relaxed);
            self.shared.quinn.set_max_concurrent_bi_streams(VarInt::from_u32(raised));
        }
    }

    /// Dials that are open.
    pub fn open_dials(&self) -> usize {
        self.shared.open_dials.load(Ordering::Relaxed)
    }

    /// The peer's address now.
    pub fn remote(&self) -> SocketAddr {
        self.shared.quinn.remote_address()
    }

    /// Facts about the connection now.
    pub fn stats(&self) -> ConnectionStats {
        let stats = self.shared.quinn.stats();
        ConnectionStats {
            remote: self.remote(),
            rtt: stats.path.rtt,
            congestion_window_bytes: stats.path.cwnd,
            mtu_bytes: u64::from(stats.path.current_mtu),
            lost_packets: stats.path.lost_packets,
            sent_packets: stats.path.sent_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            open_dials: self.open_dials(),
            stalled_dials: self.shared.windows.stalled(),
            unacknowledged_bytes: self.shared.credit.used(),
            age: self.shared.started.elapsed(),
        }
    }

    /// Keeps the receive windows in step with the path until the connection is gone. One task per connection runs it.
    pub async fn govern(&self) {
        let mut before = 0;
        loop {
            let period = tokio::time::sleep(WINDOW_SAMPLE);
            tokio::select! {
                () = period => {}
                _ = self.shared.quinn.closed() => return,
            }
            let received = self.shared.bytes_received.load(Ordering::Relaxed);
            let change = self.shared.windows.sample(received - before, self.shared.quinn.rtt(), Instant::now());
            before = received;
            self.shared.apply(&change);
        }
    }

    /// Waits until the connection is gone and says why.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) -> ConnectionLost {
        self.shared.quinn.closed().await.into()
    }

    /// Why the connection is gone, if it is.
    pub fn close_reason(&self) -> Option<ConnectionLost> {
        self.shared.quinn.close_reason().map(Into::into)
    }

    /// Closes the connection with a code and a reason a person can act on. Streams that are open end at once.
    pub fn close(&self, code: ConnectionCode, reason: &str) {
        self.shared.quinn.close(VarInt::from_u32(code.into()), reason.as_bytes());
    }

    /// Waits, at most `limit`, until the last packets of an agent's closed connection have been sent.
    pub async fn wait_closed(&self, limit: Duration) {
        if let Some(endpoint) = &self.endpoint {
            // Running into the limit means that the peer does not answer; it will time out by itself.
            let _ = tokio::time::timeout(limit, endpoint.wait_idle()).await;
        }
    }
}

/// Takes a dial off its connection's books when it ends.
#[derive(Debug)]
struct Entry {
    id: u64,
    connection: Arc<Shared>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connection.flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.connection.open_dials.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A dial's stream, on its connection's books until it is dropped.
#[derive(Debug)]
pub struct OpenDial {
    /// Both halves.
    pub stream: DialStream,
    entry: Entry,
}

impl OpenDial {
    pub(crate) fn connection(&self) -> Arc<Shared> {
        self.entry.connection.clone()
    }
}

/// A dial that was asked for and is not answered yet. Dropping it gives the dial up: the agent abandons its connect.
#[derive(Debug)]
pub struct OpenedDial {
    dial: Option<OpenDial>,
}

impl OpenedDial {
    /// Waits for the agent's answer.
    ///
    /// # Errors
    /// [`MessageError`] when the agent went away or sent something else.
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up.
    pub async fn reply(mut self) -> Result<(DialReply, OpenDial), MessageError> {
        // The dial is taken only here, at the end of its only user.
        let Some(dial) = &mut self.dial else { return Err(MessageError::Ended) };
        let reply = dial.stream.receive.read_message(MAX_DIAL_REPLY_BYTES).await?;
        let Some(dial) = self.dial.take() else { return Err(MessageError::Ended) };
        Ok((reply, dial))
    }
}

impl Drop for OpenedDial {
    fn drop(&mut self) {
        if let Some(dial) = &mut self.dial {
            dial.stream.abort(StreamCode::Cancelled);
        }
    }
}

/// A dial that the agent has accepted.
#[derive(Debug)]
pub struct IncomingDial(OpenDial);

impl IncomingDial {
    /// Reads what is to be dialled. On failure the stream is ended with `BadRequest`.
    ///
    /// # Errors
    /// [`MessageError`].
    pub async fn request(mut self) -> Result<(DialRequest, OpenDial), MessageError> {
        let read = self.0.stream.receive.read_message(MAX_DIAL_REQUEST_BYTES);
        match tokio::time::timeout(REQUEST_LIMIT, read).await {
            Ok(Ok(request)) => Ok((request, self.0)),
            Ok(Err(error)) => {
                self.0.stream.abort(StreamCode::BadRequest);
                Err(error)
            }
            Err(_) => {
                self.0.stream.abort(StreamCode::TimedOut);
                Err(MessageError::Ended)
            }
        }
    }
}

impl OpenDial {
    /// Answers the dial (agent).
    ///
    /// # Errors
    /// [`SendMessageError`] when the server has given the dial up or is gone.
    pub async fn answer(&mut self, reply: &DialReply) -> Result<(), SendMessageError> {
        self.stream.send.send_message(reply, MAX_DIAL_REPLY_BYTES).await
    }

    /// Ends a dial that failed: the reply was all that there is to say.
    pub async fn finish_failed(mut self) {
        self.stream.send.finish();
        self.stream.receive.stop(StreamCode::Cancelled);
        self.stream.send.delivered().await;
    }
}
