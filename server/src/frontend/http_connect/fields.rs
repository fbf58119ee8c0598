//! The header fields that matter in a request head.

use std::str;

use httparse::Header;

use super::head::HeadError;

/// Header fields, in the order of the request.
pub struct Fields<'a>(pub &'a [Header<'a>]);

/// What follows a request head and belongs to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// As many bytes; none if there is no body.
    Bytes(u64),
    /// RFC 9112, section 7.1.
    Chunked,
}

impl<'a> Fields<'a> {
    /// The value of the Host field.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] when there are several.
    pub fn host(&self) -> Result<Option<&'a [u8]>, HeadError> {
        let mut hosts = self.values("host");
        let host = hosts.next();
        match hosts.next() {
            None => Ok(host),
            Some(_) => Err(HeadError::Malformed),
        }
    }

    /// The length of the body (RFC 9112, section 6.3). As in Go, a transfer encoding goes before a length, and counts
    /// from HTTP/1.1 on.
    ///
    /// # Errors
    /// [`HeadError::UnsupportedTransferEncoding`], or [`HeadError::Malformed`] for a length that is none, and for
    /// several that differ.
    pub fn body(&self, at_least_1_1: bool) -> Result<Body, HeadError> {
        let mut encodings = self.values("transfer-encoding").filter(|_| at_least_1_1);
        let chunked = match (encodings.next(), encodings.next()) {
            (None, _) => false,
            (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => true,
            _ => return Err(HeadError::UnsupportedTransferEncoding),
        };
        let bytes = self.content_length()?;
        Ok(if chunked { Body::Chunked } else { Body::Bytes(bytes) })
    }

    fn content_length(&self) -> Result<u64, HeadError> {
        let mut lengths = self.values("content-length");
        let Some(length) = lengths.next() else {
            return Ok(0);
        };
        let differ = lengths.any(|other| other != length);
        if differ || !length.iter().all(u8::is_ascii_digit) {
            return Err(HeadError::Malformed);
        }
        // Go's lengths are signed.
        let parsed = str::from_utf8(length).ok().and_then(|length| length.parse::<i64>().ok());
        parsed.and_then(|length| length.try_into().ok()).ok_or(HeadError::Malformed)
    }

    /// Whether a field that is a list has an element, in whatever case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let mut elements = self.values(name).flat_map(|value| value.split(|&byte| byte == b','));
        elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    }
}

/// The Host field's value, which may only have bytes that a host and a port can have (Go's `ValidHostHeader`).
///
/// # Errors
/// [`HeadError::MalformedHost`].
pub fn check_host(host: &[u8]) -> Result<&str, HeadError> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;=[]'_~".contains(byte);
    if !host.iter().all(allowed) {
        return Err(HeadError::MalformedHost);
    }
    str::from_utf8(host).map_err(|_| HeadError::MalformedHost)
}
