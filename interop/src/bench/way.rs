//! The ways into a server: what clients say, and over what.

use clap::ValueEnum;

use crate::certificates::Folder;
use crate::load::path::{Path, PathError};
use crate::peer::{Entrance, Frontend, Mode};

/// A way into a server. Each is started and measured by itself, in the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Way {
    /// HTTP CONNECT over a Unix socket.
    Uds,
    /// HTTP CONNECT over TCP with mutual TLS.
    Mtls,
    /// gRPC over a Unix socket, as kube-apiserver's usual mode.
    GrpcUds,
    /// gRPC over TCP with mutual TLS.
    GrpcMtls,
}

impl Way {
    /// Its name in options, logs and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Uds => "uds",
            Self::Mtls => "mtls",
            Self::GrpcUds => "grpc-uds",
            Self::GrpcMtls => "grpc-mtls",
        }
    }

    /// Its name in headings.
    pub fn title(self) -> &'static str {
        match self {
            Self::Uds => "HTTP CONNECT over a Unix socket",
            Self::Mtls => "HTTP CONNECT over mutual TLS",
            Self::GrpcUds => "gRPC over a Unix socket",
            Self::GrpcMtls => "gRPC over mutual TLS",
        }
    }

    /// What clients say.
    pub fn mode(self) -> Mode {
        match self {
            Self::Uds | Self::Mtls => Mode::HttpConnect,
            Self::GrpcUds | Self::GrpcMtls => Mode::Grpc,
        }
    }

    /// Over what they say it.
    pub fn entrance(self) -> Entrance {
        match self {
            Self::Uds | Self::GrpcUds => Entrance::Unix,
            Self::Mtls | Self::GrpcMtls => Entrance::MutualTls,
        }
    }

    /// The path of the load through a frontend of this kind.
    ///
    /// # Errors
    /// When the client's certificates cannot be used.
    pub fn path(self, frontend: &Frontend, certificates: &Folder) -> Result<Path, PathError> {
        match self.mode() {
            Mode::HttpConnect => Path::through(frontend, certificates),
            Mode::Grpc => Path::through_grpc(frontend, certificates),
        }
    }
}
