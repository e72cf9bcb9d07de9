//! The switch.

use super::*;

fn ends(count: usize) -> Vec<End> {
    switch(count).expect("a switch").iter().map(|port| port.plug().expect("free")).collect()
}

/// Which ends have a frame, and it is this one.
fn who_has(ends: &mut [End], frame: &[u8]) -> Vec<usize> {
    let got = ends.iter_mut().enumerate().filter_map(|(port, end)| {
        let got = receive(end)?;
        assert_eq!(got, frame);
        Some(port)
    });
    got.collect()
}

#[test]
fn impossible_numbers_of_ports_are_errors() {
    for ports in [0, 1, PORTS_MAX + 1] {
        assert!(matches!(switch(ports), Err(LinkError::Ports { .. })), "{ports}");
    }
    assert_eq!(switch(PORTS_MAX).expect("so many").len(), PORTS_MAX);
}

#[test]
fn frames_go_everywhere_until_their_destination_was_seen_and_then_only_there() {
    let mut ends = ends(4);
    let question = frame(10, 12, b"where?");
    send(&mut ends[0], &question);
    assert_eq!(who_has(&mut ends, &question), [1, 2, 3]);
    let answer = frame(12, 10, b"here");
    send(&mut ends[2], &answer);
    assert_eq!(who_has(&mut ends, &answer), [0]);
    send(&mut ends[0], &question);
    assert_eq!(who_has(&mut ends, &question), [2]);
    let mut broadcast = frame(10, 12, b"all");
    broadcast[HEADER_BYTES..HEADER_BYTES + 6].fill(0xFF);
    send(&mut ends[0], &broadcast);
    assert_eq!(who_has(&mut ends, &broadcast), [1, 2, 3]);
    assert_eq!(counter(&ends[0], "link_flooded_frames"), 2);
}

#[test]
fn address_that_moves_is_found_at_its_new_port_and_one_that_went_nowhere() {
    let mut ends = ends(3);
    send(&mut ends[1], &frame(9, 1, b"I am at 1"));
    send(&mut ends[2], &frame(9, 1, b"I am at 2"));
    ends.iter_mut().for_each(|end| while receive(end).is_some() {});
    let to_it = frame(1, 9, b"?");
    send(&mut ends[0], &to_it);
    assert_eq!(who_has(&mut ends, &to_it), [2]);
    ends.pop();
    send(&mut ends[0], &to_it);
    assert_eq!(who_has(&mut ends, &to_it), [1], "nobody knows it any more");
}

#[test]
fn frame_for_its_own_port_goes_nowhere() {
    let mut ends = ends(3);
    send(&mut ends[0], &frame(1, 2, b"I am 1"));
    ends.iter_mut().for_each(|end| while receive(end).is_some() {});
    assert_eq!(send(&mut ends[0], &frame(3, 1, b"to myself")), Written::Dropped);
    assert_eq!(counter(&ends[0], "link_dropped_same_port"), 1);
}

#[test]
fn port_that_takes_nothing_holds_up_nobody() {
    let mut ends = ends(3);
    for (port, address) in [(1, 11), (2, 12)] {
        send(&mut ends[port], &frame(address, 99, b"learn me"));
    }
    ends.iter_mut().for_each(|end| while receive(end).is_some() {});
    let large = frame(10, 11, &[0; 60_000]);
    let mut dropped = 0;
    for _ in 0..100 {
        dropped += u64::from(send(&mut ends[0], &large) == Written::Dropped);
        assert_eq!(ends[0].due(), None, "nothing is held");
    }
    let live = frame(10, 12, b"for the living");
    assert_eq!(send(&mut ends[0], &live), Written::Sent);
    assert_eq!(receive(&mut ends[2]), Some(live));
    assert_eq!(dropped, 100 - (QUEUE_BYTES / large.len()) as u64);
    assert_eq!(counter(&ends[0], "link_dropped_full"), dropped);
}

#[test]
fn flood_of_sources_leaves_the_others_reachable() {
    let mut ends = ends(4);
    send(&mut ends[1], &frame(11, 99, b"learn me"));
    for number in 0..20_000u32 {
        let mut hostile = frame(0, 0, b"flood");
        hostile[HEADER_BYTES + 6..HEADER_BYTES + 12]
            .copy_from_slice(&(0x0200_0000_0000u64 + u64::from(number) * 7).to_be_bytes()[2..]);
        hostile[HEADER_BYTES..HEADER_BYTES + 6].copy_from_slice(&[2, 0, 0, 0, 0, 11]);
        send(&mut ends[3], &hostile);
        while receive(&mut ends[1]).is_some() {}
    }
    ends.iter_mut().for_each(|end| while receive(end).is_some() {});
    let wanted = frame(12, 11, b"still there?");
    send(&mut ends[2], &wanted);
    assert_eq!(who_has(&mut ends, &wanted), [1], "it was not pushed out of the table");
}
