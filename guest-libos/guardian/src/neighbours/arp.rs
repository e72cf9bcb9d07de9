//! ARP (RFC 826) as evidence: a reply to a question of ours says that somebody is there, everything else says that somebody was.

use super::resolver::{Advertised, Resolver};
use super::{Counters, Frame, Interface};
use core::net::{IpAddr, Ipv4Addr};
use exos_net::wire::WireError;
use exos_net::wire::arp::{ArpPacket, Operation, PACKET_BYTES};
use exos_net::wire::ethernet::{EtherType, EthernetHeader};
use exos_net::{Instant, MacAddress};

/// Looks at a packet; whether something is known now that was not.
pub(super) fn hear(
    interface: &Interface,
    resolver: &mut Resolver,
    counters: &mut Counters,
    now: Instant,
    payload: &[u8],
) -> Result<bool, WireError> {
    let packet = ArpPacket::parse(payload)?;
    let (ip, mac) = (IpAddr::V4(packet.sender_ip), packet.sender_mac);
    if packet.sender_ip == interface.ip {
        counters.conflicts += 1;
        return Ok(false);
    }
    // Probes (RFC 5227) come from nobody yet.
    if !interface.is_neighbour(ip) {
        return Ok(false);
    }
    if packet.operation == Operation::Request {
        // As RFC 826 has it: who is not known becomes so if it is us whom it asks.
        return Ok(resolver.introduced(now, ip, mac, packet.target_ip == interface.ip));
    }
    let solicited = resolver.is_asked(ip) && packet.target_ip == interface.ip;
    let advertised = Advertised { mac: Some(mac), router: false, solicited, overrides: true };
    Ok(resolver.advertised(now, ip, advertised))
}

/// The question where somebody is, to all or to whom it was last.
pub(super) fn request(interface: &Interface, target_ip: Ipv4Addr, at: Option<MacAddress>) -> Frame {
    let header = EthernetHeader {
        destination: at.unwrap_or(MacAddress::BROADCAST),
        source: interface.mac,
        ether_type: EtherType::Arp,
    };
    Frame::build(header, |out| {
        let packet = ArpPacket {
            operation: Operation::Request,
            sender_mac: interface.mac,
            sender_ip: interface.ip,
            target_mac: MacAddress([0; 6]),
            target_ip,
        };
        out.first_chunk_mut().map_or(0, |out| {
            packet.emit(out);
            PACKET_BYTES
        })
    })
}
