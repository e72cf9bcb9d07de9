//! A queue on a fake machine, its other side, and a disk behind it.
#![allow(dead_code, unreachable_pub, missing_docs)]

use exos_block::fake::{FakeDisk, FakeHal, FakeQueue, device};
use exos_block::{BLOCK_BYTES, DiskQueue};

/// Buffers of these tests: scattered boxes.
pub type Pages = Vec<Box<[u8]>>;
pub type Queue = DiskQueue<FakeHal, Pages, u32>;

pub struct Bench {
    pub queue: Queue,
    pub other: FakeQueue,
    pub disk: FakeDisk,
    pub hal: FakeHal,
}

pub const BLOCKS: u64 = 1024;
pub const BLOCK: usize = BLOCK_BYTES as usize;

pub fn bench(features: u64, size: u16) -> Bench {
    let hal = FakeHal::new();
    let queue = Queue::open(hal.clone(), 0, &device(features, BLOCKS), 0, size).expect("a queue");
    let mut disk = FakeDisk::new(BLOCKS);
    disk.bytes = content(0, disk.bytes.len());
    Bench { queue, other: hal.queue(0, features), disk, hal }
}

impl Bench {
    /// Publishes, and lets the disk do everything.
    pub fn serve(&mut self) -> usize {
        self.queue.publish();
        self.disk.serve(&mut self.other)
    }
}

/// Bytes that say where they belong.
pub fn content(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed * 31 + at * 7 + (at >> 8) + (at >> 16)) as u8).collect()
}

/// Pages of these lengths, each byte 0xEE.
pub fn pages(lens: &[usize]) -> Pages {
    lens.iter().map(|&len| vec![0xEE; len].into_boxed_slice()).collect()
}

/// Pages of these lengths that hold `bytes`.
pub fn filled(lens: &[usize], bytes: &[u8]) -> Pages {
    let mut pages = pages(lens);
    let mut at = 0;
    for page in &mut pages {
        page.copy_from_slice(&bytes[at..at + page.len()]);
        at += page.len();
    }
    pages
}
