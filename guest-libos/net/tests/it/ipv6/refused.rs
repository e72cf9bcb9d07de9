//! Packets that are for nobody here or from nobody who could be answered, and addresses that reach no further than their link.

use exos_net::ConnectError;
use exos_net::wire::ipv6::{ALL_NODES, solicited_node};

use super::*;
use crate::ipv6::fragments::part_to;

/// An echo request, which whoever it is for would answer.
const ECHO: [u8; 8] = [128, 0, 0, 0, 0, 7, 0, 9];

fn dropped_not_for_us(host: &StaticHost) -> u64 {
    host.stack.counters().dropped_not_for_us
}

#[test]
fn packet_to_a_group_in_a_frame_to_another_group_is_not_for_us() {
    let mut host = settled();
    let mut frame = icmpv6(THEIRS, ALL_NODES, &ECHO);
    frame[..6].copy_from_slice(&multicast_mac(solicited_node(FAR)).0);
    host.input(&frame).assert_nothing();
    frame[..6].copy_from_slice(&MacAddress::BROADCAST.0);
    host.input(&frame).assert_nothing();
    assert_eq!(dropped_not_for_us(&host), 2);
    // To us alone it is: who knows our Ethernet address need not ask everybody (RFC 8200 does not forbid it).
    frame[..6].copy_from_slice(&SERVER_MAC.0);
    host.input(&frame).reply();
}

#[test]
fn packet_to_us_in_a_frame_to_a_group_is_not_for_us() {
    let mut host = settled();
    let mut frame = icmpv6(THEIRS, OURS, &ECHO);
    frame[..6].copy_from_slice(&multicast_mac(ALL_NODES).0);
    host.input(&frame).assert_nothing();
    assert_eq!(dropped_not_for_us(&host), 1);
}

#[test]
fn echo_request_from_nobody_is_not_answered() {
    let mut host = settled();
    for destination in [OURS, ALL_NODES] {
        host.input(&icmpv6(Ipv6Addr::UNSPECIFIED, destination, &ECHO)).assert_nothing();
    }
    assert_eq!((host.stack.counters().dropped_bad_source, host.stack.counters().echo_replies), (2, 0));
}

#[test]
fn fragments_to_a_group_or_from_nobody_take_no_place() {
    let mut host = settled();
    for (source, destination) in [(THEIRS, ALL_NODES), (THEIRS, solicited_node(OURS))] {
        host.input(&part_to(source, destination, 17, 7, 0, true, &[0; 1_440])).assert_nothing();
    }
    // Only ICMPv6 may come from nobody, and in one piece.
    host.input(&part_to(Ipv6Addr::UNSPECIFIED, OURS, 58, 7, 0, true, &[0; 1_440])).assert_nothing();
    assert_eq!((host.stack.reassemblies(), host.stack.counters().reassembly_required), (0, 0));
    assert_eq!(host.stack.counters().dropped_fragment + host.stack.counters().dropped_bad_source, 3);
}

#[test]
fn link_local_address_is_no_source_beyond_its_link() {
    let gateway = Some(link_local(CLIENT_MAC));
    let addresses = vec![(OURS, 64)];
    let quiet = Ipv6Config { gateway, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    let mut host = StaticHost::with(with_ipv6(quiet.clone()));
    assert_eq!(host.stack.ipv6_source_for(FAR, host.now), None);
    assert_eq!(host.stack.ipv6_source_for(link_local(CLIENT_MAC), host.now), Some(own_link_local()));
    assert_eq!(host.stack.connect(host.now, (FAR, 80)), Err(ConnectError::NoAddress));

    let mut host = StaticHost::with(with_ipv6(Ipv6Config { addresses, ..quiet }));
    assert_eq!(host.stack.ipv6_source_for(FAR, host.now), Some(OURS));
    let from_link = (own_link_local(), 0);
    assert_eq!(host.stack.connect_from(host.now, from_link, (FAR, 80)), Err(ConnectError::BeyondScope));
    let conn = host.stack.connect_from(host.now, from_link, (link_local(CLIENT_MAC), 80)).unwrap();
    assert_eq!(host.stack.local(conn).unwrap().ip(), own_link_local());
}
