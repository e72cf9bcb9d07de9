//! The histogram of a probe: four buckets for each power of two, so that a value is known to a fifth of itself, as the code in
//! the guest counts it.

use serde::{Deserialize, Serialize};

/// How many buckets there are.
pub(crate) const BUCKETS: usize = 192;
/// The bucket of what is longer than all others: a day, and differences of clocks that do not agree.
pub(crate) const BEYOND: usize = BUCKETS - 1;
/// The highest power of two that has buckets of its own.
pub(crate) const POWERS: u32 = 47;

/// The bucket that a value is counted in: what the code in the guest does.
#[cfg(test)]
pub(crate) fn bucket_of(value: u64) -> usize {
    match value.checked_ilog2() {
        None | Some(0 | 1) => value as usize,
        Some(power) if power > POWERS => BEYOND,
        Some(power) => (power as usize - 2) * 4 + (value >> (power - 2)) as usize,
    }
}

/// The least value of a bucket.
pub(crate) fn least_of(bucket: usize) -> u64 {
    match bucket {
        0..4 => bucket as u64,
        BEYOND.. => 1 << (POWERS + 1),
        _ => (4 + bucket as u64 % 4) << (bucket / 4 - 1),
    }
}

/// A bucket with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The least value that is counted here.
    pub least: u64,
    /// The least value that is not any more; `None` for the last bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<u64>,
    /// How many there were.
    pub count: u64,
}

/// The buckets that have something in them, in ascending order.
pub(crate) fn buckets(counts: &[u64; BUCKETS]) -> Vec<Bucket> {
    let full = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let bucket = |(bucket, &count): (usize, &u64)| Bucket {
        least: least_of(bucket),
        below: (bucket < BEYOND).then(|| least_of(bucket + 1)),
        count,
    };
    full.map(bucket).collect()
}

/// A value that `share` of all are not above, as far as the buckets tell: the upper end of one.
pub fn percentile(buckets: &[Bucket], share: f64) -> Option<u64> {
    let all: u64 = buckets.iter().map(|bucket| bucket.count).fold(0, u64::saturating_add);
    let wanted = (all as f64 * share).ceil().max(1.0) as u64;
    let mut so_far = 0u64;
    let found = buckets.iter().find(|bucket| {
        so_far = so_far.saturating_add(bucket.count);
        so_far >= wanted
    });
    found.map(|bucket| bucket.below.map_or(bucket.least, |below| below - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let powers =
            (0..64).flat_map(|power| (0..64u64).map(move |part| (1u64 << power) | part << power >> 6));
        for value in (0..5000).chain(powers).chain([u64::MAX]) {
            let bucket = bucket_of(value);
            assert!(least_of(bucket) <= value, "{value}: bucket {bucket} from {}", least_of(bucket));
            assert!(bucket == BEYOND || value < least_of(bucket + 1), "{value}: bucket {bucket}");
        }
    }

    #[test]
    fn buckets_follow_each_other_and_are_no_wider_than_a_quarter() {
        for bucket in 4..188 {
            let (least, below) = (least_of(bucket), least_of(bucket + 1));
            assert!(least < below && (below - least) * 4 <= least, "{bucket}: {least} to {below}");
        }
    }

    #[test]
    fn percentile_is_the_upper_end_of_the_bucket_that_reaches_it() {
        let mut counts = [0; BUCKETS];
        counts[bucket_of(100)] = 90;
        counts[bucket_of(1000)] = 9;
        counts[bucket_of(u64::MAX)] = 1;
        let buckets = buckets(&counts);
        assert_eq!(buckets.len(), 3);
        assert_eq!(percentile(&buckets, 0.5), Some(111));
        assert_eq!(percentile(&buckets, 0.99), Some(1023));
        assert_eq!(percentile(&buckets, 1.0), Some(1 << 48));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
