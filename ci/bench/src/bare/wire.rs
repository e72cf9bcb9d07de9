//! Bytes on the wire: what of a received segment matters, and the headers of a sent one. Pure.

use exovm_netns::tap::VNET_HEADER_BYTES;
use std::net::Ipv4Addr;

/// Largest payload of a segment on the wire; what is longer the host cuts.
pub(super) const MSS: usize = 1460;
pub(super) const OWN_MAC: [u8; 6] = [2, 0, 0, 0x77, 0, 2];
const SERVER_PORT: u16 = 80;
/// Our receive window, before scaling by [`WINDOW_SHIFT`]; never used up.
const WINDOW: u16 = 0xffff;
const WINDOW_SHIFT: u8 = 7;

const ETHERNET_BYTES: usize = 14;
const IP_AT: usize = VNET_HEADER_BYTES + ETHERNET_BYTES;
pub(super) const TCP_AT: usize = IP_AT + 20;
const LARGEST_HEADERS_BYTES: usize = TCP_AT + 20 + SYN_OPTIONS.len();
const PROTOCOL_TCP: u8 = 6;

/// Maximum segment size and window scale (RFC 9293 3.7.1, RFC 7323 2.2).
const SYN_OPTIONS: [u8; 8] = [2, 4, (MSS >> 8) as u8, MSS as u8, 1, 3, 3, WINDOW_SHIFT];

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// The fields of a received segment that matter.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    pub(super) peer_mac: [u8; 6],
    pub(super) peer_address: Ipv4Addr,
    pub(super) port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads an Ethernet frame with an IPv4 packet; `None` unless it is whole, TCP, and for `address`.
    pub(super) fn parse(ethernet: &'a [u8], address: Ipv4Addr) -> Option<Self> {
        let ip = ethernet.get(ETHERNET_BYTES..)?;
        let ip_header_bytes = usize::from(ip.first()? & 15) * 4;
        let total_bytes = usize::from(u16::from_be_bytes(*ip.get(2..4)?.as_array()?));
        if *ip.get(9)? != PROTOCOL_TCP || *ip.get(16..20)? != address.octets() {
            return None;
        }
        let tcp = ip.get(ip_header_bytes..total_bytes)?;
        let data_offset = usize::from(*tcp.get(12)? >> 4) * 4;
        let half = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..at + 2)?.as_array()?));
        let word = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..at + 4)?.as_array()?));
        Some(Segment {
            peer_mac: *ethernet.get(6..12)?.as_array()?,
            peer_address: Ipv4Addr::from(*ip.get(12..16)?.as_array::<4>()?),
            port: half(0)?,
            sequence: word(4)?,
            acknowledgement: word(8)?,
            flags: *tcp.get(13)?,
            window: half(14)?,
            options: tcp.get(20..data_offset)?,
            payload: tcp.get(data_offset..)?,
        })
    }
}

/// A segment to send, without its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutgoingSegment {
    pub(super) peer_mac: [u8; 6],
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) ip_identification: u16,
    pub(super) port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    pub(super) payload_bytes: usize,
}

/// The headers of one segment, in place.
pub(super) struct Headers {
    bytes: [u8; LARGEST_HEADERS_BYTES],
    length: usize,
}

impl Headers {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl OutgoingSegment {
    /// virtio-net, Ethernet, IPv4 and TCP header.
    pub(super) fn headers(&self) -> Headers {
        let options: &[u8] = if self.flags & SYN != 0 { &SYN_OPTIONS } else { &[] };
        let tcp_bytes = 20 + options.len();
        let mut bytes = [0; LARGEST_HEADERS_BYTES];
        self.write_virtio_and_ethernet(&mut bytes, tcp_bytes);

        let total_bytes = (20 + tcp_bytes + self.payload_bytes) as u16;
        let ip = &mut bytes[IP_AT..TCP_AT];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&total_bytes.to_be_bytes());
        ip[4..6].copy_from_slice(&self.ip_identification.to_be_bytes());
        ip[6] = 0x40; // do not fragment
        ip[8] = 64;
        ip[9] = PROTOCOL_TCP;
        ip[12..16].copy_from_slice(&self.from.octets());
        ip[16..20].copy_from_slice(&self.to.octets());
        let ip_checksum = !fold(sum(ip));
        ip[10..12].copy_from_slice(&ip_checksum.to_be_bytes());
        let pseudo_header = fold(sum(&ip[12..20]) + u32::from(PROTOCOL_TCP) + u32::from(total_bytes - 20));

        let tcp = &mut bytes[TCP_AT..];
        tcp[..2].copy_from_slice(&SERVER_PORT.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.port.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        tcp[12] = (tcp_bytes / 4 * 16) as u8;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        tcp[16..18].copy_from_slice(&pseudo_header.to_be_bytes());
        tcp[20..tcp_bytes].copy_from_slice(options);
        Headers { bytes, length: TCP_AT + tcp_bytes }
    }

    /// VIRTIO 1.3 5.1.6: the host completes the TCP checksum, and cuts what is longer than a segment.
    fn write_virtio_and_ethernet(&self, bytes: &mut [u8], tcp_bytes: usize) {
        const NEEDS_CSUM: u8 = 1;
        const GSO_TCPV4: u8 = 1;
        const CHECKSUM_IN_TCP: u16 = 16;
        let tcp_from_ethernet = ETHERNET_BYTES + 20;
        bytes[0] = NEEDS_CSUM;
        if self.payload_bytes > MSS {
            bytes[1] = GSO_TCPV4;
            bytes[2..4].copy_from_slice(&((tcp_from_ethernet + tcp_bytes) as u16).to_le_bytes());
            bytes[4..6].copy_from_slice(&(MSS as u16).to_le_bytes());
        }
        bytes[6..8].copy_from_slice(&(tcp_from_ethernet as u16).to_le_bytes());
        bytes[8..10].copy_from_slice(&CHECKSUM_IN_TCP.to_le_bytes());
        let ethernet = &mut bytes[VNET_HEADER_BYTES..IP_AT];
        ethernet[..6].copy_from_slice(&self.peer_mac);
        ethernet[6..12].copy_from_slice(&OWN_MAC);
        ethernet[12..14].copy_from_slice(&[0x08, 0x00]);
    }
}

/// The client's window scale (RFC 7323 2.2), zero without one.
pub(super) fn window_shift(mut options: &[u8]) -> u8 {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    loop {
        options = match options {
            [] | [END, ..] => return 0,
            [NO_OPERATION, rest @ ..] => rest,
            [WINDOW_SCALE, 3, shift, ..] => return (*shift).min(14),
            [_, length, ..] if (2..=options.len()).contains(&usize::from(*length)) => {
                &options[usize::from(*length)..]
            }
            _ => return 0,
        };
    }
}

/// RFC 1071, over an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Whether the IPv4 header behind virtio-net and Ethernet header sums up to what it must.
#[cfg(test)]
pub(super) fn ip_checksum_is_right(headers: &[u8]) -> bool {
    fold(sum(&headers[IP_AT..TCP_AT])) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_shift_of_real_and_broken_options() {
        assert_eq!(window_shift(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7]), 7);
        for broken in [&[][..], &[0, 3, 3, 7], &[8, 200, 1], &[8], &[8, 1, 3, 3, 7]] {
            assert_eq!(window_shift(broken), 0, "{broken:?}");
        }
    }
}
