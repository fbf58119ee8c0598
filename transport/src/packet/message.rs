//! Packets in gRPC's framing: a byte for compression, four for the length, then the message (compat sections 1.2, 2.4).
//!
//! Bytes of a connection pass through as they come: of a `DATA` packet in the form that Go gives it, only the head is
//! looked at, and pieces of its payload are handed on before the packet is complete. Whatever has another form is
//! gathered and decoded as a whole.

mod head;

use std::{collections::VecDeque, mem};

use bytes::{Buf, Bytes};
use prost::Message;

pub use self::head::{DATA_HEAD_MAX, data_head};
use self::head::{Head, examine};
use super::{Data, MAX_PACKET_BYTES, Packet, PacketType, Payload};

/// Bytes of gRPC's own before each message.
const PREFIX_BYTES: usize = 5;

/// Bytes of a message at most that must be held whole: a dial's address, or a DATA packet of a form in which no client
/// of the reference sends it. 4 MiB for each RPC of a connection would be no bound.
const MAX_GATHERED_BYTES: usize = 64 * 1024;

/// What has come of a client's packets.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A packet that is not [`PacketType::Data`].
    Packet(Packet),
    /// Bytes of a connection.
    Data {
        /// Which.
        connect_id: i64,
        /// The next piece. Empty only if the packet had no bytes at all.
        bytes: Bytes,
        /// A packet begins here.
        first: bool,
    },
}

/// Why a stream of packets must end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A message is longer than [`MAX_PACKET_BYTES`]. Nothing of it is held.
    #[error("grpc: received message larger than max ({length} vs. {MAX_PACKET_BYTES})")]
    TooLarge {
        /// Bytes that were announced.
        length: u32,
    },
    /// A message of another form than Go gives to DATA is longer than what is held whole.
    #[error(
        "received message larger than max ({length} vs. {MAX_GATHERED_BYTES}) for anything but DATA as Go encodes it"
    )]
    TooLargeToGather {
        /// Bytes that were announced.
        length: u32,
    },
    /// A message says that it is compressed; the stream has said that none will be.
    #[error("grpc: compressed flag set with identity or empty encoding")]
    Compressed,
    /// The byte for compression has a value without a meaning.
    #[error("grpc: received unexpected payload format {format}")]
    UnknownFormat {
        /// The byte.
        format: u8,
    },
    /// The bytes are no packet.
    #[error("grpc: failed to unmarshal the received message: {0}")]
    Malformed(prost::DecodeError),
}

/// Makes packets of what a stream brings, however it is cut.
///
/// Holds nothing on the heap while nothing waits in it: there is one for each dial.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is read next.
    input: Bytes,
    /// What comes after it.
    more: VecDeque<Bytes>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Before a message or in its head: what has come of it.
    Head { held: [u8; DATA_HEAD_MAX], length: u8 },
    /// In the payload of a `DATA` packet.
    Payload { connect_id: i64, missing: u32, first: bool },
    /// In a message of another form: what has come of it, without its prefix. Grows with what comes, whatever length
    /// was announced.
    Gather { gathered: Vec<u8>, total: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Head { held: [0; DATA_HEAD_MAX], length: 0 }
    }
}

impl Decoder {
    /// Takes what has arrived, without a copy. [`Decoder::next`] is to be asked until it has nothing more before more
    /// is pushed: nobody else bounds what waits here.
    pub fn push(&mut self, bytes: Bytes) {
        if self.input.is_empty() && self.more.is_empty() {
            self.input = bytes;
        } else if !bytes.is_empty() {
            self.more.push_back(bytes);
        }
    }

    /// The next packet or piece of one; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The stream is to be ended. Nothing more is to be asked for then.
    #[allow(clippy::should_implement_trait)] // no iterator: after `None` there may be more
    pub fn next(&mut self) -> Result<Option<Event>, DecodeError> {
        loop {
            if self.input.is_empty() {
                self.input = self.more.pop_front().unwrap_or_default();
            }
            let event = self.step()?;
            if event.is_some() {
                return Ok(event);
            }
            // Without an event, the whole input was taken.
            if self.more.is_empty() {
                self.more = VecDeque::new();
                return Ok(None);
            }
        }
    }

    /// Whether the stream may end here: no message has begun.
    pub fn is_between_messages(&self) -> bool {
        self.input.is_empty() && self.more.is_empty() && matches!(self.state, State::Head { length: 0, .. })
    }

    /// Takes from the input as much as makes one event, or all of it.
    fn step(&mut self) -> Result<Option<Event>, DecodeError> {
        let input = &mut self.input;
        match &mut self.state {
            State::Head { held, length } => match read_head(held, length, input)? {
                Some(next) => self.state = next,
                None => return Ok(None),
            },
            State::Payload { connect_id, missing, first } => {
                let bytes = input.split_to(input.len().min(*missing as usize));
                if bytes.is_empty() && *missing > 0 {
                    return Ok(None);
                }
                *missing -= bytes.len() as u32;
                let event = Event::Data { connect_id: *connect_id, bytes, first: mem::take(first) };
                if *missing == 0 {
                    self.state = State::default();
                }
                return Ok(Some(event));
            }
            State::Gather { gathered, total } => {
                let Some(message) = gather(gathered, *total as usize, input) else {
                    return Ok(None);
                };
                self.state = State::default();
                return decode(message).map(Some);
            }
        }
        // A head leads to one of the other states.
        self.step()
    }
}

/// Looks at the head of a message, of which `length` bytes are held already. What follows it, if it is complete; else
/// it holds the input.
fn read_head(held: &mut [u8; DATA_HEAD_MAX], length: &mut u8, input: &mut Bytes) -> Result<Option<State>, DecodeError> {
    let before = usize::from(*length);
    let seen = before + input.len().min(DATA_HEAD_MAX - before);
    held[before..seen].copy_from_slice(&input[..seen - before]);
    Ok(match examine(&held[..seen])? {
        Head::Cut => {
            // That was all of the input: a head of the largest size is never cut.
            *length = seen as u8;
            input.clear();
            None
        }
        Head::Data { head, connect_id, payload } => {
            // What was held before was cut, so the head ends in the input.
            input.advance(head - before);
            Some(State::Payload { connect_id, missing: payload, first: true })
        }
        Head::Other { total } if total as usize > MAX_GATHERED_BYTES => {
            return Err(DecodeError::TooLargeToGather { length: total });
        }
        Head::Other { total } => {
            input.advance(PREFIX_BYTES.saturating_sub(before));
            let gathered = held[PREFIX_BYTES.min(before)..before].to_vec();
            Some(State::Gather { gathered, total })
        }
    })
}

/// Takes the rest of a message of `total` bytes; the whole message once it is there.
fn gather(gathered: &mut Vec<u8>, total: usize, input: &mut Bytes) -> Option<Bytes> {
    let rest = input.split_to(input.len().min(total - gathered.len()));
    if rest.len() == total {
        // Often a message comes in one piece.
        return Some(rest);
    }
    gathered.extend_from_slice(&rest);
    (gathered.len() == total).then(|| Bytes::from(mem::take(gathered)))
}

fn decode(message: Bytes) -> Result<Event, DecodeError> {
    let packet = Packet::decode(message).map_err(DecodeError::Malformed)?;
    if packet.kind() != Some(PacketType::Data) {
        return Ok(Event::Packet(packet));
    }
    // Another payload or none counts as an empty one.
    let data = match packet.payload {
        Some(Payload::Data(data)) => data,
        _ => Data::default(),
    };
    Ok(Event::Data { connect_id: data.connect_id, bytes: data.data, first: true })
}

/// A packet with its prefix.
pub fn encode(packet: &Packet) -> Bytes {
    let length = packet.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.push(0);
    // Only the bytes of `DATA` may be long, and those are sent behind a `data_head`.
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    packet.encode_raw(&mut bytes);
    Bytes::from(bytes)
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
