//! The frontend that speaks HTTP CONNECT (RFC 9110, section 9.3.6), as the reference does on Go's net/http.

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Buf, BytesMut};
use tokio::{io::AsyncWriteExt, time::timeout};

use self::client::ConnectClient;
use self::head::{OtherRequest, ReadHeadError, Request, read_head};
use crate::{
    accept::{linger, stream::PeerStream},
    dial::Dials,
};

pub mod client;
mod fields;
pub mod head;
pub mod reply;
mod target;

/// How long a client may take over the body of a refused request.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client that sends one refused request after the other may take over reading the replies.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

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
    fn connect(&self, stream: PeerStream, request: ConnectRequest) -> impl Future<Output = ()> + Send;
}

impl Handler for Arc<Dials> {
    async fn connect(&self, stream: PeerStream, request: ConnectRequest) {
        let ConnectRequest { target, pipelined } = request;
        let client = ConnectClient { stream, early: pipelined, counted: self.metrics.http_connection() };
        self.dial(client, target).await;
    }
}

/// Serves a client until it is gone.
///
/// # Cancel safety
/// Cancelling drops the client's stream.
pub async fn serve<H: Handler>(stream: PeerStream, handler: &H) {
    if let Some((stream, request)) = next_connect(stream).await {
        handler.connect(stream, request).await;
    }
}

/// Reads requests, refusing them, until one is a CONNECT. `None` if there was none before the client was gone: by
/// itself, for want of a request in time, or because of what it sent.
async fn next_connect(mut stream: PeerStream) -> Option<(PeerStream, ConnectRequest)> {
    let mut buffer = BytesMut::new();
    loop {
        match read_head(&mut stream, &mut buffer).await {
            Ok(Request::Connect { target }) => {
                // An empty buffer is given back.
                let pipelined = if buffer.is_empty() { BytesMut::new() } else { buffer };
                return Some((stream, ConnectRequest { target, pipelined }));
            }
            Ok(Request::Other(other)) => stream = refuse(stream, &mut buffer, other).await?,
            Err(ReadHeadError::Refused(error)) => {
                tracing::debug!(%error, "refused a request");
                linger::close_with(stream, reply::head_error(error)).await;
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "a client left without asking for a target");
                return None;
            }
        }
    }
}

/// Refuses a request whose method is not CONNECT. Returns the stream if another request may follow.
async fn refuse(mut stream: PeerStream, buffer: &mut BytesMut, mut request: OtherRequest) -> Option<PeerStream> {
    tracing::debug!("refused a request whose method is not CONNECT");
    let skipped = timeout(BODY_TIMEOUT, skip(&mut stream, buffer, request.body_bytes)).await;
    request.keep_alive &= matches!(skipped, Ok(Ok(())));
    let refusal = reply::method_not_allowed(&request, SystemTime::now());
    if !request.keep_alive {
        linger::close_with(stream, &refusal).await;
        return None;
    }
    let written = timeout(REPLY_TIMEOUT, async {
        stream.write_all(&refusal).await?;
        stream.flush().await
    });
    matches!(written.await, Ok(Ok(()))).then_some(stream)
}

/// Throws away the body of a request, what is buffered of it first.
async fn skip(stream: &mut PeerStream, buffer: &mut BytesMut, bytes: u64) -> io::Result<()> {
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
