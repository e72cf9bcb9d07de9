//! Whoever asks too much, or nonsense: counted drops, and answers at a bounded rate.

use super::*;
use crate::harness::SERVER_IP;

const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[test]
fn flood_of_questions_that_want_an_answer_at_once_is_answered_twenty_times_a_second() {
    let mut host = told();
    join(&mut host, GROUP);
    join(&mut host, GROUP_V6);
    host.wait_secs(3);
    host.nic.frames.clear();
    let questions = [
        igmp_query(ALL_SYSTEMS, &[0x11, 0, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]),
        igmp_query(GROUP, &[0x11, 0, 0, 0, 239, 1, 2, 3, 2, 125, 0, 0]),
        mld_query(ALL_NODES, 0, Ipv6Addr::UNSPECIFIED, &[2, 125, 0, 0]),
        mld_query(GROUP_V6, 0, GROUP_V6, &[2, 125, 0, 0]),
    ];
    for _ in 0..2_000 {
        for question in &questions {
            host.input(question).assert_nothing();
        }
        host.wait_ms(1);
    }
    let sent = frames(&mut host);
    assert!((60..=82).contains(&sent.len()), "{} in two seconds", sent.len());
    assert_eq!(host.stack.counters().group_queries_in, 8_000);
    // And in the words of the older versions.
    host.input(&igmp_query(ALL_SYSTEMS, &[0x11, 1, 0, 0, 0, 0, 0, 0])).assert_nothing();
    for _ in 0..1_000 {
        host.input(&igmp_query(ALL_SYSTEMS, &[0x11, 1, 0, 0, 0, 0, 0, 0])).assert_nothing();
        host.wait_ms(1);
    }
    let sent = frames(&mut host);
    assert!((5..=21).contains(&sent.len()), "{} in a second", sent.len());
}

#[test]
fn nonsense_is_dropped_and_counted() {
    let mut host = told();
    join(&mut host, GROUP);
    join(&mut host, GROUP_V6);
    host.wait_secs(3);
    host.nic.frames.clear();
    let before = *host.stack.counters();
    let sources = [&[0x11, 1, 0, 0, 239, 1, 2, 3, 2, 125, 0xff, 0xff][..], &[7; 60]].concat();
    let malformed = [
        igmp_query(ALL_SYSTEMS, &[0x11, 1, 0, 0, 0, 0, 0]),
        igmp_query(ALL_SYSTEMS, &[0x11, 1, 0, 0, 0, 0, 0, 0, 2, 125]),
        igmp_query(GROUP, &sources),
        mld_query(ALL_NODES, 1, Ipv6Addr::UNSPECIFIED, &[2, 125]),
        mld_query(GROUP_V6, 1, GROUP_V6, &[&[2, 125, 0xff, 0xff][..], &[7; 60]].concat()),
    ];
    for frame in &malformed {
        host.input(frame).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_malformed - before.dropped_malformed, malformed.len() as u64);
    // From beyond a router, or as if.
    let mut far = igmp_query(ALL_SYSTEMS, &[0x11, 1, 0, 0, 0, 0, 0, 0]);
    far[22] = 2;
    far[24..26].fill(0);
    let sum = checksum(&[&far[14..38]]);
    far[24..26].copy_from_slice(&sum);
    host.input(&far).assert_nothing();
    let mut far = mld_query(ALL_NODES, 0, Ipv6Addr::UNSPECIFIED, &[]);
    far[21] = 255;
    host.input(&far).assert_nothing();
    let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
    let question = [&[130, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
    host.input(&ipv6(CLIENT_MAC.0, (global, ALL_NODES), &question)).assert_nothing();
    assert_eq!(host.stack.counters().dropped_off_link - before.dropped_off_link, 3);
    // Damaged on the way.
    for mut frame in [
        igmp_query(ALL_SYSTEMS, &[0x11, 1, 0, 0, 0, 0, 0, 0]),
        mld_query(ALL_NODES, 0, Ipv6Addr::UNSPECIFIED, &[]),
    ] {
        let len = frame.len();
        frame[len - 1] ^= 1;
        host.input(&frame).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_checksum - before.dropped_checksum, 2);
    // Without the alert; from us; by a source route; what only routers hear.
    let mut silent = mld_query(ALL_NODES, 0, Ipv6Addr::UNSPECIFIED, &[]);
    silent[56] = 1;
    host.input(&silent).assert_nothing();
    let message = sealed(&[0x11, 1, 0, 0, 0, 0, 0, 0]);
    host.input(&ipv4(CLIENT_MAC.0, (SERVER_IP, ALL_SYSTEMS), 0, &message)).assert_nothing();
    let mut routed = ipv4(CLIENT_MAC.0, (ROUTER, ALL_SYSTEMS), 0, &message);
    routed[34] = 131;
    routed[24..26].fill(0);
    let sum = checksum(&[&routed[14..38]]);
    routed[24..26].copy_from_slice(&sum);
    host.input(&routed).assert_nothing();
    host.input(&ipv4(CLIENT_MAC.0, (ROUTER, GROUP), 0, &sealed(&[0x17, 0, 0, 0, 239, 1, 2, 3])))
        .assert_nothing();
    let after = host.stack.counters();
    assert_eq!(after.dropped_malformed - before.dropped_malformed, malformed.len() as u64 + 1);
    assert_eq!(after.dropped_bad_source - before.dropped_bad_source, 1);
    assert_eq!(after.dropped_unsupported - before.dropped_unsupported, 2);
    assert_eq!(after.group_queries_in, before.group_queries_in);
    assert_eq!(frames_within(&mut host, 12_000), []);
}

#[test]
fn questions_come_from_hosts_or_from_switches_without_an_address() {
    let mut host = told();
    let message = sealed(&[0x11, 1, 0, 0, 0, 0, 0, 0]);
    let sources = [Ipv4Addr::UNSPECIFIED, ROUTER, GROUP, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, SERVER_IP];
    for source in sources {
        host.input(&ipv4(CLIENT_MAC.0, (source, ALL_SYSTEMS), 0xc0, &message)).assert_nothing();
    }
    let counters = host.stack.counters();
    assert_eq!((counters.group_queries_in, counters.dropped_bad_source), (2, 4));
}
