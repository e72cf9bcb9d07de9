//! Numbers for what should not be guessed by accident: transaction numbers, and waits that spread. They are no secrets.

use crate::Interface;
use exos_runtime::clock;

/// SplitMix64 (Steele, Lea and Flood 2014), seeded by the boot's random bytes and the clock.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(interface: &Interface) -> Self {
        let seed = interface.secret.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self(seed.rotate_left(32) ^ clock::tsc())
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u32
    }
}
