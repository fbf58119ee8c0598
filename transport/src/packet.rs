//! The reference's own messages, which gRPC frontends speak (compat 1.2). Not part of the tunnel over QUIC.
//!
//! Whoever receives one goes by its type, never by which payload is there; a payload that is missing counts as empty.

pub mod frame;
pub mod message;

use bytes::Bytes;

/// Bytes of a message that the reference accepts at most: the default of its gRPC library, at all four ends.
pub const MAX_PACKET_BYTES: usize = 4 * 1024 * 1024;

/// What a packet is about. The first one is not on the wire: it is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum PacketType {
    /// A client asks for a target.
    DialReq = 0,
    /// The answer to it.
    DialRsp = 1,
    /// The client closes its connection.
    CloseReq = 2,
    /// The connection is closed: by the target, or as the client asked.
    CloseRsp = 3,
    /// Bytes either way.
    Data = 4,
    /// A dial is given up before its answer.
    DialCls = 5,
    /// An agent goes away soon.
    Drain = 6,
}

impl PacketType {
    /// Every type, at the place of its number.
    pub const ALL: [Self; 7] =
        [Self::DialReq, Self::DialRsp, Self::CloseReq, Self::CloseRsp, Self::Data, Self::DialCls, Self::Drain];

    /// Its name in metrics' labels, the reference's.
    pub fn name(self) -> &'static str {
        match self {
            Self::DialReq => "DIAL_REQ",
            Self::DialRsp => "DIAL_RSP",
            Self::CloseReq => "CLOSE_REQ",
            Self::CloseRsp => "CLOSE_RSP",
            Self::Data => "DATA",
            Self::DialCls => "DIAL_CLS",
            Self::Drain => "DRAIN",
        }
    }
}

/// One message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    /// A [`PacketType`]; a number that is none is for the receiver to ignore.
    #[prost(enumeration = "PacketType", tag = "1")]
    pub r#type: i32,
    /// What the type speaks of.
    #[prost(oneof = "Payload", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub payload: Option<Payload>,
}

/// What a packet carries.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Payload {
    /// Of [`PacketType::DialReq`].
    #[prost(message, tag = "2")]
    DialRequest(DialRequest),
    /// Of [`PacketType::DialRsp`].
    #[prost(message, tag = "3")]
    DialResponse(DialResponse),
    /// Of [`PacketType::Data`].
    #[prost(message, tag = "4")]
    Data(Data),
    /// Of [`PacketType::CloseReq`].
    #[prost(message, tag = "5")]
    CloseRequest(CloseRequest),
    /// Of [`PacketType::CloseRsp`].
    #[prost(message, tag = "6")]
    CloseResponse(CloseResponse),
    /// Of [`PacketType::DialCls`].
    #[prost(message, tag = "7")]
    CloseDial(CloseDial),
    /// Of [`PacketType::Drain`].
    #[prost(message, tag = "8")]
    Drain(Drain),
}

/// A client asks for a target.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DialRequest {
    /// Always `tcp` from the reference's frontends.
    #[prost(string, tag = "1")]
    pub protocol: String,
    /// `host:port`.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The client's number for this dial.
    #[prost(int64, tag = "3")]
    pub random: i64,
}

/// The answer to a [`DialRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DialResponse {
    /// Why there is no connection; empty if there is one.
    #[prost(string, tag = "1")]
    pub error: String,
    /// The connection's number; 0 if there is none.
    #[prost(int64, tag = "2")]
    pub connect_id: i64,
    /// The number that the request had.
    #[prost(int64, tag = "3")]
    pub random: i64,
}

/// The client closes its connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseRequest {
    /// The connection's number.
    #[prost(int64, tag = "1")]
    pub connect_id: i64,
}

/// The connection is closed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseResponse {
    /// Why; empty after a clean end.
    #[prost(string, tag = "1")]
    pub error: String,
    /// The connection's number.
    #[prost(int64, tag = "2")]
    pub connect_id: i64,
}

/// A dial is given up.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseDial {
    /// The number that the request had.
    #[prost(int64, tag = "1")]
    pub random: i64,
}

/// An agent goes away soon.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Drain {}

/// Bytes either way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Data {
    /// The connection's number.
    #[prost(int64, tag = "1")]
    pub connect_id: i64,
    /// Nobody sets or reads it.
    #[prost(string, tag = "2")]
    pub error: String,
    /// The bytes; none at all means end of file to the reference's client.
    #[prost(bytes = "bytes", tag = "3")]
    pub data: Bytes,
}

impl Packet {
    /// Its type; `None` if this version does not know it.
    pub fn kind(&self) -> Option<PacketType> {
        PacketType::try_from(self.r#type).ok()
    }

    fn new(kind: PacketType, payload: Payload) -> Self {
        Self { r#type: kind.into(), payload: Some(payload) }
    }

    /// A client asks for `host:port` over TCP.
    pub fn dial_request(address: impl Into<String>, random: i64) -> Self {
        let request = DialRequest { protocol: "tcp".to_owned(), address: address.into(), random };
        Self::new(PacketType::DialReq, Payload::DialRequest(request))
    }

    /// A dial has led to a connection.
    pub fn connected(random: i64, connect_id: i64) -> Self {
        let response = DialResponse { error: String::new(), connect_id, random };
        Self::new(PacketType::DialRsp, Payload::DialResponse(response))
    }

    /// A dial has failed.
    pub fn dial_failed(random: i64, error: impl Into<String>) -> Self {
        let response = DialResponse { error: error.into(), connect_id: 0, random };
        Self::new(PacketType::DialRsp, Payload::DialResponse(response))
    }

    /// Bytes of a connection.
    pub fn data(connect_id: i64, data: Bytes) -> Self {
        Self::new(PacketType::Data, Payload::Data(Data { connect_id, error: String::new(), data }))
    }

    /// The client closes.
    pub fn close_request(connect_id: i64) -> Self {
        Self::new(PacketType::CloseReq, Payload::CloseRequest(CloseRequest { connect_id }))
    }

    /// A connection is closed; `error` is empty after a clean end.
    pub fn close_response(connect_id: i64, error: impl Into<String>) -> Self {
        let response = CloseResponse { error: error.into(), connect_id };
        Self::new(PacketType::CloseRsp, Payload::CloseResponse(response))
    }

    /// A dial is given up.
    pub fn close_dial(random: i64) -> Self {
        Self::new(PacketType::DialCls, Payload::CloseDial(CloseDial { random }))
    }

    /// The agent goes away soon.
    pub fn drain() -> Self {
        Self::new(PacketType::Drain, Payload::Drain(Drain {}))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_dial_request_has_the_bytes_that_the_reference_sends() {
        let bytes = Packet::dial_request("127.0.0.1:8000", 5).encode_to_vec();
        assert_eq!(bytes, b"\x12\x17\x0a\x03tcp\x12\x0e127.0.0.1:8000\x18\x05");
    }

    #[test]
    fn every_packet_survives_the_wire() {
        for packet in [
            Packet::dial_request("[::1]:80", i64::MAX),
            Packet::connected(7, 1),
            Packet::dial_failed(7, "no"),
            Packet::data(1, Bytes::from_static(b"bytes")),
            Packet::close_request(1),
            Packet::close_response(1, ""),
            Packet::close_dial(7),
            Packet::drain(),
        ] {
            assert_eq!(Packet::decode(packet.encode_to_vec().as_slice()).unwrap(), packet);
        }
    }

    #[test]
    fn every_type_is_at_the_place_of_its_number() {
        for (place, kind) in PacketType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        assert!(PacketType::try_from(PacketType::ALL.len() as i32).is_err());
    }

    #[test]
    fn a_type_of_a_later_version_is_none() {
        let packet = Packet::decode(b"\x08\x63".as_slice()).unwrap();
        assert_eq!(packet.kind(), None);
        assert_eq!(Packet::decode(b"".as_slice()).unwrap().kind(), Some(PacketType::DialReq));
    }
}
