//! Carries an established dial to its end, the same at both ends of the tunnel and over whatever carries it.

use std::{future::Future, sync::Arc};

use konnectivity_transport::{
    DialFlow,
    dial::OpenDial,
    mux::MuxDial,
    relay::{Outcome, Start, relay},
    socket::Socket,
    wire::code::StreamCode,
};
use tokio_util::sync::CancellationToken;

use crate::dial_record::{DialMetrics, DialRecord};

/// An established dial, over QUIC or over gRPC.
pub trait Carried: Send + 'static {
    /// Relays between it and a socket until both directions have ended, and returns how.
    ///
    /// # Cancel safety
    /// Dropping the future makes the socket's close a reset.
    fn relay<S: Socket + Send>(&mut self, socket: S, start: Start) -> impl Future<Output = Outcome> + Send;

    /// Ends it because its time is over, after what was sent.
    fn stop(&mut self) -> impl Future<Output = ()> + Send;

    /// Ends it at once, because its socket has failed before there was anything to relay.
    fn abort(&mut self);

    /// Waits until what was sent has left this end, as far as can be known.
    fn delivered(&mut self) -> impl Future<Output = ()> + Send;

    /// What it has carried.
    fn flow(&self) -> &Arc<DialFlow>;
}

impl Carried for OpenDial {
    fn relay<S: Socket + Send>(&mut self, socket: S, start: Start) -> impl Future<Output = Outcome> + Send {
        relay(socket, self, start)
    }

    async fn stop(&mut self) {
        self.stream.receive.stop(StreamCode::DrainDeadline);
        self.stream.send.reset_after_delivery(StreamCode::DrainDeadline).await;
    }

    fn abort(&mut self) {
        self.stream.abort(StreamCode::SocketReset);
    }

    async fn delivered(&mut self) {
        self.stream.send.delivered().await;
    }

    fn flow(&self) -> &Arc<DialFlow> {
        self.stream.flow()
    }
}

impl Carried for MuxDial {
    fn relay<S: Socket + Send>(&mut self, socket: S, start: Start) -> impl Future<Output = Outcome> + Send {
        MuxDial::relay(self, socket, start)
    }

    async fn stop(&mut self) {
        MuxDial::stop(self);
    }

    /// Dropping it closes it.
    fn abort(&mut self) {}

    async fn delivered(&mut self) {
        MuxDial::delivered(self).await;
    }

    fn flow(&self) -> &Arc<DialFlow> {
        MuxDial::flow(self)
    }
}

/// An established dial and what it carries between.
pub struct Established<S: Socket, D: Carried, M: DialMetrics, G> {
    /// The client's or the target's socket.
    pub socket: S,
    /// The dial, with its place on its connection's books.
    pub dial: D,
    /// How the relay begins.
    pub start: Start,
    /// Cancelled when dials must end now.
    pub stop: CancellationToken,
    /// Written when the relay has ended.
    pub record: DialRecord<M>,
    /// Dropped when the dial is over.
    pub guard: G,
}

impl<S: Socket + Send, D: Carried, M: DialMetrics + Send + Sync, G: Send> Established<S, D, M, G> {
    /// Relays until both directions have ended or `stop` is cancelled, writes the record, and returns when the last byte
    /// has arrived, as far as can be known. A dial that is stopped ends with an error at both ends, after what was sent.
    ///
    /// # Cancel safety
    /// Dropping the future resets the dial and the socket.
    pub fn carry(self) -> impl Future<Output = ()> + Send {
        let Self { socket, mut dial, start, stop, record, guard } = self;
        // A block and not an async function, whose future would hold each argument twice, as would a block around this
        // one: most dials are idle.
        async move {
            let outcome = tokio::select! {
                outcome = dial.relay(socket, start) => Some(outcome),
                () = stop.cancelled() => None,
            };
            let (label, error) = match &outcome {
                Some(outcome) => (outcome.label(), outcome.error()),
                None => ("drain_deadline", Some(StreamCode::DrainDeadline.meaning().to_owned())),
            };
            if outcome.is_none() {
                dial.stop().await;
            }
            let (sent, received) = (dial.flow().bytes_sent(), dial.flow().bytes_received());
            record.finish(label, error.as_deref(), sent, received);
            dial.delivered().await;
            drop(guard);
        }
    }
}
