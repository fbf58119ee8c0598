//! What a client's header block says, within bounds, and whether it makes a request (RFC 9113, sections 8.2 and 8.3).

use std::fmt;

use super::{hpack::Field, table::ENTRY_OVERHEAD};

/// The largest list of fields that is kept, by the measure of SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113, section 6.5.2).
pub const MAX_LIST_BYTES: usize = 64 * 1024;

/// What a request has no two of, in the order of their bits in [`Fields::seen`].
const PSEUDO: [&[u8]; 4] = [b":method", b":scheme", b":path", b":authority"];
const REQUIRED: u8 = 0b111;

/// Fields of a connection have no place in HTTP/2 (RFC 9113, section 8.2.2). `connection` itself is left to the layer above:
/// gRPC has an answer to it.
const FORBIDDEN: [&[u8]; 4] = [b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// The fields of a block: of a request, or its trailers. All in one piece of memory, which is kept only as long as nobody
/// has to be refused.
#[derive(Default)]
pub struct Fields {
    /// Names and values, one behind the other.
    octets: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(u32, u32)>,
    list_bytes: usize,
    malformed: bool,
    /// Pseudo-headers by [`PSEUDO`]'s order.
    seen: u8,
    /// A field that is none of them has come.
    regular: bool,
}

/// A request that cannot be served: its stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Fields {
    /// The next field of the block. It is decoded to its end even if it is lost, for the sake of the table.
    pub fn put(&mut self, field: Field<'_>) {
        // Before the field is judged: a few octets can refer to a large one many times.
        self.list_bytes = self.list_bytes.saturating_add(field.name.len() + field.value.len() + ENTRY_OVERHEAD);
        let is_lost = self.malformed || self.is_too_large();
        self.malformed = self.malformed || (!is_lost && !self.is_good(field.name, field.value));
        if is_lost || self.malformed {
            (self.octets, self.ends) = (Vec::new(), Vec::new());
            return;
        }
        self.octets.extend_from_slice(field.name);
        let name = self.octets.len() as u32;
        self.octets.extend_from_slice(field.value);
        self.ends.push((name, self.octets.len() as u32));
    }

    /// Octets kept.
    pub fn kept_bytes(&self) -> usize {
        self.octets.len()
    }

    /// The request that the fields make.
    ///
    /// # Errors
    /// They make none.
    pub fn into_request(self) -> Result<Request, Malformed> {
        let request = Request(self);
        let fields = &request.0;
        let good = if fields.malformed {
            false
        } else if fields.is_too_large() {
            true
        } else if request.method() == b"CONNECT" {
            fields.seen & REQUIRED == 0b001
        } else {
            fields.seen & REQUIRED == REQUIRED && !request.path().is_empty()
        };
        good.then_some(request).ok_or(Malformed)
    }

    /// Whether they are trailers, of which nothing is kept.
    pub fn are_trailers(&self) -> bool {
        !self.malformed && !self.is_too_large() && self.seen == 0
    }

    fn is_too_large(&self) -> bool {
        self.list_bytes > MAX_LIST_BYTES
    }

    fn is_good(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name.first() == Some(&b':') {
            let Some(place) = PSEUDO.iter().position(|pseudo| *pseudo == name) else { return false };
            let bit = 1 << place;
            let again = self.seen & bit != 0;
            self.seen |= bit;
            let text = if name == b":authority" { is_value(value) } else { is_visible(value) };
            return !again && !self.regular && text;
        }
        self.regular = true;
        let allowed = !FORBIDDEN.contains(&name) && (name != b"te" || value == b"trailers");
        allowed && !name.is_empty() && name.iter().all(|&octet| is_name_octet(octet)) && is_value(value)
    }
}

/// A request, as the client sent it: nothing is decoded, and an `:authority` need not be one that a URI may have.
pub struct Request(Fields);

impl Request {
    /// Whether its fields were too many to be kept. There are none then.
    pub fn is_too_large(&self) -> bool {
        self.0.is_too_large()
    }

    /// `:method`.
    pub fn method(&self) -> &[u8] {
        self.field(b":method").unwrap_or_default()
    }

    /// `:path`; empty for a CONNECT.
    pub fn path(&self) -> &[u8] {
        self.field(b":path").unwrap_or_default()
    }

    /// The first value of a field, pseudo-headers included.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every value of a field, in their order.
    pub fn all(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.fields().filter(move |field| field.0 == name).map(|field| field.1)
    }

    /// Octets held.
    #[allow(dead_code, reason = "for tests and the fuzz target")]
    pub fn held(&self) -> usize {
        self.0.octets.capacity() + 8 * self.0.ends.capacity()
    }

    /// Names and values, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let Fields { octets, ends, .. } = &self.0;
        let mut start = 0;
        ends.iter().map(move |&(name, value)| {
            let (from, name, value) = (start, name as usize, value as usize);
            start = value;
            (&octets[from..name], &octets[name..value])
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |octets| String::from_utf8_lossy(octets).into_owned();
        f.debug_map().entries(self.fields().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// A token without upper case (RFC 9113, section 8.2.1).
fn is_name_octet(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&octet| octet == b'\t' || (octet >= b' ' && octet != 0x7f))
}

/// A method, a scheme or a path.
fn is_visible(value: &[u8]) -> bool {
    is_value(value) && std::str::from_utf8(value).is_ok()
}

#[cfg(test)]
mod tests;
