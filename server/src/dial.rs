//! The life of one dial: pick a backend, open a stream, answer the client, relay.

pub mod client;
pub mod failure;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use konnectivity_process::{
    carry::{Carried, Established},
    dial_record::DialRecord,
};
use konnectivity_transport::wire::message::DialRequest;
use tokio::time::timeout;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use self::{client::Client, failure::Failure};
use crate::{
    backend::{Backend, carrier::Connected, registry::Registry},
    metrics::{DialFailure, Metrics},
    strategy::Strategy,
    worker::Worker,
};

/// Backends tried for one dial. A second one is tried only if the first was lost before it could have connected.
const MAX_ATTEMPTS: usize = 3;

/// How much later than the server an agent gives a dial up that it was not told to cancel.
const AGENT_LATER: Duration = Duration::from_secs(1);

/// What every dial of this server shares.
pub struct Dials {
    /// Where backends are found.
    pub registry: Arc<Registry<Backend>>,
    /// In which order they are looked for.
    pub strategies: Vec<Strategy>,
    /// How long a dial may take to be answered; `None`: as long as the agent allows.
    pub limit: Option<Duration>,
    /// Where dials are counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when dials must end now.
    pub stop: CancellationToken,
    /// Numbers dials.
    pub next_id: AtomicU64,
    /// Knows of every dial from its request to its last byte.
    pub open: TaskTracker,
}

/// What a client has asked for.
struct Asked {
    target: String,
    /// Backends that were lost before they answered.
    tried: Vec<u64>,
    id: u64,
    record: DialRecord<Metrics>,
    counted: TaskTrackerToken,
}

impl Dials {
    /// Runs a dial to its end, on the worker of the backend that is picked for it: what calls this is done with the
    /// client.
    pub async fn dial<C: Client>(self: &Arc<Self>, client: C, target: String) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let record = DialRecord::start(id, &target, self.metrics.clone());
        let asked = Asked { target, tried: Vec::new(), id, record, counted: self.open.token() };
        if let Some(back) = self.clone().place(client, asked) {
            let (client, asked) = *back;
            self.failed(client, asked, Failure::NoAgent).await;
        }
    }

    /// The worker on which a client that has not said yet what it wants will probably be served.
    pub fn likely_worker(&self) -> Option<Worker> {
        let backend = self.registry.pick(&self.strategies, "", rand::random(), &|_| false)?;
        Some(backend.worker().clone())
    }

    /// Picks a backend and runs the dial on its worker, as a task of its own: the frontend's is done. Gives the client
    /// back if there is no backend.
    fn place<C: Client>(self: Arc<Self>, client: C, mut asked: Asked) -> Option<Box<(C, Asked)>> {
        let Some(backend) = self.pick(&asked) else {
            return Some(Box::new((client, asked)));
        };
        asked.record.carried_by(backend.name());
        let worker = backend.worker().clone();
        // Boxed, because a dial whose backend is lost comes back here.
        let run: Pin<Box<dyn Future<Output = ()> + Send>> = if worker.is_current() {
            Box::pin(self.run(client, asked, backend))
        } else {
            match client.detach() {
                Ok(client) => Box::pin(self.run_detached::<C>(client, asked, backend)),
                Err(error) => {
                    asked.record.finish("client_failed", Some(&error.to_string()), 0, 0);
                    return None;
                }
            }
        };
        worker.spawn(run);
        None
    }

    fn pick(&self, asked: &Asked) -> Option<Arc<Backend>> {
        let not = |backend: &Backend| asked.tried.contains(&backend.number());
        self.registry.pick(&self.strategies, &asked.target, rand::random(), &not)
    }

    async fn run_detached<C: Client>(self: Arc<Self>, client: C::Detached, asked: Asked, backend: Arc<Backend>) {
        match C::attach(client) {
            Ok(client) => self.run(client, asked, backend).await,
            Err(error) => asked.record.finish("client_failed", Some(&error.to_string()), 0, 0),
        }
    }

    async fn run<C: Client>(self: Arc<Self>, mut client: C, mut asked: Asked, backend: Arc<Backend>) {
        let answered = {
            let _pending = self.metrics.pending_dial();
            self.answer(&mut client, &asked, &backend).await
        };
        match answered {
            Ok(Connected::Quic(dial)) => self.establish(client, asked, dial, backend.worker()).await,
            Ok(Connected::Grpc(dial)) => self.establish(client, asked, dial, backend.worker()).await,
            Err(failure) => {
                asked.tried.push(backend.number());
                let again = failure.agent_lost() && asked.tried.len() < MAX_ATTEMPTS;
                if !again {
                    return self.failed(client, asked, failure).await;
                }
                // Without another backend the client learns of this failure, not of the lack.
                if let Some(back) = self.clone().place(client, asked) {
                    let (client, asked) = *back;
                    self.failed(client, asked, failure).await;
                }
            }
        }
    }

    /// Asks the agent and waits for its answer, for the client to leave, or for the time to pass.
    async fn answer<C: Client>(&self, client: &mut C, asked: &Asked, backend: &Backend) -> Result<Connected, Failure> {
        // What earlier attempts have taken counts.
        let limit = self.limit.map(|limit| limit.saturating_sub(asked.record.started().elapsed()));
        // The agent's own limit comes after this one, so that it is this one that is told of.
        let at_agent = limit.map_or(0, |limit| u32::try_from((limit + AGENT_LATER).as_millis()).unwrap_or(u32::MAX));
        let request = DialRequest {
            dial_id: asked.id,
            network: "tcp".into(),
            address: asked.target.clone(),
            timeout_ms: at_agent,
        };
        let sent = Arc::<AtomicBool>::default();
        let ask = backend.carrier().ask(request, &sent);
        let bounded = async {
            match limit {
                Some(limit) => match timeout(limit, ask).await {
                    Ok(answer) => answer.map_err(Failure::Ask),
                    Err(_) if sent.load(Ordering::Relaxed) => Err(Failure::TimedOut),
                    Err(_) => Err(Failure::SendTimedOut),
                },
                None => ask.await.map_err(Failure::Ask),
            }
        };
        tokio::select! {
            biased;
            answer = bounded => answer,
            () = client.left() => Err(Failure::ClientLeft),
            () = self.stop.cancelled() => Err(Failure::Stopping),
        }
    }

    /// Answers the client and leaves the dial to a task of its own: it holds no memory of what came before.
    async fn establish<C: Client, D: Carried>(&self, client: C, asked: Asked, mut dial: D, worker: &Worker) {
        let Asked { record, counted, .. } = asked;
        self.metrics.dial_established(record.started().elapsed());
        // Before the client is told, so that one that leaves at once is on the books.
        let established = self.metrics.established_connection();
        match client.established().await {
            Err(error) => {
                self.metrics.dial_failed(DialFailure::SendResponse);
                dial.abort();
                record.finish("client_failed", Some(&error.to_string()), 0, 0);
            }
            Ok((socket, start, guard)) => {
                let (stop, guard) = (self.stop.clone(), (counted, established, guard));
                worker.spawn(Established { socket, dial, start, stop, record, guard }.carry());
            }
        }
    }

    async fn failed<C: Client>(&self, client: C, asked: Asked, failure: Failure) {
        if let Some(reason) = failure.reason() {
            self.metrics.dial_failed(reason);
        }
        let (label, error) = failure.describe();
        asked.record.finish(label, Some(&error), 0, 0);
        drop(asked.counted);
        client.failed(failure).await;
    }
}
