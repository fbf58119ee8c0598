//! An agent's token as it came: opaque, but for its end.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::refusal::Refusal;

/// Bytes of a token. One of a service account has about 1 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How tokens are marked in headers.
const BEARER: &[u8] = b"Bearer ";

/// A secret that says whose it is to who may ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// A token by itself, as in Hello.
    ///
    /// # Errors
    /// [`Refusal`] when there is none, or it is too long.
    pub fn new(text: &str) -> Result<Self, Refusal> {
        match text.len() {
            0 => Err(Refusal::NoToken),
            bytes if bytes > MAX_TOKEN_BYTES => Err(Refusal::TooLong { bytes, most: MAX_TOKEN_BYTES }),
            _ => Ok(Self(text.into())),
        }
    }

    /// The token of a request by its fields `authorization`, with the reference's checks in its order.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn from_fields<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        let first = fields.next().ok_or(Refusal::NoToken)?;
        let more = fields.count();
        if more > 0 {
            return Err(Refusal::SeveralTokens(1 + more));
        }
        let token = first.strip_prefix(BEARER).ok_or(Refusal::NoBearer)?;
        // What is not UTF-8 is no token, which the API will say.
        match Self::new(&String::from_utf8_lossy(token)) {
            Err(Refusal::NoToken) => Err(Refusal::lookup("service account jwt not valid")),
            token => token,
        }
    }

    /// The secret.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// When it ends, if it is a JWT that says so (RFC 7519, section 4.1.4). Nothing of it is verified: who uses this
    /// asks the API at that time, whose clock and keys count.
    pub fn end(&self) -> Option<SystemTime> {
        let payload = self.0.split('.').nth(1)?;
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
        let seconds = Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()?;
        UNIX_EPOCH.checked_add(seconds)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A token that looks like one of a service account and ends at `end`.
    pub fn jwt(payload: &str) -> Token {
        Token::new(&format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload))).unwrap()
    }

    #[test]
    fn the_checks_of_headers_are_the_references() {
        let fields = |fields: &'static [&'static str]| Token::from_fields(fields.iter().map(|field| field.as_bytes()));
        assert_eq!(fields(&[]), Err(Refusal::NoToken));
        assert_eq!(fields(&["Bearer a", "Bearer b", "x"]), Err(Refusal::SeveralTokens(3)));
        for bad in [&["bearer a"][..], &["a"], &["Bearer"], &[""]] {
            assert_eq!(fields(bad), Err(Refusal::NoBearer), "{bad:?}");
        }
        assert_eq!(fields(&["Bearer "]), Err(Refusal::lookup("service account jwt not valid")));
        assert_eq!(fields(&["Bearer a b"]).unwrap().expose(), "a b");
    }

    #[test]
    fn what_is_longer_than_any_token_is_not_asked_about() {
        assert!(Token::new(&"a".repeat(MAX_TOKEN_BYTES)).is_ok());
        let bytes = MAX_TOKEN_BYTES + 1;
        assert_eq!(Token::new(&"a".repeat(bytes)), Err(Refusal::TooLong { bytes, most: MAX_TOKEN_BYTES }));
        assert_eq!(Token::new(""), Err(Refusal::NoToken));
    }

    #[test]
    fn the_end_is_that_of_the_jwt() {
        let end = |payload| jwt(payload).end().map(|end| end.duration_since(UNIX_EPOCH).unwrap().as_millis());
        assert_eq!(end(r#"{"exp": 1700000000, "iat": 1}"#), Some(1_700_000_000_000));
        assert_eq!(end(r#"{"exp": 1.5}"#), Some(1_500));
        for odd in ["{}", "", "[]", r#"{"exp": -1}"#, r#"{"exp": "1"}"#, r#"{"exp": 1e300}"#, r#"{"exp": null}"#] {
            assert_eq!(end(odd), None, "{odd}");
        }
        for odd in ["abc", ".", "..", "a.b.c", "e30.****.x", &".".repeat(10_000)] {
            assert_eq!(Token::new(odd).unwrap().end(), None, "{odd}");
        }
    }

    #[test]
    fn nobody_sees_it_by_mistake() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Ok(Token(redacted))");
    }
}
