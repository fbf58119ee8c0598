//! Carries an established dial to its end, the same at both ends of the tunnel.

use konnectivity_transport::{
    dial::OpenDial,
    relay::{Start, relay},
    socket::Socket,
    wire::code::StreamCode,
};
use tokio_util::sync::CancellationToken;

use crate::dial_record::{DialMetrics, DialRecord};

/// An established dial and what it carries between.
pub struct Established<S: Socket, M: DialMetrics, G> {
    /// The client's or the target's socket.
    pub socket: S,
    /// The stream, with its place on the connection's books.
    pub dial: OpenDial,
    /// How the relay begins.
    pub start: Start,
    /// Cancelled when dials must end now.
    pub stop: CancellationToken,
    /// Written when the relay has ended.
    pub record: DialRecord<M>,
    /// Dropped when the dial is over.
    pub guard: G,
}

impl<S: Socket + Send, M: DialMetrics + Send + Sync, G: Send> Established<S, M, G> {
    /// Relays until both directions have ended or `stop` is cancelled, writes the record, and returns when the peer has
    /// acknowledged the last byte. A dial that is stopped ends with an error at both ends, after what was sent.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream and the socket.
    pub fn carry(self) -> impl Future<Output = ()> + Send {
        let Self { socket, mut dial, start, stop, record, guard } = self;
        // A block and not an async function, whose future would hold each argument twice, as would a block around this
        // one: most dials are idle.
        async move {
            let outcome = tokio::select! {
                outcome = relay(socket, &mut dial, start) => Some(outcome),
                () = stop.cancelled() => None,
            };
            let (label, error) = match &outcome {
                Some(outcome) => (outcome.label(), outcome.error()),
                None => ("drain_deadline", Some(StreamCode::DrainDeadline.meaning().to_owned())),
            };
            if outcome.is_none() {
                dial.stream.receive.stop(StreamCode::DrainDeadline);
                dial.stream.send.reset_after_delivery(StreamCode::DrainDeadline).await;
            }
            let (sent, received) = (dial.stream.flow().bytes_sent(), dial.stream.flow().bytes_received());
            record.finish(label, error.as_deref(), sent, received);
            dial.stream.send.delivered().await;
            drop(guard);
        }
    }
}
