//! What Go calls the operating system's errors. Taken from a table instead of the C library, whose words differ
//! (musl: "No file descriptors available") and depend on the locale.

use std::io;

use nix::errno::Errno;

/// Go's text of an I/O error: the Linux kernel's description, without capital and number.
pub(super) fn text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => without_capital(description(Errno::from_raw(code))),
        None => without_capital(&error.to_string()),
    }
}

fn description(errno: Errno) -> &'static str {
    // Where nix's table does not have the words of Go's (`syscall/zerrors_linux_amd64.go`).
    match errno {
        Errno::EAGAIN => "resource temporarily unavailable",
        Errno::ENFILE => "too many open files in system",
        Errno::ENOMEM => "cannot allocate memory",
        other => other.desc(),
    }
}

/// "Connection refused" loses its capital, "RFS specific error" does not.
fn without_capital(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every error that `socket(2)` and `connect(2)` are documented to give for TCP, in Go's words.
    #[test]
    fn errors_of_connecting_are_in_gos_words() {
        for (errno, expected) in [
            (Errno::EACCES, "permission denied"),
            (Errno::EADDRINUSE, "address already in use"),
            (Errno::EADDRNOTAVAIL, "cannot assign requested address"),
            (Errno::EAFNOSUPPORT, "address family not supported by protocol"),
            (Errno::EAGAIN, "resource temporarily unavailable"),
            (Errno::ECONNREFUSED, "connection refused"),
            (Errno::ECONNRESET, "connection reset by peer"),
            (Errno::EHOSTDOWN, "host is down"),
            (Errno::EHOSTUNREACH, "no route to host"),
            (Errno::EINVAL, "invalid argument"),
            (Errno::EMFILE, "too many open files"),
            (Errno::ENETDOWN, "network is down"),
            (Errno::ENETUNREACH, "network is unreachable"),
            (Errno::ENFILE, "too many open files in system"),
            (Errno::ENOBUFS, "no buffer space available"),
            (Errno::ENOMEM, "cannot allocate memory"),
            (Errno::EPERM, "operation not permitted"),
            (Errno::ETIMEDOUT, "connection timed out"),
        ] {
            assert_eq!(text(&io::Error::from_raw_os_error(errno as i32)), expected);
        }
    }

    #[test]
    fn words_in_capitals_keep_them() {
        assert_eq!(without_capital("RFS specific error"), "RFS specific error");
        assert_eq!(without_capital("Ä b"), "ä b");
        assert_eq!(without_capital(""), "");
    }
}
