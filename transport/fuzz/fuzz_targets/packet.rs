//! A client's packets in gRPC's framing, however they are cut, compared with what prost makes of the whole.
//!
//! The first byte says how the rest is cut into pieces.
#![no_main]

use bytes::Bytes;
use konnectivity_transport::packet::message::{DecodeError, Event, encode};
use libfuzzer_sys::fuzz_target;

use self::oracle::{by_decoder, by_prost};

#[path = "../../src/packet/message/oracle.rs"]
mod oracle;

/// Where the oracle looks for what it speaks of.
mod packet {
    pub use konnectivity_transport::packet::*;
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, stream)) = input.split_first() else { return };
    let (mut events, error) = decode(stream, how);
    let (expected, expected_error) = by_prost(stream);
    // What would have to be held whole has a limit that prost does not know.
    if let Some(DecodeError::TooLargeToGather { length }) = error {
        assert!(length > 64 * 1024 && expected.starts_with(&events));
        return;
    }
    // The last packet of a stream that ends too early may have been handed on in part.
    if expected_error.is_none() && events.len() == expected.len() + 1 {
        assert!(matches!(events.pop(), Some(Event::Data { .. })));
    }
    assert_eq!((&events, &error), (&expected, &expected_error));
    for event in events {
        if let Event::Packet(packet) = event {
            let (again, _) = decode(&encode(&packet), how);
            assert_eq!(again, [Event::Packet(packet)]);
        }
    }
});

/// What the decoder makes of the pieces, with the pieces of each packet joined.
fn decode(stream: &[u8], how: u8) -> (Vec<Event>, Option<DecodeError>) {
    // Small pieces, or pieces of growing size; one or several pushed at once.
    let (size, growth, at_once) = (1 + usize::from(how & 0x0f), usize::from(how >> 4 & 3), 1 + usize::from(how >> 6));
    let mut pieces = Vec::new();
    let (mut rest, mut next) = (stream, size);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(next.min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        (rest, next) = (behind, next * (1 + growth));
    }

    by_decoder(&pieces, at_once)
}
