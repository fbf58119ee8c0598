//! The life of one dial: read the request, connect the target, answer, relay.

use std::{sync::Arc, time::Duration};

use konnectivity_process::{carry::Established, dial_record::DialRecord};
use konnectivity_transport::{
    dial::{IncomingDial, OpenDial},
    relay::Start,
    socket::Socket,
    stream::{MessageError, ReceiveError},
    wire::{
        code::StreamCode,
        message::{DialErrorKind, DialReply, DialRequest},
    },
};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    metrics::Metrics,
    target::{self, TargetError},
};

/// What every dial of this agent shares.
#[derive(Clone)]
pub struct Dials {
    /// The server whose dials these are.
    pub server: Arc<str>,
    /// Longest time for a target to connect, its name's look-up included.
    pub limit: Duration,
    /// Bytes that the kernel should hold for a target, in either direction; `None`: what it thinks best.
    pub socket_bytes: Option<u32>,
    /// Where dials are counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when dials must end now.
    pub stop: CancellationToken,
    /// Owns the task of every dial, and what is left to do for connections that are gone.
    pub tasks: TaskTracker,
}

impl Dials {
    /// Serves one dial to its end.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream and the target's socket.
    pub async fn serve(self, incoming: IncomingDial) {
        let (request, mut dial) = match incoming.request().await {
            Ok(request) => request,
            // A dial that was given up before its request was read is nobody's fault.
            Err(MessageError::Receive(error)) => {
                tracing::debug!(%error, "a dial ended before its request was read");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a dial request could not be read");
                return;
            }
        };
        let mut record = DialRecord::start(request.dial_id, &request.address, self.metrics.clone());
        record.carried_by(self.server.clone());
        let connected = tokio::select! {
            connected = self.connect_for(&request) => connected,
            error = dial.stream.receive.given_up() => {
                record.finish(given_up(&error), Some(&error.to_string()), 0, 0);
                return;
            }
            () = self.stop.cancelled() => {
                dial.stream.abort(StreamCode::DrainDeadline);
                record.finish("drain_deadline", Some(StreamCode::DrainDeadline.meaning()), 0, 0);
                return;
            }
        };
        match connected {
            Ok(socket) => self.run(socket, dial, record).await,
            Err(error) => self.refuse(&error, dial, record).await,
        }
    }

    async fn connect_for(&self, request: &DialRequest) -> Result<TcpStream, TargetError> {
        let asked = Duration::from_millis(u64::from(request.timeout_ms));
        let limit = if asked.is_zero() { self.limit } else { self.limit.min(asked) };
        self.connect(&request.network, &request.address, limit).await
    }

    /// Connects to a target within `limit`. There is no network but `tcp`.
    ///
    /// # Errors
    /// As [`target::connect`], in the reference's words.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connect.
    pub async fn connect(&self, network: &str, address: &str, limit: Duration) -> Result<TcpStream, TargetError> {
        if network != "tcp" {
            let text = format!("dial {network}: unknown network {network}");
            return Err(TargetError { kind: DialErrorKind::Malformed, text });
        }
        let target = target::connect(address, limit).await?;
        if let Some(bytes) = self.socket_bytes {
            bound_buffers(&target, bytes);
        }
        Ok(target)
    }

    async fn refuse(&self, error: &TargetError, mut dial: OpenDial, record: DialRecord<Metrics>) {
        self.metrics.dial_failed(error.kind);
        record.finish("dial_failed", Some(&error.text), 0, 0);
        if dial.answer(&DialReply::failed(error.kind, error.text.clone())).await.is_ok() {
            dial.finish_failed().await;
        }
    }

    async fn run(&self, socket: TcpStream, mut dial: OpenDial, record: DialRecord<Metrics>) {
        self.metrics.dial_connected(record.started().elapsed());
        let _open = self.metrics.endpoint_connection();
        let local = socket.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        if let Err(error) = dial.answer(&DialReply::connected(local)).await {
            socket.reset_on_close();
            record.finish("cancelled", Some(&error.to_string()), 0, 0);
            return;
        }
        let (start, stop, guard) = (Start::default(), self.stop.clone(), ());
        Established { socket, dial, start, stop, record, guard }.carry().await;
    }
}

fn given_up(error: &ReceiveError) -> &'static str {
    match error {
        ReceiveError::Lost(_) => "connection_lost",
        ReceiveError::Reset(_) | ReceiveError::Closed => "cancelled",
    }
}

/// Keeps the kernel from holding more than `bytes` for a target that does not read, or for a client that does not.
fn bound_buffers(target: &TcpStream, bytes: u32) {
    let socket = SockRef::from(target);
    // Linux takes twice what is asked for (socket(7), SO_RCVBUF). What it refuses stays as it is.
    let _ = socket.set_recv_buffer_size(bytes as usize / 2);
    // Not SO_SNDBUF, which would bound what is on its way as well.
    let _ = socket.set_tcp_notsent_lowat(bytes / 2);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;

    /// What a peer that does not read takes, until nothing moves for a while.
    async fn taken(bound: Option<u32>) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut target = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        // The peer's own buffer is small, so that it is this end's which is seen.
        SockRef::from(&peer).set_recv_buffer_size(64 * 1024).unwrap();
        if let Some(bytes) = bound {
            bound_buffers(&target, bytes);
            assert!(SockRef::from(&target).recv_buffer_size().unwrap() <= bytes as usize);
        }
        let (chunk, mut total) = ([0; 16 * 1024], 0);
        while let Ok(length) = timeout(Duration::from_millis(300), target.write(&chunk)).await {
            total += length.unwrap();
        }
        total
    }

    #[tokio::test]
    async fn a_bounded_socket_holds_little_for_a_peer_that_does_not_read() {
        let (bounded, unbounded) = (taken(Some(256 * 1024)).await, taken(None).await);
        assert!(bounded < 1024 * 1024, "{bounded}");
        assert!(bounded < unbounded, "{bounded} and {unbounded}: without a bound the kernel takes more");
    }
}
