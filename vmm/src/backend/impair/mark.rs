//! The mark of a queue that fills: Congestion Experienced (RFC 3168 5) in the IP header of a packet that can bear it.

/// Congestion Experienced, both bits of the field.
const CONGESTION_EXPERIENCED: u8 = 3;
const ETHERNET_BYTES: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Marks an Ethernet frame. `false`: its packet is not IP, its sender does not know what a mark is (Not-ECT), or it has one.
pub(super) fn mark(frame: &mut [u8]) -> bool {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET_BYTES) else { return false };
    match *ethernet {
        [.., a, b] if [a, b] == IPV4 => packet.first_chunk_mut().is_some_and(mark_ipv4),
        [.., a, b] if [a, b] == IPV6 => packet.first_chunk_mut().is_some_and(mark_ipv6),
        _ => false,
    }
}

fn can_be_marked(field: u8) -> bool {
    field != 0 && field != CONGESTION_EXPERIENCED
}

fn mark_ipv4(header: &mut [u8; 20]) -> bool {
    if header[0] >> 4 != 4 || !can_be_marked(header[1] & CONGESTION_EXPERIENCED) {
        return false;
    }
    let before = u16::from_be_bytes([header[0], header[1]]);
    header[1] |= CONGESTION_EXPERIENCED;
    let after = u16::from_be_bytes([header[0], header[1]]);
    let checksum = updated_checksum(u16::from_be_bytes([header[10], header[11]]), before, after);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// The field is the lower two bits of the traffic class, whose halves are in two octets (RFC 8200 3). No checksum covers it.
fn mark_ipv6(header: &mut [u8; 40]) -> bool {
    if header[0] >> 4 != 6 || !can_be_marked(header[1] >> 4 & CONGESTION_EXPERIENCED) {
        return false;
    }
    header[1] |= CONGESTION_EXPERIENCED << 4;
    true
}

/// RFC 1624 3, equation 3: the checksum after one word of what it covers has changed. One that was wrong stays wrong.
fn updated_checksum(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet,
        Ipv6Repr,
    };

    /// A packet of any content, whose traffic class is this octet.
    fn frame(is_ipv6: bool, traffic_class: u8, address: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![5; ETHERNET_BYTES + 140];
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        if is_ipv6 {
            ethernet.set_ethertype(EthernetProtocol::Ipv6);
            let [src_addr, dst_addr] = [address, [10, 0, 0, 1]].map(|[a, ..]| [0x20 | a; 16].into());
            let repr = Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Tcp,
                payload_len: 100,
                hop_limit: 64,
            };
            let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
            repr.emit(&mut packet);
            packet.set_traffic_class(traffic_class);
        } else {
            ethernet.set_ethertype(EthernetProtocol::Ipv4);
            let (src_addr, dst_addr) = (address.into(), [10, 0, 0, 1].into());
            let repr = Ipv4Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Tcp,
                payload_len: 120,
                hop_limit: 64,
            };
            let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
            repr.emit(&mut packet, &Default::default());
            packet.set_dscp(traffic_class >> 2);
            packet.set_ecn(traffic_class & 3);
            packet.fill_checksum();
        }
        frame
    }

    /// The octet, if the header's checksum is right.
    fn traffic_class(frame: &[u8]) -> Option<u8> {
        let ethernet = EthernetFrame::new_checked(frame).expect("long enough");
        if ethernet.ethertype() == EthernetProtocol::Ipv6 {
            return Some(Ipv6Packet::new_checked(ethernet.payload()).expect("a packet").traffic_class());
        }
        let packet = Ipv4Packet::new_checked(ethernet.payload()).expect("a packet");
        packet.verify_checksum().then(|| packet.dscp() << 2 | packet.ecn())
    }

    proptest! {
        #[test]
        fn packet_that_can_bear_a_mark_gets_it_and_is_the_same_besides(is_ipv6: bool, class: u8, address: [u8; 4]) {
            let before = frame(is_ipv6, class, address);
            let mut after = before.clone();
            let is_marked = mark(&mut after);
            prop_assert_eq!(is_marked, matches!(class & 3, 1 | 2));
            prop_assert_eq!(traffic_class(&after), Some(if is_marked { class | 3 } else { class }));
            let differ = |at: &usize| before[*at] != after[*at];
            let places: Vec<usize> = (0..before.len()).filter(differ).collect();
            let [field, checksum]: [&[usize]; 2] = if is_ipv6 { [&[15], &[]] } else { [&[15], &[24, 25]] };
            prop_assert!(places.iter().all(|at| field.contains(at) || checksum.contains(at)), "{:?}", places);
        }

        #[test]
        fn bytes_that_are_no_packet_are_left_alone(mut bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let before = bytes.clone();
            prop_assert!(mark(&mut bytes) || bytes == before);
        }
    }

    #[test]
    fn header_that_is_cut_or_of_another_version_is_not_marked() {
        for is_ipv6 in [false, true] {
            let whole = frame(is_ipv6, 2, [10, 0, 0, 2]);
            let header = ETHERNET_BYTES + if is_ipv6 { 40 } else { 20 };
            assert!(mark(&mut whole[..header].to_vec()));
            assert!(!mark(&mut whole[..header - 1].to_vec()));
            let mut other = whole.clone();
            other[ETHERNET_BYTES] ^= 0x20;
            assert!(!mark(&mut other));
            let mut arp = whole;
            arp[12..14].copy_from_slice(&[0x08, 0x06]);
            assert!(!mark(&mut arp));
        }
    }

    #[test]
    fn checksum_that_was_wrong_stays_wrong() {
        let mut damaged = frame(false, 2, [10, 0, 0, 2]);
        damaged[24] ^= 0x10;
        assert!(mark(&mut damaged));
        assert_eq!(traffic_class(&damaged), None);
    }
}
