//! Read buffers: pooled per thread, sized by the traffic, given back when QUIC, or whoever has the bytes, has no more use
//! for them.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;

use crate::credit::DialCredit;

/// Sizes of read buffers in bytes. A dial starts with the smallest, which holds most requests.
const SIZES: [usize; 3] = [4 * 1024, 16 * 1024, 64 * 1024];

/// Free buffers kept per size and thread: 4 MiB of the largest, enough for one connection's send credit at the floor
/// many times over; what comes back beyond it is freed.
const KEPT: [usize; 3] = [256, 128, 64];

thread_local! {
    static FREE: RefCell<[Vec<Vec<u8>>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// A read buffer on loan from its thread's pool.
#[derive(Debug)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    size: Size,
    filled: usize,
}

/// Which of the buffer sizes to read with next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(usize);

impl Size {
    /// For who has sent little so far.
    pub const SMALLEST: Self = Self(0);
    pub(crate) const LARGEST: Self = Self(SIZES.len() - 1);

    /// In bytes.
    pub fn bytes(self) -> usize {
        SIZES[self.0]
    }

    /// The size after a read of `filled` bytes: larger when it was filled, smaller when it was mostly empty.
    pub fn after_read(self, filled: usize) -> Self {
        match self {
            Self(index) if filled == SIZES[index] => Self((index + 1).min(SIZES.len() - 1)),
            Self(index) if index > 0 && filled < SIZES[index - 1] => Self(index - 1),
            same => same,
        }
    }
}

impl ReadBuffer {
    /// An empty buffer.
    pub fn take(size: Size) -> Self {
        let bytes = FREE.with_borrow_mut(|free| free[size.0].pop()).unwrap_or_else(|| vec![0; size.bytes()]);
        Self { bytes, size, filled: 0 }
    }

    /// All of its space, to be read into.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The bytes read.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Counts the first `bytes` bytes as read.
    pub fn set_filled(&mut self, bytes: usize) {
        self.filled = bytes.min(self.bytes.len());
    }

    /// The bytes read. A mostly empty buffer is copied, so that a keystroke does not hold 4 KiB until it is acknowledged.
    pub fn into_bytes(self) -> Bytes {
        if self.filled * 4 <= self.bytes.len() {
            Bytes::copy_from_slice(self.filled())
        } else {
            Bytes::from_owner(self)
        }
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // The thread's pool is gone when the thread ends; then the buffer is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            let kept = &mut free[self.size.0];
            if kept.len() < KEPT[self.size.0] {
                kept.push(bytes);
            }
        });
    }
}

/// Bytes on their way, with the credit that they use.
struct Charged {
    bytes: Bytes,
    credit: Arc<DialCredit>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.credit.acknowledged(self.bytes.len());
    }
}

/// A chunk whose credit, which was acquired, comes back when QUIC drops its last part.
pub(crate) fn charged(bytes: Bytes, credit: Arc<DialCredit>) -> Bytes {
    credit.sent(bytes.len());
    Bytes::from_owner(Charged { bytes, credit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::Credit;

    #[test]
    fn sizes_follow_the_traffic() {
        let small = Size::SMALLEST;
        assert_eq!(small.after_read(100), small);
        let middle = small.after_read(4096);
        assert_eq!(middle.bytes(), 16 * 1024);
        let large = middle.after_read(16 * 1024);
        assert_eq!(large.bytes(), 64 * 1024);
        assert_eq!(large.after_read(64 * 1024), large);
        assert_eq!(large.after_read(20 * 1024), large);
        assert_eq!(large.after_read(1000), middle);
        assert_eq!(middle.after_read(1000), small);
    }

    #[test]
    fn a_chunk_gives_its_credit_and_its_buffer_back() {
        let connection = Arc::new(Credit::new());
        let credit = Arc::new(DialCredit::new(connection.clone()));
        for filled in [10, 4000] {
            connection.charge(filled);
            let mut buffer = ReadBuffer::take(Size::SMALLEST);
            buffer.set_filled(filled);
            let mut chunk = charged(buffer.into_bytes(), credit.clone());
            let part = chunk.split_to(filled / 2);
            drop(chunk);
            assert_eq!(connection.used(), filled, "a part still holds the whole chunk's credit");
            drop(part);
            assert_eq!(connection.used(), 0);
        }
        assert_eq!(FREE.with_borrow(|free| free[0].len()), 1);
    }
}
