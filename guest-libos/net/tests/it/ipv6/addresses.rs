//! Addresses that the interface makes or is given (RFC 4862 5.4, RFC 7217, RFC 7527).

use std::net::Ipv6Addr;

use exos_net::wire::ipv6::{ALL_NODES, multicast_mac, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, Message};
use exos_net::{
    AddressConflict, AddressState, Config, ConfigError, ConflictOutcome, InterfaceId, Ipv6Config, Stack,
};

use super::routers::{Advert, advert};
use super::*;
use crate::harness::{SERVER_IP, config};
use crate::link::arp_reply;

fn probe_of(host: &mut StaticHost, target: Ipv6Addr) -> (Sent, Message) {
    let mut probes = said(host);
    probes.retain(
        |(_, message)| matches!(message, Message::Solicitation { target: asked, .. } if *asked == target),
    );
    assert_eq!(probes.len(), 1);
    probes.remove(0)
}

#[test]
fn address_is_used_after_nobody_answered_the_question_about_it() {
    let mut host = StaticHost::with(with_ipv6(Ipv6Config::default()));
    let own = own_link_local();
    assert_eq!(states(&host), [(own, AddressState::Tentative)]);
    host.wait_secs(1);
    let (sent, message) = probe_of(&mut host, own);
    assert_eq!((sent.ip.source, sent.ip.destination), (Ipv6Addr::UNSPECIFIED, solicited_node(own)));
    assert_eq!((sent.ip.hop_limit, sent.to_mac), (HOP_LIMIT, multicast_mac(solicited_node(own))));
    assert!(matches!(message, Message::Solicitation { source_mac: None, nonce: Some(_), .. }));
    // Not ours yet: neither answered for, nor listened at.
    host.input(&solicitation(link_local(CLIENT_MAC), own)).assert_nothing();
    host.input(&icmpv6(link_local(CLIENT_MAC), own, &[128, 0, 0, 0, 0, 7, 0, 9])).assert_nothing();
    host.wait_secs(1);
    assert_eq!(states(&host), [(own, AddressState::Preferred)]);
    let reply = read(&host.input(&solicitation(link_local(CLIENT_MAC), own)).reply());
    assert_eq!(reply.ip.source, own);
}

#[test]
fn address_that_somebody_has_is_never_used() {
    let own = own_link_local();
    let defence = Message::Advertisement {
        target: own,
        router: false,
        solicited: false,
        overrides: true,
        target_mac: Some(CLIENT_MAC),
    };
    let rival = Message::Solicitation { target: own, source_mac: None, nonce: Some([9; 6]) };
    for frame in [
        nd_frame(own, ALL_NODES, HOP_LIMIT, &defence),
        nd_frame(Ipv6Addr::UNSPECIFIED, solicited_node(own), HOP_LIMIT, &rival),
    ] {
        let mut host = StaticHost::with(with_ipv6(Ipv6Config::default()));
        host.wait_ms(10);
        host.input(&frame).assert_nothing();
        assert_eq!(states(&host), [(own, AddressState::Duplicate)]);
        host.wait_secs(100);
        assert_eq!(
            (states(&host), host.stack.counters().duplicate_addresses),
            (vec![(own, AddressState::Duplicate)], 1)
        );
        host.input(&solicitation(link_local(CLIENT_MAC), own)).assert_nothing();
        assert_eq!(host.stack.ipv6_source_for(link_local(CLIENT_MAC), host.now), None);
    }
}

#[test]
fn whoever_has_or_claims_an_address_of_ours_is_named_and_not_too_often() {
    let conflict = |address: Ipv6Addr, outcome| {
        Some(AddressConflict { address: address.into(), by: CLIENT_MAC, outcome })
    };
    let own = own_link_local();
    let mut host = StaticHost::with(with_ipv6(Ipv6Config::default()));
    host.input(&claim(own, CLIENT_MAC)).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), conflict(own, ConflictOutcome::GivenUp));
    // One that is in use stays, and hearing it claimed again and again is told once in ten seconds.
    let mut host = settled();
    for told in [1, 0, 0] {
        host.input(&claim(OURS, CLIENT_MAC)).assert_nothing();
        let expected = conflict(OURS, ConflictOutcome::Kept).filter(|_| told == 1);
        assert_eq!(host.stack.take_address_conflict(), expected);
    }
    host.wait_secs(11);
    host.input(&claim(OURS, CLIENT_MAC)).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), conflict(OURS, ConflictOutcome::Kept));
    // Our own words, come back over a bridge.
    host.wait_secs(11);
    host.input(&claim(OURS, SERVER_MAC)).assert_nothing();
    assert_eq!((host.stack.take_address_conflict(), host.stack.counters().duplicate_addresses), (None, 4));
    assert!(states(&host).contains(&(OURS, AddressState::Preferred)));
}

#[test]
fn conflicts_of_several_addresses_are_each_told() {
    let told = |host: &mut StaticHost| -> Vec<_> {
        std::iter::from_fn(|| host.stack.take_address_conflict())
            .map(|conflict| (conflict.address, conflict.outcome))
            .collect()
    };
    let (own, kept) = (own_link_local(), ConflictOutcome::Kept);
    let mut host = settled();
    host.input(&claim(OURS, CLIENT_MAC)).assert_nothing();
    host.input(&arp_reply(SERVER_IP, CLIENT_MAC));
    // Each is silent for itself about the next claims.
    for _ in 0..2 {
        host.input(&claim(own, CLIENT_MAC)).assert_nothing();
        host.input(&claim(OURS, CLIENT_MAC)).assert_nothing();
    }
    assert_eq!(told(&mut host), [(OURS.into(), kept), (SERVER_IP.into(), kept), (own.into(), kept)]);
    // Who takes long to ask hears the last one of each.
    for _ in 0..3 {
        host.wait_secs(11);
        host.input(&claim(own, CLIENT_MAC)).assert_nothing();
        host.input(&claim(OURS, CLIENT_MAC)).assert_nothing();
    }
    assert_eq!(told(&mut host), [(own.into(), kept), (OURS.into(), kept)]);
    // Both are lost before they are used.
    let addresses = vec![(OURS, 64)];
    let mut host = StaticHost::with(with_ipv6(Ipv6Config { addresses, ..Ipv6Config::default() }));
    for address in [OURS, own] {
        host.input(&claim(address, CLIENT_MAC)).assert_nothing();
    }
    let given_up = ConflictOutcome::GivenUp;
    assert_eq!(told(&mut host), [(OURS.into(), given_up), (own.into(), given_up)]);
}

#[test]
fn conflicts_that_nobody_asks_for_are_bounded() {
    let interface_id = InterfaceId::Stable([1; 16]);
    let ipv6 = Ipv6Config { interface_id, max_addresses: 20, ..Ipv6Config::default() };
    let mut host = StaticHost::with(with_ipv6(ipv6));
    for number in 1..20 {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 9, number, 0, 0, 0, 0);
        host.input(&Advert { prefix, ..advert() }.frame()).assert_nothing();
    }
    let mut claimed = Vec::new();
    for _ in 0..4 {
        for (address, _) in states(&host) {
            host.input(&claim(address, CLIENT_MAC)).assert_nothing();
            claimed.push(address);
        }
    }
    let told: Vec<_> = std::iter::from_fn(|| host.stack.take_address_conflict()).collect();
    let told: Vec<_> = told.iter().map(|conflict| conflict.address).collect();
    assert_eq!(claimed.len(), 80);
    assert_eq!(told, claimed[80 - 32..], "the newest");
}

#[test]
fn addresses_are_settled_when_nobody_is_asked_any_more() {
    let settled_after = |ipv6, secs| {
        let mut host = StaticHost::with(with_ipv6(ipv6));
        let mut seen = vec![host.stack.ipv6_is_settled()];
        for _ in 0..secs {
            let before = (host.stack.ipv6_is_settled(), states(&host), host.stack.ipv6_changes());
            host.wait_secs(1);
            let after = (host.stack.ipv6_is_settled(), states(&host), host.stack.ipv6_changes());
            assert!(before.2 != after.2 || before == after, "{before:?}, {after:?}");
            seen.push(after.0);
        }
        seen.iter().position(|&is_settled| is_settled)
    };
    let given =
        Ipv6Config { addresses: vec![(OURS, 64)], router_advertisements: false, ..Ipv6Config::default() };
    // The wait before a question and the wait for the answer.
    assert_eq!(settled_after(given.clone(), 5), Some(2));
    assert_eq!(settled_after(Ipv6Config { probes: 0, ..given.clone() }, 1), Some(0));
    // Routers may take as long as their interval before nobody is there.
    let asking = Ipv6Config { router_advertisements: true, ..given };
    assert!(settled_after(asking, 20).is_some_and(|secs| (5..=7).contains(&secs)));
}

#[test]
fn defence_from_beyond_the_link_takes_no_address() {
    let own = own_link_local();
    let forged = Message::Advertisement {
        target: own,
        router: false,
        solicited: false,
        overrides: true,
        target_mac: Some(CLIENT_MAC),
    };
    let mut host = StaticHost::with(with_ipv6(Ipv6Config::default()));
    host.input(&nd_frame(own, ALL_NODES, 254, &forged)).assert_nothing();
    assert_eq!(host.stack.counters().dropped_off_link, 1);
    host.wait_secs(2);
    assert_eq!(states(&host), [(own, AddressState::Preferred)]);
}

#[test]
fn own_question_that_comes_back_is_no_collision() {
    let mut host = StaticHost::with(with_ipv6(Ipv6Config::default()));
    host.wait_secs(1);
    let mut echo = host.nic.frames.pop_front().unwrap();
    // As a hub sends it on, from another port's address.
    echo[6..12].copy_from_slice(&CLIENT_MAC.0);
    host.input(&echo).assert_nothing();
    host.wait_secs(1);
    assert_eq!(states(&host), [(own_link_local(), AddressState::Preferred)]);
}

#[test]
fn stable_address_gives_way_to_another_and_differs_by_secret() {
    let host_of = |secret| {
        let interface_id = InterfaceId::Stable(secret);
        StaticHost::with(with_ipv6(Ipv6Config { interface_id, ..Ipv6Config::default() }))
    };
    let mut host = host_of([1; 16]);
    let first = states(&host)[0].0;
    assert_eq!((states(&host_of([1; 16]))[0].0, first.is_unicast_link_local()), (first, true));
    assert_ne!(states(&host_of([2; 16]))[0].0, first);
    assert_ne!(first, own_link_local());
    let mut seen = vec![first];
    for _ in 0..3 {
        let current = *seen.last().unwrap();
        host.input(&advertisement_to_all(current)).assert_nothing();
        let [(next, AddressState::Tentative)] = states(&host)[..] else { panic!("{:?}", states(&host)) };
        assert!(!seen.contains(&next));
        seen.push(next);
    }
    host.input(&advertisement_to_all(seen[3])).assert_nothing();
    assert_eq!(states(&host), [(seen[3], AddressState::Duplicate)]);
}

fn advertisement_to_all(target: Ipv6Addr) -> Vec<u8> {
    let message =
        Message::Advertisement { target, router: false, solicited: false, overrides: true, target_mac: None };
    nd_frame(target, ALL_NODES, HOP_LIMIT, &message)
}

/// Everybody is told that `mac` has the address.
fn claim(target: Ipv6Addr, mac: MacAddress) -> Vec<u8> {
    let target_mac = Some(mac);
    let message =
        Message::Advertisement { target, router: false, solicited: false, overrides: true, target_mac };
    nd_frame(target, ALL_NODES, HOP_LIMIT, &message)
}

#[test]
fn given_addresses_are_asked_about_as_well() {
    let addresses = vec![(OURS, 64)];
    let mut host = StaticHost::with(with_ipv6(Ipv6Config { addresses, ..Ipv6Config::default() }));
    host.wait_secs(1);
    probe_of(&mut host, OURS);
    host.wait_secs(1);
    assert_eq!(states(&host)[1], (OURS, AddressState::Preferred));
}

#[test]
fn impossible_ipv6_configurations_are_refused() {
    let refused = |config: Config| Stack::<&'static [u8]>::new(config, exos_net::Instant::ZERO).unwrap_err();
    let small = Config { mtu: 1_279, ..with_ipv6(Ipv6Config::default()) };
    assert_eq!(refused(small), ConfigError::MtuTooSmallForIpv6);
    for address in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        let addresses = vec![(address.parse().unwrap(), 64)];
        let bad = with_ipv6(Ipv6Config { addresses, ..Ipv6Config::default() });
        assert_eq!(refused(bad), ConfigError::Ipv6Addresses, "{address}");
    }
    let many = with_ipv6(Ipv6Config { addresses: vec![(OURS, 64); 8], ..Ipv6Config::default() });
    assert_eq!(refused(many), ConfigError::Ipv6Addresses);
    let long = with_ipv6(Ipv6Config { addresses: vec![(OURS, 129)], ..Ipv6Config::default() });
    assert_eq!(refused(long), ConfigError::Ipv6Addresses);
}

#[test]
fn without_ipv6_its_packets_are_dropped() {
    let mut host = StaticHost::with(config());
    host.input(&solicitation(link_local(CLIENT_MAC), own_link_local())).assert_nothing();
    // A group that we are not in, as nobody has joined it.
    assert_eq!((host.stack.counters().dropped_not_for_us, states(&host).len()), (1, 0));
}
