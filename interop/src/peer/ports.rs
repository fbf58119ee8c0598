//! Numbers of free ports for programs that cannot be told to take any (`--agent-port=0` is refused by the reference).

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the system gives to outgoing connections (32768 by default), above the well-known ones.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Numbers that are free for TCP and UDP on 127.0.0.1 now, no number twice soon.
///
/// Another program may still take one before it is used; that shows as "address in use" of whoever wanted it.
///
/// # Panics
/// When none of 12,000 ports is free.
pub fn free<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| (0..COUNT).map(|_| candidate()).find(|&port| is_free(port)).expect("a port is free"))
}

fn candidate() -> u16 {
    // Test programs that run side by side begin at different places.
    let start = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(COUNT)).unwrap_or(0);
    let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
    FIRST + (start + step) % COUNT
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_not_in_use() {
        let [first] = free();
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first));
        let others: [u16; 8] = free();
        let distinct: std::collections::BTreeSet<_> = others.iter().chain([&first]).collect();
        assert_eq!(distinct.len(), 9);
    }
}
