//! Who may be an agent, and what it may say of itself.
//!
//! ```text
//! token --> review --> whose token --+--> claims (whose addresses: nodes) --> admitted
//! certificate --> its node ----------+                                         |
//!                 life: reviews the token now and then, and at its end <-------+
//!
//! review, nodes --> questions (one at a time, remembered for seconds: cache) --> API
//! ```
//!
//! Without tokens and without a rule for identifiers, whoever came as far as this is admitted: TLS has asked for a
//! certificate, or the operator wants everybody.

mod cache;
mod certificate;
mod claims;
mod life;
mod nodes;
mod questions;
mod refusal;
mod review;
mod token;

use std::{sync::Arc, time::Duration};

use konnectivity_transport::identifier::Identifiers;

pub use self::{
    claims::{Exceptions, IdentifierPolicy},
    life::{NewTokens, TokenEnd, TokenLife},
    nodes::Nodes,
    refusal::Refusal,
    review::{Expected, Reviewer},
    token::Token,
};
use self::{life::Minded, questions::Patience};
use crate::metrics::{Metrics, Reached};

/// What an agent has come over, as far as tokens are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// QUIC, over which a new token may come.
    Quic,
    /// gRPC, over which none may.
    Grpc,
}

/// On which connections an expired token is minded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainExpired {
    /// On none, as in the reference.
    None,
    /// Where an agent can send a new one.
    Quic,
    /// On all.
    All,
}

/// The rules of this server.
pub struct Authentication {
    /// Reviews tokens; `None`: they are not looked at.
    pub reviewer: Option<Arc<Reviewer>>,
    /// What agents may say that they reach.
    pub policy: IdentifierPolicy,
    /// Looks up the addresses of nodes; there if the policy needs it.
    pub nodes: Option<Nodes>,
    /// Which expired tokens are minded.
    pub drain_expired: DrainExpired,
    /// How often tokens of connected agents are reviewed again; `None`: at their end at most.
    pub review_interval: Option<Duration>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What an agent shows.
pub struct Shown {
    /// How it has come.
    pub carried: Carried,
    /// Its token.
    pub token: Result<Token, Refusal>,
    /// Its certificate in DER, which TLS has found good.
    pub certificate: Option<Vec<u8>>,
}

/// An agent that may stay.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Whose token it has shown, for the log; empty without.
    pub username: String,
    /// For how long; `None`: as long as it likes.
    pub life: Option<TokenLife>,
}

impl Authentication {
    /// Whether an agent may stay and say what it says.
    ///
    /// # Errors
    /// Why not, in words for both ends' logs, within 7 s.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a review under way, whose result is kept for the agent's next attempt.
    pub async fn admit(&self, shown: Shown, identifiers: &Identifiers) -> Result<Admitted, Refusal> {
        if self.reviewer.is_none() && self.policy == IdentifierPolicy::Any {
            return Ok(Admitted::default());
        }
        let carried = shown.carried;
        let admitted = self.look_at(shown, identifiers).await;
        let reached = admitted.as_ref().map_or_else(Refusal::kind, |_| Reached::Accepted);
        self.metrics.agent_authenticated(carried, reached);
        admitted
    }

    async fn look_at(&self, shown: Shown, identifiers: &Identifiers) -> Result<Admitted, Refusal> {
        let patience = Patience::of_agent();
        let mut nodes: Vec<String> = shown.certificate.as_deref().and_then(certificate::node).into_iter().collect();
        let mut admitted = Admitted::default();
        if let Some(reviewer) = &self.reviewer {
            let token = shown.token?;
            let identity = reviewer.review(&token, patience).await?;
            nodes.extend(identity.node.clone());
            admitted.username.clone_from(&identity.username);
            let end = match self.drain_expired {
                DrainExpired::None => false,
                DrainExpired::Quic => shown.carried == Carried::Quic,
                DrainExpired::All => true,
            };
            let minded = Minded { end, withdrawal: self.review_interval };
            admitted.life = TokenLife::new(reviewer.clone(), token, identity, minded);
        }
        if let IdentifierPolicy::OwnNode(exceptions) = self.policy {
            claims::look_at(self.nodes.as_ref(), &nodes, identifiers, exceptions, patience).await?;
        }
        Ok(admitted)
    }
}
