//! A device that does not keep to the rules: each way is noticed, none leads out of the queue's memory, and nothing
//! panics.

mod common;

use common::{SMALL, bench, frame};
use exos_nic::fake::{ALL_FEATURES, MERGEABLE, NetQueue as _};
use exos_nic::{Arming, Config, Fault, Interest, Offload, Piece, Reason};
use exos_virtqueue::RingFault;
use proptest::prelude::*;
use std::rc::Rc;

/// What the receive queue says when the device has published one used entry.
fn fault_of(id: u32, len_bytes: u32) -> Option<Fault> {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    b.receiver.write_used(0, id, len_bytes);
    b.receiver.write_used_index(1);
    assert!(b.pair.receive.poll().is_none());
    let fault = b.pair.receive.fault();
    // Broken for good, and nobody is kept awake by it.
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.pair.request_interrupts(Interest::Receive), Arming::Sleep);
    fault
}

#[test]
fn receive_invalid_id_returns_not_outstanding() {
    for id in [64, 65, 0x1_0000, u32::MAX] {
        assert_eq!(fault_of(id, 100), Some(Fault::Ring(RingFault::NotOutstanding { id })));
    }
}

#[test]
fn receive_invalid_length_returns_bad_length() {
    for len_bytes in [0, 11, 2049, u32::MAX] {
        assert_eq!(fault_of(3, len_bytes), Some(Fault::Ring(RingFault::BadLength { len_bytes })));
    }
}

#[test]
fn receive_same_buffer_twice_returns_not_outstanding() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
    b.receiver.give_back(0, 72);
    b.receiver.publish();
    assert!(b.pair.receive.poll().is_some());
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.pair.receive.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 0 })));
}

#[test]
fn receive_buffer_not_yet_published_again_returns_not_outstanding() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for n in 0..3 {
        assert!(b.receiver.deliver([0; 12], &frame(n, 60)));
    }
    // The fourth entry names the first buffer, which is offered by then and not published.
    b.receiver.give_back(0, 72);
    b.receiver.publish();
    for _ in 0..3 {
        assert!(b.pair.receive.poll().is_some());
    }
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.pair.receive.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 0 })));
}

#[test]
fn receive_invalid_index_returns_used_index_jumped() {
    for index in [65, 1000, u16::MAX] {
        let mut b = bench::<()>(ALL_FEATURES, &SMALL);
        b.receiver.write_used_index(index);
        assert!(b.pair.receive.poll().is_none());
        let expected = Fault::Ring(RingFault::UsedIndexJumped { announced: index, outstanding: 64 });
        assert_eq!(b.pair.receive.fault(), Some(expected));
    }
}

#[test]
fn receive_index_going_back_returns_used_index_jumped() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for n in 0..2 {
        assert!(b.receiver.deliver([0; 12], &frame(n, 60)));
    }
    b.receiver.publish();
    for _ in 0..2 {
        assert!(b.pair.receive.poll().is_some());
    }
    b.receiver.write_used_index(1);
    assert!(b.pair.receive.poll().is_none());
    assert!(matches!(
        b.pair.receive.fault(),
        Some(Fault::Ring(RingFault::UsedIndexJumped { announced: u16::MAX, .. }))
    ));
}

#[test]
fn receive_index_going_back_behind_a_merged_frame_returns_used_index_jumped() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    assert!(b.receiver.deliver([0; 12], &frame(0, 60)));
    let chain = b.receiver.take().expect("a buffer");
    b.receiver.write(chain.segments[0], 0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
    b.receiver.give_back(chain.head, 2048);
    let second = b.receiver.take().expect("a buffer");
    b.receiver.give_back(second.head, 2048);
    b.receiver.publish();
    assert!(b.pair.receive.poll().is_some());
    b.receiver.write_used_index(2);
    assert!(b.pair.receive.poll().is_none());
    assert!(matches!(
        b.pair.receive.fault(),
        Some(Fault::Ring(RingFault::UsedIndexJumped { announced: 0, .. }))
    ));
}

/// What the receive queue says to a first buffer with this count when `used` buffers are used.
fn fault_of_count(features: u64, config: &Config, count: u16, used: u16, len_bytes: u32) -> Option<Fault> {
    let mut b = bench::<()>(features, config);
    let chains: Vec<_> = (0..used).map(|_| b.receiver.take().expect("a buffer")).collect();
    let mut header = [0; 12];
    header[10..].copy_from_slice(&count.to_le_bytes());
    b.receiver.write(chains[0].segments[0], 0, &header);
    chains.iter().for_each(|chain| b.receiver.give_back(chain.head, len_bytes));
    b.receiver.publish();
    assert!(b.pair.receive.poll().is_none());
    b.pair.receive.fault()
}

#[test]
fn receive_invalid_buffer_count_returns_bad_buffer_count() {
    for (count, used) in [(0, 1), (2, 1), (64, 63), (u16::MAX, 64)] {
        let fault = fault_of_count(ALL_FEATURES, &SMALL, count, used, 2048);
        assert_eq!(fault, Some(Fault::BadBufferCount { count }));
    }
    let unmerged = ALL_FEATURES & !(1 << MERGEABLE);
    let fault = fault_of_count(unmerged, &Config::bulk(), 2, 2, 2048);
    assert_eq!(fault, Some(Fault::BadBufferCount { count: 2 }));
}

#[test]
fn receive_frame_longer_than_a_packet_returns_frame_too_long() {
    assert_eq!(fault_of_count(ALL_FEATURES, &SMALL, 33, 33, 2048), Some(Fault::FrameTooLong));
    assert_eq!(fault_of_count(ALL_FEATURES, &Config::bulk(), 2, 2, 65_600), Some(Fault::FrameTooLong));
}

#[test]
fn receive_empty_continuation_returns_bad_length() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    let chains = [b.receiver.take().expect("a buffer"), b.receiver.take().expect("a buffer")];
    b.receiver.write(chains[0].segments[0], 0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    b.receiver.give_back(chains[0].head, 2048);
    b.receiver.give_back(chains[1].head, 0);
    b.receiver.publish();
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.pair.receive.fault(), Some(Fault::Ring(RingFault::BadLength { len_bytes: 0 })));
}

#[test]
fn transmit_completion_of_what_the_device_did_not_have_returns_not_outstanding_and_keeps_all() {
    for id in [1, 31, 32, u32::MAX] {
        let mut b = bench::<Rc<()>>(ALL_FEATURES, &SMALL);
        let thing = Rc::new(());
        // Chain 0 is published, chain 1 only offered.
        assert!(b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, thing.clone()).is_ok());
        b.pair.transmit.publish();
        assert!(b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, thing.clone()).is_ok());
        b.sender.write_used(0, id, 0);
        b.sender.write_used_index(1);
        assert_eq!(b.pair.transmit.reclaim(), 0);
        assert_eq!(b.pair.transmit.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id })));
        assert_eq!(Rc::strong_count(&thing), 3);
        let refused = b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, thing.clone());
        assert_eq!(refused.expect_err("broken").reason, Reason::Broken);
        assert_eq!(b.pair.request_interrupts(Interest::ReceiveAndTransmit), Arming::Sleep);
        // The other direction works on.
        assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
        b.receiver.publish();
        assert!(b.pair.receive.poll().is_some());
    }
}

#[test]
fn transmit_same_frame_completed_twice_returns_not_outstanding() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for _ in 0..2 {
        assert!(b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, ()).is_ok());
    }
    b.pair.transmit.publish();
    for _ in 0..2 {
        b.sender.give_back(0, 0);
    }
    b.sender.publish();
    assert_eq!(b.pair.transmit.reclaim(), 1);
    assert_eq!(b.pair.transmit.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 0 })));
    assert_eq!((b.pair.transmit.room(), b.pair.transmit.pending()), (31, 1));
}

#[test]
fn transmit_invalid_index_returns_used_index_jumped() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for _ in 0..3 {
        assert!(b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, ()).is_ok());
    }
    b.pair.transmit.publish();
    b.sender.write_used_index(4);
    assert_eq!(b.pair.transmit.reclaim(), 0);
    assert_eq!(
        b.pair.transmit.fault(),
        Some(Fault::Ring(RingFault::UsedIndexJumped { announced: 4, outstanding: 3 }))
    );
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(usize),
    /// A used entry of the receive (0) or transmit (1) queue.
    WriteUsed(usize, u16, u32, u32),
    WriteIndex(usize, u16),
    /// A receive buffer's virtio header.
    WriteHeader(Vec<u8>),
    CompleteOne,
    Poll(u8),
    Transmit(usize),
    Publish,
    Reclaim,
    Sleep,
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop_oneof![8 => 0u32..40, 1 => any::<u32>()];
    let len_bytes = prop_oneof![4 => 0u32..2100, 1 => any::<u32>()];
    let index = prop_oneof![4 => 0u16..80, 1 => any::<u16>()];
    prop_oneof![
        6 => (0usize..70_000).prop_map(Step::Deliver),
        1 => (0usize..2, index.clone(), id, len_bytes).prop_map(|(q, i, id, len)| Step::WriteUsed(q, i, id, len)),
        1 => (0usize..2, index).prop_map(|(q, i)| Step::WriteIndex(q, i)),
        1 => prop::collection::vec(any::<u8>(), 12).prop_map(Step::WriteHeader),
        4 => Just(Step::CompleteOne),
        6 => any::<u8>().prop_map(Step::Poll),
        6 => (0usize..2000).prop_map(Step::Transmit),
        3 => Just(Step::Publish),
        3 => Just(Step::Reclaim),
        1 => Just(Step::Sleep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn random_device_never_makes_the_driver_panic_or_read_outside(
        steps in prop::collection::vec(step(), 1..200),
        event_index: bool,
    ) {
        let features = if event_index { ALL_FEATURES } else { common::NO_EVENT_IDX };
        let mut b = bench::<Rc<()>>(features, &SMALL);
        let lowest = b.receiver.take().expect("a buffer").segments[0].address as usize;
        let buffers = lowest..lowest + 64 * 2048;
        let body = frame(1, 2000);
        for step in steps {
            match step {
                Step::Deliver(n) => {
                    b.receiver.deliver([0; 12], &body.repeat(33)[..n.min(66_000)]);
                    b.receiver.publish();
                }
                Step::WriteUsed(q, index, id, len) => {
                    [&mut b.receiver, &mut b.sender][q].write_used(index, id, len);
                }
                Step::WriteIndex(q, index) => [&mut b.receiver, &mut b.sender][q].write_used_index(index),
                Step::WriteHeader(header) => {
                    if let Some(chain) = b.receiver.take() {
                        b.receiver.write(chain.segments[0], 0, &header);
                        b.receiver.give_back(chain.head, 1000);
                        b.receiver.publish();
                    }
                }
                Step::CompleteOne => {
                    if let Some(chain) = b.sender.take() {
                        b.sender.give_back(chain.head, 0);
                        b.sender.publish();
                    }
                }
                Step::Poll(n) => {
                    let merged = b.pair.receive.statistics().merged;
                    for _ in 0..n % 16 {
                        let Some(frame) = b.pair.receive.poll() else { break };
                        let bytes = frame.bytes().as_ptr_range();
                        let (start, end) = (bytes.start.addr(), bytes.end.addr());
                        prop_assert!(end - start <= 65_550);
                        let inside = buffers.contains(&start) && end <= buffers.end;
                        prop_assert!(inside || b.pair.receive.statistics().merged > merged);
                    }
                }
                Step::Transmit(n) => {
                    let pieces = [Piece::Lend(&body[..n]), Piece::Copy(&body[..n % 100])];
                    let _ = b.pair.transmit.transmit(&body[..54], &pieces, Offload::None, Rc::new(()));
                }
                Step::Publish => b.pair.transmit.publish(),
                Step::Reclaim => {
                    b.pair.transmit.reclaim();
                }
                Step::Sleep => {
                    let _ = b.pair.request_interrupts(Interest::ReceiveAndTransmit);
                    b.pair.suppress_interrupts();
                }
            }
            prop_assert!(b.pair.transmit.room() <= 32 && b.pair.transmit.pending() <= 32);
            if b.pair.receive.fault().is_some() {
                prop_assert!(b.pair.receive.poll().is_none());
            }
        }
    }
}
