//! How an RPC ends: the code and text that gRPC puts into trailers, with the reference's library's words.

use konnectivity_transport::packet::message::DecodeError;

use crate::http2::{answer::Answer, request::Request};

/// The content type of every answer.
const CONTENT: &str = "application/grpc";

/// The status of HTTP of every answer that is one of gRPC.
const OK: u16 = 200;

/// The one service of a port, and its one method.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    name: &'static str,
    method: &'static str,
}

/// What clients call.
pub const CLIENT_SERVICE: Service = Service { name: "ProxyService", method: "Proxy" };
/// What agents call.
pub const AGENT_SERVICE: Service = Service { name: "AgentService", method: "Connect" };

/// gRPC's status codes, those that this server gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The end that was wished for.
    Ok = 0,
    /// An error of the reference that is no status of gRPC.
    Unknown = 2,
    /// Not a gRPC request.
    InvalidArgument = 3,
    /// The agent says of itself what it must not.
    PermissionDenied = 7,
    /// A message is too large.
    ResourceExhausted = 8,
    /// No such service, method or compression.
    Unimplemented = 12,
    /// A request or message that breaks the rules.
    Internal = 13,
    /// The server stops, or cannot look at an agent now.
    Unavailable = 14,
    /// The agent's token has come to its end.
    Unauthenticated = 16,
}

impl Code {
    /// Its number in `grpc-status`.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// How an RPC ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What kind of end it is.
    pub code: Code,
    /// For people; empty for none.
    pub message: String,
}

impl Status {
    /// The end that was wished for.
    pub fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    /// An end of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What ends a stream, behind its packets.
    pub fn trailers(&self) -> Answer {
        self.write(Answer::default())
    }

    /// An answer that consists of this status alone. To be sent with the end of the stream.
    pub fn refusal(&self) -> Answer {
        self.refusal_with(OK)
    }

    fn refusal_with(&self, status: u16) -> Answer {
        self.write(Answer::with_status(status).and("content-type", CONTENT))
    }

    fn write(&self, answer: Answer) -> Answer {
        let answer = answer.and("grpc-status", &self.code.number().to_string());
        if self.message.is_empty() { answer } else { answer.and("grpc-message", &percent_encode(&self.message)) }
    }
}

/// What the reference's library answers to a message that is none.
impl From<&DecodeError> for Status {
    fn from(error: &DecodeError) -> Self {
        let code = match error {
            DecodeError::TooLarge { .. } | DecodeError::TooLargeToGather { .. } => Code::ResourceExhausted,
            DecodeError::Compressed | DecodeError::UnknownFormat { .. } | DecodeError::Malformed(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// The head of every answer that is no refusal; to be sent before the first packet.
pub fn accepted() -> Answer {
    Answer::with_status(OK).and("content-type", CONTENT)
}

/// Whether a request is one for `ProxyService/Proxy`; if not, the answer to it, in the reference's order of checks.
///
/// # Errors
/// The whole answer, to be sent with the end of the stream.
pub fn check(request: &Request) -> Result<(), Answer> {
    check_for(request, &CLIENT_SERVICE)
}

/// The same for a port with another service.
///
/// # Errors
/// The whole answer, to be sent with the end of the stream.
pub fn check_for(request: &Request, service: &Service) -> Result<(), Answer> {
    refusal_of(request, service).map_or(Ok(()), |(status, http)| Err(status.refusal_with(http)))
}

fn refusal_of(request: &Request, of_port: &Service) -> Option<(Status, u16)> {
    if request.is_too_large() {
        return Some((Status::new(Code::ResourceExhausted, "the request's headers are too large"), OK));
    }
    // A second `:authority` never comes as far as this: HTTP/2 refuses it.
    let hosts = request.all(b"host").count();
    if hosts > 1 {
        let authorities = request.all(b":authority").count();
        let message = format!(
            "num values of :authority: {authorities}, num values of host: {hosts}, \
             both must only have 1 value as per HTTP/2 spec"
        );
        return Some((Status::new(Code::Internal, message), 400));
    }
    if request.field(b"connection").is_some() {
        let message = "a request over HTTP/2 must not have the field `connection`";
        return Some((Status::new(Code::Internal, message), 400));
    }
    let content = request.field(b"content-type").unwrap_or_default();
    if !is_grpc(content) {
        let message = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content));
        return Some((Status::new(Code::InvalidArgument, message), 415));
    }
    if request.method() != b"POST" {
        let method = String::from_utf8_lossy(request.method());
        let message = format!("Received a HEADERS frame with :method {method:?} which should be POST");
        return Some((Status::new(Code::Internal, message), 405));
    }
    let path = String::from_utf8_lossy(request.path());
    let status = unknown_path(&path, of_port).or_else(|| unknown_encoding(request))?;
    Some((status, OK))
}

/// `application/grpc`, alone or with a subtype or parameters.
fn is_grpc(content: &[u8]) -> bool {
    content.strip_prefix(CONTENT.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn unknown_path(path: &str, of_port: &Service) -> Option<Status> {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Some(Status::new(Code::Unimplemented, format!("malformed method name: {path:?}")));
    };
    let message = match service == of_port.name {
        true if method == of_port.method => return None,
        true => format!("unknown method {method} for service {service}"),
        false => format!("unknown service {service}"),
    };
    Some(Status::new(Code::Unimplemented, message))
}

/// Nothing is decompressed here, nor by the reference.
fn unknown_encoding(request: &Request) -> Option<Status> {
    let encoding = request.field(b"grpc-encoding")?;
    if encoding.is_empty() || encoding == b"identity" {
        return None;
    }
    let encoding = String::from_utf8_lossy(encoding);
    Some(Status::new(
        Code::Unimplemented,
        format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}"),
    ))
}

/// As gRPC over HTTP/2 wants it: printable ASCII stays, except `%`.
fn percent_encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
