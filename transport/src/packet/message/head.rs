//! The head of a `DATA` packet in the form that Go gives it: everything that stands before its payload.

use super::{DecodeError, PREFIX_BYTES};
use crate::packet::{MAX_PACKET_BYTES, PacketType};

/// Bytes of a number up to 2^64, 7 bits in each.
const MAX_VARINT_BYTES: usize = 10;
/// Bytes of a length up to 2^32.
const MAX_LENGTH_BYTES: usize = 5;

/// gRPC's prefix, the type, field `data` with its length, in it the connection's number, and the payload's own length.
pub const DATA_HEAD_MAX: usize =
    PREFIX_BYTES + 2 + (1 + MAX_LENGTH_BYTES) + (1 + MAX_VARINT_BYTES) + (1 + MAX_LENGTH_BYTES);

/// Protobuf's keys: the field's number times 8, and 2 if a length follows, 0 if a number does.
const KEY_TYPE: u8 = 1 << 3;
const KEY_DATA: u8 = (4 << 3) | 2;
const KEY_CONNECT_ID: u8 = 1 << 3;
const KEY_PAYLOAD: u8 = (3 << 3) | 2;
/// How a packet begins that is `DATA`.
const TYPE_IS_DATA: [u8; 2] = [KEY_TYPE, PacketType::Data as u8];

/// What the beginning of a message tells.
#[derive(Debug, PartialEq)]
pub enum Head {
    /// Nothing yet.
    Cut,
    /// `DATA` in the form that Go gives it: behind this many bytes comes its payload, and nothing else.
    Data { head: usize, connect_id: i64, payload: u32 },
    /// Any other message, of this many bytes.
    Other { total: u32 },
}

/// Looks at the first bytes of a message and its prefix. With [`DATA_HEAD_MAX`] of them or the whole message, the answer
/// is never [`Head::Cut`].
///
/// # Errors
/// A prefix that announces what is not accepted.
pub fn examine(bytes: &[u8]) -> Result<Head, DecodeError> {
    let Some((&[format, a, b, c, d], message)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Head::Cut);
    };
    let total = u32::from_be_bytes([a, b, c, d]);
    // In the order of the reference: a message that is both too large and compressed is too large.
    if total as usize > MAX_PACKET_BYTES {
        return Err(DecodeError::TooLarge { length: total });
    }
    match format {
        0 => {}
        1 => return Err(DecodeError::Compressed),
        format => return Err(DecodeError::UnknownFormat { format }),
    }
    let message = &message[..message.len().min(total as usize)];
    let whole = message.len() == total as usize;
    Ok(match data_form(message, total) {
        Ok(data) => data,
        Err(Stop::Cut) if !whole => Head::Cut,
        Err(Stop::Cut | Stop::Other) => Head::Other { total },
    })
}

/// Why a message is not (yet) known to be `DATA` in the form that Go gives it.
enum Stop {
    Cut,
    Other,
}

/// Reads the first bytes of a message of `total` bytes. Both lengths must reach exactly to its end, so that nothing can
/// come behind the payload.
fn data_form(message: &[u8], total: u32) -> Result<Head, Stop> {
    let mut reader = Reader { message, at: 0, total: total as usize };
    for expected in TYPE_IS_DATA {
        reader.exactly(expected)?;
    }
    reader.exactly(KEY_DATA)?;
    reader.length_to_end()?;
    let mut connect_id = 0;
    if !reader.is_at_end() && reader.peek()? == KEY_CONNECT_ID {
        reader.at += 1;
        connect_id = reader.varint(MAX_VARINT_BYTES)?.cast_signed();
    }
    let mut payload = 0;
    if !reader.is_at_end() {
        reader.exactly(KEY_PAYLOAD)?;
        payload = reader.length_to_end()?;
    }
    Ok(Head::Data { head: PREFIX_BYTES + reader.at, connect_id, payload })
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    total: usize,
}

impl Reader<'_> {
    fn is_at_end(&self) -> bool {
        self.at == self.total
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.message.get(self.at).copied().ok_or(Stop::Cut)
    }

    fn exactly(&mut self, expected: u8) -> Result<(), Stop> {
        if self.peek()? != expected {
            return Err(Stop::Other);
        }
        self.at += 1;
        Ok(())
    }

    fn length_to_end(&mut self) -> Result<u32, Stop> {
        let length = self.varint(MAX_LENGTH_BYTES)?;
        if length != (self.total - self.at) as u64 {
            return Err(Stop::Other);
        }
        u32::try_from(length).map_err(|_| Stop::Other)
    }

    fn varint(&mut self, max_bytes: usize) -> Result<u64, Stop> {
        let mut value = 0;
        for place in 0..max_bytes {
            let byte = self.peek()?;
            self.at += 1;
            // The tenth byte has room for one bit.
            if place == MAX_VARINT_BYTES - 1 && byte > 1 {
                return Err(Stop::Other);
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::Other)
    }
}

/// The head of a `DATA` packet, and how many bytes of the array it is. The payload follows as it is: exactly
/// `payload_bytes`, and no more than the receiver takes in one message, [`MAX_PACKET_BYTES`] with this head.
pub fn data_head(connect_id: i64, payload_bytes: usize) -> ([u8; DATA_HEAD_MAX], usize) {
    debug_assert!(payload_bytes <= MAX_PACKET_BYTES, "no receiver takes {payload_bytes} bytes");
    let (id, payload) = (connect_id.cast_unsigned(), payload_bytes as u64);
    // As Go does, what is zero or empty is left out.
    let field_bytes = |value: u64| if value == 0 { 0 } else { 1 + varint_bytes(value) };
    let data = field_bytes(id) + field_bytes(payload) + payload_bytes;
    let message = TYPE_IS_DATA.len() + 1 + varint_bytes(data as u64) + data;

    let mut head = Writer { bytes: [0; DATA_HEAD_MAX], at: 1 };
    head.put(&(message as u32).to_be_bytes());
    head.put(&TYPE_IS_DATA);
    head.field(KEY_DATA, data as u64);
    if id > 0 {
        head.field(KEY_CONNECT_ID, id);
    }
    if payload > 0 {
        head.field(KEY_PAYLOAD, payload);
    }
    (head.bytes, head.at)
}

struct Writer {
    bytes: [u8; DATA_HEAD_MAX],
    at: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn field(&mut self, key: u8, mut value: u64) {
        self.put(&[key]);
        while value >= 0x80 {
            self.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[value as u8]);
    }
}

/// Bytes of a number in its shortest form.
fn varint_bytes(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}
