//! Frames as an adversary reads and writes them: fields at their places, checksums right at the end. Nothing of exos-net's own
//! wire module is used, so that a mistake there cannot hide itself.

use std::net::Ipv4Addr;

pub(crate) const IP: usize = 14;
pub(crate) const TRANSPORT: usize = IP + 20;

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

/// The sum of a datagram's transport part with its pseudo-header; 0 if the checksum in it is right.
fn transport_sum(frame: &[u8]) -> u16 {
    let protocol = frame[IP + 9];
    let payload = &frame[TRANSPORT..];
    let pseudo = if protocol == 1 {
        0
    } else {
        let addresses = (0..4).map(|at| u64::from(u16_at(frame, IP + 12 + 2 * at))).sum::<u64>();
        addresses + u64::from(protocol) + payload.len() as u64
    };
    checksum(payload, pseudo)
}

/// Makes lengths and checksums of an IPv4 frame without IP options right.
pub(crate) fn finish(frame: &mut [u8]) {
    let len = (frame.len() - IP) as u16;
    frame[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    finish_ip(frame);
    let at = match frame[IP + 9] {
        6 => TRANSPORT + 16,
        17 => TRANSPORT + 6,
        _ => TRANSPORT + 2,
    };
    if at + 2 <= frame.len() {
        frame[at..at + 2].fill(0);
        let sum = transport_sum(frame);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

pub(crate) fn finish_ip(frame: &mut [u8]) {
    frame[IP + 10..IP + 12].fill(0);
    let sum = checksum(&frame[IP..TRANSPORT], 0);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

/// A whole IPv4 datagram without IP options.
pub(crate) fn is_whole_ipv4(frame: &[u8]) -> bool {
    frame.len() >= TRANSPORT
        && frame[12..15] == [8, 0, 0x45]
        && u16_at(frame, IP + 6) & 0x3fff == 0
        && usize::from(u16_at(frame, IP + 2)) == frame.len() - IP
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

/// Whether header and transport checksum of a whole datagram are right.
pub(crate) fn sums_are_right(frame: &[u8]) -> bool {
    checksum(&frame[IP..TRANSPORT], 0) == 0 && transport_sum(frame) == 0
}

/// A TCP segment in its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) source: (Ipv4Addr, u16),
    pub(crate) destination: (Ipv4Addr, u16),
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
        if !is_whole_ipv4(frame) || frame[IP + 9] != 6 || frame.len() < TRANSPORT + 20 {
            return None;
        }
        let header_len = usize::from(frame[TRANSPORT + 12] >> 4) * 4;
        let address = |at| Ipv4Addr::from_bits(u32_at(frame, at));
        Some(Self {
            source: (address(IP + 12), u16_at(frame, TRANSPORT)),
            destination: (address(IP + 16), u16_at(frame, TRANSPORT + 2)),
            sequence: u32_at(frame, TRANSPORT + 4),
            acknowledgment: u32_at(frame, TRANSPORT + 8),
            flags: frame[TRANSPORT + 13],
            window: u16_at(frame, TRANSPORT + 14),
            options: frame.get(TRANSPORT + 20..TRANSPORT + header_len)?,
            payload: &frame[TRANSPORT + header_len..],
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
        let mut frame = [&to[..], &from, &[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0]].concat();
        frame.extend(self.source.0.octets());
        frame.extend(self.destination.0.octets());
        frame.extend(self.source.1.to_be_bytes());
        frame.extend(self.destination.1.to_be_bytes());
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.acknowledgment.to_be_bytes());
        frame.extend([((5 + self.options.len().div_ceil(4)) as u8) << 4, self.flags]);
        frame.extend(self.window.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(self.options);
        frame.resize(TRANSPORT + 20 + self.options.len().next_multiple_of(4), 0);
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

/// The payload of a datagram from `start` to `end`, bytes behind its header, as a fragment of it.
pub(crate) fn fragment(frame: &[u8], start: usize, end: usize, identification: u16) -> Vec<u8> {
    let more = TRANSPORT + end < frame.len();
    let mut fragment = [&frame[..TRANSPORT], &frame[TRANSPORT + start..TRANSPORT + end]].concat();
    let len = (fragment.len() - IP) as u16;
    fragment[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    fragment[IP + 4..IP + 6].copy_from_slice(&identification.to_be_bytes());
    let place = (start / 8) as u16 | if more { 0x2000 } else { 0 };
    fragment[IP + 6..IP + 8].copy_from_slice(&place.to_be_bytes());
    finish_ip(&mut fragment);
    fragment
}
