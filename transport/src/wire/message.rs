//! The typed messages. Field numbers are the wire format: a number is never reused, a field never changes its type.
//!
//! Everything is proto3: a field that is absent has its default value, a field that is unknown is skipped.

use std::fmt;

/// First message of the control stream, agent to server: who the agent is and what it can reach.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Hello {
    /// See [`crate::id::AgentId`]; the server validates it.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// URL-encoded query, as the reference sends it in `agentidentifiers`; see [`crate::identifier::Identifiers`].
    #[prost(string, tag = "2")]
    pub identifiers: String,
    /// Service-account token; empty when the agent has none.
    #[prost(string, tag = "3")]
    pub token: String,
    /// Program and version, for logs only.
    #[prost(string, tag = "4")]
    pub software: String,
    /// Names of optional behaviour the agent understands, such as [`super::SERVERS_CAPABILITY`]; unknown names are ignored.
    #[prost(string, repeated, tag = "5")]
    pub capabilities: Vec<String>,
}

/// The server's answer to a [`Hello`] it accepts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    /// See [`crate::id::ServerId`]; the agent validates it.
    #[prost(string, tag = "1")]
    pub server_id: String,
    /// How many servers there are behind the address the agent connected to; the agent seeks a connection to each.
    #[prost(uint32, tag = "2")]
    pub server_count: u32,
    /// Program and version, for logs only.
    #[prost(string, tag = "3")]
    pub software: String,
    /// Names of optional behaviour the server understands, such as [`super::SERVERS_CAPABILITY`]; unknown names are ignored.
    #[prost(string, repeated, tag = "4")]
    pub capabilities: Vec<String>,
}

/// The sender is about to leave: no new dials; those that run may end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Drain {
    /// Why, for logs.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// Server to agent: the servers that exist now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Servers {
    /// Replaces [`Welcome::server_count`].
    #[prost(uint32, tag = "1")]
    pub server_count: u32,
    /// The servers by name, if the sender knows them; may be empty or incomplete.
    #[prost(message, repeated, tag = "2")]
    pub servers: Vec<Server>,
}

/// One server and where its agent port is reached.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Server {
    /// See [`crate::id::ServerId`].
    #[prost(string, tag = "1")]
    pub server_id: String,
    /// `host:port`, in order of preference.
    #[prost(string, repeated, tag = "2")]
    pub addresses: Vec<String>,
}

/// Agent to server: a renewed token, before the old one expires.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Token {
    /// Replaces [`Hello::token`].
    #[prost(string, tag = "1")]
    pub token: String,
}

/// What the control stream carries, one after the other, in both directions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Control {
    /// `None`: a body that this version does not know; the receiver skips the message.
    #[prost(oneof = "ControlBody", tags = "1, 2, 3, 4, 5")]
    pub body: Option<ControlBody>,
}

/// The bodies of a [`Control`] message.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum ControlBody {
    /// Agent to server, once, first.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Server to agent, once, first.
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    /// Either direction.
    #[prost(message, tag = "3")]
    Drain(Drain),
    /// Server to agent.
    #[prost(message, tag = "4")]
    Servers(Servers),
    /// Agent to server.
    #[prost(message, tag = "5")]
    Token(Token),
}

/// Head of a dial stream, server to agent: connect to this target.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DialRequest {
    /// See [`crate::id::DialId`]; the same in both ends' logs.
    #[prost(uint64, tag = "1")]
    pub dial_id: u64,
    /// `tcp`, as Go names networks.
    #[prost(string, tag = "2")]
    pub network: String,
    /// The target, `host:port`.
    #[prost(string, tag = "3")]
    pub address: String,
    /// Milliseconds within which the target must have answered, name resolution included; 0 leaves it to the agent.
    #[prost(uint32, tag = "4")]
    pub timeout_ms: u32,
}

/// Head of the other direction, agent to server: how the dial went.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DialReply {
    /// A [`DialErrorKind`]; read it with [`DialReply::kind`], which maps numbers of later versions. Not prost's
    /// `enumeration`: that turns an unknown number into the default, and cuts a long one to 32 bits, and either could
    /// come out as success. On the wire it is the same.
    #[prost(uint64, tag = "1")]
    error: u64,
    /// What a Go agent would have said; clients match on it. Empty when connected.
    #[prost(string, tag = "2")]
    pub text: String,
    /// The agent's own `address:port` of the connection to the target. Empty when not connected.
    #[prost(string, tag = "3")]
    pub local_address: String,
}

impl DialReply {
    /// The target is connected; `local_address` is the agent's end of that connection.
    pub fn connected(local_address: impl Into<String>) -> Self {
        Self { error: DialErrorKind::Connected.into(), text: String::new(), local_address: local_address.into() }
    }

    /// The target is not connected; `text` is what a Go agent would have said.
    pub fn failed(kind: DialErrorKind, text: impl Into<String>) -> Self {
        Self { error: kind.into(), text: text.into(), local_address: String::new() }
    }

    /// How the dial went; a number that this version does not know is [`DialErrorKind::Other`].
    pub fn kind(&self) -> DialErrorKind {
        DialErrorKind::from_u64(self.error)
    }
}

/// How a dial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DialErrorKind {
    /// No error: raw bytes of the target follow.
    Connected = 0,
    /// The target host said that nothing listens there.
    Refused = 1,
    /// No answer within the time limit.
    TimedOut = 2,
    /// No route to the target's host or network.
    Unreachable = 3,
    /// The target's name has no address.
    NameNotFound = 4,
    /// The request cannot be carried out as written: network or address.
    Malformed = 5,
    /// The agent is out of file descriptors, ports or memory; another agent may succeed.
    NoResources = 6,
    /// Anything else; the text says what.
    Other = 7,
}

impl DialErrorKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 8] = [
        Self::Connected,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::NameNotFound,
        Self::Malformed,
        Self::NoResources,
        Self::Other,
    ];

    /// The kind that a number on the wire stands for; [`Self::Other`] for one that this version does not know.
    pub fn from_u64(number: u64) -> Self {
        Self::ALL.into_iter().find(|kind| u64::from(*kind) == number).unwrap_or(Self::Other)
    }

    /// What happened, for `docs/protocol.md` and logs.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Connected => "the target is connected",
            Self::Refused => "the target's host refused the connection",
            Self::TimedOut => "no answer within the time limit",
            Self::Unreachable => "no route to the target's host or network",
            Self::NameNotFound => "the target's name has no address",
            Self::Malformed => "network or address cannot be used as written",
            Self::NoResources => "the agent is out of file descriptors, ports or memory",
            Self::Other => "anything else; the text says what",
        }
    }
}

impl From<DialErrorKind> for u64 {
    fn from(kind: DialErrorKind) -> Self {
        kind as Self
    }
}

/// Stands for a secret in debug output; only whether there is one is told.
fn redacted(secret: &str) -> &'static str {
    if secret.is_empty() { "none" } else { "redacted" }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("agent_id", &self.agent_id)
            .field("identifiers", &self.identifiers)
            .field("token", &format_args!("{}", redacted(&self.token)))
            .field("software", &self.software)
            .field("capabilities", &self.capabilities)
            .finish()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("token", &format_args!("{}", redacted(&self.token))).finish()
    }
}

#[cfg(test)]
mod tests;
