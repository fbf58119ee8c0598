//! What goes to the client, and in which order: frames without payload first, then the streams in turn.

use std::collections::VecDeque;

use bytes::Buf;

use super::{MAX_FRAME, PING, PingState, Session, TableChange, handle::has_room};
use crate::http2::{
    code::{Code, Gone},
    head::{flag, kind},
    out::{Out, Written},
    streams::Way,
};

/// Payload that is taken at once: what one system call writes, and about as much again.
const MOST_AT_ONCE: usize = 128 * 1024;

/// Payload of a stream that goes while others wait.
const TURN_BYTES: usize = 16 * 1024;

/// A dynamic table of no octets (RFC 7541, section 6.3).
const NO_TABLE: u8 = 0x20;

impl<B: Buf> Session<B> {
    /// Moves what may go now to `out`, which is empty.
    pub fn fill(&mut self, out: &mut Out<B>) {
        out.push_octets(std::mem::take(&mut self.control));
        let turn = if self.ready.len() > 1 { TURN_BYTES } else { MOST_AT_ONCE };
        let mut left = MOST_AT_ONCE;
        while left > 0 && self.send_window > 0 && !self.is_ping_due() {
            let Some(id) = self.ready.pop_front() else { break };
            left -= self.take_turn(id, turn.min(left), out);
        }
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        if self.is_ping_due() {
            self.put(kind::PING, 0, 0, &PING);
            self.ping = PingState::Sent;
        }
        // Trailers of streams that have sent everything.
        out.push_octets(std::mem::take(&mut self.control));
    }

    fn is_ping_due(&self) -> bool {
        match self.ping {
            PingState::Wanted(turns) => turns == 0 || self.ready.is_empty() || self.send_window <= 0,
            _ => false,
        }
    }

    /// Moves up to `turn` octets of a stream to `out`, and tells how many.
    fn take_turn(&mut self, id: u32, turn: usize, out: &mut Out<B>) -> usize {
        if let PingState::Wanted(turns) = &mut self.ping {
            *turns = turns.saturating_sub(1);
        }
        let Some(state) = self.streams.find(id) else { return 0 };
        state.is_listed = false;
        let window = state.send_window.min(self.send_window);
        let most = turn.min(usize::try_from(window).unwrap_or(0));
        let max_frame = self.max_frame as usize;
        let (mut taken, mut frames) = (0, 0);
        while taken < most
            && let Some(payload) = state.queue.pop_front()
        {
            let whole = payload.remaining();
            let octets = whole.min(most - taken);
            out.push_data(id, payload, octets, max_frame);
            frames += octets.div_ceil(max_frame);
            state.is_cut = octets < whole;
            taken += octets;
        }
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
        state.unsent -= taken;
        state.send_window -= taken as i64;
        self.send_window -= taken as i64;
        self.pace.answered(frames as u32);
        self.list(id);
        self.end_if_sent(id);
        taken
    }

    /// Puts a stream at the end of those that can send, if it can.
    pub(super) fn list(&mut self, id: u32) {
        if let Some(state) = self.streams.find(id)
            && state.can_send()
            && !std::mem::replace(&mut state.is_listed, true)
        {
            self.ready.push_back(id);
        }
    }

    /// A payload was written.
    pub fn written(&mut self, written: Written<B>) {
        let Some(state) = self.streams.find(written.stream) else { return };
        state.queued = state.queued.saturating_sub(written.octets);
        if let Some(rest) = written.rest {
            state.is_cut = false;
            if !state.is_closed() {
                state.queue.push_front(rest);
            }
        }
        if has_room(state.queued, self.settings.send_buffer) {
            state.wake_writer();
        }
        self.list(written.stream);
    }

    /// Sends the trailers of a stream that has nothing else to send.
    pub(super) fn end_if_sent(&mut self, id: u32) {
        let Some(state) = self.streams.find(id) else { return };
        if state.is_cut || !state.queue.is_empty() {
            return;
        }
        if let Some(trailers) = state.trailers.take() {
            self.put_headers(id, trailers.into(), true);
            self.ended(id);
        }
    }

    /// END_STREAM is on its way. A client that may still send is told that nobody listens (RFC 9113, section 8.1).
    pub(super) fn ended(&mut self, id: u32) {
        let Some(state) = self.streams.find(id) else { return };
        state.way = Way::Ended;
        if !state.has_heard_end {
            state.gone = Some(Gone::Reset(Code::NO_ERROR));
            state.received = VecDeque::new();
            state.wake();
            self.put_reset(id, Code::NO_ERROR);
        }
        self.settle(id);
    }

    pub(super) fn put_headers(&mut self, id: u32, mut block: Vec<u8>, is_last: bool) {
        if self.table_change == TableChange::Owed {
            self.table_change = TableChange::Done;
            block.insert(0, NO_TABLE);
        }
        self.pace.answered(1);
        let end_stream = if is_last { flag::END_STREAM } else { 0 };
        let mut pieces = block.chunks(MAX_FRAME as usize).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, end_stream);
        while let Some(piece) = pieces.next() {
            flags |= if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            self.put(kind, flags, id, piece);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }
}
