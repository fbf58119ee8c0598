//! What the API has said a few seconds ago, or is being asked: an agent that tries QUIC and gRPC at once, or comes back
//! before there is an answer, is one question to the API. Secrets are not kept, only digests of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;

use super::refusal::Refusal;

/// Things that are known or being asked about; a few hundred bytes each.
const MOST: usize = 4_096;

/// What comes of a question that is under way.
pub(super) type Outcome<V> = Option<Result<V, Refusal>>;

/// A digest of what is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(text: &str) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(key)
    }
}

/// What is to be done about a question.
pub(super) enum Found<V> {
    /// This is the answer.
    Known(V),
    /// Somebody has asked already.
    UnderWay(watch::Receiver<Outcome<V>>),
    /// Ask, tell the others by this, and call [`Cache::done`].
    Ask(watch::Sender<Outcome<V>>, watch::Receiver<Outcome<V>>),
    /// Too much is asked.
    Full,
}

#[derive(Debug)]
pub(super) struct Cache<V>(HashMap<Key, Entry<V>>);

#[derive(Debug)]
enum Entry<V> {
    UnderWay(watch::Receiver<Outcome<V>>),
    Known { value: V, until: Instant },
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V: Clone> Cache<V> {
    /// The answer, if it is known.
    pub(super) fn known(&self, key: Key, now: Instant) -> Option<V> {
        match self.0.get(&key) {
            Some(Entry::Known { value, until }) if *until > now => Some(value.clone()),
            _ => None,
        }
    }

    pub(super) fn find(&mut self, key: Key, now: Instant) -> Found<V> {
        match self.0.get(&key) {
            Some(Entry::Known { value, until }) if *until > now => return Found::Known(value.clone()),
            Some(Entry::UnderWay(outcome)) if is_asked(outcome) => return Found::UnderWay(outcome.clone()),
            _ => {}
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, entry| match entry {
                Entry::Known { until, .. } => *until > now,
                Entry::UnderWay(outcome) => is_asked(outcome),
            });
        }
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            return Found::Full;
        }
        let (tell, outcome) = watch::channel(None);
        self.0.insert(key, Entry::UnderWay(outcome.clone()));
        Found::Ask(tell, outcome)
    }

    /// What came of a question. An answer is good for as long as `kept`; that there is none is forgotten.
    pub(super) fn done(&mut self, key: Key, outcome: &Result<V, Refusal>, kept: Duration, now: Instant) {
        match outcome {
            Ok(value) => self.0.insert(key, Entry::Known { value: value.clone(), until: now + kept }),
            Err(_) => self.0.remove(&key),
        };
    }
}

/// Whether whoever asks is still there: a task may have panicked.
fn is_asked<V>(outcome: &watch::Receiver<Outcome<V>>) -> bool {
    outcome.has_changed().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(10);

    fn key(number: usize) -> Key {
        Key::of(&format!("token {number}"))
    }

    #[test]
    fn an_answer_is_good_for_a_while() {
        let now = Instant::now();
        for kept in [KEPT, Duration::from_secs(4), Duration::ZERO] {
            let mut cache = Cache::default();
            assert!(matches!(cache.find(key(0), now), Found::Ask(..)));
            cache.done(key(0), &Ok(7), kept, now);
            if let Some(before) = kept.checked_sub(Duration::from_millis(1)) {
                assert!(matches!(cache.find(key(0), now + before), Found::Known(7)), "{kept:?}");
                assert_eq!(cache.known(key(0), now + before), Some(7));
            }
            assert_eq!(cache.known(key(0), now + kept), None);
            assert!(matches!(cache.find(key(0), now + kept), Found::Ask(..)), "{kept:?}");
        }
    }

    #[test]
    fn a_refusal_is_forgotten() {
        let (mut cache, now) = (Cache::<u8>::default(), Instant::now());
        for refusal in [Refusal::NoToken, Refusal::CannotReview("x".into())] {
            assert!(matches!(cache.find(key(0), now), Found::Ask(..)));
            cache.done(key(0), &Err(refusal), KEPT, now);
        }
        assert!(cache.0.is_empty());
    }

    #[test]
    fn a_question_is_asked_once_at_a_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let Found::Ask(tell, _) = cache.find(key(0), now) else { panic!("nobody has asked") };
        let Found::UnderWay(outcome) = cache.find(key(0), now) else { panic!("it is under way") };
        tell.send_replace(Some(Ok(7)));
        assert_eq!(*outcome.borrow(), Some(Ok(7)));
    }

    #[test]
    fn a_question_whose_asker_is_gone_is_asked_again() {
        let (mut cache, now) = (Cache::<u8>::default(), Instant::now());
        drop(cache.find(key(0), now));
        assert!(matches!(cache.find(key(0), now), Found::Ask(..)));
    }

    #[test]
    fn it_has_a_bound_and_makes_room_by_what_is_old() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let mut askers = Vec::new();
        for number in 0..MOST {
            let Found::Ask(tell, _) = cache.find(key(number), now) else { panic!("there is room") };
            askers.push(tell);
        }
        assert!(matches!(cache.find(key(MOST), now), Found::Full));
        cache.done(key(0), &Ok(7), KEPT, now);
        assert!(matches!(cache.find(key(MOST), now), Found::Full), "what is known still has its place");
        assert!(matches!(cache.find(key(MOST), now + KEPT), Found::Ask(..)));
        assert_eq!(cache.0.len(), MOST);
        askers.pop();
        assert!(matches!(cache.find(key(MOST + 1), now + KEPT), Found::Ask(..)), "nobody asks any more");
    }
}
