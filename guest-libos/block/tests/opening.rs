//! Opening and closing queues, and falling asleep.

mod common;

use abi::call::Error;
use common::{BLOCK, BLOCKS, Queue, bench, pages};
use exos_block::fake::{ALL_FEATURES, EVENT_IDX, FakeHal, Signal, device};
use exos_block::{Arming, OpenError};
use exos_virtqueue::OpenError as QueueError;

fn open(hal: &FakeHal, features: u64, queue: u32, size: u16) -> Result<Queue, OpenError> {
    Queue::open(hal.clone(), 0, &device(features, BLOCKS), queue, size)
}

#[test]
fn queues_bind_and_dropping_unbinds_them() {
    let hal = FakeHal::new();
    let first = open(&hal, ALL_FEATURES, 0, 64).expect("a queue");
    let _third = open(&hal, ALL_FEATURES, 2, 64).expect("a queue");
    assert_eq!(hal.bound(), [0, 2]);
    drop(first);
    assert_eq!(hal.bound(), [2]);
}

#[test]
fn open_invalid_arguments_return_why() {
    let hal = FakeHal::new();
    let mut net = device(ALL_FEATURES, BLOCKS);
    net.kind = abi::boot::DEVICE_NET;
    assert_eq!(Queue::open(hal.clone(), 0, &net, 0, 64).err(), Some(OpenError::NotABlockDevice));
    assert_eq!(open(&hal, ALL_FEATURES, 4, 64).err(), Some(OpenError::NoSuchQueue { queues: 4 }));
    assert_eq!(open(&hal, ALL_FEATURES, 0, 2).err(), Some(OpenError::TooSmall { size: 2 }));
    let legacy = Some(OpenError::Queue(QueueError::LegacyDevice));
    assert_eq!(open(&hal, ALL_FEATURES & !(1 << 32), 0, 64).err(), legacy);
    for size in [0, 1, 3, 2048] {
        let expected = Some(OpenError::Queue(QueueError::BadQueueSize { size, max: 1024 }));
        assert_eq!(open(&hal, ALL_FEATURES, 0, size).err(), expected);
    }
    assert_eq!(hal.bound(), []);
}

#[test]
fn open_refused_by_the_kernel_returns_its_reason() {
    let hal = FakeHal::new();
    hal.refuse_bind(0);
    let expected = OpenError::Queue(QueueError::Bind { queue: 0, error: Error::NotPermitted });
    assert_eq!(open(&hal, ALL_FEATURES, 0, 64).err(), Some(expected));
}

#[test]
fn open_with_an_unreachable_heap_returns_unreachable() {
    let hal = FakeHal::new();
    hal.hide_memory();
    assert_eq!(open(&hal, ALL_FEATURES, 0, 64).err(), Some(OpenError::Queue(QueueError::Unreachable)));
}

#[test]
fn completion_before_the_wish_is_work_and_after_it_an_interrupt() {
    for features in [ALL_FEATURES, ALL_FEATURES & !(1 << EVENT_IDX)] {
        let mut b = bench(features, 64);
        assert_eq!(b.queue.request_interrupts(), Arming::Sleep, "nothing is under way");
        b.queue.suppress_interrupts();
        b.queue.read(0, pages(&[BLOCK]), 1).expect("taken");
        // Publishes by itself.
        assert_eq!(b.queue.request_interrupts(), Arming::Sleep);
        let chain = b.other.take().expect("published");
        b.disk.finish(&mut b.other, &chain);
        assert_eq!(b.other.publish(), Signal::Interrupt);
        assert_eq!(b.queue.request_interrupts(), Arming::WorkArrived);
        b.queue.suppress_interrupts();
        assert!(b.queue.is_ready());
        assert_eq!(b.queue.poll().map(|done| done.token), Some(1));
        b.queue.read(0, pages(&[BLOCK]), 2).expect("taken");
        b.queue.publish();
        let chain = b.other.take().expect("published");
        b.disk.finish(&mut b.other, &chain);
        assert_eq!(b.other.publish(), Signal::Quiet, "polled");
    }
}
