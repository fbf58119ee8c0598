use proptest::{collection::vec, prelude::*};

use super::{
    oracle::{by_decoder, by_prost},
    *,
};
use crate::packet::{CloseRequest, DialRequest};

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

fn cut(stream: &[u8], places: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    places.push(0);
    places.push(stream.len());
    places.sort_unstable();
    places.windows(2).map(|pair| Bytes::copy_from_slice(&stream[pair[0]..pair[1]])).collect()
}

fn connect_ids() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 1..200_i64, any::<i64>(), Just(i64::MAX), Just(-1)]
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..5), vec(any::<u8>(), 100..300), Just(vec![7; 20_000])]
}

/// Packets as Go writes them.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let data = (connect_ids(), payloads()).prop_map(|(id, bytes)| Packet::data(id, bytes.into()));
    let other = (connect_ids(), ".{0,40}", 0..8_i32).prop_map(|(id, text, kind)| match kind {
        0 => Packet::dial_request(text, id),
        1 => Packet::dial_failed(id, text),
        2 => Packet::close_request(id),
        3 => Packet::close_response(id, text),
        4 => Packet::close_dial(id),
        // The type decides, not the payload.
        5 => Packet { r#type: 4, payload: Some(Payload::CloseRequest(CloseRequest { connect_id: id })) },
        6 => Packet { r#type: 99, payload: Some(Payload::Data(Data { connect_id: id, ..Data::default() })) },
        _ => Packet { r#type: 4, payload: None },
    });
    prop_oneof![2 => data, 1 => other].prop_map(|packet| encode(&packet).to_vec())
}

/// `DATA` in any form, Go's among them: fields in any order, repeated, unknown, numbers longer than they must be, a length
/// that reaches too far or not far enough.
fn odd_messages() -> impl Strategy<Value = Vec<u8>> {
    let in_data = prop_oneof![
        Just(b"\x08\x05".to_vec()),
        Just(b"\x08\x85\x00".to_vec()),
        Just(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()),
        Just(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02".to_vec()),
        Just(b"\x12\x02no".to_vec()),
        Just(b"\x1a\x03yes".to_vec()),
        Just(b"\x1a\x83\x80\x00yes".to_vec()),
        Just(b"\x1a\x00".to_vec()),
        Just(b"\x20\x07".to_vec()),
        Just(b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()),
    ];
    let in_packet = prop_oneof![
        3 => Just(b"\x08\x04".to_vec()),
        1 => Just(b"\x08\x84\x00".to_vec()),
        1 => Just(b"\x08\x02".to_vec()),
        1 => Just(b"\x2a\x02\x08\x09".to_vec()),
        1 => Just(b"\x48\x01".to_vec()),
        6 => (vec(in_data, 0..4), 0..6_u8).prop_map(|(fields, lie)| {
            let fields = fields.concat();
            let length = fields.len() as u8;
            let length = match lie { 0 => length.wrapping_sub(1) & 0x7f, 1 => length + 1, _ => length };
            let mut bytes = vec![0x22];
            if lie == 2 { bytes.extend([length | 0x80, 0]) } else { bytes.push(length) }
            bytes.extend(fields);
            bytes
        }),
    ];
    (any::<bool>(), vec(in_packet, 0..4)).prop_map(|(as_go_begins, fields)| {
        let begin = if as_go_begins { &b"\x08\x04"[..] } else { b"" };
        framed(&[begin, &fields.concat()].concat())
    })
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..40);
    let message = prop_oneof![
        8 => packets(),
        8 => odd_messages(),
        1 => noise.clone().prop_map(|bytes| framed(&bytes)),
        1 => noise,
    ];
    vec(message, 0..6).prop_map(|messages| messages.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_cut_anywhere_is_what_prost_makes_of_it(
        stream in streams(),
        places in vec(any::<prop::sample::Index>(), 0..12),
        every_byte in prop::bool::weighted(0.2),
        pushed_at_once in 1..5_usize,
    ) {
        let pieces = match every_byte {
            true => stream.chunks(1).map(Bytes::copy_from_slice).collect(),
            false => cut(&stream, &places),
        };
        let (mut events, error) = by_decoder(&pieces, pushed_at_once);
        let (expected, expected_error) = by_prost(&stream);
        // The last packet of a stream that ends too early may have been handed on in part.
        if events.len() == expected.len() + 1 && expected_error.is_none() {
            let begun = events.pop();
            prop_assert!(matches!(&begun, Some(Event::Data { .. })), "{:?}", begun);
        }
        prop_assert_eq!(events, expected);
        prop_assert_eq!(error, expected_error);
    }

    #[test]
    fn a_head_with_its_payload_is_the_whole_packet(id in connect_ids(), length in prop_oneof![0..300_usize, Just(100_000)]) {
        let payload = Bytes::from(vec![7; length]);
        let (head, head_bytes) = data_head(id, length);
        prop_assert_eq!([&head[..head_bytes], &payload].concat(), encode(&Packet::data(id, payload)).to_vec());
    }
}

#[test]
fn the_largest_head_fits() {
    assert_eq!(data_head(-1, MAX_PACKET_BYTES).1, DATA_HEAD_MAX - 2);
    let packet = encode(&Packet::data(-1, Bytes::from(vec![7; MAX_PACKET_BYTES - 100])));
    let (events, error) = by_decoder(&[packet], 1);
    assert!(matches!(&events[..], [Event::Data { connect_id: -1, first: true, .. }]) && error.is_none());
}

#[test]
fn the_bytes_of_a_data_packet_are_those_that_go_writes() {
    let (head, length) = data_head(1, 3);
    assert_eq!(&head[..length], b"\x00\x00\x00\x00\x0b\x08\x04\x22\x07\x08\x01\x1a\x03");
    let (head, length) = data_head(300, 0);
    assert_eq!(&head[..length], b"\x00\x00\x00\x00\x07\x08\x04\x22\x03\x08\xac\x02");
    assert_eq!(&encode(&Packet::default())[..], b"\x00\x00\x00\x00\x00");
}

#[test]
fn pieces_are_handed_on_as_they_come_and_where_they_lie() {
    let (head, length) = data_head(7, 1000);
    let mut decoder = Decoder::default();
    decoder.push(Bytes::copy_from_slice(&head[..length]));
    assert_eq!(decoder.next(), Ok(None), "no empty piece before the first byte");
    for piece in 0..10 {
        let piece_bytes = Bytes::from(vec![piece; 100]);
        decoder.push(piece_bytes.clone());
        let Ok(Some(Event::Data { connect_id: 7, bytes, first })) = decoder.next() else { panic!("no piece {piece}") };
        assert_eq!(first, piece == 0);
        assert_eq!((bytes.as_ptr(), bytes.len()), (piece_bytes.as_ptr(), 100), "copied");
        assert_eq!(decoder.next(), Ok(None));
    }
    assert!(decoder.is_between_messages());
}

#[test]
fn an_empty_packet_is_an_event() {
    for bytes in [&b"\x08\x04\x22\x02\x08\x07"[..], b"\x08\x04\x22\x04\x08\x07\x1a\x00"] {
        let (events, error) = by_decoder(&[framed(bytes).into()], 1);
        assert_eq!((events, error), (vec![Event::Data { connect_id: 7, bytes: Bytes::new(), first: true }], None));
    }
}

#[test]
fn nothing_is_kept_between_messages() {
    assert!(size_of::<Decoder>() <= 100, "{}", size_of::<Decoder>());
    let packets = [encode(&Packet::data(1, vec![1; 100].into())), encode(&Packet::dial_request("a:1", 1))];
    let mut decoder = Decoder::default();
    for bytes in packets {
        for piece in bytes.chunks(7) {
            decoder.push(Bytes::copy_from_slice(piece));
        }
        // The decoder alone holds this buffer.
        decoder.push(Bytes::new());
        while decoder.next().unwrap().is_some() {}
        assert!(decoder.is_between_messages());
        assert_eq!(decoder.more.capacity(), 0);
    }
}

#[test]
fn what_is_read_is_let_go() {
    let data = encode(&Packet::data(1, vec![1; 100].into()));
    let odd: Bytes = framed(b"\x22\x06\x1a\x04DATA\x08\x04").into();
    for packet in [data, odd] {
        for length in 1..=packet.len() {
            // A buffer as it is read into: larger than what it has.
            let mut buffer = Vec::with_capacity(1000);
            buffer.extend_from_slice(&packet[..length]);
            let buffer = Bytes::from(buffer);
            let mut decoder = Decoder::default();
            decoder.push(buffer.clone());
            while decoder.next().unwrap().is_some() {}
            assert!(buffer.is_unique(), "{length} bytes: an empty rest keeps a buffer alive");
        }
    }
}

#[test]
fn a_number_without_end_is_refused_in_every_place() {
    let huge = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02";
    for before in [&b"\x08\x04\x22"[..], b"\x08\x04\x22\x0b\x08", b"\x08\x04\x22\x0b\x1a", b"\x08"] {
        let message = framed(&[before, huge].concat());
        assert!(
            matches!(by_decoder(&[message.into()], 1), (events, Some(DecodeError::Malformed(_))) if events.is_empty())
        );
    }
}

#[test]
fn memory_grows_with_what_comes_whatever_is_announced() {
    let mut decoder = Decoder::default();
    decoder.push(Bytes::from_static(b"\x00\x00\x01\x00\x00\x12\x80\x80\x80\x02"));
    let mut came = 5;
    for _ in 0..1000 {
        decoder.push(Bytes::from_static(b"0123456789"));
        assert_eq!(decoder.next(), Ok(None));
        came += 10;
        let State::Gather { gathered, .. } = &decoder.state else { panic!("{decoder:?}") };
        assert_eq!(gathered.len(), came);
        assert!(gathered.capacity() <= 2 * came + 64, "{} bytes for {came}", gathered.capacity());
    }
}

#[test]
fn a_message_that_came_in_one_piece_is_not_copied() {
    let mut odd = b"\x22\x06\x1a\x04DATA\x08\x04".to_vec();
    odd = framed(&odd);
    let bytes = Bytes::from(odd);
    let mut decoder = Decoder::default();
    decoder.push(bytes.clone());
    let Ok(Some(Event::Data { bytes: data, first: true, .. })) = decoder.next() else { panic!("{decoder:?}") };
    assert_eq!(data, "DATA");
    assert_eq!(data.as_ptr(), bytes[9..].as_ptr());
}

#[test]
fn the_largest_message_is_taken_and_one_byte_more_is_not() {
    let payload = Bytes::from(vec![7; MAX_PACKET_BYTES - 14]);
    let bytes = encode(&Packet::data(1, payload.clone()));
    assert_eq!(bytes.len(), PREFIX_BYTES + MAX_PACKET_BYTES);
    let data = Event::Data { connect_id: 1, bytes: payload, first: true };
    assert_eq!(by_decoder(&[bytes], 1), (vec![data], None));

    // It is refused with its prefix: nothing more is waited for.
    let (events, error) = by_decoder(&[Bytes::from_static(b"\x00\x00\x40\x00\x01")], 1);
    assert_eq!((events, &error), (vec![], &Some(DecodeError::TooLarge { length: 4_194_305 })));
}

#[test]
fn what_must_be_held_whole_has_a_limit_of_its_own() {
    for (length, taken) in [(MAX_GATHERED_BYTES, true), (MAX_GATHERED_BYTES + 1, false)] {
        let address = "a".repeat(length - 8);
        let packet = Packet {
            payload: Some(Payload::DialRequest(DialRequest { address, ..DialRequest::default() })),
            ..Packet::default()
        };
        let bytes = encode(&packet);
        assert_eq!(bytes.len(), PREFIX_BYTES + length);
        let refused = DecodeError::TooLargeToGather { length: length as u32 };
        let expected = if taken { (vec![Event::Packet(packet)], None) } else { (vec![], Some(refused)) };
        assert_eq!(by_decoder(&[bytes], 1), expected);
    }
}

#[test]
fn every_error_has_the_words_of_the_reference() {
    let table = [
        (&b"\x01\x00\x40\x00\x01"[..], "grpc: received message larger than max (4194305 vs. 4194304)"),
        (b"\x00\xff\xff\xff\xff", "grpc: received message larger than max (4294967295 vs. 4194304)"),
        (b"\x01\x00\x00\x00\x02", "grpc: compressed flag set with identity or empty encoding"),
        (b"\x07\x00\x00\x00\x02", "grpc: received unexpected payload format 7"),
        (b"\x00\x00\x00\x00\x01\x0f", "grpc: failed to unmarshal the received message: "),
    ];
    for (bytes, text) in table {
        let error = by_decoder(&[Bytes::from_static(bytes)], 1).1.expect("an error").to_string();
        assert!(error.starts_with(text), "{error} instead of {text}");
    }
}

#[test]
fn a_stream_may_end_between_messages_only() {
    let packet = encode(&Packet::data(1, Bytes::from_static(b"bytes")));
    let odd = framed(b"\x22\x02\x08\x01\x08\x04");
    for bytes in [&packet[..], &odd] {
        for length in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            decoder.push(Bytes::copy_from_slice(&bytes[..length]));
            assert_eq!(decoder.is_between_messages(), length == 0, "{length} bytes unread");
            while decoder.next().unwrap().is_some() {}
            assert_eq!(decoder.is_between_messages(), length == 0 || length == bytes.len(), "{length} bytes");
        }
    }
}
