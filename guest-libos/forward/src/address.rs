//! What differs from one version of IP to the other: addresses, and where its header has what. All else of the forwarder is written
//! once, over an [`Address`].

use crate::checksum::Difference;
use crate::config::Mac;
use crate::counters::Reason;
use crate::wire::{IP, put_u16, u16_at};
use core::fmt;
use core::net::IpAddr;

/// Bytes of a frame of [`Forwarder::poll`](crate::Forwarder::poll), at most: one that asks for a neighbour.
pub const REQUEST_BYTES: usize = 86;

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 791.
    Ipv4,
    /// RFC 8200.
    Ipv6,
}

/// Who we are on the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<A> {
    pub(crate) mac: Mac,
    pub(crate) address: A,
}

/// What an IP header says of its packet, besides addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) protocol: u8,
    /// Of the packet.
    pub(crate) total_bytes: usize,
    pub(crate) is_fragment: bool,
}

/// Types of ICMP messages, and types with codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Icmp {
    /// In the IP header.
    pub(crate) protocol: u8,
    /// Whether the checksum covers the pseudo header (RFC 4443 2.3).
    pub(crate) has_pseudo_header: bool,
    pub(crate) echo: u8,
    pub(crate) echo_reply: u8,
    /// Bytes of an error of its own with its IP header, at most: as much of the packet as fits is quoted.
    pub(crate) error_bytes_max: usize,
    /// Errors that go to who sent the quoted segment.
    pub(crate) errors: &'static [u8],
    /// "Time to live exceeded in transit", "hop limit exceeded in transit".
    pub(crate) time_exceeded: [u8; 2],
    /// "Host unreachable", "address unreachable".
    pub(crate) host_unreachable: [u8; 2],
    /// "Port unreachable".
    pub(crate) port_unreachable: [u8; 2],
}

/// An address of one version of IP.
pub(crate) trait Address: Copy + Eq + fmt::Debug + Into<IpAddr> {
    const VERSION: Version;
    /// Bytes of an address.
    const BYTES: usize;
    /// Bytes of a header without options or extensions; a packet that has some is not forwarded.
    const HEADER_BYTES: usize;
    /// Where TCP or ICMP begins in a frame.
    const TRANSPORT: usize = IP + Self::HEADER_BYTES;
    /// Offset of the source address in a header; the destination address follows it.
    const SOURCE: usize;
    const DESTINATION: usize = Self::SOURCE + Self::BYTES;
    /// Offset of the time to live, or hop limit.
    const HOP_LIMIT: usize;
    /// Offset of the header's checksum, if it has one.
    const CHECKSUM: Option<usize>;
    const ICMP: Icmp;
    /// No address.
    const UNSPECIFIED: Self;

    fn read(bytes: &[u8], at: usize) -> Self;
    fn write(self, bytes: &mut [u8], at: usize);

    /// Whether it can be one host's on a network.
    fn is_host(self) -> bool;

    /// Whether `self` and `other` share a link, on which addresses begin with the same `prefix_len` bits.
    fn is_on_link(self, other: Self, prefix_len: u8) -> bool;

    /// Whether what `self` sends may be forwarded as far as `other`.
    fn reaches(self, other: Self) -> bool;

    /// Checks a frame's IP header, of which `head_bytes` of the frame's `frame_bytes` are there.
    fn parse(head: &[u8], head_bytes: usize, frame_bytes: usize) -> Result<Parsed, Reason>;

    /// Where TCP begins in a packet that an error quotes, if it is TCP and the packet its segment's beginning.
    fn quoted_tcp(quote: &[u8]) -> Option<usize>;

    /// The sum of the pseudo header of an ICMP message of so many bytes; 0 if it covers none.
    fn icmp_pseudo_sum(header: &[u8], message_bytes: usize) -> u16;

    /// Writes the header of an ICMP message of so many bytes.
    fn write_icmp_header(header: &mut [u8], source: Self, destination: Self, message_bytes: usize);

    /// Writes a frame that asks where a neighbour is; `at` says where it was. Gives back its bytes.
    fn write_request(frame: &mut [u8; REQUEST_BYTES], own: Own<Self>, whom: Self, at: Option<Mac>) -> usize;
}

/// What changes for a checksum when `old` becomes `new`.
#[inline(always)]
pub(crate) fn difference<A: Address>(so_far: Difference, old: A, new: A) -> Difference {
    let (mut old_bytes, mut new_bytes) = ([0; 16], [0; 16]);
    old.write(&mut old_bytes, 0);
    new.write(&mut new_bytes, 0);
    let (mut sum, mut at) = (so_far, 0);
    while at < A::BYTES {
        sum = sum.word(u16_at(&old_bytes, at), u16_at(&new_bytes, at));
        at += 2;
    }
    sum
}

/// The ends of a packet.
#[inline(always)]
pub(crate) fn addresses<A: Address>(header: &[u8]) -> (A, A) {
    (A::read(header, A::SOURCE), A::read(header, A::DESTINATION))
}

/// Gives an IP header other addresses, and says what changed; its own checksum is still that of the former.
#[inline(always)]
pub(crate) fn readdress<A: Address>(header: &mut [u8], source: A, destination: A) -> Difference {
    let (old_source, old_destination) = addresses::<A>(header);
    let changes = difference(Difference::default(), old_source, source);
    let changes = difference(changes, old_destination, destination);
    source.write(header, A::SOURCE);
    destination.write(header, A::DESTINATION);
    changes
}

/// Gives an IP header another time to live, or hop limit, and brings its checksum up to date with that and with other `changes`.
/// In a header that has a checksum, it is the first byte of a word.
#[inline(always)]
pub(crate) fn set_hop_limit<A: Address>(header: &mut [u8], hops: u8, changes: Difference) {
    let old = u16_at(header, A::HOP_LIMIT);
    header[A::HOP_LIMIT] = hops;
    if let Some(field) = A::CHECKSUM {
        let changes = changes.word(old, u16_at(header, A::HOP_LIMIT));
        put_u16(header, field, changes.of_checksum(u16_at(header, field)));
    }
}

/// The same with one hop less; there is one.
#[inline(always)]
pub(crate) fn decrement_hop_limit<A: Address>(header: &mut [u8], changes: Difference) {
    let hops = header[A::HOP_LIMIT] - 1;
    set_hop_limit::<A>(header, hops, changes);
}
