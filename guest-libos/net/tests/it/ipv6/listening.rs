//! A stack that only listens, because another one with the same hardware address speaks for both: it comes to the same addresses,
//! and says nothing.

use exos_net::AckPolicy;
use exos_net::wire::ipv6::ALL_NODES;

use super::routers::{ROUTER_MAC, advert, made, state_of};
use super::traffic::Client6;
use super::*;

fn silent(ipv6: Ipv6Config) -> StaticHost {
    StaticHost::with(with_ipv6(Ipv6Config { speaks: false, ..ipv6 }))
}

/// Somebody says to all that he has `target`.
fn claim(target: Ipv6Addr, mac: MacAddress) -> Vec<u8> {
    let target_mac = Some(mac);
    let message =
        Message::Advertisement { target, router: false, solicited: false, overrides: true, target_mac };
    nd_frame(target, ALL_NODES, HOP_LIMIT, &message)
}

/// The same frame, from our own hardware address.
fn from_us(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&SERVER_MAC.0);
    frame
}

#[test]
fn addresses_are_used_when_the_other_one_has_had_time_to_ask_and_nothing_is_said() {
    let mut host = silent(Ipv6Config { addresses: vec![(OURS, 64)], ..Ipv6Config::default() });
    host.input(&advert().frame()).assert_nothing();
    let all = [own_link_local(), OURS, made()];
    for _ in 0..19 {
        host.wait_ms(100);
        assert_eq!(states(&host), all.map(|ip| (ip, AddressState::Tentative)));
    }
    host.wait_ms(101);
    assert_eq!(states(&host), all.map(|ip| (ip, AddressState::Preferred)));
    assert!(host.stack.ipv6_is_settled());
    host.wait_secs(30);
    assert!(host.nic.frames.is_empty());
    assert_eq!((host.stack.counters().address_probes, host.stack.counters().router_solicitations), (0, 0));
    // Peers are answered where they are, or through the router; questions are for the other one.
    Client6 { ours: made(), ..Client6::on_port(1) }.connect(&mut host);
    let far = Client6 { ours: made(), ip: FAR, ..Client6::on_port(2) };
    assert_eq!(read(&host.input(&far.frame("S", 0, 0, b"")).reply()).to_mac, ROUTER_MAC);
    host.input(&solicitation(THEIRS, made())).assert_nothing();
    assert_eq!(host.stack.counters().neighbour_advertisements, 0);
}

#[test]
fn router_that_was_heard_of_stays_known_though_nobody_asks_it() {
    let mut host = silent(Ipv6Config { probes: 0, ..Ipv6Config::default() });
    host.input(&advert().frame()).assert_nothing();
    host.wait_ms(2_100);
    for _ in 0..2 {
        host.nic.frames.clear();
        let conn = host.stack.connect(host.now, (FAR, 80)).unwrap();
        host.output(conn, AckPolicy::IfDue);
        assert_eq!(read(&host.nic.frames[0]).to_mac, ROUTER_MAC);
        host.wait_secs(20);
    }
}

#[test]
fn neighbours_that_are_not_known_are_not_asked_for() {
    let mut host = silent(Ipv6Config { addresses: vec![(OURS, 64)], probes: 0, ..Ipv6Config::default() });
    host.wait_ms(1);
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.wait_secs(60);
    assert!(host.nic.frames.is_empty() && !host.stack.is_alive(conn));
    assert_eq!(host.stack.counters().neighbour_solicitations, 0);
}

#[test]
fn address_that_somebody_has_is_not_used_though_the_other_one_asked() {
    let mut host = silent(Ipv6Config { addresses: vec![(OURS, 64)], ..Ipv6Config::default() });
    host.wait_ms(1_500);
    host.input(&claim(OURS, CLIENT_MAC)).assert_nothing();
    let rival = Message::Solicitation { target: own_link_local(), source_mac: None, nonce: Some([9; 6]) };
    let group = solicited_node(own_link_local());
    host.input(&nd_frame(Ipv6Addr::UNSPECIFIED, group, HOP_LIMIT, &rival)).assert_nothing();
    host.wait_secs(9);
    assert_eq!(state_of(&host, OURS), Some(AddressState::Duplicate));
    assert_eq!(state_of(&host, own_link_local()), Some(AddressState::Duplicate));
}

/// A bridge may send back what the other one asked and said.
#[test]
fn what_the_other_one_says_for_both_is_no_collision() {
    let mut host = silent(Ipv6Config { addresses: vec![(OURS, 64)], ..Ipv6Config::default() });
    host.wait_ms(500);
    let probe = Message::Solicitation { target: OURS, source_mac: None, nonce: Some([9; 6]) };
    let probe = nd_frame(Ipv6Addr::UNSPECIFIED, solicited_node(OURS), HOP_LIMIT, &probe);
    host.input(&from_us(probe)).assert_nothing();
    host.input(&from_us(claim(OURS, SERVER_MAC))).assert_nothing();
    host.wait_secs(9);
    assert_eq!(state_of(&host, OURS), Some(AddressState::Preferred));
    assert_eq!(host.stack.take_address_conflict(), None);
}
