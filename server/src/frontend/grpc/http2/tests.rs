#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod client;
mod reads;

use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::{Request, Response};
use tokio::{io::DuplexStream, task::JoinSet};

use super::{
    head::{Head, flag, kind},
    testing::{Encoder, Form, OwnField, field, frame},
    *,
};
use client::{Client, request};

const SETTINGS: u8 = 4;
const UDS: &str = "%2Fetc%2Fkubernetes%2Fkonnectivity-server%2Fkonnectivity-server.socket";

/// Serves a connection as its task does: each request is answered with its own `x-` fields, at once, without a body.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(socket: S, watch: Arc<Watch>) -> Vec<Request<RecvStream>> {
    let mut http2 = server::handshake(socket).await.unwrap();
    let (mut requests, mut ending) = (Vec::new(), false);
    poll_fn(|cx| {
        loop {
            match http2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    let mut response = Response::new(());
                    let own = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-"));
                    response.headers_mut().extend(own.map(|(name, value)| (name.clone(), value.clone())));
                    respond.send_response(response, true).unwrap();
                    requests.push(request);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if ending => return Poll::Pending,
                Poll::Pending => {
                    let Some(violation) = watch.violation() else { return Poll::Pending };
                    ending = true;
                    http2.abrupt_shutdown(violation.code());
                }
            }
        }
    })
    .await;
    requests
}

/// A client of raw frames, and its server.
async fn connect() -> (Client, JoinSet<Vec<Request<RecvStream>>>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (watch, mut servers) = (Arc::<Watch>::default(), JoinSet::new());
    servers.spawn(serve(Http2Socket::new(far, watch.clone()), watch));
    (Client::new(near).await, servers)
}

#[tokio::test(start_paused = true)]
async fn a_socket_path_is_refused_by_the_library_alone() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut servers = JoinSet::new();
    servers.spawn(serve(far, Arc::default()));
    let mut client = Client::new(near).await;
    client.headers(1, &request(UDS), Form::default()).await;
    let (_, code) = client.next(kind::RST_STREAM).await;
    assert_eq!(code, u32::from(Reason::PROTOCOL_ERROR).to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_socket_path_is_served() {
    for authority in [UDS, "/run/x.socket", "fd00::1", ""] {
        let (mut client, mut servers) = connect().await;
        client.headers(1, &request(authority), Form::default()).await;
        let (head, _) = client.next(kind::HEADERS).await;
        assert_eq!((head.stream, head.has(flag::END_STREAM)), (1, true));
        drop(client);
        let requests = servers.join_next().await.unwrap().unwrap();
        assert_eq!(requests[0].uri(), "http://localhost/ProxyService/Proxy");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_stays_in_step_over_hundreds_of_streams() {
    let (mut client, mut servers) = connect().await;
    for n in 0..600_u32 {
        // New fields now and then, so that old ones are evicted, and every representation in turn.
        let mut fields = request(UDS);
        fields.push(field("x-dial", &format!("{:0>40}", n / 3)));
        fields.push(field(&format!("x-{}", n / 50), "same"));
        let form = Form {
            indexed: true,
            added: n % 3 < 2,
            name_indexed: true,
            huffman_name: n % 2 == 0,
            huffman_value: n % 5 < 3,
        };
        client.headers(2 * n + 1, &fields, form).await;
        let (head, _) = client.next(kind::HEADERS).await;
        assert_eq!(head.stream, 2 * n + 1);
    }
    drop(client);
    let requests = servers.join_next().await.unwrap().unwrap();
    assert_eq!(requests.len(), 600);
    for (n, request) in requests.iter().enumerate() {
        assert_eq!(request.headers()["x-dial"], format!("{:0>40}", n / 3));
        assert_eq!(request.headers()[format!("x-{}", n / 50)], "same");
        assert_eq!(request.headers()["user-agent"], "grpc-go/1.80.0");
        assert_eq!(request.uri(), "http://localhost/ProxyService/Proxy");
    }
}

#[tokio::test(start_paused = true)]
async fn another_client_stays_in_step_with_its_streams_at_once() {
    let (near, far) = tokio::io::duplex(4096);
    let (watch, mut servers) = (Arc::<Watch>::default(), JoinSet::new());
    servers.spawn(serve(Http2Socket::new(far, watch.clone()), watch.clone()));
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut responses = Vec::new();
    for n in 0..300 {
        let request = Request::post("http://localhost/ProxyService/Proxy")
            .header("x-dial", format!("{n:0>60}"))
            .header(format!("x-{}", n % 7), format!("{}", n % 11));
        client = client.ready().await.unwrap();
        let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(vec![7; n]), true).unwrap();
        responses.push(response);
    }
    for (n, response) in responses.into_iter().enumerate() {
        let response = response.await.unwrap();
        assert_eq!(response.headers()["x-dial"], format!("{n:0>60}"));
        assert_eq!(response.headers()[format!("x-{}", n % 7)], format!("{}", n % 11));
    }
    assert_eq!(watch.violation(), None);
}

#[tokio::test(start_paused = true)]
async fn a_client_may_ping_whenever_it_was_answered() {
    let (mut client, _servers) = connect().await;
    for n in 0..100 {
        client.headers(2 * n + 1, &request(UDS), Form::default()).await;
        client.next(kind::HEADERS).await;
        client.write(&frame(kind::PING, 0, 0, &[0; 8])).await;
        client.next(kind::PING).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_field_ends_its_stream_only() {
    let (mut client, _servers) = connect().await;
    let bad = [request("localhost"), vec![field("Bad Name", "v")]].concat();
    client.headers(1, &bad, Form { added: true, ..Form::default() }).await;
    let (head, code) = client.next(kind::RST_STREAM).await;
    assert_eq!((head.stream, code), (1, u32::from(Reason::PROTOCOL_ERROR).to_be_bytes().to_vec()));
    client.headers(3, &request("localhost"), Form { indexed: true, ..Form::default() }).await;
    assert_eq!(client.next(kind::HEADERS).await.0.stream, 3);
}

#[tokio::test(start_paused = true)]
async fn headers_that_are_too_large_reach_the_rpc_layer_by_their_path() {
    let (mut client, mut servers) = connect().await;
    let mut fields = request("localhost");
    fields.extend((0..20).map(|_| field("x-large", &"v".repeat(3500))));
    client.headers(1, &fields, Form { indexed: true, added: true, ..Form::default() }).await;
    assert_eq!(client.next(kind::HEADERS).await.0.stream, 1);
    client.headers(3, &request("localhost"), Form { indexed: true, ..Form::default() }).await;
    assert_eq!(client.next(kind::HEADERS).await.0.stream, 3);
    drop(client);
    let requests = servers.join_next().await.unwrap().unwrap();
    assert_eq!([requests[0].uri().path(), requests[1].uri().path()], [TOO_LARGE_PATH, "/ProxyService/Proxy"]);
}

/// What a client gets for these octets behind a sound request: code and text of a GOAWAY.
async fn goaway(octets: &[u8]) -> (Reason, String) {
    let (mut client, mut servers) = connect().await;
    client.headers(1, &request(UDS), Form { added: true, ..Form::default() }).await;
    client.next(kind::HEADERS).await;
    client.write(octets).await;
    let (_, payload) = client.next(kind::GOAWAY).await;
    let code = u32::from_be_bytes(*payload[4..].first_chunk().unwrap());
    assert_eq!(servers.join_next().await.unwrap().unwrap().len(), 1, "the server has ended");
    (code.into(), String::from_utf8(payload[8..].to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_a_rule_is_told_which() {
    let ping = frame(kind::PING, 0, 0, &[1; 8]);
    let settings = frame(SETTINGS, 0, 0, b"");
    let reset = frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let priority = frame(2, 0, 1, &[0, 0, 0, 0, 16]);
    let full = frame(kind::CONTINUATION, 0, 3, &vec![0; 16_384]);
    let endless = [frame(kind::HEADERS, 0, 3, b""), full.repeat(5)].concat();
    let split = [frame(kind::HEADERS, 0, 3, b""), frame(kind::CONTINUATION, 0, 3, b"").repeat(200)].concat();
    let calm = Reason::ENHANCE_YOUR_CALM;
    for (what, octets, code, text) in [
        // The response has forgiven the first.
        ("pings", ping.repeat(5), calm, "too_many_pings"),
        ("pings among others", [settings.clone(), ping.repeat(5), settings].concat(), calm, "too_many_pings"),
        ("resets", reset.repeat(20_000), calm, "too_many_frames_without_payload"),
        ("priorities", priority.repeat(20_000), calm, "too_many_frames_without_payload"),
        ("an endless block", endless, calm, "header_block_too_large"),
        ("a block in pieces", split, calm, "header_block_too_large"),
        (
            "no such index",
            frame(kind::HEADERS, 4, 3, b"\xff\x7f"),
            Reason::COMPRESSION_ERROR,
            "malformed_header_compression",
        ),
    ] {
        assert_eq!(goaway(&octets).await, (code, text.to_owned()), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_http2_forbids_are_refused_by_the_library() {
    for (what, octets, code) in [
        ("CONTINUATION alone", frame(kind::CONTINUATION, 4, 3, b""), Reason::PROTOCOL_ERROR),
        ("PUSH_PROMISE", frame(kind::PUSH_PROMISE, 4, 1, b"\0\0\0\x02"), Reason::PROTOCOL_ERROR),
        ("HEADERS on stream 0", frame(kind::HEADERS, 4, 0, b"\x82"), Reason::PROTOCOL_ERROR),
        ("HEADERS on stream 2", frame(kind::HEADERS, 4, 2, b"\x82"), Reason::PROTOCOL_ERROR),
        (
            "DATA within a block",
            [frame(kind::HEADERS, 0, 3, b"\x82"), frame(0, 0, 3, b"x")].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("padding too long", frame(kind::HEADERS, 4 | flag::PADDED, 3, b"\x05\x82"), Reason::PROTOCOL_ERROR),
        ("PING too long", frame(kind::PING, 0, 0, &[0; 9]), Reason::PROTOCOL_ERROR),
        (
            "HEADERS beyond the maximum",
            frame(kind::HEADERS, 4, 3, &[0; 16_385])[..9].to_vec(),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("DATA beyond the maximum", frame(kind::DATA, 0, 3, &[0; 16_385])[..9].to_vec(), Reason::FRAME_SIZE_ERROR),
    ] {
        assert_eq!(goaway(&octets).await.0, code, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http2_is_refused_by_the_library() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut client, socket) = (near, Http2Socket::new(far, Arc::default()));
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    server::handshake(socket).await.map(|_| ()).unwrap_err();
}
