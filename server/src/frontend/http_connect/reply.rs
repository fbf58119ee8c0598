//! Every reply to a client, to the byte as the reference has it.

use std::time::SystemTime;

use super::head::{HeadError, OtherRequest, Version};

/// The target is connected. Nothing may come with it: kube-apiserver fails if there are bytes behind it when it reads.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// No backend can take the dial.
pub const NO_AGENT: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n\
    currently no tunnels available: No agent available";

/// The agent did not take the dial in time.
pub const SEND_TIMED_OUT: &[u8] = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
    Failed to tunnel dial request: timed out waiting for backend dial\r\n";

/// The agent did not answer the dial in time.
pub const DIAL_TIMED_OUT: &[u8] = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
    Backend dial timeout: timed out waiting for backend dial\r\n";

/// A client sent HTTP to the port where TLS is spoken. Without TLS, as the client can't read it otherwise.
pub const PLAIN_HTTP_ON_TLS_PORT: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

const NOT_CONNECT: &str = "this proxy only supports CONNECT passthrough\n";

/// The dial could not be given to the agent.
pub fn send_failed(error: &str) -> Vec<u8> {
    bad_gateway("Failed to tunnel dial request", error)
}

/// The agent was lost with the dial unanswered.
pub fn agent_lost(error: &str) -> Vec<u8> {
    bad_gateway("Backend context error", error)
}

fn bad_gateway(what: &str, error: &str) -> Vec<u8> {
    format!("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{what}: {error}\r\n")
        .into_bytes()
}

/// The agent could not connect to the target, for the reason that it gives.
pub fn dial_error(text: &str) -> Vec<u8> {
    let status = match dial_error_status(text) {
        504 => "504 Gateway Timeout",
        503 => "503 Service Unavailable",
        _ => "502 Bad Gateway",
    };
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}")
        .into_bytes()
}

/// The reference's table, which looks for words in the text: the first row with a match decides.
fn dial_error_status(text: &str) -> u16 {
    /// Whatever else is in the text, refusals and failures to find the target among it, is 502.
    const STATUSES: [(&str, u16); 3] = [("deadline exceeded", 504), ("timeout", 504), ("too many open files", 503)];
    let text = text.to_lowercase();
    let row = STATUSES.iter().find(|(words, _)| text.contains(words));
    row.map_or(502, |&(_, status)| status)
}

/// The method is not CONNECT.
pub fn method_not_allowed(request: &OtherRequest, now: SystemTime) -> Vec<u8> {
    let (version, connection) = match (request.version, request.keep_alive) {
        (Version::Http10, true) => ("1.0", "Connection: keep-alive\r\n"),
        (Version::Http10, false) => ("1.0", ""),
        (Version::Http11, true) => ("1.1", ""),
        (Version::Http11, false) => ("1.1", "Connection: close\r\n"),
    };
    let date = httpdate::fmt_http_date(now);
    let length = NOT_CONNECT.len();
    let body = if request.is_head { "" } else { NOT_CONNECT };
    format!(
        "HTTP/{version} 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n\
         X-Content-Type-Options: nosniff\r\nDate: {date}\r\nContent-Length: {length}\r\n{connection}\r\n{body}"
    )
    .into_bytes()
}

/// There is no request to speak of.
pub fn head_error(error: HeadError) -> &'static [u8] {
    /// Go has the same headers for all of these, and repeats the status in the body of most.
    macro_rules! refusal {
        ($status:literal, $body:literal) => {
            concat!(
                "HTTP/1.1 ",
                $status,
                "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
                $body
            )
            .as_bytes()
        };
        ($status:literal) => {
            refusal!($status, $status)
        };
    }
    match error {
        HeadError::Malformed => refusal!("400 Bad Request"),
        HeadError::MissingHost => refusal!("400 Bad Request: missing required Host header"),
        HeadError::MalformedHost => refusal!("400 Bad Request: malformed Host header"),
        HeadError::UnsupportedVersion => {
            refusal!("505 HTTP Version Not Supported: unsupported protocol version")
        }
        HeadError::UnsupportedTransferEncoding => {
            refusal!("501 Not Implemented", "Unsupported transfer encoding")
        }
        HeadError::TooLarge => refusal!("431 Request Header Fields Too Large"),
    }
}

#[cfg(test)]
mod tests;
