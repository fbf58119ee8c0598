//! gRPC's status: how a server ends an RPC, or refuses it.

use std::fmt;

use http::HeaderMap;
use konnectivity_process::percent;

/// gRPC's codes by their number, as Go prints them and metrics name them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Bytes of a server's message that are kept.
const MAX_MESSAGE_BYTES: usize = 1024;

/// A code and what the server says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code's name. One that gRPC does not have counts as `Unknown`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Status {
    /// The status in trailers, or in headers that are the whole answer. `None`: there is none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let number = headers.get("grpc-status")?;
        let number = number.to_str().ok().and_then(|number| number.parse::<usize>().ok());
        let code = number.and_then(|number| CODES.get(number)).unwrap_or(&"Unknown");
        let message = headers.get("grpc-message").map_or(&[][..], |message| message.as_bytes());
        let message = percent::decoded(&message[..message.len().min(MAX_MESSAGE_BYTES)]);
        Some(Self { code, message: String::from_utf8_lossy(&message).into_owned() })
    }

    /// The end that was wished for.
    pub fn is_ok(&self) -> bool {
        self.code == CODES[0]
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn status(number: &'static str, message: &'static str) -> Option<Status> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static(number));
        headers.insert("grpc-message", HeaderValue::from_static(message));
        Status::of(&headers)
    }

    #[test]
    fn a_status_is_code_and_message() {
        assert_eq!(Status::of(&HeaderMap::new()), None);
        for (number, message, shown) in [
            ("0", "", "OK"),
            ("2", "expected one agent ID, got 2", "Unknown: expected one agent ID, got 2"),
            ("16", "a%20b%0A%E2%82%AC%25%zz%4", "Unauthenticated: a b\n€%%zz%4"),
            ("17", "", "Unknown"),
            ("none", "x", "Unknown: x"),
        ] {
            assert_eq!(status(number, message).unwrap().to_string(), shown);
        }
        assert!(status("0", "").unwrap().is_ok() && !status("1", "").unwrap().is_ok());
    }
}
