//! The link as a guardian sees it, with a clock of the test's own.

mod address;
mod asking;
mod believing;
mod places;

use super::*;
use exos_net::wire::arp::{ArpPacket, Operation, PACKET_BYTES};
use exos_net::wire::ipv6::{ALL_NODES, Ipv6Header, NextHeader, multicast_mac, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, MESSAGE_BYTES_MAX, Message};
use std::vec::Vec;

const OWN: Interface = Interface {
    mac: MacAddress([2, 0, 0, 0, 0, 1]),
    ip: Ipv4Addr::new(10, 0, 0, 2),
    prefix_len: 24,
    gateway: None,
};
const NONCE: Nonce = [1, 2, 3, 4, 5, 6];
const CLIENT: u32 = 1;
const OTHER: u32 = 2;

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, last])
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn v6(last: u8) -> IpAddr {
    IpAddr::V6(ipv6::link_local(mac(last)))
}

fn link_local(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => panic!("not IPv6"),
    }
}

fn new(interface: Interface) -> Neighbours {
    let random = Random { nonce: NONCE, delay: Duration::from_millis(300) };
    Neighbours::new(interface, 3, random, ms(0))
}

/// Two seconds old, so that its address is its own.
fn settled() -> Neighbours {
    let mut neighbours = new(OWN);
    for at in [300, 1300] {
        neighbours.tick(ms(at), |_| {});
    }
    assert_eq!(neighbours.address().1, AddressState::Preferred);
    neighbours
}

fn sent(neighbours: &mut Neighbours, now: Instant) -> Vec<Frame> {
    let mut frames = Vec::new();
    neighbours.tick(now, |frame| frames.push(*frame));
    frames
}

fn arp(operation: Operation, from: (IpAddr, MacAddress), target: IpAddr) -> Vec<u8> {
    let ip = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => panic!("not IPv4"),
    };
    let mut frame = [0; HEADER_BYTES + PACKET_BYTES];
    let (header, rest) = frame.split_first_chunk_mut::<HEADER_BYTES>().expect("long enough");
    EthernetHeader { destination: OWN.mac, source: from.1, ether_type: EtherType::Arp }.emit(header);
    let packet = ArpPacket {
        operation,
        sender_mac: from.1,
        sender_ip: ip(from.0),
        target_mac: OWN.mac,
        target_ip: ip(target),
    };
    packet.emit(rest.first_chunk_mut().expect("long enough"));
    frame.to_vec()
}

fn asks_us(last: u8) -> Vec<u8> {
    arp(Operation::Request, (v4(last), mac(last)), IpAddr::V4(OWN.ip))
}

/// A frame with a message, whose hop limit may be wrong.
fn ndisc(
    from: (Ipv6Addr, MacAddress),
    to: (Ipv6Addr, MacAddress),
    hop_limit: u8,
    message: Message,
) -> Vec<u8> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let len = message.emit(from.0, to.0, &mut bytes);
    let mut head = [0; HEADER_BYTES];
    EthernetHeader { destination: to.1, source: from.1, ether_type: EtherType::Ipv6 }.emit(&mut head);
    let mut ip = [0; ipv6::HEADER_BYTES];
    Ipv6Header { source: from.0, destination: to.0, next_header: NextHeader::Icmpv6, hop_limit }
        .emit(len, &mut ip);
    [&head[..], &ip, &bytes[..len]].concat()
}

fn group_of(ip: Ipv6Addr) -> (Ipv6Addr, MacAddress) {
    let group = solicited_node(ip);
    (group, multicast_mac(group))
}

fn solicits_us(last: u8, source_mac: Option<MacAddress>) -> Vec<u8> {
    let message = Message::Solicitation { target: OWN.link_local(), source_mac, nonce: None };
    ndisc((link_local(v6(last)), mac(last)), group_of(OWN.link_local()), HOP_LIMIT, message)
}

/// Flags as in RFC 4861 4.4.
#[derive(Clone, Copy)]
struct Flags {
    router: bool,
    solicited: bool,
    overrides: bool,
}

const R: Flags = Flags { router: true, solicited: false, overrides: false };
const S: Flags = Flags { router: false, solicited: true, overrides: false };
const O: Flags = Flags { router: false, solicited: false, overrides: true };
const SO: Flags = Flags { router: false, solicited: true, overrides: true };
const NONE: Flags = Flags { router: false, solicited: false, overrides: false };

fn advertises(last: u8, flags: Flags, target_mac: Option<MacAddress>, hop_limit: u8) -> Vec<u8> {
    let Flags { router, solicited, overrides } = flags;
    let ip = link_local(v6(last));
    let message = Message::Advertisement { target: ip, router, solicited, overrides, target_mac };
    ndisc((ip, mac(last)), (OWN.link_local(), OWN.mac), hop_limit, message)
}

/// What a frame of ours says.
fn read(frame: &[u8]) -> (EthernetHeader, Ipv6Header, Message) {
    let (ethernet, payload) = EthernetHeader::parse(frame).expect("Ethernet");
    let (ip, bytes) = Ipv6Header::parse(payload).expect("IPv6");
    (ethernet, ip, Message::parse(&ip, bytes).expect("well formed"))
}

fn find(neighbours: &Neighbours, ip: IpAddr) -> Option<Neighbour> {
    neighbours.iter().find(|neighbour| neighbour.ip == ip)
}
