//! What a server asks for, packet by packet: dials, their bytes, their ends (compat 2.3 and 2.5, the agent's side).

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use konnectivity_process::{carry::Established, dial_record::DialRecord};
use konnectivity_transport::{
    mux::{Mux, MuxDial},
    packet::{DialRequest, Packet, PacketType, Payload, message::Event},
    relay::Start,
    wire::{code::StreamCode, message::DialErrorKind},
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::held_back::HeldBack;
use crate::{dial::Dials, metrics::Metrics};

/// Targets that may be connecting at once for one server. No file descriptors are left for more.
const MAX_PENDING: usize = 4096;

/// Bytes of a target's address. Names have at most 253.
const MAX_ADDRESS_BYTES: usize = 1024;

/// Bytes of the text that tells why a dial has failed.
const MAX_ERROR_BYTES: usize = 2048;

/// The dials of one connection. Clones are handles to the same ones.
#[derive(Clone)]
pub(super) struct Incoming {
    pub(super) mux: Mux,
    pub(super) pending: Pending,
    pub(super) dials: Dials,
    /// The last conn id that was given out, in the whole process.
    pub(super) next_connect_id: Arc<AtomicI64>,
}

impl Incoming {
    /// Does what the packet asks for.
    pub(super) fn handle(&self, event: Event) {
        match event {
            Event::Data { connect_id, bytes, first } => {
                if first {
                    self.dials.metrics.packet_received(PacketType::Data);
                }
                self.data(connect_id, bytes, first);
            }
            Event::Packet(packet) => {
                if let Some(kind) = packet.kind() {
                    self.dials.metrics.packet_received(kind);
                }
                self.control(packet);
            }
        }
    }

    fn data(&self, connect_id: i64, bytes: Bytes, first: bool) {
        if connect_id == 0 {
            tracing::debug!("bytes for no connection are dropped");
        } else if self.mux.receive(connect_id, bytes).is_err() && first {
            self.mux.send(Packet::close_response(connect_id, "unrecognized connectID"));
        }
    }

    fn control(&self, packet: Packet) {
        match (packet.kind(), packet.payload) {
            (Some(PacketType::DialReq), Some(Payload::DialRequest(request))) => self.dial(request),
            (Some(PacketType::DialReq), _) => self.dial(DialRequest::default()),
            (Some(PacketType::DialCls), Some(Payload::CloseDial(close))) => self.pending.give_up(close.random),
            (Some(PacketType::CloseReq), Some(Payload::CloseRequest(close))) => {
                if self.mux.close_received(close.connect_id, "").is_err() {
                    self.mux.send(Packet::close_response(close.connect_id, "Unknown connectID"));
                }
            }
            (kind, _) => tracing::debug!(?kind, number = packet.r#type, "a packet that is not for agents is ignored"),
        }
    }

    /// Connects the target in a task of its own.
    fn dial(&self, request: DialRequest) {
        let random = request.random;
        let connect_id = self.next_connect_id.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let ticket = match self.pending.begin(random, connect_id) {
            Ok(_) if request.address.len() > MAX_ADDRESS_BYTES => Err(Refusal::LongAddress),
            begun => begun,
        };
        match ticket {
            Ok(ticket) => {
                self.dials.tasks.spawn(self.clone().serve(request, connect_id, ticket));
            }
            Err(refusal) => {
                tracing::warn!(dial_id = random, %refusal, "a dial is refused");
                self.dials.metrics.dial_failed(DialErrorKind::NoResources);
                self.mux.send(Packet::dial_failed(random, refusal.to_string()));
            }
        }
    }

    /// Serves one dial to its end.
    async fn serve(self, request: DialRequest, connect_id: i64, ticket: Ticket) {
        let Self { mux, dials, .. } = self;
        let DialRequest { protocol, address, random } = request;
        let mut record = DialRecord::start(random.cast_unsigned(), &address, dials.metrics.clone());
        record.carried_by(dials.server.clone());
        let connected = tokio::select! {
            connected = dials.connect(&protocol, &address, dials.limit) => connected,
            () = ticket.given_up.cancelled() => {
                record.finish("cancelled", Some("the client has given the dial up"), 0, 0);
                return;
            }
            reason = mux.lost() => {
                record.finish("connection_lost", Some(&reason), 0, 0);
                return;
            }
            () = dials.stop.cancelled() => {
                mux.send(Packet::dial_failed(random, StreamCode::DrainDeadline.meaning()));
                record.finish("drain_deadline", Some(StreamCode::DrainDeadline.meaning()), 0, 0);
                return;
            }
        };
        match connected {
            Ok(socket) => match mux.open(connect_id) {
                Ok(dial) => {
                    drop(ticket);
                    mux.send(Packet::connected(random, connect_id));
                    run(socket, dial, record, &dials).await;
                }
                // Numbers are given out once only, for as long as 63 bits last.
                Err(error) => record.finish("aborted", Some(&error.to_string()), 0, 0),
            },
            Err(error) => {
                dials.metrics.dial_failed(error.kind);
                mux.send(Packet::dial_failed(random, shortened(&error.text)));
                record.finish("dial_failed", Some(&error.text), 0, 0);
            }
        }
    }
}

async fn run(socket: TcpStream, dial: MuxDial, record: DialRecord<Metrics>, dials: &Dials) {
    dials.metrics.dial_connected(record.started().elapsed());
    let guard = dials.metrics.endpoint_connection();
    let (socket, start, stop) = (HeldBack::new(socket), Start::default(), dials.stop.clone());
    Established { socket, dial, start, stop, record, guard }.carry().await;
}

/// A text that is not longer than what a server may be told.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ERROR_BYTES)]
}

/// Dials whose targets are connecting, by the number that the client has given them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<HashMap<i64, Connecting>>>);

#[derive(Debug)]
struct Connecting {
    connect_id: i64,
    given_up: CancellationToken,
}

/// A dial's place among the pending ones, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    pending: Pending,
    random: i64,
    connect_id: i64,
    given_up: CancellationToken,
}

/// Why a dial is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("too many dials in progress at this agent: {MAX_PENDING}")]
    TooMany,
    /// Whichever was answered first, a client would be given the other one's target.
    #[error("two dials with the same number are in progress")]
    Twice,
    #[error("dial tcp: address: longer than {MAX_ADDRESS_BYTES} bytes")]
    LongAddress,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Connecting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials that are pending.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn begin(&self, random: i64, connect_id: i64) -> Result<Ticket, Refusal> {
        let mut pending = self.lock();
        let count = pending.len();
        match pending.entry(random) {
            hash_map::Entry::Occupied(other) => {
                other.remove().given_up.cancel();
                Err(Refusal::Twice)
            }
            hash_map::Entry::Vacant(_) if count >= MAX_PENDING => Err(Refusal::TooMany),
            hash_map::Entry::Vacant(place) => {
                let given_up = CancellationToken::new();
                place.insert(Connecting { connect_id, given_up: given_up.clone() });
                Ok(Ticket { pending: self.clone(), random, connect_id, given_up })
            }
        }
    }

    /// The client has given a dial up. One that has its answer is closed in another way.
    fn give_up(&self, random: i64) {
        if let Some(connecting) = self.lock().remove(&random) {
            connecting.given_up.cancel();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        // The place may be another one's by now.
        if pending.get(&self.random).is_some_and(|connecting| connecting.connect_id == self.connect_id) {
            pending.remove(&self.random);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_comes_twice_is_nobodys() {
        let pending = Pending::default();
        let first = pending.begin(7, 1).unwrap();
        assert_eq!(pending.begin(7, 2).err(), Some(Refusal::Twice));
        assert!(first.given_up.is_cancelled());
        let third = pending.begin(7, 3).unwrap();
        drop(first);
        assert_eq!(pending.len(), 1, "the first one must not take the third one's place along");
        pending.give_up(8);
        assert!(!third.given_up.is_cancelled());
        pending.give_up(7);
        assert!(third.given_up.is_cancelled());
        drop(third);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn dials_in_progress_have_a_bound() {
        let pending = Pending::default();
        let mut tickets: Vec<_> =
            (0..MAX_PENDING as i64).map(|random| pending.begin(random, random).unwrap()).collect();
        assert_eq!(pending.begin(-1, -1).err(), Some(Refusal::TooMany));
        tickets.pop();
        assert!(pending.begin(-1, -1).is_ok());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "€".repeat(MAX_ERROR_BYTES);
        assert_eq!(shortened(&long).len(), MAX_ERROR_BYTES / 3 * 3);
    }
}
