//! Closing a stream so that its last words are read.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// For how long last words may find no room in the kernel's buffers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long, and for how many bytes, the peer's own bytes are awaited. Go's net/http waits as long.
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 256 * 1024;

/// Writes the last words, ends our half, and closes when the peer has ended its half too or after half a second.
///
/// A TCP socket that is closed with bytes unread answers with RST, and the RST makes the peer's kernel forget what the
/// peer has not read yet (RFC 1122, section 4.2.2.13). So what the peer still sends is read and thrown away for a
/// while. Errors don't matter any more: the stream is over in any case.
///
/// # Cancel safety
/// Cancelling closes the stream at once.
pub async fn close_with(mut stream: impl AsyncRead + AsyncWrite + Unpin, last_words: &[u8]) {
    let ended = timeout(WRITE_TIMEOUT, async {
        stream.write_all(last_words).await?;
        stream.shutdown().await
    });
    if matches!(ended.await, Ok(Ok(()))) {
        // Reaching the limit is no worse than not waiting.
        let _ = timeout(LINGER_TIMEOUT, discard(&mut stream, LINGER_BYTES)).await;
    }
}

/// Reads up to `bytes` bytes and throws them away. Returns how many came, which are fewer if the stream ended.
///
/// # Errors
/// What reading fails with.
///
/// # Cancel safety
/// How many bytes are gone is not known after cancelling.
pub async fn discard(stream: impl AsyncRead + Unpin, bytes: u64) -> io::Result<u64> {
    tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn the_last_words_survive_unread_bytes_of_the_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        peer.write_all(&[7; 100_000]).await.unwrap();
        let listening = async move {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"no");
        };
        tokio::join!(close_with(stream, b"no"), listening);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stays_is_left_after_half_a_second() {
        let (stream, mut peer) = tokio::io::duplex(64);
        let started = tokio::time::Instant::now();
        close_with(stream, b"no").await;
        assert_eq!(started.elapsed(), LINGER_TIMEOUT);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_left_after_ten_seconds() {
        let (stream, _peer) = tokio::io::duplex(1);
        let started = tokio::time::Instant::now();
        close_with(stream, b"no").await;
        assert_eq!(started.elapsed(), WRITE_TIMEOUT);
    }
}
