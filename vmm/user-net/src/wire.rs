//! Frames from the guest: bytes to meaning. Nothing about them is trusted; what is wrong with one is a [`Refusal`], and what
//! comes out as a [`Packet`] has been checked and needs no second look.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, TcpPacket,
    UdpPacket,
};

use crate::GUEST_ADDRESS;
use crate::header::{self, Checksum, HEADER_BYTES};

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_BYTES: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_BYTES: usize = 20;
/// Bytes before the transport header in a frame of ours.
pub(crate) const BEFORE_TRANSPORT_BYTES: usize = HEADER_BYTES + ETHERNET_BYTES + IPV4_BYTES;

/// A good packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// A question who has an address, from a hardware address.
    Arp {
        /// Who asks.
        sender: EthernetAddress,
        /// The address.
        wanted: Ipv4Addr,
    },
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP datagram.
    Udp {
        /// The guest's port.
        guest_port: u16,
        /// Where it goes.
        to: SocketAddrV4,
        /// What it says.
        payload: &'a [u8],
        /// The whole IP packet.
        ip: &'a [u8],
    },
    /// An ICMP echo request.
    Echo {
        /// Where it goes.
        to: Ipv4Addr,
        /// Identifier.
        ident: u16,
        /// Sequence number.
        sequence: u16,
        /// To be sent back.
        data: &'a [u8],
    },
}

/// A TCP segment, as far as it must be known to find its connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    /// The guest's port.
    pub(crate) guest_port: u16,
    /// Where it goes.
    pub(crate) to: SocketAddrV4,
    /// The first of a connection: SYN without ACK.
    pub(crate) opens: bool,
    /// Bytes of data.
    pub(crate) payload_bytes: usize,
    /// The whole IP packet.
    pub(crate) ip: &'a [u8],
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is cut short, its lengths contradict each other, or a field makes no sense.
    Malformed,
    /// A checksum is wrong.
    Checksum,
    /// It is a fragment of an IP packet.
    Fragment,
    /// Its source address is not the guest's.
    Spoofed,
    /// It is of a protocol that is not for us.
    Protocol,
}

/// Understands a frame, header first.
pub(crate) fn parse(frame: &[u8], gateway_mac: EthernetAddress) -> Result<Packet<'_>, Refusal> {
    let (header, frame) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(Refusal::Malformed)?;
    let checksum = header::parse(header).ok_or(Refusal::Malformed)?;
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET_BYTES>().ok_or(Refusal::Malformed)?;
    let destination = EthernetAddress::from_bytes(&ethernet[..6]);
    if destination != gateway_mac && !destination.is_broadcast() {
        return Err(Refusal::Protocol);
    }
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        0x0800 if destination == gateway_mac => parse_ipv4(packet, checksum),
        0x0806 => parse_arp(packet),
        _ => Err(Refusal::Protocol),
    }
}

/// RFC 826. Only questions are answered; the guest's address is known, so its answers say nothing new.
fn parse_arp(packet: &[u8]) -> Result<Packet<'_>, Refusal> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| Refusal::Malformed)?;
    match ArpRepr::parse(&packet).map_err(|_| Refusal::Malformed)? {
        ArpRepr::EthernetIpv4 {
            operation: smoltcp::wire::ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } => {
            if source_protocol_addr != GUEST_ADDRESS && !source_protocol_addr.is_unspecified() {
                return Err(Refusal::Spoofed);
            }
            if !source_hardware_addr.is_unicast() {
                return Err(Refusal::Malformed);
            }
            Ok(Packet::Arp { sender: source_hardware_addr, wanted: target_protocol_addr })
        }
        _ => Err(Refusal::Protocol),
    }
}

/// RFC 791, 1122 3.2.1.
fn parse_ipv4(bytes: &[u8], checksum: Checksum) -> Result<Packet<'_>, Refusal> {
    // Checks version, both lengths, and that they fit the bytes.
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Refusal::Malformed)?;
    if packet.version() != 4 || usize::from(packet.header_len()) < IPV4_BYTES {
        return Err(Refusal::Malformed);
    }
    if !packet.verify_checksum() {
        return Err(Refusal::Checksum);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Err(Refusal::Fragment);
    }
    if packet.src_addr() != GUEST_ADDRESS {
        return Err(Refusal::Spoofed);
    }
    // Without the padding of a short frame.
    let ip = &bytes[..usize::from(packet.total_len())];
    let transport = &ip[usize::from(packet.header_len())..];
    let to = packet.dst_addr();
    match packet.next_header() {
        IpProtocol::Tcp => parse_tcp(ip, transport, to, checksum),
        IpProtocol::Udp => parse_udp(ip, transport, to, checksum),
        IpProtocol::Icmp => parse_icmp(transport, to),
        _ => Err(Refusal::Protocol),
    }
}

/// RFC 9293 3.1.
fn parse_tcp<'a>(
    ip: &'a [u8],
    transport: &'a [u8],
    to: Ipv4Addr,
    checksum: Checksum,
) -> Result<Packet<'a>, Refusal> {
    let tcp = TcpPacket::new_checked(transport).map_err(|_| Refusal::Malformed)?;
    if tcp.src_port() == 0 || tcp.dst_port() == 0 {
        return Err(Refusal::Malformed);
    }
    if checksum == Checksum::Complete && !tcp.verify_checksum(&GUEST_ADDRESS.into(), &to.into()) {
        return Err(Refusal::Checksum);
    }
    Ok(Packet::Tcp(Segment {
        guest_port: tcp.src_port(),
        to: SocketAddrV4::new(to, tcp.dst_port()),
        opens: tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(),
        payload_bytes: transport.len() - usize::from(tcp.header_len()),
        ip,
    }))
}

/// RFC 768.
fn parse_udp<'a>(
    ip: &'a [u8],
    transport: &'a [u8],
    to: Ipv4Addr,
    checksum: Checksum,
) -> Result<Packet<'a>, Refusal> {
    let udp = UdpPacket::new_checked(transport).map_err(|_| Refusal::Malformed)?;
    if udp.src_port() == 0 || udp.dst_port() == 0 {
        return Err(Refusal::Malformed);
    }
    // Zero: the guest sends none.
    let unchecked = checksum == Checksum::LeftToDevice || udp.checksum() == 0;
    if !unchecked && !udp.verify_checksum(&GUEST_ADDRESS.into(), &to.into()) {
        return Err(Refusal::Checksum);
    }
    let payload = transport.get(8..usize::from(udp.len())).ok_or(Refusal::Malformed)?;
    let to = SocketAddrV4::new(to, udp.dst_port());
    Ok(Packet::Udp { guest_port: udp.src_port(), to, payload, ip })
}

/// RFC 792.
fn parse_icmp(transport: &[u8], to: Ipv4Addr) -> Result<Packet<'_>, Refusal> {
    let icmp = Icmpv4Packet::new_checked(transport).map_err(|_| Refusal::Malformed)?;
    if !icmp.verify_checksum() {
        return Err(Refusal::Checksum);
    }
    match Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::ignored()) {
        Ok(Icmpv4Repr::EchoRequest { ident, seq_no: sequence, data }) => {
            Ok(Packet::Echo { to, ident, sequence, data })
        }
        Ok(_) => Err(Refusal::Protocol),
        Err(_) => Err(Refusal::Malformed),
    }
}
