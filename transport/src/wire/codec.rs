//! Bytes to messages and back: each message is preceded by its length as a protobuf varint.
//!
//! Limits are on the message without its prefix, and are checked as soon as the prefix is known, so that a peer cannot
//! make the receiver wait for, or store, more than a limit.

use bytes::{Buf, Bytes, BytesMut};

/// Largest control message in bytes: 64 KiB. A service-account token is about 1 KiB, and a server list of hundreds of
/// addresses is below 32 KiB.
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// Largest dial request in bytes: 4 KiB. A host name has at most 253 bytes (RFC 1035, section 2.3.4).
pub const MAX_DIAL_REQUEST_BYTES: usize = 4 * 1024;

/// Largest dial reply in bytes: 16 KiB, because Go's error text repeats the target and may name every address tried.
pub const MAX_DIAL_REPLY_BYTES: usize = 16 * 1024;

/// Bytes a length prefix may have: seven bits in each.
const MAX_PREFIX_BYTES: usize = 4;

/// Largest length that such a prefix can tell: 256 MiB - 1, far above every limit.
const MAX_PREFIX_LENGTH: usize = (1 << (7 * MAX_PREFIX_BYTES)) - 1;

/// Why a message cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The peer would refuse it.
    #[error("message of {size} bytes is larger than the limit of {max} bytes")]
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Why bytes from the peer are not a message. The stream cannot be read further.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The prefix tells a length above the limit.
    #[error("message of {size} bytes is larger than the limit of {max} bytes")]
    TooLarge {
        /// Bytes of the message, as its prefix says.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The prefix does not end within four bytes.
    #[error("length prefix is longer than {MAX_PREFIX_BYTES} bytes")]
    BadLength,
    /// The message has the right length and is not protobuf, or a string in it is not UTF-8.
    #[error("message is not valid protobuf")]
    Malformed(#[source] prost::DecodeError),
}

/// The message with its length prefix, ready to be written.
///
/// # Errors
/// [`EncodeError::TooLarge`] when the message has more than `max` bytes.
pub fn encode<M: prost::Message>(message: &M, max: usize) -> Result<Bytes, EncodeError> {
    let max = max.min(MAX_PREFIX_LENGTH);
    let size = message.encoded_len();
    if size > max {
        return Err(EncodeError::TooLarge { size, max });
    }
    Ok(message.encode_length_delimited_to_vec().into())
}

/// Takes one message off the front of `buffer` and leaves what follows it; `None` when more bytes are needed, with
/// `buffer` as it was.
///
/// # Errors
/// [`DecodeError`]; what is left in `buffer` then has no meaning.
pub fn decode<M: prost::Message + Default>(buffer: &mut BytesMut, max: usize) -> Result<Option<M>, DecodeError> {
    let Some((size, prefix_bytes)) = decode_length(buffer)? else {
        return Ok(None);
    };
    if size > max {
        return Err(DecodeError::TooLarge { size, max });
    }
    if buffer.len() - prefix_bytes < size {
        return Ok(None);
    }
    buffer.advance(prefix_bytes);
    M::decode(buffer.split_to(size)).map(Some).map_err(DecodeError::Malformed)
}

/// The length that the prefix tells and how many bytes the prefix has; `None` while it is incomplete.
///
/// Longer forms of a small number are accepted, as protobuf readers do.
fn decode_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut length = 0;
    for (place, byte) in bytes.iter().take(MAX_PREFIX_BYTES).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((length, place + 1)));
        }
    }
    if bytes.len() < MAX_PREFIX_BYTES {
        return Ok(None);
    }
    Err(DecodeError::BadLength)
}

#[cfg(test)]
mod tests;
