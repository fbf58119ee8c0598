//! QUIC packets as they are on the wire (RFC 9000, section 17; RFC 9001, section 5), no more of them than a test needs.

use anyhow::{Context, bail};
use rustls::quic::{DirectionalKeys, Keys, PacketKey};

/// What goes into one datagram. Every path of QUIC carries it.
pub const DATAGRAM: usize = 1200;

/// The length of our connection ids: short headers do not say it.
pub const ID_LENGTH: usize = 8;

/// Bytes of a packet number as we send it.
const NUMBER_LENGTH: usize = 4;
/// Of the tag behind every payload.
const TAG_LENGTH: usize = 16;
/// Of the header of an Initial without its ids: flags, version, lengths of ids, token and packet, number.
const HEADER: usize = 1 + 4 + 2 + 1 + 2 + NUMBER_LENGTH;
/// Frames that fit into any packet; an id has 20 bytes at most.
pub const MAX_FRAMES: usize = DATAGRAM - HEADER - 2 * 20 - TAG_LENGTH;

const VERSION: [u8; 4] = [0, 0, 0, 1];

/// The bit of the key phase in a short header.
const PHASE: u8 = 0x04;

/// Packets have numbers of their own in each (RFC 9000, section 12.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Until keys are agreed.
    Initial = 0,
    /// Until the handshake is done.
    Handshake = 1,
    /// From then on.
    Data = 2,
}

/// Who it is for and from.
#[derive(Debug, Clone)]
pub struct Ids {
    /// The receiver's id.
    pub to: Vec<u8>,
    /// The sender's id.
    pub from: Vec<u8>,
}

/// Which of the packets of its level one is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its number.
    pub number: u64,
    /// With a short header: whether it is sealed with every second set of keys (RFC 9001, section 6).
    pub phase: bool,
}

/// Makes one datagram of one packet.
///
/// # Errors
/// When there are too many frames.
pub fn seal(level: Level, ids: &Ids, place: Place, frames: &[u8], keys: &DirectionalKeys) -> anyhow::Result<Vec<u8>> {
    let mut frames = frames.to_vec();
    if level == Level::Initial {
        // Or it is not answered (RFC 9000, section 14.1).
        let room = DATAGRAM - HEADER - ids.to.len() - ids.from.len() - TAG_LENGTH;
        frames.resize(frames.len().max(room), 0);
    }
    let mut packet = header(level, ids, place, NUMBER_LENGTH + frames.len() + TAG_LENGTH);
    let length = packet.len();
    packet.extend(frames);
    let (head, payload) = packet.split_at_mut(length);
    let tag = keys.packet.encrypt_in_place(place.number, head, payload)?;
    packet.extend(tag.as_ref());
    if packet.len() > DATAGRAM {
        bail!("{} bytes do not fit into a datagram", packet.len());
    }
    let (head, payload) = packet.split_at_mut(length);
    let (first, rest) = head.split_at_mut(1);
    let number = &mut rest[length - 1 - NUMBER_LENGTH..];
    keys.header.encrypt_in_place(&payload[..keys.header.sample_len()], &mut first[0], number)?;
    Ok(packet)
}

/// `length`: of all that follows it.
fn header(level: Level, ids: &Ids, place: Place, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DATAGRAM);
    if level == Level::Data {
        bytes.push(0x40 | if place.phase { PHASE } else { 0 } | (NUMBER_LENGTH - 1) as u8);
        bytes.extend(&ids.to);
    } else {
        // Between these two is 0-RTT.
        bytes.push(0xc0 | (level as u8 * 2) << 4 | (NUMBER_LENGTH - 1) as u8);
        bytes.extend(VERSION);
        for id in [&ids.to, &ids.from] {
            bytes.push(id.len() as u8);
            bytes.extend(id);
        }
        if level == Level::Initial {
            // No token.
            bytes.push(0);
        }
        bytes.extend((length as u16 | 0x4000).to_be_bytes());
    }
    bytes.extend((place.number as u32).to_be_bytes());
    bytes
}

/// A packet of a datagram, still sealed.
#[derive(Debug)]
pub struct Sealed<'a> {
    /// Where it belongs.
    pub level: Level,
    /// Its ids; short headers have none of the sender's.
    pub ids: Ids,
    bytes: &'a mut [u8],
    /// Bytes of the header: at first those before the number.
    header: usize,
}

/// Cuts a datagram into its packets.
///
/// # Errors
/// When it is none of this version of QUIC.
pub fn split(mut datagram: &mut [u8]) -> anyhow::Result<Vec<Sealed<'_>>> {
    let mut packets = Vec::new();
    while let Some(&first) = datagram.first() {
        let mut rest = &datagram[1..];
        let mut take = |bytes: usize| {
            let (taken, left) = rest.split_at_checked(bytes).context("a short packet")?;
            rest = left;
            anyhow::Ok(taken)
        };
        let (level, ids, length) = if first & 0x80 == 0 {
            (Level::Data, Ids { to: take(ID_LENGTH)?.to_vec(), from: Vec::new() }, None)
        } else {
            if take(4)? != VERSION {
                bail!("another version");
            }
            let mut id = || {
                let length = take(1)?[0];
                anyhow::Ok(take(length.into())?.to_vec())
            };
            let ids = Ids { to: id()?, from: id()? };
            let level = match first >> 4 & 3 {
                0 => Level::Initial,
                2 => Level::Handshake,
                other => bail!("a packet of type {other}"),
            };
            if level == Level::Initial {
                let token = super::frame::varint(&mut rest)?;
                rest = rest.get(usize::try_from(token)?..).context("a short packet")?;
            }
            (level, ids, Some(usize::try_from(super::frame::varint(&mut rest)?)?))
        };
        let header = datagram.len() - rest.len();
        let end = length.map_or(datagram.len(), |length| header + length);
        let (bytes, left) = datagram.split_at_mut_checked(end).context("a short packet")?;
        packets.push(Sealed { level, ids, bytes, header });
        datagram = left;
    }
    Ok(packets)
}

impl Sealed<'_> {
    /// Takes the protection off the header. `expected` is the number after the largest one so far.
    ///
    /// # Errors
    /// When it is too short.
    pub fn unprotect(&mut self, keys: &Keys, expected: u64) -> anyhow::Result<Place> {
        let keys = &keys.remote.header;
        let (head, body) = self.bytes.split_at_mut(self.header);
        let (number, sample) = body.split_at_mut_checked(NUMBER_LENGTH).context("a short packet")?;
        let sample = sample.get(..keys.sample_len()).context("a short packet")?;
        keys.decrypt_in_place(sample, &mut head[0], number)?;
        let length = usize::from(head[0] & 3) + 1;
        self.header += length;
        let truncated = number[..length].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Ok(Place { number: expand(truncated, length, expected), phase: head[0] & PHASE != 0 })
    }

    /// The frames of a packet whose header is unprotected.
    ///
    /// # Errors
    /// When these are not its keys.
    pub fn open(self, place: Place, key: &dyn PacketKey) -> anyhow::Result<Vec<u8>> {
        let (head, payload) = self.bytes.split_at_mut(self.header);
        Ok(key.decrypt_in_place(place.number, head, payload)?.to_vec())
    }
}

/// The packet number of which so many bytes were sent (RFC 9000, appendix A.3).
fn expand(truncated: u64, length: usize, expected: u64) -> u64 {
    let window = 1_u64 << (8 * length);
    let candidate = expected & !(window - 1) | truncated;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_numbers_are_the_nearest_that_fit() {
        assert_eq!(expand(0x9b32, 2, 0xa82f_30eb), 0xa82f_9b32, "the example of RFC 9000");
        assert_eq!(expand(0xff, 1, 0x100), 0xff);
        assert_eq!(expand(0x01, 1, 0xff), 0x101);
        assert_eq!(expand(0xff, 1, 0), 0xff);
    }
}
