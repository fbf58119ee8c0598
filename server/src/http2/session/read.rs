//! Takes the client's octets apart, however they are cut.

use bytes::{Buf, Bytes};

use super::{MAX_CONTROL, MAX_FRAME, PREFACE, Session};
use crate::http2::{
    block::{Block, Progress},
    code::{Code, Fault},
    head::{HEAD_BYTES, Head, flag, kind},
};

const SETTING_BYTES: usize = 6;

const PREFACE_WRONG: Fault = Fault::protocol("no HTTP/2");
const NOT_NOW: Fault = Fault::protocol("frame_in_the_wrong_place");
const WRONG_STREAM: Fault = Fault::protocol("frame_on_the_wrong_stream");
const BAD_PADDING: Fault = Fault::protocol("padding_longer_than_frame");
const WRONG_SIZE: Fault = Fault::size("frame_of_the_wrong_size");

/// A header block that is larger, or in more pieces, than any honest one.
pub const HEADERS_TOO_LARGE: Fault = Fault::new(Code::ENHANCE_YOUR_CALM, "header_block_too_large");

/// Where in the client's octets we are.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// The part that has come of a frame header, or of a small payload.
    held: [u8; HEAD_BYTES],
    held_bytes: u8,
    /// The first settings have come.
    pub is_greeted: bool,
    /// A header block of which not every frame is here yet.
    block: Option<Box<Block>>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many octets of the preface were right.
    Preface(u8),
    /// A frame header is next.
    Head,
    /// A payload of a few octets.
    Small(Head),
    Settings {
        ahead: u32,
        window: Option<u32>,
    },
    Data(Data),
    /// Octets of `block` are next.
    Block,
    /// Nobody looks at so many octets.
    Skip(u32),
    /// Nothing is read any more.
    Stopped,
}

impl Default for State {
    fn default() -> Self {
        Self::Preface(0)
    }
}

/// A DATA frame whose payload somebody waits for.
#[derive(Debug, Clone, Copy)]
struct Data {
    stream: u32,
    pad_length_ahead: bool,
    ahead: u32,
    padding: u32,
    end_stream: bool,
}

impl Reader {
    /// Whether a frame has begun and is not whole.
    pub fn is_within_frame(&self) -> bool {
        self.held_bytes > 0 || !matches!(self.state, State::Head | State::Stopped | State::Preface(0))
    }

    /// Drops what has come of a frame.
    pub fn stop(&mut self) {
        self.state = State::Stopped;
        self.block = None;
    }

    /// The next `count` octets, once they are all here.
    fn gather(&mut self, input: &mut Bytes, count: usize) -> Option<&[u8]> {
        let have = usize::from(self.held_bytes);
        let more = (count - have).min(input.len());
        self.held[have..have + more].copy_from_slice(&input[..more]);
        input.advance(more);
        self.held_bytes = (have + more) as u8;
        if have + more < count {
            return None;
        }
        self.held_bytes = 0;
        Some(&self.held[..count])
    }

    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.held())
    }
}

impl<B: Buf> Session<B> {
    /// Takes octets from the front of `input`, which lie in a buffer of `buffer` octets, until none are left or
    /// [`wants_input`](Self::wants_input) is false.
    pub fn receive(&mut self, input: &mut Bytes, buffer: usize) {
        while !input.is_empty() && self.wants_input() {
            if let Err(fault) = self.step(input, buffer) {
                self.fail(fault);
            }
        }
    }

    /// Whether the client is listened to: not when it has broken a rule, when it leaves answers unread, or when others
    /// should have a turn.
    pub fn wants_input(&self) -> bool {
        !self.is_lost && self.control.len() < MAX_CONTROL && !self.pace.is_tired()
    }

    fn step(&mut self, input: &mut Bytes, buffer: usize) -> Result<(), Fault> {
        match self.reader.state {
            State::Preface(matched) => self.take_preface(usize::from(matched), input)?,
            State::Head => {
                if let Some(octets) = self.reader.gather(input, HEAD_BYTES)
                    && let Some(octets) = octets.first_chunk()
                {
                    let head = Head::parse(octets);
                    self.begin(head)?;
                }
            }
            State::Small(head) => {
                if let Some(octets) = self.reader.gather(input, head.length as usize) {
                    let mut payload = [0; 8];
                    payload[..octets.len()].copy_from_slice(octets);
                    self.reader.state = State::Head;
                    self.take_small(head, payload)?;
                }
            }
            State::Settings { ahead, window } => self.take_settings(ahead, window, input)?,
            State::Data(data) => self.take_payload(data, input, buffer)?,
            State::Block => self.take_block(input)?,
            State::Skip(ahead) => {
                let octets = input.len().min(ahead as usize);
                input.advance(octets);
                self.skip(ahead - octets as u32);
            }
            State::Stopped => input.clear(),
        }
        Ok(())
    }

    fn skip(&mut self, ahead: u32) {
        self.reader.state = if ahead == 0 { State::Head } else { State::Skip(ahead) };
    }

    fn take_preface(&mut self, matched: usize, input: &mut Bytes) -> Result<(), Fault> {
        let expected = &PREFACE[matched..];
        let octets = expected.len().min(input.len());
        if input[..octets] != expected[..octets] {
            return Err(PREFACE_WRONG);
        }
        input.advance(octets);
        let whole = octets == expected.len();
        self.reader.state = if whole { State::Head } else { State::Preface((matched + octets) as u8) };
        Ok(())
    }

    fn begin(&mut self, head: Head) -> Result<(), Fault> {
        if head.length > MAX_FRAME {
            return Err(Fault::size("frame_too_large"));
        }
        let in_place = match &self.reader.block {
            Some(block) => block.is_continued_by(head),
            None => head.kind != kind::CONTINUATION,
        };
        let is_greeting = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if !in_place || !(self.reader.is_greeted || is_greeting) {
            return Err(NOT_NOW);
        }
        self.pace.received(head, self.streams.open > 0);
        if let Some(violation) = self.pace.violation() {
            return Err(violation);
        }
        let on_stream = match head.kind {
            kind::SETTINGS | kind::PING | kind::GOAWAY => Some(false),
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM => Some(true),
            _ => None,
        };
        if on_stream.is_some_and(|on_stream| on_stream != (head.stream > 0)) {
            return Err(WRONG_STREAM);
        }
        match head.kind {
            kind::DATA => self.begin_data(head)?,
            kind::HEADERS | kind::CONTINUATION => self.begin_block(head)?,
            kind::PUSH_PROMISE => return Err(NOT_NOW),
            kind::SETTINGS => self.begin_settings(head)?,
            kind::PRIORITY if head.length != 5 => return Err(WRONG_SIZE),
            // Only this side could have opened streams that a client may not use any more.
            kind::GOAWAY if head.length < 8 => return Err(WRONG_SIZE),
            kind::RST_STREAM | kind::WINDOW_UPDATE if head.length == 4 => self.reader.state = State::Small(head),
            kind::PING if head.length == 8 => self.reader.state = State::Small(head),
            kind::RST_STREAM | kind::WINDOW_UPDATE | kind::PING => return Err(WRONG_SIZE),
            _ => self.skip(head.length),
        }
        Ok(())
    }

    fn begin_settings(&mut self, head: Head) -> Result<(), Fault> {
        self.reader.is_greeted = true;
        if head.has(flag::ACK) {
            self.is_acknowledged = true;
            return if head.length == 0 { Ok(()) } else { Err(WRONG_SIZE) };
        }
        if !head.length.is_multiple_of(SETTING_BYTES as u32) {
            return Err(WRONG_SIZE);
        }
        self.continue_settings(head.length, None)
    }

    fn take_settings(&mut self, ahead: u32, mut window: Option<u32>, input: &mut Bytes) -> Result<(), Fault> {
        let Some(octets) = self.reader.gather(input, SETTING_BYTES) else { return Ok(()) };
        let &[n0, n1, v0, v1, v2, v3] = octets else { return Ok(()) };
        let (name, value) = (u16::from_be_bytes([n0, n1]), u32::from_be_bytes([v0, v1, v2, v3]));
        self.take_setting(name, value, &mut window)?;
        self.continue_settings(ahead - SETTING_BYTES as u32, window)
    }

    fn continue_settings(&mut self, ahead: u32, window: Option<u32>) -> Result<(), Fault> {
        if ahead > 0 {
            self.reader.state = State::Settings { ahead, window };
            return Ok(());
        }
        self.reader.state = State::Head;
        self.end_settings(window)
    }

    fn begin_data(&mut self, head: Head) -> Result<(), Fault> {
        let is_padded = head.has(flag::PADDED);
        if is_padded && head.length == 0 {
            return Err(BAD_PADDING);
        }
        if !self.admit_data(head)? {
            self.skip(head.length);
            return Ok(());
        }
        let data = Data {
            stream: head.stream,
            pad_length_ahead: is_padded,
            ahead: head.length - u32::from(is_padded),
            padding: 0,
            end_stream: head.has(flag::END_STREAM),
        };
        self.continue_data(data);
        Ok(())
    }

    fn take_payload(&mut self, mut data: Data, input: &mut Bytes, buffer: usize) -> Result<(), Fault> {
        if data.pad_length_ahead {
            data.pad_length_ahead = false;
            data.padding = input.get_u8().into();
            data.ahead = data.ahead.checked_sub(data.padding).ok_or(BAD_PADDING)?;
            self.release(data.stream, data.padding + 1);
        } else if data.ahead > 0 {
            let piece = input.split_to(input.len().min(data.ahead as usize));
            data.ahead -= piece.len() as u32;
            self.take_data(data.stream, piece, buffer);
        } else {
            let octets = input.len().min(data.padding as usize);
            input.advance(octets);
            data.padding -= octets as u32;
        }
        self.continue_data(data);
        Ok(())
    }

    fn continue_data(&mut self, data: Data) {
        if data.pad_length_ahead || data.ahead + data.padding > 0 {
            self.reader.state = State::Data(data);
            return;
        }
        self.reader.state = State::Head;
        if data.end_stream {
            self.hear_end(data.stream);
        }
    }

    fn begin_block(&mut self, head: Head) -> Result<(), Fault> {
        match &mut self.reader.block {
            Some(block) => {
                if !block.continue_with(head) {
                    return Err(HEADERS_TOO_LARGE);
                }
            }
            None if head.stream.is_multiple_of(2) => return Err(WRONG_STREAM),
            None => self.reader.block = Some(Box::new(Block::begin(head).ok_or(BAD_PADDING)?)),
        }
        self.reader.state = State::Block;
        // A frame without payload is complete already.
        self.take_block(&mut Bytes::new())
    }

    fn take_block(&mut self, input: &mut Bytes) -> Result<(), Fault> {
        let Some(block) = &mut self.reader.block else { return Ok(()) };
        let (taken, progress) = block.take(input);
        input.advance(taken);
        match progress {
            Progress::Within => {}
            Progress::FrameDone => self.reader.state = State::Head,
            Progress::BadPadding => return Err(BAD_PADDING),
            Progress::TooLarge => return Err(HEADERS_TOO_LARGE),
            Progress::Done => {
                self.reader.state = State::Head;
                if let Some(block) = self.reader.block.take() {
                    self.end_block(&block)?;
                }
            }
        }
        Ok(())
    }
}
