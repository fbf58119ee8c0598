//! Where to listen, as addresses, and the TCP sockets bound there.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel may hold until they are accepted. It cuts this down to `net.core.somaxconn`, whose
/// default this is.
const BACKLOG: i32 = 4096;

/// What an empty bind address stands for.
pub const ALL_INTERFACES: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];

/// Addresses that a bind address and a port name together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The setting that holds the port, for messages: `health-port`.
    pub setting: &'static str,
    /// All of them are to be bound, each with a socket of its own; IPv6 sockets take no IPv4. Never empty.
    pub addresses: Vec<SocketAddr>,
    /// Whether they stand for all interfaces: then a family that this machine doesn't have is left out.
    pub all_interfaces: bool,
}

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for --{setting}; {}", remedy(.source, .setting, .address))]
pub struct BindError {
    /// The setting that holds the port.
    pub setting: &'static str,
    /// The address that was refused.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

/// What to do about a refused address.
fn remedy(error: &io::Error, setting: &str, address: &SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("stop the program that has port {port} (`ss -lntup` shows it), or set --{setting} to a free port")
        }
        io::ErrorKind::PermissionDenied => format!("set --{setting} to a port that this user may have"),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}; correct the bind address that goes with --{setting}", address.ip())
        }
        _ => format!("correct --{setting} or the bind address that goes with it"),
    }
}

impl Listen {
    /// Binds every address for TCP. The sockets don't block, as tokio's `from_std` wants them.
    ///
    /// # Errors
    /// [`BindError`] for the first address that is refused; then none stays bound.
    pub fn bind_tcp(&self) -> Result<Vec<TcpListener>, BindError> {
        let mut listeners = Vec::with_capacity(self.addresses.len());
        let mut missing = None;
        for &address in &self.addresses {
            match bind(address) {
                Ok(listener) => listeners.push(listener),
                Err(source) => {
                    let error = BindError { setting: self.setting, address, source };
                    if !self.all_interfaces || !is_missing_family(&error.source) {
                        return Err(error);
                    }
                    missing = Some(error);
                }
            }
        }
        match missing {
            Some(error) if listeners.is_empty() => Err(error),
            _ => Ok(listeners),
        }
    }
}

impl fmt::Display for Listen {
    /// The addresses, with commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, address) in self.addresses.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Else a restart has to wait until the kernel has forgotten the old process's connections.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the kernel was built or started without this address family.
pub fn is_missing_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Whether an error of accept(2) is about the connection that was to be accepted, so that the next may do better.
/// Linux also reports what the network has found out about that connection.
pub fn is_of_one_connection(error: &io::Error) -> bool {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else {
        return false;
    };
    matches!(
        errno,
        Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENONET
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(addresses: &[SocketAddr], all_interfaces: bool) -> Listen {
        Listen { setting: "health-port", addresses: addresses.to_vec(), all_interfaces }
    }

    #[test]
    fn both_families_have_the_same_port() {
        let any = listen(&[SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))], false).bind_tcp().unwrap();
        let port = any[0].local_addr().unwrap().port();
        drop(any);
        let addresses = ALL_INTERFACES.map(|ip| SocketAddr::new(ip, port));
        let listeners = listen(&addresses, true).bind_tcp().unwrap();
        let bound: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        // A machine without IPv6 has the second only.
        assert!(bound.iter().eq(&addresses) || bound.iter().eq(&addresses[1..]), "{bound:?}");
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if bound.len() == 2 {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_names_setting_and_port() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(&[address], false).bind_tcp().unwrap_err();
        let port = address.port();
        let expected = format!(
            "cannot listen on {address} for --health-port; stop the program that has port {port} (`ss -lntup` shows it), \
             or set --health-port to a free port"
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_of_another_machine() {
        // RFC 5737 keeps it for documentation.
        let error = listen(&["192.0.2.1:8092".parse().unwrap()], false).bind_tcp().unwrap_err();
        assert!(error.to_string().contains("this machine has no address 192.0.2.1"), "{error}");
        let error = listen(&["192.0.2.1:8092".parse().unwrap()], true).bind_tcp().unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrNotAvailable, "not one family is left");
    }

    #[test]
    fn accept_errors_that_call_for_a_pause() {
        for errno in [Errno::ECONNABORTED, Errno::EINTR, Errno::ENETUNREACH] {
            assert!(is_of_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert!(!is_of_one_connection(&errno.into()), "{errno}");
        }
    }
}
