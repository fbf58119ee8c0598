//! A client that has asked for a target by CONNECT and waits for the reply.

use std::io;

use bytes::{Bytes, BytesMut};
use konnectivity_process::metrics::Counted;
use konnectivity_transport::relay::Start;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reply;
use crate::{
    accept::{
        linger,
        stream::{DetachedPeer, PeerStream},
    },
    backend::carrier::AskError,
    dial::{client::Client, failure::Failure},
};

/// Bytes that a client may send before its dial is answered; more waits in its socket.
const MAX_EARLY_BYTES: usize = 16 * 1024;

/// The client.
pub struct ConnectClient {
    /// Its connection.
    pub stream: PeerStream,
    /// What it has sent behind its request.
    pub early: BytesMut,
    /// Counts it until its dial is over.
    pub counted: Counted,
}

impl Client for ConnectClient {
    type Detached = (DetachedPeer, BytesMut, Counted);
    type Socket = PeerStream;
    type Guard = Counted;

    fn detach(self) -> io::Result<Self::Detached> {
        Ok((self.stream.detach()?, self.early, self.counted))
    }

    fn attach((stream, early, counted): Self::Detached) -> io::Result<Self> {
        Ok(Self { stream: stream.attach()?, early, counted })
    }

    /// A client that has sent bytes and then closed its side waits for the target's answer to them.
    async fn left(&mut self) {
        let Self { stream, early, .. } = self;
        let mut said_nothing = early.is_empty();
        while early.len() < MAX_EARLY_BYTES {
            early.reserve(4096);
            match stream.read_buf(early).await {
                Ok(0) if said_nothing => return,
                Ok(0) => break,
                Ok(_) => said_nothing = false,
                Err(_) => return,
            }
        }
        std::future::pending().await
    }

    /// The 200 leaves alone: nothing of the target is written before it, and the relay holds the target's first byte
    /// back until the client has read it.
    async fn established(self) -> io::Result<(Self::Socket, Start, Counted)> {
        let Self { mut stream, early, counted } = self;
        stream.write_all(reply::ESTABLISHED).await?;
        stream.flush().await?;
        // An empty buffer is given back: an idle dial holds none.
        let early = if early.is_empty() { Bytes::new() } else { early.freeze() };
        let start = Start { early, hold_until_read: stream.is_unix() };
        Ok((stream, start, counted))
    }

    async fn failed(self, failure: Failure) {
        let bytes = match failure {
            Failure::ClientLeft => return,
            Failure::NoAgent => reply::NO_AGENT.to_vec(),
            Failure::Ask(AskError::Refused(text)) => reply::dial_error(&text),
            Failure::Ask(AskError::Send(error)) => reply::send_failed(&error.to_string()),
            Failure::Ask(_) | Failure::Stopping => reply::agent_lost("context canceled"),
            Failure::SendTimedOut => reply::SEND_TIMED_OUT.to_vec(),
            Failure::TimedOut => reply::DIAL_TIMED_OUT.to_vec(),
        };
        linger::close_with(self.stream, &bytes).await;
    }
}
