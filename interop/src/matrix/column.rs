//! The columns of the matrix: which programs, what they speak to each other, and how clients come in.

use std::fmt;

use serde::Serialize;

use crate::peer::{Entrance, Mode};

/// Who made a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Make {
    /// The Go reference.
    Go,
    /// This project.
    Ours,
}

impl Make {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Go => Self::Ours,
            Self::Ours => Self::Go,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Ours => "ours",
        }
    }
}

/// What agent and server speak: for our programs, what `--transport` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// QUIC and nothing else.
    Quic,
    /// gRPC over TCP and nothing else, which is all that the reference has.
    Grpc,
    /// Whatever the two find out.
    Auto,
}

impl Carrier {
    /// Its name, as `--transport` takes it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }
}

/// How clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Front {
    /// gRPC over a Unix socket.
    GrpcUds,
    /// gRPC over TCP with mutual TLS.
    GrpcMtls,
    /// HTTP CONNECT over a Unix socket.
    ConnectUds,
    /// HTTP CONNECT over TCP with mutual TLS.
    ConnectMtls,
}

impl Front {
    /// All of them, in the order of every table.
    pub const ALL: [Self; 4] = [Self::GrpcUds, Self::GrpcMtls, Self::ConnectUds, Self::ConnectMtls];

    /// Its name.
    pub fn key(self) -> &'static str {
        match self {
            Self::GrpcUds => "grpc-uds",
            Self::GrpcMtls => "grpc-mtls",
            Self::ConnectUds => "connect-uds",
            Self::ConnectMtls => "connect-mtls",
        }
    }

    /// What clients say.
    pub fn mode(self) -> Mode {
        match self {
            Self::GrpcUds | Self::GrpcMtls => Mode::Grpc,
            Self::ConnectUds | Self::ConnectMtls => Mode::HttpConnect,
        }
    }

    /// Through what they come.
    pub fn entrance(self) -> Entrance {
        match self {
            Self::GrpcUds | Self::ConnectUds => Entrance::Unix,
            Self::GrpcMtls | Self::ConnectMtls => Entrance::MutualTls,
        }
    }
}

/// A server, an agent, and what they speak: `SERVER-AGENT/CARRIER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Pairing {
    /// Who made the server.
    pub server: Make,
    /// Who made the agent.
    pub agent: Make,
    /// What they speak.
    pub carrier: Carrier,
}

impl Pairing {
    /// All of them, in the order of every table.
    pub const ALL: [Self; 7] = [
        Self::new(Make::Go, Make::Go, Carrier::Grpc),
        Self::new(Make::Go, Make::Ours, Carrier::Grpc),
        Self::new(Make::Go, Make::Ours, Carrier::Auto),
        Self::new(Make::Ours, Make::Go, Carrier::Grpc),
        Self::new(Make::Ours, Make::Ours, Carrier::Quic),
        Self::new(Make::Ours, Make::Ours, Carrier::Grpc),
        Self::new(Make::Ours, Make::Ours, Carrier::Auto),
    ];

    const fn new(server: Make, agent: Make, carrier: Carrier) -> Self {
        Self { server, agent, carrier }
    }

    /// Neither program is ours, so that a failure is the reference's.
    pub fn is_reference(self) -> bool {
        (self.server, self.agent) == (Make::Go, Make::Go)
    }

    /// Whether it is QUIC that the two speak when nothing is in its way.
    pub fn has_quic(self) -> bool {
        self.carrier == Carrier::Quic || (self.carrier == Carrier::Auto && self.server == Make::Ours)
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}/{}", self.server.key(), self.agent.key(), self.carrier.key())
    }
}

/// A pairing and a front: `SERVER-AGENT/CARRIER/FRONT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Column {
    /// Which programs.
    #[serde(flatten)]
    pub pairing: Pairing,
    /// How clients come in.
    pub front: Front,
}

impl Column {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Pairing::ALL.into_iter().flat_map(|pairing| Front::ALL.map(|front| Self { pairing, front }))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pairing, self.front.key())
    }
}

/// Whether `text` is what `pattern` describes, in which `*` stands for anything, nothing included.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|text| (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_called_by_what_they_are() {
        let all: Vec<_> = Column::all().map(|column| column.to_string()).collect();
        assert_eq!(all.len(), 28);
        assert_eq!(all[0], "go-go/grpc/grpc-uds");
        assert_eq!(all[27], "ours-ours/auto/connect-mtls");
    }

    #[test]
    fn a_star_stands_for_anything() {
        for pattern in ["*", "ours-*", "ours-ours/quic/connect-uds", "*/quic/*", "*connect-uds*"] {
            assert!(matches(pattern, "ours-ours/quic/connect-uds"), "{pattern}");
        }
        for pattern in ["", "ours", "go-*", "*/grpc/*", "*-mtls", "ours-ours/quic/connect-uds/*"] {
            assert!(!matches(pattern, "ours-ours/quic/connect-uds"), "{pattern}");
        }
    }

    #[test]
    fn quic_is_spoken_where_both_can() {
        let with: Vec<_> = Pairing::ALL.into_iter().filter(|pairing| pairing.has_quic()).collect();
        assert_eq!(with, [Pairing::ALL[4], Pairing::ALL[6]]);
    }
}
