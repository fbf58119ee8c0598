//! The life of one dial: pick a backend, open a stream, answer the client, relay.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use konnectivity_process::{carry::Established, dial_record::DialRecord, metrics::Counted};
use konnectivity_transport::{
    dial::OpenDial,
    relay::Start,
    stream::{MessageError, ReceiveError, SendMessageError},
    wire::{
        code::StreamCode,
        message::{DialErrorKind, DialRequest},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    backend::{Backend, registry::Registry},
    frontend::{
        client_stream::{ClientStream, DetachedClient},
        http_connect::{ConnectRequest, Handler, reply},
        linger,
    },
    metrics::{DialFailure, Metrics},
    strategy::Strategy,
    worker::Worker,
};

/// Bytes that a client may send before its dial is answered; more waits in its socket.
const MAX_EARLY_BYTES: usize = 16 * 1024;

/// Backends tried for one dial. A second one is tried only if the first was lost before it could have connected.
const MAX_ATTEMPTS: usize = 3;

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
    /// What the client has sent behind its request.
    early: BytesMut,
    /// Backends that were lost before they answered.
    tried: Vec<u64>,
    id: u64,
    record: DialRecord<Metrics>,
    counted: (Counted, TaskTrackerToken),
}

/// Why a dial was not answered with success.
enum Failure {
    /// The request could not be sent.
    Send(SendMessageError),
    /// The agent went away, or sent no reply that can be read.
    Reply(MessageError),
    /// The request could not be sent within the limit: the agent lets no more streams be opened.
    SendTimedOut,
    /// No answer within the limit.
    TimedOut,
    /// The agent's answer: it could not connect.
    Refused(String),
    /// The client has left.
    ClientLeft,
    /// The server stops.
    Stopping,
}

impl Handler for Arc<Dials> {
    async fn connect(&self, client: ClientStream, request: ConnectRequest) {
        let ConnectRequest { target, pipelined } = request;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let record = DialRecord::start(id, &target, self.metrics.clone());
        let counted = (self.metrics.http_connection(), self.open.token());
        let asked = Asked { target, early: pipelined, tried: Vec::new(), id, record, counted };
        if let Some(back) = self.clone().place(client, asked) {
            let (client, asked) = *back;
            self.no_backend(client, asked).await;
        }
    }
}

impl Dials {
    /// Picks a backend and runs the dial on its worker, as a task of its own: the frontend's is done. Gives the client
    /// back if there is no backend.
    fn place(self: Arc<Self>, client: ClientStream, mut asked: Asked) -> Option<Box<(ClientStream, Asked)>> {
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
                Ok(client) => Box::pin(self.run_detached(client, asked, backend)),
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

    async fn no_backend(&self, client: ClientStream, asked: Asked) {
        self.metrics.dial_failed(DialFailure::NoAgent);
        asked.record.finish("no_agent", Some("no agent for this target is connected"), 0, 0);
        linger::close_with(client, reply::NO_AGENT).await;
    }

    async fn run_detached(self: Arc<Self>, client: DetachedClient, asked: Asked, backend: Arc<Backend>) {
        match client.attach() {
            Ok(client) => self.run(client, asked, backend).await,
            Err(error) => asked.record.finish("client_failed", Some(&error.to_string()), 0, 0),
        }
    }

    async fn run(self: Arc<Self>, mut client: ClientStream, mut asked: Asked, backend: Arc<Backend>) {
        let answered = {
            let _pending = self.metrics.pending_dial();
            self.answer(&mut client, &mut asked, &backend).await
        };
        match answered {
            Ok(dial) => self.establish(client, asked, dial, backend.worker()).await,
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
    async fn answer(
        &self,
        client: &mut ClientStream,
        asked: &mut Asked,
        backend: &Backend,
    ) -> Result<OpenDial, Failure> {
        // What earlier attempts have taken counts.
        let limit = self.limit.map(|limit| limit.saturating_sub(asked.record.started().elapsed()));
        let request = DialRequest {
            dial_id: asked.id,
            network: "tcp".into(),
            address: asked.target.clone(),
            timeout_ms: limit.map_or(0, |limit| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1)),
        };
        let sent = AtomicBool::new(false);
        let ask = async {
            let opened = backend.carrier().open_dial(&request).await.map_err(Failure::Send)?;
            sent.store(true, Ordering::Relaxed);
            let (reply, mut dial) = opened.reply().await.map_err(Failure::Reply)?;
            match reply.kind() {
                DialErrorKind::Connected => Ok(dial),
                _ => {
                    // The reply was all that there is to say.
                    dial.stream.send.finish();
                    dial.stream.receive.stop(StreamCode::Cancelled);
                    Err(Failure::Refused(reply.text))
                }
            }
        };
        let bounded = async {
            match limit {
                Some(limit) => match timeout(limit, ask).await {
                    Ok(answer) => answer,
                    Err(_) if sent.load(Ordering::Relaxed) => Err(Failure::TimedOut),
                    Err(_) => Err(Failure::SendTimedOut),
                },
                None => ask.await,
            }
        };
        tokio::select! {
            biased;
            answer = bounded => answer,
            () = client_leaves(client, &mut asked.early) => Err(Failure::ClientLeft),
            () = self.stop.cancelled() => Err(Failure::Stopping),
        }
    }

    /// Answers the client and leaves the dial to a task of its own: it holds no memory of what came before.
    async fn establish(&self, mut client: ClientStream, asked: Asked, mut dial: OpenDial, worker: &Worker) {
        let Asked { early, record, counted, .. } = asked;
        self.metrics.dial_established(record.started().elapsed());
        let established = self.metrics.established_connection();
        // The 200 leaves alone: nothing of the target is written before it, and the relay holds the target's first
        // byte back until the client has read it.
        if let Err(error) = say(&mut client, reply::ESTABLISHED).await {
            self.metrics.dial_failed(DialFailure::SendResponse);
            dial.stream.abort(StreamCode::SocketReset);
            return record.finish("client_failed", Some(&error.to_string()), 0, 0);
        }
        // An empty buffer is given back: an idle dial holds none.
        let early = if early.is_empty() { Bytes::new() } else { early.freeze() };
        let start = Start { early, hold_until_read: client.is_unix() };
        let carry = Established { socket: client, dial, start, stop: self.stop.clone(), record }.carry();
        worker.spawn(async move {
            carry.await;
            drop((counted, established));
        });
    }

    async fn failed(&self, client: ClientStream, asked: Asked, failure: Failure) {
        if let Some(reason) = failure.reason() {
            self.metrics.dial_failed(reason);
        }
        let (label, error) = failure.describe();
        asked.record.finish(label, Some(&error), 0, 0);
        let bytes = match failure {
            Failure::ClientLeft => return,
            Failure::Send(error) => reply::send_failed(&error.to_string()),
            Failure::Reply(_) | Failure::Stopping => reply::agent_lost("context canceled"),
            Failure::SendTimedOut => reply::SEND_TIMED_OUT.to_vec(),
            Failure::TimedOut => reply::DIAL_TIMED_OUT.to_vec(),
            Failure::Refused(text) => reply::dial_error(&text),
        };
        linger::close_with(client, &bytes).await;
    }
}

impl Failure {
    /// Whether another agent may be tried: the first was lost before it answered.
    fn agent_lost(&self) -> bool {
        matches!(
            self,
            Self::Send(SendMessageError::Send(_)) | Self::Reply(MessageError::Receive(ReceiveError::Lost(_)))
        )
    }

    /// The reason under which the reference counts it (compat 2.5 and 3.4).
    fn reason(&self) -> Option<DialFailure> {
        match self {
            Self::Send(SendMessageError::Encode(_)) => None,
            Self::Send(_) | Self::Reply(_) | Self::Stopping => Some(DialFailure::BackendClose),
            Self::SendTimedOut | Self::TimedOut => Some(DialFailure::BackendDialTimeout),
            Self::Refused(..) => Some(DialFailure::ErrorResponse),
            Self::ClientLeft => Some(DialFailure::FrontendClose),
        }
    }

    fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Send(error @ SendMessageError::Encode(_)) => ("bad_request", error.to_string()),
            Self::Send(error) => ("agent_lost", error.to_string()),
            Self::Reply(error) => ("agent_lost", error.to_string()),
            Self::SendTimedOut => ("timed_out", "the agent took no request within --backend-dial-timeout".into()),
            Self::TimedOut => ("timed_out", "no answer from the agent within --backend-dial-timeout".into()),
            Self::Refused(text) => ("dial_failed", text.clone()),
            Self::ClientLeft => ("client_left", "the client left before its dial was answered".into()),
            Self::Stopping => ("drain_deadline", "the server stops".into()),
        }
    }
}

async fn say(client: &mut ClientStream, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await
}

/// Returns when the client leaves before it has sent anything for the target; otherwise never. What it sends meanwhile
/// is kept. A client that has sent bytes and then closed its side waits for the target's answer to them.
async fn client_leaves(client: &mut ClientStream, early: &mut BytesMut) {
    let mut said_nothing = early.is_empty();
    while early.len() < MAX_EARLY_BYTES {
        early.reserve(4096);
        match client.read_buf(early).await {
            Ok(0) if said_nothing => return,
            Ok(0) => break,
            Ok(_) => said_nothing = false,
            Err(_) => return,
        }
    }
    std::future::pending().await
}
