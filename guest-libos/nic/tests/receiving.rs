//! The receive queue against a device that keeps to the rules.

mod common;

use common::{NO_EVENT_IDX, SMALL, bench, frame};
use exos_nic::fake::{ALL_FEATURES, NetQueue as _, Signal};
use exos_nic::{Arming, Checksum, Config, Interest};

#[test]
fn frames_come_in_order_and_lie_where_the_device_wrote_them() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for (n, len_bytes) in [(1, 60), (2, 1514), (3, 2036), (4, 0)] {
        assert!(b.receiver.deliver([0; 12], &frame(n, len_bytes)));
    }
    assert!(b.pair.receive.poll().is_none(), "nothing is published");
    b.receiver.publish();
    let mut addresses = vec![];
    for (n, len_bytes) in [(1, 60), (2, 1514), (3, 2036), (4, 0)] {
        let got = b.pair.receive.poll().expect("a frame");
        assert_eq!(got.bytes(), frame(n, len_bytes));
        addresses.push(got.bytes().as_ptr().addr());
    }
    assert!(b.pair.receive.poll().is_none());
    // Neighbouring buffers of one block: nothing was copied.
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] == 2048));
    let statistics = b.pair.receive.statistics();
    assert_eq!((statistics.frames, statistics.bytes, statistics.merged), (4, 60 + 1514 + 2036, 0));
}

#[test]
fn frame_in_several_buffers_is_one_piece() {
    for config in [SMALL, Config::default()] {
        let buffer_bytes = config.receive_buffer_bytes;
        let mut b = bench::<()>(ALL_FEATURES, &config);
        let lengths = [buffer_bytes - 12, buffer_bytes - 11, 2 * buffer_bytes - 12, 2 * buffer_bytes, 65_549];
        for (n, &len_bytes) in lengths.iter().enumerate() {
            assert!(b.receiver.deliver([0; 12], &frame(n as u64, len_bytes)));
            assert!(b.receiver.deliver([0; 12], &frame(99, 60)));
            b.receiver.publish();
            let got = b.pair.receive.poll().expect("a frame");
            assert!(got.bytes() == frame(n as u64, len_bytes));
            assert_eq!(b.pair.receive.poll().expect("the next frame").bytes(), frame(99, 60));
            assert!(b.pair.receive.poll().is_none());
            assert_eq!(b.receiver.waiting(), config.receive_size, "all buffers are back");
        }
        assert_eq!(b.pair.receive.statistics().merged, 4);
        assert_eq!(b.pair.receive.fault(), None);
    }
}

#[test]
fn rest_of_a_merged_frame_that_was_published_later_is_found() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
    let chains = [b.receiver.take().expect("a buffer"), b.receiver.take().expect("a buffer")];
    b.receiver.write(chains[0].segments[0], 0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    b.receiver.write(chains[1].segments[0], 0, b"rest");
    b.receiver.give_back(chains[0].head, 2048);
    b.receiver.publish();
    assert!(b.pair.receive.poll().is_some());
    // The driver has seen the index of the first part by now.
    b.receiver.give_back(chains[1].head, 4);
    b.receiver.publish();
    let got = b.pair.receive.poll().expect("a merged frame");
    assert_eq!((got.bytes().len(), got.bytes().last_chunk()), (2040, Some(b"rest")));
}

#[test]
fn bulk_buffers_take_the_largest_frame_without_a_copy() {
    let mut b = bench::<()>(ALL_FEATURES, &Config::bulk());
    assert!(b.receiver.deliver([0; 12], &frame(1, 65_549)));
    b.receiver.publish();
    assert!(b.pair.receive.poll().expect("a frame").bytes() == frame(1, 65_549));
    assert_eq!(b.pair.receive.statistics().merged, 0);
}

#[test]
fn header_gives_checksum_status_and_segment_size() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for (flags, gso_type) in [(0, 0), (1, 1), (2, 0)] {
        let mut header = [0; 12];
        (header[0], header[1]) = (flags, gso_type);
        header[4..6].copy_from_slice(&1448u16.to_le_bytes());
        assert!(b.receiver.deliver(header, &frame(1, 100)));
    }
    b.receiver.publish();
    let mut next = || b.pair.receive.poll().map(|f| (f.checksum(), f.segment_bytes()));
    assert_eq!(next(), Some((Checksum::Unverified, None)));
    assert_eq!(next(), Some((Checksum::Partial, Some(1448))));
    assert_eq!(next(), Some((Checksum::Verified, None)));
}

#[test]
fn buffers_go_back_in_batches() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for n in 0..40 {
        assert!(b.receiver.deliver([0; 12], &frame(n, 60)));
    }
    b.receiver.publish();
    let mut waiting = vec![];
    for _ in 0..40 {
        assert!(b.pair.receive.poll().is_some());
        waiting.push(b.receiver.waiting());
    }
    // 24 buffers were never used; a quarter of the queue (16) comes back at a time.
    waiting.dedup();
    assert_eq!(waiting, [24, 40, 56]);
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.receiver.waiting(), 64);
    assert_eq!(b.pair.receive.statistics().batches, 1);
}

#[test]
fn every_frame_arrives_while_the_indices_wrap_twice() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    let (mut sent, mut got) = (0u64, 0u64);
    while got < 150_000 {
        let batch = 1 + (sent.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59);
        for _ in 0..batch {
            // One in eight is merged from two buffers.
            let len_bytes = if sent % 8 == 7 { 3000 } else { 64 };
            if b.receiver.deliver([0; 12], &sent.to_le_bytes().repeat(len_bytes / 8)) {
                sent += 1;
            }
        }
        b.receiver.publish();
        while let Some(frame) = b.pair.receive.poll() {
            assert_eq!(frame.bytes().first_chunk(), Some(&got.to_le_bytes()));
            assert_eq!(frame.bytes().last_chunk(), Some(&got.to_le_bytes()));
            got += 1;
        }
    }
    assert_eq!(got, sent);
    assert_eq!(b.pair.receive.statistics().frames, got);
}

#[test]
fn doorbell_rings_only_if_the_device_asks() {
    for features in [ALL_FEATURES, NO_EVENT_IDX] {
        let mut b = bench::<()>(features, &SMALL);
        let at_start = b.hal.doorbells(0);
        assert_eq!(at_start, 1, "a new device asks for the first buffers");
        let round = |b: &mut common::Bench<()>| {
            assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
            b.receiver.publish();
            while b.pair.receive.poll().is_some() {}
        };
        b.receiver.suppress_doorbell();
        for _ in 0..100 {
            round(&mut b);
        }
        assert_eq!(b.hal.doorbells(0), at_start);
        while b.receiver.waiting() > 0 {
            assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
        }
        assert_eq!(b.receiver.request_doorbell(), 0);
        b.receiver.publish();
        while b.pair.receive.poll().is_some() {}
        assert_eq!(b.hal.doorbells(0), at_start + if features == ALL_FEATURES { 1 } else { 4 });
    }
}

#[test]
fn sleep_is_ended_by_the_next_frame_and_refused_if_one_is_there() {
    for features in [ALL_FEATURES, NO_EVENT_IDX] {
        let mut b = bench::<()>(features, &SMALL);
        let deliver = |b: &mut common::Bench<()>| {
            assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
            b.receiver.publish()
        };
        assert_eq!(deliver(&mut b), Signal::Quiet, "interrupts are off at first");
        assert_eq!(b.pair.request_interrupts(Interest::Receive), Arming::WorkArrived);
        b.pair.suppress_interrupts();
        assert_eq!(deliver(&mut b), Signal::Quiet);
        while b.pair.receive.poll().is_some() {}
        assert_eq!(b.pair.request_interrupts(Interest::Receive), Arming::Sleep);
        assert_eq!(deliver(&mut b), Signal::Interrupt);
        b.pair.suppress_interrupts();
        while b.pair.receive.poll().is_some() {}
        assert_eq!(deliver(&mut b), Signal::Quiet);
    }
}

#[test]
fn frame_seen_but_not_taken_keeps_one_awake() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    for _ in 0..2 {
        assert!(b.receiver.deliver([0; 12], &frame(1, 60)));
    }
    b.receiver.publish();
    assert!(b.pair.receive.poll().is_some());
    assert_eq!(b.pair.request_interrupts(Interest::Receive), Arming::WorkArrived);
    assert!(b.pair.receive.poll().is_some());
    assert!(b.pair.receive.poll().is_none());
}

#[test]
fn suppressed_interrupts_stay_off_while_the_index_wraps() {
    for features in [ALL_FEATURES, NO_EVENT_IDX] {
        let mut b = bench::<()>(features, &SMALL);
        for _ in 0..200_000 {
            assert!(b.receiver.deliver([0; 12], &[0; 60]));
            assert_eq!(b.receiver.publish(), Signal::Quiet);
            while b.pair.receive.poll().is_some() {}
        }
    }
}

#[test]
fn kept_buffer_stays_as_it_is_and_goes_back_when_it_is_let_go() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    let all = b.receiver.waiting();
    assert!(b.receiver.deliver([0; 12], &frame(1, 600)) && b.receiver.deliver([0; 12], &frame(2, 600)));
    b.receiver.publish();
    let got = b.pair.receive.poll().expect("a frame");
    let kept = got.keep().expect("a buffer");
    assert!(got.keep().is_none(), "it is kept already");
    assert_eq!(b.pair.receive.poll().expect("the next frame").bytes(), frame(2, 600));
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.receiver.waiting(), all - 1, "all but the one that is kept");
    drop(kept);
    assert!(b.pair.receive.poll().is_none());
    assert_eq!(b.receiver.waiting(), all);
    assert_eq!(b.pair.receive.fault(), None);
}

#[test]
fn end_of_a_round_shows_the_device_the_buffers_that_were_let_go() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    let all = b.receiver.waiting();
    for _ in 0..all {
        assert!(b.receiver.deliver([0; 12], &frame(1, 600)));
    }
    b.receiver.publish();
    let mut kept = Vec::new();
    while let Some(frame) = b.pair.receive.poll() {
        kept.push(frame.keep().expect("a buffer"));
    }
    assert!(kept.len() == usize::from(all) && b.receiver.waiting() == 0);
    kept.clear();
    b.pair.publish();
    assert_eq!(b.receiver.waiting(), all, "though nothing was there to poll");
}

#[test]
fn merged_frame_has_no_buffer_to_keep() {
    let mut b = bench::<()>(ALL_FEATURES, &SMALL);
    assert!(b.receiver.deliver([0; 12], &frame(1, 5000)));
    b.receiver.publish();
    assert!(b.pair.receive.poll().expect("a frame").keep().is_none());
}
