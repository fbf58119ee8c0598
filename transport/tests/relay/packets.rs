//! The relay over a socket that carries packets, as a gRPC client's does: it holds bytes to be taken, and its peer
//! closes both directions at once.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use konnectivity_transport::socket::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// A socket, and the hand by which a test moves it.
#[derive(Clone, Default)]
struct Packets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    incoming: VecDeque<Bytes>,
    closed: bool,
    outgoing: Vec<u8>,
    shut: bool,
    reset: bool,
    reader: Option<Waker>,
}

impl Packets {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        let result = change(&mut state);
        state.reader.take().into_iter().for_each(Waker::wake);
        result
    }

    fn send(&self, bytes: &[u8]) {
        self.with(|state| state.incoming.push_back(Bytes::copy_from_slice(bytes)));
    }

    /// As CLOSE_REQ does.
    fn close(&self) {
        self.with(|state| state.closed = true);
    }
}

impl AsyncRead for Packets {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = self.0.lock().unwrap();
        assert!(state.incoming.is_empty(), "bytes that are held are copied");
        if state.closed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Packets {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        state.outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Socket for Packets {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        if !state.incoming.is_empty() || state.closed {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn held_bytes(&self) -> Option<usize> {
        self.0.lock().unwrap().incoming.front().map(Bytes::len)
    }

    fn take_bytes(&mut self, max: usize) -> Bytes {
        let mut state = self.0.lock().unwrap();
        let Some(piece) = state.incoming.front_mut() else { return Bytes::new() };
        let taken = piece.split_to(max.min(piece.len()));
        if piece.is_empty() {
            state.incoming.pop_front();
        }
        taken
    }

    fn is_aborted(&mut self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.closed && state.incoming.is_empty()
    }

    fn reset_on_close(&self) {
        self.0.lock().unwrap().reset = true;
    }

    fn can_reset(&self) -> bool {
        false
    }

    fn unsent_bytes(&self) -> io::Result<usize> {
        Ok(0)
    }
}

/// A client of packets and its target, with both relays' outcomes.
struct Dial {
    client: Packets,
    target: TcpStream,
    server: JoinHandle<Outcome>,
    agent: JoinHandle<Outcome>,
}

impl Dial {
    async fn new(tunnel: &Tunnel) -> Self {
        let (mut at_server, mut at_agent) = tunnel.dial().await;
        let client = Packets::default();
        let (target, target_socket) = tcp_pair().await;
        let socket = client.clone();
        let server = tokio::spawn(async move { relay(socket, &mut at_server, Start::default()).await });
        let agent = tokio::spawn(async move { relay(target_socket, &mut at_agent, Start::default()).await });
        Self { client, target, server, agent }
    }
}

#[tokio::test]
async fn bytes_that_the_socket_holds_are_taken_in_their_order() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Dial { client, mut target, server, .. } = Dial::new(&tunnel).await;
    let bytes = pattern(300_000);
    // Pieces smaller and larger than one chunk of the relay.
    let mut rest = &bytes[..];
    for length in [1, 1024, 70_000, 1, 200_000].into_iter().cycle() {
        let (piece, more) = rest.split_at(rest.len().min(length));
        client.send(piece);
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    let mut received = vec![0; bytes.len()];
    within("the bytes", target.read_exact(&mut received)).await.unwrap();
    assert!(received == *bytes);
    target.write_all(b"answer").await.unwrap();
    target.shutdown().await.unwrap();
    client.close();
    let outcome = within("the end", server).await.unwrap();
    assert!(matches!(outcome, Outcome::Finished | Outcome::HalfStopped), "{outcome:?}");
}

/// A silent target must not keep a dial whose client has closed it: both sockets are closed cleanly.
#[tokio::test]
async fn a_client_that_closes_ends_the_dial_of_a_target_that_says_nothing() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Dial { client, mut target, server, agent } = Dial::new(&tunnel).await;
    client.send(b"last words");
    client.close();
    let mut received = Vec::new();
    within("the end at the target", target.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"last words");
    assert_eq!(within("the server's end", server).await.unwrap(), Outcome::Finished);
    // The target has neither closed nor written anything.
    assert_eq!(within("the agent's end", agent).await.unwrap(), Outcome::HalfStopped);
    assert!(target.take_error().unwrap().is_none(), "its socket was reset");
    client.with(|state| assert!(!state.reset));
}

/// The client closes while much of what it has sent waits for the target to read, and the target's bytes find it closed:
/// that is no reset, and every byte arrives.
#[tokio::test]
async fn a_close_behind_bytes_that_wait_destroys_none_of_them() {
    let tunnel = Tunnel::new(QuicSettings::default()).await;
    let Dial { client, mut target, server, .. } = Dial::new(&tunnel).await;
    // More than the stream's window and the sockets hold.
    let bytes = pattern(16 * 1024 * 1024);
    bytes.chunks(64 * 1024).for_each(|piece| client.send(piece));
    client.close();
    target.write_all(b"nobody reads this").await.unwrap();
    let mut received = Vec::new();
    within("the end", target.read_to_end(&mut received)).await.unwrap();
    assert!(received == *bytes, "{} of {} bytes", received.len(), bytes.len());
    let outcome = within("the server's end", server).await.unwrap();
    assert!(matches!(outcome, Outcome::HalfStopped | Outcome::Finished), "{outcome:?}");
}
