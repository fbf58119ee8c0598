use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
    time::Instant,
};

use super::*;

/// Tells of every request and replies that the target is connected.
struct Connected(Sender<ConnectRequest>);

impl Handler for Connected {
    async fn connect(&self, mut stream: PeerStream, request: ConnectRequest) {
        self.0.send(request).await.unwrap();
        stream.write_all(reply::ESTABLISHED).await.unwrap();
    }
}

/// A client that is served, what it has asked for, and the task that serves it.
fn start() -> (UnixStream, Receiver<ConnectRequest>, JoinSet<()>) {
    let (stream, client) = UnixStream::pair().unwrap();
    let (told, requests) = channel(1);
    let mut serving = JoinSet::new();
    serving.spawn(async move { serve(stream.into(), &Connected(told)).await });
    (client, requests, serving)
}

/// Sends, and reads until the server closes.
async fn answer(bytes: &[u8]) -> (String, Option<ConnectRequest>) {
    let (mut client, mut requests, _serving) = start();
    client.write_all(bytes).await.unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    (heard, requests.recv().await)
}

const CONNECT: &str = "CONNECT 10.0.0.7:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
const ESTABLISHED: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";

#[tokio::test]
async fn the_request_of_kube_apiserver_is_handed_over() {
    let (heard, request) = answer(CONNECT.as_bytes()).await;
    assert_eq!(heard, ESTABLISHED);
    let request = request.unwrap();
    assert_eq!(request.target, "10.0.0.7:10250");
    assert_eq!(request.pipelined.capacity(), 0, "no buffer is held for bytes that didn't come");
}

#[tokio::test]
async fn bytes_behind_the_request_are_kept() {
    let (_, request) = answer(format!("{CONNECT}\r\n\r\nCONNECT").as_bytes()).await;
    assert_eq!(request.unwrap().pipelined, b"\r\n\r\nCONNECT".as_slice());
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_understood() {
    let (mut client, mut requests, _serving) = start();
    for byte in CONNECT.bytes() {
        client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(requests.recv().await.unwrap().target, "10.0.0.7:10250");
}

#[tokio::test]
async fn a_connection_goes_on_after_a_method_that_is_not_allowed() {
    let refused = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let (heard, request) = answer([refused, refused, CONNECT].concat().as_bytes()).await;
    let replies: Vec<_> = heard.split_inclusive("passthrough\n").collect();
    assert_eq!(replies.len(), 3, "{heard}");
    assert!(replies[..2].iter().all(|reply| reply.starts_with("HTTP/1.1 405 Method Not Allowed\r\n")));
    assert!(!heard.contains("Connection: close"), "{heard}");
    assert_eq!(replies[2], ESTABLISHED);
    assert!(request.unwrap().pipelined.is_empty());
}

#[tokio::test]
async fn a_body_may_come_later_than_its_head() {
    let (mut client, mut requests, _serving) = start();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n").await.unwrap();
    for _ in 0..40 {
        client.write_all(&[b'x'; 1000]).await.unwrap();
        tokio::task::yield_now().await;
    }
    client.write_all(CONNECT.as_bytes()).await.unwrap();
    assert_eq!(requests.recv().await.unwrap().target, "10.0.0.7:10250");
}

#[tokio::test]
async fn the_connection_ends_after_the_reply_where_it_has_to() {
    let large = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &large,
    ] {
        let (heard, connected) = answer(format!("{request}{CONNECT}").as_bytes()).await;
        assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
        assert!(heard.ends_with("passthrough\n"), "{heard}");
        assert_eq!(connected, None);
    }
}

#[tokio::test]
async fn bad_requests_are_answered_and_end_the_connection() {
    for (request, status) in [
        ("nonsense\r\n", "400 Bad Request"),
        ("CONNECT ::1 HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("CONNECT a:1 HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported: unsupported protocol version"),
    ] {
        let (heard, connected) = answer(format!("{request}{CONNECT}").as_bytes()).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{heard}");
        assert!(heard.ends_with(status), "{heard}");
        assert_eq!(connected, None);
    }
}

#[tokio::test]
async fn a_head_above_the_limit_is_answered() {
    let (stream, client) = UnixStream::pair().unwrap();
    let (told, _requests) = channel(1);
    let served = async { serve(stream.into(), &Connected(told)).await };
    let (mut read, mut write) = client.into_split();
    let sent = async move {
        let _ = write.write_all(&vec![b'x'; 1 << 21]).await;
    };
    let mut heard = String::new();
    let (_, (), read) = tokio::join!(served, sent, read.read_to_string(&mut heard));
    assert!(heard.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{read:?} {heard}");
}

#[tokio::test]
async fn a_client_that_leaves_is_given_up() {
    let (mut client, mut requests, _serving) = start();
    client.shutdown().await.unwrap();
    assert_eq!(requests.recv().await, None);
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "");
}

#[tokio::test]
async fn a_client_that_breaks_off_is_answered_in_case_it_still_listens() {
    for (sent, status) in [
        ("CONNECT a:1 HTTP/1.1\r\nHost", "400 Bad Request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", "405 Method Not Allowed"),
    ] {
        let (mut client, mut requests, _serving) = start();
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{heard}");
        assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
        assert_eq!(requests.recv().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_nothing_is_left_after_a_minute_without_a_word() {
    for sent in ["", "CONNECT a:1 HT"] {
        let (mut client, _requests, _serving) = start();
        client.write_all(sent.as_bytes()).await.unwrap();
        let started = Instant::now();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "");
        assert_eq!(started.elapsed(), Duration::from_secs(60));
    }
}

#[test]
fn serving_can_be_spawned() {
    fn assert_send(_: impl Send) {}
    let (told, _) = channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (stream, _) = UnixStream::pair().unwrap();
    assert_send(serve(stream.into(), &Connected(told)));
}
