//! The state of one connection: octets of the client in, frames out, and what those who serve its streams see.
//!
//! No sockets and no clock, so that every rule can be tested with plain octets.

mod end;
mod frames;
mod handle;
mod read;
mod write;

use std::{collections::VecDeque, task::Waker, time::Duration};

use bytes::Buf;

use self::read::Reader;
use super::{
    code::{Code, Fault, Gone},
    head::{HEAD_BYTES, Head, kind, setting},
    hpack,
    pace::{Pace, PingPolicy},
    request::Request,
    streams::Streams,
};

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest payload of a frame that is taken: the default of SETTINGS_MAX_FRAME_SIZE (RFC 9113, section 6.5.2).
pub const MAX_FRAME: u32 = 16_384;

/// The largest payload of a DATA frame that is sent to a client that takes larger ones.
const MAX_SENT_FRAME: u32 = 64 * 1024;

/// Windows before anybody has said anything (RFC 9113, section 6.9.2), and at most (section 6.9.1).
const FIRST_WINDOW: u32 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Octets of frames other than DATA that wait for the client to read. With more of them nothing is read from it.
const MAX_CONTROL: usize = 16 * 1024;

/// Tells that the client has seen the first of two GOAWAY.
const LEAVING_PING: [u8; 8] = *b"leaving!";
const PING: [u8; 8] = *b"are you?";

/// What a server allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Octets that a client may send on a stream beyond those that were released.
    pub stream_window: u32,
    /// The same for all streams of a connection together.
    pub connection_window: u32,
    /// Streams of a connection at a time.
    pub max_streams: u32,
    /// Octets of a stream that wait to be sent.
    pub send_buffer: usize,
    /// How often it may ping.
    pub pings: PingPolicy,
}

/// One connection. `B` is what applications send.
#[derive(Debug)]
pub struct Session<B> {
    settings: Settings,
    reader: Reader,
    decoder: hpack::Decoder,
    pace: Pace,
    streams: Streams<B>,
    /// The highest stream that the client has named in a header.
    newest: u32,
    accepted: VecDeque<(u32, Request)>,
    /// The client has acknowledged the settings.
    is_acknowledged: bool,
    receive_window: u32,
    /// Room given back that the client was not told of.
    untold: u32,

    /// Frames other than DATA on their way out.
    control: Vec<u8>,
    /// Streams that have something to send and room for it, each once.
    ready: VecDeque<u32>,
    send_window: i64,
    /// The client's settings.
    first_send_window: u32,
    max_frame: u32,
    table_change: TableChange,
    ping: PingState,

    leaving: Leaving,
    fault: Option<Fault>,
    is_lost: bool,
    waker: Option<Waker>,
}

/// Whether the next header block must say that this side has no table. A client that allows a smaller one than at first is
/// owed that (RFC 7541, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableChange {
    Not,
    Owed,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PingState {
    None,
    /// Goes when so many streams have had a turn, or none has anything to send: it must not overtake what was queued.
    Wanted(usize),
    Sent,
    Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Not,
    /// The client was told to open no more streams, and asked whether it has heard.
    Announced,
    /// It was told which stream is the last.
    Told(u32),
}

impl<B: Buf> Session<B> {
    /// A connection whose client has said nothing yet. The settings wait to be sent.
    pub fn new(settings: Settings) -> Self {
        let mut session = Self {
            settings,
            reader: Reader::default(),
            decoder: hpack::Decoder::default(),
            pace: Pace::new(settings.pings),
            streams: Streams::default(),
            newest: 0,
            accepted: VecDeque::new(),
            is_acknowledged: false,
            receive_window: settings.connection_window.max(FIRST_WINDOW),
            untold: 0,
            control: Vec::new(),
            ready: VecDeque::new(),
            send_window: FIRST_WINDOW.into(),
            first_send_window: FIRST_WINDOW,
            max_frame: MAX_FRAME,
            table_change: TableChange::Not,
            ping: PingState::None,
            leaving: Leaving::Not,
            fault: None,
            is_lost: false,
            waker: None,
        };
        session.greet();
        session
    }

    fn greet(&mut self) {
        let mut payload = Vec::new();
        for (name, value) in [
            (setting::MAX_CONCURRENT_STREAMS, self.settings.max_streams),
            (setting::INITIAL_WINDOW_SIZE, self.settings.stream_window),
        ] {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.put(kind::SETTINGS, 0, 0, &payload);
        if let Some(more) = self.settings.connection_window.checked_sub(FIRST_WINDOW).filter(|more| *more > 0) {
            self.put(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// What follows happens at `now`, counted from the connection's begin.
    pub fn set_now(&mut self, now: Duration) {
        self.pace.set_now(now);
    }

    /// Whose task does the connection's work, from now on until it is woken once.
    pub fn set_waker(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether the client has begun to speak HTTP/2.
    pub fn is_greeted(&self) -> bool {
        self.reader.is_greeted
    }

    /// Whether an end of the client's octets here would cut a frame.
    pub fn is_within_frame(&self) -> bool {
        self.reader.is_within_frame()
    }

    /// The next request that nobody has seen.
    pub fn accept(&mut self) -> Option<(u32, Request)> {
        loop {
            let next = self.accepted.pop_front();
            if self.accepted.is_empty() {
                self.accepted = VecDeque::new();
            }
            let (id, request) = next?;
            let Some(state) = self.streams.find(id) else { continue };
            if state.gone.is_none() {
                return Some((id, request));
            }
            // It was reset before anybody has looked at it.
            self.let_go(id);
        }
    }

    /// Whether the other tasks of the thread should have a turn now.
    pub fn is_tired(&self) -> bool {
        self.pace.is_tired()
    }

    /// They have one.
    pub fn rest(&mut self) {
        self.pace.rest();
    }

    /// How the client has broken the rules.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Queues a frame that needs no window.
    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head { length: payload.len() as u32, kind, flags, stream };
        self.control.reserve(HEAD_BYTES + payload.len());
        self.control.extend_from_slice(&head.octets());
        self.control.extend_from_slice(payload);
    }

    fn put_reset(&mut self, id: u32, code: Code) {
        self.streams.remember_reset(id);
        self.put(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
    }

    /// Resets a stream and drops what waits in it.
    fn reset(&mut self, id: u32, code: Code) {
        let Some(state) = self.streams.find(id).filter(|state| !state.is_closed()) else { return };
        state.gone = Some(Gone::Reset(code));
        state.drop_queue();
        state.received = VecDeque::new();
        state.wake();
        self.put_reset(id, code);
        self.settle(id);
    }

    /// A stream may have come to its end.
    fn settle(&mut self, id: u32) {
        let octets = self.streams.settle(id);
        self.give_back(octets);
    }

    /// Nobody serves a stream any more.
    fn let_go(&mut self, id: u32) {
        let Some(state) = self.streams.find(id) else { return };
        state.is_held = false;
        state.received = VecDeque::new();
        (state.reader, state.writer) = (None, None);
        let octets = std::mem::take(&mut state.outstanding);
        self.give_back(octets);
        self.settle(id);
    }

    /// Gives room in the connection's window back.
    fn give_back(&mut self, octets: u32) {
        self.untold += octets;
        if self.untold > 0 && self.untold >= self.settings.connection_window / 4 && !self.is_lost {
            let told = std::mem::take(&mut self.untold);
            self.receive_window += told;
            self.put(kind::WINDOW_UPDATE, 0, 0, &told.to_be_bytes());
        }
    }

    /// Octets held on the heap, but for the header table.
    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        let requests: usize = self.accepted.iter().map(|(_, request)| request.held()).sum();
        self.reader.held()
            + self.streams.held()
            + self.control.capacity()
            + 4 * self.ready.capacity()
            + size_of::<(u32, Request)>() * self.accepted.capacity()
            + requests
    }
}

#[cfg(test)]
mod tests;
