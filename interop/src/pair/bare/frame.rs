//! QUIC frames (RFC 9000, section 19): made as a test wants them, and read as far as it looks at them.

use anyhow::{Context, bail};

/// A frame of whole numbers: its type and its fields.
pub fn numbers(fields: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &field in fields {
        match field {
            0..0x40 => bytes.push(field as u8),
            0x40..0x4000 => bytes.extend((field as u16 | 0x4000).to_be_bytes()),
            0x4000..0x4000_0000 => bytes.extend((field as u32 | 0x8000_0000).to_be_bytes()),
            _ => bytes.extend((field | 0xc000_0000_0000_0000).to_be_bytes()),
        }
    }
    bytes
}

/// PING.
pub const PING: [u8; 1] = [0x01];

/// ACK of the numbers from `largest - first` to `largest`, and of more below: each a gap and a length as they are on the wire.
pub fn ack(largest: u64, delay: u64, first: u64, more: &[(u64, u64)]) -> Vec<u8> {
    let mut fields = vec![0x02, largest, delay, more.len() as u64, first];
    fields.extend(more.iter().flat_map(|&(gap, length)| [gap, length]));
    numbers(&fields)
}

/// CRYPTO.
pub fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    [&numbers(&[0x06, offset, data.len() as u64])[..], data].concat()
}

/// STREAM, without an end.
pub fn stream(id: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    [&numbers(&[0x0e, id, offset, data.len() as u64])[..], data].concat()
}

/// How connection ids begin that are made of their sequence numbers.
const MADE: [u8; 4] = *b"made";

/// NEW_CONNECTION_ID, with an id that is made of the sequence number.
pub fn new_connection_id(sequence: u64, retire_prior_to: u64) -> Vec<u8> {
    let id = [MADE, (sequence as u32).to_be_bytes()].concat();
    [&numbers(&[0x18, sequence, retire_prior_to, id.len() as u64])[..], &id, &[7; 16]].concat()
}

/// Whether a connection id is one of these.
pub fn is_made(id: &[u8]) -> bool {
    id.starts_with(&MADE)
}

/// PATH_CHALLENGE.
pub fn path_challenge(token: u64) -> Vec<u8> {
    [&[0x1a][..], &token.to_be_bytes()].concat()
}

/// A frame that has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// ACK: the largest number of it.
    Ack(u64),
    /// CRYPTO.
    Crypto(u64, &'a [u8]),
    /// STREAM: the stream, the offset, the bytes.
    Stream(u64, u64, &'a [u8]),
    /// NEW_CONNECTION_ID: its sequence number.
    NewConnectionId(u64),
    /// CONNECTION_CLOSE.
    Close(Close),
    /// Any other type.
    Other(u64),
}

/// Why the peer has closed the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u64,
    /// Whether the code is one of the application.
    pub application: bool,
    /// The reason in words.
    pub reason: String,
}

/// Reads the next whole number.
///
/// # Errors
/// When there is none.
pub fn varint(bytes: &mut &[u8]) -> anyhow::Result<u64> {
    let (&first, rest) = bytes.split_first().context("a short frame")?;
    let (more, rest) = rest.split_at_checked((1 << (first >> 6)) - 1).context("a short frame")?;
    *bytes = rest;
    Ok(more.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)))
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> anyhow::Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length)?).context("a short frame")?;
    *bytes = rest;
    Ok(taken)
}

/// Reads the next frame; `None` at the end.
///
/// # Errors
/// When it is none.
pub fn next<'a>(bytes: &mut &'a [u8]) -> anyhow::Result<Option<Frame<'a>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let kind = varint(bytes)?;
    let mut skip = |numbers: u64| (0..numbers).try_for_each(|_| varint(bytes).map(drop));
    match kind {
        0x00 | 0x01 | 0x1e => {}
        0x10 | 0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19 => skip(1)?,
        0x05 | 0x11 | 0x15 => skip(2)?,
        0x04 => skip(3)?,
        0x02 | 0x03 => {
            let largest = varint(bytes)?;
            varint(bytes)?;
            let ranges = varint(bytes)?;
            for _ in 0..1 + 2 * ranges + if kind == 0x03 { 3 } else { 0 } {
                varint(bytes)?;
            }
            return Ok(Some(Frame::Ack(largest)));
        }
        0x06 => {
            let (offset, length) = (varint(bytes)?, varint(bytes)?);
            return Ok(Some(Frame::Crypto(offset, take(bytes, length)?)));
        }
        0x07 => {
            let length = varint(bytes)?;
            take(bytes, length)?;
        }
        0x08..=0x0f => {
            let id = varint(bytes)?;
            let offset = if kind & 4 == 0 { 0 } else { varint(bytes)? };
            let length = if kind & 2 == 0 { bytes.len() as u64 } else { varint(bytes)? };
            return Ok(Some(Frame::Stream(id, offset, take(bytes, length)?)));
        }
        0x18 => {
            let sequence = varint(bytes)?;
            varint(bytes)?;
            let length = take(bytes, 1)?[0];
            take(bytes, u64::from(length) + 16)?;
            return Ok(Some(Frame::NewConnectionId(sequence)));
        }
        0x1a | 0x1b => drop(take(bytes, 8)?),
        0x1c | 0x1d => {
            let code = varint(bytes)?;
            if kind == 0x1c {
                varint(bytes)?;
            }
            let length = varint(bytes)?;
            let reason = String::from_utf8_lossy(take(bytes, length)?).into_owned();
            return Ok(Some(Frame::Close(Close { code, application: kind == 0x1d, reason })));
        }
        other => bail!("a frame of type {other:#x}"),
    }
    Ok(Some(Frame::Other(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bytes_of_the_examples() {
        // RFC 9000, appendix A.1.
        for (value, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            assert_eq!(numbers(&[value]), bytes);
            assert_eq!(varint(&mut &bytes[..]).unwrap(), value);
        }
    }

    #[test]
    fn what_is_made_is_read() {
        let all = [
            ack(900, 5, 3, &[(1, 2), (3, 4)]),
            crypto(70, b"ab"),
            stream(0, 5, b"cde"),
            new_connection_id(300, 299),
            path_challenge(1),
            numbers(&[0x10, 1 << 40]),
            [&numbers(&[0x1c, 10, 2, 3])[..], b"why"].concat(),
            PING.to_vec(),
        ]
        .concat();
        let mut left = &all[..];
        let read: Vec<_> = std::iter::from_fn(|| next(&mut left).unwrap()).collect();
        let close = Close { code: 10, application: false, reason: "why".into() };
        assert_eq!(
            read,
            [
                Frame::Ack(900),
                Frame::Crypto(70, b"ab"),
                Frame::Stream(0, 5, b"cde"),
                Frame::NewConnectionId(300),
                Frame::Other(0x1a),
                Frame::Other(0x10),
                Frame::Close(close),
                Frame::Other(0x01),
            ]
        );
    }
}
