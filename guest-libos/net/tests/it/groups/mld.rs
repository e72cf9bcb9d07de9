//! MLDv2 as RFC 9777 has it, and MLDv1 where a querier speaks it.

use super::*;
use crate::ipv6::own_link_local;
use exos_net::JoinError;
use exos_net::wire::ipv6::solicited_node;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// Robustness 2, every 125 s, no sources.
const V2: &[u8] = &[2, 125, 0, 0];

fn joined() -> StaticHost {
    let mut host = told();
    join(&mut host, GROUP_V6);
    host.wait_secs(3);
    host.nic.frames.clear();
    host
}

#[test]
fn joining_and_leaving_are_said_at_once_and_once_more_within_a_second() {
    let mut host = told();
    join(&mut host, GROUP_V6);
    let sent = frames_within(&mut host, 5_000);
    let joins = mld_report(own_link_local(), &[(JOINS, GROUP_V6)]);
    assert_sent(&sent, &[joins.clone(), joins]);
    assert!(sent[0].0 == 1 && sent[1].0 <= 1_001);
    assert!(host.stack.leave_group(host.now, GROUP_V6.into()));
    let leaves = mld_report(own_link_local(), &[(LEAVES, GROUP_V6)]);
    assert_sent(&frames_within(&mut host, 5_000), &[leaves.clone(), leaves]);
}

#[test]
fn question_for_all_groups_is_answered_with_those_of_our_addresses() {
    let mut host = joined();
    let own = solicited_node(own_link_local());
    let answer = mld_report(own_link_local(), &[(IS_IN, own), (IS_IN, GROUP_V6)]);
    let mut delays = Vec::new();
    for _ in 0..6 {
        host.input(&mld_query(ALL_NODES, 1_000, NONE, V2)).assert_nothing();
        let sent = frames_within(&mut host, 1_500);
        assert_sent(&sent, std::slice::from_ref(&answer));
        assert!(sent[0].0 <= 1_001);
        delays.push(sent[0].0);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 3, "{delays:?}");
}

#[test]
fn question_for_a_group_is_answered_for_that_and_only_by_members() {
    let mut host = joined();
    let source = ROUTER_V6.octets();
    for rest in [V2, &[&[2, 125, 0, 1][..], &source].concat()] {
        host.input(&mld_query(GROUP_V6, 1_000, GROUP_V6, rest)).assert_nothing();
        assert_sent(&frames_within(&mut host, 1_500), &[mld_report(own_link_local(), &[(IS_IN, GROUP_V6)])]);
    }
    let strange = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 9);
    for to in [strange, ALL_NODES] {
        host.input(&mld_query(to, 1_000, strange, V2)).assert_nothing();
    }
    assert_eq!(frames_within(&mut host, 1_500), []);
    assert_eq!((host.stack.counters().group_queries_in, host.stack.counters().dropped_not_for_us), (2, 2));
}

#[test]
fn groups_of_all_nodes_and_of_the_host_alone_are_never_spoken_of() {
    let mut host = told();
    let alone = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 5);
    for group in [ALL_NODES, alone] {
        join(&mut host, group);
        host.input(&mld_query(ALL_NODES, 0, group, V2)).assert_nothing();
        assert!(host.stack.leave_group(host.now, group.into()));
    }
    assert_eq!(frames_within(&mut host, 3_000), []);
    // Of scope 0, whatever the flags say; and no group at all.
    for first in [0xff00, 0xff10, 0x2001] {
        let nobodys = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 5);
        assert_eq!(host.stack.join_group(host.now, nobodys.into()), Err(JoinError::NotAGroup));
    }
}

#[test]
fn first_version_is_spoken_to_its_querier_and_the_second_again_when_that_is_gone() {
    let mut host = joined();
    let own = solicited_node(own_link_local());
    host.input(&mld_query(ALL_NODES, 1_000, NONE, &[])).assert_nothing();
    let sent = frames_within(&mut host, 3_000);
    let reports = [own, GROUP_V6].map(|group| mld_old(own_link_local(), group, 131, group));
    let mut said: Vec<_> = sent.iter().map(|(_, frame)| frame.clone()).collect();
    said.sort_by_key(|frame| frame != &reports[0]);
    assert_eq!(said, reports);
    assert!(sent.iter().all(|(ms, _)| *ms <= 1_051));
    // Somebody else is in the group.
    host.input(&mld_query(GROUP_V6, 1_000, GROUP_V6, &[])).assert_nothing();
    let mut others = mld_old(ROUTER_V6, GROUP_V6, 131, GROUP_V6);
    others[6..12].copy_from_slice(&CLIENT_MAC.0);
    host.input(&others).assert_nothing();
    assert_eq!(frames_within(&mut host, 3_000), []);
    host.stack.leave_group(host.now, GROUP_V6.into());
    assert_sent(&frames_within(&mut host, 12_000), &[mld_old(own_link_local(), ALL_ROUTERS, 132, GROUP_V6)]);
    host.wait_secs(252);
    host.input(&mld_query(ALL_NODES, 1_000, NONE, V2)).assert_nothing();
    assert_sent(&frames_within(&mut host, 1_500), &[mld_report(own_link_local(), &[(IS_IN, own)])]);
}

#[test]
fn what_changes_first_after_an_older_querier_is_said_in_the_second_version() {
    for joins in [true, false] {
        let mut host = joined();
        host.input(&mld_query(ALL_NODES, 1_000, NONE, &[])).assert_nothing();
        host.wait_secs(300);
        host.nic.frames.clear();
        let other = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 9);
        let record = if joins {
            join(&mut host, other);
            (JOINS, other)
        } else {
            assert!(host.stack.leave_group(host.now, GROUP_V6.into()));
            (LEAVES, GROUP_V6)
        };
        let said = mld_report(own_link_local(), &[record]);
        assert_sent(&frames_within(&mut host, 12_000), &[said.clone(), said]);
    }
}

#[test]
fn many_groups_are_said_in_as_few_messages_as_the_link_takes() {
    let quiet = Ipv6Config { probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    // 1,295 bytes would take 62 records but for the report's header, 1,296 bytes do.
    for (mtu, records) in [(1_280, [61, 40]), (1_295, [61, 40]), (1_296, [62, 39])] {
        let ipv6 = Some(quiet.clone());
        let mut host = StaticHost::with(Config { ipv6, max_groups: 100, mtu, ..config() });
        for number in 0..100 {
            join(&mut host, Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 9, number));
        }
        host.wait_ms(1);
        let sent = frames(&mut host);
        assert_eq!(sent.iter().map(|frame| frame[14 + 48 + 7]).collect::<Vec<_>>(), records);
        assert!(sent.iter().all(|frame| frame.len() <= 14 + usize::from(mtu)));
    }
}
