//! An attack that goes on while a test looks at others: on a thread of its own, so that it takes nothing of theirs but
//! the processor.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::door::Door;
use crate::{ends::LIMIT, pair::until};

/// A running attack. It must be [stopped](Self::stop).
#[derive(Debug)]
pub struct Flood {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

/// What an attack and its test tell each other.
#[derive(Debug, Default)]
pub struct Progress {
    stop: AtomicBool,
    sent: AtomicUsize,
}

impl Progress {
    /// Whether the attack is to end.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts what the server has taken.
    pub fn sent(&self, count: usize) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }
}

impl Flood {
    /// Attacks again and again: one run of `attack` ends when the server hangs up on it.
    pub fn start<F>(door: &Door, attack: impl Fn(Door, Arc<Progress>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        let progress = Arc::new(Progress::default());
        let (door, seen) = (door.clone(), progress.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                while !seen.is_over() {
                    attack(door.clone(), seen.clone()).await;
                    // A server that refuses at once would else leave this thread without a pause.
                    tokio::task::yield_now().await;
                }
            });
        });
        Self { progress, thread: Some(thread) }
    }

    /// Waits until so much was sent.
    ///
    /// # Panics
    /// When it is not sent in time.
    pub async fn has_sent(&self, count: usize) {
        let sent = &self.progress.sent;
        until("the flood", LIMIT, async || (sent.load(Ordering::Relaxed) >= count).then_some(())).await;
    }

    /// Ends it; how much was sent.
    ///
    /// # Panics
    /// When it has panicked.
    pub fn stop(mut self) -> usize {
        self.progress.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("the attack must not panic");
        self.progress.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }
}
