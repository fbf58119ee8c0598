//! One header block, collected from its frames.

use super::{
    head::{Head, flag, kind},
    hpack::{DecodeError, Decoder},
    request::Fields,
};

/// The largest header block that is collected. A real one has some hundred octets.
pub const MAX_BLOCK_BYTES: usize = 64 * 1024;

/// How many CONTINUATION frames a block may have, full or empty.
pub const MAX_CONTINUATIONS: u16 = 128;

/// Octets of the priority that a HEADERS frame may begin with. It is deprecated and dropped (RFC 9113, section 5.3.2).
const PRIORITY_BYTES: u32 = 5;

/// A header block of which not every octet is here yet.
#[derive(Debug)]
pub struct Block {
    stream: u32,
    end_stream: bool,
    continuations: u16,
    /// Whether the current frame is the last one.
    last: bool,
    /// What is left of the current frame, in this order.
    pad_length_ahead: bool,
    priority_ahead: u32,
    fragment_ahead: u32,
    padding_ahead: u32,
    encoded: Vec<u8>,
}

/// Where a block stands after some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its frame goes on.
    Within,
    /// Its frame is whole; a CONTINUATION must follow.
    FrameDone,
    /// All of it is here.
    Done,
    /// Padding that is longer than its frame.
    BadPadding,
    /// More than anybody needs.
    TooLarge,
}

impl Block {
    /// Begins with a HEADERS frame; none if it has no room for what its flags announce.
    pub fn begin(head: Head) -> Option<Self> {
        let padded = head.has(flag::PADDED);
        let priority_ahead = if head.has(flag::PRIORITY) { PRIORITY_BYTES } else { 0 };
        Some(Self {
            stream: head.stream,
            end_stream: head.has(flag::END_STREAM),
            continuations: 0,
            last: head.has(flag::END_HEADERS),
            pad_length_ahead: padded,
            priority_ahead,
            fragment_ahead: head.length.checked_sub(u32::from(padded) + priority_ahead)?,
            padding_ahead: 0,
            encoded: Vec::new(),
        })
    }

    /// Whether `head` continues this block, as the next frame must.
    pub fn is_continued_by(&self, head: Head) -> bool {
        head.kind == kind::CONTINUATION && head.stream == self.stream
    }

    /// Goes on with a CONTINUATION frame; false if there were too many.
    #[must_use]
    pub fn continue_with(&mut self, head: Head) -> bool {
        self.continuations += 1;
        self.last = head.has(flag::END_HEADERS);
        self.fragment_ahead = head.length;
        self.continuations <= MAX_CONTINUATIONS
    }

    /// Takes from `input` what belongs to the current frame, and tells how much that was.
    pub fn take(&mut self, input: &[u8]) -> (usize, Progress) {
        let mut rest = input;
        if self.pad_length_ahead {
            let Some((&padding, behind)) = rest.split_first() else { return (0, Progress::Within) };
            rest = behind;
            self.pad_length_ahead = false;
            self.padding_ahead = padding.into();
            match self.fragment_ahead.checked_sub(self.padding_ahead) {
                Some(fragment) => self.fragment_ahead = fragment,
                None => return (1, Progress::BadPadding),
            }
        }
        if self.encoded.len() + self.fragment_ahead as usize > MAX_BLOCK_BYTES {
            return (input.len() - rest.len(), Progress::TooLarge);
        }
        split(&mut rest, &mut self.priority_ahead);
        if self.priority_ahead == 0 {
            self.encoded.extend_from_slice(split(&mut rest, &mut self.fragment_ahead));
        }
        if self.priority_ahead == 0 && self.fragment_ahead == 0 {
            split(&mut rest, &mut self.padding_ahead);
        }
        let ahead = self.priority_ahead + self.fragment_ahead + self.padding_ahead;
        let progress = match (ahead, self.last) {
            (0, true) => Progress::Done,
            (0, false) => Progress::FrameDone,
            _ => Progress::Within,
        };
        (input.len() - rest.len(), progress)
    }

    /// Its stream.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether the client's half of the stream ends with it.
    pub fn ends_stream(&self) -> bool {
        self.end_stream
    }

    /// What it says, once it is whole, and how many octets of work that was.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn decode(&self, decoder: &mut Decoder) -> Result<(Fields, usize), DecodeError> {
        let mut fields = Fields::default();
        decoder.decode(&self.encoded, |field| fields.put(field))?;
        let work = self.encoded.len().max(fields.kept_bytes());
        Ok((fields, work))
    }

    /// Octets held.
    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        size_of::<Self>() + self.encoded.capacity()
    }
}

/// Cuts up to `ahead` octets off the front of `rest`, and takes them from `ahead`.
fn split<'a>(rest: &mut &'a [u8], ahead: &mut u32) -> &'a [u8] {
    let (piece, behind) = rest.split_at(rest.len().min(*ahead as usize));
    *rest = behind;
    *ahead -= piece.len() as u32;
    piece
}
