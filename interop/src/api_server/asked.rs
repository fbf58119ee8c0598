//! Requests, in the words of RBAC.

use std::collections::BTreeMap;

use hyper::{Method, http::request::Parts};
use serde_json::Value;

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// As in RBAC: get, list, watch, create, update, delete.
    pub verb: &'static str,
    /// As in `leases`.
    pub resource: String,
    /// Empty: none.
    pub namespace: String,
    /// Empty: all.
    pub name: String,
    /// The whole path.
    pub path: String,
    /// The query, decoded.
    pub query: BTreeMap<String, String>,
    /// The bearer token.
    pub bearer: String,
    /// Who has asked, as they call themselves.
    pub user_agent: String,
    /// The body; null for none, or one that is no JSON.
    pub body: Value,
}

impl Asked {
    pub(super) fn new(head: &Parts, body: &[u8]) -> Self {
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = head.uri.path();
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        // /api/v1/..., /apis/group/v1/...
        let parts =
            if parts.first() == Some(&"api") { &parts[2.min(parts.len())..] } else { &parts[3.min(parts.len())..] };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            parts => ("", parts),
        };
        let query: BTreeMap<_, _> = head.uri.query().unwrap_or_default().split('&').filter_map(pair).collect();
        let name = parts.get(1).copied().unwrap_or_default();
        let watches = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
        let verb = match head.method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ if watches => "watch",
            _ if name.is_empty() => "list",
            _ => "get",
        };
        Self {
            verb,
            resource: parts.first().copied().unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: path.to_owned(),
            query,
            bearer: header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned(),
            user_agent: header("user-agent").to_owned(),
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), decoded(value)))
}

/// `%3D` is `=`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| more.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        rest = if escaped.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
