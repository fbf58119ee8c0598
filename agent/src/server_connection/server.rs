//! One server, however it is reached: what serves now, and the way back from gRPC to QUIC.

use std::{future::pending, pin::Pin, sync::Arc};

use konnectivity_transport::{error::with_sources, id::ServerId};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{
    QuicAttempt, Shared,
    carrier::{Carrier, Carriers, GrpcCarrier, QuicCarrier, ServerSays},
    choice::{Attempted, Reason, Transport, Why},
    served::{Back, InUse},
};
use crate::server_set::Towards;

/// One server, however it is reached.
pub(super) struct Server<C> {
    pub(super) id: ServerId,
    /// What it says.
    pub(super) says: ServerSays,
    /// Where it was reached.
    pub(super) towards: Towards,
    pub(super) shared: Arc<Shared<C>>,
}

impl<C: Carriers> Server<C> {
    fn span(&self, transport: Transport, carrier: &impl Carrier) -> Span {
        tracing::info_span!("connection", server_id = %self.id, remote_addr = %carrier.remote(), %transport)
    }

    /// Serves over QUIC until that is lost.
    pub(super) async fn over_quic(&self, quic: C::Quic, why: &Why) {
        let span = self.span(Transport::Quic, &quic);
        span.in_scope(|| tracing::info!(reason = why.text, "serving over QUIC"));
        let _in_use = self.shared.served.begin(&self.id, Transport::Quic, quic.handle(), why);
        let end = quic.serve(self.says.clone()).instrument(span).await;
        self.shared.choice().on_quic_ended(&self.id, end.silent, end.lasted, Instant::now());
    }

    /// Serves over gRPC until that is lost, or until QUIC to the same server is there to take over.
    pub(super) async fn over_grpc(
        &self,
        grpc: C::Grpc,
        why: &Why,
        attempt: Option<QuicAttempt<C>>,
    ) -> Option<(C::Quic, Why)> {
        let span = self.span(Transport::Grpc, &grpc);
        span.in_scope(|| match why.reason {
            Reason::Configured => tracing::info!(reason = why.text, "serving over gRPC"),
            _ => tracing::warn!(reason = why.text, "serving over gRPC, until QUIC works"),
        });
        let in_use = self.shared.served.begin(&self.id, Transport::Grpc, grpc.handle(), why);
        let moved = CancellationToken::new();
        let begun = Instant::now();
        let mut serving: Pin<Box<_>> = Box::pin(grpc.serve(moved.clone(), self.says.drains.clone()).instrument(span));
        let quic = tokio::select! {
            biased;
            () = &mut serving => return None,
            quic = self.back_to_quic(attempt, &in_use) => quic,
        };
        // The server has taken the new connection: nothing is lost if it sends no more dials to the old one.
        in_use.moved();
        moved.cancel();
        self.shared.tasks.spawn(async move {
            serving.await;
            drop(in_use);
        });
        let text = format!("QUIC works again after {:.1} s over gRPC", begun.elapsed().as_secs_f64());
        Some((quic, Why::new(Reason::QuicBack, text)))
    }

    /// Tries QUIC until it reaches this server. Never returns where that is not wanted, and once the agent drains.
    async fn back_to_quic(&self, attempt: Option<QuicAttempt<C>>, in_use: &InUse) -> C::Quic {
        if self.shared.choice().comes_back() {
            tokio::select! {
                biased;
                () = self.shared.drain.cancelled() => in_use.back(Back::No),
                quic = self.try_quic(attempt, in_use) => return quic,
            }
        }
        pending().await
    }

    async fn try_quic(&self, mut attempt: Option<QuicAttempt<C>>, in_use: &InUse) -> C::Quic {
        let choice = || self.shared.choice();
        loop {
            let attempted = match attempt.take() {
                Some(attempt) => {
                    in_use.back(Back::Trying);
                    match self.attempt_quic(attempt).await {
                        Ok(quic) => return quic,
                        Err(attempted) => attempted,
                    }
                }
                // QUIC had failed already, or was not to be tried.
                None => Attempted::Failed,
            };
            let pause = choice().pause(&self.id, attempted, Instant::now(), rand::random());
            in_use.back(Back::At(Instant::now() + pause));
            tracing::debug!(server_id = %self.id, ?attempted, ?pause, "QUIC is tried again after a pause");
            sleep(pause).await;
            let carriers = self.shared.carriers.clone();
            attempt = match carriers.resolve(&self.towards).await {
                Ok(addresses) => Some(Box::pin(carriers.quic(addresses, CancellationToken::new()))),
                // The name's look-up counts as a failure.
                Err(_) => None,
            };
        }
    }

    async fn attempt_quic(&self, attempt: QuicAttempt<C>) -> Result<C::Quic, Attempted> {
        match timeout(self.shared.attempt_limit, attempt).await {
            Ok(Ok(quic)) if *quic.server_id() == self.id => {
                self.shared.choice().on_quic(&self.id, Instant::now());
                Ok(quic)
            }
            Ok(Ok(quic)) => {
                let other = quic.server_id();
                tracing::debug!(server_id = %self.id, %other, "QUIC was to come back to one server and reached another");
                self.shared.tasks.spawn(quic.close("this agent looks for another server"));
                Err(Attempted::OtherServer)
            }
            Ok(Err(error)) => {
                tracing::debug!(server_id = %self.id, error = with_sources(&error), "no way back to QUIC yet");
                Err(Attempted::Failed)
            }
            Err(_) => Err(Attempted::Failed),
        }
    }
}
