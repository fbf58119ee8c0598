//! The frontend that speaks HTTP CONNECT (RFC 9110, section 9.3.6), as the reference does on Go's net/http.

use std::{
    future::Future,
    io,
    time::{Duration, SystemTime},
};

use bytes::{Buf, BytesMut};
use tokio::{io::AsyncWriteExt, time::timeout};

use self::head::{ReadHeadError, Request, read_head};
use super::{client_stream::ClientStream, linger};

mod fields;
pub mod head;
pub mod reply;
mod target;

/// How long a client that is kept may take over the body of a refused request, and over reading the reply.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// `host:port` as the client wrote it, an IPv6 address in brackets. Nothing has checked that there is a port.
    pub target: String,
    /// Bytes for the target that came behind the request.
    pub pipelined: BytesMut,
}

/// What serves a client that has asked for a target.
pub trait Handler: Sync {
    /// Takes over the client, which waits for a reply from [`reply`], for good.
    fn connect(
        &self,
        stream: ClientStream,
        request: ConnectRequest,
    ) -> impl Future<Output = ()> + Send;
}

/// Serves a client until it is gone.
///
/// # Cancel safety
/// Cancelling drops the client's stream.
pub async fn serve<H: Handler>(stream: ClientStream, handler: &H) {
    if let Some((stream, request)) = next_connect(stream).await {
        handler.connect(stream, request).await;
    }
}

/// Reads requests, refusing them, until one is a CONNECT. `None` if there was none before the client was gone: by
/// itself, for want of a request in time, or because of what it sent.
async fn next_connect(mut stream: ClientStream) -> Option<(ClientStream, ConnectRequest)> {
    let mut buffer = BytesMut::new();
    loop {
        let other = match read_head(&mut stream, &mut buffer).await {
            Ok(Request::Connect { target }) => {
                let pipelined = if buffer.is_empty() {
                    // Gives the buffer back.
                    BytesMut::new()
                } else {
                    buffer
                };
                return Some((stream, ConnectRequest { target, pipelined }));
            }
            Ok(Request::Other(other)) => other,
            Err(ReadHeadError::Refused(error)) => {
                tracing::debug!(%error, "refused a request");
                linger::close_with(stream, reply::head_error(error)).await;
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "a client left without asking for a target");
                return None;
            }
        };
        tracing::debug!("refused a request whose method is not CONNECT");
        let refusal = reply::method_not_allowed(&other, SystemTime::now());
        if !other.keep_alive {
            linger::close_with(stream, &refusal).await;
            return None;
        }
        let kept = timeout(REFUSAL_TIMEOUT, async {
            skip(&mut stream, &mut buffer, other.body_bytes).await?;
            stream.write_all(&refusal).await?;
            stream.flush().await
        });
        if !matches!(kept.await, Ok(Ok(()))) {
            return None;
        }
    }
}

/// Throws away the body of a request, what is buffered of it first.
async fn skip(stream: &mut ClientStream, buffer: &mut BytesMut, bytes: u64) -> io::Result<()> {
    let buffered = usize::try_from(bytes).map_or(buffer.len(), |bytes| bytes.min(buffer.len()));
    buffer.advance(buffered);
    let missing = bytes - buffered as u64;
    if linger::discard(stream, missing).await? < missing {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
