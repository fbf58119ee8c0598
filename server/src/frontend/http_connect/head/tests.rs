use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

fn connect(target: &str) -> Result<Request, HeadError> {
    Ok(Request::Connect { target: target.to_owned() })
}

fn other(version: Version, keep_alive: bool, body_bytes: u64) -> Result<Request, HeadError> {
    Ok(Request::Other(OtherRequest { is_head: false, version, keep_alive, body_bytes }))
}

/// Parses a head that is complete.
fn request(head: &str) -> Result<Request, HeadError> {
    let head_bytes = head.len();
    let parsed = parse(head.as_bytes())?.expect("the head is complete");
    assert_eq!(parsed.bytes, head_bytes, "{head:?}");
    Ok(parsed.request)
}

#[test]
fn a_connect_has_a_target() {
    for (head, target) in [
        // All that kube-apiserver sends.
        ("CONNECT 10.0.0.7:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "10.0.0.7:10250"),
        ("CONNECT [fd00::7]:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "[fd00::7]:443"),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "a:1"),
        ("CONNECT a:1 HTTP/1.0\r\n\r\n", "a:1"),
        ("CONNECT a:1 HTTP/1.9\n\n", "a:1"),
        ("CONNECT a:1 HTTP/1.1\r\nHost:\r\n\r\n", "a:1"),
        // A body is for the target.
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", "a:1"),
        ("CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "a:1"),
        // Without an authority, the Host field has it.
        ("CONNECT  HTTP/1.1\r\nHost: b:2\r\n\r\n", "b:2"),
        ("CONNECT /path HTTP/1.1\r\nhOST:  b:2 \t\r\n\r\n", "b:2"),
        ("CONNECT /path HTTP/1.1\r\n\r\n", ""),
    ] {
        assert_eq!(request(head), connect(target), "{head:?}");
    }
}

#[test]
fn other_methods_end_or_keep_the_connection() {
    use Version::{Http10, Http11};
    for (head, version, keep_alive, body_bytes) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Http11, true, 0),
        ("connect / HTTP/1.1\r\nHost: a\r\n\r\n", Http11, true, 0),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Http11, true, 0),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Http11, true, 0),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", Http11, false, 0),
        ("GET / HTTP/1.0\r\n\r\n", Http10, false, 0),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Http10, true, 0),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", Http10, false, 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n", Http11, true, 65536),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", Http11, false, 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", Http11, true, 5),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", Http11, false, 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", Http11, true, 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Http11, false, 0),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", Http10, false, 0),
        // HTTP/2 without TLS.
        ("PRI * HTTP/2.0\r\n\r\n", Http11, false, 0),
    ] {
        assert_eq!(request(head), other(version, keep_alive, body_bytes), "{head:?}");
    }
}

#[test]
fn head_is_told_from_other_methods() {
    for (method, expected) in [("HEAD", true), ("head", false), ("GET", false)] {
        let Ok(Request::Other(request)) = request(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")) else {
            panic!("{method} is not CONNECT");
        };
        assert_eq!(request.is_head, expected);
    }
}

#[test]
fn bad_heads_are_told_apart() {
    use HeadError::{Malformed, MalformedHost, MissingHost, UnsupportedTransferEncoding, UnsupportedVersion};
    for (head, error) in [
        ("\r\nCONNECT a:1 HTTP/1.1\r\n\r\n", Malformed),
        ("CONNECT a:1\r\n\r\n", Malformed),
        (" a:1 HTTP/1.1\r\n\r\n", Malformed),
        ("CONN\tECT a:1 HTTP/1.1\r\n\r\n", Malformed),
        ("CONNECT a:1  HTTP/1.1\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1 \r\n\r\n", Malformed),
        ("CONNECT a:1 http/1.1\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/11\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\r\n\r\n", Malformed),
        ("CONNECT ::1 HTTP/1.1\r\n\r\n", Malformed),
        ("CONNECT a:http HTTP/1.1\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nno colon\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\n: no name\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nA: \x01\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nA: 1\r\n folded\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length:\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Malformed),
        ("CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", UnsupportedTransferEncoding),
        ("CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", UnsupportedTransferEncoding),
        ("CONNECT a:1 HTTP/2.0\r\n\r\n", UnsupportedVersion),
        ("CONNECT a:1 HTTP/0.9\r\n\r\n", UnsupportedVersion),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a/b\r\n\r\n", MalformedHost),
        ("CONNECT / HTTP/1.1\r\nHost: caf\u{e9}\r\n\r\n", MalformedHost),
        ("GET / HTTP/1.1\r\n\r\n", MissingHost),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
    ] {
        assert_eq!(request(head), Err(error), "{head:?}");
    }
}

#[test]
fn a_bad_request_line_is_refused_before_the_head_is_complete() {
    assert_eq!(parse(b"nonsense\r\n"), Err(HeadError::Malformed));
    assert_eq!(parse(b"CONNECT a:1 HTTP/1.1\r\nHos"), Ok(None));
    assert_eq!(parse(b"CONNECT a:1 HTTP/1.1\r\n"), Ok(None));
    assert_eq!(parse(b""), Ok(None));
}

#[test]
fn what_follows_a_head_is_not_part_of_it() {
    let head = b"CONNECT a:1 HTTP/1.1\r\n\r\n";
    let parsed = parse(&[head.as_slice(), b"\r\n\r\n\0\xff"].concat()).unwrap().unwrap();
    assert_eq!(parsed.bytes, head.len());
}

#[test]
fn a_head_has_a_limit_of_bytes_and_of_fields() {
    let with_field_of = |bytes: usize| {
        let (before, after) = ("CONNECT a:1 HTTP/1.1\r\nA: ", "\r\n\r\n");
        let value = "x".repeat(bytes - before.len() - after.len());
        [before, &value, after].concat()
    };
    assert_eq!(request(&with_field_of(MAX_HEAD_BYTES)), connect("a:1"));
    assert_eq!(request(&with_field_of(MAX_HEAD_BYTES + 1)), Err(HeadError::TooLarge));
    assert_eq!(parse(&vec![b'x'; MAX_HEAD_BYTES]), Err(HeadError::TooLarge));
    assert_eq!(parse(&vec![b'x'; MAX_HEAD_BYTES - 1]), Ok(None));
    let with_fields = |count| ["CONNECT a:1 HTTP/1.1\r\n", &"A:\r\n".repeat(count), "\r\n"].concat();
    assert_eq!(request(&with_fields(MAX_FIELDS)), connect("a:1"));
    assert_eq!(request(&with_fields(MAX_FIELDS + 2)), Err(HeadError::TooLarge));
}

/// Gives its pieces one read at a time, then the end.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let bytes = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..bytes]);
            piece.drain(..bytes);
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What reading gives, and the bytes that are left of the stream and the buffer.
fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> (Result<Request, String>, Vec<u8>) {
    let mut stream = Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect());
    let mut buffer = BytesMut::new();
    let mut cx = Context::from_waker(Waker::noop());
    let read = match pin!(read_unlimited(&mut stream, &mut buffer)).poll(&mut cx) {
        Poll::Ready(read) => read,
        Poll::Pending => panic!("nothing has to be waited for"),
    };
    let left = buffer.iter().copied().chain(stream.0.into_iter().flatten()).collect();
    (read.map_err(|error| error.to_string()), left)
}

#[test]
fn a_client_that_sends_nothing_has_closed() {
    assert_eq!(read([]).0, Err(ReadHeadError::Closed.to_string()));
}

#[test]
fn a_head_that_breaks_off_is_malformed() {
    for head in ["C", "CONNECT a:1 HTTP/1.1", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n"] {
        assert_eq!(read([head.into()]).0, Err(HeadError::Malformed.to_string()), "{head:?}");
    }
}

#[test]
fn an_endless_head_is_read_up_to_the_limit() {
    for line in ["x", "CONNECT a:1 HTTP/1.1\r\nA: "] {
        let (read, left) = read([line.into(), vec![b'x'; 2 * MAX_HEAD_BYTES]]);
        assert_eq!(read, Err(HeadError::TooLarge.to_string()));
        assert_eq!(left.len(), line.len() + 2 * MAX_HEAD_BYTES);
    }
}

#[test]
fn a_head_of_single_bytes_is_parsed_no_more_often_than_needed() {
    let head = ["CONNECT a:1 HTTP/1.1\r\n", &"A: b\r\n".repeat(100), "\r\n"].concat();
    let parsed = (0..head.len()).filter(|&seen| worth_parsing(&head.as_bytes()[..=seen], seen));
    assert_eq!(parsed.collect::<Vec<_>>(), [21, head.len() - 1]);
}

/// Heads that are nearly right, from parts that matter to the parser.
fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "CONNECT",
        "GET",
        "PRI",
        " ",
        "a:1",
        "[::1]:80",
        "/",
        "*",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/2.0",
        "\r\n",
        "\n",
        "\r",
        ":",
        "Host: a",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "\0",
        "\u{e9}",
    ]);
    let parts = prop::collection::vec(part, 0..20);
    let whole = ("CONNECT|GET", "a:1|/|\\*", "[012]", "(Host: a\r\n|A: b\n|Content-Length: 3\r\n){0,4}");
    let whole = whole.prop_map(|(method, target, minor, fields)| {
        format!("{method} {target} HTTP/1.{minor}\r\n{fields}\r\nbytes\r\n\r\nbehind")
    });
    prop_oneof![
        parts.prop_map(|parts| parts.concat().into_bytes()),
        whole.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..100),
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in head_like()) {
        let _ = parse(&bytes);
    }

    /// However the bytes arrive, the request is the same, and what follows it is kept.
    #[test]
    fn any_split_reads_the_same(bytes in head_like(), lengths in prop::collection::vec(1_usize..30, 0..30)) {
        let whole = read([bytes.clone()]);
        prop_assert!(bytes.ends_with(&whole.1));
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        for length in lengths {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            pieces.push(piece.to_vec());
            rest = after;
        }
        pieces.push(rest.to_vec());
        let split = read(pieces);
        prop_assert_eq!(&split.0, &whole.0);
        if whole.0.is_ok() {
            prop_assert_eq!(split.1, whole.1);
        }
    }

    #[test]
    fn single_bytes_read_the_same(bytes in head_like()) {
        let split = read(bytes.iter().map(|&byte| vec![byte]));
        prop_assert_eq!(split.0, read([bytes]).0);
    }
}
