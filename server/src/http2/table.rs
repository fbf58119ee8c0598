//! The two tables that an indexed header field points into (RFC 7541, section 2.3).

use std::{collections::VecDeque, sync::Arc};

/// What a table may hold, by the measure of RFC 7541, section 4.1. It is the default of SETTINGS_HEADER_TABLE_SIZE, which
/// this side must leave alone.
pub const MAX_TABLE_BYTES: usize = 4096;

/// What an entry costs beside its octets (RFC 7541, section 4.1).
pub const ENTRY_OVERHEAD: usize = 32;

/// Appendix A of RFC 7541.
#[rustfmt::skip]
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// The name of a field. Entries that were made from one another share it: a client may refer to a name of 4 KB with one
/// octet as often as it likes, and each must cost no more than that octet.
#[derive(Debug, Clone)]
pub enum Name {
    /// Out of [`STATIC`].
    Static(&'static str),
    /// The client's own.
    Own(Arc<[u8]>),
}

impl Name {
    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::Static(name) => name.as_bytes(),
            Self::Own(name) => name,
        }
    }
}

/// The dynamic table, behind the static one.
#[derive(Debug)]
pub struct Table {
    /// Newest first.
    entries: VecDeque<(Name, Box<[u8]>)>,
    bytes: usize,
    max_bytes: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_bytes: MAX_TABLE_BYTES }
    }
}

impl Table {
    /// The name and the value at `index`, which counts from 1.
    pub fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match index.checked_sub(STATIC.len() + 1) {
            None => STATIC.get(index.checked_sub(1)?).map(|(name, value)| (name.as_bytes(), value.as_bytes())),
            Some(place) => self.entries.get(place).map(|(name, value)| (name.octets(), &**value)),
        }
    }

    /// The name at `index`, which counts from 1.
    pub fn name(&self, index: usize) -> Option<Name> {
        match index.checked_sub(STATIC.len() + 1) {
            None => STATIC.get(index.checked_sub(1)?).map(|&(name, _)| Name::Static(name)),
            Some(place) => self.entries.get(place).map(|(name, _)| name.clone()),
        }
    }

    /// Adds a field, after as many old ones have gone as it needs room. One that is larger than the table empties it.
    pub fn insert(&mut self, name: NewName<'_>, value: &[u8]) {
        let cost = name.octets().len() + value.len() + ENTRY_OVERHEAD;
        self.evict(self.max_bytes.saturating_sub(cost));
        if cost > self.max_bytes {
            return;
        }
        let name = match name {
            NewName::Known(name) => name,
            NewName::Literal(octets) => Name::Own(octets.into()),
        };
        self.bytes += cost;
        self.entries.push_front((name, value.into()));
    }

    /// Changes how much the table may hold, up to [`MAX_TABLE_BYTES`]; false if `max_bytes` is more.
    #[must_use]
    pub fn resize(&mut self, max_bytes: usize) -> bool {
        if max_bytes > MAX_TABLE_BYTES {
            return false;
        }
        self.max_bytes = max_bytes;
        self.evict(max_bytes);
        true
    }

    /// What it holds now, by the measure of RFC 7541.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn evict(&mut self, to_bytes: usize) {
        while self.bytes > to_bytes {
            let Some((name, value)) = self.entries.pop_back() else { break };
            self.bytes -= name.octets().len() + value.len() + ENTRY_OVERHEAD;
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }
}

/// The name of a field that is added: one that a table has, or one that was spelled out.
#[derive(Debug)]
pub enum NewName<'a> {
    /// By index.
    Known(Name),
    /// Spelled out.
    Literal(&'a [u8]),
}

impl NewName<'_> {
    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::Known(name) => name.octets(),
            Self::Literal(octets) => octets,
        }
    }
}
