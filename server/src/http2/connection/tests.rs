#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Wake, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinSet,
    time::timeout,
};

use super::*;
use crate::http2::{
    answer::Answer,
    code::{Code, Gone},
    head::{HEAD_BYTES, Head, flag, kind},
    session::PREFACE,
    testing::{Encoder, Form, SETTINGS, field, frame},
};

/// The clock of these tests stands still as long as anybody has work: this passes at once when everybody waits.
const PATIENCE: Duration = Duration::from_secs(60);

impl Socket for DuplexStream {
    /// It does not tell; a read does.
    fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Served = Connection<DuplexStream, Bytes>;

/// Gives every stream back what it sends, and ends it behind that.
async fn echo(mut stream: Stream<Bytes>) {
    stream.respond(Answer::with_status(200).and("x-echo", "yes")).unwrap();
    while let Some(Ok(mut piece)) = poll_fn(|cx| stream.poll_data(cx)).await {
        stream.release(piece.len());
        while !piece.is_empty() {
            let Ok(room) = poll_fn(|cx| stream.poll_room(cx, piece.len())).await else { return };
            stream.send(piece.split_to(room)).unwrap();
        }
    }
    stream.end(Answer::default().and("x-end", "good"));
}

/// Serves a connection to its end.
async fn serve(mut connection: Served) -> Result<(), String> {
    let mut echoes = JoinSet::new();
    while let Some(accepted) = poll_fn(|cx| connection.poll_accept(cx)).await {
        match accepted {
            Ok((_, stream)) => drop(echoes.spawn(echo(stream))),
            Err(error) => {
                let _ = poll_fn(|cx| connection.poll_farewell(cx)).await;
                return Err(error.to_string());
            }
        }
    }
    Ok(())
}

/// A client that writes what it is told.
struct Raw {
    socket: DuplexStream,
    served: JoinSet<Result<(), String>>,
    encoder: Encoder,
}

impl Raw {
    async fn new(buffer: usize) -> Self {
        let (socket, far) = duplex(buffer);
        let mut served = JoinSet::new();
        served.spawn(serve(Connection::new(far, SETTINGS)));
        let mut raw = Self { socket, served, encoder: Encoder::default() };
        raw.write(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat()).await;
        raw
    }

    async fn write(&mut self, octets: &[u8]) {
        let write = timeout(PATIENCE, self.socket.write_all(octets));
        let _ = write.await.expect("the server reads or closes");
    }

    async fn call(&mut self, stream: u32) {
        let mut block = Vec::new();
        for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "%2Fa")] {
            let form = Form { indexed: true, added: true, ..Form::default() };
            self.encoder.put(&field(name, value), form, &mut block);
        }
        self.write(&frame(kind::HEADERS, flag::END_HEADERS, stream, &block)).await;
    }

    /// The server's next frame of this kind.
    async fn next(&mut self, kind: u8) -> (Head, Vec<u8>) {
        let read = async {
            loop {
                let mut head = [0; HEAD_BYTES];
                self.socket.read_exact(&mut head).await.unwrap();
                let head = Head::parse(&head);
                let mut payload = vec![0; head.length as usize];
                self.socket.read_exact(&mut payload).await.unwrap();
                if head.kind == kind {
                    return (head, payload);
                }
            }
        };
        timeout(PATIENCE, read).await.expect("the frame comes")
    }

    async fn end(&mut self) -> Result<(), String> {
        timeout(PATIENCE, self.served.join_next()).await.expect("the connection ends").unwrap().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn another_library_is_served() {
    for buffer in [64, 4096, 1 << 20] {
        let (near, far) = duplex(buffer);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(serve(Connection::new(far, SETTINGS)).await) });
        let (client, connection) = h2::client::handshake(near).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        let mut client = client.ready().await.unwrap();
        let mut calls = JoinSet::new();
        for n in 0..50_usize {
            let request = http::Request::post("http://localhost/a").header("x-dial", format!("{n:0>60}"));
            client = client.ready().await.unwrap();
            let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
            let bytes: Vec<u8> = (0..n * n * 100).map(|place| (place / 7 + n) as u8).collect();
            calls.spawn(async move {
                send.send_data(Bytes::from(bytes.clone()), true).unwrap();
                let response = response.await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.headers()["x-echo"], "yes");
                let mut body = response.into_body();
                let mut read = Vec::new();
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    read.extend_from_slice(&data);
                }
                assert!(read == bytes, "{} of {} octets", read.len(), bytes.len());
                assert_eq!(body.trailers().await.unwrap().unwrap()["x-end"], "good");
            });
        }
        while let Some(done) = timeout(PATIENCE, calls.join_next()).await.expect("all of them end") {
            done.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_served_whatever_the_sockets_cut() {
    for buffer in [1, 7, 100, 65_536] {
        let mut raw = Raw::new(buffer).await;
        raw.call(1).await;
        for n in 0..50_u8 {
            raw.write(&frame(kind::DATA, 0, 1, &[n; 20])).await;
            let mut echoed = Vec::new();
            while echoed.len() < 20 {
                echoed.extend(raw.next(kind::DATA).await.1);
            }
            assert_eq!(echoed, [n; 20]);
        }
        raw.write(&frame(kind::DATA, flag::END_STREAM, 1, b"")).await;
        assert!(raw.next(kind::HEADERS).await.0.has(flag::END_STREAM));
        drop(raw.socket);
        let ended = timeout(PATIENCE, raw.served.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(ended, Ok(()), "an end between two frames is none of its errors");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_a_rule_is_told_which() {
    let ping = frame(kind::PING, 0, 0, &[1; 8]).repeat(5);
    for (octets, code, text) in [
        // The answer has forgiven the first.
        (ping, Code::ENHANCE_YOUR_CALM, "too_many_pings"),
        (frame(kind::HEADERS, 4, 3, b"\xff\x7f"), Code::COMPRESSION_ERROR, "malformed_header_compression"),
        (frame(kind::PING, 0, 0, b"short"), Code::FRAME_SIZE_ERROR, "frame_of_the_wrong_size"),
    ] {
        let mut raw = Raw::new(64 * 1024).await;
        raw.call(1).await;
        raw.next(kind::HEADERS).await;
        raw.write(&octets).await;
        let (_, payload) = raw.next(kind::GOAWAY).await;
        assert_eq!(payload, [&1_u32.to_be_bytes()[..], &code.0.to_be_bytes(), text.as_bytes()].concat());
        assert!(raw.end().await.unwrap_err().contains(text));
        assert_eq!(raw.socket.read_to_end(&mut Vec::new()).await.unwrap(), 0, "and then the end");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_within_a_frame_is_an_error() {
    for end in [1, 8, 9, 12] {
        let mut raw = Raw::new(64 * 1024).await;
        raw.call(1).await;
        raw.write(&frame(kind::DATA, 0, 1, b"some data")[..end]).await;
        raw.socket.shutdown().await.unwrap();
        assert!(raw.end().await.is_err(), "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_by_whoever_serves_it() {
    let (mut socket, far) = duplex(64 * 1024);
    let mut connection = Served::new(far, SETTINGS);
    let greeting = [&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat();
    // An index of each: method, scheme, path.
    let call = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x83\x86\x84");
    socket.write_all(&[&greeting[..], &call(1), &call(3)].concat()).await.unwrap();
    let (_, mut first) = poll_fn(|cx| connection.poll_accept(cx)).await.unwrap().unwrap();
    let (_, mut second) = poll_fn(|cx| connection.poll_accept(cx)).await.unwrap().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        assert_eq!(poll_fn(|cx| first.poll_gone(cx)).await, Gone::Reset(Code::CANCEL));
        assert_eq!(poll_fn(|cx| second.poll_data(cx)).await, Some(Err(Gone::Lost)));
    });
    socket.write_all(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8])).await.unwrap();
    drop(socket);
    assert!(poll_fn(|cx| connection.poll_accept(cx)).await.is_none_or(|accepted| accepted.is_err()));
    timeout(PATIENCE, tasks.join_next()).await.expect("both are told").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_left_ends_when_its_streams_have() {
    let (socket, far) = duplex(64 * 1024);
    let mut connection = Served::new(far, SETTINGS);
    let mut raw = Raw { socket, served: JoinSet::new(), encoder: Encoder::default() };
    raw.write(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat()).await;
    raw.call(1).await;
    let (_, mut stream) = poll_fn(|cx| connection.poll_accept(cx)).await.unwrap().unwrap();
    connection.leave();
    raw.served.spawn(async move { serve(connection).await });
    assert_eq!(raw.next(kind::GOAWAY).await.1[..4], 0x7fff_ffff_u32.to_be_bytes());
    let (_, ping) = raw.next(kind::PING).await;
    raw.write(&frame(kind::PING, flag::ACK, 0, &ping)).await;
    assert_eq!(raw.next(kind::GOAWAY).await.1[..4], 1_u32.to_be_bytes());
    stream.respond(Answer::with_status(200)).unwrap();
    stream.end(Answer::default());
    drop(stream);
    raw.next(kind::RST_STREAM).await;
    assert_eq!(raw.end().await, Ok(()));
}

/// Gives its pieces one by one, and is not ready before each of them. Takes everything.
struct Pieces(VecDeque<Vec<u8>>, bool);

impl Socket for Pieces {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(piece) = self.0.front_mut() else { return Poll::Ready(Ok(())) };
        let some: Vec<u8> = piece.drain(..piece.len().min(buf.remaining())).collect();
        if piece.is_empty() {
            self.0.pop_front();
        }
        buf.put_slice(&some);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn many_small_frames_let_others_have_a_turn() {
    const FRAMES: usize = 2000;
    let small = frame(kind::PRIORITY, 0, 1, &[0; 5]).repeat(FRAMES);
    let octets = [&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b""), &small].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let mut connection = Connection::<_, Bytes>::new(Pieces([octets].into(), false), SETTINGS);
    let wakes = Arc::<Wakes>::default();
    let waker = Waker::from(wakes.clone());
    let mut turns = 0;
    while connection.poll_accept(&mut Context::from_waker(&waker)).is_pending() {
        turns += 1;
        assert_eq!(wakes.0.load(Ordering::Relaxed), turns, "nobody wakes it");
    }
    assert!(turns >= FRAMES / 256, "{turns}");
}

/// The figures are part of what an idle client costs.
#[test]
fn a_connection_is_small() {
    assert!(size_of::<Connection<(), Bytes>>() <= 160, "{}", size_of::<Connection<(), Bytes>>());
}
