//! What is believed of neighbours and routers, and how far (RFC 4861 6.3.4, 7.2.5; RFC 4862 5.4, 5.5.3).

use exos_net::wire::ipv6::ALL_NODES;
use exos_net::{AckPolicy, AddressState, Duration, InterfaceId};

use super::routers::{Advert, PREFIX, ROUTER_MAC, advert, made, state_of};
use super::*;
use crate::ipv6::traffic::Client6;

const OTHER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x66]);

fn of(ipv6: Ipv6Config) -> StaticHost {
    StaticHost::with(with_ipv6(ipv6))
}

fn unprobed() -> Ipv6Config {
    Ipv6Config { probes: 0, ..Ipv6Config::default() }
}

/// Where the SYN of a connection to `to` leaves to, if it leaves.
fn syn_to(host: &mut StaticHost, to: Ipv6Addr) -> Option<MacAddress> {
    host.nic.frames.clear();
    let conn = host.stack.connect(host.now, (to, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let sent = host.nic.frames.pop_back().map(|frame| read(&frame))?;
    (sent.ip.next_header == NextHeader::Tcp).then_some(sent.to_mac)
}

/// An advertisement of `target`, from `source`, by a frame of `CLIENT_MAC`'s.
fn claim(source: Ipv6Addr, target: Ipv6Addr, target_mac: Option<MacAddress>) -> Vec<u8> {
    let message =
        Message::Advertisement { target, router: false, solicited: false, overrides: true, target_mac };
    nd_frame(source, ALL_NODES, HOP_LIMIT, &message)
}

#[test]
fn prefix_that_is_not_on_the_link_leaves_its_hosts_behind_the_router() {
    let mut host = of(unprobed());
    host.input(&Advert { flags: 0x40, ..advert() }.frame()).assert_nothing();
    assert_eq!(state_of(&host, made()), Some(AddressState::Preferred));
    assert_eq!(syn_to(&mut host, Ipv6Addr::from_bits(PREFIX.to_bits() | 9)), Some(ROUTER_MAC));
}

#[test]
fn neighbour_on_the_link_is_asked_for_without_any_prefix() {
    let mut host = of(unprobed());
    let neighbour = link_local(CLIENT_MAC);
    assert_eq!(syn_to(&mut host, neighbour), None);
    host.input(&advertisement(neighbour, CLIENT_MAC, own_link_local())).assert_nothing();
    assert_eq!(syn_to(&mut host, neighbour), Some(CLIENT_MAC));
}

#[test]
fn who_is_no_default_router_does_not_end_the_search_for_one() {
    for (router_s, solicitations) in [(0, 3), (1_800, 0)] {
        let mut host = of(unprobed());
        host.input(&Advert { router_s, ..advert() }.frame()).assert_nothing();
        host.wait_secs(20);
        assert_eq!(host.stack.counters().router_solicitations, solicitations);
    }
}

#[test]
fn lifetime_without_end_has_none() {
    let mut host = of(unprobed());
    host.input(&Advert { valid_s: u32::MAX, preferred_s: u32::MAX, ..advert() }.frame()).assert_nothing();
    host.now += Duration::from_secs(u64::from(u32::MAX) + 1);
    host.wait_ms(1);
    assert_eq!(state_of(&host, made()), Some(AddressState::Preferred));
}

#[test]
fn no_router_shortens_the_life_of_addresses_that_it_did_not_give() {
    let given = Ipv6Addr::from_bits(PREFIX.to_bits() | 1);
    let mut host = of(Ipv6Config { addresses: vec![(given, 64)], ..unprobed() });
    let brief = Advert { valid_s: 1, preferred_s: 1, ..advert() };
    host.input(&brief.frame()).assert_nothing();
    host.input(&Advert { prefix: "fe80::".parse().unwrap(), ..brief }.frame()).assert_nothing();
    host.wait_secs(7_201);
    let kept = [(own_link_local(), AddressState::Preferred), (given, AddressState::Preferred)];
    assert_eq!(states(&host), kept);
}

#[test]
fn address_is_made_once_of_a_prefix_whatever_became_of_it() {
    let mut host = of(Ipv6Config { addresses: vec![(made(), 64)], ..unprobed() });
    host.input(&advert().frame()).assert_nothing();
    assert_eq!(states(&host).len(), 2);
    // Another one has taken its place, and has its lifetime.
    let interface_id = InterfaceId::Stable([1; 16]);
    let mut host = of(Ipv6Config { interface_id, ..Ipv6Config::default() });
    let brief = Advert { valid_s: 100, preferred_s: 100, flags: 0x40, ..advert() };
    host.input(&brief.frame()).assert_nothing();
    let (first, _) = states(&host)[1];
    host.input(&claim(first, first, Some(CLIENT_MAC))).assert_nothing();
    let before = states(&host);
    assert!(before.len() == 2 && before[1].0 != first);
    host.input(&brief.frame()).assert_nothing();
    assert_eq!(states(&host), before);
    // What is longer than what is left is believed below two hours, too.
    host.input(&Advert { valid_s: 200, ..brief }.frame()).assert_nothing();
    host.wait_secs(199);
    assert_eq!(states(&host).len(), 2);
    host.wait_secs(1);
    assert_eq!(states(&host).len(), 1);
}

#[test]
fn stable_address_differs_from_prefix_to_prefix_and_from_card_to_card() {
    let interface_id = InterfaceId::Stable([1; 16]);
    let low = |mac| {
        let ipv6 = Ipv6Config { interface_id, ..unprobed() };
        let mut host = StaticHost::with(Config { mac, ..with_ipv6(ipv6) });
        host.input(&advert().frame()).assert_nothing();
        states(&host).iter().map(|(ip, _)| ip.to_bits() as u64).collect::<Vec<_>>()
    };
    let (ours, others) = (low(SERVER_MAC), low(OTHER_MAC));
    assert!(ours[0] != ours[1] && ours[0] != others[0], "{ours:x?} {others:x?}");
}

#[test]
fn each_change_of_an_address_is_told() {
    let mut host = of(unprobed());
    let mut before = host.stack.ipv6_changes();
    let mut changed = |host: &StaticHost| std::mem::replace(&mut before, host.stack.ipv6_changes()) != before;
    host.input(&Advert { router_s: 0, valid_s: 10, preferred_s: 10, ..advert() }.frame()).assert_nothing();
    assert!(changed(&host), "one more");
    host.stack.check();
    host.now += Duration::from_secs(10);
    host.wait_ms(1);
    assert!(state_of(&host, made()).is_none() && changed(&host), "one less");
    let mut host = of(Ipv6Config { router_advertisements: false, ..Ipv6Config::default() });
    let before = host.stack.ipv6_changes();
    host.input(&claim(own_link_local(), own_link_local(), None)).assert_nothing();
    assert_ne!(host.stack.ipv6_changes(), before, "somebody else's");
}

#[test]
fn neighbour_that_asks_is_found_by_what_waits_for_it() {
    let mut host = settled();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.nic.frames.clear();
    let question = Message::Solicitation { target: OURS, source_mac: Some(OTHER_MAC), nonce: None };
    let answer = host.input(&nd_frame(THEIRS, solicited_node(OURS), HOP_LIMIT, &question)).reply();
    // It is answered where it says that it is, whoever brought the frame.
    assert_eq!(read(&answer).to_mac, OTHER_MAC);
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(read(&host.nic.frames.pop_front().unwrap()).to_mac, OTHER_MAC);
}

#[test]
fn neighbour_is_asked_once_a_second_however_many_want_it() {
    let mut host = settled();
    for _ in 0..3 {
        assert_eq!(syn_to(&mut host, THEIRS), None);
    }
    assert_eq!(host.stack.counters().neighbour_solicitations, 1);
}

#[test]
fn question_for_another_address_of_the_same_group_is_not_answered() {
    let mut host = settled();
    let alike = Ipv6Addr::from_bits(OURS.to_bits() | 1 << 65);
    assert_eq!(solicited_node(alike), solicited_node(OURS));
    host.input(&solicitation(THEIRS, alike)).assert_nothing();
    assert_eq!(host.stack.counters().neighbour_advertisements, 0);
    // Who asks whether an address of ours is free is told in the group of all, where nobody's question is answered.
    let probe = Message::Solicitation { target: OURS, source_mac: None, nonce: None };
    let reply = host.input(&nd_frame(Ipv6Addr::UNSPECIFIED, solicited_node(OURS), HOP_LIMIT, &probe)).reply();
    let sent = read(&reply);
    let said = Message::parse(&sent.ip, &sent.payload);
    assert!(matches!(said, Ok(Message::Advertisement { solicited: false, .. })), "{said:?}");
}

#[test]
fn claim_counts_by_what_it_says_and_from_whom_it_is() {
    let mut host = settled();
    // From an address of ours, about somebody else's, or as something that is no ICMPv6: nothing is claimed.
    host.input(&claim(OURS, THEIRS, Some(CLIENT_MAC))).assert_nothing();
    let mut other = claim(OURS, OURS, Some(CLIENT_MAC));
    other[20] = 6;
    host.input(&other).assert_nothing();
    host.input(&claim(OURS, OURS, Some(SERVER_MAC))).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), None);
    // By another source than the address itself, for the card that is named.
    host.input(&claim(THEIRS, OURS, Some(OTHER_MAC))).assert_nothing();
    assert_eq!(host.stack.take_address_conflict().unwrap().by, OTHER_MAC);
    host.wait_secs(11);
    host.input(&claim(OURS, OURS, Some(OTHER_MAC))).assert_nothing();
    assert_eq!(host.stack.take_address_conflict().unwrap().by, OTHER_MAC);
}

#[test]
fn router_that_is_none_is_not_remembered_and_one_that_is_ends_the_wait_for_it() {
    let gateway = Some(link_local(ROUTER_MAC));
    let ipv6 = Ipv6Config { gateway, addresses: vec![(OURS, 64)], ..unprobed() };
    let mut host = of(ipv6);
    let conn = host.stack.connect(host.now, (FAR, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.nic.frames.clear();
    host.input(&advert().frame()).assert_nothing();
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(read(&host.nic.frames.pop_front().unwrap()).to_mac, ROUTER_MAC);
    // Somebody else, who is no router: where it is has to be asked.
    let stranger = link_local(OTHER_MAC);
    host.input(&Advert { router_s: 0, source: stranger, ..advert() }.frame()).assert_nothing();
    assert_eq!(syn_to(&mut host, stranger), None);
}

#[test]
fn what_a_router_says_of_the_link_is_nothing_to_ipv4() {
    let mut host = of(unprobed());
    host.input(&advert().frame()).assert_nothing();
    assert_eq!(host.stack.max_datagram_bytes(host.now, crate::harness::CLIENT_IP), 1_500 - 28);
}

#[test]
fn whoever_lets_another_speak_takes_no_router_for_gone_and_hears_its_own_words() {
    let mut host = of(Ipv6Config { speaks: false, addresses: vec![(OURS, 64)], ..Ipv6Config::default() });
    // The other stack of the interface asks about our address, for both.
    let question = Message::Solicitation { target: own_link_local(), source_mac: None, nonce: Some([9; 6]) };
    let group = solicited_node(own_link_local());
    let mut probe = nd_frame(Ipv6Addr::UNSPECIFIED, group, HOP_LIMIT, &question);
    probe[6..12].copy_from_slice(&SERVER_MAC.0);
    host.input(&probe).assert_nothing();
    host.wait_secs(5);
    assert!(states(&host).iter().all(|&(_, state)| state == AddressState::Preferred));
    host.input(&advert().frame()).assert_nothing();
    for _ in 0..3 {
        host.wait_secs(60);
        assert_eq!(syn_to(&mut host, FAR), Some(ROUTER_MAC));
    }
}

#[test]
fn echo_to_the_group_of_an_address_that_is_somebody_elses_is_not_ours() {
    let given = Ipv6Addr::from_bits(OURS.to_bits() | 0x70);
    let mut host = of(Ipv6Config { addresses: vec![(given, 64)], ..Ipv6Config::default() });
    host.input(&claim(own_link_local(), own_link_local(), None)).assert_nothing();
    host.wait_secs(5);
    let request = [128, 0, 0, 0, 0, 7, 0, 9];
    assert!(matches!(host.input(&icmpv6(THEIRS, solicited_node(given), &request)), Outcome::Reply(_)));
    host.input(&icmpv6(THEIRS, solicited_node(own_link_local()), &request)).assert_nothing();
}

#[test]
fn address_of_the_link_is_for_what_stays_on_it() {
    let site = "fec0::1".parse().unwrap();
    let mut host = of(Ipv6Config { addresses: vec![(site, 64)], ..unprobed() });
    host.wait_ms(1);
    let source = |group: &str| host.stack.ipv6_source_for(group.parse().unwrap(), host.now);
    assert_eq!((source("ff02::5"), source("ff05::5")), (Some(own_link_local()), Some(site)));
    let host = of(unprobed());
    assert_eq!(host.stack.ipv6_source_for("ff05::5".parse().unwrap(), host.now), None);
}

#[test]
fn packet_too_big_of_more_than_any_packet_has_is_not_cut_to_one_that_has_less() {
    let mut host = settled();
    let conn = Client6::on_port(40_000).connect(&mut host);
    host.stack.send(conn, crate::harness::pattern(2_880)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let first = host.nic.frames.pop_front().unwrap();
    host.input(&super::errors::error_about(&first, 2, 0, 0x0001_0514, FAR)).assert_nothing();
    assert_eq!(host.stack.counters().path_mtu_reduced, 0);
}
