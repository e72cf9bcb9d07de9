//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use super::ethernet::MacAddress;
use super::{WireError, u16_at, u32_at};

/// Length of an ARP packet for IPv4 over Ethernet.
pub const PACKET_BYTES: usize = 28;
/// Hardware type 1, protocol type 0x0800, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address; always unicast.
    pub sender_mac: MacAddress,
    /// The sender's IPv4 address; zero in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// The target's Ethernet address; without meaning in a request.
    pub target_mac: MacAddress,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Reads a packet; padding after it is ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let packet = bytes.first_chunk::<PACKET_BYTES>().ok_or(WireError::Malformed)?;
        if packet[..6] != ETHERNET_IPV4 {
            return Err(WireError::Unsupported);
        }
        let operation = match u16_at(packet, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(WireError::Unsupported),
        };
        let sender_mac = mac_at(packet, 8);
        if !sender_mac.is_unicast() {
            return Err(WireError::Malformed);
        }
        Ok(Self {
            operation,
            sender_mac,
            sender_ip: Ipv4Addr::from_bits(u32_at(packet, 14)),
            target_mac: mac_at(packet, 18),
            target_ip: Ipv4Addr::from_bits(u32_at(packet, 24)),
        })
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut [u8; PACKET_BYTES]) {
        out[..6].copy_from_slice(&ETHERNET_IPV4);
        out[6..8].copy_from_slice(&[0, if self.operation == Operation::Request { 1 } else { 2 }]);
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender_ip.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target_ip.octets());
    }
}

fn mac_at(packet: &[u8; PACKET_BYTES], at: usize) -> MacAddress {
    let mut mac = [0; 6];
    mac.copy_from_slice(&packet[at..at + 6]);
    MacAddress(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet() -> ArpPacket {
        ArpPacket {
            operation: Operation::Reply,
            sender_mac: MacAddress([2, 0, 0, 0, 0, 9]),
            sender_ip: Ipv4Addr::new(10, 0, 0, 9),
            target_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            target_ip: Ipv4Addr::new(10, 0, 0, 1),
        }
    }

    #[test]
    fn arp_emit_then_parse_returns_same() {
        let mut bytes = [0; PACKET_BYTES];
        packet().emit(&mut bytes);
        assert_eq!(ArpPacket::parse(&bytes), Ok(packet()));
    }

    #[test]
    fn arp_group_sender_returns_malformed() {
        let mut bytes = [0; PACKET_BYTES];
        ArpPacket { sender_mac: MacAddress::BROADCAST, ..packet() }.emit(&mut bytes);
        assert_eq!(ArpPacket::parse(&bytes), Err(WireError::Malformed));
    }

    #[test]
    fn arp_unknown_operation_returns_unsupported() {
        let mut bytes = [0; PACKET_BYTES];
        packet().emit(&mut bytes);
        bytes[7] = 3;
        assert_eq!(ArpPacket::parse(&bytes), Err(WireError::Unsupported));
    }

    proptest! {
        #[test]
        fn arp_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ArpPacket::parse(&bytes);
        }
    }
}
