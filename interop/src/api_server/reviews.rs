//! Whose a token is.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{asked::Asked, store::Answer};

/// Whose a token is.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name, as in `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// What the token is for.
    pub audience: String,
    /// The node that it is bound to.
    pub node: Option<String>,
}

/// The answer to a review of a token by somebody who knows these.
pub(super) fn review(asked: &Asked, users: &HashMap<String, User>) -> Answer {
    let spec = &asked.body["spec"];
    let user = spec["token"].as_str().and_then(|token| users.get(token));
    let body = json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": spec,
        "status": status(user, &spec["audiences"]),
    });
    Answer { code: 201, body }
}

fn status(user: Option<&User>, audiences: &Value) -> Value {
    let Some(User { username, audience, node }) = user else { return json!({"error": "invalid bearer token"}) };
    if audiences.as_array().is_none_or(|all| !all.contains(&json!(audience))) {
        return json!({"error": format!("token audiences [{audience:?}] is invalid for the target audiences")});
    }
    let mut extra = json!({});
    if let Some(node) = node {
        extra["authentication.kubernetes.io/node-name"] = json!([node]);
    }
    json!({"authenticated": true, "audiences": [audience], "user": {"username": username, "extra": extra}})
}
