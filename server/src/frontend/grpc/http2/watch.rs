//! What a connection's task learns from its socket: that the client breaks the rules of the connection.

use std::sync::atomic::{AtomicU8, Ordering};

use h2::Reason;

use super::pace::Violation;

/// Shared by an [`Http2Socket`](super::Http2Socket), which sees the violation, and the task of its connection, which
/// alone can end the connection with the right code.
#[derive(Debug, Default)]
pub struct Watch {
    /// 0 as long as the client behaves.
    seen: AtomicU8,
}

impl Watch {
    /// The first violation, if there was one.
    ///
    /// It can only appear while the connection's task polls its connection, so it is enough to look afterwards. The socket
    /// reads nothing more from then on: end the connection with
    /// [`abrupt_shutdown`](h2::server::Connection::abrupt_shutdown) and [`Violation::code`].
    pub fn violation(&self) -> Option<Violation> {
        let number = self.seen.load(Ordering::Relaxed);
        Violation::ALL.into_iter().find(|violation| *violation as u8 == number)
    }

    /// Keeps a violation.
    pub(super) fn report(&self, violation: Violation) {
        self.seen.store(violation as u8, Ordering::Relaxed);
    }
}

impl Violation {
    /// The code of the GOAWAY that the client is owed (RFC 9113, section 7).
    pub fn code(self) -> Reason {
        match self {
            Self::TooManyPings | Self::Flood | Self::HeadersTooLarge => Reason::ENHANCE_YOUR_CALM,
            Self::BadCompression => Reason::COMPRESSION_ERROR,
        }
    }
}
