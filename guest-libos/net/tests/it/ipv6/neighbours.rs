//! Neighbours asked, answered and looked after (RFC 4861 7.2, 7.3).

use exos_net::AckPolicy;
use exos_net::wire::ipv6::{ALL_NODES, multicast_mac, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, Message};

use super::*;
use crate::ipv6::traffic::Client6;

#[test]
fn solicitation_for_us_is_answered_at_the_address_it_names() {
    let mut host = settled();
    let reply = read(&host.input(&solicitation(THEIRS, OURS)).reply());
    assert_eq!((reply.ip.source, reply.ip.destination, reply.to_mac), (OURS, THEIRS, CLIENT_MAC));
    let expected = Message::Advertisement {
        target: OURS,
        router: false,
        solicited: true,
        overrides: true,
        target_mac: Some(SERVER_MAC),
    };
    assert_eq!(Message::parse(&reply.ip, &reply.payload), Ok(expected));
    // Who is about to use our address is told in the group of all.
    let probe = Message::Solicitation { target: OURS, source_mac: None, nonce: None };
    let frame = nd_frame(Ipv6Addr::UNSPECIFIED, solicited_node(OURS), HOP_LIMIT, &probe);
    let reply = read(&host.input(&frame).reply());
    assert_eq!((reply.ip.destination, reply.to_mac), (ALL_NODES, multicast_mac(ALL_NODES)));
}

#[test]
fn solicitation_for_others_or_from_beyond_the_link_is_not_answered() {
    let mut host = settled();
    host.input(&solicitation(THEIRS, THEIRS)).assert_nothing();
    let message = Message::Solicitation { target: OURS, source_mac: Some(CLIENT_MAC), nonce: None };
    host.input(&nd_frame(THEIRS, solicited_node(OURS), 254, &message)).assert_nothing();
    assert_eq!((host.stack.counters().dropped_off_link, host.stack.counters().dropped_not_for_us), (1, 1));
}

#[test]
fn neighbour_is_asked_in_its_group_and_the_syn_follows_its_answer() {
    let mut host = settled();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let (sent, message) = said(&mut host).remove(0);
    assert_eq!(message, Message::Solicitation { target: THEIRS, source_mac: Some(SERVER_MAC), nonce: None });
    assert_eq!((sent.ip.source, sent.ip.destination), (OURS, solicited_node(THEIRS)));
    assert_eq!(sent.to_mac, multicast_mac(solicited_node(THEIRS)));
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    host.stack.retry_blocked(host.now, &mut host.nic);
    let syn = read(&host.nic.frames.pop_front().unwrap());
    assert_eq!((syn.ip.source, syn.ip.destination, syn.to_mac), (OURS, THEIRS, CLIENT_MAC));
}

#[test]
fn neighbour_that_never_answers_ends_the_connection() {
    let mut host = settled();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.wait_secs(5);
    assert_eq!(said(&mut host).len(), 3);
    assert_eq!(host.ended, [(conn, exos_net::End::Unreachable)]);
    assert_eq!(host.stack.address_pairs(), 0);
}

#[test]
fn silent_neighbour_is_asked_where_it_is_and_followed() {
    let mut host = settled();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    host.stack.retry_blocked(host.now, &mut host.nic);
    let client = Client6::answering(&mut host);
    host.input(&client.frame("SA", 0, 1, b"")).events();
    host.output(conn, AckPolicy::Now);
    host.stack.send(conn, b"request").unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.nic.frames.clear();
    // Three retransmissions later.
    host.wait_secs(4);
    let asked = said(&mut host);
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|(sent, _)| sent.ip.destination == THEIRS && sent.to_mac == CLIENT_MAC));
    let moved = MacAddress([2, 0, 0, 0, 0, 0x77]);
    host.input(&advertisement(THEIRS, moved, OURS)).assert_nothing();
    host.wait_secs(10);
    let frame = host.nic.frames.pop_back().unwrap();
    assert_eq!(read(&frame).to_mac, moved);
}

#[test]
fn unasked_advertisement_moves_nobody() {
    let mut host = settled();
    host.input(&advertisement(THEIRS, MacAddress([2, 0, 0, 0, 0, 0x77]), OURS)).assert_nothing();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    assert!(matches!(said(&mut host)[..], [(_, Message::Solicitation { .. })]));
}
