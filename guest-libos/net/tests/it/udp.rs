//! UDP (RFC 768, RFC 1122 4.1): what arrives at bound ports, what becomes of the rest, what is sent, and what ICMP says of it.

use std::net::{Ipv4Addr, SocketAddr};

use exos_net::wire::ethernet::{EtherType, EthernetHeader};
use exos_net::wire::icmp::Problem;
use exos_net::{BindError, Config, MacAddress, Rate, SendDatagramError, TxChecksum};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Host, Outcome, SERVER_IP, SERVER_MAC, config, pattern};

type StaticHost = Host<&'static [u8]>;

const UDP_PORT: u16 = 5_000;
const LIMITED_BROADCAST: Ipv4Addr = Ipv4Addr::BROADCAST;
const DIRECTED_BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 255);

/// A frame to `to` at `mac` with a datagram from port 700 of the client.
pub(crate) fn datagram(mac: MacAddress, to: Ipv4Addr, port: u16, data: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: 700, dst_port: port };
    let ip = Ipv4Repr {
        src_addr: CLIENT_IP,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: 8 + data.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 42 + data.len()];
    EthernetHeader { destination: mac, source: CLIENT_MAC, ether_type: EtherType::Ipv4 }
        .emit((&mut frame[..14]).try_into().unwrap());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &Default::default());
    repr.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &CLIENT_IP.into(),
        &to.into(),
        data.len(),
        |out| out.copy_from_slice(data),
        &Default::default(),
    );
    frame
}

fn to_us(port: u16, data: &[u8]) -> Vec<u8> {
    datagram(SERVER_MAC, SERVER_IP, port, data)
}

fn bound(config: Config) -> StaticHost {
    let mut host = StaticHost::with(config);
    host.stack.bind_udp(UDP_PORT).unwrap();
    host
}

/// An ICMP error about a datagram that `from` sent to port 53 of 10.0.0.99.
fn error_about(from: SocketAddr, reason: Icmpv4DstUnreachable) -> Vec<u8> {
    let SocketAddr::V4(from) = from else { panic!("an IPv4 address") };
    let mut quoted = [0; 8];
    quoted[..2].copy_from_slice(&from.port().to_be_bytes());
    quoted[3] = 53;
    let header = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: Ipv4Addr::new(10, 0, 0, 99),
        next_header: IpProtocol::Udp,
        payload_len: 8,
        hop_limit: 64,
    };
    let icmp = Icmpv4Repr::DstUnreachable { reason, header, data: &quoted };
    let ip = Ipv4Repr {
        src_addr: CLIENT_IP,
        dst_addr: SERVER_IP,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 34 + icmp.buffer_len()];
    EthernetHeader { destination: SERVER_MAC, source: CLIENT_MAC, ether_type: EtherType::Ipv4 }
        .emit((&mut frame[..14]).try_into().unwrap());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &Default::default());
    icmp.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &Default::default());
    frame
}

#[test]
fn datagram_for_a_bound_port_is_lent() {
    let mut host = bound(config());
    for len in [0, 1, 1_472] {
        let datagram = host.input(&to_us(UDP_PORT, pattern(len))).datagram();
        assert_eq!(datagram.from, (CLIENT_IP, 700).into());
        assert_eq!(datagram.to, (SERVER_IP, UDP_PORT).into());
        assert_eq!(&*datagram.payload, pattern(len));
    }
    assert_eq!(host.stack.counters().datagrams_in, 3);
    let frame = to_us(UDP_PORT, b"lent");
    let meta = exos_net::RxMeta::default();
    let exos_net::Input::Datagram(datagram) = host.stack.input(host.now, &frame, meta) else {
        panic!("no datagram")
    };
    assert!(matches!(datagram.payload, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn datagram_without_checksum_is_taken_and_one_with_a_wrong_one_is_not() {
    let mut host = bound(config());
    let mut frame = to_us(UDP_PORT, b"data");
    frame[45] ^= 1;
    host.input(&frame).assert_nothing();
    assert_eq!(host.stack.counters().dropped_checksum, 1);
    frame[40..42].fill(0);
    host.input(&frame).datagram();
}

#[test]
fn datagram_for_nobody_is_answered_with_port_unreachable_that_quotes_it() {
    let mut host = bound(config());
    let frame = to_us(9, pattern(1_000));
    let reply = host.input(&frame).reply();
    assert_eq!(reply[..6], CLIENT_MAC.0);
    let packet = Ipv4Packet::new_checked(&reply[14..]).unwrap();
    assert_eq!((packet.dst_addr(), packet.src_addr()), (CLIENT_IP, SERVER_IP));
    assert!(packet.verify_checksum() && packet.total_len() <= 576);
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert!(icmp.verify_checksum());
    assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code()), (3, 3));
    assert_eq!(icmp.data(), &frame[14..][..548]);
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_no_port, counters.icmp_errors_out), (1, 1));
}

#[test]
fn port_unreachable_is_limited_and_the_rest_only_counted() {
    let mut host = bound(Config { icmp_errors: Rate { per_second: 10, burst: 5 }, ..config() });
    let replies = (0..100).filter(|_| matches!(host.input(&to_us(9, b"scan")), Outcome::Reply(_))).count();
    assert_eq!(replies, 5);
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_no_port, counters.icmp_errors_limited), (100, 95));
    host.wait_ms(100);
    host.input(&to_us(9, b"scan")).reply();
    // Whoever is served does not notice.
    host.input(&to_us(UDP_PORT, b"data")).datagram();
}

#[test]
fn broadcast_reaches_a_bound_port_and_is_never_answered() {
    let mut host = bound(config());
    for to in [LIMITED_BROADCAST, DIRECTED_BROADCAST] {
        let datagram_in = host.input(&datagram(MacAddress::BROADCAST, to, UDP_PORT, b"x")).datagram();
        assert_eq!(datagram_in.to, (to, UDP_PORT).into());
        host.input(&datagram(MacAddress::BROADCAST, to, 9, b"x")).assert_nothing();
    }
    assert_eq!((host.stack.counters().dropped_no_port, host.stack.counters().icmp_errors_out), (2, 0));
    // Broadcast on the link, but to us alone; and the other way round (RFC 1122 3.3.6).
    host.input(&datagram(MacAddress::BROADCAST, SERVER_IP, UDP_PORT, b"x")).assert_nothing();
    host.input(&datagram(SERVER_MAC, LIMITED_BROADCAST, UDP_PORT, b"x")).assert_nothing();
    host.input(&datagram(MacAddress::BROADCAST, Ipv4Addr::new(10, 0, 1, 255), UDP_PORT, b"x"))
        .assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 3);
}

#[test]
fn ports_are_bound_once_and_unbound() {
    let mut host = bound(Config { max_udp_ports: 2, ..config() });
    assert_eq!(host.stack.bind_udp(UDP_PORT), Err(BindError::InUse));
    assert_eq!(host.stack.bind_udp(0), Err(BindError::PortZero));
    host.stack.bind_udp(1).unwrap();
    assert_eq!(host.stack.bind_udp(2), Err(BindError::TooMany));
    assert!(host.stack.unbind_udp(UDP_PORT) && !host.stack.unbind_udp(UDP_PORT));
    host.input(&to_us(UDP_PORT, b"data")).reply();
}

#[test]
fn error_about_a_datagram_reaches_its_port() {
    let mut host = bound(config());
    for (reason, expected) in [
        (Icmpv4DstUnreachable::PortUnreachable, Problem::PortUnreachable),
        (Icmpv4DstUnreachable::HostUnreachable, Problem::HostUnreachable),
        (Icmpv4DstUnreachable::NetProhibited, Problem::NetworkUnreachable),
    ] {
        let frame = error_about((SERVER_IP, UDP_PORT).into(), reason);
        let Outcome::DatagramError(error) = host.input(&frame) else { panic!("no error") };
        assert_eq!((error.port, error.problem), (UDP_PORT, expected));
        assert_eq!(error.to, (Ipv4Addr::new(10, 0, 0, 99), 53).into());
    }
    let reason = Icmpv4DstUnreachable::PortUnreachable;
    host.input(&error_about((SERVER_IP, 9).into(), reason)).assert_nothing();
    host.input(&error_about((CLIENT_IP, UDP_PORT).into(), reason)).assert_nothing();
    assert_eq!(host.stack.counters().datagram_errors_in, 3);
}

#[test]
fn unknown_protocol_is_answered_with_protocol_unreachable_and_errors_are_not() {
    let mut host = bound(config());
    let mut frame = to_us(UDP_PORT, b"data");
    frame[23] = 132;
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    let reply = host.input(&frame).reply();
    let packet = Ipv4Packet::new_checked(&reply[14..]).unwrap();
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code()), (3, 2));
    assert_eq!(host.stack.counters().dropped_unsupported, 1);
    // Not to everybody, and not to others.
    frame[33] = 77;
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    host.input(&frame).assert_nothing();
    frame[..6].fill(0xff);
    frame[30..34].fill(0xff);
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    host.input(&frame).assert_nothing();
}

const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);

/// Source and destination of a datagram of ours, with its payload, all checksums verified.
fn seen(frame: &[u8]) -> (Ipv4Addr, u16, u16, Vec<u8>) {
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(packet.verify_checksum() && packet.src_addr() == SERVER_IP);
    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
    assert!(udp.verify_checksum(&SERVER_IP.into(), &packet.dst_addr().into()) && udp.checksum() != 0);
    (packet.dst_addr(), udp.src_port(), udp.dst_port(), udp.payload().to_vec())
}

fn send(host: &mut StaticHost, to: Ipv4Addr, data: &'static [u8]) -> Result<(), SendDatagramError> {
    host.stack.send_udp(host.now, UDP_PORT, (to, 53).into(), data, &mut host.nic)
}

#[test]
fn datagram_is_sent_with_its_checksum_by_whoever_computes_it() {
    for tx_checksum in [TxChecksum::Software, TxChecksum::Offload] {
        let mut host = bound(Config { tx_checksum, ..config() });
        host.stack.set_neighbour(FAR, CLIENT_MAC);
        for len in [0, 1, 700, 1_472] {
            send(&mut host, FAR, pattern(len)).unwrap();
            let frame = host.nic.frames.pop_front().unwrap();
            assert_eq!(frame[..6], CLIENT_MAC.0);
            assert_eq!(seen(&frame), (FAR, UDP_PORT, 53, pattern(len).to_vec()));
            let to = (FAR, 53).into();
            host.stack.send_udp_bytes(host.now, UDP_PORT, to, pattern(len), &mut host.nic).unwrap();
            assert_eq!(host.nic.frames.pop_front().unwrap(), frame);
        }
        assert_eq!(host.stack.counters().datagrams_out, 8);
    }
}

#[test]
fn checksum_that_would_be_zero_is_sent_as_all_ones() {
    let mut host = bound(config());
    host.stack.set_neighbour(FAR, CLIENT_MAC);
    // The two bytes that make the sum of everything 0xffff.
    send(&mut host, FAR, &[0, 0]).unwrap();
    let frame = host.nic.frames.pop_front().unwrap();
    let data = Vec::leak(frame[40..42].to_vec());
    send(&mut host, FAR, data).unwrap();
    let frame = host.nic.frames.pop_front().unwrap();
    assert_eq!(frame[40..42], [0xff, 0xff]);
    seen(&frame);
}

#[test]
fn neighbour_that_is_not_known_is_asked_for_and_then_sent_to() {
    let mut host = bound(config());
    assert_eq!(send(&mut host, CLIENT_IP, b"x"), Err(SendDatagramError::Unresolved));
    let request = host.nic.frames.pop_front().unwrap();
    assert_eq!(
        (&request[..6], &request[12..14], &request[38..42]),
        (&[0xff; 6][..], &[8, 6][..], &[10, 0, 0, 2][..])
    );
    // Not asked again at once.
    assert_eq!(send(&mut host, CLIENT_IP, b"x"), Err(SendDatagramError::Unresolved));
    assert!(host.nic.frames.is_empty());
    let mut reply = request.clone();
    reply[..6].copy_from_slice(&SERVER_MAC.0);
    reply[6..12].copy_from_slice(&CLIENT_MAC.0);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&CLIENT_MAC.0);
    reply[28..32].copy_from_slice(&CLIENT_IP.octets());
    reply[32..38].copy_from_slice(&SERVER_MAC.0);
    reply[38..42].copy_from_slice(&SERVER_IP.octets());
    host.input(&reply);
    send(&mut host, CLIENT_IP, b"x").unwrap();
    assert_eq!(seen(&host.nic.frames.pop_front().unwrap()).0, CLIENT_IP);
}

#[test]
fn off_link_datagrams_go_to_the_gateway_and_broadcasts_to_everybody() {
    let gateway = Ipv4Addr::new(10, 0, 0, 254);
    let mut host = bound(Config { gateway: Some(gateway), ..config() });
    host.stack.set_gateway_mac(CLIENT_MAC);
    let far = Ipv4Addr::new(192, 0, 2, 1);
    send(&mut host, far, b"x").unwrap();
    let frame = host.nic.frames.pop_front().unwrap();
    assert_eq!((&frame[..6], seen(&frame).0), (&CLIENT_MAC.0[..], far));
    for to in [LIMITED_BROADCAST, DIRECTED_BROADCAST] {
        send(&mut host, to, b"x").unwrap();
        assert_eq!(host.nic.frames.pop_front().unwrap()[..6], [0xff; 6]);
    }
}

#[test]
fn datagram_that_cannot_be_sent_returns_why() {
    let mut host = bound(config());
    host.stack.set_neighbour(FAR, CLIENT_MAC);
    let large = pattern(1_473);
    assert_eq!(send(&mut host, FAR, large), Err(SendDatagramError::TooLarge { max_bytes: 1_472 }));
    assert_eq!(send(&mut host, Ipv4Addr::new(192, 0, 2, 1), b"x"), Err(SendDatagramError::NoRoute));
    assert_eq!(send(&mut host, SERVER_IP, b"x"), Err(SendDatagramError::NoRoute));
    assert_eq!(send(&mut host, Ipv4Addr::new(240, 0, 0, 1), b"x"), Err(SendDatagramError::NoRoute));
    let mut from = |port: u16, to: SocketAddr| host.stack.send_udp(host.now, port, to, b"x", &mut host.nic);
    assert_eq!(from(9, (FAR, 53).into()), Err(SendDatagramError::NotBound));
    assert_eq!(from(UDP_PORT, (FAR, 0).into()), Err(SendDatagramError::PortZero));
    host.nic.room = Some(0);
    assert_eq!(send(&mut host, FAR, b"x"), Err(SendDatagramError::Full));
    assert_eq!((host.stack.counters().datagrams_out, host.nic.frames.len()), (0, 0));
}

#[test]
fn datagram_above_the_mtu_goes_in_fragments_if_asked_for() {
    let mut host = bound(Config { fragment_udp: true, tx_checksum: TxChecksum::Offload, ..config() });
    host.stack.set_neighbour(FAR, CLIENT_MAC);
    let data = pattern(4_000);
    let to = (FAR, 53).into();
    for copied in [false, true] {
        if copied {
            host.stack.send_udp_bytes(host.now, UDP_PORT, to, data, &mut host.nic).unwrap();
        } else {
            send(&mut host, FAR, data).unwrap();
        }
        assert_eq!(host.nic.frames.len(), 3);
        let mut payload = vec![0; 4_008];
        let mut identifications = Vec::new();
        for (index, frame) in host.nic.frames.drain(..).enumerate() {
            let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(packet.verify_checksum() && !packet.dont_frag() && packet.total_len() <= 1_500);
            assert_eq!(packet.more_frags(), index < 2);
            identifications.push(packet.ident());
            let at = usize::from(packet.frag_offset());
            payload[at..at + packet.payload().len()].copy_from_slice(packet.payload());
        }
        identifications.dedup();
        assert_eq!(identifications.len(), 1);
        let udp = UdpPacket::new_checked(&payload[..]).unwrap();
        assert!(udp.verify_checksum(&SERVER_IP.into(), &FAR.into()));
        assert_eq!(udp.payload(), data);
    }
    assert_eq!(send(&mut host, FAR, pattern(65_508)), Err(SendDatagramError::TooLarge { max_bytes: 65_507 }));
}

#[test]
fn path_mtu_bounds_datagrams_for_ten_minutes() {
    let mut host = bound(config());
    host.stack.set_neighbour(FAR, CLIENT_MAC);
    let mut needed = error_about((SERVER_IP, UDP_PORT).into(), Icmpv4DstUnreachable::FragRequired);
    needed[40..42].copy_from_slice(&1_000u16.to_be_bytes());
    let packet = &mut needed[34..];
    Icmpv4Packet::new_unchecked(packet).fill_checksum();
    let Outcome::DatagramError(error) = host.input(&needed) else { panic!("no error") };
    assert_eq!(error.problem, Problem::FragmentationNeeded);
    assert_eq!(send(&mut host, FAR, pattern(973)), Err(SendDatagramError::TooLarge { max_bytes: 972 }));
    send(&mut host, FAR, pattern(972)).unwrap();
    host.stack.set_neighbour(CLIENT_IP, CLIENT_MAC);
    send(&mut host, CLIENT_IP, pattern(1_472)).unwrap();
    host.wait_secs(601);
    send(&mut host, FAR, pattern(1_472)).unwrap();
}

#[test]
fn path_mtu_for_a_port_that_is_not_bound_is_not_believed() {
    let mut host = bound(config());
    host.stack.set_neighbour(FAR, CLIENT_MAC);
    for from in [(SERVER_IP, 9), (CLIENT_IP, UDP_PORT)] {
        let mut needed = error_about(from.into(), Icmpv4DstUnreachable::FragRequired);
        needed[40..42].copy_from_slice(&1_000u16.to_be_bytes());
        Icmpv4Packet::new_unchecked(&mut needed[34..]).fill_checksum();
        host.input(&needed).assert_nothing();
    }
    send(&mut host, FAR, pattern(1_472)).unwrap();
}
