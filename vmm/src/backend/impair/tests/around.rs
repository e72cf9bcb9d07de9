//! Faults around a backend.

use super::*;
use crate::backend::link::{self, End};

fn impaired(text: &str) -> (Impair<End>, End) {
    let [near, far] = link::pair().expect("a pair");
    (Impair::new(near.plug().expect("free"), &text.parse().expect(text)), far.plug().expect("free"))
}

fn receive(backend: &mut impl Backend) -> Option<Vec<u8>> {
    let mut bytes = vec![0; FRAME_BYTES_MAX];
    let len = backend.read_frame(&[IoVecMut::of(&mut bytes)]).expect("no failure")?;
    bytes.truncate(len);
    Some(bytes)
}

/// Waits for the next packet as device work does, and says how long it took.
fn wait_for(backend: &mut impl Backend) -> (Vec<u8>, Duration) {
    let from = Instant::now();
    loop {
        backend.pump();
        if let Some(packet) = receive(backend) {
            return (packet, from.elapsed());
        }
        assert!(from.elapsed() < Duration::from_secs(20), "nothing comes");
        if !backend.arm(Awaited { frames: true, room: false }) {
            let timeout = backend.due().map_or(Duration::from_secs(1), |due| due - Instant::now());
            std::thread::sleep(timeout);
        }
        backend.disarm();
    }
}

#[test]
fn each_direction_has_its_own_delay() {
    let (mut near, mut far) = impaired("tx:delay=30ms,rx:delay=60ms");
    far.write_frame(&[IoVec::of(&packet(1))]);
    let (got, took) = wait_for(&mut near);
    assert_eq!(got, packet(1));
    assert!(took >= 60 * MS, "{took:?}");
    let from = Instant::now();
    near.write_frame(&[IoVec::of(&packet(2))]);
    near.pump();
    let mut got = receive(&mut far);
    // Unless this thread has stood still for that long.
    assert!(got.is_none() || from.elapsed() >= 30 * MS);
    if got.is_none() {
        let due = near.due().expect("a packet is on its way");
        std::thread::sleep(due - Instant::now());
        near.pump();
        got = receive(&mut far);
    }
    assert_eq!(got, Some(packet(2)));
    assert!(from.elapsed() >= 30 * MS);
}

#[test]
fn reader_without_buffers_is_not_woken_for_what_has_arrived() {
    let (mut near, mut far) = impaired("delay=1ms");
    far.write_frame(&[IoVec::of(&packet(1))]);
    near.pump();
    std::thread::sleep(2 * MS);
    assert!(!near.arm(Awaited { frames: false, room: false }));
    assert_eq!(near.due(), None);
    near.disarm();
    assert!(near.arm(Awaited { frames: true, room: false }));
    assert_eq!(receive(&mut near), Some(packet(1)));
}

#[test]
fn packets_are_as_on_a_wire_whatever_was_left_to_the_hardware() {
    let (mut near, mut far) = impaired("seed=1");
    far.set_offloads(Offloads { checksum: true, tso4: true, tso6: true }).expect("any");
    let mut partial = packet(7);
    // NEEDS_CSUM from behind the Ethernet header on, at its tenth byte.
    (partial[0], partial[6], partial[8]) = (1, 14, 10);
    near.write_frame(&[IoVec::of(&partial)]);
    near.pump();
    let got = receive(&mut far).expect("a packet");
    assert_eq!(got[..HEADER_BYTES], [0; HEADER_BYTES], "nothing is left to do");
    assert_ne!(got[HEADER_BYTES + 24..HEADER_BYTES + 26], partial[HEADER_BYTES + 24..HEADER_BYTES + 26]);
    partial[1] = 1;
    assert_eq!(near.write_frame(&[IoVec::of(&partial)]), Written::Dropped, "no TCP segment");
    let unfinished =
        near.counters().iter().find(|metric| metric.name == "impair_unfinished").map(|metric| metric.value);
    assert_eq!(unfinished, Some(1));
}

#[test]
fn packet_for_which_there_is_no_room_is_offered_again() {
    let (mut near, mut far) = impaired("seed=1");
    let large = [packet(0), vec![0; 60_000]].concat();
    for _ in 0..30 {
        near.write_frame(&[IoVec::of(&large)]);
    }
    near.pump();
    assert!(near.due().is_some_and(|due| due <= Instant::now() + AGAIN));
    let mut got = 0;
    while got < 30 {
        while receive(&mut far).is_some() {
            got += 1;
        }
        near.pump();
    }
    assert_eq!(near.due(), None);
}
