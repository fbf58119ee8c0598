//! Chunks on their way from a stream to a socket, written with one system call.

use std::{cell::RefCell, io::IoSlice};

use bytes::{Buf, Bytes};

thread_local! {
    /// Batches that no dial uses now, all of their chunks empty.
    static FREE: RefCell<Vec<Vec<Bytes>>> = const { RefCell::new(Vec::new()) };
}

/// Free batches kept per thread: only dials whose socket is blocked hold one for longer than a poll.
const KEPT: usize = 64;

/// Up to 64 chunks in order.
#[derive(Debug)]
pub struct Batch {
    chunks: Vec<Bytes>,
    /// The chunks not written yet are `start..end`.
    start: usize,
    end: usize,
    written: usize,
}

impl Batch {
    /// 64 full packets of 1,452 bytes are about 90 KiB.
    pub const CHUNKS: usize = 64;

    /// What a batch is meant to hold: twice the largest read at the other end.
    const BYTES: usize = 128 * 1024;

    /// An empty batch from the thread's pool.
    pub(crate) fn take() -> Self {
        let free = FREE.with_borrow_mut(Vec::pop);
        Self { chunks: free.unwrap_or_else(|| vec![Bytes::new(); Self::CHUNKS]), start: 0, end: 0, written: 0 }
    }

    /// A batch of one chunk.
    pub(crate) fn of(chunk: Bytes) -> Self {
        let mut batch = Self::take();
        batch.chunks[0] = chunk;
        batch.filled(1)
    }

    /// Room for chunks of about `chunk_bytes`; [`Self::filled`] tells how many were put there. Large chunks fill fewer
    /// places, because a stalled dial holds its batch.
    pub(crate) fn space(&mut self, chunk_bytes: usize) -> &mut [Bytes] {
        let chunks = (Self::BYTES / chunk_bytes.max(1)).clamp(1, Self::CHUNKS);
        &mut self.chunks[..chunks]
    }

    pub(crate) fn filled(mut self, chunks: usize) -> Self {
        self.end = chunks;
        self
    }

    /// Bytes of the first chunk not written yet.
    pub(crate) fn first_bytes(&self) -> usize {
        self.chunks.get(self.start).map_or(0, Bytes::len)
    }

    /// Bytes not written yet.
    pub fn len(&self) -> usize {
        self.chunks[self.start..self.end].iter().map(Bytes::len).sum()
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Whether all is written.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Points `slices` at the chunks not written yet; how many they are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; Self::CHUNKS]) -> usize {
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks[self.start..self.end]) {
            *slice = IoSlice::new(chunk);
        }
        self.end - self.start
    }

    /// Takes the first `bytes` bytes out, at most all there are, as chunks without a copy. They count as written.
    pub fn take_front(&mut self, mut bytes: usize, mut each: impl FnMut(Bytes)) {
        while self.start < self.end && bytes > 0 {
            let chunk = &mut self.chunks[self.start];
            let part = chunk.split_to(bytes.min(chunk.len()));
            if chunk.is_empty() {
                *chunk = Bytes::new();
                self.start += 1;
            }
            bytes -= part.len();
            self.written += part.len();
            if !part.is_empty() {
                each(part);
            }
        }
    }

    /// Counts `bytes` as written and drops the chunks that are done.
    pub fn advance(&mut self, mut bytes: usize) {
        self.written += bytes;
        while self.start < self.end {
            let chunk = &mut self.chunks[self.start];
            if bytes < chunk.len() {
                chunk.advance(bytes);
                return;
            }
            bytes -= chunk.len();
            *chunk = Bytes::new();
            self.start += 1;
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks[self.start..self.end].fill(Bytes::new());
        // The thread's pool is gone when the thread ends; then the batch is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(chunks);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_over_chunks_and_within_them() {
        let mut batch = Batch::take();
        for (space, chunk) in batch.space(1).iter_mut().zip(["abc", "", "de"]) {
            *space = Bytes::from_static(chunk.as_bytes());
        }
        let mut batch = batch.filled(3);
        assert_eq!(batch.len(), 5);
        batch.advance(2);
        assert_eq!(batch.len(), 3);
        batch.advance(1);
        let mut slices = [IoSlice::new(&[]); Batch::CHUNKS];
        let filled = batch.slices(&mut slices);
        assert_eq!(slices[..filled].iter().map(|slice| slice.to_vec()).collect::<Vec<_>>().concat(), b"de");
        batch.advance(2);
        assert!(batch.is_empty());
    }

    #[test]
    fn gives_its_front_away_chunk_by_chunk() {
        let mut batch = Batch::take();
        for (space, chunk) in batch.space(1).iter_mut().zip(["abc", "", "de"]) {
            *space = Bytes::from_static(chunk.as_bytes());
        }
        let mut batch = batch.filled(3);
        let mut parts = Vec::new();
        batch.take_front(2, |part| parts.push(part));
        assert_eq!((parts.concat().as_slice(), batch.len(), batch.written()), (b"ab".as_slice(), 3, 2));
        batch.take_front(100, |part| parts.push(part));
        assert_eq!(parts.concat(), b"abcde");
        assert!(batch.is_empty());
    }
}
