//! Why a dial was not answered with success: what is counted, logged, and told to the client.

use konnectivity_transport::stream::SendMessageError;

use crate::{backend::carrier::AskError, metrics::DialFailure};

/// Why a dial was not answered with success.
#[derive(Debug)]
pub enum Failure {
    /// No connected agent serves the target.
    NoAgent,
    /// The agent has not connected the target.
    Ask(AskError),
    /// The request could not be sent within the limit: the agent lets no more streams be opened.
    SendTimedOut,
    /// No answer within the limit.
    TimedOut,
    /// The client has left, or has given the dial up.
    ClientLeft,
    /// The server stops.
    Stopping,
}

impl Failure {
    /// Whether another agent may be tried: the first was lost before it can have connected.
    pub fn agent_lost(&self) -> bool {
        matches!(self, Self::Ask(error) if error.may_ask_another())
    }

    /// The reason under which the reference counts it (compat 2.5 and 3.4).
    pub fn reason(&self) -> Option<DialFailure> {
        match self {
            Self::NoAgent => Some(DialFailure::NoAgent),
            Self::Ask(AskError::Send(SendMessageError::Encode(_))) => None,
            Self::Ask(AskError::Refused(_)) => Some(DialFailure::ErrorResponse),
            Self::Ask(_) | Self::Stopping => Some(DialFailure::BackendClose),
            Self::SendTimedOut | Self::TimedOut => Some(DialFailure::BackendDialTimeout),
            Self::ClientLeft => Some(DialFailure::FrontendClose),
        }
    }

    /// The outcome for metrics, and words for the log.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Self::NoAgent => ("no_agent", "no agent for this target is connected".into()),
            Self::Ask(AskError::Send(error @ SendMessageError::Encode(_))) => ("bad_request", error.to_string()),
            Self::Ask(AskError::Refused(text)) => ("dial_failed", text.clone()),
            Self::Ask(error) => ("agent_lost", error.to_string()),
            Self::SendTimedOut => ("timed_out", "the agent took no request within --backend-dial-timeout".into()),
            Self::TimedOut => ("timed_out", "no answer from the agent within --backend-dial-timeout".into()),
            Self::ClientLeft => ("client_left", "the client left before its dial was answered".into()),
            Self::Stopping => ("drain_deadline", "the server stops".into()),
        }
    }
}
