//! A client's packets in gRPC's framing, however they are cut, compared with what prost makes of the whole.
//!
//! The first byte says how the rest is cut into pieces.
#![no_main]

use bytes::Bytes;
use konnectivity_transport::packet::{MAX_PACKET_BYTES, Packet, Payload};
use libfuzzer_sys::fuzz_target;
use prost::Message;

use grpc::message::{DecodeError, Decoder, Event, encode};

/// The server is a program, which no other package can depend on.
#[path = "../../../server/src/frontend/grpc"]
#[allow(dead_code, unused_imports)]
mod grpc {
    pub mod message;
    pub mod status;
}

#[path = "../../../server/src/http2"]
#[allow(dead_code, unused_imports)]
mod http2 {
    pub mod answer;
    pub mod hpack;
    pub mod huffman;
    pub mod request;
    pub mod table;
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, stream)) = input.split_first() else { return };
    let (mut events, error) = decode(stream, how);
    let (expected, expected_error) = decode_whole(stream);
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
    if let Some(error) = error {
        let _ = error.status().trailers();
    }
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

    let mut decoder = Decoder::default();
    let mut events: Vec<Event> = Vec::new();
    for pieces in pieces.chunks(at_once) {
        pieces.iter().for_each(|piece| decoder.push(piece.clone()));
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(Event::Data { connect_id, bytes, first: false })) => match events.last_mut() {
                    Some(Event::Data { connect_id: same, bytes: before, .. }) if *same == connect_id => {
                        assert!(!bytes.is_empty() && !before.is_empty(), "an empty piece of a packet with bytes");
                        *before = [&before[..], &bytes[..]].concat().into();
                    }
                    last => panic!("{connect_id} goes on behind {last:?}"),
                },
                Ok(Some(event)) => events.push(event),
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fn decode_whole(mut stream: &[u8]) -> (Vec<Event>, Option<DecodeError>) {
    let mut events = Vec::new();
    while let Some((&[format, a, b, c, d], rest)) = stream.split_first_chunk() {
        let length = u32::from_be_bytes([a, b, c, d]);
        let error = match format {
            _ if length as usize > MAX_PACKET_BYTES => Some(DecodeError::TooLarge { length }),
            0 => None,
            1 => Some(DecodeError::Compressed),
            format => Some(DecodeError::UnknownFormat { format }),
        };
        if error.is_some() {
            return (events, error);
        }
        let Some((message, rest)) = rest.split_at_checked(length as usize) else { break };
        match Packet::decode(message) {
            Ok(Packet { r#type: 4, payload: Some(Payload::Data(data)) }) => {
                events.push(Event::Data { connect_id: data.connect_id, bytes: data.data, first: true });
            }
            Ok(Packet { r#type: 4, .. }) => {
                events.push(Event::Data { connect_id: 0, bytes: Bytes::new(), first: true });
            }
            Ok(packet) => events.push(Event::Packet(packet)),
            Err(error) => return (events, Some(DecodeError::Malformed(error))),
        }
        stream = rest;
    }
    (events, None)
}
