//! What the options say of the other servers: who they are, and where agents reach each of them.

use std::collections::BTreeMap;

use konnectivity_process::problems::Problems;
use konnectivity_transport::{
    id::ServerId,
    server_list::{ListedServer, MAX_LISTED_SERVERS, MAX_SERVER_ADDRESSES, ServerAddress, ServerList},
};

use crate::options::Options;

/// What is known of servers by the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// Where agents reach this server. Empty: by the common address only.
    pub advertised: Vec<ServerAddress>,
    /// The servers that agents are told of, this one among them; `None`: nobody has listed them.
    pub listed: Option<ServerList>,
}

/// Checks them all.
pub(super) fn check(options: &Options, server_id: Option<&ServerId>, problems: &mut Problems) -> Option<Peers> {
    let mut advertised = advertised(options, problems);
    let mut peers = listed(options, problems);
    let own = server_id.and_then(|id| peers.remove(id)).unwrap_or_default();
    if advertised.is_empty() {
        advertised = own;
    }
    if advertised.len() > MAX_SERVER_ADDRESSES {
        problems.add("advertise-agent-addresses", TOO_MANY_ADDRESSES, "name the best ones");
    }
    if peers.values().any(|addresses| addresses.len() > MAX_SERVER_ADDRESSES) {
        problems.add("peer-servers", TOO_MANY_ADDRESSES, "name the best ones");
    }
    if peers.len() >= MAX_LISTED_SERVERS {
        problems.add("peer-servers", format_args!("has more than {MAX_LISTED_SERVERS} servers"), "name fewer");
    }
    if !options.peer_servers.0.is_empty() && options.enable_lease_controller {
        let reason = "cannot be used with --enable-lease-controller, by which servers find each other";
        problems.add("peer-servers", reason, "leave one of them out");
    }
    let servers = |own: &ServerId| {
        let own = (own.clone(), advertised.clone());
        let servers = std::iter::once(own).chain(peers.clone());
        servers.map(|(id, addresses)| ListedServer { id, addresses: addresses.into() }).collect::<Vec<_>>()
    };
    let listed = Some(servers(server_id?)).filter(|servers| servers.len() > 1).map(|servers| {
        let count = u32::try_from(options.server_count).unwrap_or(1).max(u32::try_from(servers.len()).unwrap_or(1));
        ServerList { count, servers }
    });
    Some(Peers { advertised, listed })
}

const TOO_MANY_ADDRESSES: &str = "names more than 4 addresses of one server";
const _: () = assert!(MAX_SERVER_ADDRESSES == 4, "the text above says so");

fn advertised(options: &Options, problems: &mut Problems) -> Vec<ServerAddress> {
    let mut addresses = Vec::new();
    for text in &options.advertise_agent_addresses.0 {
        match address(text, options.agent_port) {
            Ok(address) => addresses.push(address),
            Err(reason) => problems.add("advertise-agent-addresses", reason, "set it as in 192.0.2.1:8091"),
        }
    }
    addresses
}

/// The servers of `--peer-servers`, each with its addresses in the order they were written.
fn listed(options: &Options, problems: &mut Problems) -> BTreeMap<ServerId, Vec<ServerAddress>> {
    let mut peers = BTreeMap::<_, Vec<_>>::new();
    for text in &options.peer_servers.0 {
        let peer = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is not of the form id=host:port"));
        let peer = peer.and_then(|(id, text)| {
            let id = ServerId::new(id).map_err(|error| format!("{text:?}: {error}"))?;
            Ok((id, address(text, options.agent_port)?))
        });
        match peer {
            Ok((id, address)) => peers.entry(id).or_default().push(address),
            Err(reason) => problems.add("peer-servers", reason, "set it as in server-1=192.0.2.1:8091"),
        }
    }
    peers
}

/// An address, whose port is that of agents where none is written.
fn address(text: &str, port: i64) -> Result<ServerAddress, String> {
    let with_port = format!("{text}:{port}");
    // A bare IPv6 address ends in what might be a port.
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().map(|address| format!("[{address}]:{port}"));
    let candidates = [Ok(text.to_owned()), bare_v6, Ok(with_port)].into_iter().flatten();
    let found = candidates.into_iter().find_map(|candidate| candidate.parse().ok());
    found.ok_or_else(|| match text.parse::<ServerAddress>() {
        Err(error) => error.to_string(),
        Ok(_) => format!("{text:?} is not an address"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, refused, valid};

    fn with(fixture: &Fixture, flags: &[&str]) -> Vec<String> {
        fixture.tcp().into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).collect()
    }

    #[test]
    fn servers_that_are_listed_are_told_to_agents_with_this_one_among_them() {
        let fixture = Fixture::new();
        let peers = "--peer-servers=server-2=192.0.2.2:8091,server-1=192.0.2.1,server-3=[2001:db8::3]:1,server-3=host";
        let config = valid(&with(&fixture, &["--server-id=server-1", peers]));
        let list = config.peers.listed.unwrap();
        let shown: Vec<_> = list
            .servers
            .iter()
            .map(|server| {
                let addresses: Vec<_> = server.addresses.iter().map(ToString::to_string).collect();
                format!("{} {}", server.id, addresses.join(" "))
            })
            .collect();
        let expected = ["server-1 192.0.2.1:8091", "server-2 192.0.2.2:8091", "server-3 [2001:db8::3]:1 host:8091"];
        assert_eq!((list.count, shown), (3, expected.map(str::to_owned).to_vec()));

        let config = valid(&with(&fixture, &["--server-id=server-1", peers, "--server-count=5"]));
        assert_eq!(config.peers.listed.unwrap().count, 5, "more than are listed");
    }

    #[test]
    fn without_others_there_is_no_list() {
        let fixture = Fixture::new();
        let config = valid(&with(&fixture, &["--server-id=server-1", "--peer-servers=server-1=192.0.2.1"]));
        assert_eq!(config.peers.listed, None);
        assert_eq!(config.peers.advertised[0].to_string(), "192.0.2.1:8091");
        let config = valid(&with(&fixture, &["--advertise-agent-addresses=2001:db8::1,node-1:9000"]));
        let shown: Vec<_> = config.peers.advertised.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[2001:db8::1]:8091", "node-1:9000"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let fixture = Fixture::new();
        for (flag, expected) in [
            ("--peer-servers=server-2", "\"server-2\" is not of the form id=host:port"),
            ("--peer-servers=a=:80", "does not begin with the name or address of a host"),
            ("--peer-servers==h:1", "id is empty"),
            ("--peer-servers=a=h:1,a=h:2,a=h:3,a=h:4,a=h:5", "names more than 4 addresses of one server"),
            ("--advertise-agent-addresses=h:0", "has no port"),
            ("--advertise-agent-addresses=a b:1", "does not begin with the name or address of a host"),
        ] {
            let problems = refused(&with(&fixture, &[flag]));
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{flag}: {problems:?}");
        }
    }
}
