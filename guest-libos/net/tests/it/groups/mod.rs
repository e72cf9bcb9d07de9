//! Groups: which datagrams are for us, and what routers and switches on the link are told (RFC 9776, RFC 9777). Frames are
//! written and read here field by field, so that a mistake in our own writers cannot hide itself.

mod hostile;
mod igmp;
mod mld;
mod own_addresses;
mod traffic;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use exos_net::{Config, Ipv6Config};

use crate::harness::{CLIENT_MAC, Host, SERVER_MAC, config};

type StaticHost = Host<&'static [u8]>;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const OTHER: Ipv4Addr = Ipv4Addr::new(239, 129, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x1234, 0x5678);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);
const JOINS: u8 = 4;
const LEAVES: u8 = 3;
const IS_IN: u8 = 2;

/// The sum of some words in ones' complement (RFC 1071), as a checksum.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    (!((sum >> 16) as u16 + sum as u16)).to_be_bytes()
}

fn mac_of(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => [1, 0, 0x5e, group.octets()[1] & 0x7f, group.octets()[2], group.octets()[3]],
        IpAddr::V6(group) => {
            [0x33, 0x33, group.octets()[12], group.octets()[13], group.octets()[14], group.octets()[15]]
        }
    }
}

/// A packet of IPv4 with a router alert, as it goes over the link to a group.
fn ipv4(from_mac: [u8; 6], (source, destination): (Ipv4Addr, Ipv4Addr), tos: u8, message: &[u8]) -> Vec<u8> {
    let len = 24 + message.len() as u8;
    let mut header = vec![0x46, tos, 0, len, 0, 0, 0x40, 0, 1, 2, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend([0x94, 4, 0, 0]);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    [&mac_of(destination.into())[..], &from_mac, &[8, 0], &header, message].concat()
}

/// A packet of IPv6 with options for every hop, as it goes over the link to a group.
fn ipv6(from_mac: [u8; 6], (source, destination): (Ipv6Addr, Ipv6Addr), message: &[u8]) -> Vec<u8> {
    let len = 8 + message.len() as u8;
    let header = [&[0x60, 0, 0, 0, 0, len, 0, 1][..], &source.octets(), &destination.octets()].concat();
    let options = [58, 0, 5, 2, 0, 0, 1, 0];
    let pseudo = [&header[8..], &[0, 0, 0, message.len() as u8, 0, 0, 0, 58]].concat();
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    [&mac_of(destination.into())[..], &from_mac, &[0x86, 0xdd], &header, &options, &message].concat()
}

/// A message of IGMP with its checksum.
fn sealed(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);
    message
}

/// What a router asks of `to`: all groups, or one.
fn igmp_query(to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    ipv4(CLIENT_MAC.0, (ROUTER, to), 0xc0, &sealed(message))
}

/// A report of ours with records.
fn igmp_report(source: Ipv4Addr, records: &[(u8, Ipv4Addr)]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, records.len() as u8];
    for (kind, group) in records {
        message.extend([*kind, 0, 0, 0]);
        message.extend(group.octets());
    }
    ipv4(SERVER_MAC.0, (source, Ipv4Addr::new(224, 0, 0, 22)), 0xc0, &sealed(&message))
}

fn mld_query(to: Ipv6Addr, code: u16, group: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
    let code = code.to_be_bytes();
    let message = [&[130, 0, 0, 0, code[0], code[1], 0, 0][..], &group.octets(), rest].concat();
    ipv6(CLIENT_MAC.0, (ROUTER_V6, to), &message)
}

fn mld_report(source: Ipv6Addr, records: &[(u8, Ipv6Addr)]) -> Vec<u8> {
    let mut message = vec![143, 0, 0, 0, 0, 0, 0, records.len() as u8];
    for (kind, group) in records {
        message.extend([*kind, 0, 0, 0]);
        message.extend(group.octets());
    }
    ipv6(SERVER_MAC.0, (source, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16)), &message)
}

/// A message of the older version from us.
fn mld_old(source: Ipv6Addr, to: Ipv6Addr, kind: u8, group: Ipv6Addr) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat();
    ipv6(SERVER_MAC.0, (source, to), &message)
}

/// With a link-local address that nobody is asked about, and of whose group has been told.
fn told() -> StaticHost {
    let quiet = Ipv6Config { probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { ipv6: Some(quiet), ..config() });
    host.wait_secs(5);
    host.nic.frames.clear();
    host
}

fn join(host: &mut StaticHost, group: impl Into<IpAddr>) {
    host.stack.join_group(host.now, group.into()).unwrap();
}

/// The frames that were sent since the last time.
fn frames(host: &mut StaticHost) -> Vec<Vec<u8>> {
    host.nic.frames.drain(..).collect()
}

/// The frames that are sent within so many milliseconds, each with how many had passed.
fn frames_within(host: &mut StaticHost, ms: u64) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    for passed in 1..=ms {
        host.wait_ms(1);
        seen.extend(frames(host).into_iter().map(|frame| (passed, frame)));
    }
    seen
}

fn assert_sent(sent: &[(u64, Vec<u8>)], expected: &[Vec<u8>]) {
    let sent: Vec<_> = sent.iter().map(|(_, frame)| frame).collect();
    assert_eq!(sent, expected.iter().collect::<Vec<_>>());
}
