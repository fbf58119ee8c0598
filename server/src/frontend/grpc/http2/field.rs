//! Header fields as the HTTP/2 library takes them: it is given no compression, and no field that it would end the whole
//! connection for.

use std::str;

use http::{Method, uri::Authority};

use super::hpack::Field;

/// What stands in for an `:authority` that has no host, or none that a URI may have. Clients of a Unix socket send its
/// path there, in percent-encoding.
pub const LOCALHOST: &[u8] = b"localhost";

/// The `:path` of a request whose headers were too large to be kept. The RPC layer owes it RESOURCE_EXHAUSTED.
pub const TOO_LARGE_PATH: &str = "/header-list-too-large";

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on as it is.
    Keep,
    /// Its value becomes [`LOCALHOST`].
    Localhost,
    /// It makes its request malformed (RFC 9113, section 8.1.1): the stream is reset, the connection goes on.
    Malformed,
}

/// Decides about one field of a request or of its trailers.
pub fn judge(name: &[u8], value: &[u8]) -> Verdict {
    let good = match name {
        b":authority" if Authority::try_from(value).is_ok() => true,
        b":authority" if is_value(value) => return Verdict::Localhost,
        b":method" => Method::from_bytes(value).is_ok(),
        b":scheme" | b":path" | b":protocol" => is_value(value) && str::from_utf8(value).is_ok(),
        _ => !name.is_empty() && name.iter().all(|&octet| is_name_octet(octet)) && is_value(value),
    };
    if good { Verdict::Keep } else { Verdict::Malformed }
}

/// Appends a field as a literal that is not indexed and not compressed (RFC 7541, sections 6.2.2 and 6.2.3).
pub fn put_field(out: &mut Vec<u8>, field: Field<'_>) {
    out.push(if field.never_indexed { 0x10 } else { 0 });
    put_string(out, field.name);
    put_string(out, field.value);
}

/// Appends a request that the RPC layer refuses by its path.
pub fn put_too_large(out: &mut Vec<u8>) {
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", LOCALHOST),
        (b":path", TOO_LARGE_PATH.as_bytes()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ];
    for (name, value) in fields {
        put_field(out, Field { name, value, never_indexed: false });
    }
}

/// Appends a field that makes any request or trailers malformed, and only them (RFC 9113, section 8.2.2).
pub fn put_malformed(out: &mut Vec<u8>) {
    put_field(out, Field { name: b"connection", value: b"close", never_indexed: false });
}

fn put_string(out: &mut Vec<u8>, octets: &[u8]) {
    const PREFIX: usize = 0x7f;
    match octets.len().checked_sub(PREFIX) {
        None => out.push(octets.len() as u8),
        Some(mut rest) => {
            out.push(PREFIX as u8);
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(octets);
}

/// A token without upper case (RFC 9113, section 8.2.1).
fn is_name_octet(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&octet| octet == b'\t' || (octet >= b' ' && octet != 0x7f))
}

#[cfg(test)]
mod tests;
