//! The agent's own two ways to a server.

use std::{io, net::SocketAddr, sync::Arc};

use konnectivity_transport::error::with_sources;
use tokio::net::lookup_host;
use tokio_util::sync::CancellationToken;

use super::{
    carrier::Carriers,
    direct::DirectPolicy,
    grpc::{GrpcConnectError, GrpcConnection, GrpcConnector},
    over_grpc::OverGrpc,
    quic::{QuicConnection, QuicConnector, QuicFailure},
};
use crate::{
    dial::Dials,
    happy_eyeballs::{STAGGER, order, race},
    server_set::Towards,
};

/// Makes connections of both kinds to one address.
pub struct AgentCarriers {
    /// Over QUIC.
    pub quic: QuicConnector,
    /// Over gRPC. With a proxy, QUIC is not used: the addresses are the proxy's.
    pub grpc: GrpcConnector,
    /// Which addresses that servers name may be dialled.
    pub direct: DirectPolicy,
    /// What each dial needs.
    pub dials: Dials,
    /// Cancelled when the agent drains: the servers are told.
    pub drain: CancellationToken,
    /// Cancelled when connections are to be closed once they have no dials.
    pub leave: CancellationToken,
}

/// No address of the server answers over gRPC.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|(_, error)| with_sources(error)).collect::<Vec<_>>().join("; "))]
pub struct GrpcFailure(Vec<(SocketAddr, GrpcConnectError)>);

impl Carriers for AgentCarriers {
    type Quic = QuicConnection;
    type QuicError = QuicFailure;
    type Grpc = OverGrpc;
    type GrpcError = GrpcFailure;

    fn is_silence(error: &QuicFailure) -> bool {
        error.is_silence()
    }

    async fn resolve(&self, towards: &Towards) -> io::Result<Vec<SocketAddr>> {
        let addresses = match towards {
            // The server's own address, unless there is a proxy.
            Towards::Any => lookup_host(self.grpc.first_hop()).await?.collect(),
            Towards::Listed(direct) => self.direct.resolve(direct).await?,
        };
        Ok(order(addresses))
    }

    async fn quic(
        self: Arc<Self>,
        addresses: Vec<SocketAddr>,
        answered: CancellationToken,
    ) -> Result<QuicConnection, QuicFailure> {
        self.quic.connect(addresses, &answered).await
    }

    async fn grpc(self: Arc<Self>, addresses: Vec<SocketAddr>) -> Result<OverGrpc, GrpcFailure> {
        let attempt = |remote| GrpcConnection::connect(&self.grpc, remote);
        let connection = race(addresses, STAGGER, attempt).await.map_err(GrpcFailure)?;
        let dials = Dials { server: connection.server_id().as_str().into(), ..self.dials.clone() };
        Ok(OverGrpc { connection: Arc::new(connection), dials, drain: self.drain.clone(), leave: self.leave.clone() })
    }
}
