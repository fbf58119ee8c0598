//! For tests of this folder, and for the fuzz target that includes it: an encoder that uses every representation, frames,
//! and a reader of what comes out.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{collections::VecDeque, sync::LazyLock};

use super::{
    block::{MAX_BLOCK_BYTES, MAX_LIST_BYTES},
    head::{HEAD_BYTES, Head, flag, kind},
    huffman::CODE_BITS,
    table::STATIC,
    walk::{ENOUGH_BYTES, Walker},
};

/// What a walker and its output never exceed, but for input that passes: what is enough, one rewritten block with its frame
/// headers, one collected block, the numbers of open streams; and each of them as a vector that has just doubled.
pub const MOST_HELD: usize =
    2 * (ENOUGH_BYTES + MAX_LIST_BYTES + 16 * HEAD_BYTES + MAX_BLOCK_BYTES) + 16 * 1024 * size_of::<u32>() + 1024;

/// A field: name, value, never indexed.
pub type OwnField = (Vec<u8>, Vec<u8>, bool);

pub fn field(name: &str, value: &str) -> OwnField {
    (name.into(), value.into(), false)
}

/// How a field is encoded, where the tables allow it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form {
    /// As an index alone, if a table has the whole field.
    pub indexed: bool,
    /// Added to the dynamic table.
    pub added: bool,
    /// The name as an index, if a table has it.
    pub name_indexed: bool,
    pub huffman_name: bool,
    pub huffman_value: bool,
}

/// The sending side of header compression, written without a look at the decoder.
#[derive(Debug)]
pub struct Encoder {
    dynamic: VecDeque<(Vec<u8>, Vec<u8>)>,
    max_bytes: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { dynamic: VecDeque::new(), max_bytes: 4096 }
    }
}

impl Encoder {
    /// Legal only at the begin of a block.
    pub fn resize(&mut self, max_bytes: usize, out: &mut Vec<u8>) {
        put_integer(out, 0x20, 5, max_bytes);
        self.max_bytes = max_bytes;
        self.evict();
    }

    pub fn put(&mut self, (name, value, never): &OwnField, form: Form, out: &mut Vec<u8>) {
        let tables = || {
            let fixed = STATIC.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            fixed.chain(self.dynamic.iter().map(|(name, value)| (&**name, &**value))).zip(1_usize..)
        };
        let whole = tables().find(|(entry, _)| *entry == (name, value)).map(|(_, index)| index);
        if let (Some(index), true, false) = (whole, form.indexed, *never) {
            return put_integer(out, 0x80, 7, index);
        }
        let known = tables().filter(|((entry, _), _)| entry == name).map(|(_, index)| index).last();
        let (first, prefix) = match (*never, form.added) {
            (true, _) => (0x10, 4),
            (false, true) => (0x40, 6),
            (false, false) => (0, 4),
        };
        match known {
            Some(index) if form.name_indexed => put_integer(out, first, prefix, index),
            _ => {
                out.push(first);
                put_string(out, name, form.huffman_name);
            }
        }
        put_string(out, value, form.huffman_value);
        if first == 0x40 {
            self.dynamic.push_front((name.clone(), value.clone()));
            self.evict();
        }
    }

    fn evict(&mut self) {
        while self.dynamic.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > self.max_bytes {
            self.dynamic.pop_back();
        }
    }
}

pub fn put_integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let mask = (1 << prefix) - 1;
    if value < mask {
        return out.push(first | value as u8);
    }
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 128 {
        out.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

fn put_string(out: &mut Vec<u8>, octets: &[u8], huffman: bool) {
    if huffman {
        let coded = huffman_encode(octets);
        put_integer(out, 0x80, 7, coded.len());
        out.extend(coded);
    } else {
        put_integer(out, 0, 7, octets.len());
        out.extend(octets);
    }
}

pub fn huffman_encode(octets: &[u8]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    for &octet in octets {
        let (code, length) = huffman_code(octet.into());
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|chunk| chunk.iter().fold(0, |octet, &bit| octet << 1 | u8::from(bit))).collect()
}

/// The code of one symbol and its bits.
pub fn huffman_code(symbol: usize) -> (u32, u32) {
    static CODES: LazyLock<Vec<(u32, u32)>> = LazyLock::new(huffman_codes);
    CODES[symbol]
}

/// Each code is one more than that of the symbol before it in the canonical order, and as long as the table says.
fn huffman_codes() -> Vec<(u32, u32)> {
    let mut order: Vec<usize> = (0..CODE_BITS.len()).collect();
    order.sort_by_key(|&symbol| (CODE_BITS[symbol], symbol));
    let mut codes = vec![(0, 0); order.len()];
    let (mut next, mut length) = (0_u32, 0);
    for symbol in order {
        let bits = u32::from(CODE_BITS[symbol]);
        next <<= bits - length;
        length = bits;
        codes[symbol] = (next, length);
        next = next.wrapping_add(1);
    }
    codes
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head { length: payload.len() as u32, kind, flags, stream };
    [&head.octets()[..], payload].concat()
}

/// What a client's octets say, with header blocks put together and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Headers { stream: u32, end_stream: bool, fields: Vec<OwnField> },
    Other(Head, Vec<u8>),
}

/// Reads what the HTTP/2 library would be given behind the preface.
///
/// # Panics
/// If a header block is compressed in any way, or its frames are not as RFC 9113 wants them.
pub fn events(octets: &[u8]) -> Vec<Event> {
    let (events, rest) = whole_events(octets);
    assert_eq!(rest, b"", "a frame that ends early");
    events
}

/// The same, and what is left in the end: the begin of a frame.
pub fn whole_events(mut octets: &[u8]) -> (Vec<Event>, &[u8]) {
    let mut events = Vec::new();
    while let Some((head, payload, rest)) = next_frame(octets) {
        octets = rest;
        assert_ne!(head.kind, kind::CONTINUATION, "without HEADERS");
        if head.kind != kind::HEADERS {
            events.push(Event::Other(head, payload.to_vec()));
            continue;
        }
        assert_eq!(head.flags & !(flag::END_STREAM | flag::END_HEADERS), 0, "padding or priority");
        let (mut block, mut last) = (payload.to_vec(), head);
        while !last.has(flag::END_HEADERS) {
            let (next, payload, rest) = next_frame(octets).unwrap();
            assert_eq!((next.kind, next.stream), (kind::CONTINUATION, head.stream));
            assert_eq!(last.length, 16_384, "split too early");
            octets = rest;
            block.extend_from_slice(payload);
            last = next;
        }
        let end_stream = head.has(flag::END_STREAM);
        events.push(Event::Headers { stream: head.stream, end_stream, fields: literals(&block) });
    }
    (events, octets)
}

fn next_frame(octets: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let head = Head::parse(octets.first_chunk()?);
    let (payload, rest) = octets[HEAD_BYTES..].split_at_checked(head.length as usize)?;
    assert!(head.kind > kind::HEADERS && head.kind != kind::CONTINUATION || head.length <= 16_384);
    Some((head, payload, rest))
}

fn literals(mut block: &[u8]) -> Vec<OwnField> {
    let mut fields = Vec::new();
    while let Some((&first, rest)) = block.split_first() {
        assert!(first == 0 || first == 0x10, "not a literal without indexing: {first:#x}");
        block = rest;
        let (name, value) = (plain_string(&mut block), plain_string(&mut block));
        fields.push((name, value, first == 0x10));
    }
    fields
}

fn plain_string(block: &mut &[u8]) -> Vec<u8> {
    let mut length = usize::from(block[0]);
    assert!(length < 0x80, "a Huffman string");
    *block = &block[1..];
    let mut shift = 0;
    while length >= 127 {
        let octet = block[0];
        *block = &block[1..];
        length += usize::from(octet & 127) << shift;
        shift += 7;
        if octet < 128 {
            break;
        }
    }
    let (string, rest) = block.split_at(length);
    *block = rest;
    string.to_vec()
}

/// Gives a walker `octets` in pieces of the sizes given (the last of them again and again), in the way that a socket does,
/// until it stops for good. Returns all that comes out, and the most that was held at once, but for octets that pass.
pub fn walk_all(walker: &mut Walker, octets: &[u8], pieces: &[usize]) -> (Vec<u8>, usize) {
    let mut sizes = pieces.iter().copied().chain(std::iter::repeat(*pieces.last().unwrap_or(&usize::MAX)));
    let (mut out, mut most, mut ahead) = (Vec::new(), 0, octets);
    while !ahead.is_empty() {
        let (piece, rest) = ahead.split_at(ahead.len().min(sizes.next().unwrap().max(1)));
        ahead = rest;
        let held_back = walker.partial_head().to_vec();
        walker.forget_partial_head();
        let piece = [&held_back, piece].concat();
        let mut at = walker.pass(&piece);
        out.extend_from_slice(&piece[..at]);
        while at < piece.len() {
            let mut some = Vec::new();
            at += walker.rewrite(&piece[at..], &mut some);
            most = most.max(some.capacity() + walker.held());
            out.extend(some);
            if walker.pace().is_tired() {
                walker.pace().rest();
            } else if walker.is_stopped() {
                return (out, most);
            }
        }
    }
    (out, most)
}
