//! How long a token is good for a connection that was accepted by it.
//!
//! ```text
//! now and then: is it still good? --> no, three times in a row: it was withdrawn
//! at its end:   is it still good? --> no: it has expired
//! the API says nothing ------------> the agent stays, and the API is asked later
//! a new token comes ---------------> it is good, and of the same agent: it takes the place of the one of before
//! ```
//!
//! The end that a JWT names says only when to ask again: the API decides, by its own clock and keys. So a clock that is
//! wrong costs questions and no agent. Before that end, the API must say no several times: while its keys are renewed,
//! one of several API servers may not know a good token yet. The reference never looks again.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    questions::Patience,
    refusal::Refusal,
    review::{Again, Identity, Reviewer},
    token::Token,
};

/// Between questions to the API about a token that has come to its end, or that could not be looked at.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Refusals in a row by which a token is withdrawn that should still be good, and the time between them.
const REFUSALS: u32 = 3;
const CONFIRM: Duration = Duration::from_secs(5);

/// A connection's new tokens are looked at no more often than this.
const NEW_TOKEN_PAUSE: Duration = Duration::from_secs(5);

/// Where nobody minds that a token expires, it is not looked at any more when this little is left: clocks differ, and
/// it would seem to be withdrawn.
const CLOCKS_APART: Duration = Duration::from_secs(5 * 60);

/// Waits beyond this are cut: timers do not reach further.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// What is minded of a token after an agent was accepted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Minded {
    /// That it has come to its end.
    pub(super) end: bool,
    /// That it was withdrawn before its end, for which it is looked at this often.
    pub(super) withdrawal: Option<Duration>,
}

/// The new tokens that an agent sends on its connection: the last one, and why it cannot be one.
pub type NewTokens = watch::Receiver<Option<Result<Token, Refusal>>>;

/// Why an agent's token is no longer good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenEnd {
    /// It has expired.
    #[error("the agent's token has expired and no new one has come: {0}")]
    Expired(Refusal),
    /// It is not good although it has not expired.
    #[error("the agent's token was withdrawn before its end, and no new one has come: {0}")]
    Withdrawn(Refusal),
}

/// A connection's token, and those that may follow it.
pub struct TokenLife {
    reviewer: Arc<Reviewer>,
    token: Token,
    identity: Identity,
    minded: Minded,
    /// Refusals in a row.
    refusals: u32,
}

impl std::fmt::Debug for TokenLife {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenLife").field("identity", &self.identity).field("minded", &self.minded).finish()
    }
}

impl TokenLife {
    /// `None`: it is good for ever.
    pub(super) fn new(reviewer: Arc<Reviewer>, token: Token, identity: Identity, minded: Minded) -> Option<Self> {
        let looks = minded.end || minded.withdrawal.is_some();
        looks.then_some(Self { reviewer, token, identity, minded, refusals: 0 })
    }

    /// Waits until the token is no longer good and no other has taken its place; says why.
    ///
    /// # Cancel safety
    /// Dropping the future forgets tokens that have come.
    pub async fn ended(mut self, mut renewed: NewTokens) -> TokenEnd {
        let mut new: Option<(Token, Instant)> = None;
        let mut rest = Instant::now();
        // It goes on whatever the agent sends.
        let mut review = self.next_review(self.next_look(rand::random()));
        loop {
            tokio::select! {
                // It has the choice of the last word only, and not too often.
                shown = next(&mut renewed) => match shown {
                    Ok(token) => new = Some((token, rest.max(Instant::now()))),
                    Err(refusal) if rest <= Instant::now() => {
                        tracing::warn!(reason = %refusal, "an agent's new token is not accepted");
                        rest = Instant::now() + NEW_TOKEN_PAUSE;
                    }
                    Err(_) => {}
                },
                () = wait(new.as_ref().map(|(_, at)| *at)) => if let Some((token, _)) = new.take() {
                    match self.look_at_new(&token).await {
                        Ok(()) => {
                            self.token = token;
                            self.refusals = 0;
                            review = self.next_review(self.next_look(rand::random()));
                        }
                        Err(refusal) if refusal.is_temporary() => new = Some((token, Instant::now() + ASK_AGAIN)),
                        Err(_) => {}
                    }
                    rest = Instant::now() + NEW_TOKEN_PAUSE;
                },
                reviewed = &mut review => match self.judge(reviewed) {
                    Err(end) => return end,
                    Ok(wait) => review = self.next_review(wait),
                },
            }
        }
    }

    /// A token of somebody else would make the connection somebody else's.
    async fn look_at_new(&self, token: &Token) -> Result<(), Refusal> {
        let reviewed = match self.reviewer.review(token, Patience::of_agent()).await {
            Ok(identity) if identity == self.identity => {
                tracing::info!(username = identity.username, "the agent has sent a new token");
                return Ok(());
            }
            Ok(Identity { username, node }) => {
                let node = node.unwrap_or_default();
                let words = format!("the new token is of {username:?} on node {node:?}, which this connection is not");
                Refusal::lookup(&words)
            }
            Err(refusal) => refusal,
        };
        match reviewed.is_temporary() {
            true => tracing::warn!(reason = %reviewed, "an agent stays until its new token can be reviewed"),
            false => tracing::warn!(reason = %reviewed, "an agent's new token is not accepted"),
        }
        Err(reviewed)
    }

    /// What comes of a look at the token. How long to wait before the next one.
    fn judge(&mut self, reviewed: Result<Identity, Refusal>) -> Result<Option<Duration>, TokenEnd> {
        // Where nobody minds the end, nobody looks any more.
        let asked_at_end = is_over(&self.token).then(|| self.minded.end.then_some(ASK_AGAIN));
        match (reviewed, asked_at_end) {
            // The API's clock is behind, or it lets a token be used a little longer.
            (Ok(_), Some(later)) => Ok(later),
            (Ok(_), None) => {
                self.refusals = 0;
                Ok(self.next_look(rand::random()))
            }
            (Err(refusal), later) if refusal.is_temporary() => {
                // The reviewer says so, once for all.
                tracing::debug!(reason = %refusal, "an agent stays until its token can be reviewed");
                Ok(later.unwrap_or_else(|| self.next_look(rand::random())))
            }
            (Err(_), Some(None)) => Ok(None),
            (Err(refusal), Some(Some(_))) => Err(TokenEnd::Expired(refusal)),
            (Err(refusal), None) => {
                self.refusals += 1;
                match self.refusals < REFUSALS {
                    true => Ok(self.next_look(rand::random())),
                    false => Err(TokenEnd::Withdrawn(refusal)),
                }
            }
        }
    }

    /// How long to wait before the token is looked at; `None`: for ever.
    fn next_look(&self, random: f64) -> Option<Duration> {
        let left = self.token.end().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        next_look(left, self.minded, self.refusals, random)
    }

    /// A look at the token after a while.
    fn next_review(
        &self,
        after: Option<Duration>,
    ) -> Pin<Box<impl Future<Output = Result<Identity, Refusal>> + use<>>> {
        let (reviewer, token, refusals) = (self.reviewer.clone(), self.token.clone(), self.refusals);
        let at = after.map(|after| Instant::now() + after);
        Box::pin(async move {
            wait(at).await;
            let why = if refusals > 0 || is_over(&token) { Again::Doubted } else { Again::Routine };
            reviewer.review_again(&token, why).await
        })
    }
}

/// Whether the token has come to its end by its own word.
fn is_over(token: &Token) -> bool {
    token.end().is_some_and(|end| end <= SystemTime::now())
}

/// How long to wait before a token is looked at that ends in `left`, if it has an end. `random` is from 0 to 1: agents
/// that came together are not looked at together.
fn next_look(left: Option<Duration>, minded: Minded, refusals: u32, random: f64) -> Option<Duration> {
    let routine = minded.withdrawal.map(|every| match refusals {
        0 => every.mul_f64(0.75 + random / 2.0),
        _ => CONFIRM,
    });
    let routine = routine.filter(|wait| minded.end || left.is_none_or(|left| wait.saturating_add(CLOCKS_APART) < left));
    let end = left.filter(|_| minded.end).map(|left| left.min(FAR));
    routine.into_iter().chain(end).min()
}

async fn wait(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The next token that comes.
async fn next(renewed: &mut NewTokens) -> Result<Token, Refusal> {
    loop {
        if renewed.changed().await.is_err() {
            // Nobody can send one.
            std::future::pending::<()>().await;
        }
        if let Some(token) = renewed.borrow_and_update().clone() {
            return token;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    const BOTH: Minded = Minded { end: true, withdrawal: Some(minutes(1)) };
    const ONLY_WITHDRAWAL: Minded = Minded { end: false, ..BOTH };
    const ONLY_END: Minded = Minded { withdrawal: None, ..BOTH };

    #[test]
    fn a_token_is_looked_at_now_and_then_and_at_its_end() {
        for (minded, left, expected) in [
            (BOTH, Some(minutes(60)), Some(minutes(1))),
            (BOTH, Some(minutes(1) / 2), Some(minutes(1) / 2)),
            (BOTH, Some(Duration::ZERO), Some(Duration::ZERO)),
            (BOTH, None, Some(minutes(1))),
            (ONLY_END, Some(minutes(60)), Some(minutes(60))),
            (ONLY_END, Some(Duration::MAX), Some(FAR)),
            (ONLY_END, None, None),
            (ONLY_WITHDRAWAL, Some(minutes(60)), Some(minutes(1))),
            (ONLY_WITHDRAWAL, None, Some(minutes(1))),
        ] {
            assert_eq!(next_look(left, minded, 0, 0.5), expected, "{minded:?} {left:?}");
        }
    }

    /// Clocks differ: near its end, a token that nobody minds the end of would seem to be withdrawn.
    #[test]
    fn near_an_end_that_nobody_minds_no_one_looks() {
        for (left, looks) in [(minutes(6), false), (minutes(7), true), (Duration::ZERO, false)] {
            assert_eq!(next_look(Some(left), ONLY_WITHDRAWAL, 0, 0.5).is_some(), looks, "{left:?}");
            assert_eq!(next_look(Some(left), ONLY_WITHDRAWAL, 1, 0.5).is_some(), left > CLOCKS_APART + CONFIRM);
        }
    }

    #[test]
    fn agents_that_came_together_are_looked_at_apart() {
        let waits = [0.0, 1.0].map(|random| next_look(None, BOTH, 0, random).unwrap().as_secs());
        assert_eq!(waits, [45, 75]);
        assert_eq!(next_look(None, BOTH, 1, 1.0), Some(CONFIRM), "what is doubted is looked at soon");
    }
}
