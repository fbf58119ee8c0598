//! Request heads: reading and parsing them, by the rules of Go's net/http.
//!
//! Go takes the request line apart more leniently than `httparse` does (an empty target is one), so that is done here;
//! the header fields are left to `httparse`. It refuses folded fields, which Go takes (RFC 9112, section 5.2, allows
//! both).

use std::{io, str, time::Duration};

use bytes::{Buf, BufMut, BytesMut};
use httparse::{EMPTY_HEADER, Status, parse_headers};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::{
    fields::{self, Body, Fields},
    target::{self, InvalidTarget},
};

/// Go's `DefaultMaxHeaderBytes`, and the slack that Go adds to it.
const MAX_HEAD_BYTES: usize = (1 << 20) + 4096;

/// How long a client may take over a head, counted from the connection or from the last reply on. The reference has
/// this as ReadHeaderTimeout.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The head that kube-apiserver sends has about 70 bytes.
const FIRST_READ_BYTES: usize = 256;

/// Go has no such limit. A field takes 32 bytes while the head is parsed.
const MAX_FIELDS: usize = 4096;

/// Bodies of refused requests that are read so that the connection can go on. Go reads 256 KiB.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// A request head and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it says.
    pub request: Request,
    /// Bytes that it takes up.
    pub bytes: usize,
}

/// What a request head says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A CONNECT. What follows the head is for the target, whatever the head says of a body.
    Connect {
        /// `host:port`, from the request target; from the Host field if the target has none.
        target: String,
    },
    /// Any other method.
    Other(OtherRequest),
}

/// A request that is not a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherRequest {
    /// Whether the method is HEAD, to which a reply has no body.
    pub is_head: bool,
    /// The version of HTTP to reply in.
    pub version: Version,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Length of the body to be skipped before that.
    pub body_bytes: u64,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and any later minor version.
    Http11,
}

/// Why a request is refused before its method matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is not HTTP.
    #[error("malformed request")]
    Malformed,
    /// HTTP/1.1 demands a Host field of all methods but CONNECT.
    #[error("the Host field is missing")]
    MissingHost,
    /// The Host field has bytes that no host has.
    #[error("malformed Host field")]
    MalformedHost,
    /// HTTP/2 and others.
    #[error("unsupported version of HTTP")]
    UnsupportedVersion,
    /// Something else than `chunked`.
    #[error("unsupported transfer encoding")]
    UnsupportedTransferEncoding,
    /// More than a mebibyte, or more than 4,096 fields.
    #[error("request head too large")]
    TooLarge,
}

impl From<InvalidTarget> for HeadError {
    fn from(_: InvalidTarget) -> Self {
        Self::Malformed
    }
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum ReadHeadError {
    /// There is one, to be refused.
    #[error(transparent)]
    Refused(#[from] HeadError),
    /// The client has closed the connection instead.
    #[error("the connection was closed")]
    Closed,
    /// The client has taken too long.
    #[error("no request within {} seconds", HEAD_TIMEOUT.as_secs())]
    TimedOut,
    /// The connection is broken.
    #[error("reading failed: {0}")]
    Failed(io::Error),
}

/// Reads a request head. `buffer` holds what has been read of it before, and what follows it afterwards.
///
/// # Errors
/// See [`ReadHeadError`].
///
/// # Cancel safety
/// What has been read is in `buffer`; another call goes on from there.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<Request, ReadHeadError> {
    let read = timeout(HEAD_TIMEOUT, read_unlimited(stream, buffer)).await;
    read.unwrap_or(Err(ReadHeadError::TimedOut))
}

async fn read_unlimited(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Request, ReadHeadError> {
    let mut seen = 0;
    loop {
        if worth_parsing(buffer, seen)
            && let Some(head) = parse(buffer)?
        {
            buffer.advance(head.bytes);
            return Ok(head.request);
        }
        seen = buffer.len();
        buffer.reserve(seen.max(FIRST_READ_BYTES));
        let mut room = (&mut *buffer).limit(MAX_HEAD_BYTES - seen);
        let read = stream.read_buf(&mut room).await;
        if read.map_err(ReadHeadError::Failed)? == 0 {
            if buffer.is_empty() {
                return Err(ReadHeadError::Closed);
            }
            parse(buffer)?;
            return Err(HeadError::Malformed.into());
        }
    }
}

/// Whether to parse, with everything up to `seen` looked at before. Parsing begins at the front each time, so it is
/// done when it must succeed or fail, and once before that, to refuse a bad request line early. Thus a client that
/// sends byte by byte costs no more than one that doesn't.
fn worth_parsing(bytes: &[u8], seen: usize) -> bool {
    let line_ends = |place: &usize| bytes[*place] == b'\n';
    let Some(first) = (seen..bytes.len()).find(line_ends) else {
        return bytes.len() >= MAX_HEAD_BYTES;
    };
    let is_request_line = !bytes[..first].contains(&b'\n');
    let ends_head = (first..bytes.len()).filter(line_ends).any(|place| {
        let before = &bytes[..place];
        before.ends_with(b"\n") || before.ends_with(b"\n\r")
    });
    is_request_line || ends_head || bytes.len() >= MAX_HEAD_BYTES
}

/// Parses a request head at the beginning of `bytes`. `None`: it goes on behind them.
///
/// # Errors
/// See [`HeadError`].
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let head = parse_within(&bytes[..bytes.len().min(MAX_HEAD_BYTES)])?;
    if head.is_none() && bytes.len() >= MAX_HEAD_BYTES {
        return Err(HeadError::TooLarge);
    }
    Ok(head)
}

fn parse_within(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let Some(line_end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return Ok(None);
    };
    let (line, rest) = bytes.split_at(line_end + 1);
    let line = RequestLine::parse(line)?;
    let authority = line.authority()?;
    let lines = rest.iter().filter(|&&byte| byte == b'\n').count();
    // One more for a field that isn't complete.
    let mut fields = vec![EMPTY_HEADER; lines.min(MAX_FIELDS) + 1];
    match parse_headers(rest, &mut fields) {
        Ok(Status::Partial) => Ok(None),
        Ok(Status::Complete((bytes, fields))) => {
            Ok(Some(Head { request: line.request(authority, &Fields(fields))?, bytes: line_end + 1 + bytes }))
        }
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(_) => Err(HeadError::Malformed),
    }
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    major: u8,
    minor: u8,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, HeadError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = str::from_utf8(line).map_err(|_| HeadError::Malformed)?;
        let (method, rest) = line.split_once(' ').ok_or(HeadError::Malformed)?;
        let (target, version) = rest.split_once(' ').ok_or(HeadError::Malformed)?;
        let &[b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = version.as_bytes() else {
            return Err(HeadError::Malformed);
        };
        if method.is_empty() || !method.bytes().all(is_token_byte) {
            return Err(HeadError::Malformed);
        }
        Ok(Self { method, target, major: major - b'0', minor: minor - b'0' })
    }

    fn is_connect(&self) -> bool {
        self.method == "CONNECT"
    }

    /// The start of HTTP/2 in clear text (RFC 9113, section 3.4). Go passes it to the handler.
    fn is_http2_preface(&self) -> bool {
        (self.method, self.target, self.major, self.minor) == ("PRI", "*", 2, 0)
    }

    fn at_least_1_1(&self) -> bool {
        (self.major, self.minor) >= (1, 1)
    }

    /// The `host:port` in the target, which may be empty. Other targets have none that matters.
    fn authority(&self) -> Result<String, InvalidTarget> {
        if self.is_connect() && !self.target.starts_with('/') {
            return target::authority(self.target);
        }
        target::check_other(self.target)?;
        Ok(String::new())
    }

    /// Checks are in Go's order, so that a request with several faults is told of the same one.
    fn request(&self, authority: String, fields: &Fields) -> Result<Request, HeadError> {
        let host = fields.host()?;
        let body = fields.body(self.at_least_1_1())?;
        if self.major != 1 && !self.is_http2_preface() {
            return Err(HeadError::UnsupportedVersion);
        }
        let needs_host = self.at_least_1_1() && !self.is_connect() && !self.is_http2_preface();
        if needs_host && host.is_none() {
            return Err(HeadError::MissingHost);
        }
        let host = fields::check_host(host.unwrap_or_default())?;
        if self.is_connect() {
            let target = match authority.as_str() {
                "" => host.to_owned(),
                _ => authority,
            };
            return Ok(Request::Connect { target });
        }
        Ok(Request::Other(self.other(body, fields)))
    }

    fn other(&self, body: Body, fields: &Fields) -> OtherRequest {
        let version = if self.at_least_1_1() { Version::Http11 } else { Version::Http10 };
        let wanted = match version {
            Version::Http10 => fields.has_token("connection", "keep-alive"),
            Version::Http11 => !self.is_http2_preface(),
        };
        let body_bytes = match body {
            Body::Bytes(1..) if fields.has_token("expect", "100-continue") => None,
            Body::Bytes(bytes @ ..=MAX_BODY_BYTES) => Some(bytes),
            Body::Bytes(_) | Body::Chunked => None,
        };
        let is_closed = !wanted || fields.has_token("connection", "close");
        OtherRequest {
            is_head: self.method == "HEAD",
            version,
            keep_alive: !is_closed && body_bytes.is_some(),
            body_bytes: body_bytes.unwrap_or(0),
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
