//! The agent's own two ways to a server.

use std::{io, net::SocketAddr, sync::Arc};

use super::{
    carrier::Carriers,
    quic::{QuicConnection, QuicConnector, QuicFailure},
};
use crate::{config::ServerAddress, happy_eyeballs::order};

/// Makes connections of both kinds to one address.
pub struct AgentCarriers {
    /// Where the servers are.
    pub server: ServerAddress,
    /// Over QUIC.
    pub quic: QuicConnector,
}

#[derive(Debug, thiserror::Error)]
#[error("gRPC is not here yet")]
pub struct NoGrpc;

pub struct NoGrpcConnection;
impl super::carrier::Carrier for NoGrpcConnection {
    fn server_id(&self) -> &konnectivity_transport::id::ServerId {
        unreachable!()
    }
    fn server_count(&self) -> u32 {
        0
    }
    fn handle(&self) -> super::served::Handle {
        unreachable!()
    }
    async fn close(self, _: &'static str) {}
}
impl super::carrier::GrpcCarrier for NoGrpcConnection {
    async fn serve(self, _: tokio_util::sync::CancellationToken) {}
}

impl Carriers for AgentCarriers {
    type Quic = QuicConnection;
    type QuicError = QuicFailure;
    type Grpc = NoGrpcConnection;
    type GrpcError = NoGrpc;

    fn is_silence(error: &QuicFailure) -> bool {
        error.is_silence()
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((self.server.host.as_str(), self.server.port)).await?;
        Ok(order(found.collect()))
    }

    async fn quic(self: Arc<Self>, addresses: Vec<SocketAddr>) -> Result<QuicConnection, QuicFailure> {
        self.quic.connect(addresses).await
    }

    async fn grpc(self: Arc<Self>, _addresses: Vec<SocketAddr>) -> Result<NoGrpcConnection, NoGrpc> {
        Err(NoGrpc)
    }
}
