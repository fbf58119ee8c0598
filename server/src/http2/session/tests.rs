#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod ends;
mod properties;
mod rules;
mod windows;

use bytes::Bytes;

use super::*;
use crate::http2::{
    head::flag,
    testing::{Encoder, Form, OwnField, SETTINGS, Server, field, frame},
};

/// The fields of a dial's request, as grpc-go sends them.
fn request(authority: &str) -> Vec<OwnField> {
    vec![
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/ProxyService/Proxy"),
        field(":authority", authority),
        field("content-type", "application/grpc"),
        field("user-agent", "grpc-go/1.80.0"),
        field("te", "trailers"),
    ]
}

fn block(fields: &[OwnField]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|field| Encoder::default().put(field, Form::default(), &mut block));
    block
}

fn call(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block(&request("%2Frun%2Fx.socket")))
}

fn data(stream: u32, octets: usize) -> Vec<u8> {
    frame(kind::DATA, 0, stream, &vec![7; octets])
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &list.iter().flat_map(|&(name, value)| setting(name, value)).collect::<Vec<_>>())
}

fn reset(stream: u32, code: Code) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

/// The server's frames, without their payload.
fn kinds(server: &mut Server) -> Vec<(u8, u8, u32, usize)> {
    server.take_frames().iter().map(|(head, payload)| (head.kind, head.flags, head.stream, payload.len())).collect()
}

/// Codes of the RST_STREAM frames that the server has sent.
fn resets(server: &mut Server) -> Vec<(u32, Code)> {
    let frames = server.take_frames();
    let resets = frames.iter().filter(|(head, _)| head.kind == kind::RST_STREAM);
    resets.map(|(head, code)| (head.stream, Code(u32::from_be_bytes(code[..].try_into().unwrap())))).collect()
}

#[test]
fn the_server_speaks_first() {
    let mut server = Server::default();
    let frames = server.take_frames();
    let heads: Vec<_> = frames.iter().map(|(head, _)| (head.kind, head.flags, head.stream)).collect();
    assert_eq!(heads, [(kind::SETTINGS, 0, 0), (kind::WINDOW_UPDATE, 0, 0)]);
    let expected = [
        setting(setting::MAX_CONCURRENT_STREAMS, SETTINGS.max_streams),
        setting(setting::INITIAL_WINDOW_SIZE, SETTINGS.stream_window),
    ];
    assert_eq!(frames[0].1, expected.concat());
    assert_eq!(frames[1].1, (SETTINGS.connection_window - 65_535).to_be_bytes());
}

#[test]
fn a_request_is_taken_as_it_comes() {
    for authority in ["%2Fetc%2Fkubernetes%2Fkonnectivity-server.socket", "/run/x", "fd00::1", "", "localhost"] {
        let mut server = Server::greeted();
        let fields = request(authority);
        server.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block(&fields)));
        let seen = &server.seen[&1];
        let expected: Vec<_> = fields.into_iter().map(|(name, value, _)| (name, value)).collect();
        assert_eq!((&seen.fields, seen.end), (&expected, Some(Ok(()))), "{authority}");
    }
}

#[test]
fn an_idle_connection_holds_next_to_nothing() {
    let mut server = Server::greeted();
    server.feed(&[call(1), data(1, 1000)].concat());
    server.session.respond(1, vec![0x88], false).unwrap();
    server.session.send(1, Bytes::from_static(b"hello")).unwrap();
    server.write();
    let of_stream = size_of::<crate::http2::streams::State<Bytes>>();
    assert_eq!(server.session.held(), of_stream + 4 * size_of::<usize>());
    assert!(of_stream <= 256, "{of_stream}");
    assert!(size_of::<Session<Bytes>>() <= 512, "{}", size_of::<Session<Bytes>>());
    server.feed(&reset(1, Code::CANCEL));
    assert_eq!(server.session.held(), 0);
}
