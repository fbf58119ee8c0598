//! What is known of tokens for a few seconds: an agent that tries QUIC and gRPC at once, or several servers' worth of
//! connections, is one question to the API. Secrets are not kept, only digests of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;

use super::{refusal::Refusal, review::Identity, token::Token};

/// How long a good token is taken as good without another look. A bad one is looked at each time.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Tokens that are known or being looked at; a few hundred bytes each.
const MOST: usize = 4_096;

/// What comes of a review that is under way.
pub(super) type Outcome = Option<Result<Identity, Refusal>>;

/// A token's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(token: &Token) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
        Self(key)
    }
}

/// What is to be done about a token.
pub(super) enum Found {
    /// It is good.
    Good(Identity),
    /// Somebody has asked already.
    UnderWay(watch::Receiver<Outcome>),
    /// Ask, tell the others by this, and call [`Cache::done`].
    Ask(watch::Sender<Outcome>, watch::Receiver<Outcome>),
    /// Too many are asked about.
    Full,
}

#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<Key, Entry>);

#[derive(Debug)]
enum Entry {
    UnderWay(watch::Receiver<Outcome>),
    Good { identity: Identity, until: Instant },
}

impl Cache {
    pub(super) fn find(&mut self, key: Key, now: Instant) -> Found {
        match self.0.get(&key) {
            Some(Entry::Good { identity, until }) if *until > now => return Found::Good(identity.clone()),
            Some(Entry::UnderWay(outcome)) => return Found::UnderWay(outcome.clone()),
            _ => {}
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, entry| !matches!(entry, Entry::Good { until, .. } if *until <= now));
        }
        if self.0.len() >= MOST {
            return Found::Full;
        }
        let (tell, outcome) = watch::channel(None);
        self.0.insert(key, Entry::UnderWay(outcome.clone()));
        Found::Ask(tell, outcome)
    }

    /// What came of a question. `ends_in` is what the token has left.
    pub(super) fn done(
        &mut self,
        key: Key,
        outcome: &Result<Identity, Refusal>,
        ends_in: Option<Duration>,
        now: Instant,
    ) {
        let kept = KEPT_FOR.min(ends_in.unwrap_or(KEPT_FOR));
        match outcome {
            Ok(identity) => self.0.insert(key, Entry::Good { identity: identity.clone(), until: now + kept }),
            Err(_) => self.0.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::of(&Token::new(&format!("token {number}")).unwrap())
    }

    fn good() -> Result<Identity, Refusal> {
        Ok(Identity { username: "a".into(), node: None })
    }

    #[test]
    fn a_good_token_is_good_for_seconds_and_never_past_its_end() {
        let now = Instant::now();
        for (ends_in, kept) in [(None, 10), (Some(3_600), 10), (Some(4), 4), (Some(0), 0)] {
            let mut cache = Cache::default();
            assert!(matches!(cache.find(key(0), now), Found::Ask(..)));
            cache.done(key(0), &good(), ends_in.map(Duration::from_secs), now);
            let kept = Duration::from_secs(kept);
            if let Some(before) = kept.checked_sub(Duration::from_millis(1)) {
                assert!(matches!(cache.find(key(0), now + before), Found::Good(_)), "{ends_in:?}");
            }
            assert!(matches!(cache.find(key(0), now + kept), Found::Ask(..)), "{ends_in:?}");
        }
    }

    #[test]
    fn a_bad_token_is_looked_at_each_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for refusal in [Refusal::NoToken, Refusal::CannotReview("x".into())] {
            assert!(matches!(cache.find(key(0), now), Found::Ask(..)));
            cache.done(key(0), &Err(refusal), None, now);
        }
        assert!(cache.0.is_empty());
    }

    #[test]
    fn a_question_is_asked_once_at_a_time() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let Found::Ask(tell, _) = cache.find(key(0), now) else { panic!("nobody has asked") };
        let Found::UnderWay(outcome) = cache.find(key(0), now) else { panic!("it is under way") };
        tell.send_replace(Some(good()));
        assert_eq!(*outcome.borrow(), Some(good()));
    }

    #[test]
    fn it_has_a_bound_and_makes_room_by_what_is_old() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..MOST {
            assert!(matches!(cache.find(key(number), now), Found::Ask(..)));
        }
        assert!(matches!(cache.find(key(MOST), now), Found::Full));
        cache.done(key(0), &good(), None, now);
        assert!(matches!(cache.find(key(MOST), now), Found::Full), "what is good still has its place");
        assert!(matches!(cache.find(key(MOST), now + KEPT_FOR), Found::Ask(..)));
        assert_eq!(cache.0.len(), MOST);
    }
}
