//! A connected agent of the reference, as a handle for dials.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use konnectivity_process::connections::GrpcFacts;
use konnectivity_transport::{
    mux::{Mux, MuxDial},
    packet::Packet,
    stream::SendMessageError,
    wire::{
        codec::{EncodeError, MAX_DIAL_REQUEST_BYTES},
        message::DialRequest,
    },
};

use super::requests::{GivenUp, Requests};
use crate::backend::carrier::AskError;

/// A stream of packets to an agent. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct GrpcAgent {
    /// The dials that are connected.
    pub mux: Mux,
    /// The dials that are not yet.
    pub requests: Arc<Requests>,
    /// Where the agent is.
    pub remote: SocketAddr,
    /// When it came.
    pub since: Instant,
}

impl GrpcAgent {
    /// An agent that has just come.
    pub fn new(mux: Mux, remote: SocketAddr) -> Self {
        Self { mux, requests: Arc::default(), remote, since: Instant::now() }
    }

    /// Asks the agent for a target. See [`Carrier::ask`](crate::backend::carrier::Carrier::ask). The agent's own limit for
    /// the connect is 5 s, whatever the request says.
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up, and the agent is told.
    pub async fn ask(&self, request: DialRequest, sent: &Arc<AtomicBool>) -> Result<MuxDial, AskError> {
        let size = request.address.len();
        if size > MAX_DIAL_REQUEST_BYTES {
            let error = EncodeError::TooLarge { size, max: MAX_DIAL_REQUEST_BYTES };
            return Err(AskError::Send(SendMessageError::Encode(error)));
        }
        // Dials are numbered from a random place below 2^52.
        let dial_id = request.dial_id.cast_signed();
        let tell = |given_up| {
            if given_up == GivenUp::Sent {
                self.mux.send(Packet::close_dial(dial_id));
            }
        };
        self.requests.ask(dial_id, request.address, sent, tell).await
    }

    /// Dials that are connected or wait for their answer.
    pub fn open_dials(&self) -> usize {
        self.mux.open_dials() + self.requests.count()
    }

    /// What is known of it, for the admin page.
    pub fn facts(&self) -> GrpcFacts {
        GrpcFacts {
            remote: self.remote,
            age: self.since.elapsed(),
            open_dials: self.open_dials(),
            untaken_bytes: self.mux.held_bytes(),
        }
    }

    /// The stream is gone: every dial ends.
    pub fn lose(&self, reason: impl Into<Arc<str>>) {
        let reason = reason.into();
        self.requests.lose(&reason);
        self.mux.lose(reason);
    }
}
