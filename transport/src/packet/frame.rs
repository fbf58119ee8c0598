//! A packet on its way into HTTP/2's DATA frames: a head of our own and the bytes of a dial as they came, uncopied.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

use super::{
    Packet,
    message::{DATA_HEAD_MAX, data_head, encode},
};

/// A packet with its prefix, in pieces that one system call writes. The default is no packet at all, for the end of a
/// stream.
#[derive(Debug, Default)]
pub struct PacketBuf {
    head: [u8; DATA_HEAD_MAX],
    /// The part of the head that is not sent yet is `at..end`.
    at: u8,
    end: u8,
    first: Bytes,
    more: VecDeque<Bytes>,
    remaining: usize,
}

impl PacketBuf {
    /// Any packet but one with a dial's bytes.
    pub fn control(packet: &Packet) -> Self {
        let first = encode(packet);
        Self { head: [0; DATA_HEAD_MAX], at: 0, end: 0, remaining: first.len(), first, more: VecDeque::new() }
    }

    /// A DATA packet that will have `bytes` bytes, which are to be pushed.
    pub fn data(connect_id: i64, bytes: usize) -> Self {
        let (head, length) = data_head(connect_id, bytes);
        // 28 bytes at most.
        let end = length as u8;
        Self { head, at: 0, end, first: Bytes::new(), more: VecDeque::new(), remaining: length }
    }

    /// The next bytes of the payload.
    pub fn push(&mut self, bytes: Bytes) {
        self.remaining += bytes.len();
        if self.first.is_empty() && self.more.is_empty() {
            self.first = bytes;
        } else {
            self.more.push_back(bytes);
        }
    }

    fn head_left(&self) -> &[u8] {
        &self.head[usize::from(self.at)..usize::from(self.end)]
    }
}

impl Buf for PacketBuf {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        match self.head_left() {
            [] => &self.first,
            head => head,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let head = self.head_left();
        let pieces = [head, &self.first].into_iter().chain(self.more.iter().map(Bytes::as_ref));
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut bytes: usize) {
        self.remaining -= bytes;
        let of_head = bytes.min(self.head_left().len());
        self.at += of_head as u8;
        bytes -= of_head;
        while bytes > 0 {
            let of_piece = bytes.min(self.first.len());
            self.first.advance(of_piece);
            bytes -= of_piece;
            self.next_piece();
        }
        self.next_piece();
    }
}

impl PacketBuf {
    fn next_piece(&mut self) {
        if self.first.is_empty() {
            self.first = self.more.pop_front().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::packet::message::{Decoder, Event};

    #[test]
    fn is_the_same_packet_however_it_is_taken_out() {
        let pieces = ["abc", "d", "", "efgh"].map(|piece| Bytes::from_static(piece.as_bytes()));
        for step in 1..40 {
            let mut packet = PacketBuf::data(300, 8);
            pieces.iter().for_each(|piece| packet.push(piece.clone()));
            let mut wire = BytesMut::new();
            while packet.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = packet.chunks_vectored(&mut slices);
                let seen: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
                assert_eq!(seen, packet.remaining());
                let length = step.min(packet.remaining());
                wire.extend_from_slice(&packet.copy_to_bytes(length));
            }
            let mut decoder = Decoder::default();
            decoder.push(wire.freeze());
            let Ok(Some(Event::Data { connect_id: 300, bytes, first: true })) = decoder.next() else {
                panic!("no DATA packet")
            };
            assert_eq!(bytes, "abcdefgh");
            assert!(decoder.is_between_messages());
        }
    }

    #[test]
    fn a_control_packet_is_what_the_codec_makes_of_it() {
        let packet = Packet::close_response(5, "gone");
        let mut buf = PacketBuf::control(&packet);
        let length = buf.remaining();
        assert_eq!(buf.copy_to_bytes(length), encode(&packet));
    }
}
