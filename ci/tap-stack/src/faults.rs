//! What a wire does to frames, from a seed.

use exos_net::{Duration, Instant};
use std::collections::BTreeMap;

/// What the wire does, each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Frames lost, of a thousand.
    pub lost: u32,
    /// Frames repeated, of a thousand.
    pub repeated: u32,
    /// Frames held back for [`Self::hold_ms`], of a thousand.
    pub held: u32,
    /// Milliseconds that everything takes.
    pub delay_ms: u64,
    /// Milliseconds more for what is held back.
    pub hold_ms: u64,
    /// Of the choices.
    pub seed: u64,
}

impl Faults {
    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.lost + self.repeated + self.held == 0 && self.delay_ms == 0
    }
}

/// A direction of the wire: frames with the time at which they arrive.
pub(crate) struct Way {
    faults: Faults,
    random: u64,
    frames: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
}

impl Way {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, random: (faults.seed ^ seed) | 1, frames: BTreeMap::new(), number: 0 }
    }

    /// Of a thousand (xorshift64*).
    fn happens(&mut self, of_thousand: u32) -> bool {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1_000 < u64::from(of_thousand)
    }

    pub(crate) fn push(&mut self, now: Instant, frame: Vec<u8>) {
        if self.happens(self.faults.lost) {
            return;
        }
        let copies = 1 + usize::from(self.happens(self.faults.repeated));
        for _ in 0..copies {
            let held_ms = if self.happens(self.faults.held) { self.faults.hold_ms } else { 0 };
            let at = now + Duration::from_millis(self.faults.delay_ms + held_ms);
            self.number += 1;
            self.frames.insert((at, self.number), frame.clone());
        }
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.frames.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
