//! Why an agent is not admitted, in the words that both ends log. Where the reference has words, these are they.

use konnectivity_transport::wire::code::ConnectionCode;

use crate::{
    grpc::status::{Code, Status},
    metrics::Reached,
};

/// Why an agent is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It shows no token.
    #[error("Authentication context was not found in metadata")]
    NoToken,
    /// It shows several.
    #[error("too many ({0}) tokens are received")]
    SeveralTokens(usize),
    /// What it shows is not marked as a token.
    #[error("received token does not have \"Bearer \" prefix")]
    NoBearer,
    /// It is longer than any token.
    #[error("the token of {bytes} bytes is longer than {most} bytes, and no token of a service account is")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What may be.
        most: usize,
    },
    /// The API does not know the token, or it is somebody else's.
    #[error("Failed to validate authentication token, err:lookup failed: {0}")]
    Lookup(String),
    /// The API cannot be asked: nothing is known against the agent.
    #[error(
        "Failed to validate authentication token, err:Failed to authenticate request. err:cannot review tokens now: {0}"
    )]
    CannotReview(String),
    /// It says that it reaches what is not its own.
    #[error("the agent must not claim {claim}: {reason}")]
    Claim {
        /// What it claims, as in `host "node-2"`.
        claim: String,
        /// Why it must not.
        reason: String,
    },
    /// The API cannot be asked for the node's addresses.
    #[error("cannot look at the agent's node now: {0}")]
    CannotLookUp(String),
}

/// Characters of what the agent or the API says that are told: it goes over the wire, and into the logs of both ends.
const MOST_CHARACTERS: usize = 300;

impl Refusal {
    /// The API's words for a token.
    pub fn lookup(words: &str) -> Self {
        Self::Lookup(brief(words))
    }

    /// A claim that must not be.
    pub fn claim(claim: String, reason: String) -> Self {
        Self::Claim { claim: brief(&claim), reason: brief(&reason) }
    }

    /// Whether the agent may be as good as any: only the time is wrong.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::CannotReview(_) | Self::CannotLookUp(_))
    }

    /// How it counts.
    pub fn kind(&self) -> Reached {
        match self {
            Self::NoToken => Reached::NoToken,
            Self::SeveralTokens(_) | Self::NoBearer | Self::TooLong { .. } | Self::Lookup(_) => Reached::BadToken,
            Self::Claim { .. } => Reached::BadClaim,
            Self::CannotReview(_) | Self::CannotLookUp(_) => Reached::Unavailable,
        }
    }

    /// The code that a QUIC connection is closed with.
    pub fn connection_code(&self) -> ConnectionCode {
        match self {
            Self::Claim { .. } => ConnectionCode::BadHello,
            _ if self.is_temporary() => ConnectionCode::Unavailable,
            _ => ConnectionCode::Unauthorized,
        }
    }
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// How an RPC is refused. The reference's errors are no statuses of gRPC, which makes them `Unknown`.
impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::Claim { .. } => Code::PermissionDenied,
            _ if refusal.is_temporary() => Code::Unavailable,
            _ => Code::Unknown,
        };
        Self::new(code, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_words_and_codes() {
        use ConnectionCode::{BadHello, Unauthorized, Unavailable};
        let claim = Refusal::Claim { claim: "host \"b\"".into(), reason: "it is not of node \"a\"".into() };
        for (refusal, text, code, grpc, kind) in [
            (
                Refusal::NoToken,
                "Authentication context was not found in metadata",
                Unauthorized,
                Code::Unknown,
                Reached::NoToken,
            ),
            (
                Refusal::SeveralTokens(2),
                "too many (2) tokens are received",
                Unauthorized,
                Code::Unknown,
                Reached::BadToken,
            ),
            (
                Refusal::NoBearer,
                "received token does not have \"Bearer \" prefix",
                Unauthorized,
                Code::Unknown,
                Reached::BadToken,
            ),
            (
                Refusal::Lookup("service account jwt not valid".into()),
                "Failed to validate authentication token, err:lookup failed: service account jwt not valid",
                Unauthorized,
                Code::Unknown,
                Reached::BadToken,
            ),
            (
                Refusal::CannotReview("it is away".into()),
                "Failed to validate authentication token, err:Failed to authenticate request. err:cannot review tokens \
                 now: it is away",
                Unavailable,
                Code::Unavailable,
                Reached::Unavailable,
            ),
            (
                claim,
                "the agent must not claim host \"b\": it is not of node \"a\"",
                BadHello,
                Code::PermissionDenied,
                Reached::BadClaim,
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
            assert_eq!((refusal.connection_code(), refusal.kind()), (code, kind), "{refusal}");
            assert_eq!(Status::from(&refusal), Status::new(grpc, text));
        }
    }
}
