//! IPv6 between the wire and TCP: addresses and who else has them, neighbours, routers, errors, fragments.

mod addresses;
mod attacks;
mod believed;
mod ecn;
mod errors;
mod fragments;
mod leaving;
mod listening;
mod name_servers;
mod neighbours;
mod ports;
mod refused;
mod routers;
mod traffic;

use std::net::Ipv6Addr;

use exos_net::wire::ethernet::{EtherType, EthernetHeader};
use exos_net::wire::ipv6::{self, Ipv6Header, NextHeader, link_local, multicast_mac, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, MESSAGE_BYTES_MAX, Message};
use exos_net::{AddressState, Config, Ipv6Config, MacAddress};

use crate::harness::{CLIENT_MAC, Host, Outcome, SERVER_MAC, config};

pub(crate) type StaticHost = Host<&'static [u8]>;

/// An address of ours that is given.
pub(crate) const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// A neighbour's.
pub(crate) const THEIRS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);
/// Somebody's beyond the link.
pub(crate) const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);

/// Nobody is told of groups, which are [`crate::groups`]' subject.
pub(crate) fn with_ipv6(ipv6: Ipv6Config) -> Config {
    Config { ipv6: Some(ipv6), group_reports: false, ..config() }
}

/// A host with the address [`OURS`], which asks nobody about it and for no routers.
pub(crate) fn settled() -> StaticHost {
    let addresses = vec![(OURS, 64)];
    let quiet = Ipv6Config { addresses, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    StaticHost::with(with_ipv6(quiet))
}

/// A frame to us, or to the group that `ip` is to.
pub(crate) fn frame_from(mac: MacAddress, ip: &Ipv6Header, payload: &[u8]) -> Vec<u8> {
    let group = ip.destination.is_multicast().then(|| multicast_mac(ip.destination));
    let mut out = vec![0; 14 + ipv6::HEADER_BYTES];
    EthernetHeader { destination: group.unwrap_or(SERVER_MAC), source: mac, ether_type: EtherType::Ipv6 }
        .emit((&mut out[..14]).try_into().unwrap());
    ip.emit(payload.len(), (&mut out[14..]).try_into().unwrap());
    out.extend(payload);
    out
}

/// The same with a payload of any kind.
pub(crate) fn frame_with(next_header: u8, ip: &Ipv6Header, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_from(CLIENT_MAC, ip, payload);
    frame[20] = next_header;
    frame
}

pub(crate) fn header(source: Ipv6Addr, destination: Ipv6Addr, next_header: NextHeader) -> Ipv6Header {
    Ipv6Header { source, destination, next_header, hop_limit: 64 }
}

/// A message about a neighbour, as it arrives with this hop limit.
pub(crate) fn nd_frame(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &Message) -> Vec<u8> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let len = message.emit(source, destination, &mut bytes);
    let ip = Ipv6Header { hop_limit, ..header(source, destination, NextHeader::Icmpv6) };
    frame_from(CLIENT_MAC, &ip, &bytes[..len])
}

pub(crate) fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let message = Message::Solicitation { target, source_mac: Some(CLIENT_MAC), nonce: None };
    nd_frame(source, solicited_node(target), HOP_LIMIT, &message)
}

/// The answer to a question of ours.
pub(crate) fn advertisement(target: Ipv6Addr, mac: MacAddress, to: Ipv6Addr) -> Vec<u8> {
    let message = Message::Advertisement {
        target,
        router: false,
        solicited: true,
        overrides: true,
        target_mac: Some(mac),
    };
    nd_frame(target, to, HOP_LIMIT, &message)
}

/// A frame of ours, read.
pub(crate) struct Sent {
    pub(crate) to_mac: MacAddress,
    pub(crate) ip: Ipv6Header,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn read(frame: &[u8]) -> Sent {
    let (ethernet, rest) = EthernetHeader::parse(frame).unwrap();
    assert_eq!((ethernet.source, ethernet.ether_type), (SERVER_MAC, EtherType::Ipv6));
    let (ip, payload) = Ipv6Header::parse(rest).unwrap();
    assert_eq!(rest.len(), ipv6::HEADER_BYTES + payload.len());
    Sent { to_mac: ethernet.destination, ip, payload: payload.to_vec() }
}

/// The messages about neighbours that were sent since the last time.
pub(crate) fn said(host: &mut StaticHost) -> Vec<(Sent, Message)> {
    let frames: Vec<_> = host.nic.frames.drain(..).collect();
    let read = frames.iter().map(|frame| read(frame));
    read.filter_map(|sent| {
        let message = Message::parse(&sent.ip, &sent.payload).ok()?;
        Some((sent, message))
    })
    .collect()
}

pub(crate) fn states(host: &StaticHost) -> Vec<(Ipv6Addr, AddressState)> {
    host.stack.ipv6_addresses(host.now).map(|address| (address.ip, address.state)).collect()
}

/// Our link-local address made of the Ethernet address.
pub(crate) fn own_link_local() -> Ipv6Addr {
    link_local(SERVER_MAC)
}

/// An ICMPv6 message from `source` to `destination`, with a right checksum.
pub(crate) fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let ip = header(source, destination, NextHeader::Icmpv6);
    let mut bytes = message.to_vec();
    bytes[2..4].fill(0);
    let checksum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame_from(CLIENT_MAC, &ip, &bytes)
}
