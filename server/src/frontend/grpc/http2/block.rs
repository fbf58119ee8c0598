//! One header block: collected from its frames, decoded, encoded anew.

use super::{
    field::{self, LOCALHOST, Verdict},
    head::{HEAD_BYTES, Head, flag, kind},
    hpack::{DecodeError, Decoder, Field},
    table::ENTRY_OVERHEAD,
};

/// The largest header block that is collected. A real one has some hundred octets.
pub const MAX_BLOCK_BYTES: usize = 64 * 1024;

/// The largest list of fields that is passed on, by the measure of SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113, section 6.5.2).
pub const MAX_LIST_BYTES: usize = 64 * 1024;

/// How many CONTINUATION frames a block may have, full or empty.
pub const MAX_CONTINUATIONS: u16 = 128;

/// Octets of the priority that a HEADERS frame may begin with. It is deprecated and dropped (RFC 9113, section 5.3.2).
const PRIORITY_BYTES: u32 = 5;

/// A header block of which not every octet is here yet.
#[derive(Debug)]
pub struct Block {
    stream: u32,
    end_stream: bool,
    trailers: bool,
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
    /// Begins with a HEADERS frame; none if it has no room for what its flags announce. `trailers` tells whether its
    /// stream has had headers before.
    pub fn begin(head: Head, trailers: bool) -> Option<Self> {
        let padded = head.has(flag::PADDED);
        let priority_ahead = if head.has(flag::PRIORITY) { PRIORITY_BYTES } else { 0 };
        Some(Self {
            stream: head.stream,
            end_stream: head.has(flag::END_STREAM),
            trailers,
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

    /// Appends what the HTTP/2 library is to see of a whole block, and tells how many octets of work that was.
    ///
    /// # Errors
    /// If the block cannot be decoded; nothing is appended then.
    pub fn rewrite(self, decoder: &mut Decoder, max_frame: usize, out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        let mut fields = Fields { out, start: start + HEAD_BYTES, list_bytes: 0, malformed: false };
        if let Err(error) = decoder.decode(&self.encoded, |field| fields.put(field)) {
            out.truncate(start);
            return Err(error);
        }
        fields.finish(self.trailers);
        let work = self.encoded.len().max(out.len() - start);
        self.frame(start, max_frame, out);
        Ok(work)
    }

    /// Makes frames of the fields, for which the first frame's header is left open at `start`.
    fn frame(&self, start: usize, max_frame: usize, out: &mut Vec<u8>) {
        let fields = out.len() - start - HEAD_BYTES;
        let end_stream = if self.end_stream { flag::END_STREAM } else { 0 };
        let first = fields.min(max_frame);
        let rest = out.split_off(start + HEAD_BYTES + first);
        let head = |kind, flags, length: usize, is_last| Head {
            length: length as u32,
            kind,
            flags: flags | if is_last { flag::END_HEADERS } else { 0 },
            stream: self.stream,
        };
        out[start..start + HEAD_BYTES]
            .copy_from_slice(&head(kind::HEADERS, end_stream, first, rest.is_empty()).octets());
        let mut pieces = rest.chunks(max_frame).peekable();
        while let Some(piece) = pieces.next() {
            out.extend_from_slice(&head(kind::CONTINUATION, 0, piece.len(), pieces.peek().is_none()).octets());
            out.extend_from_slice(piece);
        }
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

/// The fields of a block on their way out.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    list_bytes: usize,
    malformed: bool,
}

impl Fields<'_> {
    /// Appends a field unless the block is lost already. It is decoded to its end even then, for the sake of the table.
    fn put(&mut self, field: Field<'_>) {
        // Before the field is judged: a few octets can refer to a large one many times.
        if !self.has_room(field.name.len() + field.value.len() + ENTRY_OVERHEAD) {
            return;
        }
        match field::judge(field.name, field.value) {
            Verdict::Keep => field::put_field(self.out, field),
            Verdict::Localhost if self.has_room(LOCALHOST.len().saturating_sub(field.value.len())) => {
                field::put_field(self.out, Field { value: LOCALHOST, ..field });
            }
            Verdict::Localhost => {}
            Verdict::Malformed => self.malformed = true,
        }
    }

    /// Counts so much more of the list. Without room for it, or in a block that is lost, nothing is kept.
    fn has_room(&mut self, bytes: usize) -> bool {
        self.list_bytes = self.list_bytes.saturating_add(bytes);
        let has_room = !self.malformed && self.list_bytes <= MAX_LIST_BYTES;
        if !has_room {
            self.out.truncate(self.start);
        }
        has_room
    }

    /// Puts something that is refused in the place of a block that is lost.
    fn finish(self, trailers: bool) {
        let too_large = self.list_bytes > MAX_LIST_BYTES;
        if !too_large && !self.malformed {
            return;
        }
        self.out.truncate(self.start);
        if too_large && !trailers {
            field::put_too_large(self.out);
        } else {
            field::put_malformed(self.out);
        }
    }
}
