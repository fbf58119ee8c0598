//! Dials that an agent was asked for and has not answered: which of them are not sent yet, and who waits for the others.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use konnectivity_transport::{mux::MuxDial, packet::Packet};
use tokio::sync::{Semaphore, oneshot};

use crate::backend::carrier::AskError;

/// Dials at a time that an agent may owe an answer: above this many more wait here, with their clients. An agent that
/// answers nothing holds no more memory than that.
const MAX_WAITING: usize = 4096;

/// Numbers in the order of sending that belong to nobody any more before they are thrown out.
const STALE: usize = 64;

type Answer = Result<MuxDial, AskError>;

/// The dials of one stream that wait for an answer.
#[derive(Debug)]
pub struct Requests {
    places: Semaphore,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i64, Waiting>,
    /// Those whose request is not sent, in their order, and numbers of some that have gone.
    unsent: VecDeque<i64>,
    writer: Option<Waker>,
    lost: Option<Arc<str>>,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answer>,
    /// Until the request is sent.
    address: Option<String>,
    sent: Arc<AtomicBool>,
}

/// A dial that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// The agent has heard nothing of it.
    Unsent,
    /// The agent is to be told.
    Sent,
    /// It was answered before.
    Answered,
}

impl Default for Requests {
    fn default() -> Self {
        Self { places: Semaphore::new(MAX_WAITING), table: Mutex::default() }
    }
}

impl Requests {
    /// Asks for a target, and returns with the agent's answer. `dial_id` is to be one that no other dial has; `sent` becomes
    /// true when the request is taken by [`Self::poll_request`]. `gone` is called if the dial is given up before the answer.
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the dial up.
    pub async fn ask(
        &self,
        dial_id: i64,
        address: String,
        sent: &Arc<AtomicBool>,
        gone: impl FnOnce(GivenUp),
    ) -> Answer {
        // It is closed when the stream is lost.
        let Ok(_place) = self.places.acquire().await else { return Err(self.lost(false)) };
        let (answer, answered) = oneshot::channel();
        {
            let mut table = self.lock();
            if table.lost.is_some() {
                drop(table);
                return Err(self.lost(false));
            }
            table.waiting.insert(dial_id, Waiting { answer, address: Some(address), sent: sent.clone() });
            table.unsent.push_back(dial_id);
            wake(table.writer.take());
        }
        let _until_answered = Guard(Some(|| gone(self.give_up(dial_id))));
        match answered.await {
            Ok(answer) => answer,
            // Somebody else took its number.
            Err(_) => Err(self.lost(sent.load(Ordering::Relaxed))),
        }
    }

    /// The next request that is to be sent.
    pub fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Packet> {
        let mut table = self.lock();
        while let Some(dial_id) = table.unsent.pop_front() {
            let Some(waiting) = table.waiting.get_mut(&dial_id) else { continue };
            let Some(address) = waiting.address.take() else { continue };
            waiting.sent.store(true, Ordering::Relaxed);
            return Poll::Ready(Packet::dial_request(address, dial_id));
        }
        match &mut table.writer {
            Some(waker) => waker.clone_from(cx.waker()),
            None => table.writer = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Who waits for the answer that has come; `None` if nobody does, or nobody has asked yet.
    pub fn answered(&self, dial_id: i64) -> Option<oneshot::Sender<Answer>> {
        let mut table = self.lock();
        // A number that was never sent was guessed.
        table.waiting.get(&dial_id).filter(|waiting| waiting.address.is_none())?;
        table.waiting.remove(&dial_id).map(|waiting| waiting.answer)
    }

    /// The stream is gone: whoever waits is answered, and whoever asks later.
    pub fn lose(&self, reason: &Arc<str>) {
        let waiting = {
            let mut table = self.lock();
            table.lost.get_or_insert_with(|| reason.clone());
            table.unsent = VecDeque::new();
            std::mem::take(&mut table.waiting)
        };
        self.places.close();
        for waiting in waiting.into_values() {
            let asked = waiting.address.is_none();
            // Whoever has left needs no answer.
            let _ = waiting.answer.send(Err(AskError::Lost { reason: reason.clone(), asked }));
        }
    }

    /// Dials that wait for their answer.
    pub fn count(&self) -> usize {
        self.lock().waiting.len()
    }

    fn give_up(&self, dial_id: i64) -> GivenUp {
        let mut guard = self.lock();
        let table = &mut *guard;
        match table.waiting.remove(&dial_id) {
            None => GivenUp::Answered,
            Some(waiting) if waiting.address.is_none() => GivenUp::Sent,
            Some(_) => {
                if table.unsent.len() > 2 * table.waiting.len() + STALE {
                    table.unsent.retain(|dial_id| table.waiting.contains_key(dial_id));
                }
                GivenUp::Unsent
            }
        }
    }

    fn lost(&self, asked: bool) -> AskError {
        let reason = self.lock().lost.clone().unwrap_or_else(|| "the dial's number was used again".into());
        AskError::Lost { reason, asked }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls when it is dropped.
struct Guard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Guard<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
