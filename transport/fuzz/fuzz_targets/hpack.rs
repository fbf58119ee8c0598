//! A client's header blocks: what they mean is the same when it is written in another way, and costs no more than they are
//! long.
//!
//! The first byte says into how many blocks the rest is cut, and how it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;

use http2::{
    hpack::{DecodeError, Decoder},
    request::{Fields, MAX_LIST_BYTES},
    testing::{Encoder, Form, OwnField},
};

/// The server is a program, which no other package can depend on.
#[path = "../../../server/src/http2"]
#[allow(dead_code, unused_imports)]
mod http2 {
    pub mod block;
    pub mod code;
    pub mod head;
    pub mod hpack;
    pub mod huffman;
    pub mod out;
    pub mod pace;
    pub mod request;
    pub mod session;
    pub mod streams;
    pub mod table;
    pub mod testing;
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, input)) = input.split_first() else { return };
    let (mut decoder, mut other, mut encoder) = (Decoder::default(), Decoder::default(), Encoder::default());
    for block in input.chunks(1 + 64 * usize::from(how >> 5)) {
        let Ok(fields) = decode(&mut decoder, block) else { return };
        let form = Form {
            indexed: how & 1 != 0,
            added: how & 2 != 0,
            name_indexed: how & 4 != 0,
            huffman_name: how & 8 != 0,
            huffman_value: how & 16 != 0,
        };
        let mut again = Vec::new();
        fields.iter().for_each(|field| encoder.put(field, form, &mut again));
        let seen = decode(&mut other, &again).expect("what was written can be read");
        assert_eq!(seen, fields);
        check_kept(&fields);
    }
});

/// At most so many octets are looked at: a block may stand for much more.
const MOST: usize = 1 << 20;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<OwnField>, DecodeError> {
    let (mut fields, mut octets) = (Vec::new(), 0);
    decoder.decode(block, |field| {
        octets += field.name.len() + field.value.len() + 32;
        if octets <= MOST {
            fields.push((field.name.to_vec(), field.value.to_vec(), field.never_indexed));
        }
    })?;
    Ok(fields)
}

/// A request is what was sent, or nothing.
fn check_kept(list: &[OwnField]) {
    let mut fields = Fields::default();
    for (name, value, never_indexed) in list {
        fields.put(http2::hpack::Field { name, value, never_indexed: *never_indexed });
    }
    assert!(fields.kept_bytes() <= MAX_LIST_BYTES);
    let Ok(request) = fields.into_request() else { return };
    if !request.is_too_large() {
        assert!(request.fields().eq(list.iter().map(|(name, value, _)| (&name[..], &value[..]))));
    }
}
