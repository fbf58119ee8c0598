//! What the client's frames do.

use bytes::{Buf, Bytes};

use super::{Leaving, MAX_FRAME, MAX_SENT_FRAME, MAX_WINDOW, PING, PingState, Session, TableChange};
use crate::http2::{
    block::Block,
    code::{Code, Fault, Gone},
    head::{Head, flag, kind, setting},
    session::{FIRST_WINDOW, LEAVING_PING},
    streams::State,
    table::MAX_TABLE_BYTES,
};

/// A header block that does not follow RFC 7541.
pub const BAD_COMPRESSION: Fault = Fault::new(Code::COMPRESSION_ERROR, "malformed_header_compression");

const IDLE: Fault = Fault::protocol("frame_on_an_idle_stream");
const BAD_SETTING: Fault = Fault::protocol("illegal_setting");
const CLOSED: Fault = Fault::new(Code::STREAM_CLOSED, "headers_of_a_closed_stream");
const WINDOW_EXCEEDED: Fault = Fault::window("connection_window_exceeded");
const WINDOW_TOO_LARGE: Fault = Fault::window("window_too_large");

impl<B: Buf> Session<B> {
    fn is_idle(&self, id: u32) -> bool {
        id > self.newest || id.is_multiple_of(2)
    }

    /// Whether the client may send on a stream without harm that is over for this side.
    fn is_ignored(&self, id: u32) -> bool {
        matches!(self.leaving, Leaving::Told(last) if id > last) || self.streams.was_reset(id)
    }

    /// Counts a DATA frame, and tells whether somebody waits for what is in it.
    pub(super) fn admit_data(&mut self, head: Head) -> Result<bool, Fault> {
        if self.is_idle(head.stream) {
            return Err(IDLE);
        }
        self.receive_window = self.receive_window.checked_sub(head.length).ok_or(WINDOW_EXCEEDED)?;
        let code = match self.streams.find(head.stream) {
            Some(state) if !state.is_closed() && !state.has_heard_end => {
                match state.receive_window.checked_sub(head.length) {
                    Some(left) => {
                        state.receive_window = left;
                        state.outstanding += head.length;
                        return Ok(true);
                    }
                    None => Code::FLOW_CONTROL_ERROR,
                }
            }
            _ => Code::STREAM_CLOSED,
        };
        self.give_back(head.length);
        if code == Code::FLOW_CONTROL_ERROR || !self.is_ignored(head.stream) {
            self.refuse_frame(head.stream, code);
        }
        Ok(false)
    }

    /// Resets a stream, whether it is there or not.
    fn refuse_frame(&mut self, id: u32, code: Code) {
        let is_open = self.streams.find(id).is_some_and(|state| !state.is_closed());
        if is_open { self.reset(id, code) } else { self.put_reset(id, code) }
    }

    /// Keeps payload for whoever serves the stream.
    pub(super) fn take_data(&mut self, id: u32, piece: Bytes, buffer: usize) {
        let octets = piece.len() as u32;
        let state = self.streams.find(id);
        match state.filter(|state| state.is_held && !state.is_closed()) {
            Some(state) => {
                state.push(piece, buffer);
                state.wake_reader();
            }
            // It was reset or let go of within the frame; the client may send no more than its window.
            None => {
                if let Some(state) = self.streams.find(id) {
                    let octets = octets.min(state.outstanding);
                    state.outstanding -= octets;
                    self.give_back(octets);
                }
            }
        }
    }

    pub(super) fn hear_end(&mut self, id: u32) {
        let Some(state) = self.streams.find(id) else { return };
        state.has_heard_end = true;
        state.wake_reader();
        self.settle(id);
    }

    /// A header block is whole: a request, or trailers.
    pub(super) fn end_block(&mut self, block: &Block) -> Result<(), Fault> {
        let (fields, work) = block.decode(&mut self.decoder).map_err(|_| BAD_COMPRESSION)?;
        self.pace.worked(work);
        if let Some(violation) = self.pace.violation() {
            return Err(violation);
        }
        let id = block.stream();
        if id <= self.newest {
            return self.take_trailers(id, block.ends_stream() && fields.are_trailers());
        }
        self.newest = id;
        if self.is_ignored(id) {
            return Ok(());
        }
        let Ok(request) = fields.into_request() else {
            self.put_reset(id, Code::PROTOCOL_ERROR);
            return Ok(());
        };
        if self.streams.open >= self.settings.max_streams {
            self.put_reset(id, Code::REFUSED_STREAM);
            return Ok(());
        }
        // A client that has not heard of the settings goes by the defaults.
        let least = if self.is_acknowledged { 0 } else { FIRST_WINDOW };
        let mut state = State::new(id, self.settings.stream_window.max(least), self.first_send_window.into());
        state.has_heard_end = block.ends_stream();
        self.streams.open(state);
        self.accepted.push_back((id, request));
        Ok(())
    }

    /// A second header block of a stream; `are_sound`: it is what trailers may be.
    fn take_trailers(&mut self, id: u32, are_sound: bool) -> Result<(), Fault> {
        match self.streams.find(id).filter(|state| !state.is_closed()) {
            Some(state) if state.has_heard_end => self.reset(id, Code::STREAM_CLOSED),
            Some(_) if are_sound => self.hear_end(id),
            Some(_) => self.reset(id, Code::PROTOCOL_ERROR),
            None => return if self.is_ignored(id) { Ok(()) } else { Err(CLOSED) },
        }
        Ok(())
    }

    /// One of the frames that have 4 or 8 octets.
    pub(super) fn take_small(&mut self, head: Head, payload: [u8; 8]) -> Result<(), Fault> {
        let [n0, n1, n2, n3, ..] = payload;
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        match head.kind {
            kind::RST_STREAM => self.take_reset(head.stream, Code(number)),
            kind::WINDOW_UPDATE if head.stream == 0 => self.widen(number & MAX_WINDOW),
            kind::WINDOW_UPDATE => self.widen_stream(head.stream, number & MAX_WINDOW),
            _ if head.has(flag::ACK) => {
                self.take_pong_of(payload);
                Ok(())
            }
            _ => {
                self.put(kind::PING, flag::ACK, 0, &payload);
                Ok(())
            }
        }
    }

    fn take_reset(&mut self, id: u32, code: Code) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(IDLE);
        }
        if let Some(state) = self.streams.find(id).filter(|state| !state.is_closed()) {
            // What has come before it may still be read.
            state.gone = Some(Gone::Reset(code));
            state.drop_queue();
            state.wake();
            self.settle(id);
        }
        Ok(())
    }

    fn take_pong_of(&mut self, payload: [u8; 8]) {
        if payload == PING && self.ping == PingState::Sent {
            self.ping = PingState::Answered;
        } else if payload == LEAVING_PING && self.leaving == Leaving::Announced {
            self.tell_last();
        }
    }

    fn widen(&mut self, more: u32) -> Result<(), Fault> {
        if more == 0 {
            return Err(Fault::protocol("window_of_nothing"));
        }
        self.send_window += i64::from(more);
        if self.send_window > MAX_WINDOW.into() { Err(WINDOW_TOO_LARGE) } else { Ok(()) }
    }

    fn widen_stream(&mut self, id: u32, more: u32) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(IDLE);
        }
        let Some(state) = self.streams.find(id).filter(|state| !state.is_closed()) else { return Ok(()) };
        state.send_window += i64::from(more);
        if more == 0 {
            self.reset(id, Code::PROTOCOL_ERROR);
        } else if state.send_window > MAX_WINDOW.into() {
            self.reset(id, Code::FLOW_CONTROL_ERROR);
        } else {
            state.wake_writer();
            self.list(id);
        }
        Ok(())
    }

    pub(super) fn take_setting(&mut self, name: u16, value: u32, window: &mut Option<u32>) -> Result<(), Fault> {
        match name {
            setting::HEADER_TABLE_SIZE
                if self.table_change == TableChange::Not && (value as usize) < MAX_TABLE_BYTES =>
            {
                self.table_change = TableChange::Owed;
            }
            setting::ENABLE_PUSH if value > 1 => return Err(BAD_SETTING),
            setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(WINDOW_TOO_LARGE),
            setting::INITIAL_WINDOW_SIZE => *window = Some(value),
            setting::MAX_FRAME_SIZE if !(MAX_FRAME..1 << 24).contains(&value) => return Err(BAD_SETTING),
            setting::MAX_FRAME_SIZE => self.max_frame = value.min(MAX_SENT_FRAME),
            _ => {}
        }
        Ok(())
    }

    /// All of a client's settings are here; of several windows only the last one matters.
    pub(super) fn end_settings(&mut self, window: Option<u32>) -> Result<(), Fault> {
        if let Some(window) = window {
            let more = i64::from(window) - i64::from(self.first_send_window);
            self.first_send_window = window;
            let mut widened = Vec::new();
            for state in self.streams.each().filter(|state| !state.is_closed()) {
                state.send_window += more;
                if state.send_window > MAX_WINDOW.into() {
                    return Err(WINDOW_TOO_LARGE);
                }
                if more > 0 {
                    state.wake_writer();
                    if state.can_send() {
                        widened.push(state.id);
                    }
                }
            }
            widened.into_iter().for_each(|id| self.list(id));
        }
        self.put(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }
}
