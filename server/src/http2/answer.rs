//! Header blocks on their way to the client: literals that nobody keeps, so that this side has no table.

use super::table::STATIC;

/// `:status: 200`, whole in the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x80 | 8;

/// The same name with another value, not indexed.
const STATUS: u8 = 8;

/// Integers of literals without indexing have four bits in the first octet (RFC 7541, section 6.2.2).
const LITERAL_PREFIX: usize = 0xf;
const STRING_PREFIX: usize = 0x7f;

/// The fields of an answer or of its trailers, encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// The head of an answer.
    pub fn with_status(status: u16) -> Self {
        let mut answer = Self::default();
        if status == 200 {
            answer.0.push(STATUS_200);
        } else {
            answer.0.push(STATUS);
            put_string(&mut answer.0, status.to_string().as_bytes());
        }
        answer
    }

    /// Adds a field: the name in lower case, the value printable, which is the caller's matter.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        match STATIC.iter().position(|(known, _)| *known == name) {
            Some(place) => put_integer(&mut self.0, 0, LITERAL_PREFIX, place + 1),
            None => {
                self.0.push(0);
                put_string(&mut self.0, name.as_bytes());
            }
        }
        put_string(&mut self.0, value.as_bytes());
        self
    }

    /// The header block.
    pub fn into_block(self) -> Vec<u8> {
        self.0
    }
}

fn put_string(out: &mut Vec<u8>, octets: &[u8]) {
    put_integer(out, 0, STRING_PREFIX, octets.len());
    out.extend_from_slice(octets);
}

/// An integer behind the bits of `first` (RFC 7541, section 5.1).
fn put_integer(out: &mut Vec<u8>, first: u8, prefix: usize, value: usize) {
    let Some(mut rest) = value.checked_sub(prefix) else { return out.push(first | value as u8) };
    out.push(first | prefix as u8);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http2::hpack::Decoder;

    #[test]
    fn is_what_a_decoder_makes_of_it() {
        for length in [0, 1, 14, 15, 16, 126, 127, 128, 254, 255, 256, 20_000] {
            let long = "v".repeat(length);
            let name = "n".repeat(length.max(1));
            for status in [200, 415] {
                let answer = Answer::with_status(status)
                    .and("content-type", "application/grpc")
                    .and("grpc-message", &long)
                    .and("accept", "")
                    .and(&name, "x");
                let (mut fields, mut decoder) = (Vec::new(), Decoder::default());
                let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
                decoder
                    .decode(&answer.into_block(), |field| fields.push((text(field.name), text(field.value))))
                    .unwrap();
                let expected = [
                    (":status", status.to_string()),
                    ("content-type", "application/grpc".to_owned()),
                    ("grpc-message", long.clone()),
                    ("accept", String::new()),
                    (&name, "x".to_owned()),
                ];
                assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value)));
                assert_eq!(decoder.table_bytes(), 0);
            }
        }
    }
}
