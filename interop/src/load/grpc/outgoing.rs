//! What is sent to the server: packets as messages, messages as DATA frames, as many as its windows take.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut};
use konnectivity_transport::packet::Packet;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::io::AsyncWrite;

use super::window::{FIRST_WINDOW, STREAM};
use crate::pair::grpc::frame::{MAX_PAYLOAD, kind};

/// Bytes of one packet: what Go's `io.Copy` reads at a time.
pub const PACKET_BYTES: usize = 32 * 1024;

/// Bytes that are taken before those before them are written: Go's library has 64 KiB waiting on a stream at most.
pub const QUOTA_BYTES: usize = 2 * PACKET_BYTES;

/// Frames on their way to the socket.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Whole frames.
    output: Vec<u8>,
    /// How many bytes of them the socket has taken.
    written: usize,
    /// Messages that found no room in the server's windows.
    waiting: Vec<u8>,
    credit: Credit,
}

impl Outgoing {
    /// Whether everything is with the socket.
    pub fn is_empty(&self) -> bool {
        self.output.is_empty() && self.waiting.is_empty()
    }

    /// Where whole frames are added, other than DATA.
    pub fn frames(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What the server lets us send.
    pub fn credit(&mut self) -> &mut Credit {
        &mut self.credit
    }

    /// Adds a packet.
    pub fn packet(&mut self, packet: &Packet) {
        let mut message = Vec::with_capacity(128);
        prefix(packet.encoded_len(), &mut message);
        message.extend(packet.encode_to_vec());
        self.push(message.as_slice());
    }

    /// Adds bytes of the dial as packets, at most [`QUOTA_BYTES`]; says how many.
    pub fn data(&mut self, connect_id: i64, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(QUOTA_BYTES)];
        for bytes in bytes.chunks(PACKET_BYTES) {
            self.push(data_head(connect_id, bytes.len()).chain(bytes));
        }
        bytes.len()
    }

    /// Makes frames of what had to wait, as far as there is credit now.
    pub fn proceed(&mut self) {
        if !self.waiting.is_empty() && self.credit.bytes() > 0 {
            let waiting = std::mem::take(&mut self.waiting);
            self.push(waiting.as_slice());
        }
    }

    fn push(&mut self, mut message: impl Buf) {
        // Behind what waits already, so that the order stays.
        while self.waiting.is_empty() && message.has_remaining() && self.credit.bytes() > 0 {
            let length = message.remaining().min(self.credit.bytes()).min(MAX_PAYLOAD);
            self.credit.spend(length);
            self.output.put_uint(length as u64, 3);
            self.output.put_u8(kind::DATA);
            self.output.put_u8(0);
            self.output.put_u32(STREAM);
            self.output.put((&mut message).take(length));
        }
        self.waiting.put(message);
    }

    /// Writes whole frames until none is left; what waits for credit stays.
    pub fn poll_write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.output.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.output[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.written += length,
            }
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        self.output.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// What comes before a message: that it is not compressed, and its length.
fn prefix(length: usize, out: &mut Vec<u8>) {
    out.put_u8(0);
    out.put_uint(length as u64, 4);
}

/// A message with a DATA packet up to its bytes: as the reference encodes it, without a copy of the bytes.
fn data_head(connect_id: i64, length: usize) -> io::Cursor<Vec<u8>> {
    // A number goes to the wire as its bits.
    let (id, length) = (connect_id as u64, length as u64);
    let data = 1 + encoded_len_varint(id) + 1 + encoded_len_varint(length) + length as usize;
    let packet = 3 + encoded_len_varint(data as u64) + data;
    let mut head = Vec::with_capacity(40);
    prefix(packet, &mut head);
    head.extend([0x08, 4, 0x22]);
    encode_varint(data as u64, &mut head);
    head.push(0x08);
    encode_varint(id, &mut head);
    head.push(0x1a);
    encode_varint(length, &mut head);
    io::Cursor::new(head)
}

/// What the server lets us send on the connection and on its one stream; less than nothing if it has changed its mind.
#[derive(Debug)]
pub struct Credit {
    connection: i64,
    stream: i64,
    initial: i64,
}

impl Default for Credit {
    fn default() -> Self {
        let first = i64::from(FIRST_WINDOW);
        Self { connection: first, stream: first, initial: first }
    }
}

impl Credit {
    /// How many bytes may be sent now.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.connection.min(self.stream)).unwrap_or(0)
    }

    fn spend(&mut self, bytes: usize) {
        // At most a frame.
        let bytes = bytes as i64;
        self.connection -= bytes;
        self.stream -= bytes;
    }

    /// The server's SETTINGS_INITIAL_WINDOW_SIZE.
    pub fn initial(&mut self, bytes: u32) {
        self.stream += i64::from(bytes) - self.initial;
        self.initial = i64::from(bytes);
    }

    /// A WINDOW_UPDATE of the server.
    pub fn more(&mut self, stream: u32, bytes: u32) {
        match stream {
            0 => self.connection += i64::from(bytes),
            _ => self.stream += i64::from(bytes),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pair::grpc::frame::Frame;
    use crate::pair::grpc::message;

    #[test]
    fn a_data_packet_has_the_bytes_of_the_reference() {
        for (id, length) in [(1, 1), (127, 127), (128, 128), (i64::MAX, PACKET_BYTES), (-1, 64)] {
            let bytes = vec![7; length];
            let expected = message(&Packet::data(id, Bytes::from(bytes.clone())));
            assert_eq!([data_head(id, length).into_inner(), bytes].concat(), expected, "{id} {length}");
        }
    }

    #[test]
    fn packets_are_of_32_kib_in_frames_of_16_kib_and_no_more_than_the_quota_is_taken() {
        let mut out = Outgoing::default();
        out.credit().more(0, 1_000_000);
        out.credit().more(STREAM, 1_000_000);
        let bytes = vec![1; QUOTA_BYTES + 1];
        assert_eq!(out.data(5, &bytes), QUOTA_BYTES);
        let packet = message(&Packet::data(5, Bytes::from(vec![1; PACKET_BYTES])));
        let frames: Vec<_> = [&packet, &packet]
            .iter()
            .flat_map(|packet| packet.chunks(MAX_PAYLOAD))
            .flat_map(|payload| Frame::data(STREAM, payload).bytes())
            .collect();
        assert!(out.output == frames && out.waiting.is_empty());
    }

    #[test]
    fn what_finds_no_room_in_a_window_waits_for_it_in_order() {
        let mut out = Outgoing::default();
        out.credit().initial(10);
        let packet = message(&Packet::close_request(1));
        out.packet(&Packet::close_request(1));
        out.packet(&Packet::close_request(1));
        let twice = [packet.clone(), packet].concat();
        assert_eq!(out.output, Frame::data(STREAM, &twice[..10]).bytes());
        assert!(!out.is_empty());
        out.frames().clear();
        // Only the connection has more: the stream has not.
        out.credit().more(0, 100);
        out.proceed();
        assert!(out.output.is_empty());
        out.credit().initial(11);
        out.credit().more(STREAM, 1);
        out.proceed();
        assert_eq!(out.output, Frame::data(STREAM, &twice[10..12]).bytes());
        out.frames().clear();
        out.credit().more(STREAM, 100);
        let last = message(&Packet::close_request(2));
        out.packet(&Packet::close_request(2));
        assert!(out.output.is_empty(), "others wait already");
        out.proceed();
        assert_eq!(out.output, Frame::data(STREAM, [&twice[12..], &last].concat()).bytes());
        assert!(out.waiting.is_empty());
    }

    #[test]
    fn a_server_may_take_back_more_than_is_left() {
        let mut credit = Credit::default();
        credit.spend(60_000);
        credit.initial(1000);
        assert_eq!(credit.bytes(), 0);
        credit.more(STREAM, 59_000);
        assert_eq!(credit.bytes(), 0);
        credit.more(STREAM, 1);
        assert_eq!(credit.bytes(), 1);
        credit.more(STREAM, 1_000_000);
        assert_eq!(credit.bytes(), 5535, "the connection's");
    }
}
