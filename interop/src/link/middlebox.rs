//! The box between a site and the world: it translates addresses once it has lost its memory, and may refuse UDP.
//!
//! Before the first rebinding it changes nothing, as if the site had that very address. Each rebinding gives every UDP
//! flow a new address and port, as a NAT that restarts does: what comes for the old ones is dropped, until the site
//! speaks first.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use super::ip::{Packet, Side};

/// Flows that it remembers; more are refused, as a real one does.
const MAX_FLOWS: usize = 4096;
/// Where its ports begin; each flow takes the next.
const FIRST_PORT: u16 = 20_000;
/// Its addresses end with these, one after the other with each rebinding.
const FIRST_HOST: u8 = 100;
const HOSTS: u8 = 100;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    /// UDP is not let through now.
    Blocked,
    /// It belongs to no flow that the translation knows.
    Unmapped,
}

/// The box, on the site's side of the link.
#[derive(Debug)]
pub(super) struct Middlebox {
    /// When to forget everything; the next one last.
    rebinds: Vec<Duration>,
    blocked: Vec<Range<Duration>>,
    blocked_by_hand: bool,
    rebound: u8,
    ports: u16,
    outside: HashMap<SocketAddr, SocketAddr>,
    inside: HashMap<SocketAddr, SocketAddr>,
}

impl Middlebox {
    /// Rebinds at these times and blocks UDP in these windows.
    pub fn new(mut rebinds: Vec<Duration>, blocked: Vec<Range<Duration>>) -> Self {
        rebinds.sort_unstable_by(|one, other| other.cmp(one));
        Self {
            rebinds,
            blocked,
            blocked_by_hand: false,
            rebound: 0,
            ports: 0,
            outside: HashMap::new(),
            inside: HashMap::new(),
        }
    }

    /// UDP is let through or not, whatever the windows say.
    pub fn block_udp(&mut self, blocked: bool) {
        self.blocked_by_hand = blocked;
    }

    /// Forgets all flows; they get new addresses and ports.
    pub fn rebind(&mut self) {
        // 0 says that nothing is translated yet.
        self.rebound = self.rebound % HOSTS + 1;
        self.outside.clear();
        self.inside.clear();
    }

    /// A packet from the site.
    pub fn outwards(&mut self, now: Duration, packet: &mut Packet) -> Verdict {
        let Some(source) = self.udp_flow(now, packet, Side::Source) else {
            return self.without_translation(now, packet);
        };
        match self.mapping(source) {
            None => Verdict::Unmapped,
            Some(outside) => {
                packet.set_udp_address(Side::Source, outside);
                Verdict::Passes
            }
        }
    }

    /// A packet to the site.
    pub fn inwards(&mut self, now: Duration, packet: &mut Packet) -> Verdict {
        let Some(to) = self.udp_flow(now, packet, Side::Destination) else {
            return self.without_translation(now, packet);
        };
        match self.inside.get(&to) {
            None => Verdict::Unmapped,
            Some(inside) => {
                packet.set_udp_address(Side::Destination, *inside);
                Verdict::Passes
            }
        }
    }

    /// The address to translate; none if this packet is blocked or not translated.
    fn udp_flow(&mut self, now: Duration, packet: &Packet, side: Side) -> Option<SocketAddr> {
        while self.rebinds.pop_if(|next| *next <= now).is_some() {
            self.rebind();
        }
        if self.rebound == 0 || self.is_blocked(now) { None } else { packet.udp_address(side) }
    }

    fn without_translation(&self, now: Duration, packet: &Packet) -> Verdict {
        if self.is_blocked(now) && packet.is_udp() { Verdict::Blocked } else { Verdict::Passes }
    }

    fn is_blocked(&self, now: Duration) -> bool {
        self.blocked_by_hand || self.blocked.iter().any(|window| window.contains(&now))
    }

    fn mapping(&mut self, source: SocketAddr) -> Option<SocketAddr> {
        if let Some(outside) = self.outside.get(&source) {
            return Some(*outside);
        }
        if self.outside.len() >= MAX_FLOWS {
            return None;
        }
        let host = FIRST_HOST + self.rebound - 1;
        let ip = match source.ip() {
            IpAddr::V4(ip) => {
                let [first, second, third, _] = ip.octets();
                IpAddr::from([first, second, third, host])
            }
            IpAddr::V6(ip) => {
                let mut octets = ip.octets();
                octets[15] = host;
                IpAddr::from(octets)
            }
        };
        let outside = SocketAddr::new(ip, FIRST_PORT + self.ports % (u16::MAX - FIRST_PORT));
        self.ports = self.ports.wrapping_add(1);
        self.outside.insert(source, outside);
        self.inside.insert(outside, source);
        Some(outside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ip::tests::{is_right, udp};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SITE: &str = "10.1.0.1:4433";
    const CLOUD: &str = "10.1.0.2:8091";

    fn source_seen(middle: &mut Middlebox, now: Duration, from: &str) -> String {
        let mut packet = udp(from, CLOUD, b"out");
        assert_eq!(middle.outwards(now, &mut packet), Verdict::Passes);
        assert!(is_right(&packet));
        packet.udp_address(Side::Source).unwrap().to_string()
    }

    fn answer(middle: &mut Middlebox, now: Duration, to: &str) -> Result<String, Verdict> {
        let mut packet = udp(CLOUD, to, b"back");
        match middle.inwards(now, &mut packet) {
            Verdict::Passes => Ok(packet.udp_address(Side::Destination).unwrap().to_string()),
            verdict => Err(verdict),
        }
    }

    #[test]
    fn a_rebinding_gives_a_new_address_and_forgets_the_old_one() {
        let mut middle = Middlebox::new(vec![20 * SECOND, 10 * SECOND], Vec::new());
        assert_eq!(source_seen(&mut middle, SECOND, SITE), SITE);
        assert_eq!(answer(&mut middle, SECOND, SITE).unwrap(), SITE);

        // Before the site has spoken again, nothing reaches it.
        assert_eq!(answer(&mut middle, 10 * SECOND, SITE), Err(Verdict::Unmapped));
        let first = source_seen(&mut middle, 10 * SECOND, SITE);
        assert_eq!(first, "10.1.0.100:20000");
        assert_eq!(source_seen(&mut middle, 11 * SECOND, SITE), first);
        assert_eq!(answer(&mut middle, 11 * SECOND, &first).unwrap(), SITE);
        assert_eq!(answer(&mut middle, 11 * SECOND, SITE), Err(Verdict::Unmapped));
        assert_ne!(source_seen(&mut middle, 11 * SECOND, "10.1.0.1:9"), first);

        let second = source_seen(&mut middle, 20 * SECOND, SITE);
        assert_ne!(second, first);
        assert_eq!(answer(&mut middle, 20 * SECOND, &first), Err(Verdict::Unmapped));
        assert_eq!(answer(&mut middle, 20 * SECOND, &second).unwrap(), SITE);
    }

    #[test]
    fn udp_is_blocked_in_its_windows_and_by_hand_and_nothing_else_is() {
        let window = 5 * SECOND..6 * SECOND;
        let mut middle = Middlebox::new(Vec::new(), vec![window]);
        let mut tcp = udp(SITE, CLOUD, b"");
        tcp.0[9] = 6;
        assert_eq!(answer(&mut middle, 4 * SECOND, SITE).unwrap(), SITE);
        assert_eq!(answer(&mut middle, 5 * SECOND, SITE), Err(Verdict::Blocked));
        assert_eq!(middle.outwards(5 * SECOND, &mut tcp), Verdict::Passes);
        assert_eq!(answer(&mut middle, 6 * SECOND, SITE).unwrap(), SITE);
        middle.block_udp(true);
        middle.rebind();
        assert_eq!(middle.outwards(7 * SECOND, &mut udp(SITE, CLOUD, b"")), Verdict::Blocked);
        middle.block_udp(false);
        assert_eq!(source_seen(&mut middle, 7 * SECOND, SITE), "10.1.0.100:20000");
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut middle = Middlebox::new(vec![Duration::ZERO], Vec::new());
        let passed = (1..=5000).filter(|port| {
            middle.outwards(SECOND, &mut udp(&format!("10.1.0.1:{port}"), CLOUD, b"")) == Verdict::Passes
        });
        assert_eq!(passed.count(), MAX_FLOWS);
        // Those that have a flow keep it.
        assert_eq!(source_seen(&mut middle, SECOND, "10.1.0.1:1"), "10.1.0.100:20000");
    }

    #[test]
    fn ipv6_is_translated_too() {
        let mut middle = Middlebox::new(vec![Duration::ZERO], Vec::new());
        let mut packet = udp("[fd00::1]:5", "[fd00::2]:6", b"out");
        assert_eq!(middle.outwards(SECOND, &mut packet), Verdict::Passes);
        assert_eq!(packet, udp("[fd00::64]:20000", "[fd00::2]:6", b"out"));
    }
}
