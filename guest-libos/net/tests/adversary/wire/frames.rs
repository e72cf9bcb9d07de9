//! Frames as an adversary reads and writes them: fields at their places, checksums right at the end. Nothing of exos-net's own
//! wire module is used, so that a mistake there cannot hide itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const IP: usize = 14;
/// Where the payload of an IPv4 datagram without options begins.
pub(crate) const TRANSPORT: usize = IP + 20;
/// And that of an IPv6 packet without extension headers.
pub(crate) const TRANSPORT_V6: usize = IP + 40;

pub(crate) const TCP: u8 = 6;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const HOP_BY_HOP: u8 = 0;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn is_ipv6(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd])
}

/// Where what a whole datagram or packet carries begins.
pub(crate) fn transport(frame: &[u8]) -> usize {
    if is_ipv6(frame) { TRANSPORT_V6 } else { TRANSPORT }
}

/// The number of what it carries.
pub(crate) fn protocol(frame: &[u8]) -> u8 {
    frame[if is_ipv6(frame) { IP + 6 } else { IP + 9 }]
}

/// Its sender.
pub(crate) fn source(frame: &[u8]) -> IpAddr {
    if is_ipv6(frame) { v6_at(frame, IP + 8) } else { v4_at(frame, IP + 12) }
}

/// Its receiver.
pub(crate) fn destination(frame: &[u8]) -> IpAddr {
    if is_ipv6(frame) { v6_at(frame, IP + 24) } else { v4_at(frame, IP + 16) }
}

fn v4_at(frame: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from_bits(u32_at(frame, at)).into()
}

fn v6_at(frame: &[u8], at: usize) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("sixteen bytes")).into()
}

/// The Internet checksum (RFC 1071) of some bytes, begun with `sum`.
fn checksum(bytes: &[u8], mut sum: u64) -> u16 {
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum of the transport part with its pseudo-header; 0 if the checksum in it is right.
fn transport_sum(frame: &[u8]) -> u16 {
    let (protocol, payload) = (protocol(frame), &frame[transport(frame)..]);
    let addresses = if is_ipv6(frame) { IP + 8..TRANSPORT_V6 } else { IP + 12..TRANSPORT };
    let pseudo = if protocol == 1 {
        0
    } else {
        let words = frame[addresses].chunks(2).map(|pair| u64::from(u16_at(pair, 0)));
        words.sum::<u64>() + u64::from(protocol) + payload.len() as u64
    };
    checksum(payload, pseudo)
}

/// Makes lengths and checksums of a frame without IP options and extension headers right.
pub(crate) fn finish(frame: &mut [u8]) {
    finish_len(frame);
    if !is_ipv6(frame) {
        finish_ip(frame);
    }
    let begin = transport(frame);
    let at = match protocol(frame) {
        6 => begin + 16,
        17 => begin + 6,
        _ => begin + 2,
    };
    if at + 2 <= frame.len() {
        frame[at..at + 2].fill(0);
        let sum = transport_sum(frame);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Makes the length in the IP header right.
pub(crate) fn finish_len(frame: &mut [u8]) {
    let (at, len) =
        if is_ipv6(frame) { (IP + 4, frame.len() - TRANSPORT_V6) } else { (IP + 2, frame.len() - IP) };
    frame[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
}

/// Makes the checksum of an IPv4 header right.
pub(crate) fn finish_ip(frame: &mut [u8]) {
    frame[IP + 10..IP + 12].fill(0);
    let sum = checksum(&frame[IP..TRANSPORT], 0);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

/// A whole datagram or packet of either family, without IP options and extension headers.
pub(crate) fn is_whole(frame: &[u8]) -> bool {
    is_whole_ipv4(frame) || is_whole_ipv6(frame)
}

/// A whole IPv4 datagram without IP options.
pub(crate) fn is_whole_ipv4(frame: &[u8]) -> bool {
    frame.len() >= TRANSPORT
        && frame[12..15] == [8, 0, 0x45]
        && u16_at(frame, IP + 6) & 0x3fff == 0
        && usize::from(u16_at(frame, IP + 2)) == frame.len() - IP
}

/// A whole IPv6 packet without extension headers.
fn is_whole_ipv6(frame: &[u8]) -> bool {
    frame.len() >= TRANSPORT_V6
        && is_ipv6(frame)
        && frame[IP] >> 4 == 6
        && matches!(protocol(frame), TCP | 17 | ICMPV6)
        && usize::from(u16_at(frame, IP + 4)) == frame.len() - TRANSPORT_V6
}

/// A message about a neighbour or router (RFC 4861), or one of ARP: hosts that do not answer three count as not there.
pub(crate) fn is_about_neighbours(frame: &[u8]) -> bool {
    let discovers =
        |frame: &[u8]| protocol(frame) == ICMPV6 && matches!(frame.get(TRANSPORT_V6), Some(133..=137));
    frame[12..14] == [8, 6] || (is_whole_ipv6(frame) && discovers(frame))
}

/// A fragment of an ICMP message, whose header is right.
pub(crate) fn is_icmp_fragment(frame: &[u8]) -> bool {
    let len = frame.len() - IP;
    frame[12..15] == [8, 0, 0x45]
        && frame[IP + 9] == 1
        && u16_at(frame, IP + 6) & 0x3fff != 0
        && usize::from(u16_at(frame, IP + 2)) == len
        && checksum(&frame[IP..TRANSPORT], 0) == 0
}

/// Whether header and transport checksum of a whole datagram or packet are right.
pub(crate) fn sums_are_right(frame: &[u8]) -> bool {
    (is_ipv6(frame) || checksum(&frame[IP..TRANSPORT], 0) == 0) && transport_sum(frame) == 0
}

/// The Ethernet and IP headers of what `protocol` follows, still without a length.
pub(crate) fn headers(macs: ([u8; 6], [u8; 6]), from: IpAddr, to: IpAddr, protocol: u8) -> Vec<u8> {
    let (to_mac, from_mac) = macs;
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64];
            [&to_mac[..], &from_mac, &header, &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = [8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            [&to_mac[..], &from_mac, &header, &from.octets(), &to.octets()].concat()
        }
        _ => unreachable!("both are of one family"),
    }
}

/// A TCP segment in its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None`: the frame holds none, or one cut short.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        if !is_whole(frame) || protocol(frame) != TCP {
            return None;
        }
        let tcp = &frame[transport(frame)..];
        let header_len = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            options: tcp.get(20..header_len)?,
            source: (source(frame), u16_at(tcp, 0)),
            destination: (destination(frame), u16_at(tcp, 2)),
            sequence: u32_at(tcp, 4),
            acknowledgment: u32_at(tcp, 8),
            flags: tcp[13],
            window: u16_at(tcp, 14),
            payload: &tcp[header_len..],
        })
    }

    /// Its length in sequence numbers.
    pub(crate) fn sequence_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }

    pub(crate) fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.sequence_len())
    }

    /// The frame that holds it, between these Ethernet addresses.
    pub(crate) fn emit(&self, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        let mut frame = headers((to, from), self.source.0, self.destination.0, TCP);
        let header_len = 20 + self.options.len().next_multiple_of(4);
        let end = frame.len() + header_len;
        frame.extend(self.source.1.to_be_bytes());
        frame.extend(self.destination.1.to_be_bytes());
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.acknowledgment.to_be_bytes());
        frame.extend([((header_len / 4) as u8) << 4, self.flags]);
        frame.extend(self.window.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(self.options);
        frame.resize(end, 0);
        frame.extend(self.payload);
        finish(&mut frame);
        frame
    }
}

/// The options of a header one by one: kind and content. `None` in the place of one that is cut short.
pub(crate) fn options(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        loop {
            match *bytes {
                [] | [0, ..] => return None,
                [1, ref rest @ ..] => bytes = rest,
                [kind, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => {
                    let (option, rest) = bytes.split_at(usize::from(len));
                    bytes = rest;
                    return Some(Some((kind, &option[2..])));
                }
                _ => {
                    bytes = &[];
                    return Some(None);
                }
            }
        }
    })
}

/// The payload of a datagram or packet from `start` to `end`, bytes behind its header, as a fragment of it.
pub(crate) fn fragment(frame: &[u8], start: usize, end: usize, identification: u32) -> Vec<u8> {
    let begin = transport(frame);
    let (more, part) = (begin + end < frame.len(), &frame[begin + start..begin + end]);
    if is_ipv6(frame) {
        let place = start as u16 | u16::from(more);
        let header =
            [&[protocol(frame), 0][..], &place.to_be_bytes(), &identification.to_be_bytes()].concat();
        let mut fragment = [&frame[..begin], &header, part].concat();
        fragment[IP + 6] = 44;
        finish_len(&mut fragment);
        return fragment;
    }
    let mut fragment = [&frame[..begin], part].concat();
    finish_len(&mut fragment);
    fragment[IP + 4..IP + 6].copy_from_slice(&(identification as u16).to_be_bytes());
    let place = (start / 8) as u16 | if more { 0x2000 } else { 0 };
    fragment[IP + 6..IP + 8].copy_from_slice(&place.to_be_bytes());
    finish_ip(&mut fragment);
    fragment
}
