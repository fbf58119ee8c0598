//! Walks what the client sends, frame by frame: everything passes but header blocks, which are encoded anew.
//!
//! No sockets and no clock, so that every rule can be tested with plain octets.

use super::{
    block::{Block, Progress},
    head::{HEAD_BYTES, Head, flag, kind},
    hpack::Decoder,
    pace::{Pace, Violation},
};

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest payload of a frame, which the library must announce as well: the default of SETTINGS_MAX_FRAME_SIZE
/// (RFC 9113, section 6.5.2).
pub const MAX_FRAME: u32 = 16_384;

/// As soon as this much is ready to be read, nothing more is rewritten: a few octets of the client can become a header
/// block of 64 KiB.
pub const ENOUGH_BYTES: usize = 16 * 1024;

/// One connection, on the side that receives.
#[derive(Debug)]
pub struct Walker {
    state: State,
    /// A frame header of which not every octet is here yet.
    head: [u8; HEAD_BYTES],
    head_len: u8,
    /// A header block of which not every frame is here yet.
    block: Option<Box<Block>>,
    decoder: Decoder,
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many octets of the preface were right.
    Preface(u8),
    /// A frame header is next.
    Head,
    /// So many octets of a frame pass.
    Payload(u32),
    /// Octets of `block` are next.
    Block,
    /// This is no HTTP/2, as the library will find out itself.
    NotHttp2,
    /// The library has been given something that it answers with an error of the connection.
    Refused,
}

impl Default for Walker {
    fn default() -> Self {
        Self {
            state: State::Preface(0),
            head: [0; HEAD_BYTES],
            head_len: 0,
            block: None,
            decoder: Decoder::default(),
            pace: Pace::default(),
        }
    }
}

impl Walker {
    /// The counts of this connection.
    pub fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// How many octets of `input` pass as they are. What follows them is for [`rewrite`](Self::rewrite): a header block, a
    /// frame header in two pieces, or simply what has to wait until [`is_stopped`](Self::is_stopped) is false.
    pub fn pass(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match self.state {
                State::NotHttp2 => return input.len(),
                State::Block | State::Refused => return at,
                State::Preface(matched) => at += self.pass_preface(usize::from(matched), rest),
                State::Payload(ahead) => {
                    let n = rest.len().min(ahead as usize);
                    self.enter_payload(ahead - n as u32);
                    at += n;
                }
                State::Head => {
                    let Some(octets) = rest.first_chunk() else { return at };
                    let head = Head::parse(octets);
                    if self.is_stopped() || self.head_len > 0 || !self.passes(head) {
                        return at;
                    }
                    self.pass_frame(head);
                    at += HEAD_BYTES;
                }
            }
        }
        at
    }

    /// Appends to `out` what the library is to see instead of `input`, and tells how many octets of `input` that covers.
    /// It is all of them, unless `out` holds enough for now or the walk has [stopped](Self::is_stopped).
    pub fn rewrite(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        loop {
            let passed = self.pass(&input[at..]);
            out.extend_from_slice(&input[at..at + passed]);
            at += passed;
            if at == input.len() || out.len() >= ENOUGH_BYTES || self.is_stopped() {
                return at;
            }
            at += match self.state {
                State::Block => self.collect_block(&input[at..], out),
                _ => self.collect_head(&input[at..], out),
            };
        }
    }

    /// Whether nothing more can be read: for ever after a violation and after an error that the library will report, for
    /// this turn of the thread if the connection has done enough in it.
    pub fn is_stopped(&self) -> bool {
        self.state == State::Refused || self.pace.violation().is_some() || self.pace.is_tired()
    }

    /// Whether the client may not leave now: it has begun a frame that nobody has seen anything of.
    pub fn is_within_frame(&self) -> bool {
        self.head_len > 0 || self.block.is_some()
    }

    /// The octets of a frame header that is not complete. Put them before what is read next and call
    /// [`forget_partial_head`](Self::forget_partial_head), or leave them here.
    pub fn partial_head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    /// The [`partial_head`](Self::partial_head) is the begin of the next input.
    pub fn forget_partial_head(&mut self) {
        self.head_len = 0;
    }

    /// Octets held on the heap, but for the header table.
    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        self.pace.held() + self.block.as_ref().map_or(0, |block| block.held())
    }

    fn pass_preface(&mut self, matched: usize, input: &[u8]) -> usize {
        let expected = &PREFACE[matched..];
        let n = expected.len().min(input.len());
        self.state = if input[..n] != expected[..n] {
            State::NotHttp2
        } else if n == expected.len() {
            State::Head
        } else {
            State::Preface((matched + n) as u8)
        };
        n
    }

    /// Whether a frame passes as it is.
    fn passes(&self, head: Head) -> bool {
        self.block.is_none() && !matches!(head.kind, kind::HEADERS | kind::CONTINUATION | kind::PUSH_PROMISE)
    }

    fn pass_frame(&mut self, head: Head) {
        self.pace.received(head);
        self.enter_payload(head.length);
    }

    fn enter_payload(&mut self, ahead: u32) {
        self.state = if ahead == 0 { State::Head } else { State::Payload(ahead) };
    }

    fn collect_head(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let have = usize::from(self.head_len);
        let more = (HEAD_BYTES - have).min(input.len());
        self.head[have..have + more].copy_from_slice(&input[..more]);
        self.head_len += more as u8;
        if usize::from(self.head_len) == HEAD_BYTES {
            self.head_len = 0;
            self.begin(Head::parse(&self.head), out);
        }
        more
    }

    fn begin(&mut self, head: Head, out: &mut Vec<u8>) {
        if self.passes(head) {
            out.extend_from_slice(&head.octets());
            return self.pass_frame(head);
        }
        if head.length > MAX_FRAME {
            return self.refuse(head, out);
        }
        let trailers = self.pace.is_known(head.stream);
        self.pace.received(head);
        match &mut self.block {
            Some(block) if block.is_continued_by(head) => {
                if !block.continue_with(head) {
                    return self.violate(Violation::HeadersTooLarge);
                }
            }
            None if head.kind == kind::HEADERS => match Block::begin(head, trailers) {
                Some(block) => self.block = Some(Box::new(block)),
                None => return self.refuse_protocol(out),
            },
            _ => return self.refuse_protocol(out),
        }
        self.state = State::Block;
        // A frame without payload is complete already.
        self.collect_block(&[], out);
    }

    fn collect_block(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(block) = &mut self.block else { return 0 };
        let (taken, progress) = block.take(input);
        match progress {
            Progress::Within => {}
            Progress::FrameDone => self.state = State::Head,
            Progress::Done => self.finish_block(out),
            Progress::BadPadding => self.refuse_protocol(out),
            Progress::TooLarge => self.violate(Violation::HeadersTooLarge),
        }
        taken
    }

    fn finish_block(&mut self, out: &mut Vec<u8>) {
        self.state = State::Head;
        let Some(block) = self.block.take() else { return };
        match block.rewrite(&mut self.decoder, MAX_FRAME as usize, out) {
            Ok(octets) => self.pace.worked(octets),
            Err(_) => self.violate(Violation::BadCompression),
        }
    }

    /// Nothing more is read; the connection's task says why.
    fn violate(&mut self, violation: Violation) {
        self.block = None;
        self.pace.violate(violation);
    }

    /// Makes the library answer with PROTOCOL_ERROR, as it would if it had seen what the client has sent: with a
    /// CONTINUATION where none may be.
    fn refuse_protocol(&mut self, out: &mut Vec<u8>) {
        self.refuse(Head { length: 0, kind: kind::CONTINUATION, flags: flag::END_HEADERS, stream: 1 }, out);
    }

    /// Gives the library a frame header that it refuses.
    fn refuse(&mut self, head: Head, out: &mut Vec<u8>) {
        out.extend_from_slice(&head.octets());
        self.block = None;
        self.state = State::Refused;
    }
}

#[cfg(test)]
mod tests;
