//! Threads that carry traffic, each with a single-threaded runtime.
//!
//! A QUIC connection lives on one worker, and so do the dials it carries: no lock is contended and no byte crosses
//! threads. Front ends hand an accepted client to the worker of the backend that is to serve it.

use std::{cell::Cell, io, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use tokio::runtime::{Builder, Handle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Threads that may block in the system's calls, for each worker. The server resolves no names; this is a floor.
const BLOCKING_THREADS: usize = 1;

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// One worker; clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Worker {
    index: usize,
    handle: Handle,
    tasks: TaskTracker,
}

impl Worker {
    /// Runs a task on this worker, which owns it until its end.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.handle);
    }

    /// Whether the caller runs on this worker.
    pub fn is_current(&self) -> bool {
        CURRENT.get() == Some(self.index)
    }

    /// Its place among the workers.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The runtime of this worker.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// All workers.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    threads: Vec<thread::JoinHandle<()>>,
    ended: CancellationToken,
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// When the system gives no thread or no poller.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let ended = CancellationToken::new();
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count.get() {
            let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
            workers.push(Worker { index, handle: runtime.handle().clone(), tasks: TaskTracker::new() });
            let ended = ended.clone();
            let run = move || {
                CURRENT.set(Some(index));
                runtime.block_on(ended.cancelled());
            };
            threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
        }
        Ok(Self { workers, threads, ended })
    }

    /// The worker on which listeners run.
    pub fn first(&self) -> &Worker {
        &self.workers[0]
    }

    /// Every worker.
    pub fn all(&self) -> Arc<[Worker]> {
        self.workers.clone().into()
    }

    /// Waits, at most `limit`, until every task has ended, then ends the threads and with them what is left.
    pub async fn finish(self, limit: Duration) {
        let tasks = async {
            for worker in &self.workers {
                worker.tasks.close();
                worker.tasks.wait().await;
            }
        };
        if tokio::time::timeout(limit, tasks).await.is_err() {
            tracing::warn!("stopped with tasks still running");
        }
        self.ended.cancel();
        for thread in self.threads {
            // A worker that panicked has told so already.
            let _ = thread.join();
        }
    }
}
