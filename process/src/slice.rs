//! Lists as pflag's string slices read them: one record of comma-separated values (RFC 4180), as Go's `encoding/csv`
//! understands it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Texts in order. An empty text is the empty list; spaces count; `[]` is one element of two characters.
///
/// Of several flags on one command line the first replaces the default and the others append, see
/// [`crate::layers`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringSlice(pub Vec<String>);

/// Why a text is not such a record; in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// Nothing but ends of lines.
    #[error("EOF")]
    End,
    /// A quote within a field that does not begin with one.
    #[error("{}bare \" in non-quoted-field", Place(*start, *line, *column))]
    BareQuote {
        /// The line that the record begins on, from 1.
        start: usize,
        /// The line that the quote is on.
        line: usize,
        /// The byte of that line, from 1.
        column: usize,
    },
    /// A quote that ends a field before its end, or none where the text ends.
    #[error("{}extraneous or missing \" in quoted-field", Place(*start, *line, *column))]
    Quote {
        /// The line that the record begins on, from 1.
        start: usize,
        /// The line that it is noticed on.
        line: usize,
        /// The byte of that line, from 1.
        column: usize,
    },
}

/// Start of the record, line and column, as in the messages of Go's `csv.ParseError`.
struct Place(usize, usize, usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(start, line, column) = self;
        if start != line {
            write!(f, "record on line {start}; ")?;
        }
        write!(f, "parse error on line {line}, column {column}: ")
    }
}

impl FromStr for StringSlice {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, SliceError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        // A line is never empty: it holds its end at least.
        let text = text.replace("\r\n", "\n");
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let record = text.trim_start_matches('\n');
        if record.is_empty() {
            return Err(SliceError::End);
        }
        let start = text.len() - record.len() + 1;
        Record { text: record, at: 0, start, line: start, line_begins: 0 }.fields().map(Self)
    }
}

/// Where the reading of a record has come to.
struct Record<'a> {
    text: &'a str,
    at: usize,
    /// Line that the record began on.
    start: usize,
    line: usize,
    /// First byte of the line.
    line_begins: usize,
}

impl Record<'_> {
    fn fields(mut self) -> Result<Vec<String>, SliceError> {
        let mut fields = Vec::new();
        loop {
            let field = if self.text[self.at..].starts_with('"') { self.quoted()? } else { self.plain()? };
            fields.push(field);
            if !self.text[self.at..].starts_with(',') {
                return Ok(fields);
            }
            self.at += 1;
        }
    }

    /// A field up to the comma or the end of its line.
    fn plain(&mut self) -> Result<String, SliceError> {
        let rest = &self.text[self.at..];
        let field = &rest[..rest.find([',', '\n']).unwrap_or(rest.len())];
        if let Some(place) = field.find('"') {
            let column = self.column(self.at + place);
            return Err(SliceError::BareQuote { start: self.start, line: self.line, column });
        }
        self.at += field.len();
        Ok(field.to_owned())
    }

    /// A field in quotes, which may hold commas, ends of lines and doubled quotes.
    fn quoted(&mut self) -> Result<String, SliceError> {
        let mut field = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = rest.find('"') else {
                self.pass(rest.len());
                return Err(self.bad_quote(self.at));
            };
            field.push_str(&rest[..length]);
            self.pass(length + 1);
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    field.push('"');
                    self.at += 1;
                }
                None | Some(b',' | b'\n') => return Ok(field),
                Some(_) => return Err(self.bad_quote(self.at - 1)),
            }
        }
    }

    fn bad_quote(&self, place: usize) -> SliceError {
        SliceError::Quote { start: self.start, line: self.line, column: self.column(place) }
    }

    fn column(&self, place: usize) -> usize {
        place - self.line_begins + 1
    }

    /// Goes on, over ends of lines too. One at the end of the text begins no line.
    fn pass(&mut self, length: usize) {
        let end = self.at + length;
        for (place, _) in self.text[self.at..end].match_indices('\n') {
            let next = self.at + place + 1;
            if next < self.text.len() {
                self.line += 1;
                self.line_begins = next;
            }
        }
        self.at = end;
    }
}

impl fmt::Display for StringSlice {
    /// The record that would be read as this list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, field) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let alone_and_empty = field.is_empty() && self.0.len() == 1;
            if alone_and_empty || field.contains(['"', ',', '\n', '\r']) {
                write!(f, "{comma}\"{}\"", field.replace('"', "\"\""))?;
            } else {
                write!(f, "{comma}{field}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for StringSlice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StringSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected texts, as an array or as one text with commas")]
        enum Written {
            Text(String),
            Array(Vec<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse().map_err(de::Error::custom),
            Written::Array(texts) => Ok(Self(texts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        text.parse::<StringSlice>().map(|slice| slice.0).map_err(|error| error.to_string())
    }

    /// Each of them was given to Go's reader.
    #[test]
    fn what_go_reads() {
        for (text, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            ("a, b", &["a", " b"]),
            (",", &["", ""]),
            ("a,,b,", &["a", "", "b", ""]),
            ("[]", &["[]"]),
            ("\"\"", &[""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"say \"\"x\"\"\"", &["say \"x\""]),
            ("\"a\nb\",c", &["a\nb", "c"]),
            ("\"a\r\nb\"", &["a\nb"]),
            ("a\nb", &["a"]),
            ("\n\na,b\nc", &["a", "b"]),
            ("a\r", &["a"]),
            ("a\r\n", &["a"]),
            ("a\rb", &["a\rb"]),
            ("\"a\"\n", &["a"]),
            ("é,ü", &["é", "ü"]),
        ] {
            assert_eq!(
                read(text).as_deref(),
                Ok(&expected.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..]),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_go_refuses() {
        const BARE: &str = "bare \" in non-quoted-field";
        const MISSING: &str = "extraneous or missing \" in quoted-field";
        for (text, place, reason) in [
            ("a\"b", "parse error on line 1, column 2: ", BARE),
            ("é\"", "parse error on line 1, column 3: ", BARE),
            ("x,a\"b", "parse error on line 1, column 4: ", BARE),
            ("\n a\"b", "parse error on line 2, column 3: ", BARE),
            ("\"a", "parse error on line 1, column 3: ", MISSING),
            ("\"", "parse error on line 1, column 2: ", MISSING),
            ("\"a\"b", "parse error on line 1, column 3: ", MISSING),
            ("\"a\n\"b", "record on line 1; parse error on line 2, column 1: ", MISSING),
            ("\"a\nbc", "record on line 1; parse error on line 2, column 3: ", MISSING),
            ("\"a\n", "parse error on line 1, column 4: ", MISSING),
        ] {
            assert_eq!(read(text), Err(format!("{place}{reason}")), "{text:?}");
        }
        assert_eq!(read("\n"), Err("EOF".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in proptest::collection::vec("[ -~\n,\"é]{0,6}", 0..5)) {
            // A record cannot begin with an empty line, and quotes keep everything else.
            let slice = StringSlice(texts);
            prop_assert_eq!(slice.to_string().parse::<StringSlice>(), Ok(slice));
        }

        #[test]
        fn nothing_panics(text in "[a,\"\r\né\\[\\]]{0,16}") {
            let _ = text.parse::<StringSlice>();
        }
    }
}
