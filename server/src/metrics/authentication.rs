//! Who was admitted, and what became of reviews of tokens.

use std::time::Duration;

use konnectivity_process::metrics::{Registry, Series, observe, series};
use prometheus::{DEFAULT_BUCKETS, Histogram, IntCounterVec};

use crate::auth::{Carried, TokenEnd};

/// How far an agent has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It is admitted.
    Accepted,
    /// It has shown no token.
    NoToken,
    /// Its token is not good, or not an agent's.
    BadToken,
    /// It says that it reaches what is not its own.
    BadClaim,
    /// The API could not be asked.
    Unavailable,
}

impl Reached {
    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NoToken => "no_token",
            Self::BadToken => "bad_token",
            Self::BadClaim => "bad_claim",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewResult {
    /// It is an agent's token.
    Good,
    /// It is not.
    Bad,
    /// The API could not be asked.
    Unavailable,
    /// It was found good seconds ago.
    Cached,
}

impl ReviewResult {
    fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unavailable => "unavailable",
            Self::Cached => "cached",
        }
    }
}

impl Carried {
    fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Grpc => "grpc",
        }
    }
}

/// What is counted.
#[derive(Debug)]
pub(super) struct AuthenticationMetrics {
    agents: IntCounterVec,
    reviews: IntCounterVec,
    review_duration: Series<Histogram>,
    expired: IntCounterVec,
    withdrawn: IntCounterVec,
}

impl AuthenticationMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            agents: registry.counters(
                "agent_authentications_total",
                "Agents whose token or identifiers were looked at, by what they came over and what became of it.",
                &["carrier", "result"],
            ),
            reviews: registry.counters(
                "token_reviews_total",
                "Reviews of agents' tokens by the Kubernetes API, by result; cached ones were not asked for.",
                &["result"],
            ),
            review_duration: series(
                &registry.histograms(
                    "token_review_duration_seconds",
                    "Latency of reviews of agents' tokens by the Kubernetes API in seconds.",
                    &[],
                    DEFAULT_BUCKETS,
                ),
                [],
            ),
            expired: registry.counters(
                "agent_tokens_expired_total",
                "Agents that are drained because their token has come to its end and no new one has come.",
                &["carrier"],
            ),
            withdrawn: registry.counters(
                "agent_tokens_withdrawn_total",
                "Agents that are drained because the Kubernetes API takes their token no more, before its end.",
                &["carrier"],
            ),
        }
    }

    pub(super) fn agent(&self, carried: Carried, reached: Reached) {
        self.agents.with_label_values(&[carried.label(), reached.label()]).inc();
    }

    pub(super) fn review(&self, result: ReviewResult, took: Duration) {
        self.reviews.with_label_values(&[result.label()]).inc();
        if result != ReviewResult::Cached {
            observe(&self.review_duration, took);
        }
    }

    pub(super) fn ended(&self, carried: Carried, end: &TokenEnd) {
        let ended = match end {
            TokenEnd::Expired(_) => &self.expired,
            TokenEnd::Withdrawn(_) => &self.withdrawn,
        };
        ended.with_label_values(&[carried.label()]).inc();
    }
}
