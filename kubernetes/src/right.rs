//! What a request does, in the words of RBAC: what an administrator grants, and what a refusal must name.

use std::fmt;

/// A verb on a resource, in a namespace or in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    verb: &'static str,
    resource: &'static str,
    group: &'static str,
    namespace: Option<String>,
}

impl Right {
    /// `verb` as RBAC has it (get, list, watch, create, update, patch, delete) on a resource that belongs to no
    /// namespace. The core group is the empty text.
    pub const fn cluster(verb: &'static str, resource: &'static str, group: &'static str) -> Self {
        Self { verb, resource, group, namespace: None }
    }

    /// The same on a resource of a namespace.
    pub fn namespaced(verb: &'static str, resource: &'static str, group: &'static str, namespace: &str) -> Self {
        Self { verb, resource, group, namespace: Some(namespace.to_owned()) }
    }
}

/// As in `create tokenreviews.authentication.k8s.io`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_written_as_it_is_granted() {
        let review = Right::cluster("create", "tokenreviews", "authentication.k8s.io");
        assert_eq!(review.to_string(), "create tokenreviews.authentication.k8s.io");
        assert_eq!(Right::cluster("get", "nodes", "").to_string(), "get nodes");
        let list = Right::namespaced("list", "leases", "coordination.k8s.io", "kube-system");
        assert_eq!(list.to_string(), "list leases.coordination.k8s.io in namespace \"kube-system\"");
    }
}
