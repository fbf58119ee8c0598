//! Frames on their way to the socket. What was put here is written to its end: a frame must not be cut.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Buf;

use super::head::{HEAD_BYTES, Head, kind};

/// Slices of one system call.
const SLICES: usize = 64;

/// Frames that are being written. It holds no memory while it is empty.
#[derive(Debug)]
pub struct Out<B> {
    items: VecDeque<Item<B>>,
}

#[derive(Debug)]
enum Item<B> {
    /// Frames without payload of an application.
    Octets {
        octets: Vec<u8>,
        written: usize,
    },
    Data(Data<B>),
}

/// The front part of a payload, in as many DATA frames as it takes.
#[derive(Debug)]
struct Data<B> {
    stream: u32,
    payload: B,
    /// Octets of the payload that go now, and those of them that are not written yet.
    total: usize,
    left: usize,
    /// The frame that is being written: what is left of its header and of its payload.
    head_left: usize,
    frame_left: usize,
    max_frame: usize,
    /// Headers of the last frame and of all before it.
    last: [u8; HEAD_BYTES],
    full: [u8; HEAD_BYTES],
}

/// A payload that was written as far as it was to be.
#[derive(Debug)]
pub struct Written<B> {
    /// Its stream.
    pub stream: u32,
    /// Octets of it that were written.
    pub octets: usize,
    /// What was left of it.
    pub rest: Option<B>,
}

impl<B> Default for Out<B> {
    fn default() -> Self {
        Self { items: VecDeque::new() }
    }
}

impl<B: Buf> Out<B> {
    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Appends whole frames.
    pub fn push_octets(&mut self, octets: Vec<u8>) {
        if !octets.is_empty() {
            self.items.push_back(Item::Octets { octets, written: 0 });
        }
    }

    /// Appends the first `octets` octets of a payload, in frames of at most `max_frame` octets; none of them is 0.
    pub fn push_data(&mut self, stream: u32, payload: B, octets: usize, max_frame: usize) {
        let frames = octets.div_ceil(max_frame);
        let last = octets - (frames - 1) * max_frame;
        let head = |length: usize| Head { length: length as u32, kind: kind::DATA, flags: 0, stream }.octets();
        self.items.push_back(Item::Data(Data {
            stream,
            payload,
            total: octets,
            left: octets,
            head_left: HEAD_BYTES,
            frame_left: octets.min(max_frame),
            max_frame,
            last: head(last),
            full: head(max_frame),
        }));
    }

    /// Gives `write` what is next, in as many slices as one system call takes.
    pub fn gather<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let mut chunks = [IoSlice::new(&[]); SLICES];
        let (mut filled, mut counts) = (0, [0; SLICES]);
        for (item, count) in self.items.iter().zip(&mut counts) {
            if let Item::Data(data) = item {
                *count = data.payload.chunks_vectored(&mut chunks[filled..]);
                filled += *count;
            }
        }
        let mut slices = Slices { slices: [IoSlice::new(&[]); SLICES], filled: 0 };
        let mut chunks = &chunks[..];
        for (item, count) in self.items.iter().zip(counts) {
            let (own, rest) = chunks.split_at(count);
            chunks = rest;
            let whole = match item {
                Item::Octets { octets, written } => slices.push(&octets[*written..]),
                Item::Data(data) => data.gather(own, &mut slices),
            };
            if whole.is_none() {
                break;
            }
        }
        write(&slices.slices[..slices.filled])
    }

    /// Counts the next `octets` octets as written, and calls `each` with payloads that are through.
    pub fn advance(&mut self, mut octets: usize, mut each: impl FnMut(Written<B>)) {
        while octets > 0
            && let Some(item) = self.items.front_mut()
        {
            let is_done = match item {
                Item::Octets { octets: all, written } => {
                    let of_item = octets.min(all.len() - *written);
                    *written += of_item;
                    octets -= of_item;
                    *written == all.len()
                }
                Item::Data(data) => {
                    octets -= data.advance(octets);
                    data.left == 0
                }
            };
            if is_done && let Some(Item::Data(data)) = self.items.pop_front() {
                let rest = data.payload.has_remaining().then_some(data.payload);
                each(Written { stream: data.stream, octets: data.total, rest });
            }
        }
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
    }
}

impl<B: Buf> Data<B> {
    fn head(&self, frame: usize, left: usize) -> &[u8; HEAD_BYTES] {
        if frame == left { &self.last } else { &self.full }
    }

    /// None if not all of it found a place.
    fn gather<'s>(&'s self, chunks: &'s [IoSlice<'_>], slices: &mut Slices<'s>) -> Option<()> {
        let (mut head, mut frame, mut left) = (self.head_left, self.frame_left, self.left);
        let mut chunks = chunks.iter();
        let mut chunk: &[u8] = &[];
        while left > 0 {
            if head > 0 {
                slices.push(&self.head(frame, left)[HEAD_BYTES - head..])?;
                head = 0;
            }
            if chunk.is_empty() {
                chunk = chunks.next()?;
            }
            let (piece, rest) = chunk.split_at(chunk.len().min(frame));
            slices.push(piece)?;
            chunk = rest;
            (frame, left) = (frame - piece.len(), left - piece.len());
            if frame == 0 {
                (head, frame) = (HEAD_BYTES, left.min(self.max_frame));
            }
        }
        Some(())
    }

    /// Advances by `octets` octets or to the end; how many it took.
    fn advance(&mut self, octets: usize) -> usize {
        let mut taken = 0;
        while taken < octets && self.left > 0 {
            let of_head = self.head_left.min(octets - taken);
            self.head_left -= of_head;
            taken += of_head;
            let of_frame = self.frame_left.min(octets - taken);
            self.payload.advance(of_frame);
            (self.frame_left, self.left) = (self.frame_left - of_frame, self.left - of_frame);
            taken += of_frame;
            if self.frame_left == 0 {
                (self.head_left, self.frame_left) = (HEAD_BYTES, self.left.min(self.max_frame));
            }
        }
        taken
    }
}

struct Slices<'s> {
    slices: [IoSlice<'s>; SLICES],
    filled: usize,
}

impl<'s> Slices<'s> {
    /// None without a place.
    fn push(&mut self, octets: &'s [u8]) -> Option<()> {
        *self.slices.get_mut(self.filled)? = IoSlice::new(octets);
        self.filled += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;

    #[test]
    fn is_the_same_frames_however_much_a_write_takes() {
        for step in [1, 2, 8, 9, 10, 13, 100, 1000] {
            let mut out = Out::<Bytes>::default();
            out.push_octets(b"settings".to_vec());
            out.push_data(1, Bytes::from_static(b"0123456789"), 10, 4);
            out.push_data(3, Bytes::from_static(b"abcdefgh"), 4, 4);
            out.push_octets(b"ping".to_vec());
            let (mut wire, mut done) = (Vec::new(), Vec::new());
            while !out.is_empty() {
                let octets = out.gather(|slices| {
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let taken = step.min(all.len());
                    wire.extend_from_slice(&all[..taken]);
                    taken
                });
                out.advance(octets, |written| done.push((written.stream, written.octets, written.rest)));
            }
            let head = |length, stream| Head { length, kind: kind::DATA, flags: 0, stream }.octets();
            let parts = [
                &b"settings"[..],
                &head(4, 1),
                b"0123",
                &head(4, 1),
                b"4567",
                &head(2, 1),
                b"89",
                &head(4, 3),
                b"abcd",
                b"ping",
            ];
            assert_eq!(wire, parts.concat(), "steps of {step}");
            assert_eq!(done, [(1, 10, None), (3, 4, Some(Bytes::from_static(b"efgh")))]);
        }
    }

    #[test]
    fn more_slices_than_a_write_takes_are_written_in_turn() {
        let mut out = Out::<Bytes>::default();
        let all: Vec<u8> = (0..=255).collect();
        out.push_data(1, Bytes::from(all.clone()), 256, 1);
        let mut wire = Vec::new();
        while !out.is_empty() {
            let octets = out.gather(|slices| {
                slices.iter().for_each(|slice| wire.extend_from_slice(slice));
                slices.iter().map(|slice| slice.len()).sum()
            });
            out.advance(octets, |_| {});
        }
        assert_eq!(wire.len(), 256 * 10);
        assert_eq!(wire.iter().skip(9).step_by(10).copied().collect::<Vec<_>>(), all);
    }
}
