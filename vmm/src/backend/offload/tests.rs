use super::*;
use proptest::prelude::*;

/// A TCP segment over IPv4 or IPv6 with the header of a sender that leaves everything to the hardware.
fn large(is_v4: bool, payload: &[u8], segment_bytes: u16, flags: u8) -> Vec<u8> {
    let tcp_bytes = 20 + 12 + payload.len();
    let mut frame = vec![2; 12];
    let (ip_bytes, pseudo) = if is_v4 {
        frame.extend([0x08, 0x00]);
        let mut ip = vec![0x45, 0];
        ip.extend(((20 + tcp_bytes) as u16).to_be_bytes());
        ip.extend([0xFF, 0xFE, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(&ip);
        (20, sum(&ip[12..20]))
    } else {
        frame.extend([0x86, 0xDD]);
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((tcp_bytes as u16).to_be_bytes());
        ip.extend([6, 64]);
        ip.extend((0..32).map(|byte| byte * 7));
        frame.extend(&ip);
        (40, sum(&ip[8..40]))
    };
    let tcp = frame.len();
    frame.extend([0x1F, 0x90, 0, 80, 0xFF, 0xFF, 0xFF, 0x00, 1, 2, 3, 4, 0x80, flags, 0x10, 0, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 9, 9, 9, 9, 8, 8, 8, 8]);
    frame.extend(payload);
    // The field holds the sum of the pseudo header.
    let pseudo = !fold(pseudo + 6 + tcp_bytes as u64);
    frame[tcp + 16..tcp + 18].copy_from_slice(&pseudo.to_be_bytes());
    let mut header = vec![NEEDS_CSUM, if is_v4 { GSO_TCPV4 } else { GSO_TCPV6 }];
    header.extend(((14 + ip_bytes + 32) as u16).to_le_bytes());
    header.extend(segment_bytes.to_le_bytes());
    header.extend(((14 + ip_bytes) as u16).to_le_bytes());
    header.extend(16u16.to_le_bytes());
    header.extend([0, 0]);
    [header, frame].concat()
}

fn finished(frame: &[u8]) -> Result<Vec<Vec<u8>>, OffloadError> {
    let mut packets = Vec::new();
    finish(&mut frame.to_vec(), &mut Vec::new(), |packet| packets.push(packet.to_vec()))?;
    Ok(packets)
}

/// Payload, sequence number and flags of a packet whose checksums are right, by code that is not the one under test.
fn open(packet: &[u8]) -> (Vec<u8>, u32, u8) {
    use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};
    assert_eq!(packet[..HEADER_BYTES], [0; HEADER_BYTES]);
    let frame = EthernetFrame::new_checked(&packet[HEADER_BYTES..]).expect("a frame");
    let (source, destination, segment) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(frame.payload()).expect("a packet");
            assert!(ip.verify_checksum(), "IPv4 header");
            (ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec())
        }
        _ => {
            let ip = Ipv6Packet::new_checked(frame.payload()).expect("a packet");
            (ip.src_addr().into(), ip.dst_addr().into(), ip.payload().to_vec())
        }
    };
    let tcp = TcpPacket::new_checked(&segment[..]).expect("a segment");
    assert!(tcp.verify_checksum(&source, &destination), "TCP checksum");
    assert_eq!(tcp.header_len(), 32, "options stay");
    (tcp.payload().to_vec(), tcp.seq_number().0 as u32, segment[13])
}

#[test]
fn segments_have_the_payload_in_order_with_right_numbers_flags_and_checksums() {
    let payload: Vec<u8> = (0..10_000u32).map(|at| (at / 3) as u8).collect();
    for is_v4 in [true, false] {
        let packets = finished(&large(is_v4, &payload, 1448, 0x80 | 0x18 | 1)).expect("TCP");
        assert_eq!(packets.len(), 7);
        let opened: Vec<_> = packets.iter().map(|packet| open(packet)).collect();
        assert_eq!(opened.iter().flat_map(|(payload, ..)| payload.clone()).collect::<Vec<_>>(), payload);
        for (number, (part, sequence, flags)) in opened.iter().enumerate() {
            let is_last = number == 6;
            assert_eq!(part.len(), if is_last { 10_000 - 6 * 1448 } else { 1448 });
            assert_eq!(*sequence, 0xFFFF_FF00u32.wrapping_add(1448 * number as u32), "over the wrap");
            let expected = match number {
                0 => 0x90,
                6 => 0x19,
                _ => 0x10,
            };
            assert_eq!(*flags, expected, "CWR in the first, PSH and FIN in the last");
        }
        if is_v4 {
            let ids: Vec<_> = packets.iter().map(|packet| be(packet, HEADER_BYTES + 18).unwrap()).collect();
            assert_eq!(ids, [0xFFFE, 0xFFFF, 0, 1, 2, 3, 4]);
        }
    }
}

#[test]
fn checksum_alone_is_filled_in_and_a_plain_frame_stays_as_it_is() {
    let mut frame = large(true, b"odd", 1448, 0x18);
    frame[1] = 0;
    let packets = finished(&frame).expect("a checksum");
    assert_eq!(packets.len(), 1);
    // No segmentation, so the IPv4 header is the sender's, whose sum is not filled in by anybody.
    let mut packet = packets[0].clone();
    let ip = HEADER_BYTES + 14;
    let checksum = fold(sum(&packet[ip..ip + 20]));
    packet[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(open(&packet).0, b"odd");
    let plain = [vec![0; HEADER_BYTES], vec![7; 60]].concat();
    assert_eq!(finished(&plain), Ok(vec![plain]));
}

#[test]
fn nonsense_is_an_error() {
    let good = large(true, &[0; 4000], 1448, 0x18);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        finished(&frame)
    };
    let ip = HEADER_BYTES + 14;
    for (what, result) in [
        ("no checksum wanted", changed(0, 0)),
        ("UDP fragmentation", changed(1, 3)),
        ("IPv6 it is not", changed(1, GSO_TCPV6)),
        ("UDP", changed(ip + 9, 17)),
        ("longer than the frame", changed(ip + 2, 0xFF)),
        ("IP header of another length", changed(ip, 0x46)),
        ("TCP header too short", changed(ip + 20 + 12, 0x40)),
    ] {
        assert_eq!(result, Err(OffloadError::NotTcp), "{what}");
    }
    let mut tiny = good.clone();
    tiny[4..6].copy_from_slice(&7u16.to_le_bytes());
    assert_eq!(finished(&tiny), Err(OffloadError::NotTcp), "seven bytes a segment");
    let mut outside = good.clone();
    outside[1] = 0;
    outside[6..8].copy_from_slice(&60_000u16.to_le_bytes());
    assert_eq!(finished(&outside), Err(OffloadError::Checksum));
    assert_eq!(finished(&[1; 5]), Err(OffloadError::Checksum));
}

#[test]
fn offloads_meet_what_they_are_for() {
    let none = Offloads::default();
    let all = Offloads { checksum: true, tso4: true, tso6: true };
    let checksum = Offloads { checksum: true, ..none };
    for (header, none_does, checksum_does) in
        [([0, 0], true, true), ([1, 0], false, true), ([1, 1], false, false), ([1, 4], false, false)]
    {
        let wanted = Wanted::of(&header);
        assert_eq!((wanted.is_met_by(none), wanted.is_met_by(checksum)), (none_does, checksum_does));
        assert!(wanted.is_met_by(all));
    }
    assert!(!Wanted::of(&[1, 3]).is_met_by(all), "nobody takes UDP fragmentation");
    assert!(!Wanted::of(&[1, 1]).is_met_by(Offloads { tso4: false, ..all }));
    assert!(!Wanted::of(&[1, 4]).is_met_by(Offloads { tso6: false, ..all }));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_packets_are_never_longer_than_their_frame(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2000),
        looks_right in any::<bool>(),
    ) {
        if looks_right && bytes.len() > 80 {
            let good = large(bytes[40] & 1 == 0, &[0; 100], 40, 0x18);
            let kept = 12 + usize::from(bytes[41] % 60);
            bytes[..kept].copy_from_slice(&good[..kept]);
        }
        let len = bytes.len();
        let _ = finish(&mut bytes, &mut Vec::new(), |packet| assert!(packet.len() <= len));
    }
}
