//! A client that waits for the answer to its dial, whatever it speaks.

use std::{future::Future, io};

use konnectivity_transport::{relay::Start, socket::Socket};

use super::failure::Failure;

/// What a frontend hands over with a dial. It goes to the worker that carries the backend's connection.
pub trait Client: Sized + Send + 'static {
    /// The client on its way from one worker to another.
    type Detached: Send;
    /// What the relay copies from and to.
    type Socket: Socket + Send + 'static;
    /// Kept until the dial is over.
    type Guard: Send + 'static;

    /// Takes the client off its worker.
    ///
    /// # Errors
    /// When the runtime doesn't let its socket go; it is disconnected then.
    fn detach(self) -> io::Result<Self::Detached>;

    /// Puts it on the worker of the calling task.
    ///
    /// # Errors
    /// When the runtime doesn't take its socket; it is disconnected then.
    fn attach(detached: Self::Detached) -> io::Result<Self>;

    /// Returns when the client leaves, or gives the dial up, before the answer. What it may send
    /// meanwhile is kept for the target, within a bound.
    ///
    /// # Cancel safety
    /// Nothing that the client has sent is lost by cancelling.
    fn left(&mut self) -> impl Future<Output = ()> + Send;

    /// Tells the client that it is connected.
    ///
    /// # Errors
    /// When it cannot be told.
    fn established(self) -> impl Future<Output = io::Result<(Self::Socket, Start, Self::Guard)>> + Send;

    /// Tells the client that it is not.
    fn failed(self, failure: Failure) -> impl Future<Output = ()> + Send;
}
