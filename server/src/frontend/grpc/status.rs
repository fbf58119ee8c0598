//! How an RPC ends: the code and text that gRPC puts into trailers, with the reference's library's words.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HOST},
    request::Parts,
};
use konnectivity_transport::packet::message::DecodeError;

/// The content type of every answer.
const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

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
    /// A message is too large.
    ResourceExhausted = 8,
    /// No such service, method or compression.
    Unimplemented = 12,
    /// A request or message that breaks the rules.
    Internal = 13,
    /// The server stops.
    Unavailable = 14,
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
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        self.write(&mut trailers);
        trailers
    }

    /// An answer that consists of this status alone. To be sent with the end of the stream.
    pub fn refusal(&self) -> Response<()> {
        self.refusal_with(StatusCode::OK)
    }

    fn refusal_with(&self, status: StatusCode) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, CONTENT);
        self.write(response.headers_mut());
        response
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(self.code.number())));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::try_from(percent_encode(&self.message))
        {
            headers.insert(GRPC_MESSAGE, message);
        }
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
pub fn accepted() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    response
}

/// Whether a request is one for `ProxyService/Proxy`; if not, the answer to it, in the reference's order of checks.
///
/// # Errors
/// The whole answer, to be sent with the end of the stream.
pub fn check(request: &Parts) -> Result<(), Box<Response<()>>> {
    check_for(request, &CLIENT_SERVICE)
}

/// The same for a port with another service.
///
/// # Errors
/// The whole answer, to be sent with the end of the stream.
pub fn check_for(request: &Parts, service: &Service) -> Result<(), Box<Response<()>>> {
    refusal_of(request, service).map_or(Ok(()), |(status, http)| Err(Box::new(status.refusal_with(http))))
}

fn refusal_of(request: &Parts, of_port: &Service) -> Option<(Status, StatusCode)> {
    let headers = &request.headers;
    // A second `:authority` never comes as far as this: HTTP/2 refuses it.
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 {
        let authorities = usize::from(request.uri.authority().is_some());
        let message = format!(
            "num values of :authority: {authorities}, num values of host: {hosts}, \
             both must only have 1 value as per HTTP/2 spec"
        );
        return Some((Status::new(Code::Internal, message), StatusCode::BAD_REQUEST));
    }
    if headers.contains_key(CONNECTION) {
        let message = "a request over HTTP/2 must not have the field `connection`";
        return Some((Status::new(Code::Internal, message), StatusCode::BAD_REQUEST));
    }
    let content = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !is_grpc(content) {
        let message = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content));
        return Some((Status::new(Code::InvalidArgument, message), StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if request.method != Method::POST {
        let message =
            format!("Received a HEADERS frame with :method {:?} which should be POST", request.method.as_str());
        return Some((Status::new(Code::Internal, message), StatusCode::METHOD_NOT_ALLOWED));
    }
    let path = request.uri.path_and_query().map_or("", |path| path.as_str());
    let status = unknown_path(path, of_port).or_else(|| unknown_encoding(headers))?;
    Some((status, StatusCode::OK))
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
fn unknown_encoding(headers: &HeaderMap) -> Option<Status> {
    let encoding = headers.get("grpc-encoding")?.as_bytes();
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
