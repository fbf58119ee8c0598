//! One QUIC connection between an agent and a server: hello, opening and accepting dials, statistics, close.

pub(crate) mod shared;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::VarInt;
use rustls::pki_types::CertificateDer;

use self::shared::Shared;
use crate::{
    budget::MemoryBudget,
    congestion::Room,
    control::{ControlReceiver, ControlSender},
    dial::{IncomingDial, OpenDial, OpenedDial},
    flow::DialFlow,
    nudge::{self, Nudge},
    probe::{self, Probe, Verdict},
    settings::QuicSettings,
    silence::{self, Silence},
    stream::{ReceiveHalf, SendMessageError},
    udp::{
        split::{Alone, AloneGuard},
        suspicion::{self, Sending, Suspicion},
    },
    window,
    wire::{
        code::ConnectionCode,
        codec::{self, MAX_DIAL_REQUEST_BYTES},
        message::DialRequest,
    },
};

/// Receive windows are adapted this often, and this often it is looked at what the peer says.
const SECOND: Duration = Duration::from_secs(1);

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
    /// Another connection has come from whoever seems to be the peer, and this one does not answer.
    #[error("the peer does not answer, and has connected anew; it was restarted")]
    Replaced,
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

impl ConnectionLost {
    /// Whether one of the ends heard nothing of the other one: the path may be to blame.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Replaced | Self::Closed { code: Some(ConnectionCode::IdleTimeout), .. })
    }
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
            quinn::ConnectionError::TransportError(error) => {
                Self::Transport(format!("closed by this end with {:?}: {error}", error.code))
            }
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

/// What was seen of a connection a second ago.
#[derive(Debug, Default)]
struct Before {
    received: u64,
    blocked: u64,
    nudge: Nudge,
    /// The peer is being asked whether it is still there.
    probe: Option<Probe>,
    suspicion: Suspicion,
    /// While packets are sent one by one.
    alone: Option<AloneGuard>,
    /// That batches do not arrive is logged.
    told: bool,
}

/// A connection; clones are handles to the same one. It stays open until [`Self::close`] or until the last handle and
/// stream have gone.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    /// The agent's own endpoint, kept as long as the connection.
    endpoint: Option<quinn::Endpoint>,
    /// Of the socket that it uses.
    alone: Arc<Alone>,
}

impl Connection {
    pub(crate) fn new(
        quinn: quinn::Connection,
        endpoint: Option<quinn::Endpoint>,
        settings: &QuicSettings,
        budget: Arc<MemoryBudget>,
        room: Arc<Room>,
        alone: Arc<Alone>,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(quinn, settings, budget, room)), endpoint, alone }
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
        let sender = ControlSender::new(send);
        // A connection has one control stream; of others the peer is told that they break the protocol.
        let _ = self.shared.control.set(sender.nudger());
        (sender, ControlReceiver::new(ReceiveHalf::new(receive, flow)))
    }

    /// Opens a stream and sends the request for a dial (server). The answer is [`OpenedDial::reply`].
    ///
    /// # Errors
    /// [`SendMessageError`] when the connection is gone or the request is too large.
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up.
    pub async fn open_dial(&self, request: &DialRequest) -> Result<OpenedDial, SendMessageError> {
        // Before a stream is opened: a request that is too large is the client's fault and costs nothing.
        let request = codec::encode(request, MAX_DIAL_REQUEST_BYTES)?;
        let (send, receive) =
            self.shared.quinn.open_bi().await.map_err(|error| crate::stream::SendError::Lost(error.into()))?;
        let mut dial = OpenedDial { dial: Some(OpenDial::new(&self.shared, send, receive)) };
        if let Some(open) = &mut dial.dial {
            open.stream.send.send_at_once(request).await?;
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
        let dial = IncomingDial(OpenDial::new(&self.shared, send, receive));
        self.shared.raise_stream_limit();
        Ok(dial)
    }

    /// Dials that are open.
    pub fn open_dials(&self) -> usize {
        self.shared.open_dials()
    }

    /// The peer's address now.
    pub fn remote(&self) -> SocketAddr {
        self.shared.quinn.remote_address()
    }

    /// The peer's own certificate in DER, which TLS has found good; `None`: it has shown none.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.peer_chain().first().map(|certificate| certificate.to_vec())
    }

    /// The peer's certificates, its own first: those of the handshake, or of the one that it resumes. Empty: none.
    pub(crate) fn peer_chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = self.shared.quinn.peer_identity().and_then(|chain| chain.downcast().ok());
        chain.map_or_else(Vec::new, |chain| *chain)
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

    /// Asks the peer whether it is still there, because another connection seems to have taken the place of this one. A peer that
    /// lives does not notice; otherwise [`Self::govern`] closes the connection after some seconds.
    pub fn probe(&self) {
        let rtt = self.shared.quinn.rtt();
        self.shared.question.ask(self.shared.room.acknowledged(), self.shared.started.elapsed(), rtt);
    }

    /// Whether the answer that [`Self::probe`] waits for is late.
    pub fn is_in_doubt(&self) -> bool {
        self.shared.question.is_late(self.shared.room.acknowledged(), || self.shared.started.elapsed())
    }

    /// Keeps the receive windows in step with the path, finds out whether a path that has become quiet is still there, and
    /// closes the connection if it is not, until the connection is gone. One task per connection runs it.
    pub async fn govern(&self) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + SECOND, SECOND);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = Before::default();
        let mut silence = Silence::new(self.shared.idle_timeout, self.shared.keep_alive);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shared.question.asked.notified() => {
                    let stats = self.shared.quinn.stats();
                    before.probe = Some(Probe::new(self.seen_by_probe(&stats)));
                    self.shared.nudge(u64::from(stats.path.current_mtu));
                    continue;
                }
                _ = self.shared.quinn.closed() => return,
            }
            let stats = self.shared.quinn.stats();
            let received = self.shared.bytes_received();
            let seen = window::Seen {
                bytes_per_second: received - before.received,
                rtt: stats.path.rtt,
                blocked: stats.frame_rx.data_blocked != before.blocked,
            };
            (before.received, before.blocked) = (received, stats.frame_rx.data_blocked);
            self.shared.apply(&self.shared.windows.sample(seen, Instant::now()));
            if silence.tick(silence::Seen { heard: stats.udp_rx.datagrams, min_rtt: stats.path.min_rtt }) {
                return self.shared.time_out(ConnectionLost::TimedOut);
            }
            if self.is_replaced(&mut before, &stats) {
                return self.shared.time_out(ConnectionLost::Replaced);
            }
            let sending = before.suspicion.tick(suspicion::Seen {
                proven: self.shared.room.batches_vanish(),
                acknowledged: self.shared.room.acknowledged(),
                owed: self.shared.credit.used() > 0,
                rtt: stats.path.rtt,
            });
            self.send(sending, &mut before);
            let seen = nudge::Seen {
                heard: stats.udp_rx.datagrams,
                moved: stats.frame_rx.stream,
                acknowledged: self.shared.room.acknowledged(),
                sent: stats.path.sent_packets,
                owed: self.shared.credit.used() > 0,
                exposed: self.endpoint.is_some() && self.open_dials() > 0,
                rtt: stats.path.rtt,
            };
            if before.nudge.tick(seen) || before.probe.is_some() {
                self.shared.nudge(u64::from(stats.path.current_mtu));
            }
        }
    }

    /// Has packets sent to the peer, wherever it is now, in batches or one by one.
    fn send(&self, sending: Sending, before: &mut Before) {
        if sending == Sending::Batches {
            before.alone = None;
            return;
        }
        let remote = self.remote();
        if sending == Sending::Alone && !std::mem::replace(&mut before.told, true) {
            tracing::warn!(
                %remote,
                "packets sent in one batch do not arrive: they are sent one by one from now on; \
                 --quic-segmentation-offload=false does so from the start"
            );
        }
        if before.alone.as_ref().is_none_or(|guard| guard.peer() != remote) {
            before.alone = Some(self.alone.add(remote));
        }
    }

    /// Whether the peer that was asked will not answer any more.
    fn is_replaced(&self, before: &mut Before, stats: &quinn::ConnectionStats) -> bool {
        let verdict = before.probe.as_mut().map(|probe| probe.tick(self.seen_by_probe(stats)));
        before.probe.take_if(|_| verdict == Some(Verdict::Alive));
        verdict == Some(Verdict::Gone)
    }

    fn seen_by_probe(&self, stats: &quinn::ConnectionStats) -> probe::Seen {
        probe::Seen {
            heard: stats.udp_rx.datagrams,
            acknowledged: self.shared.room.acknowledged(),
            min_rtt: stats.path.min_rtt,
        }
    }

    /// Waits until the connection is gone and says why.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn closed(&self) -> ConnectionLost {
        self.shared.why(self.shared.quinn.closed().await.into())
    }

    /// Why the connection is gone, if it is.
    pub fn close_reason(&self) -> Option<ConnectionLost> {
        self.shared.quinn.close_reason().map(|error| self.shared.why(error.into()))
    }

    /// Closes the connection with a code and a reason a person can act on. Streams that are open end at once. Nothing
    /// happens if the connection is gone already: the library would forget why.
    pub fn close(&self, code: ConnectionCode, reason: &str) {
        if self.close_reason().is_none() {
            self.shared.quinn.close(VarInt::from_u32(code.into()), reason.as_bytes());
        }
    }

    /// Waits, at most `limit`, until the last packets of an agent's closed connection have been sent.
    pub async fn wait_closed(&self, limit: Duration) {
        if let Some(endpoint) = &self.endpoint {
            // Running into the limit means that the peer does not answer; it will time out by itself.
            let _ = tokio::time::timeout(limit, endpoint.wait_idle()).await;
        }
    }
}
