use std::{future::poll_fn, sync::mpsc, thread, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::*;
use crate::accept::test_certificates::{Authority, connect};

trait Peer: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Peer for T {}

type ClientTls = tokio_rustls::client::TlsStream<TcpStream>;

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, peer)
}

async fn tls() -> (PeerStream, ClientTls) {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = connect(address, authority.client(Some(authority.issue())));
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        PeerStream::accept_tls(stream, authority.server()).await.unwrap()
    };
    let (stream, peer) = tokio::join!(server, client);
    (stream, peer.unwrap())
}

#[derive(Debug, Clone, Copy)]
enum Over {
    Tcp,
    Unix,
    Tls,
}

const ALL: [Over; 3] = [Over::Tcp, Over::Unix, Over::Tls];

async fn pair(over: Over) -> (PeerStream, Box<dyn Peer>) {
    match over {
        Over::Tcp => {
            let (stream, peer) = tcp().await;
            (stream.into(), Box::new(peer))
        }
        Over::Unix => {
            let (stream, peer) = UnixStream::pair().unwrap();
            (stream.into(), Box::new(peer))
        }
        Over::Tls => {
            let (stream, peer) = tls().await;
            (stream, Box::new(peer))
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Moves a stream to another thread with a runtime of its own, and uses it there.
fn elsewhere<F>(stream: PeerStream, then: impl FnOnce(PeerStream) -> F + Send + 'static) -> thread::JoinHandle<()>
where
    F: Future<Output = ()>,
{
    let detached = stream.detach().unwrap();
    thread::spawn(move || runtime().block_on(async { then(detached.attach().unwrap()).await }))
}

async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

async fn read_ready(stream: &mut PeerStream) {
    let ready = timeout(Duration::from_secs(10), poll_fn(|cx| Socket::poll_read_ready(stream, cx)));
    ready.await.expect("a read would make progress").unwrap();
}

fn is_read_ready(stream: &mut PeerStream) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    Socket::poll_read_ready(stream, &mut cx).is_ready()
}

/// Polls one read, which must find nothing.
async fn find_nothing(stream: &mut PeerStream) {
    poll_fn(|cx| {
        let mut bytes = [0; 1];
        assert!(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut bytes)).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[test]
fn a_stream_goes_on_where_it_was_on_another_runtime() {
    for over in ALL {
        let here = runtime();
        let (mut stream, mut peer) = here.block_on(pair(over));
        here.block_on(async {
            peer.write_all(b"before and after").await.unwrap();
            peer.flush().await.unwrap();
            // Over TLS the rest of the record stays in the session.
            read_exactly(&mut stream, b"before").await;
            stream.write_all(b"from here, ").await.unwrap();
        });
        let moved = elsewhere(stream, async move |mut stream| {
            read_ready(&mut stream).await;
            read_exactly(&mut stream, b" and after").await;
            stream.write_all(b"from there").await.unwrap();
            stream.shutdown().await.unwrap();
            read_exactly(&mut stream, b"last").await;
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "{over:?}");
        });
        here.block_on(async {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"from here, from there", "{over:?}");
            peer.write_all(b"last").await.unwrap();
            peer.shutdown().await.unwrap();
        });
        moved.join().unwrap();
    }
}

#[test]
fn what_was_written_and_not_yet_sent_goes_along() {
    for over in ALL {
        let here = runtime();
        let (mut stream, mut peer) = here.block_on(pair(over));
        let chunk = vec![7; 50_000];
        let mut written = 0;
        // Until the kernel takes no more, and the TLS session neither.
        here.block_on(poll_fn(|cx| {
            while let Poll::Ready(bytes) = Pin::new(&mut stream).poll_write(cx, &chunk) {
                written += bytes.unwrap();
            }
            Poll::Ready(())
        }));
        let (told, writing) = mpsc::channel();
        let moved = elsewhere(stream, async move |mut stream| {
            told.send(()).unwrap();
            stream.write_all(b"end").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        });
        writing.recv().unwrap();
        here.block_on(async {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard.len(), written + 3, "{over:?}");
            assert!(heard.ends_with(b"\x07end"));
            peer.shutdown().await.unwrap();
        });
        moved.join().unwrap();
    }
}

#[tokio::test]
async fn half_close_leaves_the_other_direction_open() {
    for over in ALL {
        let (mut stream, mut peer) = pair(over).await;
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye", "{over:?}");
        peer.write_all(b"still here").await.unwrap();
        peer.shutdown().await.unwrap();
        heard.clear();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"still here", "{over:?}");
    }
}

#[tokio::test]
async fn a_tls_client_that_ends_without_close_notify_is_no_clean_end() {
    let (mut stream, mut peer) = tls().await;
    peer.write_all(b"cut").await.unwrap();
    peer.get_mut().0.shutdown().await.unwrap();
    read_ready(&mut stream).await;
    read_exactly(&mut stream, b"cut").await;
    read_ready(&mut stream).await;
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_dropped_tls_stream_is_no_clean_end_for_the_client() {
    let (stream, mut peer) = tls().await;
    drop(stream);
    let error = peer.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_reset_reaches_the_client() {
    for over in [Over::Tcp, Over::Tls] {
        let (stream, mut peer) = pair(over).await;
        assert!(stream.can_reset());
        stream.reset_on_close();
        drop(stream);
        let error = peer.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{over:?}");
    }
    assert!(!pair(Over::Unix).await.0.can_reset());
}

#[tokio::test]
async fn a_reset_of_the_client_is_seen_without_reading() {
    let (mut stream, peer) = tls().await;
    assert!(!stream.is_aborted());
    peer.get_ref().0.set_zero_linger().unwrap();
    drop(peer);
    read_ready(&mut stream).await;
    while !stream.is_aborted() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn readiness_waits_for_bytes_and_knows_those_in_the_session() {
    for over in ALL {
        let (mut stream, mut peer) = pair(over).await;
        find_nothing(&mut stream).await;
        assert!(!is_read_ready(&mut stream), "{over:?}");
        peer.write_all(b"two").await.unwrap();
        peer.flush().await.unwrap();
        read_ready(&mut stream).await;
        read_exactly(&mut stream, b"t").await;
        assert!(is_read_ready(&mut stream), "{over:?}");
        read_exactly(&mut stream, b"wo").await;
        find_nothing(&mut stream).await;
        assert!(!is_read_ready(&mut stream), "{over:?}");
    }
}

#[tokio::test]
async fn a_bad_record_behind_good_ones_is_reported_although_no_more_bytes_come() {
    let (mut stream, mut peer) = tls().await;
    find_nothing(&mut stream).await;
    // With the 22 bytes that TLS 1.3 adds to a record, as much as rustls reads at once. So the bad record is read
    // for itself, but in the same batch.
    let good = [7; 4096 - 22];
    peer.write_all(&good).await.unwrap();
    let bad_record = [23, 3, 3, 0, 5, 1, 2, 3, 4, 5];
    peer.get_mut().0.write_all(&bad_record).await.unwrap();
    let mut heard = Vec::new();
    let error = loop {
        read_ready(&mut stream).await;
        let mut bytes = [0; 100_000];
        let read = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut stream).poll_read(cx, &mut buffer);
            Poll::Ready(read.map(|read| read.map(|()| buffer.filled().to_vec())))
        });
        match read.await {
            Poll::Ready(Ok(bytes)) => heard.extend(bytes),
            Poll::Ready(Err(error)) => break error,
            Poll::Pending => {}
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(heard, good);
}

#[tokio::test]
async fn unsent_bytes_are_told_until_the_peer_has_them() {
    for over in ALL {
        let (mut stream, mut peer) = pair(over).await;
        let mut written = 0;
        poll_fn(|cx| {
            while let Poll::Ready(bytes) = Pin::new(&mut stream).poll_write(cx, &[7; 10_000]) {
                written += bytes.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert!(stream.unsent_bytes().unwrap() > 0, "{over:?}");
        let mut heard = vec![0; written];
        let (read, flushed) = tokio::join!(peer.read_exact(&mut heard), stream.flush());
        read.unwrap();
        flushed.unwrap();
        while stream.unsent_bytes().unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn vectored_writes_are_passed_on() {
    for over in ALL {
        let (mut stream, mut peer) = pair(over).await;
        assert!(stream.is_write_vectored(), "{over:?}");
        let slices = [io::IoSlice::new(b"one "), io::IoSlice::new(b"write")];
        let written = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &slices)).await;
        assert_eq!(written.unwrap(), 9, "{over:?}");
        read_exactly(&mut peer, b"one write").await;
    }
}

#[test]
fn both_forms_can_be_sent_to_other_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<PeerStream>();
    assert_send::<DetachedPeer>();
}

#[tokio::test]
async fn a_unix_client_that_is_gone_is_told_from_one_that_has_ended_its_half() {
    let (stream, mut peer) = pair(Over::Unix).await;
    peer.shutdown().await.unwrap();
    assert!(!stream.is_closed());
    drop(peer);
    assert!(stream.is_closed());
}
