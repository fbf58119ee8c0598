//! Asks the API which addresses a node has.

use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::{client::Kubernetes, error::ApiError, right::Right};

/// What it needs.
const GET: Right = Right::cluster("get", "nodes", "");

/// Addresses that are read of a node, and bytes of each. A kubelet writes its own node's, whatever it likes.
const MOST_ADDRESSES: usize = 64;
const MOST_ADDRESS_BYTES: usize = 253;

/// The name of a node and what its status says of where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The object's name.
    pub name: String,
    /// Every address of whatever type: addresses of the node, and its names in DNS.
    pub addresses: Vec<String>,
}

impl Kubernetes {
    /// The addresses of a node; `None`: there is no such node.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn node(&self, name: &str) -> Result<Option<NodeAddresses>, ApiError> {
        let node = self.call(GET, async |client| Api::<Node>::all(client).get(name).await).await;
        match node {
            Ok(node) => Ok(Some(node.into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<Node> for NodeAddresses {
    fn from(node: Node) -> Self {
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            addresses: addresses
                .into_iter()
                .map(|address| address.address)
                .filter(|address| address.len() <= MOST_ADDRESS_BYTES)
                .take(MOST_ADDRESSES)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_addresses_of_all_types() {
        let node = r#"{"metadata": {"name": "node-1"}, "status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "node-1.example"}]}}"#;
        let node = NodeAddresses::from(serde_json::from_str::<Node>(node).expect("a node"));
        assert_eq!(node.name, "node-1");
        assert_eq!(node.addresses, ["10.0.0.7", "node-1.example"]);
        assert_eq!(NodeAddresses::from(Node::default()), NodeAddresses::default());
    }

    #[test]
    fn a_node_has_no_more_addresses_than_any_has() {
        let of = |address: String| serde_json::json!({"type": "InternalIP", "address": address});
        let long = std::iter::once(of("x".repeat(MOST_ADDRESS_BYTES + 1)));
        let addresses: Vec<_> = long.chain((0..10_000).map(|number| of(number.to_string()))).collect();
        let node = serde_json::json!({"status": {"addresses": addresses}});
        let node = NodeAddresses::from(serde_json::from_value::<Node>(node).expect("a node"));
        assert_eq!((node.addresses.len(), node.addresses[0].as_str()), (MOST_ADDRESSES, "0"));
    }
}
