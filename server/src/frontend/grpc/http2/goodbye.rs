//! Adds to the last frame of a connection the text by which gRPC clients know why it ends: after `too_many_pings` they
//! ping less often. The HTTP/2 library has no way to say it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::head::{HEAD_BYTES, Head, kind};

/// Octets of a GOAWAY frame without text: last stream and code (RFC 9113, section 6.8).
const PLAIN_BYTES: usize = HEAD_BYTES + 8;

/// A GOAWAY frame with its text, while it is being written. It holds nothing before.
#[derive(Debug, Default)]
pub struct Goodbye {
    frame: Vec<u8>,
    written: usize,
}

impl Goodbye {
    /// Writes like the socket itself, but gives `text` to a GOAWAY frame that has none. `bufs` must begin with a frame.
    ///
    /// Returns how much of `bufs` is done, which is never more than up to the end of the first GOAWAY frame.
    pub fn poll_write<S: AsyncWrite>(
        &mut self,
        mut socket: Pin<&mut S>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        text: &str,
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        match frames_before_goaway(first) {
            None => return socket.poll_write_vectored(cx, bufs),
            Some(0) => {}
            Some(before) => return socket.poll_write(cx, &first[..before]),
        }
        if self.frame.is_empty() {
            self.frame.extend_from_slice(&first[..PLAIN_BYTES]);
            self.frame.extend_from_slice(text.as_bytes());
            let length = (self.frame.len() - HEAD_BYTES) as u32;
            let head = Head { length, kind: kind::GOAWAY, flags: 0, stream: 0 };
            self.frame[..HEAD_BYTES].copy_from_slice(&head.octets());
        }
        while self.written < self.frame.len() {
            match ready!(socket.as_mut().poll_write(cx, &self.frame[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        *self = Self::default();
        Poll::Ready(Ok(PLAIN_BYTES))
    }
}

/// Octets of the whole frames before the first GOAWAY that has no text; none without such a frame.
fn frames_before_goaway(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let head = Head::parse(octets.get(at..)?.first_chunk()?);
        let end = at + HEAD_BYTES + head.length as usize;
        if head.kind == kind::GOAWAY && end - at == PLAIN_BYTES {
            return (end <= octets.len()).then_some(at);
        }
        at = end;
    }
}
