//! UDP sockets for QUIC: buffer sizes, and what the route to a peer carries.

pub(crate) mod split;
pub(crate) mod suspicion;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Once,
};

use nix::{
    getsockopt_impl, libc, sockopt_impl,
    sys::socket::{getsockopt, sockopt::IpMtu},
};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of IP and UDP header in front of a UDP payload (RFC 791, RFC 8200, RFC 768).
const IPV4_HEADERS: u32 = 28;
const IPV6_HEADERS: u32 = 48;

/// Every QUIC path carries this payload (RFC 9000, section 14).
pub(crate) const MIN_PAYLOAD: u16 = 1200;

/// Binds a UDP socket with large buffers. An IPv6 socket takes IPv6 only: QUIC tells a NAT's new port from a new path
/// by the address family.
pub(crate) fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // The kernel grants what its limits allow; a refusal leaves the default, which is reported below.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    report_buffers(&socket, buffer_bytes);
    Ok(socket.into())
}

fn report_buffers(socket: &Socket, wanted: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Linux reports twice what it grants (socket(7)).
        let granted = |size: io::Result<usize>| size.map_or(0, |bytes| bytes / 2);
        let receive = granted(socket.recv_buffer_size());
        let send = granted(socket.send_buffer_size());
        if receive < wanted || send < wanted {
            tracing::warn!(
                wanted_bytes = wanted,
                receive_bytes = receive,
                send_bytes = send,
                "the kernel granted smaller UDP buffers than asked for; raise net.core.rmem_max and net.core.wmem_max"
            );
        } else {
            tracing::info!(receive_bytes = receive, send_bytes = send, "UDP buffers");
        }
    });
}

sockopt_impl!(
    /// The route's MTU of a connected IPv6 socket (RFC 3542, section 11.4).
    Ipv6Mtu, GetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::c_int
);

/// Largest UDP payload that the route to `peer` carries without fragmentation as far as this host knows, within
/// 1,200 and `max`. Path MTU discovery probes up to it.
pub(crate) fn route_payload(peer: SocketAddr, max: u16) -> u16 {
    let payload = route_mtu(peer).ok().map_or(u32::from(MIN_PAYLOAD), |mtu| {
        mtu.saturating_sub(if peer.is_ipv4() { IPV4_HEADERS } else { IPV6_HEADERS })
    });
    u16::try_from(payload).unwrap_or(u16::MAX).clamp(MIN_PAYLOAD, max.max(MIN_PAYLOAD))
}

/// Asks the routing table, by a connected socket that sends nothing.
fn route_mtu(peer: SocketAddr) -> io::Result<u32> {
    let any: SocketAddr =
        if peer.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    let mtu = if peer.is_ipv4() { getsockopt(&socket, IpMtu)? } else { getsockopt(&socket, Ipv6Mtu)? };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_allows_large_payloads_within_the_setting() {
        for peer in ["127.0.0.1:9", "[::1]:9"] {
            let peer = peer.parse().unwrap();
            assert_eq!(route_payload(peer, 6500), 6500, "{peer}");
            assert_eq!(route_payload(peer, 1300), 1300, "{peer}");
            assert_eq!(route_payload(peer, 100), MIN_PAYLOAD, "{peer}");
        }
    }
}
