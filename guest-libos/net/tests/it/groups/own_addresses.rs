//! The solicited-node groups of our own addresses: switches that snoop forward no question about an address into whose group
//! nobody has said to be (RFC 4862 5.4.2, RFC 3590).

use super::*;
use crate::ipv6::{OURS, nd_frame, own_link_local};
use exos_net::Duration;
use exos_net::wire::ipv6::{ALL_NODES, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, Message};

fn host(ipv6: Ipv6Config) -> StaticHost {
    StaticHost::with(Config { ipv6: Some(Ipv6Config { router_advertisements: false, ..ipv6 }), ..config() })
}

fn is_question(frame: &[u8]) -> bool {
    frame[20] == 58 && frame[54] == 135
}

#[test]
fn group_of_a_tentative_address_is_told_from_nobody_before_the_question_about_it() {
    let mut host = host(Ipv6Config::default());
    let group = solicited_node(own_link_local());
    let sent = frames_within(&mut host, 1_001);
    let [(reported_at, report), (asked_at, question), ..] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((report, reported_at), (&mld_report(Ipv6Addr::UNSPECIFIED, &[(JOINS, group)]), asked_at));
    assert!(is_question(question));
    // From the address itself, as soon as it is ours: routers do not hear nobody.
    let mut later: Vec<_> = sent[2..].iter().map(|(_, frame)| frame.clone()).collect();
    later.extend(frames_within(&mut host, 4_000).into_iter().map(|(_, frame)| frame));
    let from_us = mld_report(own_link_local(), &[(JOINS, group)]);
    assert_eq!(later.iter().filter(|frame| **frame == from_us).count(), 2, "{later:?}");
    assert!(later.iter().filter(|frame| **frame != from_us).all(|frame| frame == report));
}

#[test]
fn what_is_said_again_after_an_older_querier_is_said_in_the_second_version() {
    let mut host = host(Ipv6Config::default());
    let group = solicited_node(own_link_local());
    // The question about the address has been asked, and it is ours a second later; before that an older querier's time is over.
    while !frames(&mut host).iter().any(|frame| is_question(frame)) {
        host.wait_ms(1);
    }
    let short = [1, 1, 0, 0];
    host.input(&mld_query(ALL_NODES, 0, group, &short)).assert_nothing();
    host.input(&mld_query(ALL_NODES, 0, Ipv6Addr::UNSPECIFIED, &[])).assert_nothing();
    host.wait_ms(990);
    host.nic.frames.clear();
    host.now += Duration::from_millis(20);
    let from_us = mld_report(own_link_local(), &[(JOINS, group)]);
    let sent = frames_within(&mut host, 4_000);
    assert_eq!(sent.iter().filter(|(_, frame)| *frame == from_us).count(), 1, "{sent:?}");
}

/// Of another group than the link-local address, whose group is that of [`OURS`].
const FIFTH: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 5);

#[test]
fn addresses_of_one_group_are_told_together() {
    assert_eq!(solicited_node(OURS), solicited_node(own_link_local()));
    let addresses = vec![(OURS, 64), (FIFTH, 64)];
    let mut host = host(Ipv6Config { addresses, probes: 0, ..Ipv6Config::default() });
    host.wait_ms(1);
    let records = [OURS, FIFTH].map(|address| (JOINS, solicited_node(address)));
    assert_eq!(frames(&mut host), [mld_report(own_link_local(), &records)]);
}

/// Somebody says that he has an address.
fn claim(target: Ipv6Addr) -> Vec<u8> {
    let message = Message::Advertisement {
        target,
        router: false,
        solicited: false,
        overrides: true,
        target_mac: Some(CLIENT_MAC),
    };
    nd_frame(target, ALL_NODES, HOP_LIMIT, &message)
}

#[test]
fn group_of_an_address_that_somebody_else_has_is_left_unless_another_needs_it() {
    for (address, is_left) in [(FIFTH, true), (OURS, false)] {
        let mut host = host(Ipv6Config { addresses: vec![(address, 64)], ..Ipv6Config::default() });
        host.wait_ms(1_000);
        host.nic.frames.clear();
        host.input(&claim(address)).assert_nothing();
        let group = solicited_node(address).octets();
        let leaves = |frame: &Vec<u8>| frame[20] == 0 && frame[70] == LEAVES && frame[74..90] == group;
        host.wait_ms(1);
        let sent = frames(&mut host);
        assert_eq!(sent.iter().any(leaves), is_left, "{sent:?}");
    }
}

#[test]
fn nobody_is_told_of_anything_where_somebody_else_speaks() {
    let ipv6 = Ipv6Config { router_advertisements: false, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { ipv6: Some(ipv6), group_reports: false, ..config() });
    join(&mut host, GROUP);
    join(&mut host, GROUP_V6);
    host.wait_secs(5);
    host.input(&mld_query(ALL_NODES, 0, Ipv6Addr::UNSPECIFIED, &[2, 125, 0, 0])).assert_nothing();
    host.wait_secs(5);
    host.stack.leave_group(host.now, GROUP.into());
    host.wait_secs(5);
    let sent = frames(&mut host);
    assert!(sent.len() == 1 && is_question(&sent[0]), "{sent:?}");
}
