//! The transmit queue against a device that keeps to the rules.

mod common;

use common::{NO_EVENT_IDX, SMALL, bench, frame};
use exos_nic::fake::{ALL_FEATURES, Segment, Signal, TakenChain};
use exos_nic::{Arming, ChecksumAt, Interest, Offload, Piece, Reason, SLOT_BYTES, SegmentKind};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::rc::Rc;

const AT: ChecksumAt = ChecksumAt { start: 34, offset: 16 };

/// A thing that is kept, and how many of it live.
fn kept() -> Rc<()> {
    Rc::new(())
}

#[test]
fn frame_is_header_and_pieces_and_lent_pieces_are_not_copied() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    let (header, text) = (frame(1, 66), frame(2, 150));
    let (page, other, tail) = (frame(3, 4096), frame(4, 100), frame(5, 20));
    let pieces = [
        Piece::Copy(&text),
        Piece::Copy(&[]),
        Piece::Lend(&page),
        Piece::Lend(&[]),
        Piece::Lend(&other),
        Piece::Copy(&tail),
        Piece::Copy(&tail),
    ];
    let offload = Offload::Segment { checksum: AT, kind: SegmentKind::TcpIpv4, mss: 1448 };
    assert!(b.pair.transmit.transmit(&header, &pieces, offload, ()).is_ok());
    b.pair.transmit.publish();

    let chain = b.sender.take().expect("a chain");
    let virtio_header = [1, 1, 66, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0];
    let expected = [&virtio_header[..], &header, &text, &page, &other, &tail, &tail].concat();
    assert_eq!(chain.gather(), expected);
    let lent = |bytes: &[u8]| Segment {
        address: bytes.as_ptr().addr() as u64,
        len_bytes: bytes.len() as u32,
        device_writes: false,
    };
    assert_eq!(chain.segments.len(), 4);
    assert_eq!(chain.segments[0].len_bytes, 12 + 66 + 150);
    assert_eq!(chain.segments[1..3], [lent(&page), lent(&other)]);
    assert_eq!(chain.segments[3].len_bytes, 40);
    assert_eq!(b.pair.transmit.statistics().bytes, expected.len() as u64 - 12);
}

#[test]
fn what_is_kept_lives_exactly_until_the_device_has_sent_the_frame() {
    let mut b = bench::<Rc<()>>(ALL_FEATURES, &SMALL);
    let things = [kept(), kept(), kept()];
    let alive = || things.each_ref().map(|thing| Rc::strong_count(thing) == 2);
    let body = frame(1, 1000);
    for thing in &things {
        let taken =
            b.pair.transmit.transmit(&frame(0, 66), &[Piece::Lend(&body)], Offload::None, thing.clone());
        assert!(taken.is_ok());
    }
    assert_eq!(b.pair.transmit.reclaim(), 0);
    b.pair.transmit.publish();
    let chains: Vec<TakenChain> = std::iter::from_fn(|| b.sender.take()).collect();
    assert_eq!(chains.len(), 3);
    assert_eq!(b.pair.transmit.reclaim(), 0);
    assert_eq!((alive(), b.pair.transmit.pending()), ([true; 3], 3));

    // Out of order, and seen only once published.
    b.sender.give_back(chains[1].head, 0);
    assert_eq!(b.pair.transmit.reclaim(), 0);
    b.sender.publish();
    assert_eq!(b.pair.transmit.reclaim(), 1);
    assert_eq!(alive(), [true, false, true]);
    b.sender.give_back(chains[2].head, 0);
    b.sender.give_back(chains[0].head, 0);
    b.sender.publish();
    assert_eq!(b.pair.transmit.reclaim(), 2);
    assert_eq!((alive(), b.pair.transmit.pending()), ([false; 3], 0));
    assert_eq!(b.pair.transmit.room(), 32);
}

#[test]
fn dropping_the_pair_drops_what_is_kept_unless_the_device_may_still_read_it() {
    for unbind_works in [true, false] {
        let mut b = bench::<Rc<()>>(ALL_FEATURES, &SMALL);
        let thing = kept();
        assert!(b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, thing.clone()).is_ok());
        b.pair.transmit.publish();
        if !unbind_works {
            b.hal.refuse_unbind();
        }
        drop(b);
        assert_eq!(Rc::strong_count(&thing), if unbind_works { 1 } else { 2 });
    }
}

#[test]
fn full_queue_gives_the_frame_back_and_takes_it_once_the_device_has_sent_some() {
    let mut b = bench::<Rc<()>>(ALL_FEATURES, &SMALL);
    let (thing, body) = (kept(), frame(1, 100));
    for _ in 0..16 {
        let taken =
            b.pair.transmit.transmit(&frame(0, 66), &[Piece::Lend(&body)], Offload::None, thing.clone());
        assert!(taken.is_ok());
    }
    assert_eq!(b.pair.transmit.room(), 0);
    let refused = b.pair.transmit.transmit(&frame(0, 66), &[], Offload::None, thing.clone());
    assert_eq!(refused.map_err(|refused| refused.reason), Err(Reason::Full));
    assert_eq!(Rc::strong_count(&thing), 17);
    assert_eq!(b.pair.transmit.statistics().full, 1);
    b.pair.transmit.publish();
    let chain = b.sender.take().expect("a chain");
    b.sender.give_back(chain.head, 0);
    b.sender.publish();
    // Reclaims by itself.
    assert!(
        b.pair.transmit.transmit(&frame(0, 66), &[Piece::Lend(&body)], Offload::None, thing.clone()).is_ok()
    );
    assert_eq!(Rc::strong_count(&thing), 17);
}

#[test]
fn impossible_frame_is_refused_and_leaves_nothing_behind() {
    let mut b = bench::<u32>(ALL_FEATURES & !(1 << 12), &SMALL);
    let (header, page, far) = (frame(1, 66), frame(2, 4096), frame(3, 10));
    b.hal.hide(&far);
    let large = vec![0; 65_500];
    let tso6 = Offload::Segment { checksum: AT, kind: SegmentKind::TcpIpv6, mss: 1440 };
    let many = [Piece::Lend(&page[..1]); 32];
    let cases: [(&[u8], &[Piece<'_>], Offload, Reason); 8] = [
        (&page[..SLOT_BYTES - 11], &[Piece::Lend(&page)], Offload::None, Reason::TooLong),
        (&header, &[Piece::Copy(&large), Piece::Copy(&header)], Offload::None, Reason::TooLong),
        (&header, &[Piece::Lend(&large)], Offload::None, Reason::TooLong),
        (&header, &many, Offload::None, Reason::TooManyPieces),
        (&header, &[Piece::Copy(&large[..32 * SLOT_BYTES])], Offload::None, Reason::TooManyPieces),
        (&header, &[Piece::Copy(&page)], tso6, Reason::NotNegotiated),
        (&header, &[Piece::Lend(&page), Piece::Lend(&far)], Offload::None, Reason::Unreachable),
        (&header, &[], tso6, Reason::NotNegotiated),
    ];
    for (header, pieces, offload, reason) in cases {
        let refused = b.pair.transmit.transmit(header, pieces, offload, 7).expect_err("impossible");
        assert_eq!((refused.reason, refused.keep), (reason, 7));
    }
    assert_eq!((b.pair.transmit.room(), b.pair.transmit.pending()), (32, 0));
    let slot = &page[..SLOT_BYTES - 12];
    assert!(b.pair.transmit.transmit(slot, &many[..31], Offload::None, 7).is_ok());
    b.pair.transmit.publish();
    let chain = b.sender.take().expect("the possible one");
    assert_eq!((chain.segments.len(), chain.gather().len()), (32, SLOT_BYTES + 31));
    assert!(b.sender.take().is_none());
}

/// One piece of memory a descriptor, each as full as it goes.
#[test]
fn frame_that_lends_nothing_may_be_longer_than_a_slot() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    let (header, body) = (frame(1, 42), frame(2, 1472));
    for len in [SLOT_BYTES - 54, SLOT_BYTES - 53, 2 * SLOT_BYTES - 54, 2 * SLOT_BYTES - 53, 1472] {
        let pieces = [Piece::Lend(&[]), Piece::Copy(&body[..len])];
        assert!(b.pair.transmit.transmit(&header, &pieces, Offload::Checksum(AT), ()).is_ok());
        b.pair.transmit.publish();
        let chain = b.sender.take().expect("a chain");
        let virtio_header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
        assert_eq!(chain.gather(), [&virtio_header[..], &header, &body[..len]].concat());
        assert_eq!(chain.segments.len(), (54 + len).div_ceil(SLOT_BYTES));
        b.sender.give_back(chain.head, 0);
        b.sender.publish();
    }
    b.pair.transmit.reclaim();
    assert_eq!((b.pair.transmit.room(), b.pair.transmit.pending()), (32, 0));
}

#[test]
fn frames_become_visible_together_and_ring_at_most_once() {
    for features in [ALL_FEATURES, NO_EVENT_IDX] {
        let mut b = bench::<()>(features, &SMALL);
        let batch = |b: &mut common::Bench<()>| {
            for n in 0..5 {
                assert!(b.pair.transmit.transmit(&frame(n, 66), &[], Offload::None, ()).is_ok());
                assert_eq!(b.sender.waiting(), 0);
            }
            b.pair.transmit.publish();
            b.pair.transmit.publish();
            assert_eq!(b.sender.waiting(), 5);
            while let Some(chain) = b.sender.take() {
                b.sender.give_back(chain.head, 0);
            }
            b.sender.publish();
            b.pair.transmit.reclaim();
        };
        assert_eq!(b.sender.request_doorbell(), 0);
        batch(&mut b);
        assert_eq!(b.hal.doorbells(1), 1);
        b.sender.suppress_doorbell();
        for _ in 0..10 {
            batch(&mut b);
        }
        assert_eq!(b.hal.doorbells(1), 1);
        assert_eq!(b.sender.request_doorbell(), 0);
        batch(&mut b);
        assert_eq!(b.hal.doorbells(1), 2);
    }
}

#[test]
fn sleep_for_room_ends_when_three_quarters_are_sent() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    assert_eq!(b.pair.request_interrupts(Interest::ReceiveAndTransmit), Arming::Sleep);
    for n in 0..8 {
        assert!(b.pair.transmit.transmit(&frame(n, 66), &[], Offload::None, ()).is_ok());
    }
    // Not published: going to sleep does it.
    assert_eq!(b.pair.request_interrupts(Interest::ReceiveAndTransmit), Arming::Sleep);
    let mut send = |n: usize| {
        for _ in 0..n {
            let chain = b.sender.take().expect("a chain");
            b.sender.give_back(chain.head, 0);
        }
        b.sender.publish()
    };
    assert_eq!(send(5), Signal::Quiet);
    assert_eq!(send(1), Signal::Interrupt);
    assert_eq!(b.pair.request_interrupts(Interest::ReceiveAndTransmit), Arming::WorkArrived);
    b.pair.suppress_interrupts();
    assert_eq!(b.pair.transmit.reclaim(), 6);
}

#[derive(Clone, Debug)]
enum Step {
    /// A frame with pieces of these lengths; true: lent.
    Transmit(Vec<(bool, usize)>),
    Publish,
    /// The device gives back the chain at this place among those it has.
    Complete(usize),
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((any::<bool>(), 0usize..40), 0..6).prop_map(Step::Transmit),
        1 => (0usize..3000).prop_map(|n| Step::Transmit(vec![(false, n / 2), (false, n)])),
        2 => Just(Step::Publish),
        4 => any::<usize>().prop_map(Step::Complete),
        2 => Just(Step::Reclaim),
    ]
}

proptest! {
    /// Whatever the pieces and the order of completion: the device gets exactly the frames, in order, each `keep` lives
    /// exactly as long as it must, and no descriptor is lost.
    #[test]
    fn frames_and_keeps_match_a_model(steps in prop::collection::vec(step(), 1..300)) {
        let mut b = bench::<Rc<()>>(ALL_FEATURES, &SMALL);
        let data = frame(9, 3000);
        let mut written: VecDeque<(Vec<u8>, Rc<()>)> = VecDeque::new();
        let mut with_device: Vec<(u16, Rc<()>)> = vec![];
        let mut completed: Vec<Rc<()>> = vec![];
        let mut sequence = 0u64;
        for step in steps {
            match step {
                Step::Transmit(lengths) => {
                    let header = frame(sequence, 54);
                    let pieces: Vec<Piece<'_>> = lengths
                        .iter()
                        .map(|&(lend, n)| if lend { Piece::Lend(&data[..n]) } else { Piece::Copy(&data[..n]) })
                        .collect();
                    let thing = kept();
                    match b.pair.transmit.transmit(&header, &pieces, Offload::None, thing.clone()) {
                        Ok(()) => {
                            sequence += 1;
                            let mut bytes = vec![0; 12];
                            bytes.extend(header);
                            lengths.iter().for_each(|&(_, n)| bytes.extend(&data[..n]));
                            written.push_back((bytes, thing));
                        }
                        Err(refused) => {
                            prop_assert_eq!(refused.reason, Reason::Full);
                            // A refusal has reclaimed.
                            completed.iter().for_each(|thing| assert_eq!(Rc::strong_count(thing), 1));
                            completed.clear();
                        }
                    }
                }
                Step::Publish => {
                    b.pair.transmit.publish();
                    while let Some(chain) = b.sender.take() {
                        let (bytes, thing) = written.pop_front().expect("only what was written");
                        prop_assert_eq!(chain.gather(), bytes);
                        with_device.push((chain.head, thing));
                    }
                    prop_assert!(written.is_empty());
                }
                Step::Complete(which) if !with_device.is_empty() => {
                    let (head, thing) = with_device.swap_remove(which % with_device.len());
                    b.sender.give_back(head, 0);
                    b.sender.publish();
                    completed.push(thing);
                }
                Step::Complete(_) => {}
                Step::Reclaim => {
                    b.pair.transmit.reclaim();
                    completed.iter().for_each(|thing| assert_eq!(Rc::strong_count(thing), 1));
                    completed.clear();
                }
            }
            let alive = written.iter().map(|(_, thing)| thing).chain(with_device.iter().map(|(_, thing)| thing));
            prop_assert!(alive.into_iter().all(|thing| Rc::strong_count(thing) == 2));
            prop_assert_eq!(b.pair.transmit.fault(), None);
        }
        b.pair.transmit.publish();
        while let Some(chain) = b.sender.take() {
            b.sender.give_back(chain.head, 0);
        }
        with_device.iter().for_each(|&(head, _)| b.sender.give_back(head, 0));
        b.sender.publish();
        b.pair.transmit.reclaim();
        prop_assert_eq!((b.pair.transmit.room(), b.pair.transmit.pending()), (32, 0));
    }
}

#[test]
fn every_frame_leaves_while_the_indices_wrap_twice() {
    let mut b = bench::<u64>(ALL_FEATURES, &SMALL);
    let body = frame(1, 64);
    let (mut queued, mut sent) = (0u64, 0u64);
    while sent < 150_000 {
        let pieces = [Piece::Lend(&body), Piece::Lend(&body)];
        let pieces = &pieces[..(queued % 3) as usize];
        match b.pair.transmit.transmit(&queued.to_le_bytes(), pieces, Offload::None, queued) {
            Ok(()) => queued += 1,
            Err(refused) => {
                assert_eq!((refused.reason, refused.keep), (Reason::Full, queued));
                b.pair.transmit.publish();
                while let Some(chain) = b.sender.take() {
                    let bytes = chain.gather();
                    assert_eq!(bytes[12..20], sent.to_le_bytes());
                    assert_eq!(bytes.len() as u64, 20 + 64 * (sent % 3));
                    b.sender.give_back(chain.head, 0);
                    sent += 1;
                }
                b.sender.publish();
            }
        }
    }
    b.pair.transmit.reclaim();
    assert_eq!(b.pair.transmit.statistics().completed, sent);
}
