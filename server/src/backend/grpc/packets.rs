//! What an agent's packets do (compat 2.5). An agent that lies harms its own dials only.

use bytes::Bytes;
use konnectivity_transport::packet::{CloseResponse, DialResponse, Packet, PacketType, Payload, message::Event};

use super::agent::GrpcAgent;
use crate::{
    backend::carrier::AskError,
    metrics::{DialFailure, Metrics, Segment},
};

/// What a client learns of an agent that says it is connected and does not say how.
const NO_CONNECTION: &str = "the agent answered without a connection";

/// The same for a number that another dial has.
const TAKEN: &str = "the agent answered with another dial's connection";

/// Takes what has come. `drain` is called when the agent wants no more dials.
pub fn take(agent: &GrpcAgent, event: Event, metrics: &Metrics, drain: impl FnOnce()) {
    match event {
        Event::Data { connect_id, bytes, first } => {
            if first {
                metrics.packet(Segment::FromAgent, PacketType::Data);
            }
            let is_unknown = agent.mux.receive(connect_id, bytes).is_err();
            if is_unknown && first && connect_id != 0 {
                agent.mux.send(Packet::close_request(connect_id));
            }
        }
        Event::Packet(packet) => {
            let kind = packet.kind();
            if let Some(kind) = kind {
                metrics.packet(Segment::FromAgent, kind);
            }
            match (kind, packet.payload) {
                (Some(PacketType::DialRsp), payload) => answer(agent, dial_response(payload), metrics),
                (Some(PacketType::DialCls), payload) => {
                    let random = match payload {
                        Some(Payload::CloseDial(close)) => close.random,
                        _ => 0,
                    };
                    if let Some(waiting) = agent.requests.answered(random) {
                        // Whoever has left needs no answer.
                        let _ = waiting.send(Err(AskError::GivenUp));
                    }
                }
                (Some(PacketType::CloseRsp), payload) => {
                    let CloseResponse { error, connect_id } = close_response(payload);
                    // A dial that is closed already needs no close.
                    let _ = agent.mux.close_received(connect_id, &error);
                }
                (Some(PacketType::Drain), _) => drain(),
                // What only a client sends, or what a later version does.
                _ => {}
            }
        }
    }
}

/// The type alone decides; a payload that is missing counts as an empty one.
fn dial_response(payload: Option<Payload>) -> DialResponse {
    match payload {
        Some(Payload::DialResponse(response)) => response,
        _ => DialResponse::default(),
    }
}

fn close_response(payload: Option<Payload>) -> CloseResponse {
    match payload {
        Some(Payload::CloseResponse(response)) => response,
        _ => CloseResponse::default(),
    }
}

fn answer(agent: &GrpcAgent, response: DialResponse, metrics: &Metrics) {
    let DialResponse { error, connect_id, random } = response;
    let Some(waiting) = agent.requests.answered(random) else {
        metrics.dial_failed(DialFailure::UnrecognizedResponse);
        // The connection of a dial that lives is left alone: somebody has it.
        if connect_id != 0 && agent.mux.receive(connect_id, Bytes::new()).is_err() {
            agent.mux.send(Packet::close_request(connect_id));
        }
        return;
    };
    let answer = if !error.is_empty() {
        Err(AskError::Refused(error))
    } else if connect_id == 0 {
        Err(AskError::Refused(NO_CONNECTION.to_owned()))
    } else {
        agent.mux.open(connect_id).map_err(|_| {
            tracing::warn!(connect_id, "an agent has answered two dials with one connection");
            AskError::Refused(TAKEN.to_owned())
        })
    };
    // A dial whose client has left by now is dropped here, and so closed.
    let _ = waiting.send(answer);
}

#[cfg(test)]
mod tests;
