//! What a server tells its agents of all servers: how many there are, who they are, and where each is reached. From the
//! wire and to it, within bounds.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use prost::Message;

use crate::{
    id::ServerId,
    wire::{
        codec::MAX_CONTROL_BYTES,
        message::{Server, Servers},
    },
};

/// Most servers in a list. Each agent connects to each of them.
pub const MAX_LISTED_SERVERS: usize = 256;

/// Most addresses of one server: two families, twice.
pub const MAX_SERVER_ADDRESSES: usize = 4;

/// Bytes of a host's name (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// What a list may need on the wire, with room for what is around it.
const MAX_LIST_BYTES: usize = MAX_CONTROL_BYTES - 64;

/// Where a server's port for agents is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress {
    host: String,
    port: u16,
}

/// Why a text is no [`ServerAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerAddressError {
    /// There is no port from 1 to 65535 behind the last colon.
    #[error("{text:?} has no port; write host:port, as in 192.0.2.1:8091 or [2001:db8::1]:8091")]
    Port {
        /// What was written.
        text: String,
    },
    /// The host is neither an address nor a name.
    #[error("{text:?} does not begin with the name or address of a host; IPv6 addresses are in brackets")]
    Host {
        /// What was written.
        text: String,
    },
}

impl ServerAddress {
    /// A name or an IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// UDP for QUIC, TCP for gRPC.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ServerAddress {
    type Err = ServerAddressError;

    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        let no_port = || ServerAddressError::Port { text: text.chars().take(MAX_HOST_BYTES).collect() };
        let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(no_port)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => Some(inner).filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| is_name(host)),
        };
        match host {
            Some(host) => Ok(Self { host: host.to_owned(), port }),
            None => Err(ServerAddressError::Host { text: text.chars().take(MAX_HOST_BYTES).collect() }),
        }
    }
}

/// Whether this can be a name, or an IPv4 address.
fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(fits) && !host.starts_with(['-', '.'])
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// One server of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedServer {
    /// Who it is.
    pub id: ServerId,
    /// Where it is reached, in order of preference. Empty: nobody knows.
    pub addresses: Arc<[ServerAddress]>,
}

/// The servers that there are, as one of them knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerList {
    /// How many; may be more than are listed.
    pub count: u32,
    /// Those that are known by name.
    pub servers: Vec<ListedServer>,
}

impl ServerList {
    /// What a message says. A server whose id cannot be used is passed over, and so is an address; of servers above
    /// [`MAX_LISTED_SERVERS`], of addresses above [`MAX_SERVER_ADDRESSES`] and of a second entry of one server nothing
    /// is kept.
    pub fn from_wire(message: &Servers) -> Self {
        let mut servers: Vec<ListedServer> = Vec::new();
        for server in &message.servers {
            if servers.len() == MAX_LISTED_SERVERS {
                break;
            }
            let Ok(id) = ServerId::new(server.server_id.as_str()) else { continue };
            if servers.iter().any(|known| known.id == id) {
                continue;
            }
            let addresses = server.addresses.iter().filter_map(|address| address.parse().ok());
            servers.push(ListedServer { id, addresses: addresses.take(MAX_SERVER_ADDRESSES).collect() });
        }
        Self { count: message.server_count, servers }
    }

    /// The message that says it, within the limits of [`Self::from_wire`] and of a control message: what is beyond them
    /// is left out, at the end of the list.
    pub fn to_wire(&self) -> Servers {
        let mut message = Servers { server_count: self.count, servers: Vec::new() };
        let mut bytes = message.encoded_len();
        for server in self.servers.iter().take(MAX_LISTED_SERVERS) {
            let addresses = server.addresses.iter().take(MAX_SERVER_ADDRESSES).map(ToString::to_string);
            let server = Server { server_id: server.id.to_string(), addresses: addresses.collect() };
            // Its tag, and a length of up to two bytes.
            bytes += server.encoded_len() + 3;
            if bytes > MAX_LIST_BYTES {
                break;
            }
            message.servers.push(server);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{
        codec,
        message::{Control, ControlBody},
    };

    fn address(text: &str) -> Result<String, ServerAddressError> {
        text.parse::<ServerAddress>().map(|address| address.to_string())
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["192.0.2.1:8091", "[2001:db8::1]:8091", "server-1.konnectivity.svc:1", "h:65535"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        assert_eq!(address("[2001:DB8:0::1]:80").as_deref(), Ok("[2001:db8::1]:80"));
        let six: ServerAddress = "[::1]:80".parse().unwrap();
        assert_eq!((six.host(), six.port()), ("::1", 80));
        for text in ["", "host", "host:", "host:0", "host:65536", "host:+1", "host: 1", "[::1]"] {
            assert_eq!(address(text), Err(ServerAddressError::Port { text: text.to_owned() }), "{text}");
        }
        let long = format!("{}:1", "h".repeat(MAX_HOST_BYTES + 1));
        for text in [":1", "::1:80", "[h]:1", "[::1:80", "a b:1", "-h:1", "a/b:1", "ä:1", "h\n:1", &long] {
            assert!(matches!(address(text), Err(ServerAddressError::Host { .. })), "{text}");
        }
    }

    fn server(id: &str, addresses: &[&str]) -> Server {
        Server { server_id: id.to_owned(), addresses: addresses.iter().map(|&text| text.to_owned()).collect() }
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        let message = Servers {
            server_count: 7,
            servers: vec![
                server("", &["192.0.2.1:1"]),
                server("a", &["nonsense", "192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3", "192.0.2.4:4", "192.0.2.5:5"]),
                server("é", &["192.0.2.1:1"]),
                server("b", &[]),
                server("a", &["192.0.2.9:9"]),
            ],
        };
        let list = ServerList::from_wire(&message);
        assert_eq!(list.count, 7);
        let shown: Vec<_> = list.servers.iter().map(|server| (server.id.as_str(), server.addresses.len())).collect();
        assert_eq!(shown, [("a", MAX_SERVER_ADDRESSES), ("b", 0)]);
        assert_eq!(list.servers[0].addresses[0].to_string(), "192.0.2.1:1");
    }

    #[test]
    fn a_long_list_is_cut_at_both_ends() {
        let message =
            Servers { server_count: 1, servers: (0..1_000).map(|id| server(&id.to_string(), &["h:1"])).collect() };
        let list = ServerList::from_wire(&message);
        assert_eq!(list.servers.len(), MAX_LISTED_SERVERS);
        assert_eq!(list.servers[255].id.as_str(), "255");
        let more = ServerList { count: 1_000, servers: vec![list.servers[0].clone(); 1_000] };
        assert_eq!(more.to_wire().servers.len(), MAX_LISTED_SERVERS);
    }

    #[test]
    fn the_longest_list_fits_into_a_message() {
        let longest: ServerAddress = format!("{}:65535", "h".repeat(MAX_HOST_BYTES)).parse().unwrap();
        let servers = (0..MAX_LISTED_SERVERS).map(|number| ListedServer {
            id: ServerId::new(format!("{number:0256}")).unwrap(),
            addresses: vec![longest.clone(); 9].into(),
        });
        let list = ServerList { count: u32::MAX, servers: servers.collect() };
        let message = list.to_wire();
        assert!((45..60).contains(&message.servers.len()), "{}", message.servers.len());
        assert!(message.servers.iter().all(|server| server.addresses.len() == MAX_SERVER_ADDRESSES));
        let control = Control { body: Some(ControlBody::Servers(message)) };
        assert!(codec::encode(&control, MAX_CONTROL_BYTES).is_ok());
    }

    proptest! {
        #[test]
        fn any_message_is_read(count in any::<u32>(), servers in proptest::collection::vec((".*", ".*", ".*:[0-9]{1,5}"), 0..9)) {
            let servers = servers.iter().map(|(id, one, other)| server(id, &[one, other])).collect();
            let list = ServerList::from_wire(&Servers { server_count: count, servers });
            prop_assert_eq!(ServerList::from_wire(&list.to_wire()), list);
        }
    }
}
