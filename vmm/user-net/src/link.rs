//! Frames to the guest: what goes before an IP packet, and what is left to the guest's driver.

use std::net::Ipv4Addr;

use smoltcp::phy::{Checksum, ChecksumCapabilities, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::wire::{EthernetAddress, IpProtocol, Ipv4Packet, TcpPacket};

use crate::header::{self, HEADER_BYTES, Offload, TCP_CHECKSUM_AT};
use crate::wire::{BEFORE_TRANSPORT_BYTES, ETHERNET_BYTES, IPV4_BYTES};
use crate::{GuestOffloads, MTU_BYTES};

/// Bytes before the IP packet.
pub(crate) const BEFORE_IP_BYTES: usize = HEADER_BYTES + ETHERNET_BYTES;
/// The longest frame, header included: the largest IP packet.
pub(crate) const FRAME_BYTES_MAX: usize = BEFORE_IP_BYTES + u16::MAX as usize;

/// EtherTypes.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;

/// Both ends of the wire and what the guest can cope with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) guest_mac: EthernetAddress,
    pub(crate) gateway_mac: EthernetAddress,
    pub(crate) offloads: GuestOffloads,
}

impl Link {
    /// What smoltcp has to know of it.
    pub(crate) fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU_BYTES;
        // Checked in `wire` as they come in; computed by smoltcp as they go out, unless the guest does without.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.checksum.ipv4 = Checksum::Tx;
        if !self.offloads.checksum {
            capabilities.checksum.tcp = Checksum::Tx;
        }
        if self.offloads.checksum && self.offloads.tso4 {
            capabilities.segmentation.tcpv4 = std::num::NonZeroUsize::new(usize::from(u16::MAX));
        }
        capabilities
    }

    /// Completes a frame whose IPv4 packet is there: headers, and the part of the checksum that is not left to the guest.
    pub(crate) fn complete_ipv4(&self, frame: &mut [u8], meta: PacketMeta) {
        let packet = &frame[BEFORE_IP_BYTES..];
        let is_tcp = packet.len() > IPV4_BYTES && packet[9] == u8::from(IpProtocol::Tcp);
        let offload = match meta.segmentation_offload_size {
            _ if !is_tcp || !self.offloads.checksum => Offload::None,
            Some(mss) => Offload::Segments { mss: mss.get() },
            None => Offload::Checksum,
        };
        let mut tcp_bytes = 0;
        if offload != Offload::None {
            let ip = Ipv4Packet::new_unchecked(packet);
            let (from, to) = (ip.src_addr(), ip.dst_addr());
            let transport = &mut frame[BEFORE_TRANSPORT_BYTES..];
            let partial = pseudo_header_sum(from, to, transport.len());
            let at = usize::from(TCP_CHECKSUM_AT);
            transport[at..at + 2].copy_from_slice(&partial.to_be_bytes());
            tcp_bytes = TcpPacket::new_unchecked(&*transport).header_len();
        }
        let start = (ETHERNET_BYTES + IPV4_BYTES) as u16;
        frame[..HEADER_BYTES].copy_from_slice(&header::emit(offload, start, start + u16::from(tcp_bytes)));
        self.put_ethernet(frame, IPV4);
    }

    /// Completes a frame whose ARP packet is there.
    pub(crate) fn complete_arp(&self, frame: &mut [u8]) {
        frame[..HEADER_BYTES].fill(0);
        self.put_ethernet(frame, ARP);
    }

    fn put_ethernet(&self, frame: &mut [u8], ether_type: u16) {
        let ethernet = &mut frame[HEADER_BYTES..BEFORE_IP_BYTES];
        ethernet[..6].copy_from_slice(self.guest_mac.as_bytes());
        ethernet[6..12].copy_from_slice(self.gateway_mac.as_bytes());
        ethernet[12..].copy_from_slice(&ether_type.to_be_bytes());
    }
}

/// The pseudo header's part of a TCP checksum (RFC 9293 3.1), as VIRTIO 1.3 5.1.6.2 wants it: summed, not inverted.
fn pseudo_header_sum(from: Ipv4Addr, to: Ipv4Addr, transport_bytes: usize) -> u16 {
    let mut sum = u32::from(u8::from(IpProtocol::Tcp)) + transport_bytes as u32;
    for address in [from, to].map(u32::from) {
        sum += (address >> 16) + (address & 0xFFFF);
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}
