//! IPv6 (RFC 8200).

use crate::address::{Address, Icmp, Own, Parsed, REQUEST_BYTES, Version};
use crate::checksum::sum;
use crate::config::Mac;
use crate::counters::Reason;
use crate::ndisc;
use crate::wire::{ETHERNET_BYTES, HOPS, IP, PROTOCOL_ICMPV6, PROTOCOL_TCP, put_u16, u16_at};
use core::net::Ipv6Addr;

const PAYLOAD_LEN: usize = 4;
pub(crate) const NEXT_HEADER: usize = 6;
const FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing, encapsulating security payload, authentication, destination options, mobility, host identity,
/// shim6 (RFC 7045 4).
const EXTENSIONS: [u8; 8] = [0, 43, 50, 51, 60, 135, 139, 140];

impl Address for Ipv6Addr {
    const VERSION: Version = Version::Ipv6;
    const BYTES: usize = 16;
    const HEADER_BYTES: usize = 40;
    const SOURCE: usize = 8;
    const HOP_LIMIT: usize = 7;
    const CHECKSUM: Option<usize> = None;
    const ICMP: Icmp = Icmp {
        protocol: PROTOCOL_ICMPV6,
        has_pseudo_header: true,
        echo: 128,
        echo_reply: 129,
        // The least MTU of a link (RFC 4443 2.4 c).
        error_bytes_max: 1280,
        // Unreachable, packet too big, time exceeded, parameter problem (RFC 4443 3).
        errors: &[1, 2, 3, 4],
        time_exceeded: [3, 0],
        host_unreachable: [1, 3],
        port_unreachable: [1, 4],
    };
    const UNSPECIFIED: Self = Self::UNSPECIFIED;

    #[inline(always)]
    fn read(bytes: &[u8], at: usize) -> Self {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        octets.into()
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8], at: usize) {
        bytes[at..at + 16].copy_from_slice(&self.octets());
    }

    /// RFC 4291 2.4; one that stands for an IPv4 address is none on a wire (RFC 4291 2.5.5.2).
    #[inline(always)]
    fn is_host(self) -> bool {
        !self.is_unspecified()
            && !self.is_loopback()
            && !self.is_multicast()
            && self.to_ipv4_mapped().is_none()
    }

    /// A link-local address is on every link.
    fn is_on_link(self, other: Self, prefix_len: u8) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len.min(128))).unwrap_or(0);
        self.to_bits() & mask == other.to_bits() & mask || other.is_unicast_link_local()
    }

    /// RFC 4291 2.5.6: no router forwards what is from a link-local address.
    fn reaches(self, other: Self) -> bool {
        !self.is_unicast_link_local() || other.is_unicast_link_local()
    }

    #[inline(always)]
    fn parse(head: &[u8], head_bytes: usize, frame_bytes: usize) -> Result<Parsed, Reason> {
        if head_bytes < Self::TRANSPORT || head[IP] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        let total_bytes = Self::HEADER_BYTES + usize::from(u16_at(head, IP + PAYLOAD_LEN));
        if total_bytes > frame_bytes - ETHERNET_BYTES {
            return Err(Reason::Malformed);
        }
        let protocol = head[IP + NEXT_HEADER];
        if EXTENSIONS.contains(&protocol) {
            return Err(Reason::IpOptions);
        }
        Ok(Parsed { protocol, total_bytes, is_fragment: protocol == FRAGMENT })
    }

    fn quoted_tcp(quote: &[u8]) -> Option<usize> {
        let header = quote.get(..Self::HEADER_BYTES)?;
        (header[0] >> 4 == 6 && header[NEXT_HEADER] == PROTOCOL_TCP).then_some(Self::HEADER_BYTES)
    }

    /// RFC 8200 8.1.
    fn icmp_pseudo_sum(header: &[u8], message_bytes: usize) -> u16 {
        let rest = [0, PROTOCOL_ICMPV6];
        sum(message_bytes as u32, &header[Self::SOURCE..Self::HEADER_BYTES], &rest)
    }

    fn write_icmp_header(header: &mut [u8], source: Self, destination: Self, message_bytes: usize) {
        header[..Self::SOURCE].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, PROTOCOL_ICMPV6, HOPS]);
        put_u16(header, PAYLOAD_LEN, message_bytes as u16);
        source.write(header, Self::SOURCE);
        destination.write(header, Self::DESTINATION);
    }

    fn write_request(frame: &mut [u8; REQUEST_BYTES], own: Own<Self>, whom: Self, at: Option<Mac>) -> usize {
        ndisc::write_solicitation(frame, own, whom, at)
    }
}
