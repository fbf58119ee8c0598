use http::Request;

use super::*;

fn post(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/grpc")
}

fn checked(request: http::request::Builder) -> Option<(u16, String, String)> {
    let answer = *check(&request.body(()).unwrap().into_parts().0).err()?;
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
    Some((answer.status().as_u16(), header("grpc-status"), header("grpc-message")))
}

#[test]
fn the_one_method_is_served_whatever_else_the_request_says() {
    let proxy = || post("/ProxyService/Proxy");
    assert_eq!(checked(proxy()), None);
    assert_eq!(checked(proxy().header("te", "trailers").header("user-agent", "grpc-go/1.83.0")), None);
    assert_eq!(checked(proxy().header("grpc-encoding", "identity")), None);
    assert_eq!(checked(proxy().header("grpc-accept-encoding", "gzip").header("host", "one")), None);
    for content in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(checked(Request::post("/ProxyService/Proxy").header("content-type", content)), None);
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
            Request::post("/ProxyService/Proxy").header("content-type", "text/html"),
            415,
            "3",
            "invalid gRPC request content-type \"text/html\"",
        ),
        (
            Request::post("/ProxyService/Proxy").header("content-type", "application/grpc-web"),
            415,
            "3",
            "invalid gRPC request content-type \"application/grpc-web\"",
        ),
        (Request::post("/ProxyService/Proxy"), 415, "3", "invalid gRPC request content-type \"\""),
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
fn a_message_is_encoded_as_headers_can_carry_it() {
    let table = [
        ("plain text ~!", "plain text ~!"),
        ("100%", "100%25"),
        ("line\r\nline\0\x7f", "line%0D%0Aline%00%7F"),
        ("\u{e9}", "%C3%A9"),
    ];
    for (text, encoded) in table {
        let trailers = Status::new(Code::Internal, text).trailers();
        assert_eq!(trailers["grpc-message"], encoded);
        assert_eq!(trailers["grpc-status"], "13");
    }
}

#[test]
fn a_good_end_has_no_message() {
    let trailers = Status::ok().trailers();
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(accepted().headers()["content-type"], "application/grpc");
}

#[test]
fn a_refusal_is_an_answer_of_headers_only() {
    let answer = Status::new(Code::Unavailable, "the server stops").refusal();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers().len(), 3);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["grpc-message"], "the server stops");
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
