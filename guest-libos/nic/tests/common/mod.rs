//! A queue pair on a fake machine, and both of its queues from the device's side.
#![allow(dead_code, unreachable_pub, missing_docs)]

use exos_nic::fake::{ALL_FEATURES, EVENT_IDX, FakeHal, FakeQueue, device};
use exos_nic::{Config, QueuePair};

pub type Pair<K> = QueuePair<FakeHal, K>;

pub struct Bench<K> {
    pub pair: Pair<K>,
    pub receiver: FakeQueue,
    pub sender: FakeQueue,
    pub hal: FakeHal,
}

pub const NO_EVENT_IDX: u64 = ALL_FEATURES & !(1 << EVENT_IDX);

/// Small queues, so that they wrap soon: 64 buffers of 2 KiB, 32 descriptors.
pub const SMALL: Config = Config { receive_size: 64, receive_buffer_bytes: 2048, transmit_size: 32 };

pub fn bench<K>(features: u64, config: &Config) -> Bench<K> {
    let hal = FakeHal::new();
    let pair = QueuePair::open(hal.clone(), 0, &device(features), 0, config).expect("a pair");
    Bench { pair, receiver: hal.queue(0, features), sender: hal.queue(1, features), hal }
}

/// A frame whose bytes say where in it they belong.
pub fn frame(seed: u64, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (seed as usize * 31 + i * 7 + (i >> 8)) as u8).collect()
}
