//! What a queue must not be bound to, and what a device must not be made to read or write.

use crate::fixture::{Wire, image, said, start_with_nic};
use abi::layout::{DIRECT_MAP_VA, MMIO_GPA, PAGE_BYTES};
use exovm::machine::boot::CONTROL_GPA;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

#[test]
fn core_bad_queue_bind_does_not_reach_the_device() {
    let probe = start_with_nic(&["bad-queue-bind"], &Wire::default(), |_| {});
    probe.wait();
    let account = probe.machine.account();
    probe.finish().held();
    assert_eq!(account.nic_counter("queues stopped"), Some(0), "none of it reached the device");
}

/// VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_F_INDIRECT.
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;

/// A descriptor and how it is offered: address, length, flags, next, head, available index.
type Offer = [u64; 6];

/// Guest memory of the probe's machine, and a page of the heap in it.
fn memory_bytes() -> u64 {
    image().manifest.memory_mib << 20
}

/// Addresses and lengths that the environment's DMA domain does not have, for either direction.
fn foreign() -> Vec<(u64, u64)> {
    let end = memory_bytes();
    vec![
        (0, 64),
        (0x1000, 64),
        (end - 64, 128),
        (end, 64),
        (end / 2, 0xFFFF_FFFF),
        (MMIO_GPA, 64),
        (CONTROL_GPA, 4),
        (DIRECT_MAP_VA, 64),
        (u64::MAX - 63, 64),
        (u64::MAX - 63, 128),
    ]
}

/// The probe offers `offer` to the transmit or the receive queue. That queue stops, the device touched nothing, and after
/// unbinding it the next one works.
fn assert_queue_stops(case: &str, offer: Offer, wire: &Wire) -> exovm::machine::Machine {
    let words = offer.map(|word| format!("{word:#x}"));
    let mut arguments = vec![case];
    arguments.extend(words.iter().map(String::as_str));
    let probe = start_with_nic(&arguments, wire, |_| {});
    if case == "receive" {
        while probe.machine.wait(Some(Duration::from_millis(5))).is_none() {
            wire.frames().to_guest = [frame()].into();
        }
    }
    probe.wait();
    let stopped = probe.machine.account().nic_counter("queues stopped");
    let (outcome, machine) = probe.finish_and_keep();
    let log = outcome.held();
    let expected = [
        "bind: Ok(())",
        "the device used 0 chains",
        "unbind: Ok(())",
        "bind: Ok(())",
        "then the device used 1 chains",
    ];
    assert_eq!(said(&log).collect::<Vec<_>>(), expected, "{case} {offer:x?}");
    assert_eq!(stopped, Some(1), "{case} {offer:x?}");
    machine
}

/// Text in the frames that the probe receives.
const MARKER: &[u8] = b"a frame that must lie in one place only";

/// A frame for the probe: broadcast, local experimental EtherType.
fn frame() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0xFF; 6]);
    frame.extend([2, 0, 0, 0, 0, 2, 0x88, 0xB5]);
    frame.extend(MARKER);
    frame.resize(12 + 60, 0);
    frame
}

fn assert_nothing_sent_by(offer: Offer) {
    let wire = Wire::default();
    assert_queue_stops("send", offer, &wire);
    let sent = &wire.frames().sent;
    assert_eq!(sent.len(), 1, "only the good frame: {offer:x?}");
    assert_eq!(sent[0][12 + 12..12 + 15], [0x88, 0xB5, b'!'], "{offer:x?}");
}

fn assert_nothing_received_by(offer: Offer) {
    let machine = assert_queue_stops("receive", offer, &Wire::default());
    let mut memory = vec![0; machine.memory_bytes() as usize];
    machine.memory().read_slice(&mut memory, GuestAddress(0)).expect("all of it is RAM");
    let places = memory
        .chunks(PAGE_BYTES as usize)
        .filter(|page| page.windows(MARKER.len()).any(|window| window == MARKER));
    assert_eq!(places.count(), 1, "only the good buffer: {offer:x?}");
}

#[test]
fn core_device_does_not_read_outside_the_domain() {
    for (gpa, len) in foreign() {
        assert_nothing_sent_by([gpa, len, 0, 0, 0, 1]);
    }
}

#[test]
fn core_device_does_not_write_outside_the_domain() {
    for (gpa, len) in foreign() {
        assert_nothing_received_by([gpa, len, WRITE, 0, 0, 1]);
    }
}

#[test]
fn core_malformed_descriptor_stops_the_queue() {
    let good = memory_bytes() / 2;
    for offer in [
        [good, 0, 0, 0, 0, 1],                // no bytes
        [good, 64, NEXT, 0, 0, 1],            // a loop
        [good, 64, NEXT, 64, 0, 1],           // a next that does not exist
        [good, 64, 0, 0, 64, 1],              // a head that does not exist
        [good, 64, 0, 0, 0xFFFF, 1],          // another
        [good, 64, 0, 0, 0, 65],              // more chains than entries
        [good, 64, 0, 0, 0, 0xFFFF],          // a step back
        [good, 64, INDIRECT | NEXT, 0, 0, 1], // VIRTIO 1.3 2.7.5.3.1 forbids both
        [0, 64, INDIRECT, 0, 0, 1],           // a table of someone else's
    ] {
        assert_nothing_sent_by(offer);
        let [gpa, len, flags, next, head, index] = offer;
        assert_nothing_received_by([gpa, len, flags | WRITE, next, head, index]);
    }
    // Wrong direction.
    assert_nothing_sent_by([good, 64, WRITE, 0, 0, 1]);
    assert_nothing_received_by([good, 64, 0, 0, 0, 1]);
}
