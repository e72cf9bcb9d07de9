//! IPv6 headers (RFC 8200), and the addresses that an interface has by itself (RFC 4291, RFC 2464). What has extension
//! headers is `Unsupported` or a `Fragment` here; `ipv6_extensions` reads those.

use core::net::Ipv6Addr;

use super::checksum::Sum;
use super::ethernet::MacAddress;
use super::ipv6_extensions::FRAGMENT_BYTES;
use super::{Ecn, WireError, u16_at, u32_at};

/// Length of an IPv6 header.
pub const HEADER_BYTES: usize = 40;
/// All nodes on the link (RFC 4291 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link (RFC 4291 2.7.1).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Length of the prefix that every link has (RFC 4291 2.5.6).
pub const LINK_LOCAL_PREFIX_LEN: u8 = 64;

/// The protocol of a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHeader {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 58.
    Icmpv6,
}

/// The number of the fragment header (RFC 8200 4.5).
pub(super) const FRAGMENT: u8 = 44;

impl NextHeader {
    /// The protocol with this number, if it is one of ours.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            58 => Some(Self::Icmpv6),
            _ => None,
        }
    }

    /// The protocol's number in the IPv6 header.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
        }
    }
}

/// An IPv6 packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Sender; never a group.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
    /// What the packet carries.
    pub next_header: NextHeader,
    /// How many more links it may cross.
    pub hop_limit: u8,
}

impl Ipv6Header {
    /// Reads the header and returns it with the payload, cut to the packet's length.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let packet = Packet::parse(bytes)?;
        match NextHeader::from_wire(packet.next_header) {
            Some(next_header) => Ok((packet.header(next_header), packet.payload)),
            None if packet.next_header == FRAGMENT => Err(WireError::Fragment),
            None => Err(WireError::Unsupported),
        }
    }

    /// The sum of the pseudo-header (RFC 8200 8.1) of a payload of so many bytes.
    pub fn pseudo_sum(&self, payload_len: usize) -> Sum {
        Sum::ZERO
            .bytes(&self.source.octets())
            .bytes(&self.destination.octets())
            .double(payload_len as u32)
            .word(u16::from(self.next_header.to_wire()))
    }

    /// Writes the header of a packet with so many bytes of payload; a length that does not fit is cut to 16 bits. No traffic class,
    /// no flow label.
    pub fn emit(&self, payload_len: usize, out: &mut [u8; HEADER_BYTES]) {
        out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        out[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
        out[6] = self.next_header.to_wire();
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..40].copy_from_slice(&self.destination.octets());
    }

    /// The same for a packet that carries a fragment: `payload_len` bytes after the fragment header, which is written with
    /// [`super::ipv6_extensions::emit_fragment`].
    pub fn emit_fragmented(&self, payload_len: usize, out: &mut [u8; HEADER_BYTES]) {
        self.emit(FRAGMENT_BYTES + payload_len, out);
        out[6] = FRAGMENT;
    }
}

/// Gives a header a codepoint (RFC 2474).
pub fn mark(codepoint: u8, header: &mut [u8; HEADER_BYTES]) {
    (header[0], header[1]) = (0x60 | codepoint >> 2, codepoint << 6);
}

/// A packet of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'f> {
    /// Sender; never a group.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
    /// The number of what follows the header.
    pub next_header: u8,
    /// How many more links it may cross.
    pub hop_limit: u8,
    /// The packet from the header on, without padding behind it.
    pub bytes: &'f [u8],
    /// What follows the header.
    pub payload: &'f [u8],
}

impl<'f> Packet<'f> {
    /// Reads the header.
    #[inline]
    pub fn parse(bytes: &'f [u8]) -> Result<Self, WireError> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        let payload = rest.get(..usize::from(u16_at(header, 4))).ok_or(WireError::Malformed)?;
        let source = address_at(header, 8);
        if header[0] >> 4 != 6 || source.is_multicast() {
            return Err(WireError::Malformed);
        }
        Ok(Self {
            source,
            destination: address_at(header, 24),
            next_header: header[6],
            hop_limit: header[7],
            bytes: &bytes[..HEADER_BYTES + payload.len()],
            payload,
        })
    }

    /// The ECN field: the end of the traffic class, which lies across two octets (RFC 8200 3).
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::of(self.bytes[1] >> 4)
    }

    /// Its header, once it is known what it carries.
    pub fn header(&self, next_header: NextHeader) -> Ipv6Header {
        let &Self { source, destination, hop_limit, .. } = self;
        Ipv6Header { source, destination, next_header, hop_limit }
    }
}

/// The address at `at`; zero outside, as [`u16_at`].
pub(crate) fn address_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let word = |index: usize| u128::from(u32_at(bytes, at + 4 * index));
    Ipv6Addr::from_bits(word(0) << 96 | word(1) << 64 | word(2) << 32 | word(3))
}

/// The link-local address that an interface makes itself of its Ethernet address (RFC 4291 2.5.6 and appendix A).
pub const fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = u16::from_be_bytes;
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair([a ^ 2, b]), pair([c, 0xff]), pair([0xfe, d]), pair([e, f]))
}

/// The group in which whoever has an address listens for questions about it (RFC 4291 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, u16::from_be_bytes([b, c]))
}

/// The Ethernet address of a group (RFC 2464 7).
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn emitted(payload: &[u8]) -> (Ipv6Header, Vec<u8>) {
        let header = Ipv6Header {
            source: link_local(MacAddress([2, 0, 0, 0, 0, 9])),
            destination: ALL_NODES,
            next_header: NextHeader::Icmpv6,
            hop_limit: 255,
        };
        let mut out = [0; HEADER_BYTES];
        header.emit(payload.len(), &mut out);
        (header, [&out[..], payload].concat())
    }

    #[test]
    fn ipv6_emit_then_parse_returns_same_and_cuts_padding() {
        let (header, mut bytes) = emitted(b"payload");
        bytes.extend([0; 20]);
        assert_eq!(Ipv6Header::parse(&bytes), Ok((header, &b"payload"[..])));
    }

    #[test]
    fn ipv6_contradictions_return_malformed() {
        let (_, good) = emitted(b"12345678");
        let version = |bytes: &mut Vec<u8>| bytes[0] = 0x45;
        let length_above_frame = |bytes: &mut Vec<u8>| bytes[5] += 1;
        let group_as_source = |bytes: &mut Vec<u8>| bytes[8] = 0xff;
        let short = |bytes: &mut Vec<u8>| bytes.truncate(39);
        for break_it in [version, length_above_frame, group_as_source, short] {
            let mut bytes = good.clone();
            break_it(&mut bytes);
            assert_eq!(Ipv6Header::parse(&bytes), Err(WireError::Malformed));
        }
    }

    #[test]
    fn ipv6_extension_headers_return_unsupported_and_fragments_fragment() {
        let (_, mut bytes) = emitted(b"12345678");
        bytes[6] = 0;
        assert_eq!(Ipv6Header::parse(&bytes), Err(WireError::Unsupported));
        bytes[6] = 44;
        assert_eq!(Ipv6Header::parse(&bytes), Err(WireError::Fragment));
    }

    #[test]
    fn addresses_of_an_interface_are_those_of_the_rfcs() {
        // RFC 2464 4: 34-56-78-9A-BC-DE.
        let own = link_local(MacAddress([0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE]));
        assert_eq!(own, "fe80::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap());
        // RFC 4291 2.7.1: 4037::01:800:200E:8C6C.
        let group = solicited_node("4037::01:800:200E:8C6C".parse().unwrap());
        assert_eq!(group, "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
        assert_eq!(multicast_mac(group), MacAddress([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]));
    }

    proptest! {
        #[test]
        fn ipv6_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Ipv6Header::parse(&bytes);
        }
    }
}
