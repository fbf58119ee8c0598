//! Which of the addresses that servers name an agent may dial.
//!
//! Whoever is there must prove by its certificate to be a server under the configured name; until then it only sees the
//! beginning of a TLS handshake. Still an agent must not be led to send even that anywhere: not to services of its own
//! machine, nor out of the networks that the operator has named.

use std::{fmt, io, net::IpAddr, net::SocketAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use konnectivity_transport::server_list::ServerAddress;
use tokio::{net::lookup_host, time::timeout};

use crate::server_set::Direct;

/// Most addresses that the names of one server may lead to.
const MOST_ADDRESSES: usize = 8;

/// How long one name may take; the others are tried all the same.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Which addresses may be dialled (`--direct-server-networks`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectPolicy {
    /// All, but for those that mean something else on each machine.
    Any,
    /// None: servers are reached by the configured address only.
    Nowhere,
    /// Those in these networks, whatever they are.
    Networks(Vec<IpNet>),
}

/// Why a text is no [`DirectPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is neither any nor none nor a network such as 192.0.2.0/24")]
pub struct DirectPolicyError {
    /// What was written there.
    word: String,
}

impl DirectPolicy {
    /// From `any`, `none`, or networks.
    ///
    /// # Errors
    /// [`DirectPolicyError`] with the first word that is none of them.
    pub fn new<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, DirectPolicyError> {
        let words: Vec<_> = words.into_iter().collect();
        match words[..] {
            ["any"] => Ok(Self::Any),
            ["none"] | [] => Ok(Self::Nowhere),
            _ => Ok(Self::Networks(words.into_iter().map(network).collect::<Result<_, _>>()?)),
        }
    }

    /// Whether `address` may be dialled, which a server at `via` has named.
    pub fn allows(&self, address: IpAddr, via: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::from([255; 4]) {
            return false;
        }
        match self {
            Self::Any => !is_local(address) || is_local(via.to_canonical()),
            Self::Nowhere => false,
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }

    /// The addresses of a server that may be dialled, in its order of preference.
    ///
    /// # Errors
    /// When there are none: what is wrong with the first.
    pub async fn resolve(&self, direct: &Direct) -> io::Result<Vec<SocketAddr>> {
        let mut found = Vec::new();
        let mut failure = None;
        for address in direct.addresses.iter() {
            match self.resolve_one(address, direct.via).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        found.truncate(MOST_ADDRESSES);
        if found.is_empty() {
            return Err(failure.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound)));
        }
        Ok(found)
    }

    async fn resolve_one(&self, address: &ServerAddress, via: IpAddr) -> io::Result<Vec<SocketAddr>> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let looked_up = timeout(LOOKUP_LIMIT, lookup_host((address.host(), address.port()))).await;
        let looked_up = looked_up.map_err(|_| named(io::ErrorKind::TimedOut.into()))?.map_err(named)?;
        let allowed: Vec<_> = looked_up.filter(|found| self.allows(found.ip(), via)).collect();
        if allowed.is_empty() {
            let reason = format!("{address}: --direct-server-networks={self} does not allow it");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok(allowed)
    }
}

/// Whether the address means something else on each machine, or link.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
        || match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
}

fn network(word: &str) -> Result<IpNet, DirectPolicyError> {
    let network = word.parse().ok().or_else(|| Some(IpNet::from(IpAddr::from_str(word).ok()?)));
    network.ok_or_else(|| DirectPolicyError { word: word.to_owned() })
}

impl fmt::Display for DirectPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Nowhere => f.write_str("none"),
            Self::Networks(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                f.write_str(&networks.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use konnectivity_transport::id::ServerId;

    use super::*;

    fn policy(text: &str) -> DirectPolicy {
        DirectPolicy::new(text.split(',')).unwrap()
    }

    fn allows(policy: &DirectPolicy, address: &str, via: &str) -> bool {
        policy.allows(address.parse().unwrap(), via.parse().unwrap())
    }

    #[test]
    fn any_is_not_this_machine_and_not_everybody() {
        let any = policy("any");
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(allows(&any, address, "192.0.2.9"), "{address}");
        }
        for address in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1"] {
            assert!(!allows(&any, address, "192.0.2.9"), "{address}");
            assert!(allows(&any, address, "127.0.0.1"), "{address}: a server of this machine may name others");
        }
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(!allows(&any, address, "127.0.0.1"), "{address}");
        }
    }

    #[test]
    fn networks_are_what_they_say() {
        let networks = policy("10.0.0.0/8,2001:db8::/32,127.0.0.1");
        for address in ["10.255.0.1", "::ffff:10.0.0.1", "2001:db8:1::1", "127.0.0.1"] {
            assert!(allows(&networks, address, "192.0.2.9"), "{address}");
        }
        for address in ["11.0.0.1", "2001:db9::1", "127.0.0.2", "224.0.0.1"] {
            assert!(!allows(&networks, address, "192.0.2.9"), "{address}");
        }
        assert!(!allows(&policy("none"), "10.0.0.1", "127.0.0.1"));
        assert!(!allows(&policy("0.0.0.0/0"), "0.0.0.0", "127.0.0.1"));
        for (text, word) in [("10.0.0.0/33", "10.0.0.0/33"), ("any,10.0.0.0/8", "any"), ("x", "x")] {
            assert_eq!(DirectPolicy::new(text.split(',')), Err(DirectPolicyError { word: word.to_owned() }));
        }
        assert_eq!(networks.to_string(), "10.0.0.0/8,2001:db8::/32,127.0.0.1/32");
    }

    #[tokio::test]
    async fn forbidden_addresses_are_left_out_and_named() {
        let direct = |addresses: &[&str]| Direct {
            server_id: ServerId::new("a").unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            via: "192.0.2.9".parse().unwrap(),
        };
        let networks = policy("10.0.0.0/8");
        let found = networks.resolve(&direct(&["192.0.2.1:1", "10.0.0.1:2"])).await.unwrap();
        assert_eq!(found, ["10.0.0.1:2".parse().unwrap()]);
        let error = networks.resolve(&direct(&["192.0.2.1:1"])).await.unwrap_err();
        assert_eq!(error.to_string(), "192.0.2.1:1: --direct-server-networks=10.0.0.0/8 does not allow it");
    }
}
