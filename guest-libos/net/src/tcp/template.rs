//! Headers of what we send. A connection's Ethernet, IP and TCP headers are made once, with the sums of everything in
//! them that never changes; a segment copies them and fills in six fields, or eight with timestamps.

use super::Seq;
use core::net::{IpAddr, Ipv4Addr};
use core::num::NonZeroU8;

use crate::config::Config;
use crate::driver::MAX_HEADER_BYTES;
use crate::options::Dscp;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::ipv6::{self, Ipv6Header, address_at};
use crate::wire::tcp;
use crate::wire::tcp_options::{ALIGNED_TIMESTAMPS, TIMESTAMPS_BYTES, Timestamps};
use crate::wire::u32_at;

/// Offset of the IP header.
const IP: usize = ethernet::HEADER_BYTES;
/// All headers with the timestamps option, over the longer IP header.
const MAX_BYTES: usize = IP + ipv6::HEADER_BYTES + tcp::HEADER_BYTES + TIMESTAMPS_BYTES;

/// Which IP a connection runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// IP and TCP headers without options.
    pub(crate) const fn header_bytes(self) -> u16 {
        self.ip_bytes() as u16 + tcp::HEADER_BYTES as u16
    }

    const fn ip_bytes(self) -> usize {
        match self {
            Self::V4 => ipv4::HEADER_BYTES,
            Self::V6 => ipv6::HEADER_BYTES,
        }
    }

    /// RFC 9293 3.7.1 (MUST-15): the peer's segment size if its SYN does not say.
    pub(crate) const fn default_mss(self) -> u16 {
        match self {
            Self::V4 => 536,
            Self::V6 => 1_220,
        }
    }

    /// The largest segment we can receive, announced in our SYN (RFC 9293 3.7.1).
    pub(crate) fn receive_mss(self, config: &Config) -> u16 {
        let narrower =
            config.ipv6.as_ref().filter(|_| self == Self::V6).map_or(u16::MAX, |ipv6| ipv6.link_mtu);
        config.mtu.min(narrower).saturating_sub(self.header_bytes())
    }
}

/// ECN-capable, in the octet of the differentiated services field or in the traffic class.
const ECT_0: u8 = 0x02;

#[derive(Debug)]
pub(crate) struct HeaderTemplate {
    /// Kind and length of the timestamps option are there always, and count if a segment has it.
    bytes: [u8; MAX_BYTES],
    /// Of IPv4's header; IPv6's has none.
    ip_sum: u16,
    pseudo_sum: u16,
    ports_sum: u16,
}

/// What differs from segment to segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) sequence: Seq,
    pub(crate) acknowledgment: Seq,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) timestamps: Option<Timestamps>,
}

/// Where the checksum of the payload comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PayloadSum {
    /// It is known; zero for no payload.
    Known(u16),
    /// The device will add it.
    Device,
}

impl HeaderTemplate {
    pub(crate) fn new(
        mac: MacAddress,
        next_hop: MacAddress,
        ip: &Ipv4Header,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        let mut ip_bytes = [0; ipv4::HEADER_BYTES];
        ip.emit(0, &mut ip_bytes);
        let mut template = Self::around(&ip_bytes, mac, next_hop, (source_port, destination_port));
        template.ip_sum = ip.sum_without_length().fold();
        template.pseudo_sum = ip.pseudo_sum_without_length().fold();
        template
    }

    /// The same over IPv6.
    pub(crate) fn new_v6(
        mac: MacAddress,
        next_hop: MacAddress,
        ip: &Ipv6Header,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        let mut ip_bytes = [0; ipv6::HEADER_BYTES];
        ip.emit(0, &mut ip_bytes);
        let mut template = Self::around(&ip_bytes, mac, next_hop, (source_port, destination_port));
        template.pseudo_sum = ip.pseudo_sum(0).fold();
        template
    }

    fn around(ip_bytes: &[u8], mac: MacAddress, next_hop: MacAddress, ports: (u16, u16)) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let is_v6 = ip_bytes.len() == ipv6::HEADER_BYTES;
        let ether_type = if is_v6 { EtherType::Ipv6 } else { EtherType::Ipv4 };
        if let Some(out) = bytes.first_chunk_mut() {
            EthernetHeader { destination: next_hop, source: mac, ether_type }.emit(out);
        }
        let tcp = IP + ip_bytes.len();
        let options = tcp + tcp::HEADER_BYTES;
        bytes[IP..tcp].copy_from_slice(ip_bytes);
        bytes[tcp..tcp + 2].copy_from_slice(&ports.0.to_be_bytes());
        bytes[tcp + 2..tcp + 4].copy_from_slice(&ports.1.to_be_bytes());
        bytes[options..options + 4].copy_from_slice(&ALIGNED_TIMESTAMPS);
        let ports_sum = Sum::ZERO.word(ports.0).word(ports.1).fold();
        Self { bytes, ip_sum: 0, pseudo_sum: 0, ports_sum }
    }

    #[inline]
    pub(crate) fn family(&self) -> Family {
        // The version field.
        if self.bytes[IP] >> 4 == 6 { Family::V6 } else { Family::V4 }
    }

    /// Offset of the TCP header in a frame.
    #[inline]
    pub(crate) fn tcp_at(&self) -> usize {
        IP + self.family().ip_bytes()
    }

    /// Our address.
    pub(crate) fn local(&self) -> IpAddr {
        self.address(0)
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> IpAddr {
        self.address(1)
    }

    fn address(&self, index: usize) -> IpAddr {
        match self.family() {
            Family::V4 => Ipv4Addr::from_bits(u32_at(&self.bytes, IP + 12 + 4 * index)).into(),
            Family::V6 => address_at(&self.bytes, IP + 8 + 16 * index).into(),
        }
    }

    /// Where segments go on the link.
    #[inline]
    pub(crate) fn next_hop(&self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = self.bytes;
        MacAddress([a, b, c, d, e, f])
    }

    pub(crate) fn set_next_hop(&mut self, next_hop: MacAddress) {
        self.bytes[..6].copy_from_slice(&next_hop.0);
    }

    /// The differentiated services field; the ECN bits stay (RFC 3168 5).
    pub(crate) fn set_dscp(&mut self, dscp: Dscp) {
        let codepoint = dscp.codepoint();
        match self.family() {
            Family::V4 => self.set_ipv4_octet(1, codepoint << 2 | self.bytes[IP + 1] & 0x03),
            Family::V6 => {
                // Between version and flow label (RFC 8200 3).
                self.bytes[IP] = 0x60 | codepoint >> 2;
                self.bytes[IP + 1] = codepoint << 6 | self.bytes[IP + 1] & 0x3f;
            }
        }
    }

    /// IPv4's time to live, IPv6's hop limit.
    pub(crate) fn set_time_to_live(&mut self, time_to_live: NonZeroU8) {
        match self.family() {
            Family::V4 => self.set_ipv4_octet(8, time_to_live.get()),
            Family::V6 => self.bytes[IP + 7] = time_to_live.get(),
        }
    }

    #[inline]
    fn set_ipv4_octet(&mut self, at: usize, octet: u8) {
        if self.bytes[IP + at] == octet {
            return;
        }
        self.bytes[IP + at] = octet;
        let mut header = [0; ipv4::HEADER_BYTES];
        header.copy_from_slice(&self.bytes[IP..IP + ipv4::HEADER_BYTES]);
        header[2..4].fill(0);
        header[10..12].fill(0);
        self.ip_sum = Sum::ZERO.bytes(&header).fold();
    }

    /// Lets routers mark a segment that is written: ECT(0) (RFC 3168 5), and the header's checksum follows (RFC 1624).
    #[cold]
    pub(crate) fn set_ecn_capable(&self, out: &mut [u8; MAX_HEADER_BYTES]) {
        if self.family() == Family::V6 {
            // Above the flow label (RFC 8200 3).
            out[IP + 1] |= ECT_0 << 4;
            return;
        }
        out[IP + 1] |= ECT_0;
        let sum = !u16::from_be_bytes([out[IP + 10], out[IP + 11]]);
        let checksum = Sum::ZERO.word(sum).word(u16::from(ECT_0)).checksum();
        out[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Puts the urgent pointer into a header that has the URG bit already. A checksum that is finished takes it in
    /// (RFC 1624); one that the device finishes will.
    #[cold]
    pub(crate) fn set_urgent(&self, out: &mut [u8; MAX_HEADER_BYTES], pointer: u16, payload_sum: PayloadSum) {
        let tcp = &mut out[self.tcp_at()..];
        tcp[tcp::URGENT_OFFSET..tcp::URGENT_OFFSET + 2].copy_from_slice(&pointer.to_be_bytes());
        if let PayloadSum::Known(_) = payload_sum {
            let checksum = &mut tcp[tcp::CHECKSUM_OFFSET..tcp::CHECKSUM_OFFSET + 2];
            let sum = !u16::from_be_bytes([checksum[0], checksum[1]]);
            checksum.copy_from_slice(&Sum::ZERO.word(sum).word(pointer).checksum().to_be_bytes());
        }
    }

    /// Writes the header of a segment with the timestamps of `fields`, further `options` (a multiple of four bytes) and
    /// `payload_len` bytes of payload, and returns its length.
    #[inline]
    pub(crate) fn fill(
        &self,
        out: &mut [u8; MAX_HEADER_BYTES],
        fields: &Fields,
        options: &[u8],
        payload_len: usize,
        payload_sum: PayloadSum,
    ) -> usize {
        match self.family() {
            Family::V4 => {
                self.fill_behind::<{ ipv4::HEADER_BYTES }>(out, fields, options, payload_len, payload_sum)
            }
            Family::V6 => {
                self.fill_behind::<{ ipv6::HEADER_BYTES }>(out, fields, options, payload_len, payload_sum)
            }
        }
    }

    /// [`Self::fill`] behind an IP header of so many bytes.
    #[inline]
    fn fill_behind<const IP_BYTES: usize>(
        &self,
        out: &mut [u8; MAX_HEADER_BYTES],
        fields: &Fields,
        options: &[u8],
        payload_len: usize,
        payload_sum: PayloadSum,
    ) -> usize {
        let tcp = const { IP + IP_BYTES };
        let headers = tcp + tcp::HEADER_BYTES;
        let with_timestamps = headers + TIMESTAMPS_BYTES;
        let at = if fields.timestamps.is_some() { with_timestamps } else { headers };
        let header_len = at + options.len();
        let tcp_len = header_len - tcp + payload_len;
        let offset_and_flags = u16::from_be_bytes([((header_len - tcp) as u8 / 4) << 4, fields.flags]);
        let pseudo = Sum::ZERO.word(self.pseudo_sum).word(tcp_len as u16);
        let checksum = match payload_sum {
            PayloadSum::Device => pseudo.fold(),
            PayloadSum::Known(sum) => {
                let mut all = pseudo
                    .word(self.ports_sum)
                    .double(fields.sequence.value())
                    .double(fields.acknowledgment.value())
                    .word(offset_and_flags)
                    .word(fields.window)
                    .bytes(options)
                    .word(sum);
                if let Some(timestamps) = fields.timestamps {
                    all = all
                        .double(u32::from_be_bytes(ALIGNED_TIMESTAMPS))
                        .double(timestamps.value)
                        .double(timestamps.echo);
                }
                all.checksum()
            }
        };
        out[..with_timestamps].copy_from_slice(&self.bytes[..with_timestamps]);
        if IP_BYTES == ipv4::HEADER_BYTES {
            let total_len = (IP_BYTES + tcp_len) as u16;
            let ip_sum = Sum::ZERO.word(self.ip_sum).word(total_len);
            out[IP + 2..IP + 4].copy_from_slice(&total_len.to_be_bytes());
            out[IP + 10..IP + 12].copy_from_slice(&ip_sum.checksum().to_be_bytes());
        } else {
            out[IP + 4..IP + 6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
        }
        out[tcp + 4..tcp + 8].copy_from_slice(&fields.sequence.value().to_be_bytes());
        out[tcp + 8..tcp + 12].copy_from_slice(&fields.acknowledgment.value().to_be_bytes());
        out[tcp + 12..tcp + 14].copy_from_slice(&offset_and_flags.to_be_bytes());
        out[tcp + 14..tcp + 16].copy_from_slice(&fields.window.to_be_bytes());
        out[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
        if let Some(timestamps) = fields.timestamps {
            out[headers + 4..headers + 8].copy_from_slice(&timestamps.value.to_be_bytes());
            out[headers + 8..headers + 12].copy_from_slice(&timestamps.echo.to_be_bytes());
        }
        if !options.is_empty() {
            out[at..header_len].copy_from_slice(options);
        }
        header_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::sum_bytes;
    use crate::wire::ipv4::{Protocol, Verify};
    use crate::wire::ipv6::NextHeader;
    use alloc::vec::Vec;
    use core::net::Ipv6Addr;
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const NEXT_HOP: MacAddress = MacAddress([2; 6]);

    /// Reads a frame of either family, IP's checksum included: its addresses, its TCP bytes and the sum of the
    /// pseudo-header without the length.
    fn parse_ip(frame: &[u8]) -> ((IpAddr, IpAddr), &[u8], Sum) {
        let (ethernet, rest) = EthernetHeader::parse(frame).unwrap();
        assert_eq!((ethernet.source, ethernet.destination), (MAC, NEXT_HOP));
        if ethernet.ether_type == EtherType::Ipv6 {
            let (ip, rest) = Ipv6Header::parse(rest).unwrap();
            assert_eq!(ip.next_header, NextHeader::Tcp);
            return ((ip.source.into(), ip.destination.into()), rest, ip.pseudo_sum(0));
        }
        let (ip, rest) = Ipv4Header::parse(rest, Verify::Here).unwrap();
        assert_eq!(ip.protocol, Protocol::Tcp);
        ((ip.source.into(), ip.destination.into()), rest, ip.pseudo_sum_without_length())
    }

    proptest! {
        /// What is written parses back, with checksums that the parser verifies on its own.
        #[test]
        fn template_fill_then_parse_returns_same(
            sequence: u32, acknowledgment: u32, window: u16, addresses: Option<(u32, u32)>,
            long_addresses: (u128, u128), ports: (u16, u16), with_options: bool,
            timestamps: Option<(u32, u32)>, payload in proptest::collection::vec(any::<u8>(), 0..200),
            marks in (0u8..64, 1u8..=255),
        ) {
            let (mut template, ends) = if let Some((source, destination)) = addresses {
                let (source, destination) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
                let ip = Ipv4Header { source, destination, protocol: Protocol::Tcp };
                (HeaderTemplate::new(MAC, NEXT_HOP, &ip, ports.0, ports.1), (source.into(), destination.into()))
            } else {
                // Not a group.
                let source = Ipv6Addr::from_bits(long_addresses.0 >> 1);
                let destination = Ipv6Addr::from_bits(long_addresses.1);
                let ip = Ipv6Header { source, destination, next_header: NextHeader::Tcp, hop_limit: 64 };
                let template = HeaderTemplate::new_v6(MAC, NEXT_HOP, &ip, ports.0, ports.1);
                (template, (source.into(), destination.into()))
            };
            template.set_dscp(Dscp::new(marks.0).unwrap());
            template.set_time_to_live(NonZeroU8::new(marks.1).unwrap());
            prop_assert_eq!((template.local(), template.peer()), ends);
            let tcp_at = template.tcp_at();
            let options: &[u8] = if with_options { &[2, 4, 5, 180] } else { &[] };
            let fields = Fields {
                sequence: Seq::new(sequence),
                acknowledgment: Seq::new(acknowledgment),
                flags: tcp::flags::ACK | tcp::flags::FIN,
                window,
                timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
            };
            let mut out = [0; MAX_HEADER_BYTES];
            let sum = PayloadSum::Known(sum_bytes(&payload));
            let len = template.fill(&mut out, &fields, options, payload.len(), sum);
            let frame: Vec<u8> = [&out[..len], &payload].concat();

            let (parsed, rest, pseudo_sum) = parse_ip(&frame);
            prop_assert_eq!(parsed, ends);
            let traffic_class = match template.family() {
                Family::V4 => (frame[15], frame[22]),
                Family::V6 => (frame[14] << 4 | frame[15] >> 4, frame[21]),
            };
            prop_assert_eq!(traffic_class, (marks.0 << 2, marks.1));
            let segment = tcp::Segment::parse_summed(rest, Some(pseudo_sum)).unwrap();
            prop_assert_eq!((segment.source_port, segment.destination_port), ports);
            prop_assert_eq!(segment.sequence, fields.sequence);
            prop_assert_eq!(segment.acknowledgment, Some(fields.acknowledgment));
            prop_assert_eq!((segment.control, segment.window), (tcp::Control::Fin, window));
            prop_assert_eq!(Timestamps::parse(segment.options), fields.timestamps);
            let aligned = if timestamps.is_some() { TIMESTAMPS_BYTES } else { 0 };
            prop_assert_eq!((&segment.options[aligned..], segment.payload), (options, &payload[..]));

            // What a device does with the folded pseudo-header sum gives the same checksum (VIRTIO 5.1.6.2).
            let mut offloaded = [0; MAX_HEADER_BYTES];
            template.fill(&mut offloaded, &fields, options, payload.len(), PayloadSum::Device);
            let checksum = Sum::ZERO.bytes(&[&offloaded[tcp_at..len], &payload].concat()).checksum();
            let written = u16::from_be_bytes([out[tcp_at + 16], out[tcp_at + 17]]);
            prop_assert_eq!(checksum % 0xffff, written % 0xffff);
        }
    }
}
