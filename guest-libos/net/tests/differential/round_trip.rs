//! What our writers write, etherparse reads as it was meant; what etherparse writes, we do.

use std::net::Ipv4Addr;

use etherparse::{
    ArpOperation, ArpPacketSlice, Ethernet2Slice, Icmpv4Slice, Icmpv4Type, Ipv4HeaderSlice, TcpHeader,
    TcpOptionElement, TcpOptionsIterator, UdpHeader, UdpSlice,
};
use exos_net::Seq;
use exos_net::wire::arp::{ArpPacket, Operation, PACKET_BYTES};
use exos_net::wire::ethernet::{EtherType, EthernetHeader, MacAddress};
use exos_net::wire::ipv4::{FragmentPlace, Ipv4Header, Protocol};
use exos_net::wire::tcp::{Control, Segment};
use exos_net::wire::tcp_options::{SackBlock, SackBlocks, SynOptions, Timestamps};
use exos_net::wire::udp::UdpDatagram;
use exos_net::wire::{icmp, udp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::layers::{ENDS, ip};

fn mac() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 6]>().prop_map(|mac| MacAddress([mac[0] & !1, mac[1], mac[2], mac[3], mac[4], mac[5] | 1]))
}

proptest! {
    #[test]
    fn ethernet_of_ours_is_theirs(destination in mac(), source in mac(), kind in 0usize..3) {
        let ether_type = [EtherType::Ipv4, EtherType::Arp, EtherType::Ipv6][kind];
        let header = EthernetHeader { destination, source, ether_type };
        let mut bytes = [0; 14];
        header.emit(&mut bytes);
        let theirs = Ethernet2Slice::from_slice_without_fcs(&bytes).unwrap();
        prop_assert_eq!((theirs.destination(), theirs.source()), (destination.0, source.0));
        prop_assert_eq!(theirs.ether_type().0, [0x0800, 0x0806, 0x86dd][kind]);
        prop_assert_eq!(EthernetHeader::parse(&bytes), Ok((header, &[][..])));
    }

    #[test]
    fn arp_of_ours_is_theirs_and_back(sender_mac in mac(), target_mac in mac(), ips in any::<[u32; 2]>(), reply in any::<bool>()) {
        let packet = ArpPacket {
            operation: if reply { Operation::Reply } else { Operation::Request },
            sender_mac,
            sender_ip: Ipv4Addr::from_bits(ips[0]),
            target_mac,
            target_ip: Ipv4Addr::from_bits(ips[1]),
        };
        let mut bytes = [0; PACKET_BYTES];
        packet.emit(&mut bytes);
        let theirs = ArpPacketSlice::from_slice(&bytes).unwrap().to_packet().try_eth_ipv4().unwrap();
        prop_assert_eq!(theirs.operation, if reply { ArpOperation::REPLY } else { ArpOperation::REQUEST });
        prop_assert_eq!((theirs.sender_mac, theirs.sender_ipv4_addr()), (sender_mac.0, packet.sender_ip));
        prop_assert_eq!((theirs.target_mac, theirs.target_ipv4_addr()), (target_mac.0, packet.target_ip));
        prop_assert_eq!(theirs.to_bytes(), bytes);
        prop_assert_eq!(ArpPacket::parse(&bytes), Ok(packet));
    }

    #[test]
    fn ipv4_of_ours_is_theirs_and_back(ends in any::<[u32; 2]>(), which in 0usize..3, len in 0usize..1_400, place in any::<(u16, u16, bool)>()) {
        let protocol = [Protocol::Icmp, Protocol::Tcp, Protocol::Udp][which];
        let header = Ipv4Header { source: Ipv4Addr::from_bits(ends[0]), destination: Ipv4Addr::from_bits(ends[1]), protocol };
        let mut bytes = [0; 20];
        header.emit(len, &mut bytes);
        let (identification, offset, more) = (place.0, usize::from(place.1 & 0x1fff) * 8, place.2);
        let mut piece = [0; 20];
        header.emit_fragment(len, FragmentPlace { identification, offset, more }, &mut piece);
        for (bytes, is_piece) in [(bytes, false), (piece, true)] {
            let theirs = Ipv4HeaderSlice::from_slice(&bytes).unwrap();
            prop_assert_eq!((theirs.source_addr(), theirs.destination_addr()), (header.source, header.destination));
            prop_assert_eq!((theirs.protocol().0, theirs.payload_len().unwrap()), (protocol.to_wire(), len as u16));
            prop_assert_eq!(theirs.dont_fragment(), !is_piece);
            let expected = if is_piece { (identification, offset, more) } else { (0, 0, false) };
            let read = (theirs.identification(), usize::from(theirs.fragments_offset().value()) * 8, theirs.more_fragments());
            prop_assert_eq!(read, expected);
            prop_assert_eq!(theirs.to_header().calc_header_checksum(), theirs.header_checksum());
            prop_assert_eq!(&theirs.to_header().to_bytes()[..], &bytes[..]);
        }
    }

    #[test]
    fn options_of_ours_are_theirs_and_back(
        mss in proptest::option::of(any::<u16>()), window_scale in proptest::option::of(0u8..15), sack_permitted in any::<bool>(),
        timestamps in proptest::option::of(any::<(u32, u32)>()), blocks in vec(any::<(u32, u32)>(), 0..5),
    ) {
        let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
        let options = SynOptions { mss, window_scale, sack_permitted, timestamps };
        let mut bytes = [0; SynOptions::MAX_BYTES];
        let len = options.emit(&mut bytes);
        let read = |bytes| TcpOptionsIterator::from_slice(bytes).map(Result::unwrap).filter(|option| *option != TcpOptionElement::Noop);
        let mut expected = Vec::new();
        expected.extend(mss.map(TcpOptionElement::MaximumSegmentSize));
        expected.extend(sack_permitted.then_some(TcpOptionElement::SelectiveAcknowledgementPermitted));
        expected.extend(timestamps.map(|it| TcpOptionElement::Timestamp(it.value, it.echo)));
        expected.extend(window_scale.map(TcpOptionElement::WindowScale));
        prop_assert_eq!(read(&bytes[..len]).collect::<Vec<_>>(), expected);
        prop_assert_eq!(SynOptions::parse(&bytes[..len]), options);

        let mut report = SackBlocks::default();
        for &(start, end) in &blocks {
            report.push(SackBlock { start: Seq::new(start), end: Seq::new(end) });
        }
        let mut bytes = [0; SackBlocks::MAX_BYTES];
        let len = report.emit(&mut bytes);
        prop_assert_eq!(SackBlocks::parse(&bytes[..len]), report);
        match read(&bytes[..len]).next() {
            None => prop_assert!(blocks.is_empty()),
            Some(TcpOptionElement::SelectiveAcknowledgement(first, others)) => {
                let theirs: Vec<_> = [Some(first)].into_iter().chain(others).flatten().collect();
                prop_assert_eq!(theirs, blocks);
            }
            Some(other) => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn tcp_of_theirs_is_ours(numbers in any::<(u16, u16, u32, u32, u16, u16)>(), bits in 0u8..64, payload in vec(any::<u8>(), 0..100)) {
        let (from, to, sequence, acknowledgment, window, pointer) = numbers;
        let mut header = TcpHeader::new(from, to, sequence, window);
        (header.fin, header.syn, header.rst) = (bits & 3 == 1, bits & 3 == 2, bits & 3 == 3);
        (header.psh, header.ack, header.urg) = (bits & 4 != 0, bits & 8 != 0, bits & 16 != 0);
        (header.acknowledgment_number, header.urgent_pointer) = (acknowledgment, pointer);
        header.set_options(&[TcpOptionElement::Timestamp(sequence, acknowledgment)]).unwrap();
        header.checksum = header.calc_checksum_ipv4_raw(ENDS.0.octets(), ENDS.1.octets(), &payload).unwrap();
        let bytes = [&header.to_bytes()[..], &payload].concat();
        let ours = Segment::parse(&bytes, Some(&ip(Protocol::Tcp))).unwrap();
        prop_assert_eq!((ours.source_port, ours.destination_port), (from, to));
        prop_assert_eq!((ours.sequence, ours.acknowledgment), (Seq::new(sequence), header.ack.then(|| Seq::new(acknowledgment))));
        prop_assert_eq!(ours.control, [Control::None, Control::Fin, Control::Syn, Control::Rst][usize::from(bits & 3)]);
        prop_assert_eq!((ours.window, ours.urgent), (window, header.urg.then_some(pointer)));
        prop_assert_eq!(Timestamps::parse(ours.options), Some(Timestamps { value: sequence, echo: acknowledgment }));
        prop_assert_eq!(ours.payload, &payload[..]);
    }

    #[test]
    fn udp_of_either_is_the_others(from in any::<u16>(), to in 1u16.., payload in vec(any::<u8>(), 0..100)) {
        let theirs = UdpHeader::with_ipv4_checksum(from, to, &etherparse::Ipv4Header::new(payload.len() as u16 + 8, 64, etherparse::IpNumber::UDP, ENDS.0.octets(), ENDS.1.octets()).unwrap(), &payload).unwrap();
        let mut bytes = [0; udp::HEADER_BYTES];
        udp::emit(from, to, payload.len(), theirs.checksum, &mut bytes);
        prop_assert_eq!(bytes, theirs.to_bytes());
        let bytes = [&bytes[..], &payload].concat();
        let expected = UdpDatagram { source_port: from, destination_port: to, payload: &payload };
        prop_assert_eq!(UdpDatagram::parse(&bytes, Some(&ip(Protocol::Udp))), Ok(expected));
        prop_assert_eq!(UdpSlice::from_slice(&bytes).unwrap().payload(), &payload[..]);
    }

    #[test]
    fn icmp_of_ours_is_theirs(numbers in any::<u32>(), data in vec(any::<u8>(), 0..100), code in 0usize..3) {
        let mut bytes = [0; icmp::HEADER_BYTES];
        icmp::emit_echo_reply(numbers, &data, &mut bytes);
        let message = [&bytes[..], &data].concat();
        let theirs = Icmpv4Slice::from_slice(&message).unwrap();
        let is_reply = matches!(theirs.icmp_type(), Icmpv4Type::EchoReply(echo) if (u32::from(echo.id) << 16 | u32::from(echo.seq)) == numbers);
        prop_assert!(is_reply && theirs.payload() == data);
        prop_assert_eq!(theirs.icmp_type().calc_checksum(&data), theirs.checksum());
        let kind = [icmp::PROTOCOL_UNREACHABLE, icmp::PORT_UNREACHABLE, icmp::REASSEMBLY_TIME_EXCEEDED][code];
        icmp::emit_error(kind, &data, &mut bytes);
        let message = [&bytes[..], &data].concat();
        let theirs = Icmpv4Slice::from_slice(&message).unwrap();
        prop_assert_eq!([theirs.type_u8(), theirs.code_u8()], kind);
        prop_assert_eq!(theirs.icmp_type().calc_checksum(&data), theirs.checksum());
        prop_assert_eq!(theirs.payload(), &data[..]);
    }
}
