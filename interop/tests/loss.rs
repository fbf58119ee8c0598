//! Every byte that was taken is delivered before the close, whoever closes first.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use konnectivity_interop::{
    ends::{join, no_dials, read_pattern, until_read, write_pattern},
    pair::{Options, Pair, client::Client},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

const BOTH: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Closer {
    Client,
    Target,
}

#[tokio::test]
async fn bytes_written_before_a_close_arrive_whoever_closes() {
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();
        for bytes in [1, 100, 10_000, 2_000_000] {
            for closer in [Closer::Client, Closer::Target] {
                for trial in 0..20 {
                    let arrived = write_and_close(&client, closer, bytes).await;
                    assert_eq!(arrived, bytes, "{closer:?} closes, trial {trial}");
                }
            }
        }
        no_dials(&pair).await;
    }
}

/// How many bytes the other end has got until a clean end.
async fn write_and_close(client: &Client, closer: Closer, bytes: usize) -> usize {
    let (mut dial, mut target) = join(client).await;
    let (arrived, end) = match closer {
        Closer::Client => {
            let write = async {
                write_pattern(&mut dial, bytes).await;
                // For TLS the end must be said; for a Unix socket it is the same as the close.
                dial.shutdown().await.unwrap();
                drop(dial);
            };
            tokio::join!(read_pattern(&mut target, usize::MAX), write).0
        }
        Closer::Target => {
            let write = async {
                write_pattern(&mut target, bytes).await;
                drop(target);
            };
            tokio::join!(read_pattern(&mut dial, usize::MAX), write).0
        }
    };
    end.unwrap_or_else(|error| panic!("{closer:?} closes: {error} after {arrived} of {bytes} bytes"));
    arrived
}

/// A Unix client that just closes, without a word about it.
#[tokio::test]
async fn a_plain_close_of_a_unix_client_loses_nothing() {
    let pair = Pair::start(Options::unix()).await.unwrap();
    let client = pair.client().unwrap();
    for bytes in [1, 100_000] {
        for _ in 0..20 {
            let (mut dial, mut target) = join(&client).await;
            let write = async {
                write_pattern(&mut dial, bytes).await;
                drop(dial);
            };
            let ((arrived, end), ()) = tokio::join!(read_pattern(&mut target, usize::MAX), write);
            end.unwrap();
            assert_eq!(arrived, bytes);
        }
    }
}

/// The sender has closed long before its receiver begins to read.
#[tokio::test]
async fn a_late_reader_gets_everything() {
    const BYTES: usize = 1_000_000;
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();

        let (mut dial, mut target) = join(&client).await;
        write_pattern(&mut target, BYTES).await;
        let address = target.local_addr().unwrap();
        drop(target);
        until_read(address).await;
        let (arrived, end) = read_pattern(&mut dial, usize::MAX).await;
        end.unwrap();
        assert_eq!(arrived, BYTES);

        let (mut dial, mut target) = join(&client).await;
        write_pattern(&mut dial, BYTES).await;
        dial.shutdown().await.unwrap();
        drop(dial);
        let (arrived, end) = read_pattern(&mut target, usize::MAX).await;
        end.unwrap();
        assert_eq!(arrived, BYTES);
    }
}

/// The dial is over and both programs have closed their sockets before the receiver begins to read: the close must not
/// destroy what is in the kernel's buffers. (They hold this much.)
#[tokio::test]
async fn bytes_survive_the_end_of_the_dial() {
    const BYTES: usize = 100_000;
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        let client = pair.client().unwrap();

        let (mut dial, mut target) = join(&client).await;
        dial.shutdown().await.unwrap();
        assert_eq!(write_pattern(&mut target, BYTES).await, BYTES);
        drop(target);
        no_dials(&pair).await;
        let (arrived, end) = read_pattern(&mut dial, usize::MAX).await;
        assert!(arrived == BYTES && end.is_ok(), "to the client: {arrived} {end:?}");

        let (mut dial, mut target) = join(&client).await;
        target.shutdown().await.unwrap();
        assert_eq!(write_pattern(&mut dial, BYTES).await, BYTES);
        dial.shutdown().await.unwrap();
        drop(dial);
        no_dials(&pair).await;
        let (arrived, end) = read_pattern(&mut target, usize::MAX).await;
        assert!(arrived == BYTES && end.is_ok(), "to the target: {arrived} {end:?}");
    }
}

#[tokio::test]
async fn both_directions_at_once() {
    for options in BOTH {
        let pair = Pair::start(options()).await.unwrap();
        for bytes in [1, 3_000_000] {
            let (dial, target) = join(&pair.client().unwrap()).await;
            let (from_target, from_client) = tokio::join!(exchange(dial, bytes), exchange(target, bytes));
            assert_eq!((from_target, from_client), (bytes, bytes));
        }
        no_dials(&pair).await;
    }
}

/// Writes and reads at the same time; how many bytes came until a clean end.
async fn exchange(stream: impl AsyncRead + AsyncWrite, bytes: usize) -> usize {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write_pattern(&mut write, bytes).await;
        write.shutdown().await.unwrap();
    };
    let ((arrived, end), ()) = tokio::join!(read_pattern(&mut read, usize::MAX), send);
    end.unwrap();
    arrived
}
