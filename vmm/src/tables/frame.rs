//! What the flow tree wants to know of an Ethernet frame: addresses, protocol, ports. Bytes from the wire or from a guest;
//! nothing in them is believed beyond their length.

/// Largest number of IPv6 extension headers that are looked through.
const EXTENSION_HEADERS: usize = 8;
/// Bytes of a frame that are enough to find the key of any frame that has one, as far as [`FrameKey::parse`] looks:
/// Ethernet, IPv4 with options, ICMP, quoted IPv4 with options and ports; IPv6 headers with extensions fit as well.
pub const KEY_BYTES: usize = 192;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_SCTP: u8 = 132;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The fields by which frames are told apart, in the direction in which the frame travels. For an ICMP error they are those
/// of the packet that it answers, turned round (RFC 792, RFC 4443 3): so an error finds the flow that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// IP protocol.
    pub protocol: u8,
    /// Source and destination port, where the protocol has them and the frame shows them.
    pub ports: Option<(u16, u16)>,
    /// Whether this is an ICMP error whose own addresses are not those of the packet it quotes, turned round. Routers send
    /// such errors; an environment only with the right to send anything.
    pub forwarder_error: bool,
}

impl FrameKey {
    /// The key of a frame that begins with its Ethernet header. `None`: ARP, not IP, a fragment other than the first,
    /// VLAN-tagged, or cut short. Such frames belong to the root.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        match u16::from_be_bytes([frame[12], frame[13]]) {
            ETHERTYPE_IPV4 => parse_ipv4(packet, Quoted::No),
            ETHERTYPE_IPV6 => parse_ipv6(packet, Quoted::No),
            _ => None,
        }
    }

    /// The key of the answer to this frame.
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: self.ports.map(|(source, destination)| (destination, source)),
            ..self
        }
    }

    /// A hash that is the same for both directions.
    pub fn symmetric_hash(&self) -> u32 {
        let mix =
            |address: [u64; 2]| (address[0] ^ address[1].rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let ports = self.ports.map_or(0, |(source, destination)| {
            let mix = |port: u16| (u64::from(port) + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            mix(source).wrapping_add(mix(destination))
        });
        let mut hash = mix(self.source).wrapping_add(mix(self.destination)) ^ ports;
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (hash >> 32) as u32
    }
}

/// Whether a frame tells IPv6 hosts of their link, so that all who share the interface should hear it: a router's advertisement, or
/// what a neighbour says or asks in a group (RFC 4861 4). None of these has extension headers (RFC 6980) or is of use with any.
pub fn tells_of_link(frame: &[u8]) -> bool {
    let Some(&kind) = frame.get(54) else { return false };
    let is_icmpv6 =
        frame[12..14] == ETHERTYPE_IPV6.to_be_bytes() && frame[14] >> 4 == 6 && frame[20] == PROTOCOL_ICMPV6;
    // RFC 4861 6.1.2, 7.1: what a router has passed on has fewer hops left.
    is_icmpv6
        && frame[21] == 255
        && match kind {
            ROUTER_ADVERTISEMENT => true,
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => frame[38] == 0xFF,
            _ => false,
        }
}

/// Whether a packet stands for itself or in an ICMP error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    No,
    Yes,
}

/// A packet that begins with its IPv4 header.
fn parse_ipv4(packet: &[u8], quoted: Quoted) -> Option<FrameKey> {
    let header = packet.get(..20)?;
    let header_len = usize::from(header[0] & 0xF) * 4;
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1FFF;
    if header[0] >> 4 != 4 || header_len < 20 || fragment_offset != 0 {
        return None;
    }
    let address = |at: usize| abi::flow::ipv4([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let payload = packet.get(header_len..)?;
    transport(address(12), address(16), header[9], payload, quoted)
}

/// A packet that begins with its IPv6 header.
fn parse_ipv6(packet: &[u8], quoted: Quoted) -> Option<FrameKey> {
    let header = packet.get(..40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let (source, destination) = ([word(8), word(16)], [word(24), word(32)]);
    let (mut next, mut rest) = (header[6], &packet[40..]);
    for _ in 0..EXTENSION_HEADERS {
        let len = match next {
            // Hop-by-hop options, routing, destination options (RFC 8200 4.3, 4.4, 4.6).
            0 | 43 | 60 => 8 + usize::from(*rest.get(1)?) * 8,
            // Fragment (RFC 8200 4.5): the first one shows the ports.
            44 if u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) & 0xFFF8 == 0 => 8,
            44 => return None,
            _ => return transport(source, destination, next, rest, quoted),
        };
        next = rest[0];
        rest = rest.get(len..)?;
    }
    None
}

/// What follows the IP header.
fn transport(
    source: [u64; 2],
    destination: [u64; 2],
    protocol: u8,
    payload: &[u8],
    quoted: Quoted,
) -> Option<FrameKey> {
    let kind = payload.first().copied();
    let is_error = quoted == Quoted::No
        && match protocol {
            PROTOCOL_ICMP => matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
            PROTOCOL_ICMPV6 => matches!(kind, Some(1..=4)),
            _ => false,
        };
    if is_error {
        let packet = payload.get(8..)?;
        let quoted = match protocol {
            PROTOCOL_ICMP => parse_ipv4(packet, Quoted::Yes)?,
            _ => parse_ipv6(packet, Quoted::Yes)?,
        };
        let key = quoted.reversed();
        return Some(FrameKey {
            forwarder_error: key.source != source || key.destination != destination,
            ..key
        });
    }
    let ports = match (protocol, payload) {
        (PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP, [a, b, c, d, ..]) => {
            Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
        }
        _ => None,
    };
    Some(FrameKey { source, destination, protocol, ports, forwarder_error: false })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use abi::flow::ipv4;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    /// An IPv4 packet with this payload.
    fn ipv4_packet(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = (20 + payload.len()) as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet.extend(source);
        packet.extend(destination);
        packet.extend(payload);
        packet
    }

    fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// A frame with ports and a payload.
    pub(crate) fn tcp_frame(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
        ip_frame(PROTOCOL_TCP, source, destination, payload)
    }

    /// The same for any protocol with ports at the usual place.
    pub(crate) fn ip_frame(
        protocol: u8,
        source: ([u8; 4], u16),
        destination: ([u8; 4], u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut segment = source.1.to_be_bytes().to_vec();
        segment.extend(destination.1.to_be_bytes());
        segment.extend([0; 16]);
        segment.extend(payload);
        ethernet(ETHERTYPE_IPV4, &ipv4_packet(source.0, destination.0, protocol, &segment))
    }

    /// An ICMP "port unreachable" about a frame, sent by `from`.
    pub(crate) fn icmp_error(from: [u8; 4], to: [u8; 4], about: &[u8]) -> Vec<u8> {
        let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
        message.extend(&about[14..]);
        ethernet(ETHERTYPE_IPV4, &ipv4_packet(from, to, PROTOCOL_ICMP, &message))
    }

    /// An IPv6 packet with this payload.
    fn ipv6_packet(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 255];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    /// A frame with ports, over IPv6.
    pub(crate) fn tcp_frame6(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16)) -> Vec<u8> {
        let mut segment = source.1.to_be_bytes().to_vec();
        segment.extend(destination.1.to_be_bytes());
        segment.extend([0; 16]);
        ethernet(ETHERTYPE_IPV6, &ipv6_packet(source.0, destination.0, PROTOCOL_TCP, &segment))
    }

    /// An ICMPv6 message of a kind.
    pub(crate) fn icmpv6_frame(kind: u8, destination: Ipv6Addr) -> Vec<u8> {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        ethernet(ETHERTYPE_IPV6, &ipv6_packet(source, destination, PROTOCOL_ICMPV6, &[kind, 0, 0, 0]))
    }

    #[test]
    fn routers_and_what_neighbours_say_in_groups_tell_of_the_link() {
        let (all, own) =
            (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
        let told = |destination| -> Vec<u8> {
            (0..=255).filter(|&kind| tells_of_link(&icmpv6_frame(kind, destination))).collect()
        };
        assert_eq!((told(all), told(own)), (vec![134, 135, 136], vec![134]));
        let frame = icmpv6_frame(134, all);
        let with = |at: usize, byte: u8| {
            let mut other = frame.clone();
            other[at] = byte;
            other
        };
        for (other, what) in [
            (frame[..54].to_vec(), "cut"),
            (with(13, 0), "another EtherType"),
            (with(14, 0x40), "another version"),
            (with(20, PROTOCOL_UDP), "another protocol"),
            (with(21, 254), "passed on by a router"),
            (Vec::new(), "nothing"),
        ] {
            assert!(!tells_of_link(&other), "{what}");
        }
    }

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const SERVER: [u8; 4] = [10, 0, 0, 2];

    #[test]
    fn parse_tcp_returns_addresses_and_ports() {
        let key = FrameKey::parse(&tcp_frame((CLIENT, 4000), (SERVER, 80), b"GET")).expect("IP");
        let expected = FrameKey {
            source: ipv4(CLIENT),
            destination: ipv4(SERVER),
            protocol: 6,
            ports: Some((4000, 80)),
            forwarder_error: false,
        };
        assert_eq!(key, expected);
        assert_eq!(key.symmetric_hash(), key.reversed().symmetric_hash());
    }

    #[test]
    fn parse_icmp_error_returns_the_reverse_of_what_it_quotes() {
        // The server answered, the client's host says that nobody listens there.
        let answer = tcp_frame((SERVER, 80), (CLIENT, 4000), b"data");
        let key = FrameKey::parse(&icmp_error(CLIENT, SERVER, &answer)).expect("IP");
        assert_eq!(Some(key), FrameKey::parse(&tcp_frame((CLIENT, 4000), (SERVER, 80), b"")));
        // The same from a router on the way.
        let key = FrameKey::parse(&icmp_error([10, 0, 0, 9], SERVER, &answer)).expect("IP");
        assert!(key.forwarder_error);
        assert_eq!(key.ports, Some((4000, 80)));
    }

    #[test]
    fn parse_later_fragment_returns_none() {
        let mut frame = tcp_frame((CLIENT, 4000), (SERVER, 80), b"data");
        frame[14 + 6] = 0x20;
        assert!(FrameKey::parse(&frame).is_some(), "the first fragment has more-fragments set");
        frame[14 + 7] = 1;
        assert_eq!(FrameKey::parse(&frame), None);
    }

    #[test]
    fn parse_ipv6_looks_through_extension_headers() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 28, 0, 64];
        packet.extend([0x20, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend([0x20, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        packet.extend([17, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([0x10, 0, 0, 53, 0, 8, 0, 0]);
        let key = FrameKey::parse(&ethernet(ETHERTYPE_IPV6, &packet)).expect("IP");
        assert_eq!(key.source, [0x2001_0db8_0000_0000, 1]);
        assert_eq!((key.protocol, key.ports), (17, Some((0x1000, 53))));
    }

    #[test]
    fn parse_arp_returns_none() {
        assert_eq!(FrameKey::parse(&ethernet(0x0806, &[0; 28])), None);
    }

    proptest! {
        #[test]
        fn parse_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ip in 0u8..3) {
            if bytes.len() > 14 && ip > 0 {
                let (ethertype, version) = [(ETHERTYPE_IPV4, 0x45), (ETHERTYPE_IPV6, 0x60)][ip as usize - 1];
                bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
                bytes[14] = version;
            }
            if let Some(key) = FrameKey::parse(&bytes) {
                prop_assert_eq!(key.reversed().reversed(), key);
            }
        }
    }
}
