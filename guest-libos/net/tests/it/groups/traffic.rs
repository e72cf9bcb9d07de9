//! Datagrams to groups, in and out.

use super::*;
use crate::harness::{CLIENT_IP, SERVER_IP, pattern};
use crate::ipv6::{OURS, THEIRS, frame_from, header};
use crate::udp::datagram;
use exos_net::wire::ipv6::NextHeader;
use exos_net::{DatagramOptions, Input, MacAddress, RxChecksum, RxMeta, SendDatagramError};
use std::net::SocketAddr;
use std::num::NonZeroU8;

const UDP_PORT: u16 = 5_000;

fn bound() -> StaticHost {
    let addresses = vec![(OURS, 64)];
    let ipv6 = Ipv6Config { addresses, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    let config = Config { ipv6: Some(ipv6), group_reports: false, fragment_udp: true, ..config() };
    let mut host = StaticHost::with(config);
    host.stack.bind_udp(UDP_PORT).unwrap();
    host
}

/// A datagram of IPv4 to a group, in a frame to it.
fn to_group(group: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    datagram(MacAddress(mac_of(group.into())), group, UDP_PORT, data)
}

fn udp6(destination: Ipv6Addr, data: &[u8]) -> (exos_net::wire::ipv6::Ipv6Header, Vec<u8>) {
    let ip = header(THEIRS, destination, NextHeader::Udp);
    let mut bytes = vec![0; 8];
    exos_net::wire::udp::emit(700, UDP_PORT, data.len(), 0, bytes.first_chunk_mut().unwrap());
    bytes.extend(data);
    let sum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    (ip, bytes)
}

fn to_group_v6(group: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let (ip, bytes) = udp6(group, data);
    frame_from(CLIENT_MAC, &ip, &bytes)
}

#[test]
fn datagrams_to_a_group_arrive_from_joining_to_leaving() {
    let mut host = bound();
    host.input(&to_group(GROUP, b"early")).assert_nothing();
    host.input(&to_group_v6(GROUP_V6, b"early")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 2);
    join(&mut host, GROUP);
    join(&mut host, GROUP_V6);
    for (frame, from, to) in [
        (to_group(GROUP, b"data"), SocketAddr::from((CLIENT_IP, 700)), SocketAddr::from((GROUP, UDP_PORT))),
        (to_group_v6(GROUP_V6, b"data"), (THEIRS, 700).into(), (GROUP_V6, UDP_PORT).into()),
    ] {
        let datagram = host.input(&frame).datagram();
        assert_eq!((datagram.from, datagram.to, &datagram.payload[..]), (from, to, &b"data"[..]));
        // As some switches change them, for listeners without wires.
        let mut to_us = frame.clone();
        to_us[..6].copy_from_slice(&SERVER_MAC.0);
        assert_eq!(host.input(&to_us).datagram().to, to);
        // Another group has this Ethernet address.
        let mut elsewhere = frame.clone();
        elsewhere[5] ^= 1;
        host.input(&elsewhere).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_not_for_us, 4);
    // Groups that share an Ethernet address are told apart.
    assert_eq!(mac_of(GROUP.into()), mac_of(OTHER.into()));
    host.input(&to_group(OTHER, b"other")).assert_nothing();
    host.stack.leave_group(host.now, GROUP.into());
    host.stack.leave_group(host.now, GROUP_V6.into());
    host.input(&to_group(GROUP, b"late")).assert_nothing();
    host.input(&to_group_v6(GROUP_V6, b"late")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 7);
}

#[test]
fn everybodys_group_needs_no_joining_and_the_hosts_own_is_not_heard_from_others() {
    let mut host = bound();
    assert_eq!(&host.input(&to_group(Ipv4Addr::new(224, 0, 0, 1), b"all")).datagram().payload[..], b"all");
    let alone = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 5);
    join(&mut host, alone);
    host.input(&to_group_v6(alone, b"x")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 1);
}

#[test]
fn nothing_that_is_sent_to_a_group_is_answered_with_an_error_or_a_segment() {
    let mut host = bound();
    join(&mut host, GROUP);
    join(&mut host, GROUP_V6);
    host.stack.unbind_udp(UDP_PORT);
    host.input(&to_group(GROUP, b"x")).assert_nothing();
    host.input(&to_group_v6(GROUP_V6, b"x")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_no_port, 2);
    // A SYN, an echo request, and a protocol that nobody speaks.
    for protocol in [6, 1, 99] {
        let mut frame = to_group(GROUP, &[0; 40]);
        frame[23] = protocol;
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
        host.input(&frame).assert_nothing();
    }
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_not_for_us, counters.dropped_unsupported), (2, 1));
    host.wait_secs(61);
    assert_eq!((host.stack.counters().icmp_errors_out, host.nic.frames.len()), (0, 0));
}

#[test]
fn datagrams_from_ourselves_or_from_nobody_are_dropped() {
    let mut host = bound();
    join(&mut host, GROUP);
    for source in [SERVER_IP, GROUP, Ipv4Addr::new(127, 0, 0, 1)] {
        let mut frame = to_group(GROUP, b"x");
        frame[26..30].copy_from_slice(&source.octets());
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
        frame[40..42].fill(0);
        host.input(&frame).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_bad_source, 3);
}

#[test]
fn checksums_are_verified_unless_the_device_did() {
    let mut host = bound();
    join(&mut host, GROUP);
    let good = to_group(GROUP, b"x");
    for (damaged_at, unknown, transport_valid) in [(25, false, false), (41, false, true)] {
        let mut frame = good.clone();
        frame[damaged_at] ^= 1;
        let metas = [RxChecksum::Unknown, RxChecksum::TransportValid, RxChecksum::AllValid];
        for (checksum, arrives) in metas.into_iter().zip([unknown, transport_valid, true]) {
            let before = host.stack.counters().dropped_checksum;
            let input = host.stack.input(host.now, &frame, RxMeta { checksum });
            assert_eq!(matches!(input, Input::Datagram(_)), arrives, "{damaged_at}, {checksum:?}");
            assert_eq!(host.stack.counters().dropped_checksum - before, u64::from(!arrives));
        }
    }
    assert_eq!(&host.input(&good).datagram().payload[..], b"x");
}

#[test]
fn datagrams_in_fragments_arrive_in_groups_as_well() {
    let data = pattern(3_000);
    let mut host = bound();
    join(&mut host, GROUP);
    join(&mut host, GROUP_V6);
    let whole = to_group(GROUP, data);
    let parts: Vec<_> = whole[34..].chunks(1_480).collect();
    for (index, part) in parts.iter().enumerate() {
        let mut frame = [&whole[..34], part].concat();
        let more = if index + 1 < parts.len() { 0x2000 } else { 0 };
        frame[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&(more | (index * 185) as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
        let outcome = host.input(&frame);
        if index + 1 < parts.len() {
            outcome.assert_nothing();
        } else {
            assert_eq!(&outcome.datagram().payload[..], data);
        }
    }
    let (ip, bytes) = udp6(GROUP_V6, data);
    let parts: Vec<_> = bytes.chunks(1_448).collect();
    for (index, part) in parts.iter().enumerate() {
        let place = (index * 1_448) as u16 | u16::from(index + 1 < parts.len());
        let payload = [&[17, 0][..], &place.to_be_bytes(), &[0, 0, 0, 7], part].concat();
        let mut frame = frame_from(CLIENT_MAC, &ip, &payload);
        frame[20] = 44;
        let outcome = host.input(&frame);
        if index + 1 < parts.len() {
            outcome.assert_nothing();
        } else {
            assert_eq!(&outcome.datagram().payload[..], data);
        }
    }
    assert_eq!(host.stack.counters().reassembly_ok, 2);
}

#[test]
fn missing_fragments_of_a_group_are_told_nobody() {
    let mut host = bound();
    join(&mut host, GROUP);
    let mut frame = to_group(GROUP, &[0; 64]);
    frame[20..22].copy_from_slice(&0x2000u16.to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum);
    host.input(&frame).assert_nothing();
    join(&mut host, GROUP_V6);
    let (ip, bytes) = udp6(GROUP_V6, &[0; 64]);
    let mut frame = frame_from(CLIENT_MAC, &ip, &[&[17, 0, 0, 1, 0, 0, 0, 7][..], &bytes].concat());
    frame[20] = 44;
    host.input(&frame).assert_nothing();
    host.wait_secs(120);
    assert_eq!((host.stack.counters().reassembly_fails, host.nic.frames.len()), (2, 0));
}

#[test]
fn datagrams_to_groups_leave_for_the_link_unless_they_are_to_go_further() {
    let mut host = bound();
    let far = NonZeroU8::new(9);
    for (group, hops_at) in [(IpAddr::V4(GROUP), 22), (GROUP_V6.into(), 21)] {
        for (time_to_live, hops) in [(None, 1), (far, 9)] {
            let options = DatagramOptions { time_to_live, ..DatagramOptions::default() };
            let to = SocketAddr::new(group, 53);
            host.stack.send_udp_with(host.now, UDP_PORT, to, &options, b"x", &mut host.nic).unwrap();
            let frame = host.nic.frames.pop_front().unwrap();
            assert_eq!((&frame[..6], frame[hops_at]), (&mac_of(group)[..], hops));
        }
    }
    for scope in [0xff00, 0xff01] {
        let to = SocketAddr::from((Ipv6Addr::new(scope, 0, 0, 0, 0, 0, 0, 5), 53));
        let sent = host.stack.send_udp(host.now, UDP_PORT, to, b"x", &mut host.nic);
        assert_eq!(sent, Err(SendDatagramError::NoRoute));
    }
}
