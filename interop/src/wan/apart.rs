//! Work on a thread of its own, which may move to another network for good.

use std::convert::Infallible;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use tokio::runtime;
use tokio::sync::oneshot;

/// Does it there, on one thread.
///
/// # Errors
/// What the work returns.
///
/// # Cancel safety
/// Dropping the future drops the work, and waits until that is done.
pub async fn apart<T, F>(work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
    T: Send + 'static,
{
    let (done, result) = oneshot::channel();
    let (alive, gone) = oneshot::channel::<Infallible>();
    let thread = thread::Builder::new().name("wan".to_owned()).spawn(move || {
        // All that it has made is gone before the result is known.
        let _ = done.send(run(work, gone));
    });
    let _thread = Thread { alive: Some(alive), thread: Some(thread.context("cannot start a thread")?) };
    result.await.context("the thread of a measurement panicked")?
}

fn run<T, F: Future<Output = anyhow::Result<T>>>(
    work: impl FnOnce() -> F,
    gone: oneshot::Receiver<Infallible>,
) -> anyhow::Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        tokio::select! {
            result = work() => result,
            _ = gone => anyhow::bail!("told to stop"),
        }
    })
}

struct Thread {
    alive: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    struct Mark(Arc<AtomicBool>);

    impl Drop for Mark {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_stops_waiting_has_what_was_made_removed() {
        let removed = Arc::new(AtomicBool::new(false));
        let mark = Mark(removed.clone());
        let (begun, has_begun) = oneshot::channel();
        let work = apart(move || async move {
            let _mark = mark;
            let _ = begun.send(());
            std::future::pending::<anyhow::Result<()>>().await
        });
        tokio::select! {
            _ = work => unreachable!(),
            _ = has_begun => {}
        }
        assert!(removed.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_result_comes_back_and_so_does_a_panic() {
        assert_eq!(apart(|| async { Ok(7) }).await.unwrap(), 7);
        let panicked = apart(|| async { if Duration::ZERO.is_zero() { panic!("a test") } else { Ok(()) } });
        assert!(panicked.await.unwrap_err().to_string().contains("panicked"));
    }
}
