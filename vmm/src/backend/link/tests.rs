//! Links between program ends and between NICs.

mod nics;
mod switched;
mod threads;

use super::*;
use crate::backend::{Awaited, Backend, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written};
use crate::stat::metrics::Metric;

/// A frame from one hardware address to another, behind an empty header.
pub(crate) fn frame(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xB5]);
    frame.extend(payload);
    frame
}

fn send(end: &mut End, frame: &[u8]) -> Written {
    end.write_frame(&[IoVec::of(frame)])
}

fn receive(end: &mut End) -> Option<Vec<u8>> {
    let mut bytes = vec![0; crate::backend::FRAME_BYTES_MAX];
    let len = end.read_frame(&[IoVecMut::of(&mut bytes)]).expect("links do not fail")?;
    bytes.truncate(len);
    Some(bytes)
}

fn counter(backend: &impl Backend, name: &str) -> u64 {
    let counters = backend.counters();
    let found = counters.iter().find(|metric: &&Metric| metric.name == name);
    found.unwrap_or_else(|| panic!("no counter {name}")).value
}

#[test]
fn frames_cross_a_pair_in_order_and_unchanged() {
    let [first, second] = pair().expect("a pair");
    let (mut a, mut b) = (first.plug().expect("free"), second.plug().expect("free"));
    for number in 0..300u16 {
        assert_eq!(send(&mut a, &frame(1, 2, &number.to_le_bytes())), Written::Sent);
    }
    assert_eq!(send(&mut b, &frame(2, 1, b"back")), Written::Sent);
    for number in 0..300u16 {
        assert_eq!(receive(&mut b), Some(frame(1, 2, &number.to_le_bytes())));
    }
    assert_eq!(receive(&mut b), None);
    assert_eq!(receive(&mut a), Some(frame(2, 1, b"back")));
    assert_eq!(counter(&a, "link_sent_queued_frames"), 300);
    assert_eq!(counter(&b, "link_received_frames"), 300);
}

#[test]
fn frames_that_are_none_are_dropped() {
    let [first, second] = pair().expect("a pair");
    let (mut a, _b) = (first.plug().expect("free"), second.plug().expect("free"));
    assert_eq!(send(&mut a, &[0; HEADER_BYTES + 13]), Written::Dropped);
    assert_eq!(send(&mut a, &vec![0; crate::backend::FRAME_BYTES_MAX + 1]), Written::Dropped);
    assert_eq!(counter(&a, "link_dropped_length"), 2);
}

#[test]
fn port_has_one_end_at_a_time_and_what_came_for_the_last_one_is_not_for_the_next() {
    let [first, second] = pair().expect("a pair");
    let mut a = first.plug().expect("free");
    assert_eq!(send(&mut a, &frame(1, 2, b"too early")), Written::Dropped);
    assert_eq!(counter(&a, "link_dropped_down"), 1);
    assert!(!a.is_peer_up());
    let b = second.plug().expect("free");
    assert!(a.is_peer_up());
    assert!(matches!(second.plug(), Err(LinkError::InUse { port: 1 })));
    send(&mut a, &frame(1, 2, b"for the first"));
    drop(b);
    assert_eq!(send(&mut a, &frame(1, 2, b"for nobody")), Written::Dropped);
    let mut b = second.plug().expect("free again");
    assert_eq!(receive(&mut b), None);
    assert_eq!(counter(&b, "link_lost_frames"), 1);
    send(&mut a, &frame(1, 2, b"for the second"));
    assert_eq!(receive(&mut b), Some(frame(1, 2, b"for the second")));
}

#[test]
fn full_pair_holds_frames_with_their_sender_then_drops_them_and_goes_on_when_something_is_taken() {
    let [first, second] = pair().expect("a pair");
    let (mut a, mut b) = (first.plug().expect("free"), second.plug().expect("free"));
    let large = frame(1, 2, &[7; 60_000]);
    let mut sent = 0;
    while send(&mut a, &large) == Written::Sent {
        sent += 1;
    }
    assert_eq!(sent, QUEUE_BYTES / large.len());
    let due = a.due().expect("a frame is held");
    assert!(due <= std::time::Instant::now() + HOLD);
    let again = send(&mut a, &large);
    // Unless this thread has stood still for that long.
    assert!(again == Written::WouldBlock || std::time::Instant::now() >= due, "{again:?}");
    std::thread::sleep(HOLD);
    assert_eq!(send(&mut a, &large), Written::Dropped, "the other side had its time");
    assert_eq!(send(&mut a, &large), Written::Dropped, "and none is held for it again");
    assert_eq!(a.due(), None);
    assert_eq!(counter(&a, "link_dropped_full"), 2 + u64::from(again == Written::Dropped));
    assert!(receive(&mut b).is_some());
    assert_eq!(send(&mut a, &large), Written::Sent);
    assert_eq!(send(&mut a, &large), Written::WouldBlock, "it takes frames: it is waited for");
}

#[test]
fn room_wakes_who_waits_for_it_and_frames_wake_who_waits_for_them() {
    let [first, second] = pair().expect("a pair");
    let (mut a, mut b) = (first.plug().expect("free"), second.plug().expect("free"));
    let readable = |end: &End| {
        let fd = end.event_fd().expect("links have events");
        crate::placement::wait::wait(
            &[(fd, crate::placement::wait::Interest::Readable)],
            Some(std::time::Duration::ZERO),
        ) == 1
    };
    let frames = Awaited { frames: true, room: false };
    assert!(!b.arm(frames));
    send(&mut a, &frame(1, 2, b"x"));
    assert!(readable(&b));
    b.disarm();
    assert!(!readable(&b));
    assert!(b.arm(frames), "it is there already");
    b.disarm();
    send(&mut a, &frame(1, 2, b"x"));
    assert!(!readable(&b), "awake: no system call");
    assert_eq!(counter(&b, "link_wakeups"), 1);
    assert!(!b.arm(Awaited { frames: false, room: false }), "nobody waits for the frames that are there");
    b.disarm();

    let large = frame(1, 2, &[7; 60_000]);
    while send(&mut a, &large) == Written::Sent {}
    let room = Awaited { frames: true, room: true };
    assert!(!a.arm(room));
    receive(&mut b);
    assert!(readable(&a));
    a.disarm();
    while send(&mut a, &large) == Written::Sent {}
    receive(&mut b);
    assert!(a.arm(room), "room came before it slept");
    a.disarm();
    while send(&mut a, &large) == Written::Sent {}
    assert!(!a.arm(room), "it was told once");
    drop(b);
    assert!(readable(&a), "nobody is there any more: that is told too");
}

#[test]
fn reader_without_offloads_gets_finished_packets() {
    let [first, second] = pair().expect("a pair");
    let (mut a, mut b) = (first.plug().expect("free"), second.plug().expect("free"));
    let mut partial = frame(1, 2, &[1, 2, 3, 4, 0, 0, 5]);
    partial[0] = 1;
    partial[6] = 14;
    partial[8] = 4;
    assert_eq!(send(&mut a, &partial), Written::Sent);
    let got = receive(&mut b).expect("a frame");
    assert_eq!(got[..HEADER_BYTES], [0; HEADER_BYTES]);
    // 0x0102 + 0x0304 + 0x0500 = 0x0906
    assert_eq!(got[HEADER_BYTES + 18..], [0xF6, 0xF9, 5]);
    b.set_offloads(Offloads { checksum: true, ..Offloads::default() }).expect("any");
    assert_eq!(send(&mut a, &partial), Written::Sent);
    assert_eq!(receive(&mut b), Some(partial.clone()), "as it is");
    partial[1] = 1;
    assert_eq!(send(&mut a, &partial), Written::Dropped, "this is no TCP segment");
    assert_eq!(counter(&a, "link_dropped_unfinished"), 1);
    assert_eq!(counter(&a, "link_finished_frames"), 1);
}
