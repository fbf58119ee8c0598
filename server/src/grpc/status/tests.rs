#![allow(clippy::unwrap_used)]

use super::*;
use crate::http2::{
    hpack::{Decoder, Field},
    request::Fields,
};

type List = Vec<(String, String)>;

/// A request's fields.
#[derive(Clone)]
struct Asked(List);

impl Asked {
    fn new(method: &str, path: &str) -> Self {
        let pseudo = [(":method", method), (":scheme", "http"), (":path", path)];
        Self(pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    fn method(mut self, method: &str) -> Self {
        self.0[0].1 = method.to_owned();
        self
    }
}

fn bare(path: &str) -> Asked {
    Asked::new("POST", path)
}

fn post(path: &str) -> Asked {
    bare(path).header("content-type", "application/grpc")
}

fn list(answer: Answer) -> List {
    let mut list = Vec::new();
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    Decoder::default().decode(&answer.into_block(), |field| list.push((text(field.name), text(field.value)))).unwrap();
    list
}

fn value(list: &List, name: &str) -> String {
    list.iter().find(|(known, _)| known == name).unwrap().1.clone()
}

fn checked(asked: Asked) -> Option<(u16, String, String)> {
    let mut fields = Fields::default();
    for (name, value) in &asked.0 {
        fields.put(Field { name: name.as_bytes(), value: value.as_bytes(), never_indexed: false });
    }
    let answer = list(check(&fields.into_request().unwrap()).err()?);
    assert_eq!(value(&answer, "content-type"), "application/grpc");
    let status = value(&answer, ":status").parse().unwrap();
    Some((status, value(&answer, "grpc-status"), value(&answer, "grpc-message")))
}

#[test]
fn the_one_method_is_served_whatever_else_the_request_says() {
    let proxy = || post("/ProxyService/Proxy");
    assert_eq!(checked(proxy()), None);
    assert_eq!(checked(proxy().header("te", "trailers").header("user-agent", "grpc-go/1.83.0")), None);
    assert_eq!(checked(proxy().header("grpc-encoding", "identity")), None);
    assert_eq!(checked(proxy().header("grpc-accept-encoding", "gzip").header("host", "one")), None);
    for content in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(checked(bare("/ProxyService/Proxy").header("content-type", content)), None);
    }
}

#[test]
fn every_other_request_is_refused_in_the_words_of_the_reference() {
    let proxy = || post("/ProxyService/Proxy");
    let table = [
        (post("/Other/Proxy"), 200, "12", "unknown service Other"),
        (post("/a/b/Proxy"), 200, "12", "unknown service a/b"),
        (post("//Proxy"), 200, "12", "unknown service "),
        (post("/ProxyService/Other"), 200, "12", "unknown method Other for service ProxyService"),
        (post("/ProxyService/Proxy?a"), 200, "12", "unknown method Proxy?a for service ProxyService"),
        (post("/AgentService/Connect"), 200, "12", "unknown service AgentService"),
        (post("/"), 200, "12", "malformed method name: \"/\""),
        (
            proxy().header("grpc-encoding", "gzip"),
            200,
            "12",
            "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
        ),
        (
            bare("/ProxyService/Proxy").header("content-type", "text/html"),
            415,
            "3",
            "invalid gRPC request content-type \"text/html\"",
        ),
        (
            bare("/ProxyService/Proxy").header("content-type", "application/grpc-web"),
            415,
            "3",
            "invalid gRPC request content-type \"application/grpc-web\"",
        ),
        (bare("/ProxyService/Proxy"), 415, "3", "invalid gRPC request content-type \"\""),
        (proxy().method("GET"), 405, "13", "Received a HEADERS frame with :method \"GET\" which should be POST"),
        (
            proxy().header("host", "one").header("host", "two"),
            400,
            "13",
            "num values of :authority: 0, num values of host: 2, both must only have 1 value as per HTTP/2 spec",
        ),
        (
            proxy().header("connection", "close"),
            400,
            "13",
            "a request over HTTP/2 must not have the field `connection`",
        ),
    ];
    for (request, http, code, message) in table {
        assert_eq!(checked(request), Some((http, code.to_owned(), message.to_owned())));
    }
}

#[test]
fn headers_that_are_too_large_are_refused_in_the_words_of_grpc() {
    let asked = post("/ProxyService/Proxy").header("x", &"v".repeat(70_000));
    let message = "the request's headers are too large";
    assert_eq!(checked(asked), Some((200, "8".to_owned(), message.to_owned())));
}

#[test]
fn a_message_is_encoded_as_headers_can_carry_it() {
    let table = [
        ("plain text ~!", "plain text ~!"),
        ("100%", "100%25"),
        ("line\r\nline\0\x7f", "line%0D%0Aline%00%7F"),
        ("\u{e9}", "%C3%A9"),
    ];
    for (text, encoded) in table {
        let trailers = list(Status::new(Code::Internal, text).trailers());
        assert_eq!(value(&trailers, "grpc-message"), encoded);
        assert_eq!(value(&trailers, "grpc-status"), "13");
    }
}

#[test]
fn a_good_end_has_no_message() {
    assert_eq!(list(Status::ok().trailers()), [("grpc-status".to_owned(), "0".to_owned())]);
    assert_eq!(value(&list(accepted()), "content-type"), "application/grpc");
}

#[test]
fn a_refusal_is_an_answer_of_headers_only() {
    let answer = list(Status::new(Code::Unavailable, "the server stops").refusal());
    assert_eq!(value(&answer, ":status"), "200");
    assert_eq!(answer.len(), 4);
    assert_eq!(value(&answer, "grpc-status"), "14");
    assert_eq!(value(&answer, "grpc-message"), "the server stops");
}

#[test]
fn what_is_no_packet_ends_the_rpc_with_the_code_of_the_reference() {
    for (error, code) in [
        (DecodeError::TooLarge { length: 5 }, 8),
        (DecodeError::TooLargeToGather { length: 5 }, 8),
        (DecodeError::Compressed, 13),
        (DecodeError::UnknownFormat { format: 7 }, 13),
    ] {
        let status = Status::from(&error);
        assert_eq!((status.code.number(), status.message), (code, error.to_string()));
    }
}
