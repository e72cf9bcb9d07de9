//! Random numbers from a seed, and numbers of all sizes.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }

    /// Small, around a power of two, near the largest, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.below(8) {
            0..=2 => self.below(9),
            3 => self.below(1 << 16),
            4 => (1u64 << self.below(64)).wrapping_add(self.below(3)).wrapping_sub(1),
            5 => u64::MAX - self.below(5),
            6 => self.below(1 << 32) << self.below(32),
            _ => self.next(),
        }
    }
}
