//! A histogram of durations as the VMM takes them: time stamps' differences in cycles, by powers of two.

use abi::statistics::{BUCKETS, bucket};

/// Cycles by powers of two. One writer, or behind its owner's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CycleHistogram {
    sum: u64,
    buckets: [u64; BUCKETS],
}

impl Default for CycleHistogram {
    fn default() -> Self {
        Self { sum: 0, buckets: [0; BUCKETS] }
    }
}

impl CycleHistogram {
    /// Adds a duration.
    #[inline]
    pub fn add(&mut self, cycles: u64) {
        self.buckets[bucket(cycles)] += 1;
        self.sum = self.sum.wrapping_add(cycles);
    }

    /// Sum, and bounds with counts, in nanoseconds.
    pub fn nanoseconds(&self, tsc_khz: u64) -> (u64, impl Iterator<Item = (u64, u64)>) {
        let ns = move |cycles: u64| {
            u64::try_from(u128::from(cycles) * 1_000_000 / u128::from(tsc_khz.max(1))).unwrap_or(u64::MAX)
        };
        let counts = self.buckets.iter().enumerate().map(move |(power, &count)| (ns(1 << power), count));
        (ns(self.sum), counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_lie_below_their_bounds_in_nanoseconds() {
        let mut histogram = CycleHistogram::default();
        for cycles in [2_000_000, 2_000_001, 5_000_000] {
            histogram.add(cycles);
        }
        // At 2 GHz: 1 ms, 1 ms, 2.5 ms; the bounds are 2^21 and 2^23 cycles.
        let (sum, counts) = histogram.nanoseconds(2_000_000);
        assert_eq!(sum, 4_500_000);
        let filled: Vec<_> = counts.filter(|&(_, count)| count > 0).collect();
        assert_eq!(filled, [(1_048_576, 2), (4_194_304, 1)]);
    }
}
