//! Why a target could not be connected: the kind that the wire carries, and the text a Go agent would have given.

use std::io;

use konnectivity_transport::wire::message::DialErrorKind;
use nix::errno::Errno;

use super::{errno, lookup::LookupError};

/// Why there is no connection to the target. `text` is Go's, because the HTTP status and users' tests match on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TargetError {
    /// The kind to send; never `Connected`.
    pub kind: DialErrorKind,
    /// Go's text, for instance `dial tcp 127.0.0.1:1: connect: connection refused`.
    pub text: String,
}

impl TargetError {
    pub(super) fn malformed(why: &str) -> Self {
        Self::new(DialErrorKind::Malformed, format!("dial tcp: {why}"))
    }

    pub(super) fn lookup(name: &str, error: &LookupError) -> Self {
        let (kind, server, why) = match error {
            LookupError::NotFound { server } => (DialErrorKind::NameNotFound, server, "no such host"),
            LookupError::Misbehaving { server } => (DialErrorKind::Other, server, "server misbehaving"),
            LookupError::System { kind, text } => (*kind, &None, text.as_str()),
        };
        let on = match server {
            Some(server) => format!(" on {server}"),
            None => String::new(),
        };
        Self::new(kind, format!("dial tcp: lookup {name}{on}: {why}"))
    }

    pub(super) fn lookup_timed_out(name: &str) -> Self {
        Self::new(DialErrorKind::TimedOut, format!("dial tcp: lookup {name}: i/o timeout"))
    }

    /// The resolver said yes and named nothing.
    pub(super) fn no_address(address: &str) -> Self {
        Self::new(DialErrorKind::NameNotFound, format!("dial tcp: address {address}: no suitable address found"))
    }

    /// `address` as Go prints it.
    pub(super) fn attempt(address: &str, error: &AttemptError) -> Self {
        let (kind, what) = match error {
            AttemptError::TimedOut => (DialErrorKind::TimedOut, "i/o timeout".to_owned()),
            AttemptError::Socket(error) => (kind(error), format!("socket: {}", errno::text(error))),
            AttemptError::Connect(error) => (kind(error), format!("connect: {}", errno::text(error))),
        };
        Self::new(kind, format!("dial tcp {address}: {what}"))
    }

    fn new(kind: DialErrorKind, text: String) -> Self {
        Self { kind, text }
    }
}

/// Why one address did not connect. Go names the system call in its text.
#[derive(Debug)]
pub(super) enum AttemptError {
    TimedOut,
    Socket(io::Error),
    Connect(io::Error),
}

/// Whose fault an I/O error is, for the wire.
pub(super) fn kind(error: &io::Error) -> DialErrorKind {
    match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        Errno::ECONNREFUSED => DialErrorKind::Refused,
        Errno::ETIMEDOUT => DialErrorKind::TimedOut,
        Errno::ENETUNREACH
        | Errno::EHOSTUNREACH
        | Errno::ENETDOWN
        | Errno::EHOSTDOWN
        // A kernel without IPv6 has no route to IPv6 targets.
        | Errno::EAFNOSUPPORT => DialErrorKind::Unreachable,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN | Errno::EADDRNOTAVAIL => {
            DialErrorKind::NoResources
        }
        _ => DialErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno as i32)
    }

    #[test]
    fn errors_of_the_system_have_gos_text_and_a_kind() {
        use DialErrorKind::*;
        for (errno, kind, text) in [
            (Errno::ECONNREFUSED, Refused, "dial tcp [::1]:1: connect: connection refused"),
            (Errno::ETIMEDOUT, TimedOut, "dial tcp [::1]:1: connect: connection timed out"),
            (Errno::ENETUNREACH, Unreachable, "dial tcp [::1]:1: connect: network is unreachable"),
            (Errno::EHOSTUNREACH, Unreachable, "dial tcp [::1]:1: connect: no route to host"),
            (Errno::EACCES, Other, "dial tcp [::1]:1: connect: permission denied"),
            (Errno::EADDRNOTAVAIL, NoResources, "dial tcp [::1]:1: connect: cannot assign requested address"),
        ] {
            let error = TargetError::attempt("[::1]:1", &AttemptError::Connect(os(errno)));
            assert_eq!(error, TargetError::new(kind, text.to_owned()));
        }
        for (errno, kind, text) in [
            (Errno::EMFILE, NoResources, "dial tcp 10.0.0.1:80: socket: too many open files"),
            (
                Errno::EAFNOSUPPORT,
                Unreachable,
                "dial tcp 10.0.0.1:80: socket: address family not supported by protocol",
            ),
        ] {
            let error = TargetError::attempt("10.0.0.1:80", &AttemptError::Socket(os(errno)));
            assert_eq!(error, TargetError::new(kind, text.to_owned()));
        }
    }

    #[test]
    fn time_outs_have_gos_text() {
        let error = TargetError::attempt("10.0.0.1:80", &AttemptError::TimedOut);
        assert_eq!(error.text, "dial tcp 10.0.0.1:80: i/o timeout");
        assert_eq!(error.kind, DialErrorKind::TimedOut);
        let error = TargetError::lookup_timed_out("kubelet.example");
        assert_eq!(error.text, "dial tcp: lookup kubelet.example: i/o timeout");
        assert_eq!(error.kind, DialErrorKind::TimedOut);
    }

    #[test]
    fn failed_lookups_name_the_server_when_it_is_known() {
        let server = Some("10.0.0.10:53".to_owned());
        let text = |error: LookupError| TargetError::lookup("kubelet.example", &error).text;
        assert_eq!(
            text(LookupError::NotFound { server: server.clone() }),
            "dial tcp: lookup kubelet.example on 10.0.0.10:53: no such host"
        );
        assert_eq!(text(LookupError::NotFound { server: None }), "dial tcp: lookup kubelet.example: no such host");
        assert_eq!(
            text(LookupError::Misbehaving { server }),
            "dial tcp: lookup kubelet.example on 10.0.0.10:53: server misbehaving"
        );
    }
}
