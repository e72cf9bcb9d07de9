//! Requests that a well-behaved device does: what arrives, what comes back, what is not taken.

mod common;

use common::{BLOCK, BLOCKS, Queue, bench, content, filled, pages};
use exos_block::fake::{ALL_FEATURES, EVENT_IDX, FakeHal, READ_ONLY, Signal, device};
use exos_block::{Completion, DISCARD_BLOCKS_MAX, Failure, Reason, Refused};

#[test]
fn read_fills_scattered_pages_with_the_blocks() {
    let mut b = bench(ALL_FEATURES, 64);
    b.queue.read(3, pages(&[BLOCK, 100, BLOCK - 100, 2 * BLOCK]), 7).expect("taken");
    assert_eq!(b.queue.poll(), None, "not before it is published");
    assert_eq!(b.serve(), 1);
    let Completion { token, buffer, result } = b.queue.poll().expect("done");
    assert_eq!((token, result), (7, Ok(())));
    assert_eq!(buffer.expect("a buffer").concat(), b.disk.bytes[3 * BLOCK..7 * BLOCK]);
    assert_eq!((b.queue.pending(), b.queue.room()), (0, 64));
}

#[test]
fn write_puts_scattered_pages_on_the_blocks() {
    let mut b = bench(ALL_FEATURES, 64);
    let bytes = content(99, 3 * BLOCK);
    b.queue.write(BLOCKS - 3, filled(&[10, BLOCK, 2 * BLOCK - 10], &bytes), 1).expect("taken");
    b.serve();
    let done = b.queue.poll().expect("done");
    assert_eq!((done.result, done.buffer.expect("a buffer").concat()), (Ok(()), bytes.clone()));
    assert_eq!(b.disk.bytes[(BLOCKS as usize - 3) * BLOCK..], bytes);
}

#[test]
fn one_mebibyte_of_scattered_pages_is_one_request() {
    let mut b = bench(ALL_FEATURES, 512);
    b.queue.read(256, pages(&[BLOCK; 256]), 0).expect("taken");
    assert_eq!(b.serve(), 1);
    let buffer = b.queue.poll().and_then(|done| done.buffer).expect("a buffer");
    assert_eq!(buffer.concat(), b.disk.bytes[256 * BLOCK..512 * BLOCK]);
}

#[test]
fn flush_and_discard_reach_the_disk() {
    let mut b = bench(ALL_FEATURES, 64);
    b.queue.flush(1).expect("taken");
    b.queue.discard(10, 5, 2).expect("taken");
    assert_eq!(b.serve(), 2);
    for token in [1, 2] {
        assert_eq!(b.queue.poll(), Some(Completion { token, buffer: None, result: Ok(()) }));
    }
    assert_eq!(b.disk.done, [0, 0, 1, 1]);
    assert!(b.disk.bytes[10 * BLOCK..15 * BLOCK].iter().all(|&byte| byte == 0));
    assert_eq!(b.disk.bytes[15 * BLOCK..], content(0, BLOCKS as usize * BLOCK)[15 * BLOCK..]);
}

#[test]
fn failed_read_gives_the_buffer_back_and_the_queue_goes_on() {
    let mut b = bench(ALL_FEATURES, 64);
    b.disk.bad_blocks.insert(5);
    b.queue.read(4, pages(&[2 * BLOCK]), 1).expect("taken");
    b.queue.read(6, pages(&[BLOCK]), 2).expect("taken");
    b.serve();
    let failed = b.queue.poll().expect("done");
    assert_eq!((failed.token, failed.result), (1, Err(Failure::Io)));
    assert_eq!(failed.buffer.map(|buffer| buffer.concat().len()), Some(2 * BLOCK));
    assert_eq!(b.queue.poll().map(|done| (done.token, done.result)), Some((2, Ok(()))));
    assert_eq!(b.queue.statistics().failed, 1);
}

#[test]
fn completions_in_any_order_find_their_requests() {
    let mut b = bench(ALL_FEATURES, 64);
    for round in 0..200u32 {
        for token in 0..8 {
            b.queue.read(u64::from(round + token), pages(&[BLOCK]), token).expect("taken");
        }
        b.queue.publish();
        let mut chains: Vec<_> = std::iter::from_fn(|| b.other.take()).collect();
        chains.rotate_left(round as usize % 8);
        chains.reverse();
        for chain in &chains {
            b.disk.finish(&mut b.other, chain);
        }
        b.other.publish();
        let mut seen = 0u32;
        while let Some(done) = b.queue.poll() {
            let at = (round + done.token) as usize * BLOCK;
            assert_eq!(done.buffer.expect("a buffer").concat(), b.disk.bytes[at..at + BLOCK]);
            seen |= 1 << done.token;
        }
        assert_eq!(seen, 0xFF);
    }
}

#[test]
fn indices_wrap_and_neither_a_request_is_lost_nor_a_polled_queue_interrupted() {
    for features in [ALL_FEATURES, ALL_FEATURES & !(1 << EVENT_IDX)] {
        let mut b = bench(features, 16);
        let mut buffer = pages(&[BLOCK]);
        for number in 0..140_000u32 {
            let block = u64::from(number) % BLOCKS;
            b.queue.read(block, buffer, number).expect("taken");
            b.queue.publish();
            let chain = b.other.take().expect("published");
            b.disk.finish(&mut b.other, &chain);
            assert_eq!(b.other.publish(), Signal::Quiet, "request {number}");
            let done = b.queue.poll().expect("done");
            assert_eq!((done.token, done.result), (number, Ok(())));
            buffer = done.buffer.expect("a buffer");
            let at = block as usize * BLOCK;
            assert!(buffer[0][..64] == b.disk.bytes[at..at + 64], "request {number}");
        }
        assert_eq!((b.queue.fault(), b.queue.room()), (None, 16));
    }
}

#[test]
fn batch_is_published_with_at_most_one_doorbell() {
    for features in [ALL_FEATURES, ALL_FEATURES & !(1 << EVENT_IDX)] {
        let mut b = bench(features, 64);
        b.other.request_doorbell();
        for token in 0..5 {
            b.queue.read(u64::from(token), pages(&[BLOCK]), token).expect("taken");
        }
        assert_eq!((b.other.waiting(), b.hal.doorbells(0)), (0, 0));
        b.queue.publish();
        b.queue.publish();
        assert_eq!((b.other.waiting(), b.hal.doorbells(0)), (5, 1));
        b.disk.serve(&mut b.other);
        b.other.suppress_doorbell();
        b.queue.read(0, pages(&[BLOCK]), 9).expect("taken");
        b.queue.publish();
        assert_eq!(b.hal.doorbells(0), 1, "the device did not ask");
    }
}

fn reason<B, K>(result: Result<(), Refused<B, K>>) -> Option<Reason> {
    result.err().map(|refused| refused.reason)
}

#[test]
fn impossible_requests_return_the_reason_and_everything_they_came_with() {
    let mut b = bench(ALL_FEATURES, 64);
    for (start, lens, expected) in [
        (0, vec![], Reason::NotWholeBlocks),
        (0, vec![BLOCK - 1], Reason::NotWholeBlocks),
        (0, vec![BLOCK, 512], Reason::NotWholeBlocks),
        (BLOCKS, vec![BLOCK], Reason::BeyondTheEnd),
        (BLOCKS - 1, vec![2 * BLOCK], Reason::BeyondTheEnd),
        (u64::MAX, vec![BLOCK], Reason::BeyondTheEnd),
        (0, vec![BLOCK; 63], Reason::TooLong),
    ] {
        let refused = b.queue.read(start, pages(&lens), 5).expect_err("impossible");
        assert_eq!((refused.reason, refused.token), (expected, 5), "{start} {lens:?}");
        assert_eq!(refused.buffer, pages(&lens));
    }
    assert_eq!(reason(b.queue.discard(BLOCKS - 1, 2, 0)), Some(Reason::BeyondTheEnd));
    assert_eq!(reason(b.queue.discard(1, 0, 0)), Some(Reason::NotWholeBlocks));
    assert_eq!((b.queue.room(), b.queue.pending()), (64, 0), "nothing was used up");
}

#[test]
fn discard_of_more_than_one_request_may_returns_too_long() {
    let device = device(ALL_FEATURES, 2 * DISCARD_BLOCKS_MAX);
    let mut queue = Queue::open(FakeHal::new(), 0, &device, 0, 16).expect("a queue");
    assert_eq!(reason(queue.discard(0, DISCARD_BLOCKS_MAX + 1, 0)), Some(Reason::TooLong));
    assert_eq!(reason(queue.discard(0, DISCARD_BLOCKS_MAX, 0)), None);
}

#[test]
fn read_only_disk_takes_only_reads() {
    let mut b = bench(ALL_FEATURES | READ_ONLY, 64);
    assert!(b.queue.is_read_only());
    assert_eq!(reason(b.queue.write(0, pages(&[BLOCK]), 0)), Some(Reason::ReadOnly));
    assert_eq!(reason(b.queue.flush(0)), Some(Reason::ReadOnly));
    assert_eq!(reason(b.queue.discard(0, 1, 0)), Some(Reason::ReadOnly));
    assert_eq!(reason(b.queue.read(0, pages(&[BLOCK]), 0)), None);
}

#[test]
fn requests_that_were_not_negotiated_return_not_negotiated() {
    let mut b = bench(1 << 32, 64);
    assert_eq!(reason(b.queue.flush(0)), Some(Reason::NotNegotiated));
    assert_eq!(reason(b.queue.discard(0, 1, 0)), Some(Reason::NotNegotiated));
}

#[test]
fn full_queue_returns_full_and_takes_again_what_has_come_back() {
    let mut b = bench(ALL_FEATURES, 16);
    let mut taken = 0;
    while reason(b.queue.read(taken, pages(&[BLOCK]), taken as u32)).is_none() {
        taken += 1;
    }
    assert_eq!(taken, 5, "three descriptors each");
    assert_eq!(reason(b.queue.flush(0)), Some(Reason::Full));
    b.serve();
    assert!(b.queue.poll().is_some());
    assert_eq!(reason(b.queue.read(0, pages(&[100, BLOCK - 100]), 0)), None);
}

#[test]
fn buffer_that_the_device_cannot_reach_returns_unreachable() {
    let mut b = bench(ALL_FEATURES, 16);
    let buffer = pages(&[BLOCK]);
    b.hal.hide(&buffer[0]);
    assert_eq!(reason(b.queue.read(0, buffer, 0)), Some(Reason::Unreachable));
    assert_eq!(b.queue.room(), 16);
}
