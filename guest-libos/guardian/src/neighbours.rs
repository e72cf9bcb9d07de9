//! Who is on the link: Ethernet addresses of IPv4 neighbours, learned from ARP (RFC 826). The wire is not trusted: there are so
//! many and no more, what is new replaces what was learned longest ago, and the gateway's entry only the gateway's.

use core::net::Ipv4Addr;
use exos_net::MacAddress;
use exos_net::wire::arp::{ArpPacket, Operation, PACKET_BYTES};
use exos_net::wire::ethernet::{EtherType, EthernetHeader, HEADER_BYTES};

/// Neighbours at a time.
pub const NEIGHBOURS_MAX: usize = 64;
/// Bytes of a request for one's address.
pub const REQUEST_BYTES: usize = HEADER_BYTES + PACKET_BYTES;

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Where it is on the link.
    pub mac: MacAddress,
}

/// The interface that the guardian guards.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Length of the prefix that is on the link.
    pub prefix_len: u8,
    /// Who is asked for all else.
    pub gateway: Option<Ipv4Addr>,
}

impl Interface {
    /// Whether an address is on the link.
    pub fn is_on_link(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
        (address.to_bits() ^ self.ip.to_bits()) & mask == 0
    }
}

/// Those that are known. The first place is the gateway's.
#[derive(Debug)]
pub struct Neighbours {
    interface: Interface,
    known: [Option<Neighbour>; NEIGHBOURS_MAX],
    /// Where the next new one goes.
    next: usize,
}

impl Neighbours {
    /// None yet.
    pub fn new(interface: Interface) -> Self {
        Self { interface, known: [None; NEIGHBOURS_MAX], next: 1 }
    }

    /// Looks at a frame; whether something is known now that was not.
    pub fn learn(&mut self, frame: &[u8]) -> bool {
        let Ok((EthernetHeader { ether_type: EtherType::Arp, .. }, payload)) = EthernetHeader::parse(frame)
        else {
            return false;
        };
        let Ok(packet) = ArpPacket::parse(payload) else { return false };
        let (ip, mac) = (packet.sender_ip, packet.sender_mac);
        // Probes (RFC 5227) come from nobody yet.
        if ip.is_unspecified() || ip == self.interface.ip || !self.interface.is_on_link(ip) {
            return false;
        }
        let new = Neighbour { ip, mac };
        if Some(ip) == self.interface.gateway {
            return self.known[0].replace(new) != Some(new);
        }
        if let Some(known) = self.known.iter_mut().flatten().find(|known| known.ip == ip) {
            return core::mem::replace(known, new) != new;
        }
        // As RFC 826 has it: who is not known becomes so if it is us whom it asks.
        if packet.target_ip != self.interface.ip {
            return false;
        }
        self.known[self.next] = Some(new);
        self.next = self.next % (NEIGHBOURS_MAX - 1) + 1;
        true
    }

    /// Where an address is on the link.
    pub fn find(&self, ip: Ipv4Addr) -> Option<MacAddress> {
        self.known.iter().flatten().find(|known| known.ip == ip).map(|known| known.mac)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Neighbour> {
        self.known.iter().flatten().copied()
    }

    /// A frame that asks the gateway where it is, if there is one and it is not known.
    pub fn ask_for_gateway(&self) -> Option<[u8; REQUEST_BYTES]> {
        let gateway = self.interface.gateway.filter(|_| self.known[0].is_none())?;
        let mut frame = [0; REQUEST_BYTES];
        let (header, rest) = frame.split_first_chunk_mut::<HEADER_BYTES>()?;
        EthernetHeader {
            destination: MacAddress([0xFF; 6]),
            source: self.interface.mac,
            ether_type: EtherType::Arp,
        }
        .emit(header);
        ArpPacket {
            operation: Operation::Request,
            sender_mac: self.interface.mac,
            sender_ip: self.interface.ip,
            target_mac: MacAddress([0; 6]),
            target_ip: gateway,
        }
        .emit(rest.first_chunk_mut()?);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Interface = Interface {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        ip: Ipv4Addr::new(10, 0, 0, 2),
        prefix_len: 24,
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
    };

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 1, last])
    }

    fn frame(operation: Operation, from: (Ipv4Addr, MacAddress), target_ip: Ipv4Addr) -> [u8; REQUEST_BYTES] {
        let mut frame = [0; REQUEST_BYTES];
        let (header, rest) = frame.split_first_chunk_mut::<HEADER_BYTES>().expect("long enough");
        EthernetHeader { destination: OWN.mac, source: from.1, ether_type: EtherType::Arp }.emit(header);
        ArpPacket { operation, sender_mac: from.1, sender_ip: from.0, target_mac: OWN.mac, target_ip }
            .emit(rest.first_chunk_mut().expect("long enough"));
        frame
    }

    fn asks_us(last: u8) -> [u8; REQUEST_BYTES] {
        frame(Operation::Request, (Ipv4Addr::new(10, 0, 0, last), mac(last)), OWN.ip)
    }

    #[test]
    fn who_asks_us_is_learned_and_who_asks_others_is_not() {
        let mut neighbours = Neighbours::new(OWN);
        assert!(neighbours.learn(&asks_us(9)));
        assert!(!neighbours.learn(&asks_us(9)), "known");
        assert_eq!(neighbours.find(Ipv4Addr::new(10, 0, 0, 9)), Some(mac(9)));
        let other =
            frame(Operation::Request, (Ipv4Addr::new(10, 0, 0, 8), mac(8)), Ipv4Addr::new(10, 0, 0, 7));
        assert!(!neighbours.learn(&other));
        let moved =
            frame(Operation::Reply, (Ipv4Addr::new(10, 0, 0, 9), mac(77)), Ipv4Addr::new(10, 0, 0, 7));
        assert!(neighbours.learn(&moved));
        assert_eq!(neighbours.find(Ipv4Addr::new(10, 0, 0, 9)), Some(mac(77)));
    }

    #[test]
    fn nonsense_is_not_learned() {
        let mut neighbours = Neighbours::new(OWN);
        for ip in [OWN.ip, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 0, 1, 9)] {
            assert!(!neighbours.learn(&frame(Operation::Request, (ip, mac(3)), OWN.ip)), "{ip}");
        }
        let group = frame(Operation::Request, (Ipv4Addr::new(10, 0, 0, 5), MacAddress([0xFF; 6])), OWN.ip);
        assert!(!neighbours.learn(&group));
        assert_eq!(neighbours.iter().count(), 0);
    }

    #[test]
    fn flood_leaves_the_gateway_and_the_latest() {
        let mut neighbours = Neighbours::new(OWN);
        assert!(neighbours.ask_for_gateway().is_some());
        assert!(neighbours.learn(&asks_us(1)));
        assert!(neighbours.ask_for_gateway().is_none());
        for last in 3..=254 {
            assert!(neighbours.learn(&asks_us(last)));
        }
        assert_eq!(neighbours.iter().count(), NEIGHBOURS_MAX);
        assert_eq!(neighbours.find(Ipv4Addr::new(10, 0, 0, 1)), Some(mac(1)));
        assert_eq!(neighbours.find(Ipv4Addr::new(10, 0, 0, 254)), Some(mac(254)));
        assert_eq!(neighbours.find(Ipv4Addr::new(10, 0, 0, 3)), None);
    }

    #[test]
    fn gateway_is_asked_where_it_is() {
        let frame = Neighbours::new(OWN).ask_for_gateway().expect("a gateway that is not known");
        let packet = ArpPacket::parse(&frame[HEADER_BYTES..]).expect("well formed");
        assert_eq!((packet.operation, packet.target_ip), (Operation::Request, Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!((packet.sender_ip, packet.sender_mac), (OWN.ip, OWN.mac));
        let none = Interface { gateway: None, ..OWN };
        assert!(Neighbours::new(none).ask_for_gateway().is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_frame_is_looked_at_without_harm(frame in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let mut neighbours = Neighbours::new(OWN);
            neighbours.learn(&frame);
            proptest::prop_assert!(neighbours.iter().count() <= 1);
        }
    }
}
