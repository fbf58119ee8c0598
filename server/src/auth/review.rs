//! Asks the API whose a token is, and looks whether that may be an agent (compat 6.3).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use konnectivity_kubernetes::{Complaint, Kubernetes, Reviewed};
use tokio::sync::Semaphore;

use super::{
    cache::Key,
    questions::{Patience, Questions},
    refusal::Refusal,
    token::Token,
};
use crate::metrics::{Metrics, ReviewResult};

/// How long a good token is taken as good without another look. A bad one is looked at each time.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Tokens of connected agents that are reviewed at a time: those that nobody doubts, and those that may have come to
/// their end. The others wait, however long; agents that come do not wait for them.
const ROUTINE_AT_ONCE: usize = 4;
const DOUBTED_AT_ONCE: usize = 16;

/// Whose tokens agents must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// What the token must be for.
    pub audience: String,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// As the API names its user.
    pub username: String,
    /// The node that the token is bound to.
    pub node: Option<String>,
}

/// Why the token of a connected agent is reviewed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It is time to.
    Routine,
    /// It may have come to its end, or the API has just refused it.
    Doubted,
}

/// Reviews tokens.
pub struct Reviewer {
    kubernetes: Kubernetes,
    expected: Expected,
    metrics: Arc<Metrics>,
    questions: Arc<Questions<Identity>>,
    complaint: Mutex<Complaint>,
    routine: Semaphore,
    doubted: Semaphore,
}

impl Reviewer {
    /// Reviews run in the runtime that this is called in.
    pub fn new(kubernetes: Kubernetes, expected: Expected, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            kubernetes,
            expected,
            metrics,
            questions: Questions::new(Refusal::CannotReview),
            complaint: Mutex::default(),
            routine: Semaphore::new(ROUTINE_AT_ONCE),
            doubted: Semaphore::new(DOUBTED_AT_ONCE),
        })
    }

    /// Whose the token is, if it is an agent's.
    ///
    /// # Errors
    /// [`Refusal`], when `patience` is over at the latest.
    ///
    /// # Cancel safety
    /// A review that is under way goes on.
    pub(super) async fn review(self: &Arc<Self>, token: &Token, patience: Patience) -> Result<Identity, Refusal> {
        let key = Key::of(token.expose());
        if let Some(identity) = self.questions.known(key) {
            self.metrics.token_reviewed(ReviewResult::Cached, Duration::ZERO);
            return Ok(identity);
        }
        let question = || {
            let (reviewer, token) = (self.clone(), token.clone());
            async move {
                let result = reviewer.ask(&token).await;
                // A clock that is ahead of the API's must not make a good token a bad one.
                let left = token.end().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
                (result, left.map_or(KEPT_FOR, |left| left.min(KEPT_FOR)))
            }
        };
        self.questions.ask(key, patience, question).await
    }

    /// The same for an agent that is connected, when it is its turn: the API has others to answer. Waits for the answer
    /// as long as one may come.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Cancel safety
    /// Dropping the future loses the turn.
    pub(super) async fn review_again(self: &Arc<Self>, token: &Token, why: Again) -> Result<Identity, Refusal> {
        let turns = match why {
            Again::Routine => &self.routine,
            Again::Doubted => &self.doubted,
        };
        // Nobody closes them.
        let _turn = turns.acquire().await.ok();
        if why == Again::Routine {
            self.kubernetes.spare_turn().await;
        }
        self.review(token, Patience::to_the_end()).await
    }

    async fn ask(&self, token: &Token) -> Result<Identity, Refusal> {
        let begun = Instant::now();
        let reviewed = self.kubernetes.review(token.expose(), &self.expected.audience).await;
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match reviewed {
            Ok(reviewed) => {
                complaint.is_over();
                check(reviewed, &self.expected).map_err(|words| Refusal::lookup(&words))
            }
            Err(error) => {
                // Many agents may want to know.
                if complaint.is_due(&error) {
                    tracing::warn!(%error, "cannot review agents' tokens: new agents have to wait, those that are here stay");
                }
                Err(Refusal::CannotReview(error.to_string()))
            }
        };
        let counted = match &result {
            Ok(_) => ReviewResult::Good,
            Err(refusal) if refusal.is_temporary() => ReviewResult::Unavailable,
            Err(_) => ReviewResult::Bad,
        };
        self.metrics.token_reviewed(counted, begun.elapsed());
        result
    }
}

/// The reference's checks, in its order and words; and that the API has looked at the audience, which the reference
/// takes on trust.
fn check(reviewed: Reviewed, expected: &Expected) -> Result<Identity, String> {
    let Expected { namespace, service_account, audience } = expected;
    if !reviewed.error.is_empty() {
        return Err(reviewed.error);
    }
    if !reviewed.authenticated {
        return Err("service account jwt not valid".into());
    }
    let [system, kind, of_namespace, account] = reviewed.username.split(':').collect::<Vec<_>>()[..] else {
        return Err("unexpected username format".into());
    };
    if (system, kind) != ("system", "serviceaccount") {
        return Err("username returned is not a service account".into());
    }
    if of_namespace != namespace {
        return Err(format!("incoming request from {of_namespace:?} namespace. Expected {namespace:?}"));
    }
    if account != service_account {
        return Err(format!("incoming request from {account:?} service account. Expected {service_account:?}"));
    }
    // An API server that knows no audiences names none, and has looked at its own.
    if !reviewed.audiences.is_empty() && !reviewed.audiences.contains(audience) {
        return Err(format!("token is for audience {:?}. Expected {audience:?}", reviewed.audiences.join(",")));
    }
    Ok(Identity { username: reviewed.username.clone(), node: reviewed.node_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut Reviewed)) -> Result<Identity, String> {
        let mut reviewed = Reviewed {
            authenticated: true,
            error: String::new(),
            username: "system:serviceaccount:kube-system:konnectivity-agent".into(),
            audiences: vec!["system:konnectivity-server".into()],
            node_name: Some("node-1".into()),
        };
        change(&mut reviewed);
        let expected = Expected {
            namespace: "kube-system".into(),
            service_account: "konnectivity-agent".into(),
            audience: "system:konnectivity-server".into(),
        };
        check(reviewed, &expected)
    }

    fn user(name: &str) -> Result<Identity, String> {
        checked(|reviewed| reviewed.username = name.into())
    }

    #[test]
    fn a_token_of_the_right_account_is_good() {
        let username = "system:serviceaccount:kube-system:konnectivity-agent".to_owned();
        assert_eq!(checked(|_| {}), Ok(Identity { username: username.clone(), node: Some("node-1".into()) }));
        assert_eq!(checked(|reviewed| reviewed.node_name = None), Ok(Identity { username, node: None }));
        assert!(checked(|reviewed| reviewed.audiences.clear()).is_ok(), "an API server without audiences");
        assert!(checked(|reviewed| reviewed.audiences.push("b".into())).is_ok());
    }

    #[test]
    fn every_other_is_refused_in_the_references_words() {
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(checked(|reviewed| reviewed.error = "broken".into()), refused("broken"));
        assert_eq!(checked(|reviewed| reviewed.authenticated = false), refused("service account jwt not valid"));
        assert_eq!(checked(|reviewed| *reviewed = Reviewed::default()), refused("service account jwt not valid"));
        for odd in ["", "admin", "a:b:c", "system:serviceaccount:kube-system:konnectivity-agent:x"] {
            assert_eq!(user(odd), refused("unexpected username format"), "{odd}");
        }
        assert_eq!(user("system:node:a:b"), refused("username returned is not a service account"));
        assert_eq!(
            user("system:serviceaccount:default:konnectivity-agent"),
            refused("incoming request from \"default\" namespace. Expected \"kube-system\"")
        );
        assert_eq!(
            user("system:serviceaccount:kube-system:default"),
            refused("incoming request from \"default\" service account. Expected \"konnectivity-agent\"")
        );
        assert_eq!(
            checked(|reviewed| reviewed.audiences = vec!["api".into()]),
            refused("token is for audience \"api\". Expected \"system:konnectivity-server\"")
        );
    }
}
