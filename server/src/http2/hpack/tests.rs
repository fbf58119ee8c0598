#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use super::*;
use crate::http2::testing::{OwnField, field, put_integer};

fn octets(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|octet| *octet != b' ').collect();
    hex.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<OwnField>, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| fields.push((field.name.into(), field.value.into(), field.never_indexed)))?;
    Ok(fields)
}

#[track_caller]
fn check(decoder: &mut Decoder, hex: &str, fields: &[(&str, &str)], table_bytes: usize) {
    let expected: Vec<OwnField> = fields.iter().map(|(name, value)| field(name, value)).collect();
    assert_eq!(decode(decoder, &octets(hex)).unwrap(), expected);
    assert_eq!(decoder.table_bytes(), table_bytes);
}

#[test]
fn decodes_the_single_fields_of_the_rfc() {
    let new = Decoder::default;
    let hex = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(&mut new(), hex, &[("custom-key", "custom-header")], 55);
    check(&mut new(), "040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0);
    check(&mut new(), "82", &[(":method", "GET")], 0);
    let secret = decode(&mut new(), &octets("1008 7061 7373 776f 7264 0673 6563 7265 74")).unwrap();
    assert_eq!(secret, [("password".into(), "secret".into(), true)]);
}

#[test]
fn decodes_the_requests_of_the_rfc() {
    let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    let second = [&first[..], &[("cache-control", "no-cache")]].concat();
    let third = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    let literal = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [literal, huffman] {
        let mut decoder = Decoder::default();
        check(&mut decoder, blocks[0], &first, 57);
        check(&mut decoder, blocks[1], &second, 110);
        check(&mut decoder, blocks[2], &third, 164);
    }
}

#[test]
fn decodes_the_responses_of_the_rfc_with_their_small_table() {
    let (cookie, url) = ("foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1", "https://www.example.com");
    let dates = ["Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT"];
    let response =
        |status, date| [(":status", status), ("cache-control", "private"), ("date", date), ("location", url)];
    let mut decoder = Decoder::default();
    // A table of 256 octets is what the RFC's example agrees on beforehand.
    let first = "3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    check(&mut decoder, first, &response("302", dates[0]), 222);
    check(&mut decoder, "4883 640e ffc1 c0bf", &response("307", dates[0]), 222);
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
                 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    let fields = [&response("200", dates[1])[..], &[("content-encoding", "gzip"), ("set-cookie", cookie)]].concat();
    check(&mut decoder, third, &fields, 215);
}

#[test]
fn every_rule_of_the_rfc_has_its_error() {
    for (hex, error) in [
        ("80", DecodeError::Index),
        ("be", DecodeError::Index),
        ("7e 00", DecodeError::Index),
        ("ff80 8080 8001", DecodeError::Integer),
        ("ffff ffff ffff ffff ffff 0f", DecodeError::Integer),
        ("ff", DecodeError::Truncated),
        ("ff80", DecodeError::Truncated),
        ("00", DecodeError::Truncated),
        ("0001", DecodeError::Truncated),
        ("0001 6101", DecodeError::Truncated),
        ("0001 61ff ffff 7f", DecodeError::Truncated),
        ("0081 ff00", DecodeError::Huffman(HuffmanError)),
        ("3fe2 1f", DecodeError::TableSize),
        ("82 20", DecodeError::TableSize),
    ] {
        assert_eq!(decode(&mut Decoder::default(), &octets(hex)), Err(error), "{hex}");
    }
    assert_eq!(decode(&mut Decoder::default(), &octets("20 3fe1 1f 82")).unwrap(), [field(":method", "GET")]);
}

#[test]
fn the_size_that_an_entry_needs_decides_whether_it_stays() {
    let add = |name: usize, value: usize| {
        let mut block = vec![0x40];
        put_integer(&mut block, 0, 7, name);
        block.resize(block.len() + name, b'n');
        put_integer(&mut block, 0, 7, value);
        block.resize(block.len() + value, b'v');
        block
    };
    let mut decoder = Decoder::default();
    decode(&mut decoder, &add(64, 4000)).unwrap();
    assert_eq!(decoder.table_bytes(), 4096);
    decode(&mut decoder, &add(1, 1)).unwrap();
    assert_eq!(decoder.table_bytes(), 34);
    decode(&mut decoder, &add(65, 4000)).unwrap();
    assert_eq!(decoder.table_bytes(), 0, "an entry larger than the table empties it");
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(DecodeError::Index));
    decode(&mut decoder, &add(1, 1)).unwrap();
    decode(&mut decoder, b"\x20\x3f\xe1\x1f").unwrap();
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(DecodeError::Index), "a table without room loses what it had");
}

#[test]
fn entries_that_are_made_from_one_name_share_its_memory() {
    let mut decoder = Decoder::default();
    let mut block = vec![0x40];
    put_integer(&mut block, 0, 7, 1900);
    block.resize(block.len() + 1900, b'n');
    block.extend_from_slice(b"\x01v");
    decode(&mut decoder, &block).unwrap();
    // The newest entry's name again and again: only two fit, and the old ones go while the name is in use.
    for _ in 0..5 {
        let fields = decode(&mut decoder, b"\x7e\x01w").unwrap();
        assert_eq!((fields[0].0.len(), &*fields[0].1), (1900, &b"w"[..]));
    }
    assert_eq!(decoder.table_bytes(), 2 * (1900 + 1 + 32));
    let name = |index| match decoder.table.name(index) {
        Some(crate::http2::table::Name::Own(name)) => name,
        other => panic!("{other:?}"),
    };
    assert!(std::sync::Arc::ptr_eq(&name(62), &name(63)));
}
