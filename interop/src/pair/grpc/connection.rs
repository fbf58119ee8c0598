//! A polite connection: it answers what HTTP/2 wants answered, and sorts what comes by stream.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

use super::{
    door::Door,
    frame::{Frame, PREFACE, setting},
    header::{Blocks, Form, Headers, Readings, request},
    rpc::Rpc,
    state::{Event, FIRST_WINDOW, State, Stream},
    wire::{Back, Out, Wire},
};
use crate::ends::within;

/// What a polite client does and does not.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Answers PING at once. If not, [`Connection::acknowledge`] does.
    pub acks_pings: bool,
    /// The window of each stream of ours.
    pub window: u32,
    /// How headers are written.
    pub form: Form,
    /// What is sent as `:authority`; otherwise what kube-apiserver would.
    pub authority: Option<String>,
}

impl Default for Habits {
    fn default() -> Self {
        Self { acks_pings: true, window: FIRST_WINDOW, form: Form::GO, authority: None }
    }
}

/// A connection with its streams; the socket is closed when this and its [`Rpc`]s are dropped.
#[derive(Debug)]
pub struct Connection {
    pub(super) shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

/// What its streams need of a connection.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: watch::Sender<State>,
    /// `None` when the connection was cut.
    pub(super) writer: Mutex<Option<Writer>>,
    authority: String,
    form: Form,
    next_stream: AtomicU32,
}

/// Headers must be sent in the order in which they were encoded.
#[derive(Debug)]
pub(super) struct Writer {
    out: Out,
    blocks: Blocks,
}

impl Connection {
    /// Connects with the habits of a Go client.
    ///
    /// # Panics
    /// When the frontend does not accept.
    pub async fn open(door: &Door) -> Self {
        Self::with(door, Habits::default()).await
    }

    /// Connects.
    ///
    /// # Panics
    /// When the frontend does not accept.
    pub async fn with(door: &Door, habits: Habits) -> Self {
        let Wire { mut out, back } = Wire::open(door).await;
        let settings = Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, habits.window)]);
        let own: &[Frame] = if habits.window == FIRST_WINDOW { &[Frame::settings(&[])] } else { &[settings] };
        let greeting = [&PREFACE[..], &own[0].bytes()].concat();
        out.bytes(&greeting).await.expect("the frontend takes the preface");
        let (state, _) = watch::channel(State::new(habits.acks_pings));
        let shared = Arc::new(Shared {
            state,
            writer: Mutex::new(Some(Writer { out, blocks: Blocks::default() })),
            authority: habits.authority.unwrap_or_else(|| door.authority()),
            form: habits.form,
            next_stream: AtomicU32::new(1),
        });
        #[allow(clippy::disallowed_methods, reason = "the struct owns the task and ends it when it is dropped")]
        let reader = tokio::spawn(read(back, shared.clone()));
        Self { shared, reader }
    }

    /// Opens a stream for packets, as a Go client does.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn call(&self) -> Rpc {
        self.call_with(&request(&self.shared.authority), self.shared.form).await
    }

    /// Opens a stream with these headers.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn call_with(&self, headers: &Headers, form: Form) -> Rpc {
        self.call_by(|blocks, stream| vec![Frame::headers(stream, blocks.block(headers, form))]).await
    }

    /// Opens a stream with these frames, of which only the first may be read as its start.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn call_by(&self, make: impl FnOnce(&mut Blocks, u32) -> Vec<Frame>) -> Rpc {
        let mut writer = self.shared.writer.lock().await;
        let writer = writer.as_mut().expect("the connection was not cut");
        let id = self.shared.next_stream.fetch_add(2, Ordering::Relaxed);
        self.shared.state.send_modify(|state| {
            let window = state.first_window;
            state.streams.insert(id, Stream { window, ..Stream::default() });
        });
        let frames = make(&mut writer.blocks, id);
        let bytes = frames.into_iter().flat_map(|frame| frame.bytes()).collect::<Vec<_>>();
        within("sending headers", writer.out.bytes(&bytes)).await.expect("the connection is open");
        Rpc { shared: self.shared.clone(), id }
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn frame(&self, frame: Frame) -> io::Result<()> {
        self.shared.send([frame]).await
    }

    /// Answers the PINGs that have come, and from now on each one at once.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn acknowledge(&self) {
        let mut waiting = VecDeque::new();
        self.shared.state.send_modify(|state| {
            state.acks_pings = true;
            waiting = std::mem::take(&mut state.pings);
        });
        for opaque in waiting {
            self.answer(opaque).await;
        }
    }

    /// Waits for a PING that has no answer yet, and answers that one.
    ///
    /// # Panics
    /// When none comes.
    pub async fn acknowledge_one(&self) {
        self.until("a PING", |state| !state.pings.is_empty()).await;
        let mut waiting = None;
        self.shared.state.send_modify(|state| waiting = state.pings.pop_front());
        self.answer(waiting.expect("it has come")).await;
    }

    async fn answer(&self, opaque: Vec<u8>) {
        // Before it is sent, so that nothing can come between that it has caused.
        self.shared.state.send_modify(|state| state.note(Event::PingAcked));
        self.shared.send([State::ping_ack(opaque)]).await.expect("the connection is open");
    }

    /// PINGs that have come and have no answer.
    pub fn pings(&self) -> usize {
        self.shared.state.borrow().pings.len()
    }

    /// What has happened so far, in order.
    pub fn log(&self) -> Vec<(Instant, Event)> {
        self.shared.state.borrow().log.clone()
    }

    /// Waits until what has come is so.
    ///
    /// # Panics
    /// When it does not become so.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&State) -> bool) {
        let mut states = self.shared.state.subscribe();
        // The sender is in the struct.
        let _ = within(what, states.wait_for(|state| is_so(state))).await;
    }

    /// Waits for the end of the connection; the code of GOAWAY, if there was one, and its words.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(&self) -> Option<(u32, String)> {
        self.until("the end of the connection", |state| state.ended.is_some()).await;
        self.shared.state.borrow().goaway.clone()
    }

    /// Closes the socket at once, whatever is open.
    pub async fn cut(self) {
        self.shared.writer.lock().await.take();
        self.reader.abort();
        // Both halves are gone after that, and the socket with them.
        while !self.reader.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    /// Sends frames with nothing in between.
    pub(super) async fn send(&self, frames: impl IntoIterator<Item = Frame>) -> io::Result<()> {
        let bytes = frames.into_iter().flat_map(|frame| frame.bytes()).collect::<Vec<_>>();
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        within("sending", writer.out.bytes(&bytes)).await
    }
}

async fn read(mut back: Back, shared: Arc<Shared>) {
    let mut readings = Readings::default();
    let mut block = Vec::new();
    let end = loop {
        let frame = match back.next().await {
            Ok(frame) => frame,
            Err(error) => break error.to_string(),
        };
        let mut answers = Vec::new();
        let mut broken = Ok(());
        shared.state.send_modify(|state| {
            broken = state.take(&frame, &mut readings, &mut block, &mut answers);
        });
        if let Err(error) = broken {
            break error;
        }
        // What cannot be sent any more shows at the next frame.
        let _ = shared.send(answers).await;
    };
    shared.state.send_modify(|state| state.ended = Some(end));
}
