//! What any decoder must make of a stream of packets: for the tests here and the fuzz target, which includes this file.

use bytes::Bytes;
use prost::Message;

use crate::packet::{
    MAX_PACKET_BYTES, Packet, Payload,
    message::{DecodeError, Decoder, Event},
};

/// What a stream is to prost: whole messages, of which `DATA` is one event.
pub fn by_prost(mut stream: &[u8]) -> (Vec<Event>, Option<DecodeError>) {
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

/// What the decoder makes of the same pieces, with the pieces of each packet joined.
pub fn by_decoder(pieces: &[Bytes], pushed_at_once: usize) -> (Vec<Event>, Option<DecodeError>) {
    let mut decoder = Decoder::default();
    let mut events: Vec<Event> = Vec::new();
    for pieces in pieces.chunks(pushed_at_once) {
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
