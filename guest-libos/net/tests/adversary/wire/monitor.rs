//! Looks at every frame that leaves a stack: it is well formed, from us, not larger than the link takes; its text is what
//! the application queued, at its place; and on an honest wire it is within the window that the peer has announced and
//! acknowledges nothing that the peer has not sent.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::frames::{
    ACK, FIN, HOP_BY_HOP, ICMPV6, IP, RST, SYN, Segment, TCP, TRANSPORT_V6, destination, is_icmp_fragment,
    is_ipv6, is_whole, options, protocol, source, sums_are_right, transport, u16_at, u32_at,
};
use super::hosts::{is_of, mac, multicast_mac, v4};
use super::station::{PORT, stream};

/// Who sends to whom: a station, its end, and the other.
type Way = (usize, (IpAddr, u16), (IpAddr, u16));

/// What was seen of one direction of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Direction {
    isn: u32,
    /// The highest sequence number that left, and the highest that the other side lets out.
    max: u32,
    edge: Option<u32>,
    /// Shift of its window field, if its SYN had one.
    scale: Option<u8>,
    /// A SYN that was late has begun another connection between the same ports: numbers of both go to and fro.
    again: bool,
}

#[derive(Default)]
pub(crate) struct Monitor {
    directions: HashMap<Way, Direction>,
    honest_wire: bool,
}

/// A segment's way, and the way back.
fn ways(number: usize, segment: &Segment<'_>) -> (Way, Way) {
    let there = (number, segment.source, segment.destination);
    (there, (1 - number, segment.destination, segment.source))
}

/// An ICMPv6 message leaves: an error or an echo reply to somebody, or a message about neighbours, also to a group.
fn icmpv6(number: usize, frame: &[u8]) {
    let message = &frame[TRANSPORT_V6..];
    let (IpAddr::V6(from), IpAddr::V6(to)) = (source(frame), destination(frame)) else { unreachable!() };
    let is_probe = message[0] == 135 && from.is_unspecified();
    assert!(is_probe || is_of(number, from.into()), "it is from us");
    let mac_of_group = frame[0] & 1 != 0;
    assert_eq!(mac_of_group, to.is_multicast(), "a frame to as many as the packet");
    assert!(!mac_of_group || frame[..6] == multicast_mac(to), "the group's Ethernet address");
    match message[0] {
        1 | 3 | 4 => {
            assert!(!to.is_multicast() && frame.len() - IP <= 1_280, "an error of {} bytes", frame.len());
        }
        129 => assert!(!to.is_multicast(), "an echo reply to a group"),
        // RFC 4861 6.1.1, 7.1.1 and 7.1.2: what others would refuse.
        kind @ (133 | 135 | 136) => {
            assert_eq!((frame[IP + 7], message[1]), (255, 0), "from this link, of code 0");
            assert_eq!(message.len() % 8, 0, "options of eight octets: {message:02x?}");
            if kind != 133 {
                let target = Ipv6Addr::from(<[u8; 16]>::try_from(&message[8..24]).expect("sixteen bytes"));
                assert!(!target.is_multicast(), "nobody is a group");
                assert!(kind != 136 || is_of(number, target.into()), "we advertise what is ours");
            }
        }
        kind => panic!("an ICMPv6 message of type {kind}"),
    }
}

/// Which groups the station is in, which are those of its addresses, for the routers of the link (RFC 9777 5 and 5.2, RFC 2711).
fn group_report(frame: &[u8]) {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (source(frame), destination(frame)) else { unreachable!() };
    assert!(from.is_unspecified() || from.is_unicast_link_local(), "from this link, and not {from}");
    assert_eq!(frame[..6], multicast_mac(to), "the group's Ethernet address");
    assert_eq!((frame[IP + 7], usize::from(u16_at(frame, IP + 4))), (1, frame.len() - TRANSPORT_V6));
    let (router_alert, message) = frame[TRANSPORT_V6..].split_at(8);
    assert_eq!(router_alert, [ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    // It has no other extension headers: the sum is that of a packet without this one.
    let mut plain = [&frame[..TRANSPORT_V6], message].concat();
    plain[IP + 6] = ICMPV6;
    assert!(sums_are_right(&plain), "a checksum is wrong: {frame:02x?}");
    match message[0] {
        143 => {
            assert_eq!(to, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
            assert_eq!(message.len(), 8 + 20 * usize::from(u16_at(message, 6)), "no sources are named");
        }
        // Somebody has asked in the words of the first version.
        131 | 132 => assert_eq!(message.len(), 24),
        kind => panic!("a message about groups of type {kind}"),
    }
}

fn is_after(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) > 0
}

impl Monitor {
    pub(crate) fn new(honest_wire: bool) -> Self {
        Self { honest_wire, ..Self::default() }
    }

    /// A frame leaves station `number`, whose link takes datagrams of `mtu` bytes.
    pub(crate) fn look(&mut self, number: usize, mtu: u16, frame: &[u8]) {
        assert!(
            frame.len() >= IP + 28 && frame.len() - IP <= usize::from(mtu),
            "a frame of {} bytes",
            frame.len()
        );
        assert_eq!(frame[6..12], mac(number), "it is from us");
        if frame[12..14] == [8, 6] {
            assert!(frame[0] & 1 == 0 || frame[..6] == [0xff; 6], "nobody is asked in groups");
            assert_eq!(frame[IP..IP + 6], [0, 1, 8, 0, 6, 4]);
            assert_eq!(
                (&frame[IP + 8..IP + 14], u32_at(frame, IP + 14)),
                (&mac(number)[..], v4(number).to_bits())
            );
            return;
        }
        if is_icmp_fragment(frame) {
            // An answer to an echo request that came in fragments, and was as large.
            return;
        }
        if is_ipv6(frame) && protocol(frame) == HOP_BY_HOP {
            return group_report(frame);
        }
        assert!(is_whole(frame), "a datagram that contradicts itself: {frame:02x?}");
        assert!(sums_are_right(frame), "a checksum is wrong: {frame:02x?}");
        if is_ipv6(frame) && protocol(frame) == ICMPV6 {
            return icmpv6(number, frame);
        }
        assert!(frame[0] & 1 == 0, "groups are sent nothing");
        assert!(is_of(number, source(frame)), "it is from us");
        match (protocol(frame), frame[transport(frame)]) {
            (TCP, _) => self.segment(number, &Segment::parse(frame).expect("a segment within its frame")),
            (1, kind) => assert!(matches!(kind, 0 | 3 | 11 | 12), "an ICMP message of type {kind}"),
            (other, _) => panic!("nobody sends protocol {other}"),
        }
    }

    fn segment(&mut self, number: usize, segment: &Segment<'_>) {
        let (from, to) = (segment.source.1, segment.destination.1);
        let bits = segment.flags & (SYN | FIN | RST);
        assert!(bits & (bits.wrapping_sub(1)) == 0, "at most one of SYN, FIN and RST");
        assert!(
            segment.flags & ACK != 0 || bits == SYN || bits == RST,
            "only a SYN and an RST acknowledge nothing"
        );
        let (mut scale, mut blocks) = (None, Vec::new());
        for option in options(segment.options) {
            match option.expect("options are whole") {
                (2, content) => assert!(bits == SYN && content.len() == 2 && u16_at(content, 0) > 0),
                (3, &[shift]) => {
                    assert!(bits == SYN && shift <= 14);
                    scale = Some(shift);
                }
                (4, content) => assert!(bits == SYN && content.is_empty()),
                (5, content) => {
                    assert!(bits != SYN && (1..=4).contains(&(content.len() / 8)) && content.len() % 8 == 0);
                    blocks = content.chunks(8).map(|block| (u32_at(block, 0), u32_at(block, 4))).collect();
                }
                (8, content) => assert_eq!(content.len(), 8),
                (kind, content) => panic!("option {kind}: {content:02x?}"),
            }
        }
        for &(start, end) in &blocks {
            assert!(is_after(end, start), "an empty block");
        }
        if bits == RST {
            return;
        }
        let (there, back) = ways(number, segment);
        let peer = self.directions.get(&back).copied();
        let direction = self.directions.entry(there).or_default();
        if bits == SYN && direction.isn != segment.sequence {
            let again = *direction != Direction::default();
            *direction = Direction { isn: segment.sequence, max: segment.sequence, edge: None, scale, again };
        }
        let Direction { isn, .. } = *direction;
        // A forger opens connections whose stream begins nowhere; those of our application begin behind a SYN of ours.
        let opener = if to == PORT { from } else { to };
        let at = segment.sequence.wrapping_sub(isn).wrapping_sub(1) as usize;
        let expected = stream(number, opener, at, segment.payload.len());
        assert!(segment.payload == expected, "wrong bytes leave at {at}");
        if is_after(segment.end(), direction.max) {
            direction.max = segment.end();
        }
        if let (true, Some(peer)) = (self.honest_wire, peer.filter(|peer| !peer.again && !direction.again)) {
            self.promises(number, segment, &peer, &blocks);
        }
    }

    /// On a wire that makes nothing up.
    fn promises(&mut self, number: usize, segment: &Segment<'_>, peer: &Direction, blocks: &[(u32, u32)]) {
        let (there, back) = ways(number, segment);
        let is_syn = segment.flags & SYN != 0;
        let Some(direction) = self.directions.get(&there).copied() else { return };
        if segment.flags & ACK != 0 {
            assert!(!is_after(segment.acknowledgment, peer.max), "acknowledges what was not sent");
            for &(_, end) in blocks {
                assert!(!is_after(end, peer.max), "reports what was not sent");
            }
            let scaled = !is_syn && peer.scale.is_some();
            let shift = direction.scale.filter(|_| scaled).unwrap_or(0);
            let edge = segment.acknowledgment.wrapping_add(u32::from(segment.window) << shift);
            let peer = self.directions.entry(back).or_default();
            if peer.edge.is_none_or(|before| is_after(edge, before)) {
                peer.edge = Some(edge);
            }
        }
        if let Some(edge) = direction.edge.filter(|_| !segment.payload.is_empty()) {
            // A closed window is probed with one octet; an FIN follows the last that fits.
            assert!(
                !is_after(segment.end(), edge.wrapping_add(1)),
                "beyond the window: {} of {edge}",
                segment.end()
            );
        }
    }
}
