//! The streams of a connection: small, for most of them are idle.

use std::{collections::VecDeque, task::Waker};

use bytes::{Bytes, BytesMut};

use super::code::Gone;

/// What waits to be read is joined up to this size, so that a window full of single octets does not cost a piece for each.
const JOINED_BYTES: usize = 4096;

/// A piece keeps the whole buffer that it was read to, unless the buffer is more than so many times as large: then it is
/// copied.
const MOST_PINNED: usize = 8;

/// Resets that are remembered: frames that the client has sent before it knew are no error.
const REMEMBERED: usize = 128;

/// How far the way to the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing was said yet.
    Silent,
    /// The answer's head has gone.
    Open,
    /// Trailers wait behind what is queued.
    Ending,
    /// END_STREAM has gone.
    Ended,
}

/// One stream.
#[derive(Debug)]
pub struct State<B> {
    pub id: u32,
    /// Somebody serves it, or will.
    pub is_held: bool,
    /// It is one of the streams that the client may have at a time.
    pub is_counted: bool,
    pub way: Way,
    pub gone: Option<Gone>,

    /// The client's END_STREAM has come.
    pub has_heard_end: bool,
    /// What the client may still send.
    pub receive_window: u32,
    /// Octets received whose room was not given back.
    pub outstanding: u32,
    /// Room given back that the client was not told of.
    pub untold: u32,
    pub received: VecDeque<Bytes>,
    pub reader: Option<Waker>,

    /// What may still be sent; negative after a smaller SETTINGS_INITIAL_WINDOW_SIZE.
    pub send_window: i64,
    pub queue: VecDeque<B>,
    /// Octets that have not left the window yet, and with them those that are not written yet.
    pub unsent: usize,
    pub queued: usize,
    /// A payload of which only a part may go now is being written. Its rest comes back.
    pub is_cut: bool,
    /// It is in the list of those that can send.
    pub is_listed: bool,
    pub trailers: Option<Box<[u8]>>,
    pub writer: Option<Waker>,
}

impl<B> State<B> {
    pub fn new(id: u32, receive_window: u32, send_window: i64) -> Self {
        Self {
            id,
            is_held: true,
            is_counted: true,
            way: Way::Silent,
            gone: None,
            has_heard_end: false,
            receive_window,
            outstanding: 0,
            untold: 0,
            received: VecDeque::new(),
            reader: None,
            send_window,
            queue: VecDeque::new(),
            unsent: 0,
            queued: 0,
            is_cut: false,
            is_listed: false,
            trailers: None,
            writer: None,
        }
    }

    /// Whether no frame of it may come or go.
    pub fn is_closed(&self) -> bool {
        self.gone.is_some() || (self.has_heard_end && self.way == Way::Ended)
    }

    pub fn can_send(&self) -> bool {
        !self.is_cut && !self.queue.is_empty() && self.send_window > 0
    }

    /// Keeps a piece of a buffer of `buffer` octets until it is read.
    pub fn push(&mut self, piece: Bytes, buffer: usize) {
        let piece = if piece.len() * MOST_PINNED < buffer { Bytes::copy_from_slice(&piece) } else { piece };
        if let Some(back) = self.received.back_mut()
            && back.len() + piece.len() <= JOINED_BYTES
        {
            let begin = std::mem::take(back);
            let mut joined = begin.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            joined.extend_from_slice(&piece);
            *back = joined.freeze();
            return;
        }
        self.received.push_back(piece);
    }

    /// Drops what waits to be sent.
    pub fn drop_queue(&mut self) {
        self.queue = VecDeque::new();
        self.trailers = None;
    }

    pub fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    pub fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// Those of a connection that are open, or that somebody still has the handle of.
#[derive(Debug)]
pub struct Streams<B> {
    /// In the order of their numbers, which is the order of their opening. Boxed, so that one that goes moves little.
    #[allow(clippy::vec_box)]
    states: Vec<Box<State<B>>>,
    /// How many of them are open.
    pub open: u32,
    /// Streams that this side has reset, latest last.
    resets: VecDeque<u32>,
}

impl<B> Default for Streams<B> {
    fn default() -> Self {
        Self { states: Vec::new(), open: 0, resets: VecDeque::new() }
    }
}

impl<B> Streams<B> {
    pub fn find(&mut self, id: u32) -> Option<&mut State<B>> {
        let place = self.states.binary_search_by_key(&id, |state| state.id).ok()?;
        Some(&mut self.states[place])
    }

    /// Adds one whose number is above those of all others.
    pub fn open(&mut self, state: State<B>) {
        self.states.push(Box::new(state));
        self.open += 1;
    }

    pub fn each(&mut self) -> impl Iterator<Item = &mut State<B>> {
        self.states.iter_mut().map(|state| &mut **state)
    }

    /// Takes a closed stream off the books as far as that goes. Octets whose room is to be given back are returned.
    pub fn settle(&mut self, id: u32) -> u32 {
        let Ok(place) = self.states.binary_search_by_key(&id, |state| state.id) else { return 0 };
        let state = &mut self.states[place];
        if !state.is_closed() {
            return 0;
        }
        if std::mem::take(&mut state.is_counted) {
            self.open -= 1;
        }
        if state.is_held {
            return 0;
        }
        let outstanding = state.outstanding;
        self.states.remove(place);
        if self.states.is_empty() {
            self.states = Vec::new();
        }
        outstanding
    }

    pub fn remember_reset(&mut self, id: u32) {
        if self.resets.len() >= REMEMBERED {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
    }

    pub fn was_reset(&self, id: u32) -> bool {
        self.resets.contains(&id)
    }

    /// Octets held.
    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        let of = |state: &State<B>| {
            let received: usize = state.received.iter().map(Bytes::len).sum();
            size_of::<State<B>>() + received + 32 * state.received.capacity() + size_of::<B>() * state.queue.capacity()
        };
        self.states.iter().map(|state| of(state)).sum::<usize>()
            + 8 * self.states.capacity()
            + 4 * self.resets.capacity()
    }
}
