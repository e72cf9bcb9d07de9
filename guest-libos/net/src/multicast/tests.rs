//! What is said when, to the millisecond: the messages are `tests/it/groups`'.

use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 0, 0, 2));
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 0, 0, 3));
const EVERYBODYS: IpAddr = IpAddr::V4(crate::wire::igmp::ALL_SYSTEMS);
const A_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1));
const SECRET: [u8; 16] = *b"0123456789abcdef";
/// Of all groups, within ten seconds.
const ALL: Query = Query {
    version: Version::Current,
    group: None,
    max_response_ms: 10_000,
    robustness: None,
    interval_s: None,
};
const OLDER: Query = Query { version: Version::Older, ..ALL };

/// One that speaks, and may be in two groups and have two of its addresses.
fn membership() -> Membership {
    Membership::new(b"igmp", 2, 2, true, SECRET)
}

/// In these groups, of which everything has been said; and when.
fn settled(groups: &[IpAddr]) -> (Membership, Instant) {
    let mut membership = membership();
    for &group in groups {
        membership.join(group, Instant::ZERO).unwrap();
    }
    said(&mut membership, Instant::ZERO);
    (membership, ms(5_000))
}

fn ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn poll(membership: &mut Membership, now: Instant) -> Vec<(IpAddr, Record)> {
    let mut due = Vec::new();
    membership.poll(now, &mut due);
    due.iter().map(|due| (due.group, due.record)).collect()
}

/// What is said from `now` until there is nothing more to say, always at the deadline; each says something.
fn said(membership: &mut Membership, now: Instant) -> Vec<(Duration, IpAddr, Record)> {
    let mut all = Vec::new();
    while membership.next_deadline() < Instant::NEVER {
        let at = membership.next_deadline().max(now);
        let due = poll(membership, at);
        assert!(!due.is_empty(), "a deadline in vain at {at:?}");
        all.extend(due.into_iter().map(|(group, record)| (at.since(now), group, record)));
    }
    all
}

fn words(said: &[(Duration, IpAddr, Record)]) -> Vec<(IpAddr, Record)> {
    said.iter().map(|&(_, group, record)| (group, record)).collect()
}

#[test]
fn the_older_version_is_over_when_its_time_is() {
    for (robustness, interval_s, secs) in [(None, None, 260), (Some(3), Some(10), 40), (Some(3), None, 385)] {
        for (version, response_ms) in [(Version::Older, 10_000), (Version::Oldest, 10_000)] {
            let (mut membership, now) = settled(&[A]);
            assert_eq!(membership.poll(Instant::ZERO, &mut vec![]), Version::Current);
            membership.query_arrives(&Query { robustness, interval_s: Some(7), ..ALL }, now);
            membership.query_arrives(&Query { robustness, interval_s, ..ALL }, now);
            membership.query_arrives(&Query { version, max_response_ms: response_ms, ..ALL }, now);
            let over = now + Duration::from_secs(secs);
            let just_before = now + Duration::from_millis(secs * 1_000 - 1);
            assert_eq!(membership.poll(just_before, &mut vec![]), version);
            assert_eq!(membership.poll(over, &mut vec![]), Version::Current);
        }
    }
}

#[test]
fn question_of_the_first_mld_for_a_group_tells_who_is_there_and_of_the_second_igmp_does_not() {
    for (group, version) in [(A, Version::Current), (A_V6, Version::Older)] {
        let mut membership = membership();
        membership.query_arrives(&Query { group: Some(group), ..OLDER }, ms(1));
        assert_eq!(membership.poll(ms(1), &mut vec![]), version);
    }
}

#[test]
fn answers_are_spread_over_the_whole_time_and_no_longer() {
    let (mut membership, mut now) = settled(&[A, B]);
    let mut latest = Duration::ZERO;
    for _ in 0..50 {
        for group in [None, Some(A)] {
            now += Duration::from_secs(60);
            assert!(membership.query_arrives(&Query { group, ..ALL }, now));
            let answers = said(&mut membership, now);
            assert_eq!(answers.len(), if group.is_some() { 1 } else { 2 });
            assert!(answers[0].0 <= Duration::from_millis(10_000));
            latest = latest.max(answers[0].0);
        }
        now += Duration::from_secs(60);
        assert!(membership.query_arrives(&Query { max_response_ms: 0, ..ALL }, now));
        assert_eq!(membership.next_deadline(), now);
        assert_eq!(said(&mut membership, now).len(), 2);
    }
    assert!(latest > Duration::from_millis(9_000), "{latest:?}");
}

#[test]
fn families_do_not_answer_at_one_moment() {
    let answers = [&b"igmp"[..], b"mld"].map(|label| {
        let mut membership = Membership::new(label, 2, 2, true, SECRET);
        membership.query_arrives(&ALL, ms(1));
        membership.next_deadline()
    });
    assert_ne!(answers[0], answers[1]);
}

#[test]
fn question_that_is_repeated_does_not_put_the_answer_off() {
    for group in [None, Some(A)] {
        let (mut membership, now) = settled(&[A]);
        let mut before = Instant::NEVER;
        for _ in 0..50 {
            assert!(membership.query_arrives(&Query { group, ..ALL }, now));
            assert!(membership.next_deadline() <= before);
            before = membership.next_deadline();
        }
        assert_eq!(words(&said(&mut membership, now)), [(A, Record::IsMember)]);
    }
}

#[test]
fn whoever_was_answered_waits_for_the_next_answer() {
    let (mut membership, now) = settled(&[A]);
    let at_once = Query { max_response_ms: 0, ..ALL };
    // Who had nothing to say may speak.
    assert_eq!(poll(&mut membership, now), []);
    membership.query_arrives(&at_once, now);
    assert_eq!(poll(&mut membership, now), [(A, Record::IsMember)]);
    membership.query_arrives(&at_once, now);
    let again = now + ANSWER_INTERVAL;
    assert_eq!(membership.next_deadline(), again);
    assert_eq!(poll(&mut membership, now + Duration::from_millis(49)), []);
    assert_eq!(poll(&mut membership, again), [(A, Record::IsMember)]);
    assert_eq!(membership.next_deadline(), Instant::NEVER);
}

#[test]
fn who_has_left_answers_nobody() {
    let (mut membership, now) = settled(&[A, EVERYBODYS]);
    // Asked, and left before the answer; joined again, and asked no more.
    assert!(membership.query_arrives(&Query { group: Some(A), ..ALL }, now));
    assert!(membership.leave(A, now));
    assert!(
        !membership.query_arrives(&Query { group: Some(A), ..ALL }, now),
        "left, and that is not said yet"
    );
    membership.join(A, now).unwrap();
    assert_eq!(words(&said(&mut membership, now)), [(A, Record::Joins); 2]);
    // All are asked, who has left among them.
    let now = ms(60_000);
    membership.leave(A, now);
    membership.query_arrives(&Query { max_response_ms: 0, ..ALL }, now);
    assert_eq!(poll(&mut membership, now), [(A, Record::Leaves)]);
    assert_eq!(words(&said(&mut membership, now)), [(A, Record::Leaves)]);
    // Of everybody's group nobody is told.
    assert!(!membership.query_arrives(&Query { group: Some(EVERYBODYS), ..ALL }, now));
    assert_eq!(membership.next_deadline(), Instant::NEVER);
}

#[test]
fn groups_that_were_left_are_forgotten_when_it_has_been_said() {
    let (mut membership, now) = settled(&[A]);
    assert!(membership.is_joined(A));
    membership.leave(A, now);
    assert!(!membership.is_joined(A) && !membership.leave(A, now));
    assert_eq!((membership.groups.len(), membership.joined().count()), (1, 0));
    said(&mut membership, now);
    assert!(membership.groups.is_empty());
    // At once where nothing is said: of everybody's group, or by whoever does not speak.
    membership.join(EVERYBODYS, now).unwrap();
    membership.leave(EVERYBODYS, now);
    assert!(membership.groups.is_empty());
    let mut silent = Membership::new(b"igmp", 2, 2, false, SECRET);
    silent.join(A, now).unwrap();
    silent.leave(A, now);
    assert!(silent.groups.is_empty());
    // And when an older version is spoken from now on.
    membership.join(A, now).unwrap();
    membership.leave(A, now);
    membership.query_arrives(&OLDER, now);
    assert!(membership.groups.is_empty());
}

#[test]
fn of_as_many_groups_that_were_left_is_told_as_may_be_joined() {
    let mut membership = membership();
    let group = |last| IpAddr::V4(Ipv4Addr::new(239, 0, 0, last));
    for last in 1..=4 {
        membership.join(group(last), ms(1)).unwrap();
        membership.leave(group(last), ms(1));
    }
    assert_eq!(membership.groups.len(), 4);
    membership.join(group(5), ms(1)).unwrap();
    membership.leave(group(5), ms(1));
    assert_eq!(poll(&mut membership, ms(1)).len(), 4);
}

#[test]
fn groups_of_our_addresses_are_as_many_as_addresses_and_are_not_joined() {
    let mut membership = membership();
    assert!(membership.set_own(A, ms(1)));
    assert!(!membership.is_joined(A) && !membership.leave(A, ms(1)));
    assert!(!membership.set_own(A, ms(1)), "it is known");
    membership.join(B, ms(1)).unwrap();
    assert!(!membership.set_own(B, ms(1)), "others know that we are in it");
    assert!(!membership.set_own(C, ms(1)), "two is what there may be");
    assert!(membership.own().eq([A, B]));
    membership.keep_own(|group| group != A, ms(1));
    assert!(membership.set_own(C, ms(1)));
    assert!(!Membership::new(b"igmp", 2, 2, false, SECRET).set_own(A, ms(1)), "nobody is told");
    let alone = IpAddr::V6(Ipv6Addr::new(0xff11, 0, 0, 0, 0, 0, 0, 5));
    assert!(!Membership::new(b"mld", 2, 2, true, SECRET).set_own(alone, ms(1)), "does not leave the host");
}

#[test]
fn pending_words_are_forgotten_when_the_version_changes() {
    let other = Some(C);
    let ask_older = |membership: &mut Membership, now| {
        membership.query_arrives(&Query { version: Version::Oldest, group: other, ..ALL }, now);
    };
    // A change, which comes back with no other.
    let mut membership = membership();
    membership.join(A, ms(1)).unwrap();
    ask_older(&mut membership, ms(1));
    assert_eq!(membership.next_deadline(), Instant::NEVER);
    membership.join(B, ms(2)).unwrap();
    assert_eq!(poll(&mut membership, ms(2)), [(B, Record::Joins)]);
    // Answers, of one group and of all.
    for group in [None, Some(A)] {
        let (mut membership, now) = settled(&[A, B]);
        membership.query_arrives(&Query { group, ..ALL }, now);
        ask_older(&mut membership, now);
        assert_eq!(membership.next_deadline(), Instant::NEVER);
    }
    // And when the older one's time has passed before they were said.
    let (mut membership, now) = settled(&[A]);
    ask_older(&mut membership, now);
    let late = now + Duration::from_secs(259);
    membership.join(B, late).unwrap();
    assert_eq!(poll(&mut membership, late), [(B, Record::Joins)]);
    membership.change_at = now + Duration::from_secs(260);
    assert_eq!(poll(&mut membership, now + Duration::from_secs(260)), []);
    assert_eq!(membership.next_deadline(), Instant::NEVER);
}

#[test]
fn changes_are_said_again_at_a_random_time_of_the_versions_interval() {
    for (version, most_ms) in [(Version::Current, 1_000), (Version::Older, 10_000)] {
        let mut delays = Vec::new();
        let (mut membership, mut now) = settled(&[]);
        for _ in 0..20 {
            now += Duration::from_secs(60);
            membership.query_arrives(&Query { version, ..ALL }, now);
            now += Duration::from_secs(20);
            poll(&mut membership, now);
            membership.join(A, now).unwrap();
            let changes = said(&mut membership, now);
            assert_eq!(words(&changes), [(A, Record::Joins); 2]);
            delays.push(changes[1].0);
            membership.leave(A, now + Duration::from_secs(20));
            said(&mut membership, now + Duration::from_secs(20));
        }
        delays.sort_unstable();
        assert!(delays[19] <= Duration::from_millis(most_ms));
        assert!(delays[19] > Duration::from_millis(most_ms * 8 / 10), "{delays:?}");
        assert!(delays[0] < Duration::from_millis(most_ms / 2), "{delays:?}");
    }
}

#[test]
fn each_change_is_said_as_often_as_it_needs() {
    let mut membership = membership();
    membership.join(B, ms(1)).unwrap();
    assert_eq!(poll(&mut membership, ms(1)), [(B, Record::Joins)]);
    membership.join(A, ms(1)).unwrap();
    assert_eq!(poll(&mut membership, ms(1)), [(A, Record::Joins), (B, Record::Joins)]);
    assert_eq!(poll(&mut membership, ms(1)), [], "before its time");
    assert_eq!(words(&said(&mut membership, ms(1))), [(A, Record::Joins)]);
}

#[test]
fn what_is_said_again_is_what_we_are_in_as_often_as_a_change() {
    let (mut membership, now) = settled(&[A, EVERYBODYS]);
    membership.query_arrives(&Query { robustness: Some(3), ..ALL }, now);
    said(&mut membership, now);
    let now = now + Duration::from_secs(60);
    membership.leave(A, now);
    membership.join(B, now).unwrap();
    poll(&mut membership, now);
    membership.say_again(now);
    let mut all = words(&said(&mut membership, now));
    all.sort_by_key(|&(group, _)| group);
    assert_eq!(all, [&[(A, Record::Leaves); 2][..], &[(B, Record::Joins); 3]].concat());
    // In the current version, when the older one's time has passed.
    membership.query_arrives(&OLDER, now);
    said(&mut membership, now);
    let late = now + Duration::from_secs(600);
    membership.say_again(late);
    assert_eq!(words(&said(&mut membership, late)), [(B, Record::Joins); 3]);
}

#[test]
fn others_report_spares_answers_and_joins_but_not_that_we_leave() {
    let (mut membership, now) = settled(&[A]);
    membership.query_arrives(&OLDER, now);
    membership.report_arrives(A);
    assert_eq!(membership.next_deadline(), Instant::NEVER);
    membership.join(B, now).unwrap();
    assert_eq!(poll(&mut membership, now), [(B, Record::Joins)]);
    membership.report_arrives(B);
    assert_eq!(poll(&mut membership, now + Duration::from_secs(10)), []);
    let now = now + Duration::from_secs(20);
    membership.leave(A, now);
    membership.report_arrives(A);
    assert_eq!(poll(&mut membership, now), [(A, Record::Leaves)]);
}
