//! A link that loses, repeats and reorders frames, by a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What the link does to frames, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) repeat: u64,
    pub(crate) reorder: u64,
}

/// A small generator of repeatable random numbers (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// One direction of the link: frames in the order of their arrival.
pub(crate) struct Direction {
    faults: Faults,
    queue: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    count: u64,
}

const ONE_WAY_US: u64 = 1_000;

impl Direction {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { faults, queue: BinaryHeap::new(), count: 0 }
    }

    pub(crate) fn put(&mut self, frame: Vec<u8>, now_us: u64, random: &mut Random) {
        if random.percent(self.faults.loss) {
            return;
        }
        let copies = 1 + u64::from(random.percent(self.faults.repeat));
        for _ in 0..copies {
            let late = if random.percent(self.faults.reorder) { random.next() % 3_000 } else { 0 };
            self.count += 1;
            self.queue.push(Reverse((now_us + ONE_WAY_US + late, self.count, frame.clone())));
        }
    }

    pub(crate) fn take(&mut self, now_us: u64) -> Option<Vec<u8>> {
        let Reverse((at, ..)) = self.queue.peek()?;
        if *at > now_us { None } else { self.queue.pop().map(|Reverse((_, _, frame))| frame) }
    }

    pub(crate) fn next_us(&self) -> u64 {
        self.queue.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }
}
