//! IGMPv3 as RFC 9776 has it, and the older versions where a querier speaks them.

use super::*;
use crate::harness::SERVER_IP;
use exos_net::JoinError;

const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// All groups within a second; robustness 2, every 125 s.
const GENERAL: &[u8] = &[0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];

fn host() -> StaticHost {
    StaticHost::with(config())
}

#[test]
fn joining_and_leaving_are_said_at_once_and_once_more_within_a_second() {
    let mut host = host();
    join(&mut host, GROUP);
    assert_eq!(host.stack.next_deadline(), Some(host.now));
    let sent = frames_within(&mut host, 5_000);
    let joins = igmp_report(SERVER_IP, &[(JOINS, GROUP)]);
    assert_sent(&sent, &[joins.clone(), joins]);
    assert!(sent[0].0 == 1 && sent[1].0 <= 1_001, "{} and {} ms", sent[0].0, sent[1].0);
    assert!(host.stack.leave_group(host.now, GROUP.into()));
    let sent = frames_within(&mut host, 5_000);
    let leaves = igmp_report(SERVER_IP, &[(LEAVES, GROUP)]);
    assert_sent(&sent, &[leaves.clone(), leaves]);
    assert!(sent[0].0 == 1 && sent[1].0 <= 1_001, "{} and {} ms", sent[0].0, sent[1].0);
    assert!(!host.stack.leave_group(host.now, GROUP.into()));
    assert_eq!(host.stack.next_deadline(), None);
    assert_eq!(host.stack.counters().group_reports_out, 4);
}

#[test]
fn group_is_left_by_the_last_who_joined_it() {
    let mut host = host();
    join(&mut host, GROUP);
    host.wait_secs(5);
    host.nic.frames.clear();
    join(&mut host, GROUP);
    assert!(host.stack.leave_group(host.now, GROUP.into()));
    assert_eq!(frames_within(&mut host, 2_000), []);
    assert_eq!(host.stack.groups().collect::<Vec<_>>(), [IpAddr::V4(GROUP)]);
    assert!(host.stack.leave_group(host.now, GROUP.into()));
    assert_sent(&frames_within(&mut host, 1)[..1], &[igmp_report(SERVER_IP, &[(LEAVES, GROUP)])]);
    assert_eq!(host.stack.groups().count(), 0);
}

#[test]
fn changes_of_one_moment_are_said_together() {
    let mut host = host();
    join(&mut host, OTHER);
    join(&mut host, GROUP);
    let sent = frames_within(&mut host, 3_000);
    let both = igmp_report(SERVER_IP, &[(JOINS, GROUP), (JOINS, OTHER)]);
    assert_sent(&sent, &[both.clone(), both]);
    // Who leaves while his joining is being said leaves.
    join(&mut host, Ipv4Addr::new(224, 0, 0, 251));
    host.wait_ms(1);
    host.stack.leave_group(host.now, Ipv4Addr::new(224, 0, 0, 251).into());
    host.nic.frames.clear();
    let leaves = igmp_report(SERVER_IP, &[(LEAVES, Ipv4Addr::new(224, 0, 0, 251))]);
    assert_sent(&frames_within(&mut host, 3_000), &[leaves.clone(), leaves]);
}

#[test]
fn question_for_all_groups_is_answered_once_within_its_time_and_not_always_at_the_same() {
    let mut host = host();
    join(&mut host, GROUP);
    join(&mut host, OTHER);
    join(&mut host, ALL_SYSTEMS);
    host.wait_secs(3);
    host.nic.frames.clear();
    let answer = igmp_report(SERVER_IP, &[(IS_IN, GROUP), (IS_IN, OTHER)]);
    let mut delays = Vec::new();
    for _ in 0..8 {
        host.input(&igmp_query(ALL_SYSTEMS, GENERAL)).assert_nothing();
        // The same again while the answer is pending asks for no other.
        host.input(&igmp_query(ALL_SYSTEMS, GENERAL)).assert_nothing();
        let sent = frames_within(&mut host, 1_500);
        assert_sent(&sent, std::slice::from_ref(&answer));
        assert!(sent[0].0 <= 1_001);
        delays.push(sent[0].0);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 4, "{delays:?}");
    assert_eq!(host.stack.counters().group_queries_in, 16);
}

#[test]
fn question_for_a_group_is_answered_for_that_and_only_by_members() {
    let mut host = host();
    join(&mut host, GROUP);
    join(&mut host, OTHER);
    host.wait_secs(3);
    host.nic.frames.clear();
    let specific = |group: Ipv4Addr, rest: &[u8]| {
        igmp_query(group, &[&[0x11, 10, 0, 0][..], &group.octets(), rest].concat())
    };
    // Some sources of it are asked for: we want them, as all others.
    for rest in [&[2, 125, 0, 0][..], &[2, 125, 0, 1, 192, 0, 2, 1]] {
        host.input(&specific(GROUP, rest)).assert_nothing();
        let sent = frames_within(&mut host, 1_500);
        assert_sent(&sent, &[igmp_report(SERVER_IP, &[(IS_IN, GROUP)])]);
        assert!(sent[0].0 <= 1_001);
    }
    let strange = Ipv4Addr::new(239, 9, 9, 9);
    host.input(&specific(strange, &[2, 125, 0, 0])).assert_nothing();
    host.stack.leave_group(host.now, GROUP.into());
    host.wait_secs(3);
    host.nic.frames.clear();
    host.input(&specific(GROUP, &[2, 125, 0, 0])).assert_nothing();
    assert_eq!(frames_within(&mut host, 1_500), []);
    assert_eq!((host.stack.counters().group_queries_in, host.stack.counters().dropped_not_for_us), (2, 2));
    // Asked of us alone, to find out what is wrong (RFC 9776 4.1.12).
    let mut alone = igmp_query(SERVER_IP, GENERAL);
    alone[..6].copy_from_slice(&SERVER_MAC.0);
    host.input(&alone).assert_nothing();
    assert_sent(&frames_within(&mut host, 1_500), &[igmp_report(SERVER_IP, &[(IS_IN, OTHER)])]);
}

#[test]
fn robustness_of_whoever_asks_says_how_often_changes_are_said() {
    let mut host = host();
    let asks = |robustness| [&GENERAL[..8], &[robustness, 125, 0, 0]].concat();
    for (robustness, times) in [(5, 5), (1, 1), (0, 2)] {
        host.input(&igmp_query(ALL_SYSTEMS, &asks(robustness))).assert_nothing();
        join(&mut host, GROUP);
        host.wait_ms(1);
        let first = host.nic.frames.len();
        host.wait_secs(10);
        let joins = frames(&mut host).iter().filter(|frame| frame[14 + 24 + 8] == JOINS).count();
        assert_eq!((first, joins), (1, times));
        host.stack.leave_group(host.now, GROUP.into());
        host.wait_secs(10);
        host.nic.frames.clear();
    }
}

#[test]
fn who_has_no_address_says_it_from_nobodys() {
    let mut host = StaticHost::with(Config { ip: NOBODY, prefix_len: 0, ..config() });
    join(&mut host, GROUP);
    assert_sent(&frames_within(&mut host, 1), &[igmp_report(NOBODY, &[(JOINS, GROUP)])]);
}

#[test]
fn group_of_all_hosts_is_never_spoken_of() {
    let mut host = host();
    join(&mut host, ALL_SYSTEMS);
    host.input(&igmp_query(ALL_SYSTEMS, GENERAL)).assert_nothing();
    host.input(&igmp_query(ALL_SYSTEMS, &[0x11, 10, 0, 0, 224, 0, 0, 1, 2, 125, 0, 0])).assert_nothing();
    assert!(host.stack.leave_group(host.now, ALL_SYSTEMS.into()));
    assert_eq!(frames_within(&mut host, 5_000), []);
}

#[test]
fn only_groups_are_joined_and_as_many_as_are_allowed() {
    let mut host = StaticHost::with(Config { max_groups: 2, ..config() });
    let mut join = |group: IpAddr| host.stack.join_group(host.now, group);
    assert_eq!(join(SERVER_IP.into()), Err(JoinError::NotAGroup));
    assert_eq!(join(Ipv4Addr::BROADCAST.into()), Err(JoinError::NotAGroup));
    assert_eq!(join(Ipv4Addr::new(224, 0, 0, 0).into()), Err(JoinError::NotAGroup));
    assert_eq!(join(GROUP_V6.into()), Err(JoinError::NoIpv6));
    assert_eq!([join(GROUP.into()), join(OTHER.into()), join(GROUP.into())], [Ok(()); 3]);
    assert_eq!(join(Ipv4Addr::new(224, 0, 0, 251).into()), Err(JoinError::TooMany));
    // Those that were left and of which that is still being said do not count, and do not pile up.
    for last in 0..200 {
        let group = IpAddr::V4(Ipv4Addr::new(239, 0, 0, last));
        host.stack.leave_group(host.now, OTHER.into());
        host.stack.join_group(host.now, group).unwrap();
        host.stack.leave_group(host.now, group);
        host.stack.join_group(host.now, OTHER.into()).unwrap();
    }
    host.wait_ms(1);
    let sent = frames(&mut host);
    assert!(sent.len() == 1 && sent[0].len() <= 14 + 24 + 8 + 5 * 8, "{sent:?}");
}

#[test]
fn many_groups_are_said_in_as_few_messages_as_the_link_takes() {
    let mut host = StaticHost::with(Config { max_groups: 400, mtu: 576, ..config() });
    for number in 0..200 {
        join(&mut host, Ipv4Addr::new(239, 0, 1, number));
    }
    host.wait_ms(1);
    let sent = frames(&mut host);
    assert_eq!(sent.iter().map(|frame| frame[14 + 24 + 7]).collect::<Vec<_>>(), [68, 68, 64]);
    assert!(sent.iter().all(|frame| frame.len() <= 14 + 576));
}

/// IGMPv2, as it looks on the wire.
fn old(to: Ipv4Addr, kind: u8, group: Ipv4Addr) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0][..], &group.octets()].concat();
    ipv4(SERVER_MAC.0, (SERVER_IP, to), 0xc0, &sealed(&message))
}

const V2_GENERAL: &[u8] = &[0x11, 100, 0, 0, 0, 0, 0, 0];
const V1_GENERAL: &[u8] = &[0x11, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn second_version_is_spoken_to_its_querier_and_the_third_again_when_that_is_gone() {
    let mut host = host();
    join(&mut host, GROUP);
    host.wait_secs(3);
    host.nic.frames.clear();
    host.input(&igmp_query(ALL_SYSTEMS, V2_GENERAL)).assert_nothing();
    let sent = frames_within(&mut host, 12_000);
    assert_sent(&sent, &[old(GROUP, 0x16, GROUP)]);
    assert!(sent[0].0 <= 10_001);
    join(&mut host, OTHER);
    let sent = frames_within(&mut host, 12_000);
    assert_sent(&sent, &[old(OTHER, 0x16, OTHER), old(OTHER, 0x16, OTHER)]);
    assert!(sent[0].0 == 1 && sent[1].0 <= 10_001);
    host.stack.leave_group(host.now, OTHER.into());
    assert_sent(&frames_within(&mut host, 12_000), &[old(Ipv4Addr::new(224, 0, 0, 2), 0x17, OTHER)]);
    // A question of the third version is answered as the second is spoken.
    host.input(&igmp_query(ALL_SYSTEMS, GENERAL)).assert_nothing();
    assert_sent(&frames_within(&mut host, 1_500), &[old(GROUP, 0x16, GROUP)]);
    // 2 times 125 s and 10 s after its last question (RFC 9776 8.12).
    host.wait_secs(260);
    host.input(&igmp_query(ALL_SYSTEMS, GENERAL)).assert_nothing();
    assert_sent(&frames_within(&mut host, 1_500), &[igmp_report(SERVER_IP, &[(IS_IN, GROUP)])]);
}

#[test]
fn first_version_knows_reports_only() {
    let mut host = host();
    host.input(&igmp_query(ALL_SYSTEMS, V2_GENERAL)).assert_nothing();
    host.input(&igmp_query(ALL_SYSTEMS, V1_GENERAL)).assert_nothing();
    join(&mut host, GROUP);
    let report = old(GROUP, 0x12, GROUP);
    assert_sent(&frames_within(&mut host, 12_000), &[report.clone(), report.clone()]);
    host.input(&igmp_query(ALL_SYSTEMS, V1_GENERAL)).assert_nothing();
    let sent = frames_within(&mut host, 12_000);
    assert_sent(&sent, &[report]);
    assert!(sent[0].0 <= 10_001);
    host.stack.leave_group(host.now, GROUP.into());
    assert_eq!(frames_within(&mut host, 12_000), []);
}

#[test]
fn pending_words_are_not_said_in_another_version() {
    let mut host = host();
    join(&mut host, GROUP);
    host.wait_ms(1);
    host.nic.frames.clear();
    // The second time is pending, and so is an answer.
    host.input(&igmp_query(ALL_SYSTEMS, GENERAL)).assert_nothing();
    host.input(&igmp_query(ALL_SYSTEMS, V2_GENERAL)).assert_nothing();
    assert_sent(&frames_within(&mut host, 12_000), &[old(GROUP, 0x16, GROUP)]);
}

#[test]
fn question_of_the_second_version_for_one_group_does_not_change_the_version() {
    let mut host = host();
    join(&mut host, GROUP);
    host.wait_secs(3);
    host.nic.frames.clear();
    host.input(&igmp_query(GROUP, &[0x11, 100, 0, 0, 239, 1, 2, 3])).assert_nothing();
    assert_sent(&frames_within(&mut host, 12_000), &[igmp_report(SERVER_IP, &[(IS_IN, GROUP)])]);
    join(&mut host, OTHER);
    let joins = igmp_report(SERVER_IP, &[(JOINS, OTHER)]);
    assert_sent(&frames_within(&mut host, 3_000), &[joins.clone(), joins]);
}

#[test]
fn what_changes_first_after_an_older_querier_is_said_in_the_third_version() {
    for joins in [true, false] {
        let mut host = host();
        join(&mut host, OTHER);
        host.wait_secs(3);
        host.input(&igmp_query(ALL_SYSTEMS, V2_GENERAL)).assert_nothing();
        host.wait_secs(300);
        host.nic.frames.clear();
        let record = if joins {
            join(&mut host, GROUP);
            (JOINS, GROUP)
        } else {
            assert!(host.stack.leave_group(host.now, OTHER.into()));
            (LEAVES, OTHER)
        };
        let said = igmp_report(SERVER_IP, &[record]);
        assert_sent(&frames_within(&mut host, 12_000), &[said.clone(), said]);
    }
}

#[test]
fn what_the_driver_did_not_take_is_not_counted() {
    let mut host = host();
    host.nic.room = Some(1);
    join(&mut host, GROUP);
    assert_eq!(frames_within(&mut host, 3_000).len(), 1);
    assert_eq!(host.stack.counters().group_reports_out, 1);
}

#[test]
fn others_report_is_enough_in_the_second_version_and_nothing_in_the_third() {
    let report = |group| {
        let message = [&[0x16, 0, 0, 0][..], &Ipv4Addr::octets(&group)].concat();
        ipv4(CLIENT_MAC.0, (ROUTER, group), 0xc0, &sealed(&message))
    };
    for (query, answers) in [(GENERAL, 2), (V2_GENERAL, 1)] {
        let mut host = host();
        join(&mut host, GROUP);
        join(&mut host, OTHER);
        host.wait_secs(3);
        host.nic.frames.clear();
        host.input(&igmp_query(ALL_SYSTEMS, query)).assert_nothing();
        host.input(&report(GROUP)).assert_nothing();
        host.wait_secs(11);
        let said: usize = frames(&mut host)
            .iter()
            .map(|frame| (frame.len() - 14 - 24) / 8 - usize::from(frame[38] == 0x22))
            .sum();
        assert_eq!(said, answers);
    }
}
