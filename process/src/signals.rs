//! SIGTERM and SIGINT: the first asks to drain, the second to stop at once.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The two steps of an end. Clones are the same two tokens.
#[derive(Debug, Clone, Default)]
pub struct Stopping {
    /// Cancelled by the first signal: take nothing new, let what runs come to its end within a time.
    pub drain: CancellationToken,
    /// Cancelled by the second: end now.
    pub stop: CancellationToken,
}

/// Signals of the process, caught from the moment this was made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches both signals from now on; they no longer end the process by themselves.
    ///
    /// # Errors
    /// When the kernel refuses the handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels the tokens as signals come; returns after the second.
    ///
    /// # Cancel safety
    /// A signal that has come is in the tokens or is lost with this value; it never ends the process.
    pub async fn forward(mut self, stopping: Stopping) {
        let name = self.next().await;
        info!(signal = name, "signal received: draining; a second one stops at once");
        stopping.drain.cancel();
        let name = self.next().await;
        warn!(signal = name, "second signal received: stopping at once");
        stopping.stop.cancel();
    }

    async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use tokio_util::task::TaskTracker;

    use super::*;

    fn raise(signal: &str) {
        let killed = Command::new("kill").args(["-s", signal, &process::id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    // One test only: signals are for the whole process. It is safe beside others because the handlers stay.
    #[tokio::test]
    async fn the_first_drains_and_the_second_stops() {
        let stopping = Stopping::default();
        let forward = TaskTracker::new().spawn(Signals::catch().unwrap().forward(stopping.clone()));
        assert!(!stopping.drain.is_cancelled());
        raise("TERM");
        stopping.drain.cancelled().await;
        assert!(!stopping.stop.is_cancelled());
        raise("INT");
        stopping.stop.cancelled().await;
        forward.await.unwrap();
    }
}
