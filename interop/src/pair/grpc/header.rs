//! Header blocks in every representation of HPACK (RFC 7541, section 6), by a codec that the server does not use.

use httlib_hpack::{Decoder, Encoder};

/// Names and values.
pub type Headers = Vec<(String, String)>;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// With the code of Huffman.
    pub huffman: bool,
    /// What tables have to do with it.
    pub table: Table,
}

/// What a header has to do with the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// By its index if it is in a table, else added to one.
    Indexed,
    /// Its name by index, its value added to the table always.
    Added,
    /// In full and not added.
    Literal,
    /// In full and never to be added by anybody.
    Never,
}

impl Form {
    /// What a Go client does.
    pub const GO: Self = Self { huffman: true, table: Table::Indexed };

    /// All there are.
    pub const ALL: [Self; 8] = {
        use Table::{Added, Indexed, Literal, Never};
        [
            Self { huffman: true, table: Indexed },
            Self { huffman: false, table: Indexed },
            Self { huffman: true, table: Added },
            Self { huffman: false, table: Added },
            Self { huffman: true, table: Literal },
            Self { huffman: false, table: Literal },
            Self { huffman: true, table: Never },
            Self { huffman: false, table: Never },
        ]
    };

    fn flags(self) -> u8 {
        let huffman = if self.huffman { Encoder::HUFFMAN_NAME | Encoder::HUFFMAN_VALUE } else { 0 };
        huffman
            | match self.table {
                Table::Indexed => Encoder::WITH_INDEXING | Encoder::BEST_FORMAT,
                Table::Added => Encoder::WITH_INDEXING,
                Table::Literal => 0,
                Table::Never => Encoder::NEVER_INDEXED,
            }
    }
}

/// What a Go client sends for a call of `ProxyService/Proxy`.
pub fn request(authority: &str) -> Headers {
    call("/ProxyService/Proxy", authority)
}

/// What a Go client sends for a call of another method.
pub fn call(path: &str, authority: &str) -> Headers {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.83.0"),
        ("te", "trailers"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The same headers with another value for one of them, which is added if it is not there.
#[must_use]
pub fn with(mut headers: Headers, name: &str, value: &str) -> Headers {
    match headers.iter_mut().find(|(known, _)| known == name) {
        Some(header) => value.clone_into(&mut header.1),
        None => headers.push((name.to_owned(), value.to_owned())),
    }
    headers
}

/// The sending end of one connection's headers.
#[derive(Debug, Default)]
pub struct Blocks(Encoder<'static>);

impl Blocks {
    /// A block of these headers, all in one form.
    ///
    /// # Panics
    /// When a header is longer than HPACK allows.
    pub fn block(&mut self, headers: &Headers, form: Form) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in headers {
            self.header(name, value, form, &mut block);
        }
        block
    }

    /// Adds one header to a block.
    ///
    /// # Panics
    /// When it is longer than HPACK allows.
    pub fn header(&mut self, name: &str, value: &str, form: Form, block: &mut Vec<u8>) {
        let header = (name.as_bytes().to_vec(), value.as_bytes().to_vec(), form.flags());
        self.0.encode(header, block).expect("a header that HPACK can say");
    }

    /// Changes the size of the table; what says so belongs to the start of the next block.
    ///
    /// # Panics
    /// Never for a size that fits.
    pub fn resize(&mut self, bytes: u32) -> Vec<u8> {
        let mut update = Vec::new();
        self.0.update_max_dynamic_size(bytes, &mut update).expect("a number that HPACK can say");
        update
    }
}

/// The receiving end of one connection's headers.
#[derive(Debug, Default)]
pub struct Readings(Decoder<'static>);

impl Readings {
    /// The headers of a block.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, String> {
        let mut headers = Vec::new();
        self.0.decode(&mut block.to_vec(), &mut headers).map_err(|error| error.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(headers.into_iter().map(|(name, value, _)| (text(name), text(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_as_what_was_written() {
        let (mut blocks, mut readings) = (Blocks::default(), Readings::default());
        let headers = request("%2Fetc%2Fkubernetes%2Fsocket");
        for form in [Form::ALL, Form::ALL].concat() {
            let mut block = blocks.resize(if form.huffman { 4096 } else { 100 });
            block.extend(blocks.block(&headers, form));
            assert_eq!(readings.read(&block).unwrap(), headers, "{form:?}");
        }
    }

    #[test]
    fn what_is_in_the_table_is_a_byte() {
        let mut blocks = Blocks::default();
        let headers = request("%2Fa");
        let first = blocks.block(&headers, Form::GO);
        assert!(first.len() > 2 * headers.len());
        assert_eq!(blocks.block(&headers, Form::GO).len(), headers.len());
    }
}
