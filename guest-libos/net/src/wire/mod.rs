//! Bytes to meaning and back, one file a protocol. Parsing checks once and yields a type that cannot hold an illegal
//! packet; nobody behind this door reads raw bytes. Nothing here keeps state, and nobody trusts the wire: any bytes of
//! any length go in.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod ipv6_extensions;
pub mod membership;
pub mod mld;
pub mod ndisc;
pub mod router;
pub mod tcp;
pub mod tcp_options;
pub mod udp;

use core::fmt;

/// The ECN field of an IP header (RFC 3168 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// 00, not ECT: nobody would heed a mark.
    #[default]
    NotCapable,
    /// 01, ECT(1).
    Capable1,
    /// 10, ECT(0).
    Capable0,
    /// 11, CE: marked by a router whose queue grows.
    Congested,
}

impl Ecn {
    /// The field in an octet of type of service or traffic class.
    #[inline]
    pub fn of(octet: u8) -> Self {
        match octet & 0x03 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Congested,
        }
    }
}

/// Why bytes are not a packet of the protocol they were read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than the header, or lengths or fields contradict each other.
    Malformed,
    /// The checksum is wrong.
    Checksum,
    /// A well-formed packet of a kind we do not handle.
    Unsupported,
    /// A fragment of a datagram.
    Fragment,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the packet contradicts itself; look at its length fields in a capture",
            Self::Checksum => "the checksum is wrong; look for damage or a missing offload flag on the way",
            Self::Unsupported => "the packet is of a kind that is not handled here; it is dropped",
            Self::Fragment => {
                "the packet is a fragment; it has to be put together with the others of its datagram"
            }
        })
    }
}

impl core::error::Error for WireError {}

/// Big-endian 16 bits at `at`; zero outside. Callers have checked the length: the fallback only keeps panics out.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

/// Big-endian 32 bits at `at`; zero outside, as [`u16_at`].
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}
