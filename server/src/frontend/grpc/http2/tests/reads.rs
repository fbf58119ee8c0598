//! The socket as such, without the library.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Wake, Waker},
};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{
        pace::Violation,
        testing::walk_all,
        walk::{PREFACE, Walker},
    },
    *,
};

/// Gives its pieces one by one, and is not ready before an empty one.
#[derive(Debug)]
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(piece) = self.0.front_mut() else { return Poll::Ready(Ok(())) };
        let some: Vec<u8> = piece.drain(..piece.len().min(buf.remaining())).collect();
        let is_empty = piece.is_empty();
        if is_empty {
            self.0.pop_front();
        }
        if some.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        buf.put_slice(&some);
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

/// All that a reader gets through buffers of these sizes, until the end or until nobody wakes it.
fn read_all(socket: &mut Http2Socket<Pieces>, sizes: &[usize]) -> (Vec<u8>, io::Result<()>) {
    let wakes = Arc::<Wakes>::default();
    let waker = Waker::from(wakes.clone());
    let (mut all, mut sizes) = (Vec::new(), sizes.iter().cycle());
    loop {
        // What is there already must stay.
        let mut octets = vec![0; sizes.next().unwrap() + 3];
        let mut buf = ReadBuf::new(&mut octets);
        buf.put_slice(b"abc");
        let woken = wakes.0.load(Ordering::Relaxed);
        let result = Pin::new(&mut *socket).poll_read(&mut Context::from_waker(&waker), &mut buf);
        assert_eq!(&buf.filled()[..3], b"abc");
        let new = &buf.filled()[3..];
        match result {
            Poll::Pending => {
                assert_eq!(new, b"");
                if woken == wakes.0.load(Ordering::Relaxed) {
                    return (all, Ok(()));
                }
            }
            Poll::Ready(Ok(())) if !new.is_empty() => all.extend_from_slice(new),
            Poll::Ready(result) => return (all, result),
        }
    }
}

fn socket(pieces: impl IntoIterator<Item = Vec<u8>>) -> Http2Socket<Pieces> {
    Http2Socket::new(Pieces(pieces.into_iter().collect()), Arc::default())
}

/// A client with a few streams, DATA of many sizes and a header block of several frames.
fn connection() -> Vec<u8> {
    let mut octets = PREFACE.to_vec();
    let mut encoder = Encoder::default();
    octets.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    for stream in [1, 3, 5] {
        let mut block = Vec::new();
        let form = Form { indexed: true, added: true, huffman_value: true, ..Form::default() };
        request(UDS).iter().for_each(|field| encoder.put(field, form, &mut block));
        let (begin, end) = block.split_at(block.len() / 2);
        octets.extend(frame(kind::HEADERS, 0, stream, begin));
        octets.extend(frame(kind::CONTINUATION, flag::END_HEADERS, stream, end));
        for length in [0, 1, 5, 70, 3000] {
            octets.extend(frame(kind::DATA, 0, stream, &vec![0x55; length]));
            octets.extend(frame(kind::PING, flag::ACK, 0, &[0; 8]));
        }
    }
    octets
}

proptest! {
    #[test]
    fn buffers_and_pieces_of_any_size_give_the_same(
        pieces in prop::collection::vec(0..300_usize, 1..60),
        buffers in prop::collection::vec(prop_oneof![1..100_usize, 1..5000_usize], 1..10),
    ) {
        let octets = connection();
        let expected = walk_all(&mut Walker::default(), &octets, &[]).0;
        let (mut rest, mut cut) = (&octets[..], Vec::new());
        for piece in pieces {
            let (piece, behind) = rest.split_at(piece.min(rest.len()));
            cut.push(piece.to_vec());
            rest = behind;
        }
        cut.push(rest.to_vec());
        let mut socket = socket(cut);
        let (all, result) = read_all(&mut socket, &buffers);
        prop_assert!(all == expected);
        prop_assert!(result.is_ok());
        // The three streams that are open.
        prop_assert_eq!(socket.held(), 16);
    }
}

#[test]
fn an_end_within_a_frame_that_nobody_has_seen_is_an_error() {
    let octets = connection();
    for (end, is_error) in
        [(24, false), (24 + 4, true), (24 + 9, false), (39, false), (42, true), (48, true), (60, true)]
    {
        for size in [10, 5000] {
            let (_, result) = read_all(&mut socket([octets[..end].to_vec()]), &[size]);
            assert_eq!(result.is_err(), is_error, "at {end} with {size}");
        }
    }
}

#[test]
fn many_small_frames_let_others_have_a_turn() {
    let octets = [&PREFACE[..], &frame(kind::DATA, 0, 1, b"x").repeat(1000)].concat();
    let mut socket = socket([octets.clone()]);
    let wakes = Arc::<Wakes>::default();
    let waker = Waker::from(wakes.clone());
    let mut seen = Vec::new();
    for turn in 1..=4 {
        loop {
            let mut buffer = vec![0; 64 * 1024];
            let mut buf = ReadBuf::new(&mut buffer);
            match Pin::new(&mut socket).poll_read(&mut Context::from_waker(&waker), &mut buf) {
                Poll::Pending => break,
                Poll::Ready(result) => result.unwrap(),
            }
            seen.extend_from_slice(buf.filled());
            if buf.filled().is_empty() {
                assert_eq!((turn, &seen), (4, &octets));
                return assert_eq!(socket.held(), 0);
            }
        }
        assert_eq!((wakes.0.load(Ordering::Relaxed), seen.len()), (turn, 24 + 10 * 256 * turn));
    }
    panic!("the end was not reached");
}

#[test]
fn after_a_violation_nothing_more_is_read() {
    let pings = frame(kind::PING, 0, 0, &[0; 8]).repeat(100);
    let mut socket = socket([[&PREFACE[..], &pings].concat(), pings.clone(), pings]);
    let (all, _) = read_all(&mut socket, &[5000]);
    assert_eq!(all.len(), PREFACE.len() + 4 * 17);
    assert_eq!(socket.watch.violation(), Some(Violation::TooManyPings));
    assert_eq!((socket.held(), socket.socket.0.len()), (0, 2));
}

#[tokio::test]
async fn writes_pass_as_they_are() {
    let (near, mut far) = tokio::io::duplex(1024);
    let mut socket = Http2Socket::new(near, Arc::default());
    assert!(socket.is_write_vectored());
    let frames =
        [frame(SETTINGS, 0, 0, b""), frame(kind::GOAWAY, 0, 0, &[0; 8]), frame(kind::DATA, 0, 1, b"data")].concat();
    socket.write_all(&frames).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut seen = Vec::new();
    far.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, frames);
}

/// The figure is part of what an idle client costs.
#[test]
fn the_socket_adds_little() {
    assert!(size_of::<Http2Socket<()>>() <= 512, "{}", size_of::<Http2Socket<()>>());
}
