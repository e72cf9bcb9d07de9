//! Opening and closing queue pairs.

mod common;

use abi::call::Error;
use exos_nic::fake::{ALL_FEATURES, FakeHal, MERGEABLE, NetQueue as _, device};
use exos_nic::{Config, OpenError, QueuePair};

type Pair = QueuePair<FakeHal, ()>;

fn open(hal: &FakeHal, features: u64, pair: u32, config: &Config) -> Result<Pair, OpenError> {
    QueuePair::open(hal.clone(), 0, &device(features), pair, config)
}

#[test]
fn pairs_bind_their_own_two_queues_and_dropping_unbinds_them() {
    let hal = FakeHal::new();
    let first = open(&hal, ALL_FEATURES, 0, &Config::default()).expect("a pair");
    let third = open(&hal, ALL_FEATURES, 2, &Config::bulk()).expect("a pair");
    assert_eq!(hal.bound(), [0, 1, 4, 5]);
    drop(first);
    assert_eq!(hal.bound(), [4, 5]);
    drop(third);
    assert_eq!(hal.bound(), []);
}

#[test]
fn all_receive_buffers_are_with_the_device_from_the_start() {
    let hal = FakeHal::new();
    let _pair = open(&hal, ALL_FEATURES, 0, &Config::default()).expect("a pair");
    assert_eq!(hal.queue(0, ALL_FEATURES).waiting(), 256);
}

#[test]
fn open_invalid_device_returns_why() {
    let hal = FakeHal::new();
    let config = Config::default();
    let mut block = device(ALL_FEATURES);
    block.kind = abi::boot::DEVICE_BLOCK;
    let refused = Pair::open(hal.clone(), 0, &block, 0, &config).err();
    assert_eq!(refused, Some(OpenError::NotANetworkDevice));
    assert_eq!(open(&hal, ALL_FEATURES, 4, &config).err(), Some(OpenError::NoSuchPair { pairs: 4 }));
    assert_eq!(open(&hal, ALL_FEATURES, u32::MAX, &config).err(), Some(OpenError::NoSuchPair { pairs: 4 }));
    assert_eq!(
        open(&hal, ALL_FEATURES & !(1 << 32), 0, &config).err(),
        Some(OpenError::Queue(exos_virtqueue::OpenError::LegacyDevice))
    );
    assert_eq!(hal.bound(), []);
}

#[test]
fn open_invalid_size_returns_bad_queue_size() {
    let hal = FakeHal::new();
    for size in [0, 1, 3, 2048] {
        let expected = Some(OpenError::Queue(exos_virtqueue::OpenError::BadQueueSize { size, max: 1024 }));
        let receive = Config { receive_size: size, ..Config::default() };
        assert_eq!(open(&hal, ALL_FEATURES, 0, &receive).err(), expected);
        let transmit = Config { transmit_size: size, ..Config::default() };
        assert_eq!(open(&hal, ALL_FEATURES, 0, &transmit).err(), expected);
    }
}

#[test]
fn open_buffers_too_small_for_a_frame_returns_buffers_too_small() {
    let hal = FakeHal::new();
    let config = |receive_size, receive_buffer_bytes| Config {
        receive_size,
        receive_buffer_bytes,
        ..Config::default()
    };
    let large = Some(OpenError::BuffersTooSmall { needed: 65_562 });
    assert_eq!(open(&hal, ALL_FEATURES, 0, &config(64, 2048)).err(), None);
    assert_eq!(open(&hal, ALL_FEATURES, 0, &config(32, 2048)).err(), large);
    let unmerged = ALL_FEATURES & !(1 << MERGEABLE);
    assert_eq!(open(&hal, unmerged, 0, &Config::default()).err(), large);
    assert_eq!(open(&hal, unmerged, 0, &Config::bulk()).err(), None);
    let plain = 1 << 32;
    assert_eq!(open(&hal, plain, 0, &config(32, 2048)).err(), None);
    assert_eq!(
        open(&hal, plain, 0, &config(32, 1024)).err(),
        Some(OpenError::BuffersTooSmall { needed: 1530 })
    );
    assert_eq!(
        open(&hal, ALL_FEATURES, 0, &config(2, usize::MAX)).err(),
        Some(OpenError::Queue(exos_virtqueue::OpenError::OutOfMemory))
    );
    assert_eq!(
        open(&hal, ALL_FEATURES, 0, &config(2, usize::MAX / 2)).err(),
        Some(OpenError::Queue(exos_virtqueue::OpenError::OutOfMemory))
    );
}

#[test]
fn open_refused_by_the_kernel_binds_nothing() {
    for queue in [0, 1] {
        let hal = FakeHal::new();
        hal.refuse_bind(queue);
        let refused = open(&hal, ALL_FEATURES, 0, &Config::default()).err();
        assert_eq!(
            refused,
            Some(OpenError::Queue(exos_virtqueue::OpenError::Bind { queue, error: Error::NotPermitted }))
        );
        assert_eq!(hal.bound(), []);
    }
}

#[test]
fn open_with_an_unreachable_heap_returns_unreachable() {
    let hal = FakeHal::new();
    hal.hide_memory();
    assert_eq!(
        open(&hal, ALL_FEATURES, 0, &Config::default()).err(),
        Some(OpenError::Queue(exos_virtqueue::OpenError::Unreachable))
    );
}

#[test]
fn memory_stays_where_it_is_if_unbinding_is_refused() {
    let hal = FakeHal::new();
    let pair = open(&hal, ALL_FEATURES, 0, &common::SMALL).expect("a pair");
    let mut queue = hal.queue(0, ALL_FEATURES);
    hal.refuse_unbind();
    drop(pair);
    // Still bound: the device goes on writing, and what it writes to is nobody else's.
    let others: Vec<Vec<u8>> = (0..64).map(|_| vec![0; 2048]).collect();
    assert!(queue.deliver([0; 12], &[0xFF; 2000]));
    queue.publish();
    assert!(others.iter().flatten().all(|&byte| byte == 0));
}
