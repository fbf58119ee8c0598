//! What the emulator reads and writes in IP packets: UDP's addresses and checksums.
//!
//! IPv6 extension headers and fragments are left alone; neither QUIC nor TCP makes any here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::path::Load;

/// IANA's number of UDP in IP headers.
const UDP: u8 = 17;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
/// Where UDP has its checksum.
const UDP_CHECKSUM: usize = 6;

/// An IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet(pub Vec<u8>);

/// Which end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// Where things are in a UDP packet.
#[derive(Debug, Clone, Copy)]
struct Layout {
    is_v6: bool,
    udp: usize,
}

impl Packet {
    /// Whether it is a UDP packet that can be read.
    pub fn is_udp(&self) -> bool {
        self.layout().is_some()
    }

    /// Address and port of one side; none if it is not UDP.
    pub fn udp_address(&self, side: Side) -> Option<SocketAddr> {
        let layout = self.layout()?;
        let address = self.0.get(layout.address(side))?;
        let ip = match <[u8; 16]>::try_from(address) {
            Ok(v6) => IpAddr::V6(Ipv6Addr::from(v6)),
            Err(_) => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
        };
        let port = self.0.get(layout.port(side))?;
        Some(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
    }

    /// Changes address and port of one side, and the checksums; nothing happens if it is not UDP of that family.
    pub fn set_udp_address(&mut self, side: Side, to: SocketAddr) {
        let Some(layout) = self.layout().filter(|layout| layout.is_v6 == to.is_ipv6()) else { return };
        let (v4, v6);
        let address: &[u8] = match to.ip() {
            IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        if !layout.is_v6 {
            let old = self.0[layout.address(side)].to_vec();
            let sum = adjusted(self.word(10), &old, address);
            self.0[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        self.replace(layout, layout.address(side), address);
        self.replace(layout, layout.port(side), &to.port().to_be_bytes());
    }

    /// Writes these bytes, which UDP's checksum covers, and puts that right.
    fn replace(&mut self, layout: Layout, at: Range<usize>, new: &[u8]) {
        let place = layout.udp + UDP_CHECKSUM;
        // 0 says that there is none (RFC 768).
        if self.word(place) != 0 {
            let sum = match adjusted(self.word(place), &self.0[at.clone()], new) {
                0 => 0xffff,
                sum => sum,
            };
            self.0[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.0[at].copy_from_slice(new);
    }

    fn layout(&self) -> Option<Layout> {
        let bytes = &self.0;
        let layout = match bytes.first()? >> 4 {
            4 => {
                let is_fragment = bytes.len() >= 20 && self.word(6) & 0x3fff != 0;
                if *bytes.get(9)? != UDP || is_fragment {
                    return None;
                }
                Layout { is_v6: false, udp: usize::from(bytes[0] & 0x0f) * 4 }
            }
            6 if *bytes.get(6)? == UDP => Layout { is_v6: true, udp: IPV6_HEADER },
            _ => return None,
        };
        (layout.udp >= 20 && bytes.len() >= layout.udp + UDP_HEADER).then_some(layout)
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
}

impl Layout {
    fn address(self, side: Side) -> Range<usize> {
        match (self.is_v6, side) {
            (false, Side::Source) => 12..16,
            (false, Side::Destination) => 16..20,
            (true, Side::Source) => 8..24,
            (true, Side::Destination) => 24..40,
        }
    }

    fn port(self, side: Side) -> Range<usize> {
        match side {
            Side::Source => self.udp..self.udp + 2,
            Side::Destination => self.udp + 2..self.udp + 4,
        }
    }
}

impl Load for Packet {
    fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Behind the headers. UDP's checksum is put right: a receiver's kernel would make a plain loss of it otherwise.
    fn corrupt(&mut self, random: u64) {
        let layout = self.layout();
        let start = match layout {
            Some(layout) => layout.udp + UDP_HEADER,
            None => IPV6_HEADER,
        };
        let bits = self.0.len().saturating_sub(start) * 8;
        if bits == 0 {
            return;
        }
        let bit = (random % bits as u64) as usize;
        let at = start + bit / 8;
        let turned = self.0[at] ^ (1 << (bit % 8));
        match layout {
            // Whole words, as the checksum counts them; headers have an even length, the last byte may be alone.
            Some(layout) => {
                let word = at - (at - layout.udp) % 2;
                let mut new = self.0[word..(word + 2).min(self.0.len())].to_vec();
                new[at - word] = turned;
                self.replace(layout, word..word + new.len(), &new);
            }
            None => self.0[at] = turned,
        }
    }
}

/// A checksum after some of the words that it covers have changed (RFC 1624, equation 3).
fn adjusted(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
    };
    let inverted_old: u32 = old.chunks(2).map(|pair| 0xffff - words(pair)).sum();
    let mut total = u32::from(!sum) + inverted_old + words(new);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A UDP packet with right checksums.
    pub fn udp(from: &str, to: &str, payload: &[u8]) -> Packet {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let length = u16::try_from(UDP_HEADER + payload.len()).unwrap();
        let mut bytes = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [high, low] = (length + 20).to_be_bytes();
                let mut bytes = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, UDP, 0, 0];
                bytes.extend(from.octets().into_iter().chain(to.octets()));
                let sum = sum(&bytes);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let [high, low] = length.to_be_bytes();
                let mut bytes = vec![0x60, 0, 0, 0, high, low, UDP, 64];
                bytes.extend(from.octets().into_iter().chain(to.octets()));
                bytes
            }
            _ => panic!("one family"),
        };
        let udp = bytes.len();
        for word in [from.port(), to.port(), length, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(payload);
        let sum = udp_sum(&bytes, udp);
        bytes[udp + UDP_CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        Packet(bytes)
    }

    fn sum(bytes: &[u8]) -> u16 {
        let mut total: u32 =
            bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p.get(1).copied().unwrap_or(0))).sum();
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        !(total as u16)
    }

    /// Over pseudo header and packet: 0 if the checksum in it is right.
    fn udp_sum(bytes: &[u8], udp: usize) -> u16 {
        let addresses = if udp == 20 { &bytes[12..20] } else { &bytes[8..40] };
        let length = u16::try_from(bytes.len() - udp).unwrap().to_be_bytes();
        sum(&[addresses, &[0, UDP], &length, &bytes[udp..]].concat())
    }

    pub fn is_right(packet: &Packet) -> bool {
        let layout = packet.layout().unwrap();
        (layout.is_v6 || sum(&packet.0[..20]) == 0) && udp_sum(&packet.0, layout.udp) == 0
    }

    const PAIRS: [(&str, &str, &str); 2] = [
        ("10.1.0.1:4433", "10.1.0.2:53", "10.1.0.99:1"),
        ("[fd00::1]:4433", "[fd00::2]:53", "[fd00::dead:beef]:65535"),
    ];

    #[test]
    fn addresses_are_read_and_changed_with_right_checksums() {
        for (from, to, other) in PAIRS {
            for payload in [&b""[..], b"odd", b"even"] {
                let mut packet = udp(from, to, payload);
                assert!(is_right(&packet));
                assert_eq!(packet.udp_address(Side::Source).unwrap().to_string(), from);
                packet.set_udp_address(Side::Source, other.parse().unwrap());
                assert!(is_right(&packet), "{from} to {other}");
                packet.set_udp_address(Side::Destination, from.parse().unwrap());
                assert!(is_right(&packet));
                assert_eq!(packet, udp(other, from, payload));
            }
        }
    }

    /// 0 says that there is no checksum: it is never written, and stays where it is.
    #[test]
    fn a_checksum_that_would_be_0_is_written_as_its_other_form() {
        let mut packet = udp("10.1.0.1:1", "10.1.0.2:2", b"");
        for port in 0..=u16::MAX {
            packet.set_udp_address(Side::Source, SocketAddr::from(([10, 1, 0, 1], port)));
            assert_ne!(packet.word(20 + UDP_CHECKSUM), 0, "{port}");
        }
        assert!(is_right(&packet));
        packet.0[20 + UDP_CHECKSUM..][..2].fill(0);
        packet.set_udp_address(Side::Source, SocketAddr::from(([10, 1, 0, 9], 9)));
        assert_eq!(packet.word(20 + UDP_CHECKSUM), 0);
    }

    #[test]
    fn corruption_turns_one_bit_and_keeps_the_checksum_right() {
        for (from, to, _) in PAIRS {
            for payload in [&b"x"[..], b"some text of odd length"] {
                for random in 0..200 {
                    let original = udp(from, to, payload);
                    let mut packet = original.clone();
                    packet.corrupt(random);
                    assert!(is_right(&packet), "{random}");
                    let start = original.0.len() - payload.len();
                    let turned: u32 =
                        packet.0[start..].iter().zip(&original.0[start..]).map(|(a, b)| (a ^ b).count_ones()).sum();
                    assert_eq!(turned, 1);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for (from, to, other) in PAIRS {
            let whole = udp(from, to, b"payload").0;
            for length in 0..whole.len() {
                for first in [whole[0], 0x4f, 0x40, 0x00, 0xff] {
                    let mut packet = Packet(whole[..length].to_vec());
                    packet.0.first_mut().into_iter().for_each(|byte| *byte = first);
                    packet.udp_address(Side::Destination);
                    packet.set_udp_address(Side::Source, other.parse().unwrap());
                    (0..100).for_each(|random| packet.corrupt(random));
                }
            }
        }
    }

    #[test]
    fn what_is_not_udp_has_no_address() {
        let mut tcp = udp("10.1.0.1:1", "10.1.0.2:2", b"");
        tcp.0[9] = 6;
        assert_eq!(tcp.udp_address(Side::Source), None);
        let mut fragment = udp("10.1.0.1:1", "10.1.0.2:2", b"");
        fragment.0[6] = 0x20;
        assert!(!fragment.is_udp());
    }
}
