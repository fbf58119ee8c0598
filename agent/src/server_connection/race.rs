//! Two attempts to reach a server, one over QUIC and one over gRPC: the first that is through serves.

use std::{error::Error, fmt, pin::Pin, time::Duration};

use konnectivity_transport::error::with_sources;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::choice::Transport;

/// An attempt that goes on as long as it is kept.
pub type Attempt<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// How long an attempt over QUIC may go on after gRPC has failed, at least: enough for two lost packets. Not its own
/// limit of 10 s, for a server that speaks gRPC only and was just restarted would wait that long for its agents.
const LEAST_GRACE: Duration = Duration::from_secs(3);

/// The same in units of the time that gRPC took to fail, which is a round trip where a port is closed.
const GRACE_FACTOR: u32 = 4;

/// Who was first.
pub enum Won<Q, G, E> {
    /// QUIC.
    Quic(Q),
    /// gRPC.
    Grpc(G, Quic<Q, E>),
}

/// What became of QUIC until gRPC was through.
pub enum Quic<Q, E> {
    /// It had not begun.
    NotTried,
    /// It is still under way, and may yet be through.
    Silent(Attempt<Q, E>),
    /// It had failed.
    Failed(E),
}

/// Why neither is through.
#[derive(Debug)]
pub struct BothFailed<Q, G> {
    /// QUIC's reason; `Err`: no answer for so long.
    quic: Result<Q, Duration>,
    grpc: G,
}

impl<Q: Error, G: Error> fmt::Display for BothFailed<Q, G> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quic {
            Ok(error) => write!(formatter, "over QUIC: {}", with_sources(error))?,
            Err(waited) => write!(formatter, "over QUIC: no answer within {:.1} s", waited.as_secs_f64())?,
        }
        write!(formatter, "; over gRPC: {}", with_sources(&self.grpc))
    }
}

impl<Q: Error, G: Error> Error for BothFailed<Q, G> {}

/// Begins with `first`, and with the other one `head_start` later or as soon as the first has failed.
///
/// # Errors
/// When both have failed. QUIC counts as failed when it is silent for some time after gRPC has failed; `answered` is cancelled
/// when it is not.
///
/// # Cancel safety
/// Dropping the future drops the attempts.
pub async fn race<Q, G, QE, GE>(
    (first, head_start): (Transport, Duration),
    answered: &CancellationToken,
    quic: impl FnOnce() -> Attempt<Q, QE>,
    grpc: impl FnOnce() -> Attempt<G, GE>,
) -> Result<Won<Q, G, QE>, BothFailed<QE, GE>> {
    let begun = Instant::now();
    match first {
        Transport::Quic => {
            let mut quic = quic();
            match timeout(head_start, &mut quic).await {
                Ok(Ok(connection)) => Ok(Won::Quic(connection)),
                Ok(Err(error)) => last_grpc(error, grpc()).await,
                Err(_) => both(quic, grpc(), begun, answered).await,
            }
        }
        Transport::Grpc => {
            let mut grpc = grpc();
            match timeout(head_start, &mut grpc).await {
                Ok(Ok(connection)) => Ok(Won::Grpc(connection, Quic::NotTried)),
                Ok(Err(error)) => last_quic(quic(), (error, begun.elapsed()), Instant::now(), answered).await,
                Err(_) => both(quic(), grpc, Instant::now(), answered).await,
            }
        }
    }
}

async fn both<Q, G, QE, GE>(
    mut quic: Attempt<Q, QE>,
    mut grpc: Attempt<G, GE>,
    quic_begun: Instant,
    answered: &CancellationToken,
) -> Result<Won<Q, G, QE>, BothFailed<QE, GE>> {
    let begun = Instant::now();
    tokio::select! {
        biased;
        done = &mut quic => match done {
            Ok(connection) => Ok(Won::Quic(connection)),
            Err(error) => last_grpc(error, grpc).await,
        },
        done = &mut grpc => match done {
            Ok(connection) => Ok(Won::Grpc(connection, Quic::Silent(quic))),
            Err(error) => last_quic(quic, (error, begun.elapsed()), quic_begun, answered).await,
        },
    }
}

async fn last_grpc<Q, G, QE, GE>(quic: QE, grpc: Attempt<G, GE>) -> Result<Won<Q, G, QE>, BothFailed<QE, GE>> {
    match grpc.await {
        Ok(connection) => Ok(Won::Grpc(connection, Quic::Failed(quic))),
        Err(grpc) => Err(BothFailed { quic: Ok(quic), grpc }),
    }
}

async fn last_quic<Q, G, QE, GE>(
    mut quic: Attempt<Q, QE>,
    (grpc, failed_within): (GE, Duration),
    quic_begun: Instant,
    answered: &CancellationToken,
) -> Result<Won<Q, G, QE>, BothFailed<QE, GE>> {
    let grace = LEAST_GRACE.max(failed_within.saturating_mul(GRACE_FACTOR));
    let done = match timeout(grace, &mut quic).await {
        Ok(done) => done,
        // It has a limit of its own for what comes after the first answer.
        Err(_) if answered.is_cancelled() => quic.await,
        Err(_) => return Err(BothFailed { quic: Err(quic_begun.elapsed()), grpc }),
    };
    match done {
        Ok(connection) => Ok(Won::Quic(connection)),
        Err(error) => Err(BothFailed { quic: Ok(error), grpc }),
    }
}

#[cfg(test)]
mod tests;
