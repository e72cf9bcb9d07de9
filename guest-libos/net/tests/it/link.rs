//! Below TCP: ARP (RFC 826), IPv4 and ICMP as RFC 1122 wants a host to treat them, next hops.

use std::net::Ipv4Addr;

use exos_net::{AddressConflict, Config, ConflictOutcome, MacAddress, wire};
use smoltcp::wire::{EthernetFrame, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr};
use wire::arp::{ArpPacket, Operation};
use wire::ethernet::{EtherType, EthernetHeader};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Client, Host, SERVER_IP, SERVER_MAC, config};

type StaticHost = Host<&'static [u8]>;

pub(crate) fn arp_request(sender_ip: Ipv4Addr, sender_mac: MacAddress, target_ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; 42];
    let header =
        EthernetHeader { destination: MacAddress::BROADCAST, source: sender_mac, ether_type: EtherType::Arp };
    header.emit((&mut frame[..14]).try_into().unwrap());
    let packet = ArpPacket {
        operation: Operation::Request,
        sender_mac,
        sender_ip,
        target_mac: MacAddress([0; 6]),
        target_ip,
    };
    packet.emit((&mut frame[14..]).try_into().unwrap());
    frame
}

pub(crate) fn arp_reply(sender_ip: Ipv4Addr, sender_mac: MacAddress) -> Vec<u8> {
    let mut frame = vec![0; 42];
    let header = EthernetHeader { destination: SERVER_MAC, source: sender_mac, ether_type: EtherType::Arp };
    header.emit((&mut frame[..14]).try_into().unwrap());
    let packet = ArpPacket {
        operation: Operation::Reply,
        sender_mac,
        sender_ip,
        target_mac: SERVER_MAC,
        target_ip: SERVER_IP,
    };
    packet.emit((&mut frame[14..]).try_into().unwrap());
    frame
}

fn ip_frame(ip: &Ipv4Repr, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut frame = vec![0; 34 + ip.payload_len];
    let header = EthernetHeader { destination: SERVER_MAC, source: CLIENT_MAC, ether_type: EtherType::Ipv4 };
    header.emit((&mut frame[..14]).try_into().unwrap());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &Default::default());
    fill(packet.payload_mut());
    frame
}

fn icmp_ip(payload_len: usize) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: CLIENT_IP,
        dst_addr: SERVER_IP,
        next_header: IpProtocol::Icmp,
        payload_len,
        hop_limit: 64,
    }
}

pub(crate) fn echo_request(data: &[u8]) -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data };
    ip_frame(&icmp_ip(icmp.buffer_len()), |out| {
        icmp.emit(&mut Icmpv4Packet::new_unchecked(out), &Default::default())
    })
}

#[test]
fn arp_request_for_us_returns_reply() {
    let mut host = StaticHost::with(config());
    let reply = host.input(&arp_request(CLIENT_IP, CLIENT_MAC, SERVER_IP)).reply();
    let (ethernet, payload) = EthernetHeader::parse(&reply).unwrap();
    assert_eq!((ethernet.destination, ethernet.source), (CLIENT_MAC, SERVER_MAC));
    let expected = ArpPacket {
        operation: Operation::Reply,
        sender_mac: SERVER_MAC,
        sender_ip: SERVER_IP,
        target_mac: CLIENT_MAC,
        target_ip: CLIENT_IP,
    };
    assert_eq!(ArpPacket::parse(payload), Ok(expected));
}

#[test]
fn arp_request_for_others_returns_nothing() {
    let mut host = StaticHost::with(config());
    host.input(&arp_request(CLIENT_IP, CLIENT_MAC, CLIENT_IP)).assert_nothing();
}

#[test]
fn arp_claim_of_our_address_is_contradicted_once_in_ten_seconds() {
    let mut host = StaticHost::with(config());
    let claim = arp_request(SERVER_IP, CLIENT_MAC, SERVER_IP);
    // The announcement of RFC 5227 2.3: to all, from us and about us.
    let announcement = arp_request(SERVER_IP, SERVER_MAC, SERVER_IP);
    assert_eq!(host.input(&claim).reply(), announcement);
    let conflict =
        AddressConflict { address: SERVER_IP.into(), by: CLIENT_MAC, outcome: ConflictOutcome::Kept };
    assert_eq!(host.stack.take_address_conflict(), Some(conflict));
    assert_eq!(host.stack.take_address_conflict(), None);
    host.wait_secs(9);
    host.input(&claim).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), None);
    host.wait_secs(1);
    assert_eq!(host.input(&claim).reply(), announcement);
    assert_eq!(host.stack.counters().arp_conflicts, 3);
}

#[test]
fn echo_request_returns_its_data() {
    let mut host = StaticHost::with(config());
    for len in [0, 1, 56, 1472] {
        let data = crate::harness::pattern(len);
        let reply = host.input(&echo_request(data)).reply();
        let packet = Ipv4Packet::new_checked(&reply[14..]).unwrap();
        assert!(packet.verify_checksum());
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        let repr = Icmpv4Repr::parse(&icmp, &Default::default()).unwrap();
        assert_eq!(repr, Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data });
    }
    assert_eq!(host.stack.counters().echo_replies, 4);
}

#[test]
fn echo_request_above_mtu_is_dropped() {
    let mut host = StaticHost::with(config());
    host.input(&echo_request(crate::harness::pattern(1473))).assert_nothing();
    assert_eq!(host.stack.counters().dropped_malformed, 1);
}

#[test]
fn broadcast_frames_with_ipv4_are_dropped() {
    let mut host = StaticHost::with(config());
    let mut frame = echo_request(b"");
    frame[..6].fill(0xff);
    host.input(&frame).assert_nothing();
    let mut frame = Client::default().syn();
    frame[..6].fill(0xff);
    host.input(&frame).assert_nothing();
    assert_eq!((host.stack.counters().dropped_not_for_us, host.stack.connections()), (2, 0));
}

#[test]
fn datagrams_for_others_or_from_impossible_sources_are_dropped() {
    let mut host = StaticHost::with(config());
    for source in [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], SERVER_IP.octets()] {
        host.input(&Client { ip: source.into(), ..Client::default() }.syn()).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_bad_source, 5);
    let other = Ipv4Repr { dst_addr: Ipv4Addr::new(10, 0, 0, 9), ..icmp_ip(8) };
    host.input(&ip_frame(&other, |_| {})).assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 1);
}

#[test]
fn frames_from_our_own_or_a_group_address_are_dropped() {
    let mut host = StaticHost::with(config());
    for mac in [SERVER_MAC, MacAddress::BROADCAST, MacAddress([0; 6])] {
        host.input(&Client { mac, ..Client::default() }.syn()).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_bad_source, 3);
}

#[test]
fn impossible_fragments_and_bad_checksums_are_dropped_and_counted() {
    let mut host = StaticHost::with(config());
    let mut fragment = Client::default().syn();
    let mut packet = Ipv4Packet::new_unchecked(&mut fragment[14..]);
    packet.set_frag_offset(8);
    packet.fill_checksum();
    host.input(&fragment).assert_nothing();
    let mut bad_ip = Client::default().syn();
    bad_ip[24] ^= 1;
    host.input(&bad_ip).assert_nothing();
    let mut bad_tcp = Client::default().syn();
    let last = bad_tcp.len() - 1;
    bad_tcp[last] ^= 1;
    host.input(&bad_tcp).assert_nothing();
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_fragment, counters.dropped_checksum), (1, 2));
}

#[test]
fn device_verified_checksums_are_not_verified_again() {
    use exos_net::{Input, RxChecksum, RxMeta};
    let mut host = StaticHost::with(config());
    let mut frame = Client::default().syn();
    frame[50] ^= 1;
    let meta = RxMeta { checksum: RxChecksum::TransportValid };
    assert!(matches!(host.stack.input(host.now, &frame, meta), Input::Reply(_)));
    frame[24] ^= 1;
    assert!(matches!(host.stack.input(host.now, &frame, meta), Input::Nothing));
    let meta = RxMeta { checksum: RxChecksum::AllValid };
    assert!(matches!(host.stack.input(host.now, &frame, meta), Input::Reply(_)));
}

#[test]
fn off_link_peer_without_gateway_is_not_answered() {
    let mut host = StaticHost::with(config());
    host.input(&Client { ip: [192, 168, 1, 1].into(), ..Client::default() }.syn()).assert_nothing();
    assert_eq!(host.stack.counters().dropped_no_route, 1);
}

#[test]
fn off_link_peer_is_answered_through_the_gateway() {
    let gateway = Ipv4Addr::new(10, 0, 0, 254);
    let mut host = StaticHost::with(Config { gateway: Some(gateway), ..config() });
    let client = Client { ip: [192, 168, 1, 1].into(), ..Client::default() };
    // Not seen in ARP yet: where the frame came from.
    let reply = host.input(&client.syn()).reply();
    assert_eq!(EthernetFrame::new_unchecked(&reply).dst_addr().0, CLIENT_MAC.0);
    let gateway_mac = MacAddress([2, 0, 0, 0, 0, 0xfe]);
    host.input(&arp_request(gateway, gateway_mac, SERVER_IP)).reply();
    let reply = host.input(&Client { port: 9, ..client }.syn()).reply();
    assert_eq!(EthernetFrame::new_unchecked(&reply).dst_addr().0, gateway_mac.0);
}

#[test]
fn peer_with_new_link_address_is_followed_only_inside_the_window() {
    let mut host = StaticHost::with(config());
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    let moved = Client { mac: MacAddress([2, 0, 0, 0, 0, 3]), ..client.clone() };
    // A blind forgery does not move the connection.
    host.input(&moved.data(1_000_000, 1, b"x"));
    host.stack.send(conn, b"hello").unwrap();
    host.output(conn, exos_net::AckPolicy::Merge);
    client.seen_one(&mut host);
    host.input(&moved.data(1, 6, b"x")).events();
    host.output(conn, exos_net::AckPolicy::Now);
    moved.seen_one(&mut host);
}
