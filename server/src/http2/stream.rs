//! One stream, in the hands of whoever serves it, on any thread.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};

use super::{
    answer::Answer,
    code::{Code, Gone},
    session::Session,
};

/// What a connection's task and the handles of its streams share.
pub type Shared<B> = Arc<Mutex<Session<B>>>;

/// Locks it. Held for a few steps, never while anything waits.
pub fn lock<B>(shared: &Shared<B>) -> MutexGuard<'_, Session<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream. Dropping it without [`end`](Self::end) resets it; after that, what is queued still goes.
#[derive(Debug)]
pub struct Stream<B: Buf> {
    shared: Shared<B>,
    id: u32,
}

impl<B: Buf> Stream<B> {
    /// The only handle of a stream.
    pub fn new(shared: Shared<B>, id: u32) -> Self {
        Self { shared, id }
    }

    fn session(&self) -> MutexGuard<'_, Session<B>> {
        lock(&self.shared)
    }

    /// The next piece of what the client has sent; `None` at its end. Its room is to be [released](Self::release).
    ///
    /// # Errors
    /// The stream is over.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        self.session().poll_data(self.id, cx)
    }

    /// Lets the client send so many octets more.
    pub fn release(&mut self, octets: usize) {
        self.session().release(self.id, u32::try_from(octets).unwrap_or(u32::MAX));
    }

    /// Waits until some octets may be queued, `octets` at most, and tells how many.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, octets: usize) -> Poll<io::Result<usize>> {
        self.session().poll_room(self.id, octets, cx).map_err(broken)
    }

    /// Sends the head of the answer, if it was not sent.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn respond(&mut self, answer: Answer) -> io::Result<()> {
        self.session().respond(self.id, answer.into_block(), false).map_err(broken)
    }

    /// Sends an answer that has nothing behind its head. A client that has left cannot be told.
    pub fn refuse(&mut self, answer: Answer) {
        let _ = self.session().respond(self.id, answer.into_block(), true);
    }

    /// Queues a payload, whether there is room for it or not.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn send(&mut self, payload: B) -> io::Result<()> {
        self.session().send(self.id, payload).map_err(broken)
    }

    /// Ends the stream behind what is queued. A client that may still send is told not to. A client that has left cannot be
    /// told anything.
    pub fn end(&mut self, trailers: Answer) {
        self.session().end(self.id, trailers.into_block());
    }

    /// Resets the stream; what is queued is dropped.
    pub fn reset(&mut self, code: Code) {
        self.session().give_up(self.id, code);
    }

    /// Waits until the stream is over before its time. The task of `cx` is the one that is woken when there is room.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.session().poll_gone(self.id, cx)
    }
}

impl<B: Buf> Drop for Stream<B> {
    fn drop(&mut self) {
        self.session().drop_handle(self.id);
    }
}

fn broken(gone: Gone) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, gone)
}
