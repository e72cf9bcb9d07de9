//! IPv4 (RFC 791).

use crate::address::{Address, Icmp, Own, Parsed, REQUEST_BYTES, Version};
use crate::arp;
use crate::checksum::{sum, sum_of_header};
use crate::config::Mac;
use crate::counters::Reason;
use crate::wire::{ETHERNET_BYTES, HOPS, IP, PROTOCOL_ICMP, PROTOCOL_TCP, put_u16, u16_at};
use core::net::Ipv4Addr;

const TOTAL_LEN: usize = 2;
const FLAGS: usize = 6;
const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;
/// More fragments, and the fragment's offset.
const FRAGMENT: u16 = 0x3FFF;
const OFFSET: u16 = 0x1FFF;
const DONT_FRAGMENT: u16 = 0x4000;

impl Address for Ipv4Addr {
    const VERSION: Version = Version::Ipv4;
    const BYTES: usize = 4;
    const HEADER_BYTES: usize = 20;
    const SOURCE: usize = 12;
    const HOP_LIMIT: usize = 8;
    const CHECKSUM: Option<usize> = Some(CHECKSUM);
    const ICMP: Icmp = Icmp {
        protocol: PROTOCOL_ICMP,
        has_pseudo_header: false,
        echo: 8,
        echo_reply: 0,
        // RFC 1812 4.3.2.3.
        error_bytes_max: 576,
        // Unreachable, exceeded, parameter problem (RFC 792).
        errors: &[3, 11, 12],
        time_exceeded: [11, 0],
        host_unreachable: [3, 1],
        port_unreachable: [3, 3],
    };
    const UNSPECIFIED: Self = Self::UNSPECIFIED;

    #[inline(always)]
    fn read(bytes: &[u8], at: usize) -> Self {
        Self::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8], at: usize) {
        bytes[at..at + 4].copy_from_slice(&self.octets());
    }

    /// RFC 1122 3.2.1.3.
    #[inline(always)]
    fn is_host(self) -> bool {
        let first = self.octets()[0];
        first != 0 && first != 127 && first < 224
    }

    fn is_on_link(self, other: Self, prefix_len: u8) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0);
        self.to_bits() & mask == other.to_bits() & mask
    }

    fn reaches(self, _: Self) -> bool {
        true
    }

    /// RFC 1812 5.2.2.
    #[inline(always)]
    fn parse(head: &[u8], head_bytes: usize, frame_bytes: usize) -> Result<Parsed, Reason> {
        if head_bytes < Self::TRANSPORT || head[IP] >> 4 != 4 || head[IP] & 15 < 5 {
            return Err(Reason::Malformed);
        }
        if head[IP] & 15 > 5 {
            return Err(Reason::IpOptions);
        }
        let total_bytes = usize::from(u16_at(head, IP + TOTAL_LEN));
        if total_bytes < Self::HEADER_BYTES || total_bytes > frame_bytes - ETHERNET_BYTES {
            return Err(Reason::Malformed);
        }
        let header = head[IP..].first_chunk::<{ Self::HEADER_BYTES }>().ok_or(Reason::Malformed)?;
        if sum_of_header(header) != 0xFFFF {
            return Err(Reason::BadChecksum);
        }
        let is_fragment = u16_at(head, IP + FLAGS) & FRAGMENT != 0;
        Ok(Parsed { protocol: head[IP + PROTOCOL], total_bytes, is_fragment })
    }

    fn quoted_tcp(quote: &[u8]) -> Option<usize> {
        let header_bytes = usize::from(quote.first()? & 15) * 4;
        let header = quote.get(..Self::HEADER_BYTES)?;
        let is_first = u16_at(header, FLAGS) & OFFSET == 0;
        let is_tcp = header[0] >> 4 == 4 && is_first && header[PROTOCOL] == PROTOCOL_TCP;
        (is_tcp && header_bytes >= Self::HEADER_BYTES).then_some(header_bytes)
    }

    fn icmp_pseudo_sum(_: &[u8], _: usize) -> u16 {
        0
    }

    fn write_icmp_header(header: &mut [u8], source: Self, destination: Self, message_bytes: usize) {
        header[..Self::HEADER_BYTES].fill(0);
        header[0] = 0x45;
        put_u16(header, TOTAL_LEN, (Self::HEADER_BYTES + message_bytes) as u16);
        put_u16(header, FLAGS, DONT_FRAGMENT);
        header[Self::HOP_LIMIT] = HOPS;
        header[PROTOCOL] = PROTOCOL_ICMP;
        source.write(header, Self::SOURCE);
        destination.write(header, Self::DESTINATION);
        let sum = sum(0, &header[..Self::HEADER_BYTES], &[]);
        put_u16(header, CHECKSUM, !sum);
    }

    fn write_request(frame: &mut [u8; REQUEST_BYTES], own: Own<Self>, whom: Self, _: Option<Mac>) -> usize {
        arp::write_request(frame, own, whom)
    }
}
