//! What the server sends: bytes to frames, DATA frames to messages, messages to packets. Bytes of the dial are never
//! put together: they are handed on as they lie in the input.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use konnectivity_transport::packet::{MAX_PACKET_BYTES, Packet};
use prost::Message;
use prost::encoding::decode_varint;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::pair::grpc::frame::{HEAD, MAX_PAYLOAD, flag, kind, setting};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Of a packet with bytes, so many are not those bytes, or more.
const DATA_HEAD: usize = 8;

thread_local! {
    /// The input of whichever dial reads, so that one that has nothing to read needs none.
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Something that has come.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// So many bytes of the dial are at the [front](Incoming::front).
    Data(usize),
    /// A packet without bytes of the dial.
    Packet(Packet),
    /// What the server's SETTINGS say of windows.
    Settings(Option<u32>),
    /// To be acknowledged.
    Ping([u8; 8]),
    /// An acknowledgement.
    Pong([u8; 8]),
    /// More may be sent.
    WindowUpdate(u32, u32),
    /// The call has ended, by trailers.
    Ended,
    /// The call was reset, or the connection refused, with this code.
    Reset(u32),
    /// What nobody needs to know.
    Nothing,
}

/// Bytes from the server, and how far they are understood.
#[derive(Debug)]
pub struct Incoming {
    input: BytesMut,
    /// Bytes of the DATA frame that has begun.
    frame: usize,
    /// It is the last frame.
    last: bool,
    /// The message that has begun, up to the bytes of the dial.
    head: Vec<u8>,
    /// So many bytes are needed before `head` says more.
    wanted: usize,
    /// Bytes of the dial that are still to come in the message.
    payload: usize,
    /// Payload of DATA frames that nobody has asked about.
    received: u32,
    /// The connection's number, which every packet with bytes must have.
    pub connect_id: i64,
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            input: BytesMut::new(),
            frame: 0,
            last: false,
            head: Vec::new(),
            wanted: PREFIX,
            payload: 0,
            received: 0,
            connect_id: 0,
        }
    }
}

impl Incoming {
    /// Reads from the socket once.
    ///
    /// # Errors
    /// Its own, and its end.
    pub fn poll_fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.capacity() == 0 {
            self.input = SPARE.take();
        }
        self.input.reserve(READ_BYTES);
        match ready!(pin!(stream.read_buf(&mut self.input)).poll(cx))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Gives the buffer away if nothing is in it.
    pub fn rest(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            SPARE.set(std::mem::take(&mut self.input));
        }
    }

    /// What has come next; none when more must be read. [`Event::Data`] comes again until its bytes are consumed.
    ///
    /// # Errors
    /// What no server should send.
    pub fn event(&mut self) -> io::Result<Option<Event>> {
        loop {
            if self.frame > 0 {
                let here = self.frame.min(self.input.len());
                if here == 0 {
                    return Ok(None);
                }
                if self.payload > 0 {
                    return Ok(Some(Event::Data(here.min(self.payload))));
                }
                if let Some(packet) = self.message(here)? {
                    return Ok(Some(Event::Packet(packet)));
                }
                continue;
            }
            if std::mem::take(&mut self.last) {
                return Ok(Some(Event::Ended));
            }
            if self.input.len() < HEAD {
                return Ok(None);
            }
            let length = (&self.input[..3]).get_uint(3) as usize;
            let (kind, flags) = (self.input[3], self.input[4]);
            if length > MAX_PAYLOAD || (kind == kind::DATA && flags & flag::PADDED != 0) {
                return Err(wrong(format!("a frame of type {kind} with {length} bytes, flags {flags:#x}")));
            }
            if kind == kind::DATA {
                self.input.advance(HEAD);
                (self.frame, self.last) = (length, flags & flag::END_STREAM != 0);
                self.received += length as u32;
                continue;
            }
            if self.input.len() < HEAD + length {
                return Ok(None);
            }
            let stream = (&self.input[5..]).get_u32();
            let event = control(kind, flags, stream, &self.input[HEAD..HEAD + length])?;
            self.input.advance(HEAD + length);
            return Ok(Some(event));
        }
    }

    /// Bytes of the dial, as many as [`Event::Data`] has told.
    pub fn front(&self, bytes: usize) -> &[u8] {
        &self.input[..bytes]
    }

    /// They are not needed any more.
    pub fn consume(&mut self, bytes: usize) {
        self.input.advance(bytes);
        self.frame -= bytes;
        self.payload -= bytes;
    }

    /// Payload of DATA frames that began since this was last asked.
    pub fn received(&mut self) -> u32 {
        std::mem::take(&mut self.received)
    }

    /// Takes what of the bytes `here` belongs to the head of a message.
    fn message(&mut self, here: usize) -> io::Result<Option<Packet>> {
        let taken = self.wanted.min(here);
        self.head.extend_from_slice(&self.input[..taken]);
        self.input.advance(taken);
        self.frame -= taken;
        self.wanted -= taken;
        if self.wanted > 0 {
            return Ok(None);
        }
        let mut packet = None;
        match look(&self.head)? {
            Seen::Part(wanted) => {
                self.wanted = wanted;
                return Ok(None);
            }
            Seen::Data(id, _) if id != self.connect_id => {
                return Err(wrong(format!("bytes of connection {id} came to {}", self.connect_id)));
            }
            Seen::Data(_, bytes) => self.payload = bytes,
            Seen::All => packet = Some(Packet::decode(&self.head[PREFIX..]).map_err(wrong)?),
        }
        self.head.clear();
        self.wanted = PREFIX;
        Ok(packet)
    }
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What the start of a message tells.
enum Seen {
    /// Not enough: so many bytes more, at least.
    Part(usize),
    /// A packet of this connection with so many bytes, which come next.
    Data(i64, usize),
    /// The whole message.
    All,
}

fn look(head: &[u8]) -> io::Result<Seen> {
    let Some((mut prefix, packet)) = head.split_at_checked(PREFIX) else {
        return Ok(Seen::Part(PREFIX - head.len()));
    };
    if prefix.get_u8() != 0 {
        return Err(wrong("a compressed message"));
    }
    let length = prefix.get_u32() as usize;
    if length > MAX_PACKET_BYTES {
        return Err(wrong(format!("a message of {length} bytes")));
    }
    if packet.len() >= length {
        return Ok(Seen::All);
    }
    Ok(match data_head(packet) {
        Ok((id, bytes)) if packet.len() + bytes == length => Seen::Data(id, bytes),
        Err(Unlike::Short) => Seen::Part(if packet.is_empty() { DATA_HEAD.min(length) } else { 1 }),
        _ => Seen::Part(length - packet.len()),
    })
}

/// Why something is not the start of a packet with bytes.
enum Unlike {
    /// It may become one.
    Short,
    /// It is another.
    Other,
}

/// The connection's number and how many bytes come, of a packet in the one form that the reference and we send.
fn data_head(mut packet: &[u8]) -> Result<(i64, usize), Unlike> {
    for byte in [0x08, 4, 0x22] {
        expect(&mut packet, byte)?;
    }
    number(&mut packet)?;
    expect(&mut packet, 0x08)?;
    let id = number(&mut packet)?;
    expect(&mut packet, 0x1a)?;
    let bytes = number(&mut packet)?;
    // The number's bits.
    Ok((id as i64, usize::try_from(bytes).map_err(|_| Unlike::Other)?))
}

fn expect(packet: &mut &[u8], byte: u8) -> Result<(), Unlike> {
    match packet.split_first() {
        None => Err(Unlike::Short),
        Some((&first, rest)) if first == byte => {
            *packet = rest;
            Ok(())
        }
        Some(_) => Err(Unlike::Other),
    }
}

fn number(packet: &mut &[u8]) -> Result<u64, Unlike> {
    match packet.iter().any(|byte| byte & 0x80 == 0) {
        true => decode_varint(packet).map_err(|_| Unlike::Other),
        false => Err(Unlike::Short),
    }
}

/// A frame other than DATA.
fn control(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<Event> {
    let number = |at: usize| match payload.get(at..at + 4) {
        Some(mut bytes) => Ok(bytes.get_u32()),
        None => Err(wrong(format!("a frame of type {kind} is too short"))),
    };
    Ok(match kind {
        kind::SETTINGS if flags & flag::ACK != 0 => Event::Nothing,
        kind::SETTINGS => {
            let mut settings = payload.chunks_exact(6).map(|mut bytes| (bytes.get_u16(), bytes.get_u32()));
            Event::Settings(settings.rfind(|(id, _)| *id == setting::INITIAL_WINDOW_SIZE).map(|(_, value)| value))
        }
        kind::PING => {
            let bytes = payload.try_into().map_err(wrong)?;
            if flags & flag::ACK != 0 { Event::Pong(bytes) } else { Event::Ping(bytes) }
        }
        kind::WINDOW_UPDATE => Event::WindowUpdate(stream, number(0)?),
        kind::HEADERS if flags & flag::END_STREAM != 0 => Event::Ended,
        kind::RST_STREAM => Event::Reset(number(0)?),
        // A clean one only says that no further call is wanted.
        kind::GOAWAY => match number(4)? {
            0 => Event::Nothing,
            code => Event::Reset(code),
        },
        _ => Event::Nothing,
    })
}

#[cfg(test)]
mod tests;
