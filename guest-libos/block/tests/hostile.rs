//! A device that does not keep to the rules: the queue stops with a fault, and nothing that the device may still touch is
//! ever used again.

mod common;

use common::{BLOCK, Bench, bench, pages};
use exos_block::fake::ALL_FEATURES;
use exos_block::{Arming, Fault, Reason};
use exos_virtqueue::RingFault;
use proptest::prelude::*;

/// A read of one block is with the device.
fn waiting() -> Bench {
    let mut b = bench(ALL_FEATURES, 16);
    b.queue.read(0, pages(&[BLOCK]), 1).expect("taken");
    b.queue.publish();
    b
}

/// What comes of a used entry, with the status that the device wrote before.
fn fault_of(id: u32, len_bytes: u32, status: u8) -> Option<Fault> {
    let mut b = waiting();
    let chain = b.other.take().expect("a request");
    let place = *chain.segments.last().expect("a status");
    b.other.write(place, 0, &[status]);
    b.other.write_used(0, id, len_bytes);
    b.other.write_used_index(1);
    assert!(b.queue.is_ready());
    let polled = b.queue.poll();
    assert_eq!(polled.is_some(), b.queue.fault().is_none());
    b.queue.fault()
}

#[test]
fn read_with_status_and_full_length_is_no_fault() {
    assert_eq!(fault_of(0, BLOCK as u32 + 1, 0), None);
    assert_eq!(fault_of(0, 1, 1), None);
    assert_eq!(fault_of(0, BLOCK as u32 + 1, 2), None);
}

#[test]
fn used_id_that_is_not_outstanding_stops_the_queue() {
    for id in [1, 2, 15, 16, 65_536, u32::MAX] {
        let expected = Some(Fault::Ring(RingFault::NotOutstanding { id }));
        assert_eq!(fault_of(id, BLOCK as u32 + 1, 0), expected);
    }
}

#[test]
fn used_length_that_cannot_be_stops_the_queue() {
    for (len_bytes, status) in
        [(0, 0), (0, 1), (1, 0), (BLOCK as u32, 0), (BLOCK as u32 + 2, 0), (u32::MAX, 1)]
    {
        let expected = Some(Fault::Ring(RingFault::BadLength { len_bytes }));
        assert_eq!(fault_of(0, len_bytes, status), expected, "{len_bytes} {status}");
    }
}

#[test]
fn status_that_does_not_exist_stops_the_queue() {
    for status in [3, 0x7F, 0xFF] {
        assert_eq!(fault_of(0, BLOCK as u32 + 1, status), Some(Fault::BadStatus { status }));
    }
}

#[test]
fn used_index_beyond_what_is_outstanding_stops_the_queue() {
    for index in [2, 0x8000, 0xFFFF] {
        let mut b = waiting();
        b.other.write_used_index(index);
        assert_eq!(b.queue.poll(), None);
        let expected = RingFault::UsedIndexJumped { announced: index, outstanding: 1 };
        assert_eq!(b.queue.fault(), Some(Fault::Ring(expected)));
    }
}

#[test]
fn request_that_comes_back_twice_stops_the_queue() {
    let mut b = waiting();
    b.queue.read(1, pages(&[BLOCK]), 2).expect("taken");
    b.serve();
    b.other.write_used(1, 0, BLOCK as u32 + 1);
    assert_eq!(b.queue.poll().map(|done| done.token), Some(1));
    assert_eq!(b.queue.poll(), None);
    assert_eq!(b.queue.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 0 })));
}

#[test]
fn stopped_queue_gives_nothing_back_that_the_device_finishes_later() {
    let mut b = waiting();
    b.queue.read(1, pages(&[BLOCK]), 2).expect("taken");
    b.queue.publish();
    let chains: Vec<_> = std::iter::from_fn(|| b.other.take()).collect();
    b.other.write_used(0, 99, 1);
    b.other.write_used_index(1);
    assert_eq!(b.queue.poll(), None);
    // Into the second entry, as it should be.
    b.other.write(*chains[1].segments.last().expect("a status"), 0, &[0]);
    b.other.write_used(1, u32::from(chains[1].head), BLOCK as u32 + 1);
    b.other.write_used_index(2);
    assert_eq!(b.queue.poll(), None);
    assert_eq!(b.queue.close().len(), 2);
}

#[test]
fn request_that_was_not_published_cannot_come_back() {
    let mut b = waiting();
    b.queue.read(1, pages(&[BLOCK]), 2).expect("taken");
    // Its chain begins behind the three descriptors of the first.
    b.other.write_used(0, 3, BLOCK as u32 + 1);
    b.other.write_used_index(1);
    assert_eq!(b.queue.poll(), None);
    assert_eq!(b.queue.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 3 })));
}

#[test]
fn stopped_queue_takes_nothing_and_lets_everybody_sleep() {
    let mut b = waiting();
    b.other.write_used_index(5);
    assert_eq!(b.queue.poll(), None);
    let refused = b.queue.read(0, pages(&[BLOCK]), 9).expect_err("stopped");
    assert_eq!((refused.reason, refused.token), (Reason::Broken, 9));
    assert!(b.queue.flush(9).is_err_and(|refused| refused.reason == Reason::Broken));
    assert!(!b.queue.is_ready());
    assert_eq!(b.queue.request_interrupts(), Arming::Sleep);
}

#[test]
fn close_after_a_fault_gives_back_what_the_device_has_let_go() {
    let mut b = waiting();
    b.queue.flush(2).expect("taken");
    b.other.write_used_index(5);
    assert_eq!(b.queue.poll(), None);
    let mut back = b.queue.close();
    back.sort_by_key(|(token, _)| *token);
    assert_eq!(back, [(1, Some(pages(&[BLOCK]))), (2, None)]);
    assert_eq!(b.hal.bound(), []);
}

#[test]
fn close_gives_nothing_back_if_the_device_keeps_the_queue() {
    let mut b = waiting();
    let chain = b.other.take().expect("a request");
    b.hal.refuse_unbind();
    assert_eq!(b.queue.close(), []);
    // Still bound: the device goes on writing, and what it writes to is nobody else's.
    let others: Vec<Vec<u8>> = (0..64).map(|_| vec![0; BLOCK]).collect();
    b.other.write(chain.segments[1], 0, &[0xFF; BLOCK]);
    b.disk.finish(&mut b.other, &chain);
    b.other.publish();
    assert!(others.iter().flatten().all(|&byte| byte == 0));
}

proptest! {
    /// Whatever the device writes into its ring: no panic, no buffer twice, and what comes back was given.
    #[test]
    fn garbage_in_the_used_ring_never_gives_a_request_back_twice(
        entries in prop::collection::vec((0u32..20, 0u32..9000, any::<u8>()), 1..24),
        index in 0u16..24,
    ) {
        let mut b = bench(ALL_FEATURES, 16);
        for token in 0..5 {
            b.queue.read(u64::from(token), pages(&[BLOCK]), token).expect("taken");
        }
        b.queue.publish();
        let chains: Vec<_> = std::iter::from_fn(|| b.other.take()).collect();
        for (at, (id, len_bytes, status)) in entries.iter().enumerate() {
            b.other.write_used(at as u16, *id, *len_bytes);
            let chain = &chains[at % chains.len()];
            b.other.write(*chain.segments.last().expect("a status"), 0, &[*status % 4]);
        }
        b.other.write_used_index(index);
        let mut seen = 0u32;
        while let Some(done) = b.queue.poll() {
            prop_assert_eq!(seen >> done.token & 1, 0);
            seen |= 1 << done.token;
        }
        let back = b.queue.close();
        prop_assert_eq!(back.len() as u32 + seen.count_ones(), 5);
    }
}
