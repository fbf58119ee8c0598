//! Asks the API whose token it is.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::core::{ObjectMeta, Request, params::PostParams};

use crate::{client::Kubernetes, error::ApiError, right::Right};

/// What a review needs, which comes with the role `system:auth-delegator`.
const REVIEW: Right = Right::cluster("create", "tokenreviews", "authentication.k8s.io");

/// Where reviews are made.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// In the extra attributes of a token that is bound to a pod or a node: the node's name.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// What the API says of a token. It says so of bad ones too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// Whether the token is good.
    pub authenticated: bool,
    /// Why it could not be looked at, or is not good; may be empty.
    pub error: String,
    /// Whose it is, as in `system:serviceaccount:kube-system:konnectivity-agent`.
    pub username: String,
    /// The audiences that it is for, of those that were asked about. Empty from an API server that knows no audiences.
    pub audiences: Vec<String>,
    /// The node that it is bound to.
    pub node_name: Option<String>,
}

impl Kubernetes {
    /// Has a token reviewed.
    ///
    /// # Errors
    /// [`ApiError`] says nothing of the token, only that there is no review.
    pub async fn review(&self, token: &str, audience: &str) -> Result<Reviewed, ApiError> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![audience.to_owned()]) };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        let answer: TokenReview = self
            .call(REVIEW, async |client| {
                let body = serde_json::to_vec(&review).map_err(kube::Error::SerdeError)?;
                let request =
                    Request::new(PATH).create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
                // Not the library's own way of reading: it logs what it cannot read, and the answer holds the token.
                serde_json::from_str(&client.request_text(request).await?).map_err(kube::Error::SerdeError)
            })
            .await?;
        let status = answer.status.ok_or_else(|| ApiError::Malformed {
            origin: self.origin().into(),
            right: REVIEW,
            reason: "it has no status".into(),
        })?;
        Ok(status.into())
    }
}

impl From<TokenReviewStatus> for Reviewed {
    fn from(status: TokenReviewStatus) -> Self {
        let UserInfo { username, extra, .. } = status.user.unwrap_or_default();
        let node_name = extra.and_then(|mut extra| extra.remove(NODE_NAME)).and_then(one);
        Self {
            authenticated: status.authenticated.unwrap_or_default(),
            error: status.error.unwrap_or_default(),
            username: username.unwrap_or_default(),
            audiences: status.audiences.unwrap_or_default(),
            node_name,
        }
    }
}

/// The value of a list of one; several would mean nothing.
fn one(values: Vec<String>) -> Option<String> {
    <[String; 1]>::try_from(values).ok().map(|[value]| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviewed(status: &str) -> Reviewed {
        serde_json::from_str::<TokenReviewStatus>(status).expect("a status").into()
    }

    #[test]
    fn a_good_token_has_a_user_and_may_have_a_node() {
        let status = r#"{"authenticated": true, "audiences": ["a"],
            "user": {"username": "system:serviceaccount:n:s", "extra": {"authentication.kubernetes.io/node-name": ["node-1"]}}}"#;
        let expected = Reviewed {
            authenticated: true,
            error: String::new(),
            username: "system:serviceaccount:n:s".into(),
            audiences: vec!["a".into()],
            node_name: Some("node-1".into()),
        };
        assert_eq!(reviewed(status), expected);
    }

    #[test]
    fn what_is_missing_is_not_there() {
        assert_eq!(reviewed("{}"), Reviewed::default());
        let error = reviewed(r#"{"error": "invalid bearer token"}"#);
        assert_eq!((error.authenticated, error.error.as_str()), (false, "invalid bearer token"));
        for extra in [r#"[]"#, r#"["a", "b"]"#] {
            let status = format!(
                r#"{{"authenticated": true, "user": {{"extra": {{"authentication.kubernetes.io/node-name": {extra}}}}}}}"#
            );
            assert_eq!(reviewed(&status).node_name, None, "{extra}");
        }
    }
}
