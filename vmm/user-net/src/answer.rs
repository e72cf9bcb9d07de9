//! Packets that need no connection: answers to ARP and echo, refusals of datagrams, and datagrams to the guest.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::{ChecksumCapabilities, PacketMeta};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr,
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use crate::link::{BEFORE_IP_BYTES, Link};
use crate::wire::{BEFORE_TRANSPORT_BYTES, IPV4_BYTES};
use crate::{GATEWAY_ADDRESS, GUEST_ADDRESS, MTU_BYTES};

/// Longest payload of a UDP datagram that fits a frame.
pub(crate) const UDP_PAYLOAD_MAX: usize = MTU_BYTES - IPV4_BYTES - 8;
/// Hop limit of what we send.
const HOP_LIMIT: u8 = 64;

/// Every address of the network but the guest's is the gateway's.
pub(crate) fn arp(link: &Link, sender: EthernetAddress, wanted: Ipv4Addr) -> Option<Vec<u8>> {
    if wanted == GUEST_ADDRESS || !crate::is_in_network(wanted) {
        return None;
    }
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: link.gateway_mac,
        source_protocol_addr: wanted,
        target_hardware_addr: sender,
        target_protocol_addr: GUEST_ADDRESS,
    };
    let mut frame = vec![0; BEFORE_IP_BYTES + answer.buffer_len()];
    answer.emit(&mut ArpPacket::new_unchecked(&mut frame[BEFORE_IP_BYTES..]));
    link.complete_arp(&mut frame);
    Some(frame)
}

/// RFC 792: an echo reply, if it fits a frame.
pub(crate) fn echo(link: &Link, from: Ipv4Addr, ident: u16, sequence: u16, data: &[u8]) -> Option<Vec<u8>> {
    icmp(link, from, &Icmpv4Repr::EchoReply { ident, seq_no: sequence, data })
}

/// RFC 1812 5.2.7.1: a datagram may not go where it wants to.
pub(crate) fn prohibited(link: &Link, refused: &[u8]) -> Option<Vec<u8>> {
    let packet = Ipv4Packet::new_checked(refused).ok()?;
    let header = Ipv4Repr::parse(&packet, &ChecksumCapabilities::ignored()).ok()?;
    // RFC 1812 4.3.2.3: as much as fits without making it longer than 576 bytes.
    let data = packet.payload();
    let data = &data[..data.len().min(576 - 2 * IPV4_BYTES - 8)];
    let reason = Icmpv4DstUnreachable::HostProhibited;
    icmp(link, GATEWAY_ADDRESS, &Icmpv4Repr::DstUnreachable { reason, header, data })
}

fn icmp(link: &Link, from: Ipv4Addr, icmp: &Icmpv4Repr<'_>) -> Option<Vec<u8>> {
    let bytes = icmp.buffer_len();
    if IPV4_BYTES + bytes > MTU_BYTES {
        return None;
    }
    let mut frame = vec![0; BEFORE_TRANSPORT_BYTES + bytes];
    put_ipv4(&mut frame, from, IpProtocol::Icmp);
    let checksums = ChecksumCapabilities::default();
    icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut frame[BEFORE_TRANSPORT_BYTES..]), &checksums);
    link.complete_ipv4(&mut frame, PacketMeta::default());
    Some(frame)
}

/// A datagram to the guest. `frame` has its payload already, from [`UDP_PAYLOAD_AT`] to its end.
pub(crate) fn udp(link: &Link, frame: &mut [u8], from: SocketAddrV4, guest_port: u16) {
    put_ipv4(frame, *from.ip(), IpProtocol::Udp);
    let datagram = &mut frame[BEFORE_TRANSPORT_BYTES..];
    let payload_bytes = datagram.len() - 8;
    let header = UdpRepr { src_port: from.port(), dst_port: guest_port };
    let (from, to) = (IpAddress::from(*from.ip()), IpAddress::from(GUEST_ADDRESS));
    let checksums = ChecksumCapabilities::default();
    header.emit(&mut UdpPacket::new_unchecked(datagram), &from, &to, payload_bytes, |_| {}, &checksums);
    link.complete_ipv4(frame, PacketMeta::default());
}

/// Where the payload of a datagram lies in its frame.
pub(crate) const UDP_PAYLOAD_AT: usize = BEFORE_TRANSPORT_BYTES + 8;

fn put_ipv4(frame: &mut [u8], from: Ipv4Addr, protocol: IpProtocol) {
    let header = Ipv4Repr {
        src_addr: from,
        dst_addr: GUEST_ADDRESS,
        next_header: protocol,
        payload_len: frame.len() - BEFORE_TRANSPORT_BYTES,
        hop_limit: HOP_LIMIT,
    };
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[BEFORE_IP_BYTES..]);
    header.emit(&mut packet, &ChecksumCapabilities::default());
}
