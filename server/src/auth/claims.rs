//! What an agent may say that it reaches: under the rule, only its own node.

use std::net::IpAddr;

use konnectivity_kubernetes::NodeAddresses;
use konnectivity_transport::identifier::Identifiers;

use super::{nodes::Nodes, questions::Patience, refusal::Refusal};

/// Addresses of a node that a refusal names.
const MOST_NAMED: usize = 8;

/// What agents may say that they reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentifierPolicy {
    /// Anything, as in the reference: any agent can attract the dials for any host.
    Any,
    /// The addresses of the node that its token or certificate names, and that name.
    OwnNode(Exceptions),
}

/// What an agent may claim beyond its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// `default-route`: whatever nobody else serves.
    pub default_route: bool,
    /// `cidr`, which no strategy uses.
    pub cidr: bool,
}

/// Looks at what an agent says, and at its node if that is needed. `nodes` are the names by token and certificate.
pub(super) async fn look_at(
    lookup: Option<&Nodes>,
    nodes: &[String],
    identifiers: &Identifiers,
    exceptions: Exceptions,
    patience: Patience,
) -> Result<(), Refusal> {
    beyond_nodes(identifiers, exceptions)?;
    let Some((key, value)) = hosts(identifiers).next() else { return Ok(()) };
    let refused = |reason: String| Refusal::claim(format!("{key} {value:?}"), reason);
    let [name, others @ ..] = nodes else {
        return Err(refused("neither its token nor its certificate says which node it is on".into()));
    };
    if let Some(other) = others.iter().find(|other| *other != name) {
        return Err(refused(format!("its certificate is of node {name:?} and its token of node {other:?}")));
    }
    // Its own name needs nobody to be asked.
    if hosts(identifiers).all(|(_, value)| value == name) {
        return Ok(());
    }
    let Some(lookup) = lookup else {
        return Err(Refusal::CannotLookUp("this server has no way to the Kubernetes API".into()));
    };
    match lookup.find(name, patience).await? {
        Some(node) => of_node(identifiers, &node),
        None => Err(refused(format!("there is no node {name:?}"))),
    }
}

/// Every host that is claimed, with its key. Dials find an agent by any of them alike.
fn hosts(identifiers: &Identifiers) -> impl Iterator<Item = (&'static str, &String)> {
    let Identifiers { ipv4, ipv6, host, .. } = identifiers;
    let of = |key, values| std::iter::repeat(key).zip::<&Vec<String>>(values);
    of("ipv4", ipv4).chain(of("ipv6", ipv6)).chain(of("host", host))
}

fn beyond_nodes(identifiers: &Identifiers, exceptions: Exceptions) -> Result<(), Refusal> {
    let remedy = |name| format!("no node is that; --agent-identifier-exceptions={name} lets agents");
    if identifiers.default_route && !exceptions.default_route {
        return Err(Refusal::claim("default-route".into(), remedy("default-route")));
    }
    match identifiers.cidr.first() {
        Some(cidr) if !exceptions.cidr => Err(Refusal::claim(format!("cidr {cidr:?}"), remedy("cidr"))),
        _ => Ok(()),
    }
}

fn of_node(identifiers: &Identifiers, node: &NodeAddresses) -> Result<(), Refusal> {
    let ip = |text: &str| text.parse::<IpAddr>().ok();
    let is_own = |value: &String| {
        *value == node.name
            || node.addresses.contains(value)
            || ip(value).is_some_and(|own| node.addresses.iter().any(|address| ip(address) == Some(own)))
    };
    match hosts(identifiers).find(|(_, value)| !is_own(value)) {
        None => Ok(()),
        Some((key, value)) => {
            let (named, more) = node.addresses.split_at(node.addresses.len().min(MOST_NAMED));
            let more = if more.is_empty() { "" } else { ", ..." };
            let reason = format!("node {:?} has the addresses {}{more}", node.name, named.join(", "));
            Err(Refusal::claim(format!("{key} {value:?}"), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeAddresses {
        NodeAddresses {
            name: "node-1".into(),
            addresses: ["10.0.0.7", "fd00::7", "node-1.example"].map(str::to_owned).into(),
        }
    }

    async fn alone(nodes: &[&str], query: &str, exceptions: Exceptions) -> Result<(), String> {
        let nodes: Vec<_> = nodes.iter().map(|&name| name.to_owned()).collect();
        let identifiers = Identifiers::parse(query).unwrap();
        look_at(None, &nodes, &identifiers, exceptions, Patience::of_agent())
            .await
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn an_agent_may_say_its_own_nodes_name_and_addresses() {
        let own =
            |query: &str| of_node(&Identifiers::parse(query).unwrap(), &node()).map_err(|refusal| refusal.to_string());
        for good in ["", "host=node-1", "ipv4=10.0.0.7&ipv6=fd00:0::7&host=node-1.example", "host=10.0.0.7&ipv4=node-1"]
        {
            assert_eq!(own(good), Ok(()), "{good}");
        }
        for (bad, claim) in [
            ("host=node-2", "host \"node-2\""),
            ("host=Node-1", "host \"Node-1\""),
            ("ipv4=10.0.0.7&ipv4=10.0.0.8", "ipv4 \"10.0.0.8\""),
            ("ipv6=fd00::8", "ipv6 \"fd00::8\""),
            ("host=", "host \"\""),
            ("ipv4=010.0.0.7", "ipv4 \"010.0.0.7\""),
        ] {
            let expected = format!(
                "the agent must not claim {claim}: node \"node-1\" has the addresses 10.0.0.7, fd00::7, node-1.example"
            );
            assert_eq!(own(bad), Err(expected), "{bad}");
        }
    }

    /// Both go over the wire and into logs.
    #[test]
    fn what_is_long_is_cut() {
        let many = NodeAddresses { addresses: (0..64).map(|number| format!("10.0.0.{number}")).collect(), ..node() };
        let claim = Identifiers { host: vec!["x".repeat(60_000)], ..Identifiers::default() };
        let refused = of_node(&claim, &many).unwrap_err().to_string();
        assert!(refused.len() < 1_000 && refused.ends_with("10.0.0.6, 10.0.0.7, ..."), "{refused}");
    }

    #[tokio::test]
    async fn without_a_node_nothing_may_be_claimed() {
        assert_eq!(alone(&[], "", Exceptions::default()).await, Ok(()));
        let refused = alone(&[], "ipv4=10.0.0.7", Exceptions::default()).await.unwrap_err();
        assert!(refused.contains("neither its token nor its certificate"), "{refused}");
        let two = alone(&["node-1", "node-2"], "host=node-1", Exceptions::default()).await.unwrap_err();
        assert!(two.contains("\"node-1\"") && two.contains("\"node-2\""), "{two}");
        assert_eq!(alone(&["node-1", "node-1"], "host=node-1", Exceptions::default()).await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_no_node_must_be_allowed() {
        let both = Exceptions { default_route: true, cidr: true };
        for (query, named, allowed) in [
            ("default-route=true", "default-route", Exceptions { default_route: true, cidr: false }),
            ("cidr=10.0.0.0/8", "cidr", Exceptions { default_route: false, cidr: true }),
        ] {
            let refused = alone(&["node-1"], query, Exceptions::default()).await.unwrap_err();
            assert!(refused.contains(&format!("--agent-identifier-exceptions={named}")), "{refused}");
            assert_eq!(alone(&["node-1"], query, allowed).await, Ok(()));
            assert_eq!(alone(&[], query, both).await, Ok(()));
        }
        assert_eq!(alone(&[], "default-route=false", Exceptions::default()).await, Ok(()));
    }
}
