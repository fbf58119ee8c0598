//! What the loop needs of connections: something that makes them, and each of them.

use std::{error::Error, future::Future, sync::Arc};

use konnectivity_transport::id::ServerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listed::{Direct, Told};

/// Where an attempt goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Towards {
    /// To the configured address, which leads to any server.
    Any,
    /// To a server at addresses of its own.
    Listed(Direct),
}

impl Towards {
    pub(super) fn direct(&self) -> Option<&Direct> {
        match self {
            Self::Any => None,
            Self::Listed(direct) => Some(direct),
        }
    }
}

/// Makes connections to servers.
pub trait Connector: Send + Sync + 'static {
    /// A connection whose server has said who it is.
    type Connection: Connection;
    /// Why there is none. Its sources are logged with it.
    type Error: Error + Send + 'static;

    /// One attempt, from a source port of its own: a balancer that goes by ports may then choose another server.
    /// Several attempts run at once.
    ///
    /// # Cancel safety
    /// Dropping the future must abandon the attempt.
    fn connect(&self, towards: &Towards) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;
}

/// One connection to one server.
pub trait Connection: Send + 'static {
    /// Who the server is.
    fn server_id(&self) -> &ServerId;

    /// How many servers there are, as this one says. 0 when it does not.
    fn server_count(&self) -> u32;

    /// Whether the server sends a list of all servers right away.
    fn lists_servers(&self) -> bool;

    /// Cancelled when the server says that it drains.
    fn server_drains(&self) -> CancellationToken;

    /// What the server says of all servers: the last list, as soon as there is one.
    fn servers(&self) -> watch::Receiver<Option<Arc<Told>>>;

    /// Serves dials until the connection is lost or closed. It must end by itself when the process drains or stops:
    /// [`run`](super::run) waits for it.
    fn serve(self) -> impl Future<Output = ()> + Send;

    /// Closes a connection to a server that has one already, and says so to it.
    fn close_duplicate(self) -> impl Future<Output = ()> + Send;
}
