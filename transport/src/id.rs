//! Names of agents, servers and dials, validated once where they enter.

use std::fmt;

/// Most bytes an agent's or server's id may have. A Kubernetes node name has at most 253.
pub const MAX_ID_BYTES: usize = 256;

/// Names one dial in the logs of both ends. Chosen by the server, unique within one of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

impl fmt::Display for DialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No character at all.
    #[error("id is empty; give it 1 to {MAX_ID_BYTES} printable ASCII characters")]
    Empty,
    /// More than [`MAX_ID_BYTES`].
    #[error("id has {bytes} bytes; the limit is {MAX_ID_BYTES}")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
    /// A character that HTTP/2 metadata and log lines cannot hold.
    #[error("id has {character:?} at byte {place}; only printable ASCII (0x20 to 0x7E) is allowed")]
    BadCharacter {
        /// The first such character.
        character: char,
        /// Byte offset of it, from 0.
        place: usize,
    },
}

/// The rule of both kinds of id: what the reference can send as metadata, and not empty.
fn validate(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong { bytes: id.len() });
    }
    match id.char_indices().find(|(_, c)| !matches!(c, ' '..='~')) {
        Some((place, character)) => Err(IdError::BadCharacter { character, place }),
        None => Ok(()),
    }
}

/// Names an agent: 1 to 256 bytes of printable ASCII. Self-declared, by default a random UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(String);

impl AgentId {
    /// Takes the text when it is an id.
    ///
    /// # Errors
    /// [`IdError`] says what is wrong with it, and where.
    pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
        let id = id.into();
        validate(&id)?;
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a server: 1 to 256 bytes of printable ASCII. An agent keeps one connection to each id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(String);

impl ServerId {
    /// Takes the text when it is an id.
    ///
    /// # Errors
    /// [`IdError`] says what is wrong with it, and where.
    pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
        let id = id.into();
        validate(&id)?;
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_limits_are_sharp() {
        assert_eq!(AgentId::new(""), Err(IdError::Empty));
        assert_eq!(ServerId::new(""), Err(IdError::Empty));
        for bytes in [1, MAX_ID_BYTES] {
            let id = "x".repeat(bytes);
            assert_eq!(AgentId::new(id.as_str()).unwrap().as_str(), id);
            assert_eq!(ServerId::new(id.as_str()).unwrap().to_string(), id);
        }
        let bytes = MAX_ID_BYTES + 1;
        assert_eq!(AgentId::new("x".repeat(bytes)), Err(IdError::TooLong { bytes }));
        assert_eq!(ServerId::new("x".repeat(bytes)), Err(IdError::TooLong { bytes }));
    }

    #[test]
    fn exactly_printable_ascii_is_allowed() {
        for byte in 0..=u8::MAX {
            let character = char::from(byte);
            let id = AgentId::new(format!("ab{character}"));
            if (0x20..=0x7e).contains(&byte) {
                assert!(id.is_ok(), "{character:?}");
            } else {
                assert_eq!(id, Err(IdError::BadCharacter { character, place: 2 }));
            }
        }
    }

    #[test]
    fn error_names_the_first_bad_character_and_its_place() {
        let error = ServerId::new("née\n").unwrap_err();
        assert_eq!(error.to_string(), "id has 'é' at byte 1; only printable ASCII (0x20 to 0x7E) is allowed");
        let error = AgentId::new("node\n").unwrap_err();
        assert!(error.to_string().starts_with(r"id has '\n' at byte 4"), "{error}");
    }

    #[test]
    fn display_honours_the_width_asked_for() {
        assert_eq!(format!("{:>4}", DialId(7)), "   7");
        assert_eq!(format!("{:<3}|", AgentId::new("a").unwrap()), "a  |");
    }
}
