//! Headers of what we send. A connection's Ethernet, IPv4 and TCP headers are made once, with the sums of everything in
//! them that never changes; a segment copies them and fills in six fields.

use super::Seq;
use crate::driver::MAX_HEADER_BYTES;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::tcp;

/// Offset of the IPv4 header.
const IP: usize = ethernet::HEADER_BYTES;
/// Offset of the TCP header.
pub(crate) const TCP: usize = IP + ipv4::HEADER_BYTES;
/// All three headers, without options.
const HEADERS: usize = TCP + tcp::HEADER_BYTES;

#[derive(Debug)]
pub(crate) struct HeaderTemplate {
    bytes: [u8; HEADERS],
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
        let mut bytes = [0; HEADERS];
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

    /// Writes the header of a segment with `options` (a multiple of four bytes) and `payload_len` bytes of payload, and
    /// returns its length.
    #[inline]
    pub(crate) fn fill(
        &self,
        out: &mut [u8; MAX_HEADER_BYTES],
        fields: &Fields,
        options: &[u8],
        payload_len: usize,
        payload_sum: PayloadSum,
    ) -> usize {
        let tcp_len = tcp::HEADER_BYTES + options.len() + payload_len;
        let total_len = (ipv4::HEADER_BYTES + tcp_len) as u16;
        let offset_and_flags =
            u16::from_be_bytes([((tcp::HEADER_BYTES + options.len()) as u8 / 4) << 4, fields.flags]);
        let pseudo = self.pseudo_sum.word(tcp_len as u16);
        let checksum = match payload_sum {
            PayloadSum::Device => pseudo.fold(),
            PayloadSum::Known(sum) => pseudo
                .plus(self.ports_sum)
                .double(fields.sequence.value())
                .double(fields.acknowledgment.value())
                .word(offset_and_flags)
                .word(fields.window)
                .bytes(options)
                .word(sum)
                .checksum(),
        };
        out[..HEADERS].copy_from_slice(&self.bytes);
        out[IP + 2..IP + 4].copy_from_slice(&total_len.to_be_bytes());
        out[IP + 10..IP + 12].copy_from_slice(&self.ip_sum.word(total_len).checksum().to_be_bytes());
        out[TCP + 4..TCP + 8].copy_from_slice(&fields.sequence.value().to_be_bytes());
        out[TCP + 8..TCP + 12].copy_from_slice(&fields.acknowledgment.value().to_be_bytes());
        out[TCP + 12..TCP + 14].copy_from_slice(&offset_and_flags.to_be_bytes());
        out[TCP + 14..TCP + 16].copy_from_slice(&fields.window.to_be_bytes());
        out[TCP + 16..TCP + 18].copy_from_slice(&checksum.to_be_bytes());
        out[HEADERS..HEADERS + options.len()].copy_from_slice(options);
        HEADERS + options.len()
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
            with_options: bool, payload in proptest::collection::vec(any::<u8>(), 0..200),
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
            prop_assert_eq!((segment.options, segment.payload), (options, &payload[..]));

            // What a device does with the folded pseudo-header sum gives the same checksum (VIRTIO 5.1.6.2).
            let mut offloaded = [0; MAX_HEADER_BYTES];
            template.fill(&mut offloaded, &fields, options, payload.len(), PayloadSum::Device);
            let checksum = Sum::ZERO.bytes(&[&offloaded[TCP..len], &payload].concat()).checksum();
            prop_assert_eq!(checksum % 0xffff, u16::from_be_bytes([out[TCP + 16], out[TCP + 17]]) % 0xffff);
        }
    }
}
