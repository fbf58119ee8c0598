//! In which order the packets of many dials leave.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use bytes::{Buf, Bytes};

use super::Entry;
use crate::{
    credit::Class,
    packet::{Packet, PacketType, frame::PacketBuf},
};

/// Bytes of a dial in one DATA packet. The reference's frontend for HTTP CONNECT sends as much, its agent 4 KiB.
pub(super) const DATA_BYTES: usize = 32 * 1024;

/// Bytes of a dial that may wait. What is in front of them is another dial's turn.
pub(super) const DIAL_BYTES: usize = 2 * DATA_BYTES;

/// What one dial has to send: bytes, then the packet that closes it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    bytes: VecDeque<Bytes>,
    length: usize,
    closing: Option<Packet>,
    /// The closing packet was taken.
    closed: bool,
    /// It is in one of the queues.
    queued: bool,
}

impl Waiting {
    /// Whether more bytes may be put here.
    pub(super) fn has_room(&self) -> bool {
        self.length < DIAL_BYTES
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0 && self.closing.is_none()
    }

    /// Whether the peer was told of the end.
    pub(super) fn is_over(&self) -> bool {
        self.closed
    }

    /// Whether the end is said or is about to be.
    pub(super) fn is_closing(&self) -> bool {
        self.closed || self.closing.is_some()
    }

    /// The end, behind the bytes that wait.
    fn close(&mut self, packet: Packet) {
        if !self.closed {
            self.closing.get_or_insert(packet);
        }
    }

    fn take(&mut self, connect_id: i64, room: usize) -> Option<(PacketType, PacketBuf)> {
        if self.length == 0 {
            let packet = self.closing.take()?;
            self.closed = true;
            return Some((packet.kind().unwrap_or_default(), PacketBuf::control(&packet)));
        }
        let mut missing = self.length.min(DATA_BYTES).min(room.max(1));
        self.length -= missing;
        let mut packet = PacketBuf::data(connect_id, missing);
        while missing > 0 {
            // As many bytes are there as their length says.
            let Some(piece) = self.bytes.front_mut() else { break };
            let part = piece.split_to(missing.min(piece.len()));
            missing -= part.len();
            packet.push(part);
            if !piece.has_remaining() {
                self.bytes.pop_front();
            }
        }
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        Some((PacketType::Data, packet))
    }
}

/// A packet that is to be written.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) kind: PacketType,
    pub(super) packet: PacketBuf,
    /// Whose bytes or end it is.
    pub(super) of_dial: Option<i64>,
}

/// Who is next.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: VecDeque<Packet>,
    /// Dials that have sent little lately, then the others, each in turn.
    interactive: VecDeque<i64>,
    bulk: VecDeque<i64>,
}

impl Outbox {
    /// Packets that belong to no dial's order and wait.
    pub(super) fn control(&self) -> usize {
        self.control.len()
    }

    pub(super) fn send(&mut self, packet: Packet) {
        self.control.push_back(packet);
    }

    /// More bytes of a dial.
    pub(super) fn push(&mut self, connect_id: i64, entry: &mut Entry, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let class = entry.flow.attain(bytes.len());
        entry.out.length += bytes.len();
        entry.out.bytes.push_back(bytes);
        self.queue(connect_id, entry, class);
    }

    /// A dial's end, behind what waits.
    pub(super) fn close(&mut self, connect_id: i64, entry: &mut Entry, packet: Packet) {
        entry.out.close(packet);
        if !entry.out.is_empty() {
            self.queue(connect_id, entry, Class::Interactive);
        }
    }

    fn queue(&mut self, connect_id: i64, entry: &mut Entry, class: Class) {
        if mem::replace(&mut entry.out.queued, true) {
            return;
        }
        match class {
            Class::Interactive => self.interactive.push_back(connect_id),
            Class::Bulk => self.bulk.push_back(connect_id),
        }
    }

    /// The next packet, with at most `room` bytes of a dial.
    pub(super) fn next(&mut self, dials: &mut HashMap<i64, Entry>, room: usize) -> Option<Next> {
        if let Some(packet) = self.control.pop_front() {
            let kind = packet.kind().unwrap_or_default();
            return Some(Next { kind, packet: PacketBuf::control(&packet), of_dial: None });
        }
        loop {
            let connect_id = match self.interactive.pop_front() {
                Some(connect_id) => connect_id,
                None => self.bulk.pop_front()?,
            };
            // A dial may be gone, and its place in the queue not.
            let Some(entry) = dials.get_mut(&connect_id) else { continue };
            entry.out.queued = false;
            let Some((kind, packet)) = entry.out.take(connect_id, room) else { continue };
            if !entry.out.is_empty() {
                // What it has sent by now counts: one that is never empty would keep the place that it once had.
                let class = entry.flow.attain(0);
                self.queue(connect_id, entry, class);
            }
            return Some(Next { kind, packet, of_dial: Some(connect_id) });
        }
    }
}
