//! A QUIC end without a QUIC library: it makes the handshake that everybody makes, with a valid certificate, and then sends
//! the frames that a test wants. It sends nothing again, and its network is the loopback device, which loses nothing that is
//! read in time.
//!
//! - [`packet`]: packets, sealed and opened.
//! - [`frame`]: frames, made and read.

pub mod frame;
pub mod packet;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use konnectivity_transport::tls::{Identity, TUNNEL_ALPN, client_config, load_roots, server_config};
use konnectivity_transport::wire::codec::{MAX_CONTROL_BYTES, encode};
use konnectivity_transport::wire::message::{Control, ControlBody};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection, KeyChange, Keys, PacketKeySet, Secrets, ServerConnection, Version};
use rustls::{ServerConfig, Side};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use crate::certificates::Folder;
use frame::{Close, Frame, PING};
use packet::{DATAGRAM, ID_LENGTH, Ids, Level, MAX_FRAMES, Place, seal, split};

/// Everything here is on one machine.
const WITHIN: Duration = Duration::from_secs(20);

/// Bytes of TLS in a packet.
const CRYPTO: usize = MAX_FRAMES - 32;

/// Packets of a flood between two looks at what has come.
const BURST: u64 = 32;

/// More than any test sends.
pub const MANY: u64 = 1 << 40;

/// The stream on which the agent says hello.
pub const CONTROL: u64 = 0;

/// What the peer has sent so far, once keys were agreed.
#[derive(Debug, Default)]
pub struct Heard {
    /// Its frames by their types; those of a stream are all 0x08.
    pub frames: BTreeMap<u64, u64>,
    /// The largest of our packets that it has acknowledged.
    pub acknowledged: Option<u64>,
    /// Numbers of its packets, without a gap up to the last one.
    pub came: (u64, u64),
    /// The largest sequence number of its connection ids.
    pub issued: u64,
    /// Bytes of its control stream.
    pub control: Vec<u8>,
    /// Why it has closed the connection, if it has.
    pub close: Option<Close>,
}

/// Packets of one level.
#[derive(Default)]
struct Space {
    keys: Option<Keys>,
    /// The number of the next packet.
    next: u64,
    crypto_sent: u64,
    crypto_read: u64,
    /// Packet numbers that have come without a gap, up to the largest.
    came: Option<RangeInclusive<u64>>,
    owes_ack: bool,
}

/// One end of a connection.
pub struct Bare {
    /// What the peer has said.
    pub heard: Heard,
    /// Bytes that we have said on the control stream.
    pub said: u64,
    socket: UdpSocket,
    tls: Connection,
    spaces: [Space; 3],
    /// Of the keys that follow when the peer takes new ones, and whether it has every second set now.
    secrets: Option<Secrets>,
    phase: bool,
    /// What TLS writes now belongs there.
    level: Level,
    /// Frames of TLS that are to be sent.
    to_say: Vec<(Level, Vec<u8>)>,
    ids: Ids,
}

impl Bare {
    /// Connects to a server as an agent.
    ///
    /// # Errors
    /// When there is no handshake.
    pub async fn agent(server: SocketAddr, certificates: &Folder) -> anyhow::Result<Self> {
        Self::agent_with_room(server, certificates, MANY).await
    }

    /// The same, with so much room for what comes on the control stream.
    ///
    /// # Errors
    /// When there is no handshake.
    pub async fn agent_with_room(server: SocketAddr, certificates: &Folder, room: u64) -> anyhow::Result<Self> {
        let mut peer = Self::knock(server, certificates, room).await?;
        peer.shake_hands().await?;
        Ok(peer)
    }

    /// Begins to connect to a server as such an agent, and does no more.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub async fn knock(server: SocketAddr, certificates: &Folder, room: u64) -> anyhow::Result<Self> {
        let identity = Identity::load(&certificates.file("agent.crt"), &certificates.file("agent.key"))?;
        let tls = client_config(load_roots(&certificates.file("ca.crt"))?, Some(&identity), TUNNEL_ALPN)?;
        let ids = Ids { to: any_id()?.to_vec(), from: any_id()?.to_vec() };
        let name = ServerName::from(server.ip());
        let tls = ClientConnection::new(Arc::new(tls), Version::V1, name, parameters(&ids.from, None, room))?;
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
        socket.connect(server).await?;
        let mut peer = Self::new(socket, Connection::Client(tls), ids.clone(), &ids.to, Side::Client);
        peer.say_crypto().await?;
        Ok(peer)
    }

    /// Accepts an agent on a socket, as a server does.
    ///
    /// # Errors
    /// When there is no handshake.
    pub async fn server(socket: UdpSocket, certificates: &Folder) -> anyhow::Result<Self> {
        let identity = Identity::load(&certificates.file("server.crt"), &certificates.file("server.key"))?;
        let tls = server_config(&identity, Some(load_roots(&certificates.file("ca.crt"))?), TUNNEL_ALPN)?;
        timeout(WITHIN, Self::accept(socket, tls)).await.context("no agent came")?
    }

    async fn accept(socket: UdpSocket, tls: ServerConfig) -> anyhow::Result<Self> {
        let mut datagram = [0; 2 * DATAGRAM];
        let (length, first) = loop {
            let (length, from) = socket.recv_from(&mut datagram).await?;
            let first = split(&mut datagram[..length])?.remove(0);
            // Else it is the last word of another connection.
            if first.level == Level::Initial {
                socket.connect(from).await?;
                break (length, first.ids);
            }
        };
        let ids = Ids { to: first.from, from: any_id()?.to_vec() };
        let parameters = parameters(&ids.from, Some(&first.to), MANY);
        let tls = ServerConnection::new(Arc::new(tls), Version::V1, parameters)?;
        let mut peer = Self::new(socket, Connection::Server(tls), ids, &first.to, Side::Server);
        peer.read(&mut datagram[..length])?;
        peer.shake_hands().await?;
        Ok(peer)
    }

    /// `first_id`: to which the client has sent its first packet.
    fn new(socket: UdpSocket, tls: Connection, ids: Ids, first_id: &[u8], side: Side) -> Self {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is one of TLS 1.3");
        let quic = suite.quic.expect("QUIC begins with it");
        let mut spaces: [Space; 3] = Default::default();
        spaces[0].keys = Some(Keys::initial(Version::V1, suite, quic, first_id, side));
        Self {
            heard: Heard::default(),
            said: 0,
            socket,
            tls,
            spaces,
            secrets: None,
            phase: false,
            level: Level::Initial,
            to_say: Vec::new(),
            ids,
        }
    }

    async fn shake_hands(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + WITHIN;
        loop {
            self.say_crypto().await?;
            if self.level == Level::Data && !self.tls.is_handshaking() {
                break;
            }
            self.receive(deadline).await.context("no handshake")?;
            if let Some(close) = &self.heard.close {
                bail!("closed in the handshake: {close:?}");
            }
        }
        if matches!(self.tls, Connection::Server(_)) {
            // HANDSHAKE_DONE.
            self.send(&[0x1e]).await?;
        }
        Ok(())
    }

    /// Says what TLS has to say.
    async fn say_crypto(&mut self) -> anyhow::Result<()> {
        self.advance();
        for (level, frame) in std::mem::take(&mut self.to_say) {
            self.send_at(level, &frame).await?;
        }
        Ok(())
    }

    /// Takes what TLS has to say, and its keys.
    fn advance(&mut self) {
        loop {
            let mut bytes = Vec::new();
            let change = self.tls.write_hs(&mut bytes);
            if bytes.is_empty() && change.is_none() {
                return;
            }
            let space = &mut self.spaces[self.level as usize];
            for part in bytes.chunks(CRYPTO) {
                self.to_say.push((self.level, frame::crypto(space.crypto_sent, part)));
                space.crypto_sent += part.len() as u64;
            }
            let (level, keys) = match change {
                Some(KeyChange::Handshake { keys }) => (Level::Handshake, keys),
                Some(KeyChange::OneRtt { keys, next }) => {
                    self.secrets = Some(next);
                    (Level::Data, keys)
                }
                None => continue,
            };
            self.level = level;
            self.spaces[level as usize].keys = Some(keys);
        }
    }

    /// Sends one packet of 1-RTT with these frames and, if we owe one, an acknowledgement. Returns its number.
    ///
    /// # Errors
    /// When the frames do not fit.
    pub async fn send(&mut self, frames: &[u8]) -> anyhow::Result<u64> {
        self.send_at(Level::Data, frames).await
    }

    async fn send_at(&mut self, level: Level, frames: &[u8]) -> anyhow::Result<u64> {
        let space = &mut self.spaces[level as usize];
        let mut frames = frames.to_vec();
        if let Some(came) = space.came.as_ref().filter(|_| space.owes_ack)
            && frames.len() + 32 <= MAX_FRAMES
        {
            frames.extend(frame::ack(*came.end(), 0, came.end() - came.start(), &[]));
            space.owes_ack = false;
        }
        let keys = space.keys.as_ref().context("there are no keys yet")?;
        let number = space.next;
        let datagram = seal(level, &self.ids, Place { number, phase: self.phase }, &frames, &keys.local)?;
        space.next += 1;
        // A closed socket on the other side is for the test to find out.
        let _ = self.socket.send(&datagram).await;
        Ok(number)
    }

    /// Says something on the control stream, of which nothing was said before.
    ///
    /// # Errors
    /// When it does not fit.
    pub async fn say(&mut self, body: ControlBody) -> anyhow::Result<()> {
        let bytes = encode(&Control { body: Some(body) }, MAX_CONTROL_BYTES)?;
        self.said = bytes.len() as u64;
        self.send(&frame::stream(CONTROL, 0, &bytes)).await.map(drop)
    }

    /// Waits until something was said on the control stream.
    ///
    /// # Errors
    /// When nothing is.
    pub async fn is_spoken_to(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + WITHIN;
        while self.heard.control.is_empty() {
            self.receive(deadline).await.context("nothing was said")?;
        }
        Ok(())
    }

    /// Sends so many packets, each with what `frames` makes of its place and what was heard, and a PING. At most `window`
    /// of them are ahead of the peer's acknowledgements. Returns how many were sent until the peer closed the connection.
    ///
    /// # Errors
    /// When frames do not fit, or the peer says nothing for long.
    pub async fn flood(
        &mut self,
        packets: u64,
        window: u64,
        mut frames: impl FnMut(u64, &Heard) -> Vec<u8>,
    ) -> anyhow::Result<u64> {
        for place in 0..packets {
            let number = self.send(&[&frames(place, &self.heard)[..], &PING].concat()).await?;
            let deadline = Instant::now() + WITHIN;
            let is_ahead = |heard: &Heard| number > heard.acknowledged.unwrap_or(0) + window;
            while self.heard.close.is_none() && is_ahead(&self.heard) {
                self.receive(deadline).await.context("the flood is not acknowledged")?;
            }
            if place % BURST == 0 {
                self.receive_all()?;
            }
            if self.heard.close.is_some() {
                return Ok(place + 1);
            }
        }
        Ok(packets)
    }

    /// Waits for the peer's close.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn closed(&mut self) -> anyhow::Result<Close> {
        let deadline = Instant::now() + WITHIN;
        loop {
            if let Some(close) = self.heard.close.clone() {
                return Ok(close);
            }
            self.receive(deadline).await.context("the connection is not closed")?;
        }
    }

    /// Waits until the peer has acknowledged a packet that is sent now.
    ///
    /// # Errors
    /// When it does not.
    pub async fn is_alive(&mut self) -> anyhow::Result<()> {
        let number = self.send(&PING).await?;
        let deadline = Instant::now() + WITHIN;
        while self.heard.acknowledged < Some(number) {
            if let Some(close) = &self.heard.close {
                bail!("the peer has closed the connection: {close:?}");
            }
            self.receive(deadline).await.context("the peer does not acknowledge")?;
        }
        Ok(())
    }

    /// Waits for a datagram.
    async fn receive(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let mut datagram = [0; 2 * DATAGRAM];
        let length = timeout_at(deadline, self.socket.recv(&mut datagram)).await.context("no datagram")??;
        self.read(&mut datagram[..length])
    }

    /// Reads what is there.
    fn receive_all(&mut self) -> anyhow::Result<()> {
        let mut datagram = [0; 2 * DATAGRAM];
        while let Ok(length) = self.socket.try_recv(&mut datagram) {
            self.read(&mut datagram[..length])?;
        }
        Ok(())
    }

    fn read(&mut self, datagram: &mut [u8]) -> anyhow::Result<()> {
        for mut packet in split(datagram)? {
            let (level, ids) = (packet.level, packet.ids.clone());
            // Else it is the last word of another connection.
            if level == Level::Data && ids.to != self.ids.from && !frame::is_made(&ids.to) {
                continue;
            }
            let space = &mut self.spaces[level as usize];
            let Some(keys) = &mut space.keys else { continue };
            let next = space.came.as_ref().map_or(0, |came| came.end() + 1);
            let place = packet.unprotect(keys, next)?;
            if level == Level::Data && place.phase != self.phase {
                let secrets = self.secrets.as_mut().context("there are no more keys")?;
                let PacketKeySet { local, remote } = secrets.next_packet_keys();
                (keys.local.packet, keys.remote.packet) = (local, remote);
                self.phase = place.phase;
            }
            let number = place.number;
            let frames = packet.open(place, &*keys.remote.packet)?;
            if level != Level::Data {
                self.ids.to = ids.from;
            }
            space.owes_ack = true;
            match &mut space.came {
                Some(came) if number == next => *came = *came.start()..=number,
                Some(_) if number < next => {}
                came => *came = Some(number..=number),
            }
            if let (Level::Data, Some(came)) = (level, &space.came) {
                self.heard.came = (*came.start(), *came.end());
            }
            self.read_frames(level, &frames)?;
        }
        Ok(())
    }

    fn read_frames(&mut self, level: Level, mut bytes: &[u8]) -> anyhow::Result<()> {
        while let Some(frame) = frame::next(&mut bytes)? {
            let heard = &mut self.heard;
            match frame {
                Frame::Crypto(offset, data) => {
                    let space = &mut self.spaces[level as usize];
                    let known = space.crypto_read.saturating_sub(offset);
                    if offset <= space.crypto_read && (known as usize) < data.len() {
                        space.crypto_read = offset + data.len() as u64;
                        self.tls.read_hs(&data[known as usize..])?;
                        self.advance();
                    }
                }
                Frame::Close(close) => heard.close = Some(close),
                Frame::Ack(largest) if level == Level::Data => {
                    heard.acknowledged = heard.acknowledged.max(Some(largest))
                }
                Frame::NewConnectionId(sequence) => heard.issued = heard.issued.max(sequence),
                Frame::Stream(id, offset, data) => {
                    *heard.frames.entry(0x08).or_default() += 1;
                    if id == CONTROL && offset == heard.control.len() as u64 {
                        heard.control.extend(data);
                    }
                }
                Frame::Ack(_) => {}
                Frame::Other(kind) => *heard.frames.entry(kind).or_default() += 1,
            }
        }
        Ok(())
    }
}

fn any_id() -> anyhow::Result<[u8; ID_LENGTH]> {
    let mut id = [0; ID_LENGTH];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut id).map_err(|_| anyhow::anyhow!("there is no randomness"))?;
    Ok(id)
}

/// Transport parameters (RFC 9000, section 18): generous ones, but that there is `room` for the peer's bytes of a stream that we
/// have opened. A server names the id to which the client sent first.
fn parameters(own_id: &[u8], first_id: Option<&[u8]>, room: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |id: u64, value: &[u8]| {
        bytes.extend(frame::numbers(&[id, value.len() as u64]));
        bytes.extend(value);
    };
    // max_idle_timeout in ms; max_udp_payload_size; initial_max_data and that of streams of three kinds; streams of both kinds; the exponent of
    // the acknowledgements' delays; active_connection_id_limit.
    for (id, value) in [
        (1, 30_000),
        (3, DATAGRAM as u64),
        (4, MANY),
        (5, room),
        (6, MANY),
        (7, MANY),
        (8, 1000),
        (9, 0),
        (10, 20),
        (14, 8),
    ] {
        add(id, &frame::numbers(&[value]));
    }
    add(0x0f, own_id);
    if let Some(id) = first_id {
        add(0x00, id);
    }
    bytes
}
