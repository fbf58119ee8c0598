#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use proptest::prelude::*;

use super::*;
use crate::http2::testing::{huffman_code, huffman_encode};

fn decoded(input: &[u8]) -> Result<Vec<u8>, HuffmanError> {
    let mut out = Vec::new();
    decode(input, &mut out).map(|()| out)
}

#[test]
fn the_lengths_give_the_codes_of_the_rfc() {
    // Rows of RFC 7541, appendix B, from each of its pages, and its last.
    for (symbol, code, length) in [
        (0, 0x1ff8, 13),
        (10, 0x3fff_fffc, 30),
        (32, 0x14, 6),
        (48, 0x0, 5),
        (64, 0x1ffa, 13),
        (97, 0x3, 5),
        (122, 0x7b, 7),
        (127, 0x0fff_fffc, 28),
        (128, 0xf_ffe6, 20),
        (161, 0x1f_ffdd, 21),
        (200, 0x3ff_ffe2, 26),
        (249, 0x0fff_fffe, 28),
        (255, 0x3ff_ffee, 26),
        (256, 0x3fff_ffff, 30),
    ] {
        assert_eq!(huffman_code(symbol), (code, length), "symbol {symbol}");
    }
}

#[test]
fn decodes_the_strings_of_the_rfc() {
    assert_eq!(decoded(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(), b"www.example.com");
    assert_eq!(decoded(b"\xa8\xeb\x10\x64\x9c\xbf").unwrap(), b"no-cache");
    assert_eq!(decoded(b"\x64\x02").unwrap(), b"302");
    assert_eq!(decoded(b"").unwrap(), b"");
}

#[test]
fn refuses_what_no_string_ends_with() {
    for (input, why) in [
        (&b"\xff"[..], "eight bits of padding"),
        (b"\xa8\xeb\x10\x64\x9c\xbf\xff", "a whole octet of padding"),
        (b"\x00", "padding of zeros"),
        (b"\xff\xff\xff\xff", "the end-of-string symbol"),
        (b"\xff\xff\xff\xff\xf8", "the end-of-string symbol before a digit"),
        (b"\xff\xff", "a code cut off"),
    ] {
        let result = decoded(input);
        // Zeros are the digit 0 (five bits), and three bits of it again.
        assert_eq!(result, Err(HuffmanError), "{why}");
    }
}

proptest! {
    #[test]
    fn decodes_what_was_encoded(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decoded(&huffman_encode(&octets)).unwrap(), octets);
    }

    #[test]
    fn whatever_decodes_is_what_encodes_to_the_input(input in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(octets) = decoded(&input) {
            prop_assert_eq!(huffman_encode(&octets), input);
        }
    }
}
