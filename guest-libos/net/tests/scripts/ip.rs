//! What is around a segment, by family: addresses, frames both ways, ICMP errors, and what neighbours answer. Scripts are
//! written for IPv4; here is what the same means over IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{Around, Endpoints};

pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The IPv6 header is so much longer: the MTU of a script is larger by it over IPv6, for the same segments.
pub(crate) const LONGER_HEADER_BYTES: u16 = 20;
pub(crate) const PREFIX_LEN_V4: u8 = 24;
pub(crate) const PREFIX_LEN_V6: u8 = 120;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The address on the link with this last octet.
    const fn address(self, last: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last as u16)),
        }
    }

    pub(crate) fn host(self) -> IpAddr {
        self.address(1)
    }

    pub(crate) fn peer(self) -> IpAddr {
        self.address(2)
    }

    fn router(self) -> IpAddr {
        self.address(254)
    }
}

/// The IPv6 address that plays the part of an IPv4 address in a script.
pub(crate) fn over_ipv6(address: IpAddr) -> Result<IpAddr, String> {
    let IpAddr::V4(ip) = address else { return Ok(address) };
    let last = ip.octets()[3];
    match ip.octets() {
        [0, 0, 0, 0] => Ok(Ipv6Addr::UNSPECIFIED.into()),
        [127, ..] => Ok(Ipv6Addr::LOCALHOST.into()),
        [224..=239, ..] => Ok(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last.into()).into()),
        [10, 0, 0, 0 | 255] | [255, ..] => Err(format!("{ip} is a broadcast, and IPv6 has none")),
        [10, 0, 0, _] => Ok(Family::V6.address(last)),
        _ => Err(format!("{ip} plays no part over IPv6")),
    }
}

pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// What checksums count in beside the payload (RFC 9293 3.1, RFC 8200 8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = [octets(source), octets(destination)].concat();
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// The checksum of `payload`, in which the field is zero.
pub(crate) fn checksum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    !sum(&[&pseudo_header(source, destination, protocol, payload.len()), payload])
}

fn ethernet(destination: [u8; 6], ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&destination[..], &PEER_MAC, &ether_type, packet].concat()
}

/// A frame from the peer.
pub(crate) fn frame(
    around: &Around,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let link_destination = if around.link_broadcast { [0xff; 6] } else { HOST_MAC };
    let (ttl, tos) = (around.ttl.unwrap_or(64), around.tos.unwrap_or(0));
    if source.is_ipv6() {
        let mut ip = vec![0x60 | tos >> 4, tos << 4, 0, 0];
        ip.extend((payload.len() as u16).to_be_bytes());
        ip.extend([protocol, ttl]);
        ip.extend([octets(source), octets(destination)].concat());
        ip.extend(payload);
        return ethernet(link_destination, [0x86, 0xdd], &ip);
    }
    let mut ip_options = around.ip_options.clone();
    ip_options.resize(ip_options.len().next_multiple_of(4), 0);
    let header_len = 20 + ip_options.len();
    let mut ip = vec![0x40 | (header_len / 4) as u8, tos];
    ip.extend(((header_len + payload.len()) as u16).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, ttl, protocol, 0, 0]);
    ip.extend([octets(source), octets(destination), ip_options].concat());
    let checksum = !sum(&[&ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip.extend(payload);
    ethernet(link_destination, [8, 0], &ip)
}

/// A frame of the host's, taken apart as far as its payload.
pub(crate) struct Unwrapped<'f> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) payload: &'f [u8],
}

/// Checks everything that holds for every frame with a segment: lengths, the header's checksum, identification zero and don't
/// fragment (RFC 6864 4.1), no flow label.
pub(crate) fn unwrap(frame: &[u8]) -> Result<Unwrapped<'_>, &'static str> {
    if frame.len() < 54 || frame[6..12] != HOST_MAC {
        return Err("a wrong Ethernet header, or cut short");
    }
    let ip = &frame[14..];
    let half = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    let v6 = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
    let v4 = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    match frame[12..14] {
        [8, 0] => {
            if ip[0] != 0x45 || half(2) != ip.len() {
                return Err("a wrong IPv4 header or length");
            }
            if sum(&[&ip[..20]]) != 0xffff || ip[4..8] != [0, 0, 0x40, 0] {
                return Err("a wrong IPv4 checksum, or without DF");
            }
            let (source, destination) = (v4(12).into(), v4(16).into());
            let (tos, ttl, protocol) = (ip[1], ip[8], ip[9]);
            Ok(Unwrapped { source, destination, tos, ttl, protocol, payload: &ip[20..] })
        }
        [0x86, 0xdd] => {
            if ip[0] >> 4 != 6 || ip[1] & 0x0f != 0 || half(2) != 0 || half(4) + 40 != ip.len() {
                return Err("a wrong IPv6 header or length, or a flow label");
            }
            let (source, destination) = (v6(8).into(), v6(24).into());
            let (tos, ttl, protocol) = (ip[0] << 4 | ip[1] >> 4, ip[7], ip[6]);
            Ok(Unwrapped { source, destination, tos, ttl, protocol, payload: &ip[40..] })
        }
        _ => Err("another protocol than IP"),
    }
}

impl<'f> Unwrapped<'f> {
    /// The segment in it.
    pub(crate) fn tcp(&self) -> Result<&'f [u8], &'static str> {
        let tcp = self.payload;
        if self.protocol != TCP || tcp.len() < 20 || !(5..=tcp.len() / 4).contains(&usize::from(tcp[12] >> 4))
        {
            return Err("another protocol than TCP, or a wrong data offset");
        }
        if checksum(self.source, self.destination, TCP, tcp) != 0 {
            return Err("a wrong TCP checksum");
        }
        if tcp[12] & 0x0f != 0 {
            return Err("reserved bits set");
        }
        Ok(tcp)
    }
}

/// An ICMP error about a segment of the host whose first byte is `quoted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) mtu: u16,
    pub(crate) quoted: u32,
}

impl Icmp {
    /// The error of ICMPv6 that says the same.
    pub(crate) fn over_ipv6(&self) -> Result<Self, String> {
        let (kind, code) = match (self.kind, self.code) {
            // No route, beyond the scope, the host, the port.
            (3, 0) => (1, 0),
            (3, 1) => (1, 3),
            (3, 3) => (1, 4),
            // Nobody speaks the protocol: an unknown next header.
            (3, 2) => (4, 1),
            (3, 4) => (2, 0),
            (3, 5) => (1, 2),
            (11, code) => (3, code),
            (12, 0) => (4, 0),
            (kind, code) => return Err(format!("ICMPv6 says nothing like {kind} {code} of ICMP")),
        };
        Ok(Self { kind, code, mtu: self.mtu + LONGER_HEADER_BYTES, ..self.clone() })
    }
}

pub(crate) fn build_icmp(icmp: &Icmp, ends: &Endpoints) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(ends.local_port.to_be_bytes());
    tcp.extend(ends.peer_port.to_be_bytes());
    tcp.extend(ends.host_isn.wrapping_add(icmp.quoted).to_be_bytes());
    let mut bytes = vec![icmp.kind, icmp.code, 0, 0];
    // A router on the way sends it.
    let (host, router) = (ends.host_ip, Family::of(ends.host_ip).router());
    if host.is_ipv6() {
        bytes.extend(u32::from(if icmp.kind == 2 { icmp.mtu } else { 0 }).to_be_bytes());
        bytes.extend([0x60, 0, 0, 0, 0, 20, TCP, 64]);
        bytes.extend([octets(host), octets(ends.peer_ip), tcp, vec![0; 12]].concat());
        let checksum = checksum(router, host, ICMPV6, &bytes);
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        return frame(&Around::default(), router, host, ICMPV6, &bytes);
    }
    bytes.extend([0, 0]);
    bytes.extend(icmp.mtu.to_be_bytes());
    bytes.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
    bytes.extend([octets(host), octets(ends.peer_ip), tcp].concat());
    let checksum = !sum(&[&bytes]);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame(&Around::default(), router, host, ICMP, &bytes)
}

/// RFC 4861 4.2, 4.6.4: somebody who is no router for others says that the link takes packets of `mtu` bytes.
pub(crate) fn router_advertisement(mtu: u16) -> Vec<u8> {
    let (router, all_nodes) = ("fe80::fe".parse().unwrap(), "ff02::1".parse().unwrap());
    let mut bytes = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0];
    bytes.extend(u32::from(mtu).to_be_bytes());
    let checksum = checksum(router, all_nodes, ICMPV6, &bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame(&Around { ttl: Some(255), ..Around::default() }, router, all_nodes, ICMPV6, &bytes)
}

/// What a frame of the host's asks its neighbours, if it does: the address that is looked for, and the one to answer to.
pub(crate) enum Asks {
    Nothing,
    /// Of nobody that answers: announcements, probes, questions for routers.
    Nobody,
    For(IpAddr, IpAddr),
}

impl Asks {
    pub(crate) fn of(frame: &[u8]) -> Self {
        let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
        if frame.len() >= 42 && frame[12..14] == [8, 6] {
            return if frame[20..22] == [0, 1] { Self::For(v4(38), v4(28)) } else { Self::Nobody };
        }
        if frame.len() >= 62 && frame[12..14] == [0x86, 0xdd] && frame[20] == ICMPV6 {
            let has_source = v6(22) != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            let is_question = frame[54] == 135 && frame.len() >= 78 && has_source;
            return if is_question { Self::For(v6(62), v6(22)) } else { Self::Nobody };
        }
        Self::Nothing
    }
}

/// `target`, at the peer's link address, answers a question of `asker`'s (RFC 826; RFC 4861 7.2.4).
pub(crate) fn neighbour_answer(target: IpAddr, asker: IpAddr) -> Vec<u8> {
    let (target_octets, asker_octets) = (octets(target), octets(asker));
    if target.is_ipv4() {
        let reply = [&[0, 1, 8, 0, 6, 4, 0, 2], &PEER_MAC[..], &target_octets, &HOST_MAC, &asker_octets];
        return ethernet(HOST_MAC, [8, 6], &reply.concat());
    }
    // Solicited, and it overrides what was known; with the option that says the link address.
    let mut bytes = [&[136, 0, 0, 0, 0x60, 0, 0, 0], &target_octets[..], &[2, 1], &PEER_MAC].concat();
    let checksum = checksum(target, asker, ICMPV6, &bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame(&Around { ttl: Some(255), ..Around::default() }, target, asker, ICMPV6, &bytes)
}
