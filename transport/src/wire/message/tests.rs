use bytes::BytesMut;
use prost::Message;

use super::*;
use crate::wire::codec::{self, DecodeError};

/// Bytes written as hexadecimal digits, with text in quotes, so that the tables below can be read.
fn bytes(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, part) in notation.split('"').enumerate() {
        if place % 2 == 1 {
            bytes.extend(part.as_bytes());
        } else {
            bytes.extend(part.split_whitespace().map(|digits| u8::from_str_radix(digits, 16).unwrap()));
        }
    }
    bytes
}

fn hello() -> Hello {
    Hello {
        agent_id: "a1".into(),
        identifiers: "host=n".into(),
        token: "s3cret".into(),
        software: "pa".into(),
        capabilities: vec!["x".into(), "yz".into()],
    }
}

fn control(body: ControlBody) -> Control {
    Control { body: Some(body) }
}

/// Encodes to exactly these bytes, and these bytes decode to it.
fn assert_exact<M: Message + Default + PartialEq + fmt::Debug>(message: M, notation: &str) {
    let expected = bytes(notation);
    assert_eq!(message.encode_to_vec(), expected, "{message:?}");
    assert_eq!(M::decode(expected.as_slice()).unwrap(), message);
}

/// A failure here is a change of the protocol: old peers will misread it. See "Versions" in docs/protocol.md.
#[test]
fn every_field_has_its_exact_bytes() {
    assert_exact(hello(), r#"0a 02 "a1" 12 06 "host=n" 1a 06 "s3cret" 22 02 "pa" 2a 01 "x" 2a 02 "yz""#);
    assert_exact(
        Welcome { server_id: "s1".into(), server_count: 300, software: "ps".into(), capabilities: vec!["x".into()] },
        r#"0a 02 "s1" 10 ac 02 1a 02 "ps" 22 01 "x""#,
    );
    assert_exact(Drain { reason: "bye".into() }, r#"0a 03 "bye""#);
    let server = Server { server_id: "s1".into(), addresses: vec!["h:1".into(), "i:2".into()] };
    assert_exact(server.clone(), r#"0a 02 "s1" 12 03 "h:1" 12 03 "i:2""#);
    assert_exact(
        Servers { server_count: 2, servers: vec![server, Server::default()] },
        r#"08 02 12 0e 0a 02 "s1" 12 03 "h:1" 12 03 "i:2" 12 00"#,
    );
    assert_exact(Token { token: "t".into() }, r#"0a 01 "t""#);
    assert_exact(
        DialRequest { dial_id: u64::MAX, network: "tcp".into(), address: "h:80".into(), timeout_ms: 5_000 },
        r#"08 ff ff ff ff ff ff ff ff ff 01 12 03 "tcp" 1a 04 "h:80" 20 88 27"#,
    );
    assert_exact(DialReply::connected("l:1"), r#"1a 03 "l:1""#);
    assert_exact(DialReply::failed(DialErrorKind::Other, "no"), r#"08 07 12 02 "no""#);
}

#[test]
fn every_control_body_has_its_exact_bytes() {
    assert_exact(control(ControlBody::Hello(Hello::default())), "0a 00");
    assert_exact(control(ControlBody::Welcome(Welcome::default())), "12 00");
    assert_exact(control(ControlBody::Drain(Drain { reason: "r".into() })), r#"1a 03 0a 01 "r""#);
    assert_exact(control(ControlBody::Servers(Servers::default())), "22 00");
    assert_exact(control(ControlBody::Token(Token { token: "t".into() })), r#"2a 03 0a 01 "t""#);
    assert_exact(Control::default(), "");
}

/// One unknown field of each wire type: varint, 8 bytes, length-delimited, group, 4 bytes.
const UNKNOWN_FIELDS: [&str; 5] =
    ["f8 06 05", "f9 06 01 02 03 04 05 06 07 08", r#"fa 06 02 "zz""#, "fb 06 08 01 fc 06", "fd 06 01 02 03 04"];

fn assert_skips_unknown<M: Message + Default + PartialEq + fmt::Debug>(message: M) {
    for unknown in UNKNOWN_FIELDS {
        let known = message.encode_to_vec();
        let behind = [known.clone(), bytes(unknown)].concat();
        let before = [bytes(unknown), known].concat();
        assert_eq!(M::decode(behind.as_slice()).unwrap(), message, "{unknown} behind");
        assert_eq!(M::decode(before.as_slice()).unwrap(), message, "{unknown} before");
    }
}

#[test]
fn unknown_fields_are_skipped_in_every_message() {
    assert_skips_unknown(hello());
    assert_skips_unknown(Welcome { server_count: 3, ..Welcome::default() });
    assert_skips_unknown(Drain { reason: "r".into() });
    assert_skips_unknown(Servers { server_count: 1, servers: vec![Server::default()] });
    assert_skips_unknown(Server { server_id: "s".into(), ..Server::default() });
    assert_skips_unknown(Token { token: "t".into() });
    assert_skips_unknown(control(ControlBody::Hello(hello())));
    assert_skips_unknown(DialRequest { dial_id: 1, ..DialRequest::default() });
    assert_skips_unknown(DialReply::failed(DialErrorKind::Refused, "x"));
}

#[test]
fn unknown_control_body_decodes_to_none() {
    for unknown in UNKNOWN_FIELDS {
        let decoded = Control::decode(bytes(unknown).as_slice()).unwrap();
        assert_eq!(decoded, Control { body: None });
    }
}

#[test]
fn last_of_two_control_bodies_counts() {
    let two = bytes(r#"1a 03 0a 01 "r" 2a 03 0a 01 "t""#);
    let decoded = Control::decode(two.as_slice()).unwrap();
    assert_eq!(decoded, control(ControlBody::Token(Token { token: "t".into() })));
}

#[test]
fn unknown_dial_error_is_other_and_never_connected() {
    for number in ["08 08", "08 ff ff ff ff 07", "08 80 80 80 80 10", "08 ff ff ff ff ff ff ff ff ff 01"] {
        let reply = DialReply::decode(bytes(number).as_slice()).unwrap();
        assert_eq!(reply.kind(), DialErrorKind::Other, "{number}");
    }
}

#[test]
fn dial_error_kinds_survive_the_wire() {
    for (number, kind) in DialErrorKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, number);
        let reply = DialReply::failed(kind, "");
        let decoded = DialReply::decode(reply.encode_to_vec().as_slice()).unwrap();
        assert_eq!(decoded.kind(), kind);
    }
}

#[test]
fn debug_never_shows_a_token() {
    let token = Token { token: "s3cret".into() };
    let shown = [
        format!("{:?}", hello()),
        format!("{:#?}", control(ControlBody::Hello(hello()))),
        format!("{token:?}"),
        format!("{:#?}", control(ControlBody::Token(token))),
    ];
    for text in shown {
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("token: redacted"), "{text}");
    }
    assert!(format!("{:?}", Hello::default()).contains("token: none"));
}

#[test]
fn decode_error_never_shows_a_token() {
    // A Hello whose token is "s3cret" and a byte that is not UTF-8.
    let mut buffer = BytesMut::from(bytes(r#"0b 0a 09 1a 07 "s3cret" ff"#).as_slice());
    let error = codec::decode::<Control>(&mut buffer, 64).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed(_)), "{error:?}");
    let DecodeError::Malformed(source) = &error else { unreachable!() };
    assert!(!format!("{error} {error:?} {source}").contains("s3cret"));
}
