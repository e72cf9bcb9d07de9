//! Headers of what we send. A connection's Ethernet, IPv4 and TCP headers are made once, with the sums of everything in
//! them that never changes; a segment copies them and fills in six fields, or eight with timestamps.

use super::Seq;
use core::num::NonZeroU8;

use crate::driver::MAX_HEADER_BYTES;
use crate::options::Dscp;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::tcp;
use crate::wire::tcp_options::{ALIGNED_TIMESTAMPS, TIMESTAMPS_BYTES, Timestamps};

/// Offset of the IPv4 header.
const IP: usize = ethernet::HEADER_BYTES;
/// Offset of the TCP header.
pub(crate) const TCP: usize = IP + ipv4::HEADER_BYTES;
/// All three headers, without options.
const HEADERS: usize = TCP + tcp::HEADER_BYTES;
/// With the timestamps option behind them.
const WITH_TIMESTAMPS: usize = HEADERS + TIMESTAMPS_BYTES;

#[derive(Debug)]
pub(crate) struct HeaderTemplate {
    /// Kind and length of the timestamps option are there always, and count if a segment has it.
    bytes: [u8; WITH_TIMESTAMPS],
    ip_sum: Sum,
    pseudo_sum: Sum,
    ports_sum: Sum,
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
        let mut bytes = [0; WITH_TIMESTAMPS];
        bytes[HEADERS..HEADERS + 4].copy_from_slice(&ALIGNED_TIMESTAMPS);
        let (ethernet, rest) = bytes.split_at_mut(IP);
        let (ip_bytes, tcp) = rest.split_at_mut(ipv4::HEADER_BYTES);
        if let Ok(out) = ethernet.try_into() {
            EthernetHeader { destination: next_hop, source: mac, ether_type: EtherType::Ipv4 }.emit(out);
        }
        if let Ok(out) = ip_bytes.try_into() {
            ip.emit(0, out);
        }
        tcp[..2].copy_from_slice(&source_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&destination_port.to_be_bytes());
        Self {
            bytes,
            ip_sum: ip.sum_without_length(),
            pseudo_sum: ip.pseudo_sum_without_length(),
            ports_sum: Sum::ZERO.word(source_port).word(destination_port),
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
        self.set_ip_octet(1, dscp.codepoint() << 2 | self.bytes[IP + 1] & 0x03);
    }

    pub(crate) fn set_time_to_live(&mut self, time_to_live: NonZeroU8) {
        self.set_ip_octet(8, time_to_live.get());
    }

    fn set_ip_octet(&mut self, at: usize, octet: u8) {
        self.bytes[IP + at] = octet;
        let mut header = [0; ipv4::HEADER_BYTES];
        header.copy_from_slice(&self.bytes[IP..TCP]);
        header[2..4].fill(0);
        header[10..12].fill(0);
        self.ip_sum = Sum::ZERO.bytes(&header);
    }

    /// Puts the urgent pointer into a header that has the URG bit already. A checksum that is finished takes it in
    /// (RFC 1624); one that the device finishes will.
    #[cold]
    pub(crate) fn set_urgent(out: &mut [u8; MAX_HEADER_BYTES], pointer: u16, payload_sum: PayloadSum) {
        out[TCP + tcp::URGENT_OFFSET..TCP + tcp::URGENT_OFFSET + 2].copy_from_slice(&pointer.to_be_bytes());
        if let PayloadSum::Known(_) = payload_sum {
            let checksum = &mut out[TCP + tcp::CHECKSUM_OFFSET..TCP + tcp::CHECKSUM_OFFSET + 2];
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
        let at = if fields.timestamps.is_some() { WITH_TIMESTAMPS } else { HEADERS };
        let header_len = at + options.len();
        let tcp_len = header_len - TCP + payload_len;
        let total_len = (ipv4::HEADER_BYTES + tcp_len) as u16;
        let offset_and_flags = u16::from_be_bytes([((header_len - TCP) as u8 / 4) << 4, fields.flags]);
        let pseudo = self.pseudo_sum.word(tcp_len as u16);
        let checksum = match payload_sum {
            PayloadSum::Device => pseudo.fold(),
            PayloadSum::Known(sum) => {
                let mut all = pseudo
                    .plus(self.ports_sum)
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
        out[..WITH_TIMESTAMPS].copy_from_slice(&self.bytes);
        out[IP + 2..IP + 4].copy_from_slice(&total_len.to_be_bytes());
        out[IP + 10..IP + 12].copy_from_slice(&self.ip_sum.word(total_len).checksum().to_be_bytes());
        out[TCP + 4..TCP + 8].copy_from_slice(&fields.sequence.value().to_be_bytes());
        out[TCP + 8..TCP + 12].copy_from_slice(&fields.acknowledgment.value().to_be_bytes());
        out[TCP + 12..TCP + 14].copy_from_slice(&offset_and_flags.to_be_bytes());
        out[TCP + 14..TCP + 16].copy_from_slice(&fields.window.to_be_bytes());
        out[TCP + 16..TCP + 18].copy_from_slice(&checksum.to_be_bytes());
        if let Some(timestamps) = fields.timestamps {
            out[HEADERS + 4..HEADERS + 8].copy_from_slice(&timestamps.value.to_be_bytes());
            out[HEADERS + 8..HEADERS + 12].copy_from_slice(&timestamps.echo.to_be_bytes());
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
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    proptest! {
        /// What is written parses back, with checksums that the parser verifies on its own.
        #[test]
        fn template_fill_then_parse_returns_same(
            sequence: u32, acknowledgment: u32, window: u16, source: u32, destination: u32, ports: (u16, u16),
            with_options: bool, timestamps: Option<(u32, u32)>, payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let ip = Ipv4Header {
                source: Ipv4Addr::from_bits(source),
                destination: Ipv4Addr::from_bits(destination),
                protocol: Protocol::Tcp,
            };
            let mac = MacAddress([2, 0, 0, 0, 0, 1]);
            let template = HeaderTemplate::new(mac, MacAddress([2; 6]), &ip, ports.0, ports.1);
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

            let (ethernet, rest) = EthernetHeader::parse(&frame).unwrap();
            prop_assert_eq!((ethernet.source, ethernet.destination), (mac, template.next_hop()));
            let (parsed_ip, rest) = Ipv4Header::parse(rest, Verify::Here).unwrap();
            prop_assert_eq!(parsed_ip, ip);
            let segment = tcp::Segment::parse(rest, Some(&parsed_ip)).unwrap();
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
            let checksum = Sum::ZERO.bytes(&[&offloaded[TCP..len], &payload].concat()).checksum();
            prop_assert_eq!(checksum % 0xffff, u16::from_be_bytes([out[TCP + 16], out[TCP + 17]]) % 0xffff);
        }
    }
}
