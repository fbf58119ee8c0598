//! What those do who serve a stream. A stream that is over takes nothing, and tells why when it is read.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};

use super::Session;
use crate::http2::{
    code::{Code, Gone},
    head::kind,
    streams::{State, Way},
};

/// The least room that a client is told of on its own, if it has no more than that.
const LEAST_TOLD: u32 = 4096;

/// Whether so many octets leave room for more. Not before a quarter of the buffer is free: many small packets would cost
/// more than a few large ones.
pub(super) fn has_room(queued: usize, buffer: usize) -> bool {
    queued <= buffer - buffer / 4
}

impl<B: Buf> Session<B> {
    /// The next piece of what the client has sent; `None` at its end.
    ///
    /// # Errors
    /// The stream is over, and everything before that was read.
    pub fn poll_data(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        let Some(state) = self.streams.find(id) else { return Poll::Ready(Some(Err(Gone::Lost))) };
        if let Some(piece) = state.received.pop_front() {
            if state.received.is_empty() {
                state.received = VecDeque::new();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        if let Some(gone) = state.gone {
            return Poll::Ready(Some(Err(gone)));
        }
        if state.has_heard_end {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Gives room in the client's window back for octets that were read.
    pub fn release(&mut self, id: u32, octets: u32) {
        let Some(state) = self.streams.find(id) else { return };
        let octets = octets.min(state.outstanding);
        state.outstanding -= octets;
        if !state.is_closed() && !state.has_heard_end {
            state.untold += octets;
            // More often would be a system call for little, unless the client has little room left: perhaps not all is
            // given back that was taken.
            let window = self.settings.stream_window;
            let left = state.receive_window;
            let is_short = left <= window / 16 && state.untold >= left.max(LEAST_TOLD);
            if state.untold > 0 && (state.untold >= window / 2 || is_short) {
                let told = std::mem::take(&mut state.untold);
                state.receive_window += told;
                self.put(kind::WINDOW_UPDATE, 0, id, &told.to_be_bytes());
                self.wake();
            }
        }
        self.give_back(octets);
    }

    /// Waits until some octets may be queued, `octets` at most, and tells how many.
    ///
    /// # Errors
    /// The stream is over.
    pub fn poll_room(&mut self, id: u32, octets: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        let buffer = self.settings.send_buffer;
        let state = match self.sender(id) {
            Ok(state) => state,
            Err(gone) => return Poll::Ready(Err(gone)),
        };
        let window = usize::try_from(state.send_window).unwrap_or(0);
        let room = window.saturating_sub(state.unsent).min(buffer.saturating_sub(state.queued)).min(octets);
        if room > 0 && has_room(state.queued, buffer) {
            return Poll::Ready(Ok(room));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends the head of the answer, unless it has gone; `is_all`: the stream ends with it.
    ///
    /// # Errors
    /// The stream is over.
    pub fn respond(&mut self, id: u32, block: Vec<u8>, is_all: bool) -> Result<(), Gone> {
        let state = self.sender(id)?;
        if state.way != Way::Silent {
            return Ok(());
        }
        state.way = Way::Open;
        self.put_headers(id, block, is_all);
        if is_all {
            self.ended(id);
        }
        self.wake();
        Ok(())
    }

    /// Queues a payload, whether there is room for it or not.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send(&mut self, id: u32, payload: B) -> Result<(), Gone> {
        let state = self.sender(id)?;
        if payload.has_remaining() {
            state.unsent += payload.remaining();
            state.queued += payload.remaining();
            state.queue.push_back(payload);
            self.list(id);
            self.wake();
        }
        Ok(())
    }

    /// Ends the stream with trailers, behind what is queued.
    pub fn end(&mut self, id: u32, trailers: Vec<u8>) {
        let Ok(state) = self.sender(id) else { return };
        state.way = Way::Ending;
        state.trailers = Some(trailers.into());
        self.end_if_sent(id);
        self.wake();
    }

    /// Resets the stream; what is queued is dropped.
    pub fn give_up(&mut self, id: u32, code: Code) {
        self.reset(id, code);
        self.wake();
    }

    /// Waits until the stream is over before its time.
    pub fn poll_gone(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Gone> {
        let Some(state) = self.streams.find(id) else { return Poll::Ready(Gone::Lost) };
        match state.gone {
            Some(gone) => Poll::Ready(gone),
            None => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Nobody serves the stream any more. If it was not ended, it is reset.
    pub fn drop_handle(&mut self, id: u32) {
        if self.streams.find(id).is_some_and(|state| matches!(state.way, Way::Silent | Way::Open)) {
            self.reset(id, Code::CANCEL);
        }
        self.let_go(id);
        // There may be a frame to send, and a drain may be over.
        self.wake();
    }

    /// A stream that may be sent to.
    fn sender(&mut self, id: u32) -> Result<&mut State<B>, Gone> {
        let state = self.streams.find(id).ok_or(Gone::Lost)?;
        match (state.gone, state.way) {
            (Some(gone), _) => Err(gone),
            (None, Way::Ending | Way::Ended) => Err(Gone::Reset(Code::NO_ERROR)),
            (None, Way::Silent | Way::Open) => Ok(state),
        }
    }
}
