//! Walks what the server writes, for the headers of its frames.

use super::head::{HEAD_BYTES, Head};

/// Where in a frame the written octets end.
#[derive(Debug, Default)]
pub struct Sent {
    head: [u8; HEAD_BYTES],
    head_len: u8,
    payload_ahead: usize,
}

impl Sent {
    /// Calls `each` with every frame header that `written` completes.
    pub fn walk(&mut self, mut written: &[u8], mut each: impl FnMut(Head)) {
        loop {
            let skipped = self.payload_ahead.min(written.len());
            self.payload_ahead -= skipped;
            written = &written[skipped..];
            if written.is_empty() {
                return;
            }
            let have = usize::from(self.head_len);
            let more = (HEAD_BYTES - have).min(written.len());
            self.head[have..have + more].copy_from_slice(&written[..more]);
            self.head_len += more as u8;
            written = &written[more..];
            if usize::from(self.head_len) == HEAD_BYTES {
                let head = Head::parse(&self.head);
                self.head_len = 0;
                self.payload_ahead = head.length as usize;
                each(head);
            }
        }
    }

    /// Whether the next octet begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.head_len == 0 && self.payload_ahead == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn finds_every_frame_in_pieces_of_any_size() {
        let lengths = [0_u32, 1, 8, 300, 16_384, 0];
        let mut octets = Vec::new();
        let mut heads = Vec::new();
        for (place, length) in (0_u8..).zip(lengths) {
            let head = Head { length, kind: place, flags: place, stream: u32::from(place) * 2 + 1 };
            octets.extend_from_slice(&head.octets());
            octets.resize(octets.len() + length as usize, 0xff);
            heads.push(head);
        }
        for piece in [1, 2, 7, 9, 10, 4096, octets.len()] {
            let (mut sent, mut seen) = (Sent::default(), Vec::new());
            for piece in octets.chunks(piece) {
                sent.walk(piece, |head| seen.push(head));
            }
            assert_eq!(seen, heads, "pieces of {piece}");
            assert!(sent.at_boundary());
        }
    }
}
