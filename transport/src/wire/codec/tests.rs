use std::fmt::Debug;

use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::*;
use crate::wire::message::{
    Control, ControlBody, DialErrorKind, DialReply, DialRequest, Drain, Hello, Server, Servers, Token, Welcome,
};

fn hello() -> impl Strategy<Value = Hello> {
    (any::<[String; 4]>(), vec(any::<String>(), 0..4)).prop_map(
        |([agent_id, identifiers, token, software], capabilities)| Hello {
            agent_id,
            identifiers,
            token,
            software,
            capabilities,
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    (any::<[String; 2]>(), any::<u32>(), vec(any::<String>(), 0..4)).prop_map(
        |([server_id, software], server_count, capabilities)| Welcome {
            server_id,
            server_count,
            software,
            capabilities,
        },
    )
}

fn servers() -> impl Strategy<Value = Servers> {
    let server = (any::<String>(), vec(any::<String>(), 0..4))
        .prop_map(|(server_id, addresses)| Server { server_id, addresses });
    (any::<u32>(), vec(server, 0..4)).prop_map(|(server_count, servers)| Servers { server_count, servers })
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        Just(None),
        hello().prop_map(|hello| Some(ControlBody::Hello(hello))),
        welcome().prop_map(|welcome| Some(ControlBody::Welcome(welcome))),
        any::<String>().prop_map(|reason| Some(ControlBody::Drain(Drain { reason }))),
        servers().prop_map(|servers| Some(ControlBody::Servers(servers))),
        any::<String>().prop_map(|token| Some(ControlBody::Token(Token { token }))),
    ]
    .prop_map(|body| Control { body })
}

fn dial_request() -> impl Strategy<Value = DialRequest> {
    (any::<u64>(), any::<[String; 2]>(), any::<u32>())
        .prop_map(|(dial_id, [network, address], timeout_ms)| DialRequest { dial_id, network, address, timeout_ms })
}

fn dial_reply() -> impl Strategy<Value = DialReply> {
    (proptest::sample::select(&DialErrorKind::ALL[1..]), any::<[String; 2]>(), any::<bool>()).prop_map(
        |(kind, [text, local_address], connected)| {
            if connected { DialReply::connected(local_address) } else { DialReply::failed(kind, text) }
        },
    )
}

/// What decoding a prefix of the bytes may say: nothing yet, or what all of them say.
fn assert_cut_anywhere<M: Message + Default + PartialEq + Debug>(bytes: &[u8], max: usize) {
    let mut whole_rest = BytesMut::from(bytes);
    let whole = decode::<M>(&mut whole_rest, max);
    for cut in 0..=bytes.len() {
        let mut buffer = BytesMut::from(&bytes[..cut]);
        let early = decode::<M>(&mut buffer, max);
        if early == Ok(None) {
            assert_eq!(buffer, bytes[..cut], "an incomplete message was touched");
            buffer.extend_from_slice(&bytes[cut..]);
            assert_eq!(decode::<M>(&mut buffer, max), whole, "cut at {cut}");
        } else {
            assert_eq!(early, whole, "cut at {cut}");
            buffer.extend_from_slice(&bytes[cut..]);
        }
        if whole.is_ok() {
            assert_eq!(buffer, whole_rest, "cut at {cut}");
        }
    }
}

fn assert_round_trip<M: Message + Default + PartialEq + Debug>(message: &M, max: usize) {
    let encoded = encode(message, max).unwrap();
    for cut in 0..encoded.len() {
        let mut start = BytesMut::from(&encoded[..cut]);
        assert_eq!(decode::<M>(&mut start, max), Ok(None), "cut at {cut}");
    }
    let mut buffer = BytesMut::from(&encoded[..]);
    buffer.extend_from_slice(b"payload");
    assert_eq!(decode::<M>(&mut buffer, max).unwrap().as_ref(), Some(message));
    assert_eq!(&buffer[..], b"payload");
    assert_cut_anywhere::<M>(&encoded, max);
}

fn assert_no_panic_on(bytes: &[u8]) {
    assert_cut_anywhere::<Control>(bytes, MAX_CONTROL_BYTES);
    assert_cut_anywhere::<DialRequest>(bytes, MAX_DIAL_REQUEST_BYTES);
    assert_cut_anywhere::<DialReply>(bytes, MAX_DIAL_REPLY_BYTES);
}

proptest! {
    #[test]
    fn control_round_trip(message in control()) {
        assert_round_trip(&message, MAX_CONTROL_BYTES);
    }

    #[test]
    fn dial_request_round_trip(message in dial_request()) {
        assert_round_trip(&message, MAX_DIAL_REQUEST_BYTES);
    }

    #[test]
    fn dial_reply_round_trip(message in dial_reply()) {
        assert_round_trip(&message, MAX_DIAL_REPLY_BYTES);
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..64)) {
        assert_no_panic_on(&bytes);
    }

    #[test]
    fn any_message_of_right_length_never_panics(body in vec(any::<u8>(), 0..100)) {
        let mut bytes = vec![u8::try_from(body.len()).unwrap()];
        bytes.extend(body);
        assert_no_panic_on(&bytes);
    }

    #[test]
    fn one_wrong_byte_never_panics(message in control(), place: usize, wrong: u8) {
        let mut bytes = encode(&message, MAX_CONTROL_BYTES).unwrap().to_vec();
        let place = place % bytes.len();
        bytes[place] = wrong;
        assert_no_panic_on(&bytes);
    }
}

#[test]
fn messages_in_one_buffer_come_out_one_by_one() {
    let mut buffer = BytesMut::new();
    for reason in ["one", "", "three"] {
        let message = Drain { reason: reason.into() };
        buffer.extend_from_slice(&encode(&message, 64).unwrap());
    }
    for reason in ["one", "", "three"] {
        assert_eq!(decode(&mut buffer, 64), Ok(Some(Drain { reason: reason.into() })));
    }
    assert_eq!(decode::<Drain>(&mut buffer, 64), Ok(None));
}

/// A message of exactly `size` bytes; sizes below three and two sizes around each varint step cannot be had.
fn drain_of(size: usize) -> Drain {
    (0..=size)
        .rev()
        .map(|bytes| Drain { reason: "r".repeat(bytes) })
        .find(|message| message.encoded_len() == size)
        .unwrap()
}

#[test]
fn limits_are_sharp() {
    for max in [MAX_CONTROL_BYTES, MAX_DIAL_REQUEST_BYTES, MAX_DIAL_REPLY_BYTES, 16] {
        let largest = drain_of(max);
        let encoded = encode(&largest, max).unwrap();
        assert_eq!(decode(&mut BytesMut::from(&encoded[..]), max), Ok(Some(largest)));

        let above = drain_of(max + 1);
        let size = max + 1;
        assert_eq!(encode(&above, max), Err(EncodeError::TooLarge { size, max }));
        let encoded = encode(&above, size).unwrap();
        let refused = decode::<Drain>(&mut BytesMut::from(&encoded[..]), max);
        assert_eq!(refused, Err(DecodeError::TooLarge { size, max }));
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_its_bytes_come() {
    let size = MAX_CONTROL_BYTES + 1;
    let mut buffer = BytesMut::from(&[0x81, 0x80, 0x04][..]);
    let refused = decode::<Control>(&mut buffer, MAX_CONTROL_BYTES);
    assert_eq!(refused, Err(DecodeError::TooLarge { size, max: MAX_CONTROL_BYTES }));
}

#[test]
fn limits_and_prefix_fit_together() {
    // Any byte string as a protobuf BytesValue: its length is known without looking at it.
    let largest = vec![0_u8; MAX_PREFIX_LENGTH - 6];
    assert_eq!(largest.encoded_len(), MAX_PREFIX_LENGTH - 1);
    let above = vec![0_u8; MAX_PREFIX_LENGTH - 4];
    let refused = encode(&above, usize::MAX);
    let (size, max) = (MAX_PREFIX_LENGTH + 1, MAX_PREFIX_LENGTH);
    assert_eq!(refused, Err(EncodeError::TooLarge { size, max }));
}

#[test]
fn prefix_has_at_most_four_bytes() {
    let decode_drain = |bytes: &[u8]| decode::<Drain>(&mut BytesMut::from(bytes), 64);
    assert_eq!(decode_drain(&[]), Ok(None));
    assert_eq!(decode_drain(&[0x80, 0x80, 0x80]), Ok(None));
    assert_eq!(decode_drain(&[0x80, 0x80, 0x80, 0x00]), Ok(Some(Drain::default())));
    assert_eq!(decode_drain(&[0x80, 0x80, 0x80, 0x80]), Err(DecodeError::BadLength));
    let size = MAX_PREFIX_LENGTH;
    assert_eq!(decode_drain(&[0xff, 0xff, 0xff, 0x7f]), Err(DecodeError::TooLarge { size, max: 64 }));
}

#[test]
fn a_message_that_ends_inside_a_field_is_malformed() {
    // Two bytes long, but the string within says five.
    let mut buffer = BytesMut::from(&[2, 0x0a, 5, b'a', b'b', b'c'][..]);
    let refused = decode::<Drain>(&mut buffer, 64);
    assert!(matches!(refused, Err(DecodeError::Malformed(_))), "{refused:?}");
}
