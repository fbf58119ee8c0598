//! A client that has asked for a target by DIAL_REQ and waits for DIAL_RSP.

use std::{future::poll_fn, io};

use konnectivity_transport::{
    packet::{Packet, message::Event},
    relay::Start,
};

use super::{
    rpc::{End, Rpc, close_dial, close_request, dial_request},
    socket::GrpcSocket,
};
use crate::{
    backend::carrier::AskError,
    dial::{client::Client, failure::Failure},
};

/// What a dial on an RPC that has one already is told.
pub const ONE_DIAL: &str = "one dial at a time on a stream";

/// The reference's words for a connection that there is not.
pub const UNKNOWN: &str = "Unknown connectID";

/// The reference's words for a dial that took too long.
const TIMED_OUT: &str = "timed out waiting for backend dial";

/// The client.
pub struct GrpcClient {
    rpc: Rpc,
    /// The client's number for the dial.
    random: i64,
    end: Option<End>,
}

impl GrpcClient {
    /// A client whose dial has this number.
    pub fn new(rpc: Rpc, random: i64) -> Self {
        Self { rpc, random, end: None }
    }
}

impl Client for GrpcClient {
    type Detached = Self;
    type Socket = GrpcSocket;
    type Guard = ();

    /// Its socket stays where it is: packets go from thread to thread.
    fn detach(self) -> io::Result<Self> {
        Ok(self)
    }

    fn attach(detached: Self) -> io::Result<Self> {
        Ok(detached)
    }

    /// Bytes for a connection that there is not yet are dropped: no client sends any.
    async fn left(&mut self) {
        loop {
            let event = match poll_fn(|cx| self.rpc.poll_event(cx)).await {
                Ok(event) => event,
                Err(end) => {
                    self.end = Some(end);
                    return;
                }
            };
            let Event::Packet(packet) = event else { continue };
            if close_dial(&packet) == Some(self.random) {
                return;
            }
            if let Some(connect_id) = close_request(&packet) {
                self.rpc.send_packet(&Packet::close_response(connect_id, UNKNOWN));
                return;
            }
            if let Some(random) = dial_request(&packet) {
                self.rpc.send_packet(&Packet::dial_failed(random, ONE_DIAL));
            }
        }
    }

    async fn established(mut self) -> io::Result<(GrpcSocket, Start, ())> {
        let connect_id = self.rpc.new_connect_id();
        self.rpc.queue(&Packet::connected(self.random, connect_id))?;
        let start = Start { hold_until_read: true, ..Start::default() };
        Ok((GrpcSocket::new(self.rpc, self.random, connect_id), start, ()))
    }

    /// The RPC goes on: its client may dial again.
    async fn failed(mut self, failure: Failure) {
        if let Some(end) = &self.end {
            return self.rpc.end_because(end);
        }
        let text = match failure {
            Failure::ClientLeft => None,
            Failure::NoAgent => Some("No agent available".to_owned()),
            Failure::SendTimedOut | Failure::TimedOut => Some(TIMED_OUT.to_owned()),
            Failure::Ask(AskError::Refused(text)) => Some(text),
            Failure::Ask(AskError::Send(error)) => Some(error.to_string()),
            Failure::Ask(AskError::GivenUp) => {
                self.rpc.send_packet(&Packet::close_dial(self.random));
                None
            }
            Failure::Ask(error) => Some(format!("the agent was lost before it answered: {error}")),
            Failure::Stopping => Some("the server stops".to_owned()),
        };
        if let Some(text) = text {
            self.rpc.send_packet(&Packet::dial_failed(self.random, text));
        }
        let worker = self.rpc.connection.worker.clone();
        worker.spawn(self.rpc.serve());
    }
}
