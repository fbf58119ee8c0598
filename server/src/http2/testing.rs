//! For tests of this folder, and for the fuzz targets that include it: an encoder that uses every representation, frames,
//! and somebody who serves a session's streams.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{
    code::{Fault, Gone},
    head::{HEAD_BYTES, Head, kind},
    huffman::CODE_BITS,
    out::Out,
    pace::PingPolicy,
    session::{PREFACE, Session, Settings},
    table::STATIC,
};

/// What the tests' servers allow.
pub const SETTINGS: Settings = Settings {
    stream_window: 256 * 1024,
    connection_window: 1 << 30,
    max_streams: 1_000,
    send_buffer: 128 * 1024,
    pings: PingPolicy::CLIENT,
};

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

/// The frames in `octets`, which end with one.
pub fn frames(mut octets: &[u8]) -> Vec<(Head, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(head) = octets.first_chunk() {
        let head = Head::parse(head);
        let (payload, rest) = octets[HEAD_BYTES..].split_at(head.length as usize);
        frames.push((head, payload.to_vec()));
        octets = rest;
    }
    assert_eq!(octets, b"", "a frame that ends early");
    frames
}

/// What a server has seen of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub is_too_large: bool,
    pub data: Vec<u8>,
    /// How the client's half has ended.
    pub end: Option<Result<(), Gone>>,
}

/// Headers of the client's frames, as far as there are any.
fn heads(octets: &[u8]) -> Vec<Head> {
    let mut rest = octets.get(PREFACE.len()..).unwrap_or_default();
    let mut heads = Vec::new();
    while let Some(octets) = rest.first_chunk() {
        let head = Head::parse(octets);
        heads.push(head);
        rest = rest.get(HEAD_BYTES + head.length as usize..).unwrap_or_default();
    }
    heads
}

/// What has become of a connection: how it was broken, or what its streams have brought.
pub type Outcome = (Option<Fault>, BTreeMap<u32, Seen>);

/// What is the same of servers that were fed these octets, however they were cut. Of what comes shortly before a fault, or
/// before a reset by either side, more is seen the smaller the pieces are.
pub fn outcomes<const N: usize>(octets: &[u8], servers: &mut [Server; N]) -> [Outcome; N] {
    let of_servers = servers.iter_mut().flat_map(Server::take_frames).map(|(head, _)| head);
    let resets = heads(octets).into_iter().chain(of_servers).filter(|head| head.kind == kind::RST_STREAM);
    let reset: BTreeSet<u32> = resets.map(|head| head.stream).collect();
    servers.each_ref().map(|server| {
        let fault = server.session.fault();
        let is_same =
            |id: &u32, seen: &Seen| fault.is_none() && !reset.contains(id) && !matches!(seen.end, Some(Err(_)));
        let seen = server.seen.iter().filter(|(id, seen)| is_same(id, seen));
        (fault, seen.map(|(id, seen)| (*id, seen.clone())).collect())
    })
}

/// A session whose requests are accepted and read at once, and kept until the client has ended them.
pub struct Server {
    pub session: Session<Bytes>,
    pub seen: BTreeMap<u32, Seen>,
    /// Everything that went to the client.
    pub sent: Vec<u8>,
    /// The most that was held at once.
    pub most_held: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self::with(SETTINGS)
    }
}

impl Server {
    pub fn with(settings: Settings) -> Self {
        let session = Session::new(settings);
        Self { session, seen: BTreeMap::new(), sent: Vec::new(), most_held: 0 }
    }

    /// One that was greeted, and has said so.
    pub fn greeted() -> Self {
        let mut server = Self::default();
        server.feed(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat());
        server.sent.clear();
        server
    }

    /// Gives it octets as one read does.
    pub fn feed(&mut self, octets: &[u8]) {
        let mut input = Bytes::copy_from_slice(octets);
        while !input.is_empty() {
            self.session.receive(&mut input, octets.len());
            self.most_held = self.most_held.max(self.session.held());
            self.look();
            self.write();
            if self.session.is_tired() {
                self.session.rest();
            } else if !self.session.wants_input() {
                return;
            }
        }
    }

    /// The same in pieces of these sizes, the last of them again and again.
    pub fn feed_in_pieces(&mut self, octets: &[u8], pieces: &[usize]) {
        let mut sizes = pieces.iter().copied().chain(std::iter::repeat(*pieces.last().unwrap_or(&usize::MAX)));
        let mut ahead = octets;
        while !ahead.is_empty() {
            let (piece, rest) = ahead.split_at(ahead.len().min(sizes.next().unwrap().max(1)));
            ahead = rest;
            self.feed(piece);
        }
    }

    /// Accepts what is there, and reads it.
    pub fn look(&mut self) {
        while let Some((id, request)) = self.session.accept() {
            let fields = request.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let seen = Seen { fields, is_too_large: request.is_too_large(), ..Seen::default() };
            assert!(self.seen.insert(id, seen).is_none(), "stream {id} again");
        }
        let mut cx = Context::from_waker(Waker::noop());
        for (&id, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.end.is_none()) {
            while let Poll::Ready(data) = self.session.poll_data(id, &mut cx) {
                match data {
                    Some(Ok(octets)) => {
                        seen.data.extend_from_slice(&octets);
                        self.session.release(id, octets.len() as u32);
                    }
                    other => {
                        seen.end = Some(other.transpose().map(|_| ()));
                        break;
                    }
                }
            }
            if matches!(seen.end, Some(Err(_))) {
                self.session.drop_handle(id);
            }
        }
    }

    /// Writes all that may go.
    pub fn write(&mut self) {
        let mut out = Out::default();
        loop {
            self.session.fill(&mut out);
            if out.is_empty() {
                return;
            }
            while !out.is_empty() {
                let octets = out.gather(|slices| {
                    slices.iter().for_each(|slice| self.sent.extend_from_slice(slice));
                    slices.iter().map(|slice| slice.len()).sum()
                });
                out.advance(octets, |written| self.session.written(written));
            }
        }
    }

    /// The frames that were sent since the last time.
    pub fn take_frames(&mut self) -> Vec<(Head, Vec<u8>)> {
        self.write();
        frames(&std::mem::take(&mut self.sent))
    }
}
