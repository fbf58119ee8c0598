//! The life of one gRPC connection: serve dials, tell the server when the agent drains or QUIC has taken over, and close
//! when the last dial has ended.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use konnectivity_process::connections::GrpcFacts;
use konnectivity_transport::id::ServerId;
use tokio_util::sync::CancellationToken;

use super::{
    carrier::{Carrier, GrpcCarrier, LAST_DIALS, idle},
    grpc::GrpcConnection,
    served::Handle,
};
use crate::dial::Dials;

/// How long a connection that nobody needs any more stays without dials. Longer than [`LAST_DIALS`]: nobody waits for
/// it, and the server may be far away.
const MOVED_QUIET: Duration = Duration::from_secs(5);

/// A connection over gRPC, with what it needs to serve.
pub struct OverGrpc {
    /// The connection.
    pub connection: Arc<GrpcConnection>,
    /// What each dial needs.
    pub dials: Dials,
    /// Cancelled when the agent drains: the servers are told.
    pub drain: CancellationToken,
    /// Cancelled when connections are to be closed once they have no dials.
    pub leave: CancellationToken,
}

impl Carrier for OverGrpc {
    fn server_id(&self) -> &ServerId {
        self.connection.server_id()
    }

    fn server_count(&self) -> u32 {
        self.connection.server_count()
    }

    /// gRPC has no message for it.
    fn lists_servers(&self) -> bool {
        false
    }

    fn remote(&self) -> SocketAddr {
        self.connection.remote()
    }

    fn handle(&self) -> Handle {
        let connection = self.connection.clone();
        Handle::Grpc(Arc::new(move || GrpcFacts {
            remote: connection.remote(),
            age: Duration::ZERO,
            open_dials: connection.open_dials(),
            untaken_bytes: connection.untaken_bytes(),
        }))
    }

    /// The protocol has no words for a reason.
    async fn close(self, _reason: &'static str) {}
}

impl GrpcCarrier for OverGrpc {
    async fn serve(self, moved: CancellationToken, server_drains: CancellationToken) {
        let Self { connection, dials, drain, leave } = self;
        let stop = dials.stop.clone();
        let lost = tokio::select! {
            lost = connection.serve(dials) => lost,
            never = tell(&connection, &drain, &moved) => match never {},
            never = end(&connection, &stop, &leave, &moved) => match never {},
            never = hear(&connection, &moved, &server_drains) => match never {},
        };
        tracing::info!(reason = %lost, "disconnected from a server");
    }
}

/// Tells the server that this connection wants no more dials.
async fn tell(connection: &GrpcConnection, drain: &CancellationToken, moved: &CancellationToken) -> Infallible {
    tokio::select! {
        () = drain.cancelled() => {}
        () = moved.cancelled() => {}
    }
    connection.drain();
    pending().await
}

/// Closes the connection when nobody needs it any more.
async fn end(
    connection: &GrpcConnection,
    stop: &CancellationToken,
    leave: &CancellationToken,
    moved: &CancellationToken,
) -> Infallible {
    let dials = || connection.open_dials();
    let last_dials = async {
        tokio::select! {
            () = async { leave.cancelled().await; idle(dials, LAST_DIALS).await } => {}
            () = async { moved.cancelled().await; idle(dials, MOVED_QUIET).await } => {}
            // A server of the reference that is about to go waits for this.
            () = async { connection.server_drains().cancelled().await; idle(dials, MOVED_QUIET).await } => {}
        }
    };
    tokio::select! {
        () = last_dials => {}
        // Dials that were told to stop end after their last bytes; the process does not wait for ever.
        () = stop.cancelled() => idle(dials, Duration::ZERO).await,
    }
    connection.close();
    pending().await
}

/// Says that the server is about to go, which concerns nobody once QUIC has taken over.
async fn hear(connection: &GrpcConnection, moved: &CancellationToken, server_drains: &CancellationToken) -> Infallible {
    connection.server_drains().cancelled().await;
    if !moved.is_cancelled() {
        tracing::info!("the server drains");
        server_drains.cancel();
    }
    pending().await
}
