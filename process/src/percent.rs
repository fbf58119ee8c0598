//! Texts in which `%41` is `A` (RFC 3986, section 2.1): parts of URLs, and what gRPC has to say.

/// The text that is meant. What is not encoded as it should be is left as it is.
pub fn decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |place: usize| char::from(*behind.get(place)?).to_digit(16);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits make a byte.
                decoded.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_encoded_is_left() {
        for (text, meant) in [("", ""), ("a%20b%0A", "a b\n"), ("%E2%82%ac", "€"), ("25%zz%4", "25%zz%4"), ("%", "%")]
        {
            assert_eq!(decoded(text.as_bytes()), meant.as_bytes());
        }
    }
}
