//! Latencies, as HDR histograms keep them (Tene's HdrHistogram): below [`EXACT`] each value has a bucket, above it every power of
//! two is cut into [`HALF`] buckets of the same width. So a bucket is at most 1/128 of its values wide, whatever they are, and a
//! histogram has one size. Two of them are added bucket by bucket.

use alloc::boxed::Box;
use alloc::vec;

/// Bits of a value that are kept.
const BITS: u32 = 8;
/// Values below this have a bucket of their own.
const EXACT: u64 = 1 << BITS;
/// Buckets of each power of two above.
const HALF: usize = 1 << (BITS - 1);
/// Buckets in all: one for each exact value, then [`HALF`] for each power of two up to 2^63.
const BUCKETS: usize = EXACT as usize + (u64::BITS - BITS) as usize * HALF;

/// How often each value was seen, in nanoseconds or whatever else is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty one: 58 KiB.
    pub fn new() -> Self {
        let buckets = vec![0; BUCKETS].into_boxed_slice();
        Self { buckets, count: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.buckets[bucket_of(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (here, there) in self.buckets.iter_mut().zip(&other.buckets) {
            *here += there;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least value, exactly; 0 if there is none.
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The greatest value, exactly; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The arithmetic mean, rounded down; 0 if there is no value.
    pub fn mean(&self) -> u64 {
        (self.sum / u128::from(self.count.max(1))) as u64
    }

    /// A value that at least `per_mille` of 1000 of all values do not exceed: the greatest one that its bucket can hold, so the
    /// true one is at most 1/128 smaller. 0 if there is none.
    pub fn per_mille(&self, per_mille: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_of(bucket).clamp(self.min, self.max);
            }
        }
        0
    }
}

/// The bucket of a value.
#[inline]
fn bucket_of(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    // The value's highest BITS bits are between HALF and EXACT.
    let shift = u64::BITS - BITS - value.leading_zeros();
    (value >> shift) as usize + shift as usize * HALF
}

/// The greatest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < EXACT as usize {
        return bucket as u64;
    }
    let shift = (bucket / HALF - 1) as u32;
    let first = ((bucket - shift as usize * HALF) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(next), bucket, "the first value of bucket {bucket}");
            let last = last_of(bucket);
            assert_eq!(bucket_of(last), bucket, "the last value of bucket {bucket}");
            assert!(last - next <= next / 128, "bucket {bucket} is {next}..={last}");
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the last number");
    }

    #[test]
    fn empty_histogram_is_all_zero() {
        let histogram = Histogram::new();
        let values = [histogram.min(), histogram.max(), histogram.mean(), histogram.per_mille(500)];
        assert_eq!((values, histogram.count()), ([0; 4], 0));
    }
}
