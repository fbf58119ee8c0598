//! What both kinds of connections to a server have in common, as far as whoever chooses between them must know it.

use std::{error::Error, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use konnectivity_transport::id::ServerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::served::Handle;
use crate::server_set::{Told, Towards};

/// Dials that were on their way when the server heard of the drain still come: the agent waits that long for them.
pub(super) const LAST_DIALS: Duration = Duration::from_millis(500);

/// One connection to one server, which has said who it is.
pub trait Carrier: Sized + Send + 'static {
    /// Who the server is.
    fn server_id(&self) -> &ServerId;

    /// How many servers there are, as this one says. 0 when it does not.
    fn server_count(&self) -> u32;

    /// Whether the server sends a list of all servers right away.
    fn lists_servers(&self) -> bool;

    /// Where the server is, as this end sees it.
    fn remote(&self) -> SocketAddr;

    /// What the admin pages show of it.
    fn handle(&self) -> Handle;

    /// Closes a connection that is not needed.
    fn close(self, reason: &'static str) -> impl Future<Output = ()> + Send + 'static;
}

/// How a QUIC connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicEnd {
    /// Nothing was heard for the idle timeout: the path or the server is dead.
    pub silent: bool,
    /// Since it was made.
    pub lasted: Duration,
}

/// What a server says while it serves.
#[derive(Debug, Clone, Default)]
pub struct ServerSays {
    /// Cancelled when it drains.
    pub drains: CancellationToken,
    /// The last list of all servers.
    pub servers: watch::Sender<Option<Arc<Told>>>,
}

/// A QUIC connection.
pub trait QuicCarrier: Carrier {
    /// Serves dials until the connection is lost, or until the agent stops. What the server says goes to `says`.
    fn serve(self, says: ServerSays) -> impl Future<Output = QuicEnd> + Send + 'static;
}

/// A gRPC connection.
pub trait GrpcCarrier: Carrier {
    /// Serves dials until the connection is lost, or until the agent stops. After `moved` was cancelled, QUIC has taken
    /// over: the server is asked to send no more dials, and the connection is closed when the last of them has ended.
    /// Cancels `server_drains` when the server is about to go, unless it was moved from by then.
    fn serve(
        self,
        moved: CancellationToken,
        server_drains: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// Makes connections.
pub trait Carriers: Send + Sync + 'static {
    /// A connection over QUIC.
    type Quic: QuicCarrier;
    /// Why there is none.
    type QuicError: Error + Send + 'static;
    /// A connection over gRPC.
    type Grpc: GrpcCarrier;
    /// Why there is none.
    type GrpcError: Error + Send + 'static;

    /// Whether nothing at all came back.
    fn is_silence(error: &Self::QuicError) -> bool;

    /// The addresses to try, in the order of attempts. Of addresses that servers have named, only those that the agent may
    /// dial.
    fn resolve(&self, towards: &Towards) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// One attempt over QUIC, from a port of its own. Cancels `answered` as soon as the server has been heard.
    ///
    /// # Cancel safety
    /// Dropping the future must abandon the attempt.
    fn quic(
        self: Arc<Self>,
        addresses: Vec<SocketAddr>,
        answered: CancellationToken,
    ) -> impl Future<Output = Result<Self::Quic, Self::QuicError>> + Send + 'static;

    /// One attempt over gRPC.
    ///
    /// # Cancel safety
    /// Dropping the future must abandon the attempt.
    fn grpc(
        self: Arc<Self>,
        addresses: Vec<SocketAddr>,
    ) -> impl Future<Output = Result<Self::Grpc, Self::GrpcError>> + Send + 'static;
}

/// How often a draining agent looks whether its last dial has ended.
const IDLE_CHECK: Duration = Duration::from_millis(50);

/// Waits until no dial is open, and then for none to come for `quiet`.
pub(super) async fn idle(open_dials: impl Fn() -> usize, quiet: Duration) {
    let mut lasted = Duration::ZERO;
    while open_dials() > 0 || lasted < quiet {
        tokio::time::sleep(IDLE_CHECK).await;
        lasted = if open_dials() > 0 { Duration::ZERO } else { lasted + IDLE_CHECK };
    }
}
