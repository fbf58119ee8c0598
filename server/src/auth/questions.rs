//! Questions to the API whose answers several agents may wait for, and none for ever.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, time::timeout_at};
use tokio_util::task::TaskTracker;

use super::{
    cache::{Cache, Found, Key},
    refusal::Refusal,
};

/// How long an agent is let wait for all that is asked about it. It waits 10 s itself, and is to learn why nothing
/// comes of it.
const AGENTS_PATIENCE: Duration = Duration::from_secs(7);

/// How long a question may take: the wait for its turn, and the request.
const WHOLE: Duration = Duration::from_secs(35);

/// How long somebody waits for answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    until: tokio::time::Instant,
    limit: Duration,
}

impl Patience {
    /// That of an agent that has just come.
    pub(super) fn of_agent() -> Self {
        Self::new(AGENTS_PATIENCE)
    }

    /// Until there is an answer, or none can come.
    pub(super) fn to_the_end() -> Self {
        Self::new(WHOLE)
    }

    fn new(limit: Duration) -> Self {
        Self { until: tokio::time::Instant::now() + limit, limit }
    }
}

/// Questions of one kind. Each is asked once at a time, and goes on when nobody waits any more: the agent comes back.
pub(super) struct Questions<V> {
    cache: Mutex<Cache<V>>,
    /// The refusal when nothing is known yet.
    unavailable: fn(String) -> Refusal,
    tasks: TaskTracker,
    runtime: Handle,
}

impl<V: Clone + Send + Sync + 'static> Questions<V> {
    /// They run in the runtime that this is called in.
    pub(super) fn new(unavailable: fn(String) -> Refusal) -> Arc<Self> {
        let (tasks, runtime) = (TaskTracker::new(), Handle::current());
        Arc::new(Self { cache: Mutex::default(), unavailable, tasks, runtime })
    }

    /// What was answered seconds ago.
    pub(super) fn known(&self, key: Key) -> Option<V> {
        self.cache().known(key, Instant::now())
    }

    /// The answer to a question, which is asked if nobody has asked it. `question` says for how long the answer is
    /// good.
    ///
    /// # Errors
    /// What the question says, or that there is no answer yet.
    ///
    /// # Cancel safety
    /// A question that is under way goes on.
    pub(super) async fn ask<F>(
        self: &Arc<Self>,
        key: Key,
        patience: Patience,
        question: impl FnOnce() -> F,
    ) -> Result<V, Refusal>
    where
        F: Future<Output = (Result<V, Refusal>, Duration)> + Send + 'static,
    {
        let found = self.cache().find(key, Instant::now());
        let mut outcome = match found {
            Found::Known(value) => return Ok(value),
            Found::UnderWay(outcome) => outcome,
            Found::Full => return Err((self.unavailable)("too many questions are under way".into())),
            Found::Ask(tell, outcome) => {
                let (questions, question) = (self.clone(), question());
                let ask = async move {
                    let (result, kept) = question.await;
                    questions.cache().done(key, &result, kept, Instant::now());
                    tell.send_replace(Some(result));
                };
                self.tasks.spawn_on(ask, &self.runtime);
                outcome
            }
        };
        let late = || (self.unavailable)(format!("no answer yet after {}s", patience.limit.as_secs()));
        match timeout_at(patience.until, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(late())),
            // It was dropped with its runtime.
            Ok(Err(_)) => Err((self.unavailable)("the server stops".into())),
            Err(_elapsed) => Err(late()),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache<V>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::advance};

    use super::*;

    const KEPT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_is_there_for_whoever_comes_back() {
        let questions = Questions::new(Refusal::CannotLookUp);
        let (answer, answered) = oneshot::channel::<u8>();
        let key = Key::of("a");
        let question = async move { (answered.await.map_err(|_| Refusal::NoToken), KEPT) };
        let early = questions.ask(key, Patience::of_agent(), || question).await;
        assert_eq!(early, Err(Refusal::CannotLookUp("no answer yet after 7s".into())));
        answer.send(7).unwrap();
        let never = || async { panic!("it was asked") };
        assert_eq!(questions.ask(key, Patience::of_agent(), never).await, Ok(7));
        assert_eq!(questions.known(key), Some(7));
    }

    /// Together, whatever is asked takes no longer than an agent waits.
    #[tokio::test(start_paused = true)]
    async fn patience_is_for_all_questions_together() {
        let (questions, patience) = (Questions::<u8>::new(Refusal::CannotReview), Patience::of_agent());
        let begun = tokio::time::Instant::now();
        advance(Duration::from_secs(5)).await;
        for name in ["a", "b"] {
            let late = questions.ask(Key::of(name), patience, std::future::pending).await;
            assert_eq!(late, Err(Refusal::CannotReview("no answer yet after 7s".into())));
        }
        assert_eq!(begun.elapsed().as_secs(), AGENTS_PATIENCE.as_secs());
    }

    #[tokio::test]
    async fn a_question_that_panics_can_be_asked_again() {
        let questions = Questions::<u8>::new(Refusal::CannotReview);
        let key = Key::of("a");
        let failed = questions.ask(key, Patience::of_agent(), || async { panic!("as in a library") }).await;
        assert!(failed.is_err_and(|refusal| refusal.is_temporary()));
        assert_eq!(questions.ask(key, Patience::of_agent(), || async { (Ok(7), KEPT) }).await, Ok(7));
    }
}
