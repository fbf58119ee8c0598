//! Why a connection over gRPC is gone.

use std::{error::Error, io, sync::Arc, time::Duration};

use konnectivity_transport::packet::message::DecodeError;

use super::status::Status;

/// How long a server may take to answer a PING, as in the reference.
pub const PING_LIMIT: Duration = Duration::from_secs(20);

/// Why a connection over gRPC is gone.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GrpcLost {
    /// This end has closed it.
    #[error("closed by this agent")]
    ClosedHere,
    /// The server has ended the stream, without saying that anything is wrong.
    #[error("the server has ended the stream")]
    Ended,
    /// The server has ended the stream with an error.
    #[error("the server has ended the stream: {0}")]
    Status(Status),
    /// The server has reset the stream, with this reason of HTTP/2 (RFC 9113, section 7).
    #[error("the server has reset the stream: {}", .0.description())]
    Reset(h2::Reason),
    /// One end of HTTP/2 has given the connection up.
    #[error("{}: {}{}", if *.by_server { "the server has given HTTP/2 up" } else { "the server breaks HTTP/2" },
        .reason.description(), if .debug.is_empty() { String::new() } else { format!(" ({})", .debug) })]
    GoAway {
        /// Which end.
        by_server: bool,
        /// Why.
        reason: h2::Reason,
        /// What the server has added.
        debug: String,
    },
    /// The TCP or TLS connection.
    #[error("{0}")]
    Transport(Arc<str>),
    /// The server is silent.
    #[error("no answer to a PING within {} s", PING_LIMIT.as_secs())]
    Silent,
    /// The server sends what are no packets.
    #[error("the server breaks the protocol: {0}")]
    Malformed(#[from] DecodeError),
}

impl GrpcLost {
    /// gRPC's code for it in the reference's metrics; `None` for an end that is no error.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::ClosedHere | Self::Ended => None,
            Self::Status(status) => Some(status.code),
            Self::Reset(reason) => Some(code_of_reset(*reason)),
            Self::GoAway { .. } | Self::Transport(_) | Self::Silent => Some("Unavailable"),
            Self::Malformed(DecodeError::TooLarge { .. } | DecodeError::TooLargeToGather { .. }) => {
                Some("ResourceExhausted")
            }
            Self::Malformed(_) => Some("Internal"),
        }
    }
}

/// As gRPC's library for Go maps them.
fn code_of_reset(reason: h2::Reason) -> &'static str {
    match reason {
        h2::Reason::CANCEL => "Canceled",
        h2::Reason::REFUSED_STREAM => "Unavailable",
        h2::Reason::ENHANCE_YOUR_CALM | h2::Reason::FLOW_CONTROL_ERROR => "ResourceExhausted",
        h2::Reason::INADEQUATE_SECURITY => "PermissionDenied",
        _ => "Internal",
    }
}

impl From<h2::Error> for GrpcLost {
    fn from(error: h2::Error) -> Self {
        if let Some(io) = error.get_io() {
            return Self::Transport(words(io).into());
        }
        match error.reason() {
            Some(reason) if error.is_reset() && error.is_remote() => Self::Reset(reason),
            Some(reason) if error.is_go_away() => {
                // Its debug data is shown only as part of the whole.
                let shown = error.to_string();
                let debug = shown.rsplit_once(" (b\"").map_or("", |(_, debug)| debug.trim_end_matches("\")"));
                Self::GoAway { by_server: error.is_remote(), reason, debug: debug.to_owned() }
            }
            _ => Self::Transport(error.to_string().into()),
        }
    }
}

/// What the system or TLS says, and that the end came without warning.
fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::BrokenPipe {
        return "the server has closed the connection".to_owned();
    }
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_code() {
        let status = |code| GrpcLost::Status(Status { code, message: String::new() });
        let go_away = GrpcLost::GoAway { by_server: true, reason: h2::Reason::NO_ERROR, debug: String::new() };
        for (lost, code) in [
            (GrpcLost::ClosedHere, None),
            (GrpcLost::Ended, None),
            (status("Unknown"), Some("Unknown")),
            (GrpcLost::Reset(h2::Reason::CANCEL), Some("Canceled")),
            (GrpcLost::Reset(h2::Reason::REFUSED_STREAM), Some("Unavailable")),
            (GrpcLost::Reset(h2::Reason::ENHANCE_YOUR_CALM), Some("ResourceExhausted")),
            (GrpcLost::Reset(h2::Reason::PROTOCOL_ERROR), Some("Internal")),
            (go_away, Some("Unavailable")),
            (GrpcLost::Silent, Some("Unavailable")),
            (GrpcLost::Malformed(DecodeError::TooLarge { length: 1 }), Some("ResourceExhausted")),
            (GrpcLost::Malformed(DecodeError::Compressed), Some("Internal")),
        ] {
            assert_eq!(lost.code(), code, "{lost}");
        }
    }
}
