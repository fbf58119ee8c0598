//! Why the API did not do what it was asked to.

use std::{error::Error, iter::successors, time::Duration};

use kube::core::Status;
use serde_json::error::Category;

use crate::{bounded::ChangeTooLong, right::Right, source::SourceError};

/// Characters of a text from the API that are told: what is behind a proxy may answer with a page.
const MOST_CHARACTERS: usize = 300;

/// Why a request failed. Each text says what was asked for, and what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody knows where the API is, or the files for it cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The credentials cannot be had: a plug-in has failed, or a file cannot be read.
    #[error("cannot use the credentials for the Kubernetes API ({origin}): {reason}")]
    Credentials {
        /// The file that names them.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// It was not its turn in time.
    #[error("too many requests to the Kubernetes API wait to {right}; raise --kubeconfig-qps and --kubeconfig-burst")]
    Busy {
        /// What was asked for.
        right: Right,
    },
    /// No answer in time.
    #[error("the Kubernetes API ({origin}) has not answered within {}s (asked to {right})", .limit.as_secs())]
    Timeout {
        /// The file that says where the API is.
        origin: String,
        /// What was asked for.
        right: Right,
        /// How long was waited.
        limit: Duration,
    },
    /// No connection, or one that was lost.
    #[error("the Kubernetes API ({origin}) cannot be reached to {right}: {reason}")]
    Unreachable {
        /// The file that says where the API is.
        origin: String,
        /// What was asked for.
        right: Right,
        /// What the libraries say.
        reason: String,
    },
    /// The API does not know who asks.
    #[error("the Kubernetes API does not accept the credentials of {origin}: {message}; renew them")]
    Unauthorized {
        /// The file that names them.
        origin: String,
        /// What the API says.
        message: String,
    },
    /// Whoever asks must not.
    #[error(
        "the Kubernetes API does not let the user of {origin} {right}: {message}; grant it with a role (verb and resource are {right})"
    )]
    Forbidden {
        /// The file that names the user.
        origin: String,
        /// What is missing.
        right: Right,
        /// What the API says.
        message: String,
    },
    /// Any other refusal.
    #[error("the Kubernetes API ({origin}) refuses to {right}: HTTP {code} {reason}: {message}")]
    Refused {
        /// The file that says where the API is.
        origin: Box<str>,
        /// What was asked for.
        right: Right,
        /// The HTTP status.
        code: u16,
        /// The API's word for it, such as `NotFound`; may be empty.
        reason: Box<str>,
        /// What it says.
        message: Box<str>,
    },
    /// An answer that is not what it should be.
    #[error("the answer of the Kubernetes API ({origin}) to {right} cannot be understood: {reason}")]
    Malformed {
        /// The file that says where the API is.
        origin: Box<str>,
        /// What was asked for.
        right: Right,
        /// What is wrong with it.
        reason: String,
    },
}

impl ApiError {
    /// What the library's error means.
    pub(crate) fn new(error: kube::Error, right: Right, origin: &str) -> Self {
        let origin = origin.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_status(&status, right, origin),
            kube::Error::Auth(error) => Self::Credentials { origin, reason: chain(&error) },
            kube::Error::Service(error) if error.is::<kube::client::AuthError>() => {
                Self::Credentials { origin, reason: chain(&*error) }
            }
            kube::Error::Service(error) if error.is::<http_body_util::LengthLimitError>() => {
                Self::Malformed { origin: origin.into(), right, reason: "it is too long".into() }
            }
            kube::Error::Service(error) => Self::Unreachable { origin, right, reason: chain(&*error) },
            kube::Error::HyperError(error) => Self::Unreachable { origin, right, reason: chain(&error) },
            kube::Error::ReadEvents(error) if has::<ChangeTooLong>(&error) => {
                Self::Malformed { origin: origin.into(), right, reason: ChangeTooLong.to_string() }
            }
            kube::Error::ReadEvents(error) => Self::Unreachable { origin, right, reason: chain(&error) },
            kube::Error::FromUtf8(_) => {
                Self::Malformed { origin: origin.into(), right, reason: "it is not UTF-8".into() }
            }
            kube::Error::SerdeError(error) => {
                Self::Malformed { origin: origin.into(), right, reason: where_in_json(&error) }
            }
            error => Self::Credentials { origin, reason: chain(&error) },
        }
    }

    fn of_status(status: &Status, right: Right, origin: String) -> Self {
        let message = brief(&status.message);
        match status.code {
            401 => Self::Unauthorized { origin, message },
            403 => Self::Forbidden { origin, right, message },
            code => {
                let (reason, message) = (brief(&status.reason).into(), message.into());
                Self::Refused { origin: origin.into(), right, code, reason, message }
            }
        }
    }

    /// The HTTP status of a refusal; 0 when there was no answer.
    pub fn code(&self) -> u16 {
        match self {
            Self::Unauthorized { .. } => 401,
            Self::Forbidden { .. } => 403,
            Self::Refused { code, .. } => *code,
            _ => 0,
        }
    }

    /// The API's word for a refusal, such as `NotFound`; empty when it has said none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Forbidden { .. } => "Forbidden",
            Self::Refused { reason, .. } => reason,
            _ => "",
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// Somebody else has changed or created the object.
    pub fn is_conflict(&self) -> bool {
        self.code() == 409
    }

    /// The version from which changes are asked for is too old: list anew.
    pub fn is_expired(&self) -> bool {
        self.code() == 410
    }
}

/// What is wrong with JSON, and where. The library's own text quotes what it did not expect, which may be a secret.
fn where_in_json(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Io => "cannot be read",
        Category::Syntax => "is no JSON",
        Category::Data => "is JSON of another kind",
        Category::Eof => "is only the beginning of JSON",
    };
    format!("it {what} (line {}, column {})", error.line(), error.column())
}

/// Whether the error, or one that it comes from, is of this kind.
fn has<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source()).any(|error| error.is::<E>())
}

/// At most a few lines of a text.
fn brief(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The error and its sources, without those whose text is part of the one before: the libraries here repeat them.
fn chain(error: &(dyn Error + 'static)) -> String {
    let text = successors(Some(error as &dyn Error), |&error| error.source()).fold(String::new(), |text, error| {
        let more = error.to_string();
        match (text.is_empty(), text.contains(&more)) {
            (true, _) => more,
            (false, true) => text,
            (false, false) => format!("{text}: {more}"),
        }
    });
    brief(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVIEW: Right = Right::cluster("create", "tokenreviews", "authentication.k8s.io");

    fn of(code: u16, reason: &str, message: &str) -> ApiError {
        let status = Status::failure(message, reason).with_code(code);
        ApiError::new(kube::Error::Api(Box::new(status)), REVIEW, "/etc/kubeconfig")
    }

    #[test]
    fn a_missing_right_is_named_with_the_file_and_the_group() {
        let error = of(403, "Forbidden", "no");
        let text = error.to_string();
        assert!(text.contains("create tokenreviews.authentication.k8s.io"), "{text}");
        assert!(text.contains("/etc/kubeconfig"), "{text}");
        assert_eq!((error.code(), error.reason()), (403, "Forbidden"));
    }

    #[test]
    fn refusals_are_told_apart() {
        assert!(of(401, "Unauthorized", "no").to_string().contains("renew"));
        assert!(of(404, "NotFound", "no").is_not_found());
        assert!(of(409, "Conflict", "no").is_conflict());
        assert!(of(410, "Expired", "no").is_expired());
        let error = of(500, "InternalError", "etcd is away");
        assert_eq!((error.code(), error.reason()), (500, "InternalError"));
        assert!(
            error.to_string().contains("(/etc/kubeconfig) refuses to") && error.to_string().contains("etcd is away")
        );
    }

    #[test]
    fn a_page_instead_of_a_reason_is_cut() {
        let text = of(502, "", &"ä".repeat(100_000)).to_string();
        assert!(text.chars().count() < MOST_CHARACTERS + 150, "{}", text.len());
    }

    #[test]
    fn what_is_no_answer_is_not_quoted() {
        for (answer, words) in [
            (r#"{"spec": "s3cret"}"#, "it is JSON of another kind (line 1, column 17)"),
            ("s3cret", "it is no JSON (line 1, column 1)"),
            ("{\n", "it is only the beginning of JSON (line 2, column 0)"),
        ] {
            let error = serde_json::from_str::<k8s_openapi::api::authentication::v1::TokenReview>(answer).unwrap_err();
            let text = ApiError::new(kube::Error::SerdeError(error), REVIEW, "/etc/kubeconfig").to_string();
            assert!(text.contains(words) && text.contains("/etc/kubeconfig") && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn sources_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("inner"))), "outer: inner");
        assert_eq!(chain(&Outer(std::io::Error::other("else"))), "outer: inner: else");
    }
}
