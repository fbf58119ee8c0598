//! Asks the API whose a token is, and looks whether that may be an agent (compat 6.3).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use konnectivity_kubernetes::{Kubernetes, Reviewed};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::task::TaskTracker;

use super::{
    cache::{Cache, Found, Key},
    refusal::Refusal,
    token::Token,
};
use crate::metrics::{Metrics, ReviewResult};

/// How long an agent is let wait. It waits 10 s itself, and is to learn why nothing comes of it.
const REVIEW_LIMIT: Duration = Duration::from_secs(7);

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

/// Reviews tokens.
pub struct Reviewer {
    kubernetes: Kubernetes,
    expected: Expected,
    metrics: Arc<Metrics>,
    cache: Mutex<Cache>,
    /// Reviews go on when nobody waits any more: the agent comes back.
    tasks: TaskTracker,
    runtime: Handle,
}

impl Reviewer {
    /// Reviews run in the runtime that this is called in.
    pub fn new(kubernetes: Kubernetes, expected: Expected, metrics: Arc<Metrics>) -> Arc<Self> {
        let cache = Mutex::default();
        let (tasks, runtime) = (TaskTracker::new(), Handle::current());
        Arc::new(Self { kubernetes, expected, metrics, cache, tasks, runtime })
    }

    /// Whose the token is, if it is an agent's.
    ///
    /// # Errors
    /// [`Refusal`], within 7 s.
    ///
    /// # Cancel safety
    /// A review that is under way goes on.
    pub async fn review(self: &Arc<Self>, token: &Token) -> Result<Identity, Refusal> {
        let key = Key::of(token);
        let found = self.cache().find(key, Instant::now());
        let mut outcome = match found {
            Found::Good(identity) => {
                self.metrics.token_reviewed(ReviewResult::Cached, Duration::ZERO);
                return Ok(identity);
            }
            Found::UnderWay(outcome) => outcome,
            Found::Full => return Err(Refusal::CannotReview("too many reviews are under way".into())),
            Found::Ask(tell, outcome) => {
                let (reviewer, token) = (self.clone(), token.clone());
                let review = async move {
                    let result = reviewer.ask(&token).await;
                    // A clock that is ahead of the API's must not make a good token a bad one.
                    let ends_in = token.end().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
                    reviewer.cache().done(key, &result, ends_in, Instant::now());
                    tell.send_replace(Some(result));
                };
                self.tasks.spawn_on(review, &self.runtime);
                outcome
            }
        };
        let waited = timeout(REVIEW_LIMIT, outcome.wait_for(Option::is_some)).await;
        let late = || Refusal::CannotReview(format!("no answer yet after {}s", REVIEW_LIMIT.as_secs()));
        match waited {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(late())),
            // The review was dropped with its runtime.
            Ok(Err(_)) => Err(Refusal::CannotReview("the server stops".into())),
            Err(_elapsed) => Err(late()),
        }
    }

    async fn ask(&self, token: &Token) -> Result<Identity, Refusal> {
        let begun = Instant::now();
        let reviewed = self.kubernetes.review(token.expose(), &self.expected.audience).await;
        let result = match reviewed {
            Ok(reviewed) => check(reviewed, &self.expected).map_err(Refusal::Lookup),
            Err(error) => {
                tracing::warn!(%error, "cannot review an agent's token");
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

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
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
