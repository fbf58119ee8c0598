//! How a connection ends, and how it is found out that its client is still there.

use bytes::Buf;

use super::{LEAVING_PING, Leaving, MAX_WINDOW, PingState, Session};
use crate::http2::{
    code::{Code, Fault, Gone},
    head::kind,
};

impl<B: Buf> Session<B> {
    /// Whether the connection may end: the client was told, its streams have ended, and nothing waits to be sent.
    pub fn is_over(&self) -> bool {
        matches!(self.leaving, Leaving::Told(_)) && self.streams.open == 0 && self.control.is_empty()
    }

    /// Lets the client open no more streams. Those that it opens before it has heard of that are served.
    pub fn leave(&mut self) {
        if self.leaving != Leaving::Not {
            return;
        }
        if !self.is_greeted() {
            return self.tell_last();
        }
        self.leaving = Leaving::Announced;
        self.put_goaway(MAX_WINDOW, Code::NO_ERROR, "");
        self.put(kind::PING, 0, 0, &LEAVING_PING);
    }

    pub(super) fn tell_last(&mut self) {
        self.leaving = Leaving::Told(self.newest);
        self.put_goaway(self.newest, Code::NO_ERROR, "");
    }

    /// Sends a PING behind what is queued now. One may be out at a time.
    pub fn send_ping(&mut self) {
        self.ping = PingState::Wanted(self.ready.len());
    }

    /// Whether it was answered; the answer is told of once.
    pub fn take_pong(&mut self) -> bool {
        let is_answered = self.ping == PingState::Answered;
        if is_answered {
            self.ping = PingState::None;
        }
        is_answered
    }

    /// Ends the connection with an error: the client is told, its streams are over, and nothing more is read.
    pub fn fail(&mut self, fault: Fault) {
        if self.fault.is_none() && !self.is_lost {
            self.fault = Some(fault);
            self.lose();
            let last = if let Leaving::Told(last) = self.leaving { last } else { self.newest };
            self.put_goaway(last, fault.code, fault.reason);
        }
    }

    /// The connection is gone: its streams are over.
    pub fn lose(&mut self) {
        self.is_lost = true;
        self.reader.stop();
        (self.control, self.ready) = Default::default();
        let mut ended = Vec::new();
        for state in self.streams.each() {
            ended.push(state.id);
            if !state.is_closed() {
                state.gone = Some(Gone::Lost);
            }
            state.drop_queue();
            state.wake();
        }
        // Nobody has seen these.
        let unseen = std::mem::take(&mut self.accepted);
        unseen.into_iter().for_each(|(id, _)| self.let_go(id));
        for id in ended {
            self.streams.settle(id);
        }
    }

    fn put_goaway(&mut self, last: u32, code: Code, text: &str) {
        let payload = [&last.to_be_bytes()[..], &code.0.to_be_bytes(), text.as_bytes()].concat();
        self.put(kind::GOAWAY, 0, 0, &payload);
    }
}
