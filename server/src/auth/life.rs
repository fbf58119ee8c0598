//! How long a token is good for a connection that was accepted by it.
//!
//! The end that a JWT names says only when to ask again: the API decides, by its own clock and keys. So a clock that is
//! wrong costs questions and no agent, and an API that is away costs none either: an agent that cannot be looked at stays.
//! What is not noticed before that end is a token that was withdrawn; the reference never looks again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    refusal::Refusal,
    review::{Identity, Reviewer},
    token::Token,
};

/// Between questions to the API about a token that has come to its end, or that could not be looked at.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Waits beyond this are cut: timers do not reach further.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// A connection's token, and those that may follow it.
#[derive(Debug)]
pub struct TokenLife {
    reviewer: Arc<Reviewer>,
    token: Token,
    identity: Identity,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reviewer")
    }
}

impl TokenLife {
    pub(super) fn new(reviewer: Arc<Reviewer>, token: Token, identity: Identity) -> Self {
        Self { reviewer, token, identity }
    }

    /// Waits until the token is no longer good and no other has taken its place; says why. `renewed` has the newest token
    /// that the agent has sent.
    ///
    /// # Cancel safety
    /// Dropping the future forgets tokens that have come.
    pub async fn ended(mut self, mut renewed: watch::Receiver<Option<Token>>) -> Refusal {
        let mut candidate = None;
        let mut look_at = due(&self.token);
        loop {
            tokio::select! {
                newest = next(&mut renewed) => candidate = Some(newest),
                () = wait(look_at) => {}
            }
            look_at = match self.look(&mut candidate).await {
                Ok(at) => at,
                Err(refusal) => return refusal,
            };
        }
    }

    /// Looks at a new token, or else at the one of before if its time has come. When to look again.
    async fn look(&mut self, candidate: &mut Option<Token>) -> Result<Option<Instant>, Refusal> {
        let later = Some(Instant::now() + ASK_AGAIN);
        if let Some(token) = candidate.take() {
            match self.look_at_new(&token).await {
                Ok(()) => {
                    tracing::info!(username = self.identity.username, "the agent has sent a new token");
                    self.token = token;
                    return Ok(due(&self.token));
                }
                Err(refusal) if refusal.is_temporary() => {
                    tracing::warn!(reason = %refusal, "an agent stays until its new token can be reviewed");
                    *candidate = Some(token);
                    return Ok(later);
                }
                Err(refusal) => tracing::warn!(reason = %refusal, "an agent's new token is not accepted"),
            }
        }
        match due(&self.token) {
            Some(at) if at <= Instant::now() => {}
            not_yet => return Ok(not_yet),
        }
        match self.reviewer.review(&self.token).await {
            // The API's clock is behind, or it lets a token be used a little longer.
            Ok(_) => Ok(later),
            Err(refusal) if refusal.is_temporary() => {
                tracing::warn!(reason = %refusal, "an agent stays until its token can be reviewed");
                Ok(later)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// A token of somebody else would make the connection somebody else's.
    async fn look_at_new(&mut self, token: &Token) -> Result<(), Refusal> {
        let identity = self.reviewer.review(token).await?;
        if identity == self.identity {
            return Ok(());
        }
        let (username, node) = (identity.username, identity.node.unwrap_or_default());
        Err(Refusal::Lookup(format!("the new token is of {username:?} on node {node:?}, which this connection is not")))
    }
}

/// When a token is to be looked at again; `None`: never.
fn due(token: &Token) -> Option<Instant> {
    let left = token.end()?.duration_since(SystemTime::now()).unwrap_or_default();
    Some(Instant::now() + left.min(FAR))
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The next token that comes.
async fn next(renewed: &mut watch::Receiver<Option<Token>>) -> Token {
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
