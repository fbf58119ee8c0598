//! What both gRPC ports have in common, that for clients and that for agents.

pub mod status;
