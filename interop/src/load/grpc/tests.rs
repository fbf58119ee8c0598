#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::pair::grpc::frame::{HEAD, setting};
use crate::pair::grpc::header::Readings;
use crate::pair::grpc::message;

const ID: i64 = 3;

/// What hangs has failed.
const LIMIT: Duration = Duration::from_secs(20);

/// The server's end, by hand.
struct Server(DuplexStream);

impl Server {
    async fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn packet(&mut self, packet: Packet) {
        self.send(&[Frame::data(STREAM, message(&packet))]).await;
    }

    async fn frame(&mut self) -> Frame {
        let mut head = [0; HEAD];
        self.0.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Frame::new(kind, flags, u32::from_be_bytes(stream), payload)
    }

    /// The next one that is neither a window nor a ping: the answer to the dial has brought some.
    async fn said(&mut self) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.kind != kind::WINDOW_UPDATE && (frame.kind, frame.flags) != (kind::PING, 0) {
                return frame;
            }
        }
    }

    /// Everything up to the answer to a dial, which is left to the caller; returns the dial's number.
    async fn asked(&mut self) -> i64 {
        let mut preface = [0; PREFACE.len()];
        self.0.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, PREFACE);
        assert_eq!(self.frame().await, Frame::settings(&[]));
        self.send(&[Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 100)])]).await;
        assert_eq!(self.frame().await, Frame::settings_ack());
        let headers = self.frame().await;
        assert_eq!((headers.kind, headers.stream), (kind::HEADERS, STREAM));
        let headers = Readings::default().read(&headers.payload).unwrap();
        assert_eq!(headers, header::request("%2Ftmp%2Fa%20b-1.sock"));
        let asked = self.frame().await;
        let asked = Packet::decode(&asked.payload[5..]).unwrap();
        let Some(Payload::DialRequest(request)) = &asked.payload else { panic!("{asked:?}") };
        assert_eq!(asked, Packet::dial_request("127.0.0.1:8000", request.random));
        request.random
    }
}

/// A client, and a server that was asked and answers `answer`.
async fn answered(answer: impl Fn(i64) -> Packet) -> (Result<Client<DuplexStream>, DialError>, Server) {
    let (ours, theirs) = duplex(1024);
    let mut server = Server(theirs);
    let call = Call::over_unix(Path::new("/tmp/a b-1.sock"));
    let client = tokio::join!(Client::dial(ours, &call, "127.0.0.1:8000"), async {
        let random = server.asked().await;
        server.send(&[Frame::headers(STREAM, b"\x88".as_slice())]).await;
        server.packet(answer(random)).await;
    });
    (client.0, server)
}

async fn connected() -> (Client<DuplexStream>, Server) {
    let (client, server) = answered(|random| Packet::connected(random, ID)).await;
    (client.unwrap(), server)
}

#[tokio::test]
async fn a_refused_dial_tells_why() {
    let (client, _) = answered(|random| Packet::dial_failed(random, "No agent available")).await;
    let DialError::Refused(text) = client.unwrap_err() else { panic!("not refused") };
    assert_eq!(text, "No agent available");
}

#[tokio::test]
async fn numbers_of_dials_differ() {
    let ids: std::collections::BTreeSet<_> = (0..10_000).map(|_| dial_id()).collect();
    assert!(ids.len() == 10_000 && ids.first() >= Some(&0));
}

#[tokio::test]
async fn an_upload_waits_for_windows_and_answers_pings_meanwhile() {
    let (mut client, mut server) = connected().await;
    // 100 bytes of window, of which the dial has taken some; the rest is credit.
    let bytes: Vec<u8> = (0..50_000_u32).map(|at| (at % 251) as u8).collect();
    let upload = async {
        client.write_all(&bytes).await.unwrap();
        client.flush().await.unwrap();
    };
    let serve = async {
        let mut arrived = Vec::new();
        let first = server.said().await;
        assert!(first.payload.len() < 100);
        arrived.extend(first.payload);
        server.send(&[Frame::ping(*b"still on")]).await;
        assert_eq!(server.said().await, Frame::ping_ack(*b"still on"));
        server.send(&[Frame::window_update(STREAM, 100_000)]).await;
        let packets = [&bytes[..outgoing::PACKET_BYTES], &bytes[outgoing::PACKET_BYTES..]];
        let expected = packets.map(|bytes| message(&Packet::data(ID, Bytes::copy_from_slice(bytes)))).concat();
        while arrived.len() < expected.len() {
            arrived.extend(server.said().await.payload);
        }
        assert!(arrived == expected);
    };
    timeout(LIMIT, async { tokio::join!(upload, serve) }).await.unwrap();
}

#[tokio::test]
async fn credit_behind_unread_bytes_is_found_by_whoever_reads() {
    let (client, mut server) = connected().await;
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut echoed = [0; 5];
    let client = async {
        let (written, read) = tokio::join!(biased; writer.write_all(&[7; 100_000]), reader.read_exact(&mut echoed));
        read.unwrap();
        written.unwrap();
        writer.flush().await.unwrap();
    };
    // A task of its own, which wakes nobody by the way.
    let serve = tokio::spawn(async move {
        let mut arrived = server.said().await.payload.len();
        let bytes = message(&Packet::data(ID, Bytes::from_static(b"hello")));
        let credit = [0, STREAM].map(|stream| Frame::window_update(stream, 200_000));
        server.send(&[&[Frame::data(STREAM, bytes)], &credit[..]].concat()).await;
        while arrived < 100_000 {
            arrived += server.said().await.payload.len();
        }
    });
    timeout(LIMIT, client).await.unwrap();
    serve.await.unwrap();
    assert_eq!(&echoed, b"hello");
}

#[tokio::test]
async fn bytes_come_in_order_and_then_the_end() {
    let (mut client, mut server) = connected().await;
    for bytes in ["one ", "two ", "three"] {
        server.packet(Packet::data(ID, Bytes::from(bytes))).await;
    }
    server.packet(Packet::close_response(ID, "")).await;
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "one two three");
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn bytes_right_behind_the_answer_are_kept() {
    let (ours, theirs) = duplex(1024);
    let mut server = Server(theirs);
    let call = Call::over_unix(Path::new("/tmp/a b-1.sock"));
    let serve = async {
        let random = server.asked().await;
        let packets = [Packet::connected(random, ID), Packet::data(ID, Bytes::from_static(b"hello"))];
        let headers = Frame::headers(STREAM, b"\x88".as_slice());
        let [answer, banner] = packets.map(|packet| Frame::data(STREAM, message(&packet)));
        // All in one write, so that they come with one read.
        server.send(&[headers, answer, banner]).await;
        server.packet(Packet::close_response(ID, "")).await;
    };
    let (client, ()) = tokio::join!(Client::dial(ours, &call, "127.0.0.1:8000"), serve);
    let mut text = String::new();
    timeout(LIMIT, client.unwrap().read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn an_end_that_is_none_is_an_error() {
    let ends: [(&[Frame], &str); 3] = [
        (&[Frame::data(STREAM, message(&Packet::close_response(ID, "reset")))], "reset"),
        (&[Frame::reset(STREAM, 8)], "the call was reset with 8"),
        (&[Frame::headers(STREAM, b"\x88".as_slice()).ending()], "the call has ended"),
    ];
    for (frames, expected) in ends {
        let (mut client, mut server) = connected().await;
        server.packet(Packet::data(ID, Bytes::from_static(b"before"))).await;
        server.send(frames).await;
        let mut bytes = Vec::new();
        let error = client.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!((bytes.as_slice(), error.to_string().as_str()), (b"before".as_slice(), expected));
    }
    let (mut client, server) = connected().await;
    drop(server);
    assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_close_waits_for_the_servers_and_drops_what_still_comes() {
    let (client, mut server) = connected().await;
    let serve = async {
        assert_eq!(server.said().await, Frame::data(STREAM, message(&Packet::close_request(ID))));
        server.packet(Packet::data(ID, Bytes::from_static(b"late"))).await;
        server.packet(Packet::close_response(ID, "")).await;
        assert_eq!(server.said().await.kind, kind::GOAWAY);
        assert_eq!(server.0.read(&mut [0]).await.unwrap(), 0);
    };
    let (closed, ()) = timeout(LIMIT, async { tokio::join!(client.close(), serve) }).await.unwrap();
    closed.unwrap();
}

#[tokio::test]
async fn after_a_small_answer_windows_and_pings_go_along_with_what_is_sent_next() {
    let (mut client, mut server) = connected().await;
    server.packet(Packet::data(ID, Bytes::from(vec![1; 64]))).await;
    client.read_exact(&mut [0; 64]).await.unwrap();
    tokio::select! {
        biased;
        frame = server.frame() => panic!("sent by itself: {frame:?}"),
        () = std::future::ready(()) => {}
    }
    client.write_all(&[2; 10]).await.unwrap();
    client.flush().await.unwrap();
    let kinds = [server.frame().await.kind, server.frame().await.kind, server.frame().await.kind];
    assert_eq!(kinds, [kind::WINDOW_UPDATE, kind::PING, kind::DATA]);
}
