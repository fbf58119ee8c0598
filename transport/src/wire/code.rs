//! Application error codes (RFC 9000, section 20.2): what a number on a closed connection or an ended stream means.
//!
//! `docs/protocol.md` has the same tables, tested against [`ConnectionCode::ALL`] and [`StreamCode::ALL`].

use std::fmt;

/// Why a connection was closed (CONNECTION_CLOSE of type 0x1d). A reason in words goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ConnectionCode {
    /// The owner of the connection went away without closing it.
    Dropped = 0x00,
    /// A drain is complete: the last dial has ended.
    Drained = 0x01,
    /// The peer broke this protocol.
    Protocol = 0x02,
    /// No Hello, or no Welcome, in time.
    HelloTimeout = 0x03,
    /// Token or certificate was not accepted.
    Unauthorized = 0x04,
    /// Id or identifiers cannot be used.
    BadHello = 0x05,
    /// The agent already has a connection to this server.
    DuplicateServer = 0x06,
    /// The process stops at once, without a drain.
    Stopping = 0x07,
    /// The time limit of a drain has passed with dials open.
    DrainDeadline = 0x08,
    /// A fault of the sender itself.
    Internal = 0x09,
    /// Whoever must be asked about the agent cannot be asked now; nothing is known against it.
    Unavailable = 0x0a,
    /// Nothing came from the peer for the idle timeout. It reads this only if the path lost one direction, or if it
    /// was late.
    IdleTimeout = 0x0b,
}

/// Why one direction of a stream ended early (RESET_STREAM from the sender, STOP_SENDING from the receiver).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StreamCode {
    /// The owner of the stream went away without saying why.
    Dropped = 0x00,
    /// The dial was given up before it was answered.
    Cancelled = 0x10,
    /// The socket at the sender's edge was reset, or failed.
    SocketReset = 0x11,
    /// The socket at the sender's edge takes no more bytes; the other direction may go on.
    SocketClosed = 0x12,
    /// The sender's task ended without finishing the stream.
    Aborted = 0x13,
    /// The head of the stream is not a valid message.
    BadRequest = 0x14,
    /// A time limit of this protocol has passed.
    TimedOut = 0x15,
    /// The process's memory budget is spent, and this dial was stalled longest.
    OverBudget = 0x16,
    /// The time limit of a drain has passed.
    DrainDeadline = 0x17,
}

impl ConnectionCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 12] = [
        Self::Dropped,
        Self::Drained,
        Self::Protocol,
        Self::HelloTimeout,
        Self::Unauthorized,
        Self::BadHello,
        Self::DuplicateServer,
        Self::Stopping,
        Self::DrainDeadline,
        Self::Internal,
        Self::Unavailable,
        Self::IdleTimeout,
    ];

    /// The code that a number on the wire stands for; `None` for one that this version does not know.
    pub fn from_u64(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(u32::from(*code)) == number)
    }

    /// Why the connection was closed, in words for logs and `docs/protocol.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Dropped => "the connection's owner went away without closing it",
            Self::Drained => "a drain is complete, the last dial has ended",
            Self::Protocol => "the peer broke the protocol",
            Self::HelloTimeout => "the first control message did not come in time",
            Self::Unauthorized => "token or certificate not accepted",
            Self::BadHello => "id or identifiers cannot be used",
            Self::DuplicateServer => "the agent already has a connection to this server",
            Self::Stopping => "the process stops without a drain",
            Self::DrainDeadline => "the time limit of a drain has passed with dials open",
            Self::Internal => "a fault of the sender itself",
            Self::Unavailable => "the agent cannot be checked now",
            Self::IdleTimeout => "the sender heard nothing within its idle timeout",
        }
    }
}

impl StreamCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 9] = [
        Self::Dropped,
        Self::Cancelled,
        Self::SocketReset,
        Self::SocketClosed,
        Self::Aborted,
        Self::BadRequest,
        Self::TimedOut,
        Self::OverBudget,
        Self::DrainDeadline,
    ];

    /// The code that a number on the wire stands for; `None` for one that this version does not know.
    pub fn from_u64(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(u32::from(*code)) == number)
    }

    /// Why the stream was ended, in words for logs and `docs/protocol.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Dropped => "the stream's owner went away without saying why",
            Self::Cancelled => "the dial was given up before it was answered",
            Self::SocketReset => "the socket at the sender's edge was reset or failed",
            Self::SocketClosed => "the socket at the sender's edge takes no more bytes",
            Self::Aborted => "the sender's task ended without finishing the stream",
            Self::BadRequest => "the head of the stream is not a valid message",
            Self::TimedOut => "a time limit of this protocol has passed",
            Self::OverBudget => "memory budget spent, and this dial was stalled longest",
            Self::DrainDeadline => "the time limit of a drain has passed",
        }
    }
}

impl From<ConnectionCode> for u32 {
    fn from(code: ConnectionCode) -> Self {
        code as Self
    }
}

impl From<StreamCode> for u32 {
    fn from(code: StreamCode) -> Self {
        code as Self
    }
}

impl fmt::Display for ConnectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning())
    }
}

impl fmt::Display for StreamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_codes_keep_their_numbers() {
        for (number, code) in ConnectionCode::ALL.into_iter().enumerate() {
            assert_eq!(u32::from(code) as usize, number);
            assert_eq!(ConnectionCode::from_u64(number as u64), Some(code));
        }
        for unknown in [0x0c, 0x10, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(ConnectionCode::from_u64(unknown), None, "{unknown:#x}");
        }
    }

    #[test]
    fn stream_codes_keep_their_numbers() {
        let numbers = [0x00, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17];
        for (number, code) in numbers.into_iter().zip(StreamCode::ALL) {
            assert_eq!(u32::from(code), number);
            assert_eq!(StreamCode::from_u64(number.into()), Some(code));
        }
        for unknown in [0x01, 0x0f, 0x18, (1 << 32) + 0x10, u64::MAX] {
            assert_eq!(StreamCode::from_u64(unknown), None, "{unknown:#x}");
        }
    }
}
