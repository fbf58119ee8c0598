//! Frames of HTTP/2 (RFC 9113, section 4), right or wrong.

/// What a client of HTTP/2 says first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes before a frame's payload.
pub const HEAD: usize = 9;

/// The longest payload that a peer takes if it has not said otherwise.
pub const MAX_PAYLOAD: usize = 16_384;

/// Types of frames (section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the names of RFC 9113")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (section 6).
pub mod flag {
    #![allow(missing_docs, reason = "the names of RFC 9113")]
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes (section 7).
pub mod code {
    #![allow(missing_docs, reason = "the names of RFC 9113")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Settings (section 6.5.2).
pub mod setting {
    #![allow(missing_docs, reason = "the names of RFC 9113")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
}

/// One frame. Nothing is checked: a test may want it wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Some of [`flag`].
    pub flags: u8,
    /// The stream, or 0 for the connection.
    pub stream: u32,
    /// What follows the head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Any frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// Bytes of a stream.
    pub fn data(stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, 0, stream, payload)
    }

    /// A whole header block.
    pub fn headers(stream: u32, block: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::HEADERS, flag::END_HEADERS, stream, block)
    }

    /// Settings by number.
    pub fn settings(settings: &[(u16, u32)]) -> Self {
        let bytes = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        Self::new(kind::SETTINGS, 0, 0, bytes.collect::<Vec<_>>())
    }

    /// The acknowledgement of settings.
    pub fn settings_ack() -> Self {
        Self::new(kind::SETTINGS, flag::ACK, 0, [])
    }

    /// A question whether the peer is there.
    pub fn ping(opaque: [u8; 8]) -> Self {
        Self::new(kind::PING, 0, 0, opaque)
    }

    /// The answer to it.
    pub fn ping_ack(opaque: [u8; 8]) -> Self {
        Self::new(kind::PING, flag::ACK, 0, opaque)
    }

    /// Ends a stream at once.
    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    /// Lets the peer send so many bytes more.
    pub fn window_update(stream: u32, bytes: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())
    }

    /// The last frame of our half of the stream.
    #[must_use]
    pub fn ending(mut self) -> Self {
        self.flags |= flag::END_STREAM;
        self
    }

    /// The same with padding.
    #[must_use]
    pub fn padded(mut self, padding: u8) -> Self {
        self.flags |= flag::PADDED;
        self.payload.insert(0, padding);
        self.payload.resize(self.payload.len() + usize::from(padding), 0);
        self
    }

    /// The same with a priority (for headers, before they are padded).
    #[must_use]
    pub fn prioritized(mut self) -> Self {
        self.flags |= flag::PRIORITY;
        self.payload.splice(0..0, [0x80, 0, 0, 0, 200]);
        self
    }

    /// Headers cut into pieces: this frame with the first one, CONTINUATION frames with the others.
    #[must_use]
    pub fn cut(self, piece: usize) -> Vec<Self> {
        let mut pieces = self.payload.chunks(piece.max(1));
        let first = pieces.next().unwrap_or_default();
        let mut frames = vec![Self::new(self.kind, self.flags & !flag::END_HEADERS, self.stream, first)];
        frames.extend(pieces.map(|piece| Self::new(kind::CONTINUATION, 0, self.stream, piece)));
        if let Some(last) = frames.last_mut() {
            last.flags |= flag::END_HEADERS;
        }
        frames
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_saying(self.payload.len())
    }

    /// Its bytes with another length in the head.
    pub fn bytes_saying(&self, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }

    /// A number of four bytes at a place of the payload; 0 if it is too short.
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }
}
